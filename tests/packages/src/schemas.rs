//! Schemas for kubeconform, generated from the schemas that an API server publishes (`/openapi/v3`). The
//! schemas that kubeconform would download are for other versions of Kubernetes and do not contain our kinds.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::objects::word;

/// Returns kubeconform's argument for a folder of schemas. kubeconform fills in the placeholders from which
/// [`file_name`] is built.
pub fn location(folder: &Path) -> String {
    folder.join("{{ .ResourceKind }}{{ .KindSuffix }}.json").display().to_string()
}

/// Returns the file name in which kubeconform looks for a kind. It contains only the first label of the
/// group, and no group for the core API.
pub fn file_name(group: &str, version: &str, kind: &str) -> String {
    let group = group.split('.').next().filter(|first| !first.is_empty());
    let group = group.map(|first| format!("-{first}")).unwrap_or_default();
    format!("{kind}{group}-{version}.json").to_lowercase()
}

/// Returns the group and the version of a path of `/openapi/v3`.
pub fn group_version(path: &str) -> Option<(&str, &str)> {
    match path.split('/').collect::<Vec<_>>()[..] {
        ["api", version] => Some(("", version)),
        ["apis", group, version] => Some((group, version)),
        _ => None,
    }
}

/// Returns whether a document of a group version contains the schema of a kind.
pub fn defines(document: &Value, group: &str, version: &str, kind: &str) -> bool {
    let schemas = document["components"]["schemas"].as_object();
    schemas
        .into_iter()
        .flat_map(|schemas| schemas.values())
        .any(|schema| kinds(schema, group, version).contains(&kind))
}

/// Returns the schema of each kind of a group version, by [`file_name`], from the document of that group
/// version.
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
