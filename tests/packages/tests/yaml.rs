//! Every YAML of the repository, without exception: the API server takes each object in it, with no field that it does not know.

use std::fs;
use std::path::Path;

use packages::objects::parsed;
use packages::{path, text};

use crate::stage::would_take;

/// What is YAML and no object of Kubernetes: the input of Helm, of kustomize, of Argo CD's own tests and of promtool. Each is given to
/// its program by another test.
const INPUTS: [&str; 7] = [
    "Chart.yaml",
    "values.yaml",
    "kustomization.yaml",
    "key-references.yaml",
    "health_test.yaml",
    "action_test.yaml",
    "alerts.test.yaml",
];
/// Templates, which are no YAML before Helm has rendered them.
const TEMPLATES: &str = "templates";

/// The YAML files below a folder of the repository, by their names in the repository.
fn walk(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(path(".").join(folder)).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("a name");
        let file = folder.join(&name);
        if entry.path().is_dir() {
            if !name.starts_with('.') && ![TEMPLATES, "target"].contains(&name.as_str()) {
                walk(&file, found);
            }
        } else if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            found.push(file.display().to_string());
        }
    }
}

/// Every YAML file of the repository.
fn all() -> Vec<String> {
    let mut found = Vec::new();
    walk(Path::new(""), &mut found);
    found
}

/// Every file of objects.
pub(crate) fn files() -> Vec<String> {
    let mut found = all();
    found.retain(|file| !INPUTS.contains(&file.rsplit('/').next().unwrap_or_default()));
    assert!(found.len() > 30, "{found:?}");
    found
}

/// The folder of every kustomization.
pub(crate) fn kustomizations() -> Vec<String> {
    let found = all();
    let found = found.iter().filter_map(|file| file.strip_suffix("/kustomization.yaml"));
    found.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_object_in_every_file() {
    for file in files() {
        let mut objects = parsed(&text(&file)).unwrap_or_else(|error| panic!("{file}: {error:#}"));
        for metadata in objects.iter_mut().filter_map(|object| object["metadata"].as_object_mut()) {
            // What is written there as it was read from a server: it would be a condition.
            metadata.retain(|name, _| !["uid", "resourceVersion", "managedFields"].contains(&name.as_str()));
        }
        assert!(!objects.is_empty(), "{file} is empty");
        would_take(&objects).await.unwrap_or_else(|error| panic!("{file}: {error:#}"));
    }
}
