//! What users and the operator do to Kubernetes, as values: drawn at random here, carried out by `sides`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use proptest::prelude::*;
use proptest::sample::select;
use stream_encryption_operator::api::ledger::{
    Action, Attempts, Call, InForce, Outcome, Owner, StreamLedgerSpec, Target,
};
use stream_encryption_operator::api::stream_encryption::{
    Calls, DeletionPolicy, Drift, EncryptionStatus, Failure, KeyReference, KeyStatus, KeyType, PreviousKey,
    Service, StreamEncryptionSpec, StreamEncryptionStatus, StreamReference, StreamStatus, Verify,
};

/// Resources and ledgers of each case.
pub(crate) const OBJECTS: usize = 2;
/// Specs of resources, statuses, and specs of ledgers to choose from.
pub(crate) const SPECS: usize = 7;
pub(crate) const STATUSES: usize = 5;
pub(crate) const LEDGER_SPECS: usize = 13;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/4b000000-0000-4000-8000-000000000001";

/// One thing that somebody does. The first number tells the object, `fresh` whether it is read just before; else what was
/// last read or written counts, however old.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// A user applies one of the specs.
    Apply(usize, usize),
    /// A user asks for a try.
    Annotate(usize, usize),
    /// A user deletes the resource.
    Delete(usize),
    /// The operator reads the resource.
    Read(usize),
    /// The operator writes one of the statuses.
    Status { of: usize, status: usize, fresh: bool },
    /// The operator sets its finalizer, or takes it away.
    Finalizer { of: usize, present: bool, fresh: bool },
    /// The operator reads the ledger.
    ReadLedger(usize),
    /// The operator makes the ledger.
    Create(usize, usize),
    /// The operator replaces it.
    Replace { ledger: usize, spec: usize, fresh: bool },
    /// The operator deletes it.
    DeleteLedger { ledger: usize, fresh: bool },
    /// Somebody deletes it, whatever its version.
    Lose(usize),
}

/// Any of them.
pub(crate) fn act() -> impl Strategy<Value = Act> {
    let object = || 0..OBJECTS;
    // Most of what is written is right; each wrong spec of a ledger is one of the later ones.
    let ledger_spec = || prop_oneof![3 => 0..4_usize, 1 => 4..LEDGER_SPECS];
    let fresh = || select(vec![true, true, false]);
    prop_oneof![
        4 => (object(), 0..SPECS).prop_map(|(of, spec)| Act::Apply(of, spec)),
        2 => (object(), 0..2_usize).prop_map(|(of, retry)| Act::Annotate(of, retry)),
        2 => object().prop_map(Act::Delete),
        1 => object().prop_map(Act::Read),
        4 => (object(), 0..STATUSES, fresh()).prop_map(|(of, status, fresh)| Act::Status { of, status, fresh }),
        5 => (object(), select(vec![true, true, false]), fresh())
            .prop_map(|(of, present, fresh)| Act::Finalizer { of, present, fresh }),
        1 => object().prop_map(Act::ReadLedger),
        3 => (object(), ledger_spec()).prop_map(|(ledger, spec)| Act::Create(ledger, spec)),
        5 => (object(), ledger_spec(), fresh())
            .prop_map(|(ledger, spec, fresh)| Act::Replace { ledger, spec, fresh }),
        2 => (object(), fresh()).prop_map(|(ledger, fresh)| Act::DeleteLedger { ledger, fresh }),
        1 => object().prop_map(Act::Lose),
    ]
}

/// A time with more digits than Kubernetes keeps.
fn time() -> Timestamp {
    Timestamp::constant(1_795_237_910, 123_456_789)
}

fn stream(name: &str) -> StreamReference {
    StreamReference {
        arn: Some(format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/{name}")),
        ..StreamReference::default()
    }
}

/// The specs of users: the later ones are refused, always or once there is one of another stream.
pub(crate) fn spec(number: usize) -> StreamEncryptionSpec {
    let plain: StreamEncryptionSpec =
        serde_json::from_value(serde_json::json!({ "stream": stream("orders") })).expect("a spec");
    let customer = KeyReference {
        kind: KeyType::CustomerManaged,
        arn: Some(KEY.to_owned()),
        alias: None,
        reference: None,
    };
    match number {
        0 => plain,
        1 => StreamEncryptionSpec { key: Some(customer), ..plain },
        2 => StreamEncryptionSpec { deletion_policy: DeletionPolicy::Disable, ..plain },
        3 => StreamEncryptionSpec { suspend: true, verify: Some(Verify { put_record: true }), ..plain },
        4 => StreamEncryptionSpec { drift: Drift::Report, ..plain },
        5 => StreamEncryptionSpec { stream: stream("payments"), ..plain },
        _ => StreamEncryptionSpec { drift: Drift::Report, deletion_policy: DeletionPolicy::Disable, ..plain },
    }
}

/// The statuses of the operator: some that say little, one that says everything, and some with a part of it. None is empty:
/// the operator always writes conditions, and Kubernetes refuses an applied status that leaves nothing of an earlier one.
pub(crate) fn status(number: usize) -> StreamEncryptionStatus {
    let condition = |kind: &str, reason: &str| Condition {
        last_transition_time: Time(time()),
        message: "in words".to_owned(),
        observed_generation: Some(1),
        reason: reason.to_owned(),
        status: "True".to_owned(),
        type_: kind.to_owned(),
    };
    let key = KeyStatus { kind: KeyType::CustomerManaged, arn: Some(KEY.to_owned()) };
    let full = StreamEncryptionStatus {
        observed_generation: Some(1),
        encryption_status: Some(EncryptionStatus::EnablingFailed),
        stream: Some(StreamStatus {
            arn: Some("arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".to_owned()),
            service: Service::Firehose,
            account: Some("111122223333".to_owned()),
            region: "eu-west-1".to_owned(),
            name: "orders".to_owned(),
            source: Some("DirectPut".to_owned()),
            state: Some("ACTIVE".to_owned()),
        }),
        key: Some(key.clone()),
        key_in_force: Some(key),
        previous_key: Some(PreviousKey { arn: KEY.to_owned(), needed_until: Time(time()) }),
        failure: Some(Failure {
            kind: "KMS_ACCESS_DENIED".to_owned(),
            message: "in words".to_owned(),
            time: Time(time()),
            attempts: 3,
        }),
        calls: Some(Calls { used: 3, limit: 20, next_free: Some(Time(time())) }),
        next_attempt_time: Some(Time(time())),
        encrypted_since: Some(Time(time())),
        plain_text_since: None,
        active_key_unusable_since_time: None,
        last_describe_time: Some(Time(time())),
        suspended_since_time: Some(Time(time())),
        last_handled_retry: Some("monday".to_owned()),
        verified_time: Some(Time(time())),
        conditions: vec![condition("Ready", "KeyAccessDenied"), condition("Stalled", "KeyAccessDenied")],
    };
    match number {
        0 => StreamEncryptionStatus { observed_generation: Some(1), ..StreamEncryptionStatus::default() },
        1 => full,
        2 => StreamEncryptionStatus { conditions: vec![condition("Ready", "Encrypted")], ..full },
        3 => StreamEncryptionStatus {
            conditions: vec![condition("Stalled", "KeyAccessDenied"), condition("Ready", "KeyAccessDenied")],
            failure: None,
            ..full
        },
        _ => StreamEncryptionStatus { observed_generation: Some(2), ..StreamEncryptionStatus::default() },
    }
}

/// The specs of ledgers: from the fourth on each is at the edge of what the schema takes, or beyond it.
pub(crate) fn ledger_spec(number: usize) -> StreamLedgerSpec {
    let stream_arn = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".to_owned();
    let key = KeyStatus { kind: KeyType::CustomerManaged, arn: Some(KEY.to_owned()) };
    let target = Target { action: Action::Start, key: Some(key.clone()) };
    let call = |id: String, code: Option<String>| Call {
        id,
        target: target.clone(),
        time: MicroTime(time()),
        outcome: if code.is_some() { Outcome::Refused } else { Outcome::Pending },
        code,
        correction: false,
        after_failure: true,
        confirmed: true,
        retry: Some("ü".repeat(256)),
    };
    let calls = |count: usize| (0..count).map(|n| call(n.to_string(), None)).collect();
    let attempts = |reason: usize, retry: usize| Attempts {
        count: 1,
        not_before: MicroTime(time()),
        target: target.clone(),
        reason: Some("ü".repeat(reason)),
        retry: Some("ü".repeat(retry)),
        key_was_unusable: true,
    };
    let empty = StreamLedgerSpec {
        stream_arn,
        owner: Owner { namespace: "data".to_owned(), name: "orders".to_owned(), uid: "1".to_owned() },
        stream_created: None,
        calls: Vec::new(),
        in_force: None,
        satisfied: None,
        attempts: None,
    };
    let in_force =
        InForce { key: Some(key), since: MicroTime(time()), encrypted_since: Some(MicroTime(time())) };
    match number {
        0 => empty,
        1 => StreamLedgerSpec { calls: calls(2), ..empty },
        2 => StreamLedgerSpec {
            stream_created: Some(MicroTime(time())),
            calls: vec![call("1".to_owned(), Some("LimitExceededException".to_owned()))],
            in_force: Some(in_force),
            satisfied: Some(target.clone()),
            attempts: Some(attempts(1, 1)),
            ..empty
        },
        3 => StreamLedgerSpec { attempts: Some(attempts(64, 256)), ..empty },
        4 => StreamLedgerSpec { stream_arn: "arn:of:another:stream".to_owned(), ..empty },
        5 => StreamLedgerSpec { stream_arn: String::new(), ..empty },
        6 => StreamLedgerSpec { stream_arn: "x".repeat(257), ..empty },
        7 => StreamLedgerSpec { calls: calls(256), ..empty },
        8 => StreamLedgerSpec { calls: calls(257), ..empty },
        9 => StreamLedgerSpec { calls: vec![call("i".repeat(65), None)], ..empty },
        10 => StreamLedgerSpec { calls: vec![call("1".to_owned(), Some("c".repeat(129)))], ..empty },
        11 => StreamLedgerSpec { attempts: Some(attempts(65, 1)), ..empty },
        _ => StreamLedgerSpec { attempts: Some(attempts(1, 257)), ..empty },
    }
}
