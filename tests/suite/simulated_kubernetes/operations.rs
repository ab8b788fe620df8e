//! The operations of users and the operator on Kubernetes, as values: generated at random here, executed by
//! `sides`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use proptest::prelude::*;
use proptest::sample::select;
use stream_encryption_api::ledger::{
    Action, Attempts, Call, ExternalCall, KnownEncryption, Outcome, Owner, StreamLedgerSpec, Target,
};
use stream_encryption_api::stream_encryption::{
    Calls, DeletionPolicy, EncryptionStatus, Failure, KeyIdentity, KeyReference, KeyType, Mode, PreviousKey,
    Service, StreamEncryptionSpec, StreamEncryptionStatus, StreamReference, StreamStatus, Verification,
};

/// The number of resources and of ledgers in each case.
pub(crate) const OBJECTS: usize = 2;
/// The numbers of specs of resources, of statuses, and of specs of ledgers.
pub(crate) const SPECS: usize = 7;
pub(crate) const STATUSES: usize = 5;
pub(crate) const LEDGER_SPECS: usize = 18;

const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/4b000000-0000-4000-8000-000000000001";

/// One operation. The first number selects the object; with `fresh` the object is read immediately before,
/// otherwise the version that was last read or written is used, however old.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// A user applies one of the specs.
    Apply(usize, usize),
    /// A user requests a retry.
    Annotate(usize, usize),
    /// A user deletes the resource.
    Delete(usize),
    /// The operator reads the resource.
    Read(usize),
    /// The operator writes one of the statuses.
    Status {
        of: usize,
        status: usize,
        fresh: bool,
    },
    /// The operator sets its finalizer, or removes it.
    Finalizer {
        of: usize,
        present: bool,
        fresh: bool,
    },
    ReadLedger(usize),
    /// The operator creates the ledger.
    Create(usize, usize),
    Replace {
        ledger: usize,
        spec: usize,
        fresh: bool,
    },
    DeleteLedger {
        ledger: usize,
        fresh: bool,
    },
    /// Another user deletes it, regardless of its version.
    Lose(usize),
}

/// Generates an operation.
pub(crate) fn act() -> impl Strategy<Value = Act> {
    let object = || 0..OBJECTS;
    // Most values are valid; the invalid specs of a ledger are the later ones.
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

/// Returns a time with more digits than Kubernetes stores.
fn time() -> Timestamp {
    Timestamp::constant(1_795_237_910, 123_456_789)
}

fn stream(name: &str) -> StreamReference {
    StreamReference {
        arn: Some(format!("arn:aws:firehose:eu-west-1:111122223333:deliverystream/{name}")),
        ..StreamReference::default()
    }
}

/// Returns a spec of users: the later ones are rejected, always or if the resource has another stream
/// already.
pub(crate) fn spec(number: usize) -> StreamEncryptionSpec {
    let plain: StreamEncryptionSpec =
        serde_json::from_value(serde_json::json!({ "stream": stream("orders") })).expect("a spec");
    let customer = KeyReference {
        kind: KeyType::CustomerManaged,
        arn: Some(KEY.to_owned()),
        alias: None,
        object_ref: None,
    };
    match number {
        0 => plain,
        1 => StreamEncryptionSpec { key: Some(customer), ..plain },
        2 => StreamEncryptionSpec { deletion_policy: DeletionPolicy::Disable, ..plain },
        3 => StreamEncryptionSpec { suspend: true, verification: Verification::PutRecord, ..plain },
        4 => StreamEncryptionSpec { mode: Mode::Observe, ..plain },
        5 => StreamEncryptionSpec { stream: stream("payments"), ..plain },
        _ => StreamEncryptionSpec { mode: Mode::Observe, deletion_policy: DeletionPolicy::Disable, ..plain },
    }
}

/// Returns a status of the operator: some are sparse, one is complete, and some contain a part of it. None is
/// empty, because the operator always writes conditions, and Kubernetes rejects an applied status that would
/// remove all earlier fields.
pub(crate) fn status(number: usize) -> StreamEncryptionStatus {
    let condition = |kind: &str, reason: &str| Condition {
        last_transition_time: Time(time()),
        message: "in words".to_owned(),
        observed_generation: Some(1),
        reason: reason.to_owned(),
        status: "True".to_owned(),
        type_: kind.to_owned(),
    };
    let key = KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(KEY.to_owned()) };
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
        desired_key: Some(key.clone()),
        active_key: Some(key),
        previous_key: Some(PreviousKey { arn: KEY.to_owned(), required_until_time: Time(time()) }),
        failure: Some(Failure {
            kind: "KMS_ACCESS_DENIED".to_owned(),
            message: "in words".to_owned(),
            last_failure_time: Time(time()),
            attempts: 3,
        }),
        calls: Some(Calls { used: 3, external: Some(1), limit: 20, next_available_time: Some(Time(time())) }),
        next_attempt_time: Some(Time(time())),
        encrypted_since_time: Some(Time(time())),
        plaintext_since_time: None,
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

/// Returns a spec of a ledger: from the fourth on, each is at a bound of the schema, or beyond it.
pub(crate) fn ledger_spec(number: usize) -> StreamLedgerSpec {
    let stream_arn = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders".to_owned();
    let key = KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(KEY.to_owned()) };
    let target = Target { action: Action::Start, key: Some(key.clone()) };
    let call = |id: String, code: Option<String>| Call {
        id,
        target: target.clone(),
        time: MicroTime(time()),
        outcome: if code.is_some() { Outcome::Refused } else { Outcome::Pending },
        code,
        request_id: Some("r".repeat(128)),
        correction: false,
        after_failure: true,
        confirmed: true,
        retry: Some("ü".repeat(256)),
    };
    let calls = |count: usize| (0..count).map(|n| call(n.to_string(), None)).collect();
    let external = |id: &str, of: usize| ExternalCall {
        event_id: id.to_owned(),
        action: Action::Stop,
        time: MicroTime(time()),
        caller_type: Some("t".repeat(of)),
        code: Some("c".repeat(of)),
    };
    let externals = |count: usize| (0..count).map(|n| external(&n.to_string(), 32)).collect();
    let attempts = |reason: usize, retry: usize| Attempts {
        count: 1,
        not_before_time: MicroTime(time()),
        target: target.clone(),
        reason: Some("ü".repeat(reason)),
        retry: Some("ü".repeat(retry)),
        key_was_unusable: true,
    };
    let empty = StreamLedgerSpec {
        stream_arn,
        owner: Owner { namespace: "data".to_owned(), name: "orders".to_owned(), uid: "1".to_owned() },
        stream_creation_time: None,
        calls: Vec::new(),
        external_calls: Vec::new(),
        known_encryption: None,
        satisfied: None,
        attempts: None,
    };
    let active_key = KnownEncryption {
        key: Some(key),
        since_time: MicroTime(time()),
        encrypted_since_time: Some(MicroTime(time())),
    };
    match number {
        0 => empty,
        1 => StreamLedgerSpec { calls: calls(2), ..empty },
        2 => StreamLedgerSpec {
            stream_creation_time: Some(MicroTime(time())),
            calls: vec![call("1".to_owned(), Some("LimitExceededException".to_owned()))],
            known_encryption: Some(active_key),
            external_calls: externals(64),
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
        12 => StreamLedgerSpec { external_calls: externals(65), ..empty },
        13 => StreamLedgerSpec { external_calls: vec![external("", 1)], ..empty },
        14 => StreamLedgerSpec { external_calls: vec![external(&"e".repeat(65), 1)], ..empty },
        15 => StreamLedgerSpec { external_calls: vec![external("1", 33)], ..empty },
        16 => {
            let call = Call { request_id: Some("r".repeat(129)), ..call("1".to_owned(), None) };
            StreamLedgerSpec { calls: vec![call], ..empty }
        }
        _ => StreamLedgerSpec { attempts: Some(attempts(1, 257)), ..empty },
    }
}
