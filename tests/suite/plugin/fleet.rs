//! The verbs on 1,000 streams: each is shown, reported and planned, and nothing is called.

use jiff::SignedDuration;
use kube::api::Api;
use simulated_aws::world::{Settings, Snapshot, World};
use simulated_aws::{Clock, SimulatedAws};
use stream_encryption_api::stream_encryption::StreamEncryption;

use super::Shell;
use crate::harness::{LEDGERS, own_cluster};
use crate::matrix::proxy::unhurried_client;
use crate::matrix::scenario::{create_all, fleet};
use crate::process::{OperatorProcess, eventually, own_account};

const STREAMS: usize = 1_000;

/// Regions, each with its own limits of AWS.
const REGIONS: [&str; 5] = ["eu-west-1", "eu-west-2", "eu-west-3", "eu-north-1", "eu-central-1"];

#[tokio::test(flavor = "multi_thread")]
async fn verbs_work_on_a_thousand_streams_and_call_nothing() {
    let (cluster, account) = own_cluster(&["fleet"]).await;
    let settings =
        Settings { updating: SignedDuration::from_secs(1), rate_limits: false, ..Settings::default() };
    let mut world = World::new(settings);
    let resources = fleet(&mut world, STREAMS, &REGIONS, &Snapshot::default());
    let client = unhurried_client(cluster.kubeconfig()).await;
    create_all(&Api::<StreamEncryption>::namespaced(client, "fleet"), &resources).await;
    let aws = SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS");
    let shell = Shell::new(&cluster, &aws);
    let limit = |operation: &str| {
        REGIONS.map(|region| {
            format!(
                r#"{{"operation":"kinesis:{operation}","account":"111122223333","region":"{region}","requestsPerSecond":1000}}"#
            )
        })
    };
    let limits = [limit("StartStreamEncryption"), limit("DescribeStreamSummary")].concat().join(",");
    let (url, limits) = (aws.url(), format!("[{limits}]"));
    let environment = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("POD_NAMESPACE", LEDGERS),
        ("AWS_REQUEST_LIMITS", limits.as_str()),
        ("DRIFT_INTERVAL_SECONDS", "600"),
    ];
    let _operator = OperatorProcess::start(&account, "", &environment);
    let starts =
        || aws.world().calls().iter().filter(|call| call.operation == "StartStreamEncryption").count();
    eventually("AWS receives a Start for each stream", async || starts() == STREAMS).await;
    let status = "kubectl streamencryption status -n fleet";
    eventually("every stream is encrypted", async || {
        shell.run(&format!("{status} --fail-on plaintext,not-ready,unknown")).await.0 == 0
    })
    .await;

    let shown = shell.json(&format!("{status} -o json")).await;
    assert_eq!(shown.as_array().map(Vec::len), Some(STREAMS));
    let counted = shell.json(&format!("{status} --by region -o json")).await;
    let per_region = STREAMS / REGIONS.len();
    assert!(
        counted.as_array().expect("regions").iter().all(|one| one["encrypted"] == per_region),
        "{counted}"
    );
    let csv = shell.output(&format!("{status} -o csv")).await;
    assert_eq!(csv.lines().count(), STREAMS + 1);

    let report = shell.json("kubectl streamencryption report -n fleet -o json").await;
    let streams = report["streams"].as_array().expect("streams");
    assert_eq!(streams.len(), STREAMS);
    let is_evident = |stream: &&serde_json::Value| {
        stream["calls"].as_array().is_some_and(|calls| calls.len() == 1)
            && stream["controls"]
                .as_array()
                .is_some_and(|controls| controls.iter().all(|one| one["result"] == "Passed"))
    };
    assert_eq!(streams.iter().find(|stream| !is_evident(stream)), None);

    let explained = shell.output("kubectl streamencryption explain stream-999 -n fleet").await;
    assert!(explained.contains("Accepted"), "the Start is in the list of calls: {explained}");
    let doctor = shell.output("kubectl streamencryption doctor").await;
    assert!(doctor.contains("1000 StreamEncryptions: 0 in plaintext, 0 need attention"), "{doctor}");

    let manifests: Vec<String> =
        resources.iter().map(|resource| serde_json::to_string(resource).expect("JSON")).collect();
    std::fs::write(shell.folder().join("fleet.yaml"), manifests.join("\n---\n")).expect("a file");
    let policy = own_account();
    let plan = format!(
        "kubectl streamencryption plan -n fleet -f fleet.yaml --region eu-west-1 --aws-rate-percent 100 --default-policy '{policy}' -o json"
    );
    let plan = shell.json(&plan).await;
    let rows = plan.as_array().expect("rows");
    assert_eq!(rows.len(), STREAMS);
    assert!(rows.iter().all(|row| row["reason"] == "Encrypted" && row["call"].is_null()), "{}", rows[0]);
    assert_eq!(starts(), STREAMS, "the plan calls nothing");
}
