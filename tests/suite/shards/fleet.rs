//! Many streams: two shards whose selectors overlap, and a shard whose leader is killed in the middle of many
//! changes. The ledger is the fence in both cases: each stream gets one Start.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::SignedDuration;
use kube::Client;
use kube::api::{Api, ListParams};
use simulated_aws::world::{Settings, Snapshot, World};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_api::ledger::{Outcome, StreamLedger};
use stream_encryption_api::stream_encryption::StreamEncryption;

use super::{allow_leases, requests, start};
use crate::harness::{cluster, fresh_namespace, operators_kubeconfig, reason};
use crate::matrix::proxy::unhurried_client;
use crate::matrix::scenario::{create_all, fleet};
use crate::process::eventually;

const START: &str = "StartStreamEncryption";
const DESCRIBE: &str = "DescribeStreamSummary";

/// The operator starts at most 5 changes a second in a region, so the streams are in many regions.
const REGIONS: [&str; 10] = [
    "eu-west-1",
    "eu-west-2",
    "eu-west-3",
    "eu-north-1",
    "eu-central-1",
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "ca-central-1",
];

/// Plaintext Kinesis streams, each with a resource of the same name and the label `shard: a`.
struct Fleet {
    aws: SimulatedAws,
    namespace: String,
    client: Client,
    names: Vec<String>,
}

impl Fleet {
    async fn create(count: usize) -> Self {
        let cluster = cluster().await;
        let namespace = fresh_namespace(cluster).await;
        allow_leases(cluster, &namespace, &["one", "two"]).await;
        let client = unhurried_client(cluster.kubeconfig()).await;
        let settings =
            Settings { updating: SignedDuration::from_secs(1), rate_limits: false, ..Settings::default() };
        let mut world = World::new(settings);
        let api: Api<StreamEncryption> = Api::namespaced(client.clone(), &namespace);
        let mut resources = fleet(&mut world, count, &REGIONS, &Snapshot::default());
        for resource in &mut resources {
            resource.metadata.labels = Some([("shard".to_owned(), "a".to_owned())].into());
        }
        create_all(&api, &resources).await;
        let aws = SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS");
        let names = resources.into_iter().filter_map(|one| one.metadata.name).collect();
        Self { aws, namespace, client, names }
    }

    /// The number of Starts that AWS received, by stream.
    fn starts(&self) -> BTreeMap<String, usize> {
        let world = self.aws.world();
        let mut starts = BTreeMap::new();
        for call in world.calls().iter().filter(|call| call.operation == START) {
            *starts.entry(call.target.clone()).or_default() += 1;
        }
        starts
    }

    /// The resources, by the reason of `Ready`.
    async fn reasons(&self) -> BTreeMap<String, Vec<String>> {
        let api: Api<StreamEncryption> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in api.list(&ListParams::default()).await.expect("a list") {
            let name = one.metadata.name.clone().unwrap_or_default();
            reasons.entry(reason(&one.status.unwrap_or_default())).or_default().push(name);
        }
        reasons
    }

    /// The outcomes of the calls in each ledger, by the name of the stream.
    async fn outcomes(&self) -> BTreeMap<String, Vec<Outcome>> {
        let api: Api<StreamLedger> = Api::namespaced(self.client.clone(), &self.namespace);
        let ledgers = api.list(&ListParams::default()).await.expect("a list");
        let name = |ledger: &StreamLedger| {
            ledger.spec.stream_arn.rsplit('/').next().map(str::to_owned).expect("an ARN")
        };
        let outcomes = |ledger: &StreamLedger| ledger.spec.calls.iter().map(|call| call.outcome).collect();
        ledgers.iter().map(|ledger| (name(ledger), outcomes(ledger))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_shards_start_each_stream_once() {
    let fleet = Fleet::create(60).await;
    let account = operators_kubeconfig(cluster().await).await;
    let _one = start(&account, &fleet.namespace, &fleet.aws, "one", "shard=a");
    let _two = start(&account, &fleet.namespace, &fleet.aws, "two", "shard in (a,b)");
    let all: BTreeSet<String> = fleet.names.iter().cloned().collect();
    let described =
        |shard: &str| requests(&fleet.aws, shard, DESCRIBE).into_iter().collect::<BTreeSet<String>>();
    eventually("both shards have described each stream", async || {
        described("one") == all && described("two") == all
    })
    .await;
    eventually("each stream is encrypted", async || {
        fleet.reasons().await.get("Encrypted").is_some_and(|names| names.len() == all.len())
    })
    .await;
    let [by_one, by_two] = ["one", "two"].map(|shard| requests(&fleet.aws, shard, START).len());
    println!("Starts: {by_one} by one shard, {by_two} by the other");
    assert_eq!(fleet.starts(), all.iter().map(|name| (name.clone(), 1)).collect());
    let once = all.iter().map(|name| (name.clone(), vec![Outcome::Accepted])).collect();
    assert_eq!(fleet.outcomes().await, once);
}

/// The number of changes.
const CHANGES: usize = 500;

#[tokio::test(flavor = "multi_thread")]
async fn killed_shard_leader_loses_and_doubles_no_change() {
    let fleet = Fleet::create(CHANGES).await;
    let account = operators_kubeconfig(cluster().await).await;
    let replica = || start(&account, &fleet.namespace, &fleet.aws, "one", "shard=a");
    let began = Instant::now();
    let leader = replica();
    eventually("the leader makes changes", async || !fleet.starts().is_empty()).await;
    let _standby = replica();
    eventually("a fifth of the changes is made", async || fleet.starts().len() >= CHANGES / 5).await;
    leader.kill();
    let before = fleet.starts().len();
    assert!(before < CHANGES, "the leader is killed in the middle");
    let killed = Instant::now();
    eventually("the standby continues", async || fleet.starts().len() > before).await;
    let taken_over = killed.elapsed();
    let mut reasons = BTreeMap::new();
    eventually("each change has an end", async || {
        reasons = fleet.reasons().await;
        reasons.keys().all(|reason| reason == "Encrypted" || reason == "OutcomeUnknown")
    })
    .await;
    // A reservation whose call was never sent: the operator waits for 31 minutes, until it can no longer arrive,
    // and starts the stream then. Nothing is lost, and the wait is in the status.
    let waiting = reasons.remove("OutcomeUnknown").unwrap_or_default();
    println!(
        "{before} of {CHANGES} Starts before the kill; the next after {taken_over:?}; all after {:?}; {} wait",
        began.elapsed(),
        waiting.len()
    );
    let (starts, outcomes) = (fleet.starts(), fleet.outcomes().await);
    for name in &fleet.names {
        let (count, outcome) =
            if waiting.contains(name) { (0, Outcome::Pending) } else { (1, Outcome::Accepted) };
        assert_eq!(starts.get(name).copied().unwrap_or_default(), count, "{name}");
        assert_eq!(outcomes[name], [outcome], "{name}");
    }
}
