//! Tests that kubeconform, with which users check YAML without a cluster, accepts every object in the
//! repository and every rendered object. Its schemas come from the API server of the other tests.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use packages::objects::{parsed, render, word};
use packages::programs::run_kubeconform;
use packages::{schemas, text};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::objects::varied;
use crate::stage::{cluster, kustomize};
use crate::yaml::{files, kustomizations};

/// Requests a path from the API server.
async fn ask(path: &str) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&cluster().await.kubectl(&["get", "--raw", path]).await?)?)
}

/// Waits until the API server publishes the schemas of all CRDs, which happens some time after they are
/// established.
async fn published() {
    let end = Instant::now() + Duration::from_mins(1);
    let definitions = ask("/apis/apiextensions.k8s.io/v1/customresourcedefinitions").await.expect("a list");
    let definitions = definitions["items"].as_array().expect("a list");
    assert!(definitions.len() > 5, "{definitions:?}");
    for definition in definitions {
        let (group, kind) = (word(&definition["spec"]["group"]), word(&definition["spec"]["names"]["kind"]));
        let versions = definition["spec"]["versions"].as_array().expect("versions");
        for version in versions.iter().filter(|version| version["served"] == true) {
            let version = word(&version["name"]);
            let path = format!("/openapi/v3/apis/{group}/{version}");
            while !ask(&path).await.is_ok_and(|found| schemas::defines(&found, group, version, kind)) {
                assert!(Instant::now() < end, "{path} has no {kind}");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Creates a folder with the schema of every kind of the API server. It is deleted with the cluster.
async fn folder() -> &'static PathBuf {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    FOLDER
        .get_or_init(async || {
            published().await;
            let folder = cluster().await.folder().join("schemas");
            fs::create_dir(&folder).expect("a folder");
            let index = ask("/openapi/v3").await.expect("an index");
            for (path, place) in index["paths"].as_object().expect("paths") {
                let Some((group, version)) = schemas::group_version(path) else { continue };
                let document = ask(word(&place["serverRelativeURL"])).await.expect("a document");
                for (name, schema) in schemas::files(document, group, version).expect("schemas") {
                    // Does not overwrite: two groups with the same first label could have the same file name.
                    let mut file = File::create_new(folder.join(&name)).expect(&name);
                    file.write_all(schema.as_bytes()).expect("it is written");
                }
            }
            folder
        })
        .await
}

/// Checks that kubeconform accepts each of `count` objects: it finds them all and skips none.
async fn takes_all(what: &str, files: &[String], input: &str, count: usize) {
    assert!(count > 0, "{what}: no objects");
    let said = run_kubeconform(folder().await, files, input).await;
    let said = said.unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let wanted = format!("Valid: {count}, Invalid: 0, Errors: 0, Skipped: 0\n");
    assert!(said.ends_with(&wanted), "{what} has {count} objects: {said}");
}

/// Checks the output of another program as [`takes_all`] does.
async fn takes(what: &str, yaml: &str) {
    takes_all(what, &[], yaml, parsed(yaml).expect("YAML").len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconform_accepts_every_file() {
    let files = files();
    let count = files.iter().map(|file| parsed(&text(file)).expect("YAML").len()).sum();
    takes_all("the files", &files, "", count).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconform_accepts_every_kustomization() {
    let found = kustomizations();
    assert!(found.iter().any(|folder| folder == "config/default"), "{found:?}");
    for folder in found {
        takes(&folder, &kustomize(&folder).await).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconform_accepts_chart_for_all_values() {
    for (what, values) in varied() {
        takes(what, &render(&values).await.expect("it renders")).await;
    }
}

/// Returns a valid Deployment and a valid resource of our own.
fn good() -> [Value; 2] {
    let pod =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "d"}]}});
    [
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "operator"},
            "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": pod},
        }),
        json!({
            "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": {"name": "orders"},
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}},
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn kubeconform_reports_unknown_fields_and_wrong_types() {
    let [deployment, ours] = good();
    takes("without a mistake", &format!("{deployment}\n---\n{ours}\n")).await;
    for (object, place, field, value, words) in [
        (&deployment, "/spec", "tpyo", json!(1), "'/spec': additional properties 'tpyo' not allowed"),
        (
            &deployment,
            "/spec/template/spec/containers/0",
            "tpyo",
            json!({}),
            "'/spec/template/spec/containers/0': additional properties 'tpyo' not allowed",
        ),
        (&deployment, "/spec", "replicas", json!("two"), "'/spec/replicas': got string, want integer"),
        (&ours, "", "tpyo", json!(1), "'': additional properties 'tpyo' not allowed"),
        (&ours, "/metadata", "tpyo", json!(1), "'/metadata': additional properties 'tpyo' not allowed"),
        (&ours, "/spec/stream", "tpyo", json!(1), "'/spec/stream': additional properties 'tpyo' not allowed"),
        (&ours, "/spec", "suspend", json!("yes"), "'/spec/suspend': got string, want boolean"),
    ] {
        let mut wrong = object.clone();
        wrong.pointer_mut(place).expect("a place")[field] = value;
        let said = run_kubeconform(folder().await, &[], &wrong.to_string()).await;
        let said = format!("{:#}", said.expect_err("it is refused"));
        let name = format!("{} {} is invalid", word(&object["kind"]), word(&object["metadata"]["name"]));
        for part in [&name, words, "Valid: 0, Invalid: 1, Errors: 0, Skipped: 0"] {
            assert!(said.contains(part), "{place}/{field}, {part}: {said}");
        }
    }
}
