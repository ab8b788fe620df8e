//! kustomize renames a key and the references to it together, with the configuration in `config/kustomize`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use test_cluster::Programs;

use crate::readme::blocks;

const PAGE: &str = include_str!("../../docs/gitops.md");
const CONFIGURATION: &str = include_str!("../../config/kustomize/key-references.yaml");

/// The page's kustomization: its third YAML block.
fn kustomization() -> &'static str {
    blocks(PAGE, "yaml")[2]
}

/// Returns the objects that `kubectl kustomize` builds from this kustomization, with the page's key and
/// stream.
async fn built(test: &str, kustomization: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(test);
    fs::create_dir_all(&folder).expect("a folder");
    let key = json!({
        "apiVersion": "kms.services.k8s.aws/v1alpha1", "kind": "Key", "metadata": {"name": "orders"},
        "spec": {"description": "orders"},
    });
    let stream = json!({
        "apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption", "metadata": {"name": "orders"},
        "spec": {
            "stream": {"service": "Firehose", "name": "orders"},
            "key": {
                "type": "CUSTOMER_MANAGED_CMK",
                "objectRef": {"group": "kms.services.k8s.aws", "kind": "Key", "name": "orders"},
            },
        },
    });
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("it is written");
    write("kustomization.yaml", kustomization);
    write("key-references.yaml", CONFIGURATION);
    write("key.yaml", &key.to_string());
    write("orders.yaml", &stream.to_string());
    let objects = kubectl_kustomize(&folder).await;
    serde_saphyr::from_multiple(&objects).expect("YAML")
}

async fn kubectl_kustomize(folder: &Path) -> String {
    let programs = Programs::find_or_build().await.expect("kubectl");
    let mut kubectl = tokio::process::Command::new(&programs.kubectl);
    let done = kubectl.arg("kustomize").arg(folder).output().await.expect("kubectl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

/// The name of the key, and the name in the stream's reference to it.
fn names(objects: &[Value]) -> [&str; 2] {
    let of = |kind: &str, pointer: &str| {
        let object = objects.iter().find(|object| object["kind"] == kind).expect(kind);
        object.pointer(pointer).and_then(Value::as_str).expect("a name")
    };
    [of("Key", "/metadata/name"), of("StreamEncryption", "/spec/key/objectRef/name")]
}

#[tokio::test(flavor = "multi_thread")]
async fn name_prefix_renames_key_and_reference_together() {
    assert_eq!(names(&built("renamed", kustomization()).await), ["staging-orders", "staging-orders"]);
}

/// Shows why the configuration is needed.
#[tokio::test(flavor = "multi_thread")]
async fn reference_dangles_without_configuration() {
    let without = kustomization().replace("configurations:\n- key-references.yaml\n", "");
    assert_ne!(without, kustomization());
    assert_eq!(names(&built("dangling", &without).await), ["staging-orders", "orders"]);
}
