//! Tests every YAML file of the repository: the API server accepts each object in it, without unknown fields.

use std::fs;
use std::path::Path;

use packages::objects::parsed;
use packages::{path, text};

use crate::stage::would_take;

/// YAML files that do not contain Kubernetes objects: the input of Helm, of kustomize, of Argo CD's own tests,
/// of promtool and of kube-state-metrics. Another test passes each of them to its program, except for that of Artifact Hub.
/// `events.rs` reads the templates of `CloudFormation`, whose program is AWS. The last one has kinds of Flux, and `flux.rs`
/// reads it.
const INPUTS: [&str; 15] = [
    "artifacthub-repo.yml",
    "Chart.yaml",
    "values.yaml",
    "kustomization.yaml",
    "key-references.yaml",
    "health_test.yaml",
    "action_test.yaml",
    "alerts.test.yaml",
    "clusters.test.yaml",
    "drift-interval.test.yaml",
    "service.test.yaml",
    "kube-state-metrics.yaml",
    "cloudformation.yaml",
    "cloudformation-spoke.yaml",
    "helmrelease.yaml",
];
/// The folder of templates, which are not YAML until Helm has rendered them.
const TEMPLATES: &str = "templates";

/// Collects the YAML files below a folder, by their paths in the repository, except for hidden ones: the
/// workflows, and the template of krew's manifest.
fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(path(".").join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name");
        let file = folder.join(&name);
        if name.starts_with('.') {
            continue;
        }
        if entry.path().is_dir() {
            if ![TEMPLATES, "target"].contains(&name.as_str()) {
                walk(&file, found);
            }
        } else if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(file.display().to_string());
        }
    }
}

/// Returns every YAML file of the repository.
fn all() -> Vec<String> {
    let mut found = Vec::new();
    walk(Path::new(""), &mut found);
    found
}

/// Returns every file of objects.
pub(crate) fn files() -> Vec<String> {
    let mut found = all();
    found.retain(|file| !INPUTS.contains(&file.rsplit('/').next().unwrap_or_default()));
    assert!(found.len() > 30, "{found:?}");
    found
}

/// Returns the folder of every kustomization.
pub(crate) fn kustomizations() -> Vec<String> {
    let found = all();
    let found = found.iter().filter_map(|file| file.strip_suffix("/kustomization.yaml"));
    found.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn api_server_accepts_every_file() {
    for file in files() {
        let mut objects = parsed(&text(&file)).unwrap_or_else(|error| panic!("{file}: {error:#}"));
        for metadata in objects.iter_mut().filter_map(|object| object["metadata"].as_object_mut()) {
            // Fields that were read from a server would be preconditions.
            metadata.retain(|name, _| !["uid", "resourceVersion", "managedFields"].contains(&name.as_str()));
        }
        assert!(!objects.is_empty(), "{file} is empty");
        would_take(&objects).await.unwrap_or_else(|error| panic!("{file}: {error:#}"));
    }
}
