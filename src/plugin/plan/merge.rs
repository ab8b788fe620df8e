//! What `kubectl apply` makes of a stored object: the three-way merge of the object, of the configuration that was applied
//! last, and of a person's file. Pure.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde_json::{Map, Value};
use stream_encryption_api::stream_encryption::StreamEncryption;

/// The annotation in which `kubectl apply` records what it applied last.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The field manager of `kubectl apply --server-side`.
const KUBECTL: &str = "kubectl";
/// The prefix of the annotations that the operator reads.
const OWN_ANNOTATIONS: &str = "streamencryption.dev/";
/// The fields of a `StreamEncryption` that one apply sets as a whole.
const WHOLE_FIELDS: [&str; 2] = ["/spec/stream", "/spec/key"];

/// Who applied an object last, as the stored object records it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum LastApply {
    /// `kubectl apply`, with this configuration.
    Client(Value),
    /// A server-side apply of this field manager, such as Flux or Argo CD.
    Server(String),
    /// Nobody, or several field managers. It is not known which fields the next apply removes.
    Unknown,
}

impl LastApply {
    /// Reads who applied a stored object last.
    pub(super) fn of(stored: &Value) -> Self {
        let recorded = stored["metadata"]["annotations"][LAST_APPLIED].as_str();
        let recorded = recorded.and_then(|text| serde_json::from_str(text).ok());
        let entries = stored["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
        let managers: BTreeSet<&str> = entries
            .iter()
            .filter(|entry| is_apply(entry))
            .filter_map(|entry| entry["manager"].as_str())
            .collect();
        let only = managers.first().filter(|_| managers.len() == 1);
        match (recorded, only) {
            (Some(_), Some(manager)) if applied_later(entries, manager) => {
                Self::Server((*manager).to_owned())
            }
            (Some(last), _) => Self::Client(last),
            (None, Some(manager)) => Self::Server((*manager).to_owned()),
            (None, None) => Self::Unknown,
        }
    }
}

/// Returns whether an entry of `managedFields` is that of a server-side apply.
fn is_apply(entry: &Value) -> bool {
    entry["operation"] == "Apply" && entry["subresource"].is_null()
}

/// Returns whether the server-side apply of `manager`, the only one with such an apply, is later than the apply that the
/// annotation records. If that manager is kubectl's own, the API server updates the annotation.
fn applied_later(entries: &[Value], manager: &str) -> bool {
    let annotation = format!("f:{LAST_APPLIED}");
    let time = |entry: &Value| entry["time"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let is_annotator = |entry: &&Value| {
        entry["operation"] == "Update"
            && !entry["fieldsV1"]["f:metadata"]["f:annotations"][annotation.as_str()].is_null()
    };
    let recorded = entries.iter().filter(is_annotator).filter_map(time).max();
    let applied = entries.iter().filter(|entry| is_apply(entry)).filter_map(time).max();
    manager != KUBECTL && applied > recorded
}

/// Returns the object that `kubectl apply` sends for a stored one: a field that `last` has and the file does not have is
/// removed, a field that the file has is set, and every other field stays.
pub(super) fn merged(stored: &Value, last: &Value, given: &Value) -> Value {
    let mut given = applicable(given);
    // kubectl records itself in an annotation, so what it applies always has annotations.
    if given["metadata"]["annotations"].is_null() {
        given["metadata"]["annotations"] = Value::Object(Map::new());
    }
    let mut object = stored.clone();
    merge(&mut object, &applicable(last), &given);
    object
}

/// Returns the object that an apply sends for a stored one if it is not known which fields the last apply has set. Each field
/// of the file is set, and every other field stays. The stream and the key of the file replace the stored ones as a whole, as
/// their definition requires (`x-kubernetes-map-type: atomic`): both the stored ARN of a key and the alias of the file would
/// be refused.
pub(super) fn merged_with_unknown(stored: &Value, given: &Value) -> Value {
    let mut stored = stored.clone();
    for path in WHOLE_FIELDS.into_iter().filter(|path| given.pointer(path).is_some()) {
        if let Some(field) = stored.pointer_mut(path) {
            *field = Value::Null;
        }
    }
    merged(&stored, &Value::Null, given)
}

/// Returns a file without the fields that an apply of it does not set.
fn applicable(file: &Value) -> Value {
    let mut file = file.clone();
    if let Some(fields) = file.as_object_mut() {
        fields.remove("status");
    }
    if let Some(annotations) = file.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    file
}

fn merge(target: &mut Value, last: &Value, given: &Value) {
    let Some(given) = given.as_object() else {
        *target = given.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    let removed = last.as_object().into_iter().flatten().map(|(name, _)| name);
    for name in removed.filter(|name| !given.contains_key(*name)) {
        fields.remove(name);
    }
    for (name, value) in given {
        if value.is_null() {
            fields.remove(name);
        } else {
            merge(fields.entry(name.clone()).or_insert(Value::Null), &last[name], value);
        }
    }
}

/// Returns the fields of the spec, and the operator's annotations, that an object would have after an apply although
/// the file does not have them.
pub(super) fn kept(given: &Value, accepted: &Value) -> Vec<String> {
    // With the defaults, which the file need not have.
    let spec = |object: &Value| {
        let resource: StreamEncryption = serde_json::from_value(object.clone()).ok()?;
        serde_json::to_value(resource.spec).ok()
    };
    let (Some(of_file), Some(of_object)) = (spec(given), spec(accepted)) else { return Vec::new() };
    let fields = [&of_file, &of_object].into_iter().filter_map(Value::as_object).flatten();
    let names: BTreeSet<&String> = fields.map(|(name, _)| name).collect();
    let differs = |name: &String| of_file[name] != of_object[name];
    let mut kept: Vec<String> =
        names.into_iter().filter(|name| differs(name)).map(|name| format!("spec.{name}")).collect();
    let annotations = accepted["metadata"]["annotations"].as_object().into_iter().flatten();
    let is_of_file = |name: &String| !given["metadata"]["annotations"][name].is_null();
    kept.extend(
        annotations
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(OWN_ANNOTATIONS) && !is_of_file(name))
            .map(|name| format!("the annotation {name}")),
    );
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(annotations: &Value, spec: &Value) -> Value {
        let mut whole = json!({"service": "Kinesis", "name": "orders"});
        whole = json!({"stream": whole});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "annotations": annotations}, "spec": whole})
    }

    #[test]
    fn field_that_left_the_file_is_removed() {
        let suspended = object(&json!({"streamencryption.dev/suspend": "true"}), &json!({"suspend": true}));
        let file = object(&json!({}), &json!({}));
        assert_eq!(merged(&suspended, &suspended, &file), file);
        // Those of others stay, also if the file has no annotations any more.
        let mut without = file;
        without["metadata"].as_object_mut().unwrap().remove("annotations");
        let mut stored = suspended.clone();
        stored["metadata"]["annotations"]["other"] = json!("x");
        let result = merged(&stored, &suspended, &without);
        assert_eq!(result["metadata"]["annotations"], json!({"other": "x"}));
    }

    #[test]
    fn field_that_others_set_stays_and_is_named() {
        let file = object(&json!({}), &json!({"mode": "Observe"}));
        let stored = object(
            &json!({"streamencryption.dev/suspend": "true", "other": "x"}),
            &json!({"mode": "Observe", "suspend": true}),
        );
        let result = merged(&stored, &file, &file);
        assert_eq!(result, stored);
        assert_eq!(kept(&file, &result), ["spec.suspend", "the annotation streamencryption.dev/suspend"]);
    }

    #[test]
    fn field_of_the_file_wins_and_defaults_are_not_kept() {
        let stored = object(&json!({}), &json!({"mode": "Enforce", "suspend": false}));
        let file = object(&json!({}), &json!({"mode": "Observe"}));
        let result = merged(&stored, &Value::Null, &file);
        assert_eq!(result["spec"]["mode"], "Observe");
        assert_eq!(kept(&file, &result), [""; 0]);
    }

    #[test]
    fn key_of_the_file_replaces_the_stored_key() {
        let key =
            |field: &str| json!({"key": {"type": "CUSTOMER_MANAGED_CMK", field: "x"}, "mode": "Enforce"});
        let stored = object(&json!({}), &key("arn"));
        let mut file = object(&json!({}), &key("alias"));
        assert_eq!(merged_with_unknown(&stored, &file), file);
        file["spec"]["key"]["arn"] = Value::Null;
        let result = merged_with_unknown(&stored, &file);
        assert_eq!(result["spec"], object(&json!({}), &key("alias"))["spec"]);
        // What is not in the file may belong to others.
        let without = object(&json!({}), &json!({"mode": "Observe"}));
        let result = merged_with_unknown(&stored, &without);
        assert_eq!(
            (&result["spec"]["mode"], &result["spec"]["key"]["arn"]),
            (&json!("Observe"), &json!("x"))
        );
    }

    #[test]
    fn null_and_status_of_a_file_are_not_stored() {
        let stored = object(&json!({}), &json!({"mode": "Enforce"}));
        let mut file = object(&json!({}), &json!({"mode": null}));
        file["status"] = json!({"x": 1});
        file["metadata"]["creationTimestamp"] = Value::Null;
        let result = merged(&stored, &Value::Null, &file);
        assert_eq!((&result["spec"]["mode"], &result["status"]), (&Value::Null, &Value::Null));
        assert!(!result["metadata"].as_object().unwrap().contains_key("creationTimestamp"));
    }

    #[test]
    fn last_apply_is_of_kubectl_or_of_one_manager() {
        let last = json!({"spec": {}});
        let client = json!({"metadata": {"annotations": {LAST_APPLIED: last.to_string()}}});
        assert_eq!(LastApply::of(&client), LastApply::Client(last));
        let manager = |name: &str, operation: &str, subresource: Option<&str>| json!({"manager": name, "operation": operation, "subresource": subresource});
        let of = |managers: &[Value]| LastApply::of(&json!({"metadata": {"managedFields": managers}}));
        let flux = manager("flux", "Apply", None);
        let patch = manager("kubectl-patch", "Update", None);
        let status = manager("operator", "Apply", Some("status"));
        assert_eq!(of(&[patch.clone(), flux.clone(), status]), LastApply::Server("flux".to_owned()));
        assert_eq!(of(&[flux, manager("argocd", "Apply", None)]), LastApply::Unknown);
        assert_eq!(of(&[patch]), LastApply::Unknown);
    }

    #[test]
    fn server_side_apply_after_that_of_kubectl_is_the_last() {
        let last = json!({"spec": {}});
        let of = |managers: &[Value]| {
            let annotations = json!({LAST_APPLIED: last.to_string()});
            LastApply::of(&json!({"metadata": {"annotations": annotations, "managedFields": managers}}))
        };
        let entry = |manager: &str, operation: &str, hour: &str, annotation: &str| {
            json!({"manager": manager, "operation": operation, "time": format!("2026-01-01T{hour}:00:00Z"),
                "fieldsV1": {"f:metadata": {"f:annotations": {annotation: {}}}}})
        };
        let recorded = format!("f:{LAST_APPLIED}");
        let kubectl = entry("kubectl-client-side-apply", "Update", "02", &recorded);
        let flux = |hour| entry("flux", "Apply", hour, "f:x");
        let client = LastApply::Client(last.clone());
        let server = LastApply::Server("flux".to_owned());
        assert_eq!(of(&[kubectl.clone(), flux("03")]), server);
        assert_eq!(of(&[kubectl.clone(), flux("01")]), client);
        // No entry shows who has written the annotation.
        assert_eq!(of(&[entry("other", "Update", "04", "f:x"), flux("03")]), server);
        // The API server updates the annotation for this manager. kubectl may add a second manager to keep the annotation.
        let own = entry("kubectl", "Apply", "03", "f:x");
        assert_eq!(of(&[kubectl.clone(), own.clone()]), client);
        assert_eq!(of(&[own, entry("kubectl-last-applied", "Apply", "03", &recorded)]), client);
        assert_eq!(of(&[kubectl, flux("03"), entry("argocd", "Apply", "03", "f:x")]), client);
    }
}
