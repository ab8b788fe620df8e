//! Kubernetes objects of a text of YAML documents: from the chart, from kustomize, or from a file.

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::programs::run_helm;

/// The name and the namespace of the chart's release in these tests: those of `config/`, so that the two can be compared.
pub const RELEASE: &str = "stream-encryption-operator";
/// See [`RELEASE`].
pub const NAMESPACE: &str = "stream-encryption-system";

/// The chart's objects with these values.
///
/// # Errors
/// Helm refuses the values, or renders no YAML.
pub async fn rendered(values: &Value) -> anyhow::Result<Vec<Value>> {
    parsed(&render(values).await?)
}

/// The chart's objects with these values, as Helm prints them.
///
/// # Errors
/// Helm refuses the values.
pub async fn render(values: &Value) -> anyhow::Result<String> {
    let arguments = ["template", RELEASE, crate::CHART, "--namespace", NAMESPACE, "--values", "-"];
    run_helm(&arguments, &values.to_string(), None).await
}

/// The objects of a text of YAML documents.
///
/// # Errors
/// It is no YAML.
pub fn parsed(yaml: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).context("no YAML")?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).map(with_plain_numbers).collect())
}

/// `25.0` as `25`, which are one number to Kubernetes: Helm writes the one as the other.
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
    // Below 2^53 each whole number is written as itself.
    let whole = whole.and_then(|float| format!("{float:.0}").parse::<i64>().ok());
    whole.map_or(Value::Number(number), |whole| json!(whole))
}

/// The objects as YAML (JSON is YAML) for `kubectl apply -f -`.
#[must_use]
pub fn list(objects: &[Value]) -> String {
    json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()
}

/// `Kind/name` of an object.
#[must_use]
pub fn name(object: &Value) -> String {
    format!("{}/{}", word(&object["kind"]), word(&object["metadata"]["name"]))
}

/// The text that a value is, or nothing.
#[must_use]
pub fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Those of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The only one of a kind.
///
/// # Panics
/// There are more, or none.
#[must_use]
pub fn only<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = of_kind(objects, kind);
    let (first, second) = (found.next(), found.next());
    assert!(second.is_none(), "more than one {kind}");
    first.unwrap_or_else(|| panic!("no {kind}"))
}

/// Every object by its name, without the labels and annotations that only say who installed it.
#[must_use]
pub fn by_name(objects: &[Value]) -> BTreeMap<String, Value> {
    let plain = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("labels");
            metadata.remove("annotations");
        }
        object
    };
    objects.iter().map(|object| (name(object), plain(object))).collect()
}
