//! Every YAML of the repository, without exception: the API server takes each object in it, with no field that it does not know.

use std::fs;
use std::path::Path;

use packages::objects::parsed;
use packages::path;

use crate::stage::would_take;

/// What is YAML and no object of Kubernetes: the input of Helm, of kustomize, of Argo CD's own tests and of promtool. Each is given to
/// its program by another test.
const INPUTS: [&str; 6] = [
    "Chart.yaml",
    "values.yaml",
    "kustomization.yaml",
    "health_test.yaml",
    "action_test.yaml",
    "alerts.test.yaml",
];
/// Templates, which are no YAML before Helm has rendered them.
const TEMPLATES: &str = "templates";

/// The YAML files below a folder.
fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if !name.starts_with('.') && ![TEMPLATES, "target"].contains(&name) {
                files(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
            && !INPUTS.contains(&name)
        {
            found.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_takes_every_object_in_every_file() {
    let mut found = Vec::new();
    files(&path("."), &mut found);
    assert!(found.len() > 30, "{found:?}");
    for file in found {
        let text = fs::read_to_string(&file).expect("text");
        let mut objects = parsed(&text).unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
        for metadata in objects.iter_mut().filter_map(|object| object["metadata"].as_object_mut()) {
            // What is written there as it was read from a server: it would be a condition.
            metadata.retain(|name, _| !["uid", "resourceVersion", "managedFields"].contains(&name.as_str()));
        }
        assert!(!objects.is_empty(), "{} is empty", file.display());
        would_take(&objects).await.unwrap_or_else(|error| panic!("{}: {error:#}", file.display()));
    }
}
