//! The form of an event: the record of `CloudTrail` for one call, in the envelope of `EventBridge`.
//!
//! Pure. It only formats facts that others decided; it must never decide whether a call makes an event. The
//! members of a record are those of
//! <https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>;
//! `tests/aws/tests/world/events.rs` compares them with a recorded event.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::world::log::{Principal, Session};
use crate::world::request::{AwsError, Request, Service};

/// The facts of one call.
pub(super) struct Facts<'a> {
    pub(super) at: Timestamp,
    pub(super) request: &'a Request,
    pub(super) principal: &'a Principal,
    pub(super) account: &'a str,
    pub(super) region: &'a str,
    /// The `User-Agent` header; empty for callers in this process.
    pub(super) user_agent: &'a str,
    /// The error that the call returned.
    pub(super) error: Option<&'a AwsError>,
    pub(super) request_id: &'a str,
    /// The number of the event, from which its two ids are made.
    pub(super) number: u64,
}

/// Returns the event of a call.
pub(super) fn of_call(facts: &Facts<'_>) -> Value {
    let source = format!("aws.{}", facts.request.service);
    let place = Place { at: facts.at, account: facts.account, region: facts.region, number: facts.number };
    place.envelope("AWS API Call via CloudTrail", &source, &json!([]), &detail(facts))
}

/// Where and when an event is made.
pub(super) struct Place<'a> {
    pub(super) at: Timestamp,
    pub(super) account: &'a str,
    pub(super) region: &'a str,
    pub(super) number: u64,
}

impl Place<'_> {
    /// Returns the event of a scheduled rule, which only proves that events arrive.
    pub(super) fn heartbeat(&self) -> Value {
        let rule = format!("arn:aws:events:{}:{}:rule/heartbeat", self.region, self.account);
        self.envelope("Scheduled Event", "aws.events", &json!([rule]), &json!({}))
    }

    fn envelope(&self, kind: &str, source: &str, resources: &Value, detail: &Value) -> Value {
        json!({
            "version": "0",
            "id": format!("00000000-0000-4000-b000-{:012x}", self.number),
            "detail-type": kind,
            "source": source,
            "account": self.account,
            "time": seconds(self.at),
            "region": self.region,
            "resources": resources,
            "detail": detail,
        })
    }
}

fn detail(facts: &Facts<'_>) -> Value {
    let request = facts.request;
    let user_agent = if facts.user_agent.is_empty() { "simulated-aws" } else { facts.user_agent };
    let mut detail = json!({
        "eventVersion": "1.11",
        "userIdentity": identity(facts.principal, facts.account),
        "eventTime": seconds(facts.at),
        "eventSource": format!("{}.amazonaws.com", request.service),
        "eventName": request.operation,
        "awsRegion": facts.region,
        "sourceIPAddress": "192.0.2.1",
        "userAgent": user_agent,
        "requestParameters": parameters(&request.body),
        "responseElements": null,
        "requestID": facts.request_id,
        "eventID": format!("00000000-0000-4000-a000-{:012x}", facts.number),
        "readOnly": false,
        "eventType": "AwsApiCall",
        "managementEvent": true,
        "recipientAccountId": facts.account,
        "eventCategory": "Management",
    });
    if let Some((kind, arn)) = resource(facts) {
        detail["resources"] = json!([{ "accountId": facts.account, "type": kind, "ARN": arn }]);
    }
    if let Some(error) = facts.error {
        detail["errorCode"] = json!(error.code);
        detail["errorMessage"] = json!(error.message);
    }
    detail
}

/// Returns the type and ARN of the resource. A record of Firehose has none, nor has a call that names a key
/// by an alias.
fn resource(facts: &Facts<'_>) -> Option<(&'static str, String)> {
    let target = facts.request.target();
    let text = |member: &str| facts.request.body.get(member).and_then(Value::as_str);
    let (service, kind, folder, arn) = match facts.request.service {
        Service::Kinesis => ("kinesis", "AWS::Kinesis::Stream", "stream", text("StreamARN")),
        Service::Kms => ("kms", "AWS::KMS::Key", "key", text("KeyId").filter(|id| id.starts_with("arn:"))),
        Service::Firehose | Service::Sts | Service::Sqs => return None,
    };
    if target.is_empty() || target.contains("alias/") {
        return None;
    }
    let (region, account) = (facts.region, facts.account);
    let named = || format!("arn:aws:{service}:{region}:{account}:{folder}/{target}");
    Some((kind, arn.map_or_else(named, str::to_owned)))
}

fn identity(principal: &Principal, account: &str) -> Value {
    let Principal { access_key, arn, session } = principal;
    let Some(session) = session else {
        return json!({
            "type": "IAMUser",
            "principalId": "AIDAEXAMPLE",
            "arn": arn,
            "accountId": account,
            "accessKeyId": access_key,
            "userName": last_part(arn),
        });
    };
    let Session { role, name, issued, .. } = session;
    json!({
        "type": "AssumedRole",
        "principalId": format!("AROAEXAMPLE:{name}"),
        "arn": arn,
        "accountId": account,
        "accessKeyId": access_key,
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": "AROAEXAMPLE",
                "arn": role,
                "accountId": account,
                "userName": last_part(role),
            },
            "attributes": { "creationDate": seconds(*issued), "mfaAuthenticated": "false" },
        },
    })
}

fn last_part(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or_default()
}

/// Returns the request's members as `CloudTrail` writes them: each begins with a small letter. A map of tags
/// has keys of its own, which stay as they are.
fn parameters(body: &Value) -> Value {
    match body.as_object() {
        Some(members) if !members.is_empty() => uncapitalized(members),
        _ => Value::Null,
    }
}

fn uncapitalized(members: &Map<String, Value>) -> Value {
    let renamed = members.iter().map(|(name, value)| {
        let value = match value {
            Value::Object(members) if name != "Tags" => uncapitalized(members),
            other => other.clone(),
        };
        let mut name = name.clone();
        if let Some(first) = name.get_mut(..1) {
            first.make_ascii_lowercase();
        }
        (name, value)
    });
    Value::Object(renamed.collect())
}

/// Returns a time in whole seconds, as all times of an event.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
