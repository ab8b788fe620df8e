//! What a folder has already from earlier runs, and what people changed in it since. Only reads.
//!
//! An earlier run may have covered other accounts, regions, services or namespaces, and a person may have edited every
//! file. Neither may be lost, so each document is kept with its text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::Mode;
use stream_encryption_core::model::arn::{KeyArn, StreamArn};

use super::{kustomization, manifests};

/// The content of a folder.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Folder {
    /// The manifests by stream.
    pub manifests: BTreeMap<StreamArn, ExistingManifest>,
    /// The documents of `policy.yaml`, in order.
    pub policies: Vec<ExistingPolicy>,
    /// The IAM policies.
    pub iam: Vec<ExistingIamPolicy>,
    /// The name and the text of the kustomization's file. kustomize accepts three names, but only one of them in a folder.
    pub kustomization: Option<(&'static str, String)>,
    /// The entries below `streams` of the kustomization that do not exist any more.
    pub gone: BTreeSet<String>,
    /// The text of each file that a run may extend, by its path relative to the folder.
    pub texts: BTreeMap<String, String>,
}

/// A manifest of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingManifest {
    /// The path, relative to the folder.
    pub path: String,
    /// The name of the resource.
    pub name: String,
    /// The namespace of the resource, if the manifest names it.
    pub namespace: Option<String>,
    /// The pattern of the key that a policy must allow for it: `AWS_OWNED_CMK` if the manifest accepts any key, and `None` if
    /// it names an object.
    pub key: Option<String>,
    /// The mode of the resource, which the manifest may leave to its default.
    pub mode: Mode,
    /// The key behind an alias that the manifest names, if KMS was asked.
    pub resolved: Option<KeyArn>,
}

/// A document of `policy.yaml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingPolicy {
    /// The name; empty if the document is no policy.
    pub name: String,
    /// The policy; `None` if the document is none.
    pub spec: Option<StreamEncryptionPolicySpec>,
    /// The line that separates it from what is before it; empty if there is none. The first document of a file may have one:
    /// formatters add it.
    pub separator: String,
    /// The document as it is, without this line.
    pub text: String,
}

/// A file with an IAM policy.
#[derive(Clone, Debug, PartialEq)]
pub struct ExistingIamPolicy {
    /// The path, relative to the folder.
    pub path: String,
    /// The policy; `None` if the file has no JSON.
    pub document: Option<Value>,
    /// The file as it is.
    pub text: String,
}

impl Folder {
    /// Reads a folder, which need not exist. A file that cannot be read is an error: what it has would be lost if it
    /// counted as absent.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let relative = |path: &Path| Some(path.strip_prefix(folder).ok()?.to_str()?.to_owned());
        let mut read = Self::default();
        for account in entries(&folder.join("streams"))? {
            for region in entries(&account)? {
                for file in entries(&region)?.iter().filter(|file| has_extension(file, &["yaml", "yml"])) {
                    let (Some(path), Some(text)) = (relative(file), text(file)?) else { continue };
                    for (stream, manifest) in manifests_of(file, &text)? {
                        read.manifests.insert(stream, ExistingManifest { path: path.clone(), ..manifest });
                    }
                }
            }
        }
        let policies = text(&folder.join("policy.yaml"))?;
        read.texts.extend(policies.iter().map(|text| ("policy.yaml".to_owned(), text.clone())));
        let policies = documents(policies.as_deref().unwrap_or_default());
        let policies = policies.into_iter().map(policy).collect::<Result<_, _>>();
        read.policies = policies.with_context(|| unreadable(&folder.join("policy.yaml")))?;
        for file in entries(&folder.join("iam"))?.iter().filter(|file| has_extension(file, &["json"])) {
            let (Some(path), Some(text)) = (relative(file), text(file)?) else { continue };
            let document = serde_json::from_str(&text).ok();
            read.texts.insert(path.clone(), text.clone());
            read.iam.push(ExistingIamPolicy { path, document, text });
        }
        for name in kustomization::FILES {
            if let Some(text) = text(&folder.join(name))? {
                read.texts.insert(name.to_owned(), text.clone());
                read.kustomization = Some((name, text));
                break;
            }
        }
        let listed = read.kustomization.as_ref().map(|(_, text)| kustomization::manifests_in(text));
        let listed = listed.unwrap_or_default();
        // Only what certainly does not exist: a person may list a folder, or a file at another depth.
        let is_gone = |path: &String| matches!(folder.join(path).try_exists(), Ok(false));
        read.gone = listed.into_iter().filter(is_gone).collect();
        Ok(read)
    }

    /// Returns the namespace that the kustomization gives to all objects of the folder, whatever their manifests say.
    #[must_use]
    pub fn namespace(&self) -> Option<String> {
        self.kustomization.as_ref().and_then(|(_, text)| kustomization::namespace_of(text))
    }

    /// Returns an error if the kustomization gives all objects another namespace than this one: the policies would be for a
    /// namespace without resources.
    pub fn ensure_namespace(&self, namespace: &str) -> anyhow::Result<()> {
        match (self.namespace(), &self.kustomization) {
            (Some(given), Some((file, _))) if given != namespace => anyhow::bail!(
                "{file} gives all objects of the folder the namespace {given}, and not {namespace}: use -n {given}, or remove `namespace` from {file}"
            ),
            _ => Ok(()),
        }
    }
}

impl ExistingManifest {
    /// Returns the alias that the manifest names, if it names one.
    #[must_use]
    pub fn alias(&self) -> Option<String> {
        self.key.as_deref()?.split_once(":alias/").map(|(_, name)| format!("alias/{name}"))
    }
}

impl ExistingPolicy {
    /// Returns whether the document has nothing but what `adopt` writes, so that `adopt` may write it anew.
    #[must_use]
    pub fn is_as_written(&self) -> bool {
        let written = self.spec.as_ref().and_then(|spec| manifests::policy(&self.name, spec).ok());
        written.is_some_and(|written| written == self.text)
    }
}

/// Returns the entries of a folder, sorted; none if it does not exist or is a file.
fn entries(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let is_none = |error: &io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    let read = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()
    });
    let mut paths = match read {
        Err(error) if is_none(&error) => return Ok(Vec::new()),
        other => other.with_context(|| format!("failed to read {}", folder.display()))?,
    };
    paths.sort();
    Ok(paths)
}

/// Returns the text of a file; none if it does not exist or is a folder.
fn text(file: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory) => Ok(None),
        Err(error) => Err(error).with_context(|| {
            format!("failed to read {}; its content would be lost, so nothing was written", file.display())
        }),
    }
}

/// Editors leave copies beside a file, such as `clicks.yaml~`, which are no manifests.
fn has_extension(file: &Path, extensions: &[&str]) -> bool {
    file.extension().is_some_and(|extension| extensions.iter().any(|one| extension == *one))
}

/// Returns whether a line separates YAML documents: it may have a comment.
fn is_separator(line: &str) -> bool {
    let rest = line.strip_prefix("---").map(str::trim_end);
    rest.is_some_and(|rest| {
        rest.is_empty() || rest.trim_start().starts_with('#') && rest.starts_with([' ', '\t'])
    })
}

/// A document of a YAML file.
#[derive(Default)]
struct Document {
    separator: String,
    text: String,
}

/// Returns the documents of a YAML file.
fn documents(text: &str) -> Vec<Document> {
    let mut documents = vec![Document::default()];
    for line in text.split_inclusive('\n') {
        if is_separator(line) {
            documents.push(Document { separator: line.to_owned(), text: String::new() });
        } else if let Some(document) = documents.last_mut() {
            document.text.push_str(line);
        }
    }
    documents.retain(|document| !document.text.trim().is_empty());
    for Document { text, .. } in &mut documents {
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    documents
}

fn unreadable(file: &Path) -> String {
    format!(
        "{} is no YAML that adopt can read; its content would be lost, so nothing was written",
        file.display()
    )
}

/// Returns the streams and the content of the manifests of a file; none if it has none of a stream.
fn manifests_of(file: &Path, text: &str) -> anyhow::Result<Vec<(StreamArn, ExistingManifest)>> {
    let read = |document: &Document| serde_saphyr::from_str(&document.text);
    let objects: Vec<Value> =
        documents(text).iter().map(read).collect::<Result<_, _>>().with_context(|| unreadable(file))?;
    Ok(objects.iter().filter_map(manifest).collect())
}

fn manifest(object: &Value) -> Option<(StreamArn, ExistingManifest)> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let stream = text("/spec/stream/arn").filter(|_| text("/kind") == Some("StreamEncryption"))?;
    let stream: StreamArn = stream.parse().ok()?;
    let StreamArn { partition, region, account, .. } = &stream;
    let alias =
        text("/spec/key/alias").map(|alias| format!("arn:{partition}:kms:{region}:{account}:{alias}"));
    // Without a key, a stream in plaintext gets the key of AWS, so a policy must allow that one.
    let is_any = object.pointer("/spec/key").is_none_or(Value::is_null);
    let kind = text("/spec/key/type").or(is_any.then_some("AWS_OWNED_CMK"));
    let of_aws = kind.filter(|kind| *kind == "AWS_OWNED_CMK");
    let key = text("/spec/key/arn").or(of_aws).map(ToOwned::to_owned).or(alias);
    let name = text("/metadata/name")?.to_owned();
    let namespace = text("/metadata/namespace").map(ToOwned::to_owned);
    let mode = object.pointer("/spec/mode").and_then(|mode| serde_json::from_value(mode.clone()).ok());
    let mode = mode.unwrap_or_default();
    Some((stream, ExistingManifest { path: String::new(), name, namespace, key, mode, resolved: None }))
}

fn policy(Document { separator, text }: Document) -> Result<ExistingPolicy, serde_saphyr::Error> {
    let object: Value = serde_saphyr::from_str(&text)?;
    let is_policy = object["kind"] == "StreamEncryptionPolicy";
    let name = object["metadata"]["name"].as_str().filter(|_| is_policy).unwrap_or_default().to_owned();
    let spec = object.get("spec").filter(|_| is_policy).cloned();
    let spec = spec.and_then(|spec| serde_json::from_value(spec).ok());
    Ok(ExistingPolicy { name, spec, separator, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDERS: &str = "arn:aws:firehose:eu-west-1:111122223333:deliverystream/orders";

    fn spec(key: &str) -> String {
        format!(
            "apiVersion: streamencryption.dev/v1alpha1\nkind: StreamEncryption\nmetadata:\n  name: orders\n  namespace: data\nspec:\n  stream:\n    arn: {ORDERS}\n  key: {key}\n"
        )
    }

    /// Returns the only manifest of a file.
    fn manifest_in(text: &str) -> Option<(StreamArn, ExistingManifest)> {
        manifests_of(Path::new("orders.yaml"), text).unwrap().pop()
    }

    #[test]
    fn manifest_is_recognized_with_its_keys() {
        let key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
        let by_arn = format!("{{type: CUSTOMER_MANAGED_CMK, arn: \"{key}\"}}");
        for (written, keys) in [
            ("{type: AWS_OWNED_CMK}", Some("AWS_OWNED_CMK")),
            ("", Some("AWS_OWNED_CMK")),
            (
                "{type: CUSTOMER_MANAGED_CMK, alias: alias/orders}",
                Some("arn:aws:kms:eu-west-1:111122223333:alias/orders"),
            ),
            ("{type: CUSTOMER_MANAGED_CMK, objectRef: {name: orders}}", None),
            (&by_arn, Some(key)),
        ] {
            let (stream, manifest) = manifest_in(&spec(written)).unwrap();
            assert_eq!((stream.to_string().as_str(), manifest.name.as_str()), (ORDERS, "orders"));
            assert_eq!(manifest.key.as_deref(), keys);
            assert_eq!(manifest.namespace.as_deref(), Some("data"));
        }
    }

    #[test]
    fn other_files_are_ignored() {
        for other in
            ["", "# a note", "kind: StreamEncryption", "kind: Kustomization\nspec: {stream: {arn: x}}", "- a"]
        {
            assert_eq!(manifest_in(other), None, "{other}");
            let document = Document { text: other.to_owned(), ..Document::default() };
            assert_eq!(policy(document).unwrap().spec, None, "{other}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Folder::read(&folder.path().join("none")).unwrap(), Folder::default());
        let streams = folder.path().join("streams/111122223333/eu-west-1");
        fs::create_dir_all(&streams).unwrap();
        fs::write(streams.join("orders.yaml"), spec("{type: AWS_OWNED_CMK}")).unwrap();
        fs::write(streams.join("orders.yaml~"), spec("{type: AWS_OWNED_CMK}")).unwrap();
        fs::write(streams.join("README.md"), "# Streams").unwrap();
        fs::write(folder.path().join("streams/notes.txt"), "x").unwrap();
        let read = Folder::read(folder.path()).unwrap();
        let paths: Vec<&str> = read.manifests.values().map(|manifest| manifest.path.as_str()).collect();
        assert_eq!(paths, ["streams/111122223333/eu-west-1/orders.yaml"]);
    }

    #[test]
    fn file_that_cannot_be_read_is_no_missing_one() {
        let manifest = "streams/111122223333/eu-west-1/orders.yaml";
        for path in ["policy.yaml", "iam/111122223333.json", "kustomization.yaml", manifest] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, b"# Geh\xf6rt uns.\n").unwrap();
            let error = Folder::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(path), "{error}");
        }
    }

    #[test]
    fn mode_of_a_manifest_is_its_own_or_the_default() {
        let text = spec("{type: AWS_OWNED_CMK}");
        assert_eq!(manifest_in(&text).unwrap().1.mode, Mode::default());
        for mode in [Mode::Observe, Mode::Enforce] {
            assert_eq!(manifest_in(&format!("{text}  mode: {mode:?}\n")).unwrap().1.mode, mode);
        }
    }

    #[test]
    fn file_that_is_no_yaml_is_no_missing_one() {
        for path in ["policy.yaml", "streams/111122223333/eu-west-1/orders.yaml"] {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "kind: StreamEncryption\n---\n{\n").unwrap();
            let error = Folder::read(folder.path()).unwrap_err().to_string();
            assert!(error.contains(path), "{error}");
        }
    }

    /// A document that is no policy, or is edited, must survive; only a written one may be written anew.
    #[test]
    fn each_document_of_a_policy_file_is_kept() {
        let spec =
            StreamEncryptionPolicySpec { max_calls_per_day: 5, ..StreamEncryptionPolicySpec::own_account() };
        let written = manifests::policy("a", &spec).unwrap();
        let edited = written.replace("name: a", "name: b\n  labels: {team: data}");
        let other = "kind: Namespace\nmetadata:\n  name: data\n";
        let folder = tempfile::tempdir().unwrap();
        let separators = ["---\n", "--- # team A\n", "---\t\n", "---\n"];
        let documents = [written.as_str(), &edited, other, "{}\n", "# a note"];
        let following = documents[1..]
            .iter()
            .zip(separators)
            .map(|(document, separator)| separator.to_owned() + document);
        let text = documents[0].to_owned() + &following.collect::<String>();
        fs::write(folder.path().join("policy.yaml"), text).unwrap();
        let read = Folder::read(folder.path()).unwrap().policies;
        let found: Vec<_> = read.iter().map(|one| (one.name.as_str(), one.is_as_written())).collect();
        assert_eq!(found, [("a", true), ("b", false), ("", false), ("", false), ("", false)]);
        assert_eq!(read[1].spec, Some(spec));
        assert_eq!(read[2].text, other);
        let kept: Vec<&str> = read.iter().map(|one| one.separator.as_str()).collect();
        assert_eq!(kept, [&[""][..], &separators].concat());
    }
}
