//! The policies of the queue of AWS's events: the permissions of the operator's role on the queue and on the key that
//! encrypts it, and the policy of the queue itself.
//!
//! The policy of the queue decides whose messages the operator may take for events of AWS. It allows only EventBridge to
//! send, only for the given rules, and denies every sender that is not an AWS service, whatever that sender's own
//! policies allow.

use std::str::FromStr;

use stream_encryption_core::model::arn::{Account, Arn, KeyArn, Partition, Region, is_name};
use stream_encryption_core::model::service::Operation;

use super::document::{DocumentPrincipal, PolicyDocument, Statement};
use super::{DECRYPT, via_service};

/// The action of every request that sends messages, alone or in batches.
const SEND_MESSAGE: &str = "sqs:SendMessage";
/// The operations of the operator on the queue. `GetQueueAttributes` is not one of them: `doctor` sends it, with the
/// credentials of the person who runs it.
const OF_OPERATOR: [Operation; 2] = [Operation::ReceiveMessage, Operation::DeleteMessage];
/// The service that delivers events to a queue.
const EVENT_BRIDGE: &str = "events.amazonaws.com";
/// The condition key that holds whether the sender is an AWS service
/// ([global condition keys](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html)).
const IS_AWS_SERVICE: &str = "aws:PrincipalIsAWSService";

/// The ARN of an SQS queue: `arn:aws:sqs:REGION:ACCOUNT:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueArn(Located);

/// The ARN of an EventBridge rule: `arn:aws:events:REGION:ACCOUNT:rule/NAME`, or `…:rule/BUS/NAME` of an event bus other
/// than the default one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleArn(Located);

/// An ARN with its account and region.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Located {
    text: String,
    account: Account,
    region: Region,
}

/// The error of a text, or of a rule or key that does not fit to the queue. Its message states what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventsError {
    /// Not a queue.
    #[error(
        "invalid queue {0:?}: expected arn:aws:sqs:REGION:ACCOUNT:NAME of a standard queue, as `aws sqs get-queue-attributes --attribute-names QueueArn` shows it"
    )]
    Queue(String),
    /// Not a rule.
    #[error(
        "invalid rule {0:?}: expected arn:aws:events:REGION:ACCOUNT:rule/NAME, as `aws events describe-rule` shows it"
    )]
    Rule(String),
    /// A rule of another account or region.
    #[error(
        "rule {0} is in another account or region than the queue: let it forward to an event bus beside the queue, and give the rule of that bus"
    )]
    Elsewhere(String),
    /// A key of another region.
    #[error("key {0} is in another region than the queue; SQS uses only keys of its own region")]
    KeyElsewhere(String),
}

/// Returns what the operator's role is allowed on the queue, and on the customer managed key that encrypts the queue, if
/// there is one.
pub fn policy(queue: &QueueArn, key: Option<&KeyArn>) -> Result<PolicyDocument, EventsError> {
    let Located { text, region, .. } = &queue.0;
    if let Some(other) = key.filter(|key| key.region != *region) {
        return Err(EventsError::KeyElsewhere(other.to_string()));
    }
    let receive =
        Statement::allow("ReceiveEvents", OF_OPERATOR.into_iter().map(Operation::iam_action))
            .on([text].into_iter().collect());
    let decrypt = key.map(|key| {
        Statement::allow("DecryptEvents", [DECRYPT.name()]).on([key].into_iter().collect()).only_if(
            "StringEquals",
            "kms:ViaService",
            via_service("sqs", region),
        )
    });
    Ok(PolicyDocument::of(std::iter::once(receive).chain(decrypt).collect()))
}

/// Returns the policy of the queue: these rules may send to it, and nothing else may.
pub fn queue_policy(queue: &QueueArn, rules: &[RuleArn]) -> Result<PolicyDocument, EventsError> {
    let at = |located: &Located| (located.account.clone(), located.region.clone());
    if let Some(other) = rules.iter().find(|rule| at(&rule.0) != at(&queue.0)) {
        return Err(EventsError::Elsewhere(other.0.text.clone()));
    }
    let queue = || [&queue.0.text].into_iter().collect();
    Ok(PolicyDocument::of(vec![
        Statement::allow("AllowEventBridgeRules", [SEND_MESSAGE])
            .to(DocumentPrincipal::Service(EVENT_BRIDGE.to_owned()))
            .on(queue())
            .only_if("ArnEquals", "aws:SourceArn", rules.iter().map(|rule| &rule.0.text)),
        Statement::deny("DenyAllButAwsServices", [SEND_MESSAGE])
            .to(DocumentPrincipal::Everyone)
            .on(queue())
            .only_if("Bool", IS_AWS_SERVICE, ["false"]),
    ]))
}

/// Returns an ARN of this service whose resource is valid, with its account and region.
fn located(text: &str, service: &str, is_resource: impl Fn(&str) -> bool) -> Option<Located> {
    let arn = Arn::split(text).filter(|arn| arn.service == service && is_resource(arn.resource))?;
    let region: Region = arn.region.parse().ok()?;
    let partition: Partition = arn.partition.parse().ok()?;
    let account = arn.account.parse().ok()?;
    (region.partition() == partition).then(|| Located { text: text.to_owned(), account, region })
}

impl FromStr for QueueArn {
    type Err = EventsError;
    fn from_str(text: &str) -> Result<Self, EventsError> {
        // EventBridge's events need no order, and a queue with an order would hold one stream's events behind another's.
        let is_queue = |name: &str| is_name(name, 1..=80, b"-_");
        located(text, "sqs", is_queue).map(Self).ok_or_else(|| EventsError::Queue(text.to_owned()))
    }
}

impl FromStr for RuleArn {
    type Err = EventsError;
    fn from_str(text: &str) -> Result<Self, EventsError> {
        let is_rule = |resource: &str| {
            let Some(path) = resource.strip_prefix("rule/") else { return false };
            let (bus, name) = path.rsplit_once('/').unwrap_or(("default", path));
            is_name(bus, 1..=256, b"./-_") && is_name(name, 1..=64, b".-_")
        };
        located(text, "events", is_rule).map(Self).ok_or_else(|| EventsError::Rule(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const QUEUE: &str = "arn:aws:sqs:eu-west-1:111122223333:stream-encryption-events";
    const RULE: &str = "arn:aws:events:eu-west-1:111122223333:rule/stream-encryption-events";
    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    fn queue_policy_of(rules: &[&str]) -> Value {
        let rules: Vec<RuleArn> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        serde_json::to_value(queue_policy(&QUEUE.parse().unwrap(), &rules).unwrap()).unwrap()
    }

    #[test]
    fn role_may_receive_and_delete_but_never_send() {
        let policy = serde_json::to_value(policy(&QUEUE.parse().unwrap(), None).unwrap()).unwrap();
        let allowed = &policy["Statement"][0];
        assert_eq!(allowed["Action"], json!(["sqs:ReceiveMessage", "sqs:DeleteMessage"]));
        assert_eq!((&allowed["Effect"], &allowed["Resource"]), (&json!("Allow"), &json!(QUEUE)));
        assert_eq!(policy["Statement"].as_array().unwrap().len(), 1);
    }

    #[test]
    fn role_may_decrypt_with_the_key_only_through_sqs() {
        let chinese = |arn: &str| arn.replace("arn:aws:", "arn:aws-cn:").replace("eu-west-1", "cn-north-1");
        for (queue, key, names) in [
            (QUEUE.to_owned(), KEY.to_owned(), json!("sqs.eu-west-1.amazonaws.com")),
            (
                chinese(QUEUE),
                chinese(KEY),
                json!(["sqs.cn-north-1.amazonaws.com", "sqs.cn-north-1.amazonaws.com.cn"]),
            ),
        ] {
            let policy = policy(&queue.parse().unwrap(), Some(&key.parse().unwrap())).unwrap();
            let policy = serde_json::to_value(policy).unwrap();
            let allowed = &policy["Statement"][1];
            assert_eq!((&allowed["Action"], &allowed["Resource"]), (&json!("kms:Decrypt"), &json!(key)));
            assert_eq!(allowed["Condition"], json!({"StringEquals": {"kms:ViaService": names}}));
        }
    }

    #[test]
    fn key_of_another_region_than_the_queue_is_rejected() {
        let key: KeyArn = KEY.replace("eu-west-1", "us-east-1").parse().unwrap();
        let error = policy(&QUEUE.parse().unwrap(), Some(&key)).unwrap_err();
        assert_eq!(error, EventsError::KeyElsewhere(key.to_string()));
    }

    #[test]
    fn queue_policy_allows_given_rules_of_event_bridge_only() {
        let heartbeat = format!("{RULE}-heartbeat");
        for (rules, sources) in [(&[RULE][..], json!(RULE)), (&[RULE, &heartbeat], json!([RULE, heartbeat]))]
        {
            let policy = queue_policy_of(rules);
            let allowed = &policy["Statement"][0];
            assert_eq!(allowed["Effect"], "Allow");
            assert_eq!(allowed["Principal"], json!({"Service": "events.amazonaws.com"}));
            assert_eq!(allowed["Condition"], json!({"ArnEquals": {"aws:SourceArn": sources}}));
        }
    }

    #[test]
    fn queue_policy_denies_all_who_are_no_aws_service() {
        let denied = &queue_policy_of(&[RULE])["Statement"][1];
        assert_eq!(
            (&denied["Effect"], &denied["Principal"], &denied["Action"], &denied["Resource"]),
            (&json!("Deny"), &json!("*"), &json!("sqs:SendMessage"), &json!(QUEUE))
        );
        assert_eq!(denied["Condition"], json!({"Bool": {"aws:PrincipalIsAWSService": "false"}}));
    }

    #[test]
    fn rule_of_another_account_or_region_is_rejected() {
        let queue: QueueArn = QUEUE.parse().unwrap();
        for elsewhere in [("111122223333", "444455556666"), ("eu-west-1", "us-east-1")] {
            let rule: RuleArn = RULE.replace(elsewhere.0, elsewhere.1).parse().unwrap();
            let error = queue_policy(&queue, &[RULE.parse().unwrap(), rule]).unwrap_err();
            assert!(error.to_string().contains("forward to an event bus"), "{error}");
        }
    }

    #[test]
    fn rule_may_be_of_any_event_bus() {
        for rule in ["hub/events", "aws.partner/example.com/1/events", "events"] {
            let rule = format!("arn:aws:events:eu-west-1:111122223333:rule/{rule}");
            assert!(rule.parse::<RuleArn>().is_ok(), "{rule}");
        }
    }

    #[test]
    fn invalid_queue_or_rule_is_rejected() {
        for bad in [
            "",
            "https://sqs.eu-west-1.amazonaws.com/111122223333/events",
            "arn:aws:sqs:eu-west-1:1111:events",
            "arn:aws:sqs::111122223333:events",
            "arn:aws-cn:sqs:eu-west-1:111122223333:events",
            "arn:aws:sns:eu-west-1:111122223333:events",
            "arn:aws:sqs:eu-west-1:111122223333:events.fifo",
            "arn:aws:sqs:eu-west-1:111122223333:*",
        ] {
            assert!(bad.parse::<QueueArn>().is_err(), "{bad}");
        }
        for bad in [
            "events",
            "arn:aws:events:eu-west-1:111122223333:event-bus/default",
            "arn:aws:events:eu-west-1:111122223333:rule/",
            "arn:aws:events:eu-west-1:111122223333:rule/*",
            "arn:aws:events:eu-west-1::rule/events",
            "arn:aws:sqs:eu-west-1:111122223333:events",
        ] {
            assert!(bad.parse::<RuleArn>().is_err(), "{bad}");
        }
    }
}
