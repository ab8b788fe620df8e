//! Tests installation by Helm and by kubectl, upgrade, rollback, uninstallation and reinstallation: streams
//! are encrypted, and no state is lost.

use std::time::Instant;

use node::commands::{apply, eventually, helm, kubectl, this_helm, try_kubectl};
use node::stage::{OPERATOR, Stage, name_services, streams};
use packages::objects::{NAMESPACE, RELEASE};
use serde_json::{Value, json};
use simulated_aws::samples;
use simulated_aws::world::PlantedStream;

#[tokio::test(flavor = "multi_thread")]
async fn helm_install_runs_restricted_pods_and_encrypts_samples() {
    let stage = Stage::set(samples::world()).await;
    let begin = Instant::now();
    stage.install().await;
    let took = begin.elapsed();
    assert_eq!(ready_pods().await, "2");
    println!("two pods are ready {:.1} s after `helm install`", took.as_secs_f64());
    stage.samples().await;
    name_services().await;
    let tested = helm(&format!("test {RELEASE} -n {NAMESPACE} --timeout 30s"), &json!({})).await;
    assert!(tested.contains("Phase:") && tested.contains("Succeeded"), "{tested}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_install_encrypts_samples() {
    let stage = Stage::set(samples::world()).await;
    kubectl("apply --server-side -f config/install.yaml").await;
    kubectl(&format!("set env {OPERATOR} {}", stage.environment())).await;
    kubectl(&format!("rollout status {OPERATOR} --timeout=60s")).await;
    assert_eq!(ready_pods().await, "2");
    stage.samples().await;
}

/// The flags of an upgrade that changes the limit of calls alone.
fn with_limit(calls: u32) -> String {
    format!("--reset-then-reuse-values --set defaultPolicy.maxCallsPerDay={calls} --wait")
}

#[tokio::test(flavor = "multi_thread")]
async fn helm_3_install_encrypts_samples_and_helm_4_upgrades_it() {
    let stage = Stage::set(samples::world()).await;
    let release = format!("{RELEASE} {} -n {NAMESPACE}", packages::CHART);
    this_helm("helm3", &format!("install {release} --values - --wait --timeout 60s"), &stage.values()).await;
    stage.samples().await;
    this_helm("helm3", &format!("upgrade {release} {}", with_limit(19)), &json!({})).await;
    limit_is("19").await;
    helm(&format!("upgrade {release} {}", with_limit(18)), &json!({})).await;
    limit_is("18").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_rollback_and_reinstall_keep_state_and_make_no_calls() {
    let stage = Stage::set(samples::world()).await;
    stage.install().await;
    stage.samples().await;
    let before = (kept().await, stage.changes());
    let release = format!("{RELEASE} {} -n {NAMESPACE}", packages::CHART);

    helm(&format!("upgrade {release} {}", with_limit(19)), &json!({})).await;
    limit_is("19").await;
    helm(&format!("rollback {RELEASE} 1 -n {NAMESPACE} --wait"), &json!({})).await;
    limit_is("20").await;
    stage.samples_are_as_their_files_say().await;
    helm(&format!("uninstall {RELEASE} -n {NAMESPACE} --wait"), &json!({})).await;
    assert_eq!((kept().await, stage.changes()), before);

    stage.install().await;
    stage.samples_are_as_their_files_say().await;
    stage.aws.world().plant_stream(PlantedStream { name: "late".into(), ..PlantedStream::default() });
    apply(&streams(&["late"])).await;
    kubectl("wait --for=condition=Ready strenc/late -n data --timeout=60s").await;
    kubectl("delete strenc/late -n data").await;
    let mut changes = stage.changes();
    assert_eq!(changes.remove("late"), Some(vec!["OK".to_owned()]), "it works");
    assert_eq!(changes, before.1);
}

/// No chart was published before this one. The test creates an older chart whose CRD has one field less, as
/// after the first change of the API.
#[tokio::test(flavor = "multi_thread")]
async fn upgrade_of_older_chart_updates_crds_and_keeps_objects() {
    let stage = Stage::set(samples::world()).await;
    let older = tempfile::tempdir().expect("a folder");
    let chart = older.path().join("stream-encryption-operator");
    let copied =
        std::process::Command::new("cp").arg("-r").arg(packages::path(packages::CHART)).arg(&chart).status();
    assert!(copied.expect("cp").success());
    let edit = |file: &str, from: &str, to: &str| {
        let path = chart.join(file);
        let text = std::fs::read_to_string(&path).expect(file);
        assert!(text.contains(from), "{file}: {from}");
        std::fs::write(path, text.replace(from, to)).expect(file);
    };
    edit("Chart.yaml", "\nversion: 0.1.0\n", "\nversion: 0.0.9\n");
    // A field without a default: a default would become part of the specs, which are compared.
    edit(
        "files/crds/streamencryptions.streamencryption.dev.yaml",
        "              suspend:\n",
        "              pause:\n",
    );
    let install = format!("install {RELEASE} {} -n {NAMESPACE} --values - --wait", chart.display());
    helm(&install, &stage.values()).await;
    stage.samples().await;
    let field = "explain streamencryption.spec.suspend";
    assert!(
        try_kubectl(&field.split(' ').collect::<Vec<_>>(), "").await.is_err(),
        "the older one has no such field"
    );
    let before = (kept().await, stage.changes());

    let release = format!("{RELEASE} {} -n {NAMESPACE}", packages::CHART);
    helm(&format!("upgrade {release} --reset-then-reuse-values --wait"), &json!({})).await;
    eventually("the new definition is served", 20, async || {
        try_kubectl(&field.split(' ').collect::<Vec<_>>(), "").await.is_ok()
    })
    .await;
    stage.samples_are_as_their_files_say().await;
    assert_eq!((kept().await, stage.changes()), before);
}

async fn ready_pods() -> String {
    kubectl(&format!("get {OPERATOR} -o jsonpath={{.status.readyReplicas}}")).await
}

/// Waits until the operator reports this limit of calls.
async fn limit_is(limit: &str) {
    eventually(&format!("the limit of calls is {limit}"), 30, async || {
        kubectl("get strenc/clicks -n data -o jsonpath={.status.calls.limit}").await == limit
    })
    .await;
}

/// Returns the state that must survive: the resources as their owners wrote them, and the ledgers with their
/// calls.
async fn kept() -> Value {
    let list = async |what: &str| -> Value {
        let listed = kubectl(&format!("get {what} -o json")).await;
        let listed: Value = serde_json::from_str(&listed).expect("JSON");
        let kept = |item: &Value| json!([item["metadata"]["name"], item["metadata"]["uid"], item["spec"]]);
        listed["items"].as_array().expect("items").iter().map(kept).collect()
    };
    json!([list("strenc -A").await, list(&format!("streamledgers -n {NAMESPACE}")).await])
}
