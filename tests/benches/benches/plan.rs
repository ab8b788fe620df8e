//! The plan: what it costs to decide about one stream, with an empty and with a full ledger, and with many policies.

#![allow(missing_docs, reason = "the macros of criterion make public functions")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use stream_encryption_api::ledger::{Owner, StreamLedgerSpec};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::Mode;
use stream_encryption_core::model::arn::{AwsAccount, StreamArn};
use stream_encryption_core::model::aws_error::Accepted;
use stream_encryption_core::model::decision::{DecisionInput, LastObservation, Ownership, decide};
use stream_encryption_core::model::desired::{DesiredEncryption, DesiredState};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::ledger::{self, PlannedCall};
use stream_encryption_core::model::observation::Observation;
use stream_encryption_core::model::permission::{EffectivePolicy, Policy};

const ACCOUNT: &str = "111122223333";

/// Returns a ledger with this number of accepted calls, one in each hour.
fn ledger(stream: &StreamArn, calls: i64, now: Timestamp) -> StreamLedgerSpec {
    let owner = Owner { namespace: "data".into(), name: "orders".into(), uid: "uid-1".into() };
    let call = PlannedCall {
        target: Key::AwsOwned.target(),
        desired_target: Key::AwsOwned.target(),
        retry: None,
        correction: false,
        after_failure: false,
    };
    (0..calls).fold(ledger::new(stream, owner), |ledger, number| {
        let at = now - SignedDuration::from_hours(calls - number);
        let (reserved, id) = ledger::reserve(&ledger, &call, at);
        ledger::record_outcome(&reserved, &id, Ok(&Accepted::default()), at)
    })
}

fn permission(policies: usize) -> EffectivePolicy {
    let account = ACCOUNT.parse().expect("an account");
    let own = AwsAccount { account, partition: "aws".parse().expect("a partition") };
    let policy = || Policy::read(&StreamEncryptionPolicySpec::own_account()).0;
    EffectivePolicy::of((0..policies).filter_map(|_| policy()).collect(), own)
}

fn plan(criterion: &mut Criterion) {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
    let stream: StreamArn =
        format!("arn:aws:firehose:eu-west-1:{ACCOUNT}:deliverystream/orders").parse().expect("an ARN");
    let desired = DesiredState {
        encryption: DesiredEncryption::AnyKey,
        key_problem: None,
        mode: Mode::Enforce,
        suspended: false,
        disable_on_deletion: false,
        deleting: false,
        verify: false,
        verified: None,
        retry: None,
        key_reference: None,
    };
    let observation = Observation::Off;
    let mut group = criterion.benchmark_group("plan of a plaintext stream");
    for (name, calls, policies) in
        [("empty ledger", 0, 1), ("ledger with 20 calls", 20, 1), ("100 policies", 0, 100)]
    {
        let (ledger, permission) = (ledger(&stream, calls, now), permission(policies));
        let input = DecisionInput {
            now,
            stream: &stream,
            desired: &desired,
            permission: &permission,
            ownership: Ownership::Owned,
            other_owner: None,
            ledger: &ledger,
            last_observation: LastObservation::Described(now.into(), &observation),
            active_key_problem: None,
            session_age: None,
            last_reason: None,
            drift_interval: SignedDuration::from_mins(10),
            expected_change: SignedDuration::ZERO,
            is_encryption_reported: true,
        };
        group.bench_function(name, |bencher| bencher.iter(|| decide(black_box(&input))));
    }
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
