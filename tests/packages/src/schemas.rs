//! Schemas for kubeconform, generated from the schemas that an API server publishes (`/openapi/v3`). The
//! schemas that kubeconform would download are for other versions of Kubernetes and do not contain our kinds.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::objects::word;

/// Returns kubeconform's argument for a folder of schemas. kubeconform fills in the placeholders from which
/// [`file_name`] is built.
#[must_use]
pub fn location(folder: &Path) -> String {
    folder.join("{{ .ResourceKind }}{{ .KindSuffix }}.json").display().to_string()
}

/// Returns the file name in which kubeconform looks for a kind. It contains only the first label of the
/// group, and no group for the core API.
#[must_use]
pub fn file_name(group: &str, version: &str, kind: &str) -> String {
    let group = group.split('.').next().filter(|first| !first.is_empty());
    let group = group.map(|first| format!("-{first}")).unwrap_or_default();
    format!("{kind}{group}-{version}.json").to_lowercase()
}

/// Returns the group and the version of a path of `/openapi/v3`.
#[must_use]
pub fn group_version(path: &str) -> Option<(&str, &str)> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => Some(("", version)),
        ["apis", group, version] => Some((group, version)),
        _ => None,
    }
}

/// Returns whether a document of a group version contains the schema of a kind.
#[must_use]
pub fn defines(document: &Value, group: &str, version: &str, kind: &str) -> bool {
    let schemas = document["components"]["schemas"].as_object();
    schemas
        .into_iter()
        .flat_map(|schemas| schemas.values())
        .any(|schema| kinds(schema, group, version).contains(&kind))
}

/// Returns the schema of each kind of a group version, by [`file_name`], from the document of that group
/// version.
///
/// # Errors
/// The document has no schemas, or two schemas have the same file name.
pub fn files(mut document: Value, group: &str, version: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let schemas = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut);
    let schemas = schemas.with_context(|| format!("{group}/{version} has no schemas"))?;
    schemas.values_mut().for_each(make_strict);
    // Serialized once: the kinds of a group version share large definitions.
    let all = serde_json::to_string(schemas)?;
    let mut files = BTreeMap::new();
    for (name, schema) in schemas {
        for kind in kinds(schema, group, version) {
            let file = file_name(group, version, kind);
            let text =
                format!(r##"{{"$ref": "#/components/schemas/{name}", "components": {{"schemas": {all}}}}}"##);
            ensure!(files.insert(file, text).is_none(), "{group}/{version} has more than one {kind}");
        }
    }
    Ok(files)
}

/// Returns the kinds of a group version that a schema belongs to. Some schemas, such as `DeleteOptions`,
/// belong to every group.
fn kinds<'a>(schema: &'a Value, group: &str, version: &str) -> Vec<&'a str> {
    let all = schema["x-kubernetes-group-version-kind"].as_array();
    let own = all.into_iter().flatten().filter(|one| one["group"] == group && one["version"] == version);
    own.map(|one| word(&one["kind"])).collect()
}

/// Closes every object schema that lists its fields and does not allow others, as strict validation in the
/// API server does. Schemas in `allOf`, `anyOf` and `oneOf` are left open, because they only constrain an
/// object that is closed already, or refer to one.
fn make_strict(schema: &mut Value) {
    const OPEN: [&str; 3] =
        ["additionalProperties", "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"];
    let Some(schema) = schema.as_object_mut() else { return };
    if schema.contains_key("properties") && !OPEN.iter().any(|&open| schema.contains_key(open)) {
        schema.insert("additionalProperties".to_owned(), false.into());
    }
    if schema.get("x-kubernetes-int-or-string").is_some_and(|value| value == true) {
        schema.insert("type".to_owned(), ["integer", "string"].into_iter().collect());
    }
    // By name, because a field of an object may have the same name as a schema keyword.
    if let Some(fields) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        fields.values_mut().for_each(make_strict);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get_mut(key) {
            make_strict(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn strict(mut schema: Value) -> Value {
        make_strict(&mut schema);
        schema
    }

    #[test]
    fn file_name_matches_kubeconform_lookup() {
        assert_eq!(file_name("", "v1", "ConfigMap"), "configmap-v1.json");
        assert_eq!(file_name("apps", "v1", "Deployment"), "deployment-apps-v1.json");
        assert_eq!(file_name("networking.k8s.io", "v1", "NetworkPolicy"), "networkpolicy-networking-v1.json");
    }

    #[test]
    fn only_group_version_paths_are_parsed() {
        assert_eq!(group_version("api/v1"), Some(("", "v1")));
        assert_eq!(group_version("apis/apps/v1"), Some(("apps", "v1")));
        for path in ["api", "apis/apps", "version", "openid/v1/jwks"] {
            assert_eq!(group_version(path), None, "{path}");
        }
    }

    #[test]
    fn objects_with_fields_are_closed_at_any_depth() {
        let object = json!({"properties": {"a": {"type": "string"}}});
        let closed = json!({"properties": {"a": {"type": "string"}}, "additionalProperties": false});
        assert_eq!(strict(object.clone()), closed);
        assert_eq!(strict(json!({"items": object})), json!({"items": closed}));
        assert_eq!(strict(json!({"additionalProperties": object})), json!({"additionalProperties": closed}));
        let within = strict(json!({"properties": {"properties": object}}));
        assert_eq!(within["properties"]["properties"], closed, "a field may have any name");
        assert_eq!(within["additionalProperties"], false);
    }

    #[test]
    fn open_objects_references_and_conditions_are_unchanged() {
        for schema in [
            json!({"type": "object"}),
            json!({"properties": {}, "x-kubernetes-preserve-unknown-fields": true}),
            json!({"properties": {}, "x-kubernetes-embedded-resource": true}),
            json!({"properties": {}, "additionalProperties": true}),
            json!({"allOf": [{"$ref": "#/components/schemas/a"}], "default": {}}),
            json!({"anyOf": [{"properties": {"a": {"enum": ["b"]}}}]}),
        ] {
            assert_eq!(strict(schema.clone()), schema);
        }
    }

    #[test]
    fn int_or_string_allows_no_other_type() {
        let both = strict(json!({"x-kubernetes-int-or-string": true}));
        assert_eq!(both["type"], json!(["integer", "string"]));
    }

    #[test]
    fn one_file_is_created_per_kind_of_group_version() {
        let of = |group: &str, kind: &str| {
            let one = json!({"group": group, "version": "v1", "kind": kind});
            json!({"x-kubernetes-group-version-kind": [one]})
        };
        let schemas = json!({"b.A": of("b", "A"), "c.D": of("c", "D"), "e": {}});
        let document = json!({"components": {"schemas": schemas}});
        assert!(defines(&document, "b", "v1", "A"));
        assert!(!defines(&document, "b", "v1", "D") && !defines(&json!({}), "b", "v1", "A"));
        let files = files(document, "b", "v1").unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a-b-v1.json"]);
        let file: Value = serde_json::from_str(&files["a-b-v1.json"]).unwrap();
        assert_eq!(file, json!({"$ref": "#/components/schemas/b.A", "components": {"schemas": schemas}}));
    }
}
