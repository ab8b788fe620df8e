//! Changes behind the operator's back that make events: what a person did to a stream, a key or an alias.
//!
//! A change needs no request and meets no check. Its event is that of the call that a person would have made,
//! by an IAM user. This module decides which call that is; it must never answer a request. The methods of
//! `World` that plant, set and remove make no events.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::key::{Key, KeyState};
use super::request::{Caller, Request, Service};
use super::state::Context;
use super::stream::{EncryptionStatus, PlantedStream, Snapshot, StreamId, StreamKey};
use super::{World, stream_id};

/// The access key id of the person.
pub const OUTSIDER: &str = "AKIASOMEBODYELSE";

impl World {
    /// Makes the event of a call by [`OUTSIDER`], without the call. Does nothing if events are off.
    pub fn announce(&mut self, now: Timestamp, account: &str, region: &str, request: &Request) {
        if !self.events.is_on() {
            return;
        }
        let mut principal = self.state.principal(&Caller::new(OUTSIDER));
        principal.arn = format!("arn:aws:iam::{account}:user/{OUTSIDER}");
        let context = Context {
            now,
            principal,
            account: account.to_owned(),
            region: region.to_owned(),
            request,
            no_op: false,
            fails: None,
            takes: None,
            stuck: false,
            lag: SignedDuration::ZERO,
            counted: false,
        };
        // These request ids differ from those of all answers.
        let request_id = format!("00000000-0000-4000-9000-{:012x}", self.events_made() + 1);
        self.make_event(&context, "", &request_id, None);
    }

    /// Plants a stream; its event is a Create.
    pub fn create_stream(&mut self, now: Timestamp, planted: PlantedStream) -> String {
        let arn = self.plant_stream(planted);
        if let Some(id) = stream_id(&arn) {
            self.announce_stream(now, &id, &life(&id, "Create"));
        }
        arn
    }

    /// Removes a stream immediately; its event is a Delete.
    pub fn delete_stream(&mut self, now: Timestamp, arn: &str) -> bool {
        let removed = self.remove_stream(arn);
        if let Some(id) = stream_id(arn).filter(|_| removed) {
            self.announce_stream(now, &id, &life(&id, "Delete"));
        }
        removed
    }

    /// Sets the state of a stream from now on. A change of its encryption has the event of a Start or a Stop.
    pub fn change_stream(&mut self, now: Timestamp, arn: &str, state: Snapshot) -> bool {
        let Some((id, before)) = stream_id(arn).zip(self.stream(arn, now).cloned()) else { return false };
        let request = encryption_change(&id, &before, &state);
        let changed = self.set_stream(now, arn, state);
        if let Some(request) = request {
            self.announce_stream(now, &id, &request);
        }
        changed
    }

    /// Changes a key. A change of its state or policy has the events of the calls that make it.
    pub fn change_key(&mut self, now: Timestamp, arn: &str, change: impl FnOnce(&mut Key)) -> bool {
        let Some(key) = self.key_mut(arn) else { return false };
        let before = key.clone();
        change(key);
        for request in key_change(&before, &key.clone()) {
            self.announce(now, &before.account, &before.region, &request);
        }
        true
    }

    /// Removes a key immediately; its event is a `ScheduleKeyDeletion`, unless it was pending deletion.
    pub fn delete_key(&mut self, now: Timestamp, arn: &str) -> bool {
        self.change_key(now, arn, |key| key.state = KeyState::PendingDeletion);
        self.remove_key(arn)
    }

    /// Creates or moves an alias, and returns its ARN; its event is a `CreateAlias` or `UpdateAlias`.
    pub fn change_alias(&mut self, now: Timestamp, alias: &str, key_arn: &str) -> String {
        let known = self.state.keys.alias(&alias_arn(alias, key_arn)).is_some();
        let arn = self.plant_alias(alias, key_arn);
        let body = json!({ "AliasName": alias, "TargetKeyId": key_arn });
        let operation = if known { "UpdateAlias" } else { "CreateAlias" };
        self.announce_key(now, key_arn, &Request::kms(operation, body));
        arn
    }

    /// Removes an alias by its ARN; its event is a `DeleteAlias`.
    pub fn delete_alias(&mut self, now: Timestamp, arn: &str) -> bool {
        let removed = self.state.keys.remove_alias(arn);
        if removed {
            let name = arn.splitn(6, ':').nth(5).unwrap_or_default();
            self.announce_key(now, arn, &Request::kms("DeleteAlias", json!({ "AliasName": name })));
        }
        removed
    }

    fn announce_stream(&mut self, now: Timestamp, id: &StreamId, request: &Request) {
        self.announce(now, &id.account, &id.region, request);
    }

    /// Announces a call in the account and region of an ARN of KMS.
    fn announce_key(&mut self, now: Timestamp, arn: &str, request: &Request) {
        let part = |at: usize| arn.split(':').nth(at).unwrap_or_default();
        self.announce(now, part(4), part(3), request);
    }
}

fn alias_arn(alias: &str, key_arn: &str) -> String {
    let prefix: Vec<&str> = key_arn.splitn(6, ':').take(5).collect();
    format!("{}:{alias}", prefix.join(":"))
}

/// Returns the Create or Delete of a stream.
fn life(id: &StreamId, verb: &str) -> Request {
    if id.service == Service::Firehose {
        Request::firehose(&format!("{verb}DeliveryStream"), json!({ "DeliveryStreamName": id.name }))
    } else {
        Request::kinesis(&format!("{verb}Stream"), json!({ "StreamName": id.name }))
    }
}

/// Returns the Start or Stop that leads from one state to the other; `None` if the encryption is the same.
fn encryption_change(id: &StreamId, before: &Snapshot, after: &Snapshot) -> Option<Request> {
    let (old, new) = (key_at_the_end(before), key_at_the_end(after));
    if old == new {
        return None;
    }
    let kinesis = |operation: &str, key: &StreamKey| {
        let given = match key {
            StreamKey::AwsOwned => "alias/aws/kinesis",
            StreamKey::Kms { given, .. } => given,
        };
        let body = json!({ "StreamARN": id.arn(), "EncryptionType": "KMS", "KeyId": given });
        Request::kinesis(operation, body)
    };
    Some(match (id.service, old, new) {
        (Service::Firehose, _, None) => {
            Request::firehose("StopDeliveryStreamEncryption", json!({ "DeliveryStreamName": id.name }))
        }
        (Service::Firehose, _, Some(key)) => {
            let block = match key.key_arn() {
                Some(arn) => json!({ "KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": arn }),
                None => json!({ "KeyType": "AWS_OWNED_CMK" }),
            };
            let body = json!({
                "DeliveryStreamName": id.name,
                "DeliveryStreamEncryptionConfigurationInput": block,
            });
            Request::firehose("StartDeliveryStreamEncryption", body)
        }
        (_, old, None) => kinesis("StopStreamEncryption", old?),
        (_, _, Some(key)) => kinesis("StartStreamEncryption", key),
    })
}

/// Returns the key that a stream has, or will have if the change in progress succeeds.
fn key_at_the_end(state: &Snapshot) -> Option<&StreamKey> {
    match state.encryption {
        EncryptionStatus::Enabling => state.requested_key.as_ref(),
        EncryptionStatus::Disabling => None,
        _ => state.active_key.as_ref(),
    }
}

/// Returns the calls that lead from one state and policy of a key to the other.
fn key_change(before: &Key, after: &Key) -> Vec<Request> {
    use KeyState::{Disabled, Enabled, PendingDeletion, PendingImport};
    let simple = |operation: &str| Request::kms(operation, json!({ "KeyId": before.arn }));
    let cancel = simple("CancelKeyDeletion");
    let mut calls = match (before.state, after.state) {
        (old, new) if old == new => vec![],
        (PendingDeletion, Disabled) => vec![cancel],
        (PendingDeletion, Enabled) => vec![cancel, simple("EnableKey")],
        // Key material is imported by another call.
        (PendingImport, Enabled) => vec![],
        (_, Enabled) => vec![simple("EnableKey")],
        (_, Disabled) => vec![simple("DisableKey")],
        (_, PendingDeletion) => {
            let body = json!({ "KeyId": before.arn, "PendingWindowInDays": 30 });
            vec![Request::kms("ScheduleKeyDeletion", body)]
        }
        _ => vec![],
    };
    if before.policy != after.policy {
        let policy = after.policy.to_string();
        let body = json!({ "KeyId": before.arn, "PolicyName": "default", "Policy": policy });
        calls.push(Request::kms("PutKeyPolicy", body));
    }
    calls
}
