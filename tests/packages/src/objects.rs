//! Kubernetes objects from YAML documents: from the chart, from kustomize, or from a file.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::programs::run_helm;

/// The name and the namespace of the chart's release in these tests. They are the same as in `config/`, so
/// that both can be compared.
pub const RELEASE: &str = "stream-encryption-operator";
/// See [`RELEASE`].
pub const NAMESPACE: &str = "stream-encryption-system";

/// Returns the chart's objects with these values.
pub async fn rendered(values: &Value) -> anyhow::Result<Vec<Value>> {
    parsed(&render(values).await?)
}

/// Returns the chart's objects with these values, as Helm prints them.
pub async fn render(values: &Value) -> anyhow::Result<String> {
    let arguments = ["template", RELEASE, crate::CHART, "--namespace", NAMESPACE, "--values", "-"];
    run_helm(&arguments, &values.to_string(), None).await
}

/// Parses the objects in a text of YAML documents.
pub fn parsed(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("no YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).map(with_plain_numbers).collect())
}

/// Replaces `25.0` by `25`. Helm prints some integers as floating-point numbers, and Kubernetes treats both
/// forms as equal.
fn with_plain_numbers(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, with_plain_numbers(value))).collect(),
        Value::Array(list) => list.into_iter().map(with_plain_numbers).collect(),
        Value::Number(number) if number.is_f64() => plain(number),
        other => other,
    }
}

fn plain(number: serde_json::Number) -> Value {
    let whole = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15);
    // Below 2^53 every whole number is printed exactly.
    let whole = whole.and_then(|float| format!("{float:.0}").parse::<i64>().ok());
    whole.map_or(Value::Number(number), |whole| json!(whole))
}

/// Returns the objects as YAML (JSON is YAML) for `kubectl apply -f -`.
pub fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// Returns `Kind/name` of an object.
pub fn name(object: &Value) -> String {
    format!("{}/{}", word(&object["kind"]), word(&object["metadata"]["name"]))
}

/// Returns the text of a value, or an empty text if it is not a string.
pub fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// Returns the only object of a kind.
pub fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = of_kind(objects, kind);
    let (first, second) = (found.next(), found.next());
    assert!(second.is_none(), "more than one {kind}");
    first.unwrap_or_else(|| panic!("no {kind}"))
}

/// The beginnings of the labels and annotations that only state who installed an object, and whether that tool
/// may delete it. Selectors use only such labels of pods.
const OF_INSTALLER: [&str; 4] = [
    "app.kubernetes.io/",
    "helm.sh/",
    "argocd.argoproj.io/sync-options",
    "kustomize.toolkit.fluxcd.io/prune",
];

/// Returns every object by its kind and name, of which no two may have the same, without the labels and
/// annotations that only state the installer.
pub fn by_name(objects: &[Value]) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for object in objects {
        let other = found.insert(name(object), without_installer(object.clone()));
        assert!(other.is_none(), "two objects are named {}", name(object));
    }
    found
}

fn without_installer(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["labels", "annotations"] {
            let Some(Value::Object(map)) = metadata.get_mut(field) else { continue };
            map.retain(|key, _| !OF_INSTALLER.iter().any(|beginning| key.starts_with(*beginning)));
            if map.is_empty() {
                metadata.remove(field);
            }
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_labels_and_annotations_of_installer_are_dropped() {
        let object = |metadata: Value| json!({"kind": "Service", "metadata": metadata});
        let installed = object(json!({
            "name": "operator",
            "labels": {"app.kubernetes.io/name": "operator", "helm.sh/chart": "operator-1", "scrape": "own"},
            "annotations": {"helm.sh/resource-policy": "keep"},
        }));
        let expected = object(json!({"name": "operator", "labels": {"scrape": "own"}}));
        assert_eq!(by_name(&[installed]), BTreeMap::from([("Service/operator".to_owned(), expected)]));
    }

    #[test]
    #[should_panic(expected = "two objects are named Role/resources")]
    fn second_object_of_same_kind_and_name_is_refused() {
        let role = |namespace: &str| {
            let metadata = json!({"name": "resources", "namespace": namespace});
            json!({"kind": "Role", "metadata": metadata})
        };
        by_name(&[role("data"), role("web")]);
    }
}
