//! The files that a user of Argo CD applies, `config/argocd`, and the page about them, `docs/gitops.md`.
//!
//! `UPDATE_ARGOCD=1 cargo test --test suite argocd` regenerates `config/argocd/argocd-cm.yaml`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use stream_encryption_api::crd::definitions;
use stream_encryption_api::policy::StreamEncryptionPolicy;
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_operator::commands::definition_yaml;
use test_cluster::TestCluster;

use super::{ACTIONS, folder, script, yaml};
use crate::harness::LEDGERS;
use crate::readme::{blocks, commands, kept, run};
use crate::resource_states::table;

const PAGE: &str = include_str!("../../../docs/gitops.md");

/// Text before the scripts. The labels are those of Argo CD's own manifest; Argo CD ignores a `ConfigMap`
/// without `part-of`.
const HEAD: &str = "\
# Argo CD's health check and actions of StreamEncryption. Made from resource_customizations; a test holds it to them.
# Adds two keys to what is there: kubectl apply --server-side --field-manager=stream-encryption -f config/argocd/argocd-cm.yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: argocd-cm
  namespace: argocd
  labels:
    app.kubernetes.io/name: argocd-cm
    app.kubernetes.io/part-of: argocd
data:
";

const HEALTH: &str = "resource.customizations.health.streamencryption.dev_StreamEncryption";
const CUSTOM_ACTIONS: &str = "resource.customizations.actions.streamencryption.dev_StreamEncryption";

fn config() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/argocd")
}

/// Indents each line of a text.
fn indented(text: &str, spaces: usize) -> String {
    text.lines().fold(String::new(), |mut all, line| {
        let space = if line.is_empty() { 0 } else { spaces };
        writeln!(all, "{:space$}{line}", "").expect("writing to a String succeeds");
        all
    })
}

fn config_map() -> String {
    let mut text = format!("{HEAD}  {HEALTH}: |\n{}", indented(&script("health.lua"), 4));
    let discovery = indented(&script("actions/discovery.lua"), 6);
    write!(text, "  {CUSTOM_ACTIONS}: |\n    discovery.lua: |\n{discovery}    definitions:\n")
        .expect("writing to a String succeeds");
    for action in ACTIONS {
        let lua = indented(&script(&format!("actions/{action}/action.lua")), 8);
        write!(text, "    - name: {action}\n      action.lua: |\n{lua}")
            .expect("writing to a String succeeds");
    }
    text
}

#[test]
fn argocd_cm_matches_the_scripts() {
    kept("config/argocd/argocd-cm.yaml", &config_map(), "UPDATE_ARGOCD", "argocd");
}

/// The value of the actions key, as Argo CD parses it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Actions {
    #[serde(rename = "discovery.lua")]
    discovery: String,
    definitions: Vec<Definition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Definition {
    name: String,
    #[serde(rename = "action.lua")]
    action: String,
}

#[test]
fn argocd_cm_contains_every_script_unchanged() {
    let read: Value = yaml(&config().join("argocd-cm.yaml"));
    assert_eq!(read["data"].as_object().map(serde_json::Map::len), Some(2));
    assert_eq!(read["data"][HEALTH], script("health.lua"));
    let actions: Actions = serde_saphyr::from_str(read["data"][CUSTOM_ACTIONS].as_str().unwrap()).unwrap();
    assert_eq!(actions.discovery, script("actions/discovery.lua"));
    let names: Vec<&str> = actions.definitions.iter().map(|definition| definition.name.as_str()).collect();
    assert_eq!(names, ACTIONS);
    for definition in &actions.definitions {
        assert_eq!(definition.action, script(&format!("actions/{}/action.lua", definition.name)));
    }
    let folders = fs::read_dir(folder().join("actions"))
        .unwrap()
        .filter(|entry| entry.as_ref().is_ok_and(|entry| entry.path().join("action.lua").is_file()));
    assert_eq!(folders.count(), ACTIONS.len(), "every action is configured");
}

/// An Application. Argo CD itself accepts it in `tests/node`.
fn application(file: &str) -> Value {
    let read: Value = yaml(&config().join(file));
    assert_eq!((&read["apiVersion"], &read["kind"]), (&json!("argoproj.io/v1alpha1"), &json!("Application")));
    assert_eq!(read["metadata"]["namespace"], "argocd");
    assert_eq!(read["spec"]["destination"]["server"], "https://kubernetes.default.svc");
    assert_eq!(read["spec"]["syncPolicy"]["automated"], json!({"prune": true, "selfHeal": true}));
    read
}

fn wave(application: &Value) -> i32 {
    let wave = &application["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"];
    wave.as_str().and_then(|wave| wave.parse().ok()).expect("a number")
}

#[test]
fn operator_application_syncs_before_streams_application() {
    let (operator, streams) =
        (application("application-operator.yaml"), application("application-streams.yaml"));
    assert!(wave(&operator) < wave(&streams));
    let (source, policy) = (&operator["spec"]["source"], &operator["spec"]["syncPolicy"]);
    assert_eq!(source["path"], "charts/stream-encryption-operator");
    let revision = format!("v{}", env!("CARGO_PKG_VERSION"));
    assert_eq!(source["targetRevision"], revision, "the Application installs this version");
    assert!(source["helm"]["valuesObject"].is_object());
    assert_eq!(operator["spec"]["destination"]["namespace"], LEDGERS);
    let labels = &policy["managedNamespaceMetadata"]["labels"];
    assert_eq!(labels["pod-security.kubernetes.io/enforce"], "restricted");
    assert_eq!(policy["syncOptions"], json!(["CreateNamespace=true"]));
}

#[test]
fn streams_application_tolerates_missing_definitions() {
    let spec = &application("application-streams.yaml")["spec"];
    let options = spec["syncPolicy"]["syncOptions"].as_array().expect("options");
    assert!(options.iter().any(|option| option == "SkipDryRunOnMissingResource=true"), "{options:?}");
    assert!(spec["syncPolicy"]["retry"]["limit"].as_i64() > Some(5));
}

/// With `directory`, Argo CD reads each YAML and JSON file, and fails at the kustomization and the IAM policies.
#[test]
fn streams_application_accepts_the_folder_of_adopt() {
    let source = &application("application-streams.yaml")["spec"]["source"];
    assert!(
        source["path"].is_string() && source["directory"].is_null(),
        "Argo CD detects a kustomization: {source}"
    );
}

#[test]
fn operator_application_has_the_role_of_the_install_page() {
    const INSTALL: &str = include_str!("../../../docs/install.md");
    let values = &application("application-operator.yaml")["spec"]["source"]["helm"]["valuesObject"];
    let role =
        values["serviceAccount"]["annotations"]["eks.amazonaws.com/role-arn"].as_str().expect("a role");
    assert!(INSTALL.contains(&format!("eks.amazonaws.com/role-arn: {role}\n")), "{role}");
}

/// A Flux Kustomization, with the fields that the page uses.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "they are its fields")]
struct Kustomization {
    api_version: String,
    kind: String,
    metadata: BTreeMap<String, String>,
    spec: KustomizationSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[expect(dead_code, reason = "they are its fields")]
struct KustomizationSpec {
    interval: String,
    retry_interval: String,
    timeout: Option<String>,
    path: String,
    prune: bool,
    #[serde(default)]
    wait: bool,
    source_ref: BTreeMap<String, String>,
    depends_on: Vec<BTreeMap<String, String>>,
}

#[test]
fn gitops_page_yaml_parses() {
    let yamls = blocks(PAGE, "yaml");
    assert_eq!(yamls.len(), 3);
    let orders: StreamEncryption = serde_saphyr::from_str(yamls[0]).unwrap();
    let wave: i32 = orders.metadata.annotations.unwrap()["argocd.argoproj.io/sync-wave"].parse().unwrap();
    assert!(wave < 0, "before resources without a wave");
    let flux: Vec<Kustomization> = serde_saphyr::from_multiple(yamls[1]).unwrap();
    let [policies, streams] = &flux[..] else { panic!("two Kustomizations") };
    assert!(streams.spec.wait, "Flux waits until the streams match Git");
    let depends_on = |name: &String| streams.spec.depends_on.iter().any(|other| other["name"] == *name);
    assert!(depends_on(&policies.metadata["name"]), "Flux applies the policies first");
    for file in PAGE.split('`').filter(|word| word.starts_with("config/")) {
        assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(file).exists(), "{file} is not there");
    }
}

/// Argo CD deletes the waves in reverse order.
#[test]
fn documented_policy_has_an_earlier_wave_than_streams() {
    let object = |yaml: &str| -> Value { serde_saphyr::from_str(yaml).expect("YAML") };
    let policy = object(documented_policy());
    let read: StreamEncryptionPolicy = serde_json::from_value(policy.clone()).expect("a policy");
    assert!(read.spec.allow_disable);
    assert!(wave(&policy) < wave(&object(blocks(PAGE, "yaml")[0])));
    let streams = fs::read_to_string(config().join("application-streams.yaml")).expect("the Application");
    assert!(streams.contains(&format!("`argocd.argoproj.io/sync-wave: \"{}\"`", wave(&policy))), "{streams}");
}

/// Returns the policy of the page.
fn documented_policy() -> &'static str {
    let [policy] = blocks(PAGE, "yaml policy")[..] else { panic!("one policy") };
    policy
}

#[test]
fn gitops_page_lists_exactly_all_health_states_and_actions() {
    let first_cells = |heading: &str| -> Vec<&str> {
        let (_, table) = PAGE.split_once(heading).unwrap_or_else(|| panic!("{heading} is not there"));
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.filter_map(|row| row.split('|').nth(1)).map(|cell| cell.trim().trim_matches('`')).collect()
    };
    assert_eq!(first_cells("| action |"), ACTIONS);
    let mut explained = first_cells("| Argo CD |");
    let table = table();
    let mut said: Vec<&str> = table.values().map(|row| row.argo_cd.as_str()).collect();
    explained.sort_unstable();
    said.sort_unstable();
    said.dedup();
    assert_eq!(explained, said);
}

#[tokio::test(flavor = "multi_thread")]
async fn gitops_page_commands_keep_existing_argocd_cm_data() {
    let cluster = TestCluster::start().await.expect("a cluster");
    for (_, definition) in definitions() {
        cluster.apply(&definition_yaml(&definition).unwrap()).await.expect("the definitions");
    }
    cluster
        .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])
        .await
        .expect("the definitions are established");
    for namespace in ["argocd", "data"] {
        cluster.kubectl(&["create", "namespace", namespace]).await.expect("a namespace");
    }
    // Existing settings, written by another field manager.
    let before = "--from-literal=url=https://argocd.example.com";
    cluster.kubectl(&["create", "configmap", "argocd-cm", "-n", "argocd", before]).await.expect("argocd-cm");
    for object in [blocks(PAGE, "yaml")[0], documented_policy()] {
        let apply = ["apply", "--validate=strict", "-f", "-"];
        cluster.kubectl_with_input(&apply, object).await.expect("the object is accepted");
    }

    let commands = commands(PAGE);
    assert_eq!(commands.len(), 3, "{commands:?}");
    for command in commands {
        run(&cluster, command).await;
    }

    let after = cluster
        .kubectl(&["get", "configmap", "argocd-cm", "-n", "argocd", "-o", "json"])
        .await
        .expect("argocd-cm");
    let after: Value = serde_json::from_str(&after).expect("JSON");
    assert_eq!(after["data"]["url"], "https://argocd.example.com");
    assert_eq!(after["data"][HEALTH], script("health.lua"));
    assert_eq!(after["metadata"]["labels"]["app.kubernetes.io/part-of"], "argocd");
}
