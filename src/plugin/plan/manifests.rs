//! The objects of a person's files: `StreamEncryptions`, `StreamEncryptionPolicies` and Namespaces. Reads files, and runs
//! `kubectl kustomize` for `-k`; sends nothing to a cluster.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use serde::de::DeserializeOwned;
use serde_json::Value;
use stream_encryption_api::policy::StreamEncryptionPolicy;
use stream_encryption_api::stream_encryption::KeyObjectReference;
use stream_encryption_core::model::permission::Policy;

/// The objects that a plan is made for.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    /// The `StreamEncryptions`, as given, in their order.
    pub(super) resources: Vec<DynamicObject>,
    /// The policies.
    pub(super) policies: Vec<PolicyFile>,
    /// The namespaces, as given, by name.
    pub(super) namespaces: BTreeMap<String, DynamicObject>,
    /// Number of objects of other kinds.
    pub(super) others: usize,
    /// The Key objects among these.
    keys: Vec<KeyFile>,
}

/// A Key object, as `key.objectRef` names it.
#[derive(Debug)]
struct KeyFile {
    group: String,
    /// The namespace; `None` for that of the apply.
    namespace: Option<String>,
    name: String,
}

/// A `StreamEncryptionPolicy`, as given, and as the operator would read it.
#[derive(Debug)]
pub(super) struct PolicyFile {
    pub(super) given: DynamicObject,
    pub(super) policy: StreamEncryptionPolicy,
}

/// Reads an object, and refuses fields that are not known: with a typo in a selector, a policy would select every
/// namespace.
pub(super) fn strictly<T: DeserializeOwned>(object: Value) -> anyhow::Result<T> {
    let mut unknown = Vec::new();
    let read = serde_ignored::deserialize(object, |field| unknown.push(field.to_string()))?;
    // Every object has these two, which its type stands for.
    unknown.retain(|field| field != "apiVersion" && field != "kind");
    ensure!(unknown.is_empty(), "unknown field {}", unknown.join(", ").replace(".?", ""));
    Ok(read)
}

impl Manifests {
    /// Reads files, folders, and `-` for the standard input.
    pub(super) fn read(files: &[PathBuf], recursive: bool) -> anyhow::Result<Self> {
        let mut manifests = Self::default();
        for file in files {
            if file.as_os_str() == "-" {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("failed to read the standard input")?;
                manifests.add(&text).context("the standard input")?;
                continue;
            }
            let paths = if file.is_dir() { yaml_files(file, recursive)? } else { vec![file.clone()] };
            for path in paths {
                let shown = || path.display().to_string();
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", shown()))?;
                manifests.add(&text).with_context(shown)?;
            }
        }
        Ok(manifests)
    }

    /// Reads what `kubectl kustomize` makes of a folder.
    pub(super) fn of_kustomization(folder: &Path) -> anyhow::Result<Self> {
        let output = Command::new("kubectl")
            .arg("kustomize")
            .arg(folder)
            .output()
            .context("failed to run kubectl, which -k requires")?;
        if !output.status.success() {
            bail!("kubectl kustomize failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let mut manifests = Self::default();
        manifests.add(&String::from_utf8_lossy(&output.stdout)).context("the output of kubectl kustomize")?;
        Ok(manifests)
    }

    /// Returns whether the files have the Key object that a resource of this namespace names. `default_namespace` is that of the
    /// objects without one.
    pub(super) fn has_key(
        &self,
        reference: &KeyObjectReference,
        namespace: &str,
        default_namespace: &str,
    ) -> bool {
        self.keys.iter().any(|key| {
            key.group == reference.group
                && key.name == reference.name
                && key.namespace.as_deref().unwrap_or(default_namespace) == namespace
        })
    }

    /// Adds the objects of a text with one or more YAML documents, or JSON.
    fn add(&mut self, text: &str) -> anyhow::Result<()> {
        // The files are the person's own, and a fleet has thousands of documents. What guards against a small file that
        // expands to a large one, such as by aliases, stays.
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_documents: usize::MAX,
                max_events: usize::MAX,
                max_nodes: usize::MAX,
                max_total_scalar_bytes: usize::MAX,
            },
        };
        let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options)?;
        documents
            .into_iter()
            .filter(|document| !document.is_null())
            .try_for_each(|document| self.object(document))
    }

    fn object(&mut self, object: Value) -> anyhow::Result<()> {
        let word =
            |name: &str| object.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let (version, kind) = (word("apiVersion"), word("kind"));
        if kind.is_empty() || version.is_empty() {
            bail!("an object has no apiVersion or no kind");
        }
        match (version.as_str(), kind.as_str()) {
            ("v1", "List") => {
                let mut object = object;
                let items = object.get_mut("items").map(Value::take);
                let items: Vec<Value> = serde_json::from_value(items.unwrap_or_default())?;
                items.into_iter().try_for_each(|item| self.object(item))?;
            }
            ("streamencryption.dev/v1alpha1", "StreamEncryption") => {
                self.resources.push(serde_json::from_value(object)?);
            }
            ("streamencryption.dev/v1alpha1", "StreamEncryptionPolicy") => {
                let given: DynamicObject = serde_json::from_value(object.clone())?;
                let invalid = || format!("StreamEncryptionPolicy {} is invalid", given.name_any());
                let policy: StreamEncryptionPolicy = strictly(object).with_context(invalid)?;
                if let Some(error) = Policy::read(&policy.spec).1.into_iter().next() {
                    return Err(error).with_context(invalid);
                }
                self.policies.push(PolicyFile { given, policy });
            }
            ("v1", "Namespace") => {
                let namespace: DynamicObject = serde_json::from_value(object)?;
                self.namespaces.insert(namespace.name_any(), namespace);
            }
            (version, "StreamEncryption" | "StreamEncryptionPolicy")
                if version.starts_with("streamencryption.dev/") =>
            {
                bail!(
                    "this version of the plugin does not know {kind} of {version}; it knows streamencryption.dev/v1alpha1"
                );
            }
            (version, "Key") => {
                let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
                let key: DynamicObject = serde_json::from_value(object)?;
                self.keys.push(KeyFile { group, namespace: key.namespace(), name: key.name_any() });
                self.others += 1;
            }
            _ => self.others += 1,
        }
        Ok(())
    }
}

/// Returns the YAML and JSON files of a folder, by name, and those of its folders if `recursive`.
fn yaml_files(folder: &Path, recursive: bool) -> anyhow::Result<Vec<PathBuf>> {
    let shown = || format!("failed to read the folder {}", folder.display());
    let mut entries = std::fs::read_dir(folder).with_context(shown)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.path();
        if path.is_dir() && recursive {
            files.extend(yaml_files(&path, recursive)?);
        } else if path.extension().is_some_and(|kind| kind == "yaml" || kind == "yml" || kind == "json") {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_and_lists_are_read_in_order() {
        let text = r"
apiVersion: v1
kind: List
items:
- {apiVersion: streamencryption.dev/v1alpha1, kind: StreamEncryption, metadata: {name: one}, spec: {}}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: other}}
---
# A comment only.
---
apiVersion: streamencryption.dev/v1alpha1
kind: StreamEncryption
metadata: {name: two}
---
apiVersion: v1
kind: Namespace
metadata: {name: data, labels: {team: data}}
";
        let mut manifests = Manifests::default();
        manifests.add(text).unwrap();
        let names: Vec<_> = manifests.resources.iter().map(kube::ResourceExt::name_any).collect();
        assert_eq!(names, ["one", "two"]);
        assert_eq!(manifests.namespaces["data"].labels()["team"], "data");
        assert_eq!(manifests.others, 1);
    }

    #[test]
    fn key_object_of_the_files_is_found_by_reference() {
        let text = r"
apiVersion: kms.services.k8s.aws/v1alpha1
kind: Key
metadata: {name: orders}
---
apiVersion: kms.aws.m.upbound.io/v1beta1
kind: Key
metadata: {name: clicks, namespace: web}
";
        let mut manifests = Manifests::default();
        manifests.add(text).unwrap();
        let (ack, crossplane) = ("kms.services.k8s.aws", "kms.aws.m.upbound.io");
        for (group, name, namespace, is_found) in [
            (ack, "orders", "data", true),
            (ack, "orders", "web", false),
            (crossplane, "orders", "data", false),
            (crossplane, "clicks", "web", true),
            (crossplane, "clicks", "data", false),
        ] {
            let (group, name) = (group.to_owned(), name.to_owned());
            let reference = KeyObjectReference { group, kind: "Key".to_owned(), name };
            assert_eq!(manifests.has_key(&reference, namespace, "data"), is_found, "{reference:?}");
        }
        assert_eq!(manifests.others, 2);
    }

    #[test]
    fn file_may_have_more_documents_than_the_parser_allows() {
        let one =
            "apiVersion: streamencryption.dev/v1alpha1\nkind: StreamEncryption\nmetadata: {name: x}\n---\n";
        let mut manifests = Manifests::default();
        manifests.add(&one.repeat(1_500)).unwrap();
        assert_eq!(manifests.resources.len(), 1_500);
        // A list of a cluster has many fields in one document.
        let item = r#"{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"1","b":"2","c":"3"}}"#;
        let items = vec![item; 20_000].join(",");
        manifests.add(&format!(r#"{{"apiVersion":"v1","kind":"List","items":[{items}]}}"#)).unwrap();
        assert_eq!(manifests.others, 20_000);
    }

    #[test]
    fn policy_with_an_unknown_field_or_pattern_is_an_error() {
        let policy = |spec: &str| {
            format!(
                "{{apiVersion: streamencryption.dev/v1alpha1, kind: StreamEncryptionPolicy, metadata: {{name: team}}, spec: {spec}}}"
            )
        };
        let add = |spec: &str| Manifests::default().add(&policy(spec));
        add("{namespaceSelector: {matchLabels: {team: data}}, streams: [], keys: [AWS_OWNED_CMK]}").unwrap();
        for (spec, words) in [
            ("{namespaceSelector: {matchlabels: {team: data}}, streams: [], keys: []}", "matchlabels"),
            ("{namespaceSelector: {}, streams: [], keys: [], allowDisabel: true}", "allowDisabel"),
            ("{namespaceSelector: {}, streams: [orders], keys: []}", "team is invalid"),
        ] {
            let error = format!("{:#}", add(spec).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn unknown_version_and_invalid_yaml_are_errors() {
        for (text, words) in [
            ("apiVersion: streamencryption.dev/v2\nkind: StreamEncryption", "does not know"),
            ("kind: StreamEncryption", "no apiVersion"),
            ("a: [", ""),
        ] {
            let error = format!("{:#}", Manifests::default().add(text).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}
