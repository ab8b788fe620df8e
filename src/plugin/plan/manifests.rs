//! The objects of a person's files: `StreamEncryptions`, `StreamEncryptionPolicies` and Namespaces. Reads files, and runs
//! `kubectl kustomize` for `-k`; sends nothing to a cluster.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use kube::ResourceExt as _;
use kube::core::DynamicObject;
use stream_encryption_api::policy::StreamEncryptionPolicy;

/// The objects that a plan is made for.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    /// The `StreamEncryptions`, as given, in their order.
    pub(super) resources: Vec<DynamicObject>,
    /// The policies.
    pub(super) policies: Vec<StreamEncryptionPolicy>,
    /// The labels of the namespaces.
    pub(super) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// Number of objects of other kinds.
    pub(super) others: usize,
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

    /// Adds the objects of a text with one or more YAML documents, or JSON.
    fn add(&mut self, text: &str) -> anyhow::Result<()> {
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(text)?;
        documents
            .into_iter()
            .filter(|document| !document.is_null())
            .try_for_each(|document| self.object(document))
    }

    fn object(&mut self, object: serde_json::Value) -> anyhow::Result<()> {
        let word =
            |name: &str| object.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
        let (version, kind) = (word("apiVersion"), word("kind"));
        if kind.is_empty() || version.is_empty() {
            bail!("an object has no apiVersion or no kind");
        }
        match (version.as_str(), kind.as_str()) {
            ("v1", "List") => {
                let mut object = object;
                let items = object.get_mut("items").map(serde_json::Value::take);
                let items: Vec<serde_json::Value> = serde_json::from_value(items.unwrap_or_default())?;
                items.into_iter().try_for_each(|item| self.object(item))?;
            }
            ("streamencryption.dev/v1alpha1", "StreamEncryption") => {
                self.resources.push(serde_json::from_value(object)?);
            }
            ("streamencryption.dev/v1alpha1", "StreamEncryptionPolicy") => {
                self.policies
                    .push(serde_json::from_value(object).context("a StreamEncryptionPolicy is invalid")?);
            }
            ("v1", "Namespace") => {
                let namespace: DynamicObject = serde_json::from_value(object)?;
                self.namespaces.insert(namespace.name_any(), namespace.labels().clone());
            }
            (version, "StreamEncryption" | "StreamEncryptionPolicy")
                if version.starts_with("streamencryption.dev/") =>
            {
                bail!(
                    "this version of the plugin does not know {kind} of {version}; it knows streamencryption.dev/v1alpha1"
                );
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
        assert_eq!(manifests.namespaces["data"]["team"], "data");
        assert_eq!(manifests.others, 1);
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
