//! Compares `simulation::store` with a real API server: the same operations of users and of the operator's
//! own `Cluster` must give the same answers, leave the same objects, and produce the same watch events.
//!
//! All cases share one cluster; each has a new namespace.

mod operations;
mod sides;
mod views;

use std::sync::atomic::{AtomicU32, Ordering};

use kube::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use test_cluster::TestCluster;
use tokio::runtime::Runtime;

use crate::harness::{client, own_cluster};
use operations::{Act, LEDGER_SPECS, SPECS, STATUSES, act};
use sides::{Model, Real};

const CASES: u32 = 40;

/// A cluster with the operator's CRDs and roles, and the clients of a user and of the operator.
struct Stage {
    runtime: Runtime,
    user: Client,
    operator: Client,
    // Dropped last, because the clients still use it.
    _cluster: TestCluster,
}

impl Stage {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        let (user, operator, cluster) = runtime.block_on(async {
            let (cluster, account) = own_cluster(&[]).await;
            let operator = client(&account).await;
            (client(cluster.kubeconfig()).await, operator, cluster)
        });
        Self { runtime, user, operator, _cluster: cluster }
    }

    /// Executes the operations on both sides and compares them.
    fn hold(&self, acts: &[Act]) -> Result<(), TestCaseError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("case-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.runtime.block_on(async {
            let mut real = Real::new(self.user.clone(), self.operator.clone(), &namespace).await;
            let mut model = Model::new(&namespace);
            for (at, act) in acts.iter().enumerate() {
                let (theirs, ours) = (real.act(*act).await, model.act(*act));
                prop_assert_eq!(ours, theirs, "the answers to {:?} at {} of {:?}", act, at, acts);
                let (theirs, ours) = (real.objects().await, model.objects());
                prop_assert_eq!(ours, theirs, "what {:?} leaves at {} of {:?}", act, at, acts);
            }
            prop_assert_eq!(model.changes(), real.changes().await, "watch events of {:?}", acts);
            Ok(())
        })
    }
}

/// Returns every spec after every other, every status after every other, and every ledger at each edge of its
/// schema.
fn every_pair() -> Vec<Vec<Act>> {
    let fresh = true;
    let specs = (0..SPECS).map(|first| {
        let after =
            (0..SPECS).flat_map(|second| [Act::Apply(0, first), Act::Apply(0, second), Act::Delete(0)]);
        after.collect()
    });
    let statuses = (0..STATUSES).map(|first| {
        let begin = [Act::Apply(0, 0), Act::Read(0)];
        let write = |status| Act::Status { of: 0, status, fresh: true };
        let pairs = (0..STATUSES).flat_map(|second| [write(first), write(second), write(second)]);
        begin.into_iter().chain(pairs).collect()
    });
    let made =
        (0..LEDGER_SPECS).flat_map(|spec| [Act::Create(0, spec), Act::DeleteLedger { ledger: 0, fresh }]);
    let replaced = (0..LEDGER_SPECS).flat_map(|spec| {
        [Act::Create(1, 1), Act::Replace { ledger: 1, spec, fresh }, Act::DeleteLedger { ledger: 1, fresh }]
    });
    specs.chain(statuses).chain([made.collect(), replaced.collect()]).collect()
}

/// Returns hand-written cases on which the operator's promises depend, and which random cases may miss.
fn by_hand() -> Vec<Vec<Act>> {
    let finalizer = |present, fresh| Act::Finalizer { of: 0, present, fresh };
    let replace = |spec, fresh| Act::Replace { ledger: 0, spec, fresh };
    let status = |fresh| Act::Status { of: 0, status: 1, fresh };
    vec![
        // A finalizer retains the resource; the deletion mark is set once; the spec can still change;
        // removing the last finalizer deletes the resource.
        vec![
            Act::Apply(0, 2),
            finalizer(true, true),
            finalizer(true, true),
            Act::Delete(0),
            Act::Delete(0),
            Act::Apply(0, 1),
            Act::Annotate(0, 1),
            status(false),
            status(true),
            finalizer(true, true),
            finalizer(false, true),
            finalizer(false, false),
            status(false),
        ],
        // A resource that was created again under the same name is a different object.
        vec![
            Act::Apply(0, 0),
            Act::Read(0),
            status(false),
            status(false),
            Act::Delete(0),
            status(false),
            finalizer(true, false),
            Act::Apply(0, 0),
            status(false),
            finalizer(true, false),
            status(true),
            status(true),
        ],
        // A write that is based on a read before a change, a deletion or a re-creation does not overwrite the
        // object.
        vec![
            Act::Create(0, 0),
            replace(0, false),
            replace(1, false),
            replace(1, false),
            Act::Create(0, 1),
            Act::Lose(0),
            replace(2, false),
            Act::DeleteLedger { ledger: 0, fresh: false },
            Act::Create(0, 0),
            Act::Lose(0),
            Act::Lose(0),
        ],
        // A status that is written again changes nothing, although the finalizer has another field manager.
        vec![
            Act::Apply(0, 0),
            status(true),
            finalizer(true, true),
            Act::Apply(0, 0),
            status(true),
            status(true),
        ],
        // For a replacement that is both stale and invalid, a conflict is reported.
        vec![Act::Apply(0, 0), finalizer(true, true), Act::Annotate(0, 0), finalizer(false, false)],
    ]
}

#[test]
fn store_matches_real_api_server() {
    let stage = Stage::new();
    let chosen = by_hand().into_iter().chain(every_pair());
    let differences: Vec<String> =
        chosen.filter_map(|acts| stage.hold(&acts).err()).map(|error| error.to_string()).collect();
    assert!(
        differences.is_empty(),
        "the store (left) and Kubernetes (right) differ:\n{}",
        differences.join("\n\n")
    );
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&prop::collection::vec(act(), 12..25), |acts| stage.hold(&acts))
        .unwrap_or_else(|error| panic!("the store (left) and Kubernetes (right) differ: {error}"));
}
