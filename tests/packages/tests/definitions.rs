//! Tests the copies of the CRDs in `crds/`. `install.rs` compares what the ways to install create.

use std::collections::BTreeMap;
use std::fs;

use packages::objects::{by_name, of_kind, parsed, word};
use packages::{CHART, kept, path, text};
use serde_json::{Value, json};

use crate::stage::{chart, kustomized, would_take};

/// Returns the files in `crds/`.
fn files() -> Vec<String> {
    let mut found: Vec<String> = fs::read_dir(path("crds"))
        .expect("crds/")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    found.sort();
    assert_eq!(found.len(), 3);
    found
}

/// Returns the CRDs in these files, by name.
fn wanted() -> BTreeMap<String, Value> {
    let all: Vec<Value> =
        files().iter().flat_map(|file| parsed(&text(&format!("crds/{file}"))).expect("YAML")).collect();
    by_name(&all)
}

#[test]
fn chart_copies_match_crds() {
    for file in files() {
        kept(&format!("{CHART}/files/crds/{file}"), &text(&format!("crds/{file}")));
        kept(&format!("config/crd/{file}"), &text(&format!("crds/{file}")));
    }
    let copies = fs::read_dir(path(&format!("{CHART}/files/crds"))).expect("the copies").count();
    assert_eq!(copies, files().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn crd_installation_and_retention_follow_values() {
    let annotations = async |values: Value| {
        let objects = chart(values).await;
        let found: Vec<_> = of_kind(&objects, "CustomResourceDefinition")
            .map(|one| one["metadata"]["annotations"].clone())
            .collect();
        found
    };
    // Helm obeys the first one, Argo CD the second one.
    let keep = |options: &str| json!({"helm.sh/resource-policy": "keep", "argocd.argoproj.io/sync-options": options});
    assert_eq!(annotations(json!({})).await, vec![keep("Prune=false"); 3]);
    for (options, expected) in
        [("ServerSideApply=true", "ServerSideApply=true,Prune=false"), ("Prune=confirm", "Prune=confirm")]
    {
        let own = json!({"crds": {"annotations": {"argocd.argoproj.io/sync-options": options}}});
        assert_eq!(annotations(own).await, vec![keep(expected); 3]);
    }
    let own = json!({"crds": {"keep": false, "annotations": {"a": "b"}}});
    assert_eq!(annotations(own).await, vec![json!({"a": "b"}); 3]);
    assert_eq!(annotations(json!({"crds": {"keep": false}})).await, [Value::Null, Value::Null, Value::Null]);
    assert!(annotations(json!({"crds": {"enabled": false}})).await.is_empty());
}

/// Argo CD obeys the first annotation, Flux the second one.
#[tokio::test(flavor = "multi_thread")]
async fn kustomize_crds_are_excluded_from_pruning() {
    let expected = json!({
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
        "kustomize.toolkit.fluxcd.io/prune": "disabled",
    });
    let objects = kustomized("config/default").await;
    let found: Vec<_> = of_kind(&objects, "CustomResourceDefinition")
        .map(|one| one["metadata"]["annotations"].clone())
        .collect();
    assert_eq!(found, vec![expected; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn artifact_hub_annotations_list_crds_examples_and_image() {
    let about: Value = serde_saphyr::from_str(&text(&format!("{CHART}/Chart.yaml"))).expect("YAML");
    let annotation = |key: &str| -> Value {
        let yaml = word(&about["annotations"][format!("artifacthub.io/{key}").as_str()]);
        serde_saphyr::from_str(yaml).unwrap_or_else(|error| panic!("{key}: {error}"))
    };
    let told: Vec<String> = annotation("crds")
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| format!("CustomResourceDefinition/{}", word(&one["name"])))
        .collect();
    assert_eq!(told, wanted().into_keys().collect::<Vec<_>>());
    let examples = annotation("crdsExamples");
    let examples = examples.as_array().expect("a list");
    assert!(examples.iter().all(|one| one["kind"] == "StreamEncryption"), "{examples:?}");
    let taken = would_take(examples).await.expect("the API server accepts the examples");
    assert_eq!(taken.lines().count(), examples.len(), "{taken}");
    let image = annotation("images");
    assert!(word(&image[0]["image"]).ends_with(&format!(":{}", word(&about["appVersion"]))));
    assert!(text("Cargo.toml").contains(&format!("\nversion = {}\n", about["appVersion"])));
    assert_eq!(about["version"], about["appVersion"]);
}
