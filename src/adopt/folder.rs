//! What a folder has already from earlier runs: the manifests of streams, and the policies. Only reads.
//!
//! A file that is not of `adopt`'s form is ignored. An earlier run may have covered other accounts, regions or services;
//! what it wrote must not be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stream_encryption_core::model::arn::StreamArn;

/// The content of a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Folder {
    /// The manifests by stream.
    pub manifests: BTreeMap<StreamArn, ExistingManifest>,
    /// The policies of `policy.yaml`, in order.
    pub policies: Vec<ExistingPolicy>,
}

/// A manifest of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingManifest {
    /// The path, relative to the folder.
    pub path: String,
    /// The name of the resource.
    pub name: String,
    /// The patterns of keys that a policy must allow for it, as far as it names them.
    pub keys: Vec<String>,
}

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingPolicy {
    /// The name.
    pub name: String,
    /// The patterns of keys.
    pub keys: Vec<String>,
    /// The document as it is.
    pub text: String,
}

impl Folder {
    /// Reads a folder, which need not exist.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let files = entries(&folder.join("streams")).into_iter().flat_map(|account| entries(&account));
        let files = files.flat_map(|region| entries(&region));
        let manifests = files.filter_map(|path| {
            let (stream, manifest) = manifest(&fs::read_to_string(&path).ok()?)?;
            let path = path.strip_prefix(folder).ok()?.to_str()?.to_owned();
            Some((stream, ExistingManifest { path, ..manifest }))
        });
        let policies = fs::read_to_string(folder.join("policy.yaml")).unwrap_or_default();
        Self {
            manifests: manifests.collect(),
            policies: policies.split("---\n").filter_map(policy).collect(),
        }
    }

    /// Returns the policies whose names `is_replaced` does not select.
    pub fn other_policies(
        &self,
        is_replaced: impl Fn(&str) -> bool,
    ) -> impl Iterator<Item = &ExistingPolicy> {
        self.policies.iter().filter(move |policy| !is_replaced(&policy.name))
    }

    /// Returns the keys of the policies whose names `is_selected` selects.
    pub fn keys_of_policies(&self, is_selected: impl Fn(&str) -> bool) -> BTreeSet<String> {
        let selected = self.policies.iter().filter(|policy| is_selected(&policy.name));
        selected.flat_map(|policy| policy.keys.iter().cloned()).collect()
    }
}

/// Returns the entries of a folder, sorted; none if it does not exist.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

/// Returns the stream and the content of a manifest; `None` if it is not one of a stream.
fn manifest(text: &str) -> Option<(StreamArn, ExistingManifest)> {
    let object: Value = serde_saphyr::from_str(text).ok()?;
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let stream = text("/spec/stream/arn").filter(|_| text("/kind") == Some("StreamEncryption"))?;
    let stream: StreamArn = stream.parse().ok()?;
    let StreamArn { partition, region, account, .. } = &stream;
    let alias =
        text("/spec/key/alias").map(|alias| format!("arn:{partition}:kms:{region}:{account}:{alias}"));
    let of_aws = text("/spec/key/type").filter(|kind| *kind == "AWS_OWNED_CMK").map(ToOwned::to_owned);
    let keys = text("/spec/key/arn").map(ToOwned::to_owned).into_iter().chain(alias).chain(of_aws).collect();
    let name = text("/metadata/name")?.to_owned();
    Some((stream, ExistingManifest { path: String::new(), name, keys }))
}

fn policy(text: &str) -> Option<ExistingPolicy> {
    let object: Value = serde_saphyr::from_str(text).ok()?;
    let name = object.pointer("/metadata/name")?.as_str()?.to_owned();
    let keys = object.pointer("/spec/keys")?.as_array()?.iter();
    let keys = keys.filter_map(Value::as_str).map(ToOwned::to_owned).collect();
    Some(ExistingPolicy { name, keys, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";

    fn spec(key: &str) -> String {
        format!(
            "apiVersion: streamencryption.dev/v1alpha1\nkind: StreamEncryption\nmetadata:\n  name: orders\nspec:\n  stream:\n    arn: {ORDERS}\n  key: {key}\n"
        )
    }

    #[test]
    fn manifest_is_recognized_with_its_keys() {
        let key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let by_arn = format!("{{type: CUSTOMER_MANAGED_CMK, arn: \"{key}\"}}");
        for (written, keys) in [
            ("{type: AWS_OWNED_CMK}", "AWS_OWNED_CMK"),
            (
                "{type: CUSTOMER_MANAGED_CMK, alias: alias/orders}",
                "arn:aws:kms:eu-west-1:111122223333:alias/orders",
            ),
            (&by_arn, key),
        ] {
            let (stream, manifest) = manifest(&spec(written)).unwrap();
            assert_eq!((stream.to_string().as_str(), manifest.name.as_str()), (ORDERS, "orders"));
            assert_eq!(manifest.keys, [keys]);
        }
    }

    #[test]
    fn other_files_are_ignored() {
        for other in
            ["", "kind: StreamEncryption", "kind: Kustomization\nspec: {stream: {arn: x}}", "{", "- a"]
        {
            assert_eq!(manifest(other), None, "{other}");
            assert_eq!(policy(other), None, "{other}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Folder::read(&folder.path().join("none")), Folder::default());
        let streams = folder.path().join("streams/111122223333/eu-west-1");
        fs::create_dir_all(&streams).unwrap();
        fs::write(streams.join("orders.yaml"), spec("{type: AWS_OWNED_CMK}")).unwrap();
        fs::write(streams.join("README.md"), "# Streams").unwrap();
        fs::write(folder.path().join("streams/notes.txt"), "x").unwrap();
        let read = Folder::read(folder.path());
        let paths: Vec<&str> = read.manifests.values().map(|manifest| manifest.path.as_str()).collect();
        assert_eq!(paths, ["streams/111122223333/eu-west-1/orders.yaml"]);
    }

    #[test]
    fn policies_are_divided_by_name() {
        let policy =
            |name: &str, key: &str| format!("metadata:\n  name: {name}\nspec:\n  keys:\n  - {key}\n");
        let folder = tempfile::tempdir().unwrap();
        let text = [policy("a", "AWS_OWNED_CMK"), policy("b", "x")].join("---\n");
        fs::write(folder.path().join("policy.yaml"), text).unwrap();
        let read = Folder::read(folder.path());
        let others: Vec<&str> =
            read.other_policies(|name| name == "a").map(|policy| policy.name.as_str()).collect();
        assert_eq!(others, ["b"]);
        assert_eq!(read.keys_of_policies(|name| name == "a"), BTreeSet::from(["AWS_OWNED_CMK".to_owned()]));
    }
}
