//! The files for Git: their layout in a folder, and writing them.
//!
//! ```text
//! kustomization.yaml
//! policy.yaml
//! streams/ACCOUNT/REGION/SERVICE-NAME.yaml
//! iam/ACCOUNT.json
//! ```
//!
//! No file is deleted, and a manifest that exists is never changed: it belongs to the person, who may have changed its mode
//! or its key. The other files are only extended, if the person asks for it: whatever they allow or list, they still allow
//! and list afterwards. So a later run adds streams without taking permissions away, for example if it covers another
//! region, service or namespace.
//!
//! The manifests are written first, and the kustomization last: a run that fails in between leaves no entry without a file.
//! A file that another run or a person has changed since the folder was read is not overwritten.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, bail};
use stream_encryption_api::stream_encryption::Mode;
use stream_encryption_core::model::arn::{Account, AwsAccount, KeyArn, StreamArn};

use super::atomic_file;
use super::folder::{ExistingManifest, ExistingPolicy, Folder};
use super::found::FoundEncryption;
use super::managed::Managed;
use super::manifests::{self, Options};
use super::plan::PlannedStream;
use super::policies::{self, AWS_OWNED, AllowedStream};
use super::survey::Place;
use super::{grants, kustomization, names};

/// The files of a folder, with paths relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The content by path.
    pub files: BTreeMap<String, String>,
    /// The manifest of each stream that has one.
    pub manifests: BTreeMap<StreamArn, String>,
    /// The paths of the IAM policies, by account.
    pub iam: Vec<(AwsAccount, Vec<String>)>,
    /// The mode of each manifest, as its file has it.
    pub modes: BTreeMap<StreamArn, Mode>,
    /// The streams whose manifest the folder had already.
    pub kept: BTreeSet<StreamArn>,
    /// The files that cannot be extended, and stay as they are.
    pub left: BTreeSet<String>,
    /// What the files that a run may extend had when the folder was read, by path.
    pub before: BTreeMap<String, String>,
    /// What the person must do by hand, a sentence each.
    pub notes: Vec<String>,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Written {
    /// It was created.
    Created,
    /// It existed with the same content.
    Unchanged,
    /// It existed with other content, and was overwritten.
    Overwritten,
    /// It exists with other content, and was left as it is.
    Differs,
}

impl Written {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Created, Self::Overwritten, Self::Unchanged, Self::Differs];

    /// Returns the outcome in one word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Overwritten => "overwritten",
            Self::Unchanged => "unchanged",
            Self::Differs => "different",
        }
    }
}

/// Returns the files for a plan, given what the folder has already. `surveyed` are the places of the plan.
pub fn layout(
    folder: &Folder,
    plan: &[PlannedStream],
    surveyed: &[Place],
    managed: &Managed,
    options: &Options,
) -> anyhow::Result<Layout> {
    let existing = &folder.manifests;
    let is_new =
        |planned: &&PlannedStream| planned.key.is_ok() && !existing.contains_key(&planned.stream.arn);
    let new: Vec<&PlannedStream> = plan.iter().filter(is_new).collect();
    let unnamed: Vec<&StreamArn> = new.iter().map(|planned| &planned.stream.arn).collect();
    let names = existing.values().map(|manifest| manifest.name.as_str());
    let taken: BTreeSet<&str> = managed.names_in(&options.namespace).chain(names).collect();
    let mut new_names = names::of_resources(&unnamed, &taken).into_iter();
    let mut layout = Layout { before: folder.texts.clone(), ..Layout::default() };
    let mut of_namespace = Vec::new();
    let mut of_folder = Vec::new();
    for planned in new {
        let PlannedStream { stream, place, key: Ok(key), .. } = planned else { continue };
        let (name, path) = (new_names.next().context("a stream has no name")?, path(&stream.arn));
        let text = manifests::stream_encryption(&name, stream, key, options)?;
        layout.files.insert(path.clone(), text);
        layout.manifests.insert(stream.arn.clone(), path);
        layout.modes.insert(stream.arn.clone(), options.mode);
        let keys = key.patterns(&stream.arn);
        of_namespace.push(AllowedStream { stream: stream.arn.clone(), role: place.role.clone(), keys });
    }
    let by_stream: BTreeMap<&StreamArn, &PlannedStream> =
        plan.iter().map(|planned| (&planned.stream.arn, planned)).collect();
    let granted = grants::granted_streams(&folder.iam);
    // kustomize gives its namespace to every manifest. A manifest without a namespace gets that of `kubectl apply -n`.
    let of_kustomization = folder.namespace();
    for (stream, manifest) in existing {
        layout.manifests.insert(stream.clone(), manifest.path.clone());
        layout.modes.insert(stream.clone(), manifest.mode);
        layout.kept.insert(stream.clone());
        let namespace = of_kustomization.as_ref().or(manifest.namespace.as_ref());
        let namespace = namespace.unwrap_or(&options.namespace);
        let mut kept = kept(stream, manifest, folder, &granted);
        if let Some(key) = by_stream.get(stream).and_then(|planned| other_active_key(planned, &kept.keys)) {
            // Only the cluster knows the ARN of a key that the manifest names by an object.
            if manifest.key.is_none() || policies::allow_key(&folder.policies, namespace, stream, key) {
                kept.keys.push(key.to_string());
            } else {
                layout.notes.push(format!(
                    "{stream} is encrypted with {key}, which its manifest does not name, so adopt did not allow the key: if the stream may have it, add the key to policy.yaml and run adopt again"
                ));
            }
        }
        let place = surveyed.iter().find(|place| is_of(stream, place));
        match place.filter(|_| *namespace == options.namespace) {
            Some(place) => of_namespace.push(AllowedStream { role: place.role.clone(), ..kept }),
            None => of_folder.push(kept),
        }
    }
    if layout.manifests.is_empty() {
        return Ok(layout);
    }
    of_namespace.sort_by(|one, other| one.stream.cmp(&other.stream));
    let in_cluster = managed.policies().cloned().unwrap_or_default();
    let notes = &mut layout.notes;
    let policies =
        policies::extended(&folder.policies, &options.namespace, &of_namespace, &in_cluster, notes)?;
    layout.files.insert("policy.yaml".to_owned(), joined(&folder.policies, &policies));
    of_folder.extend(of_namespace);
    of_folder.sort_by(|one, other| one.stream.cmp(&other.stream));
    add_iam(&mut layout, folder, &of_folder, surveyed)?;
    let mut resources = vec!["policy.yaml".to_owned()];
    // A file may have several manifests, and kustomize refuses a resource that is listed twice.
    let mut seen = BTreeSet::new();
    resources.extend(layout.manifests.values().filter(|path| seen.insert(path.as_str())).cloned());
    let existing = folder.kustomization.as_ref();
    let name = existing.map_or(kustomization::FILES[0], |(name, _)| name);
    match kustomization::extended(existing.map(|(_, text)| text.as_str()), &resources, &folder.gone) {
        Ok(listed) => {
            layout.files.insert(name.to_owned(), listed);
        }
        // The other files are of use without it, and the survey took long.
        Err(error) => {
            layout.left.insert(name.to_owned());
            layout.notes.push(format!("{name} {error:#}"));
        }
    }
    Ok(layout)
}

/// Returns the documents of a file. The first ones are those that exist, and keep their separators: a formatter that adds
/// one before the first document would add it again after each run.
fn joined(existing: &[ExistingPolicy], documents: &[String]) -> String {
    let mut text = String::new();
    for (at, document) in documents.iter().enumerate() {
        text.push_str(match existing.get(at) {
            Some(policy) => &policy.separator,
            None if at > 0 => "---\n",
            None => "",
        });
        text.push_str(document);
    }
    text
}

fn is_of(stream: &StreamArn, place: &Place) -> bool {
    stream.account == place.account.account && stream.region == place.region
}

/// Adds the IAM policies of the surveyed accounts, for all streams of the folder.
fn add_iam(
    layout: &mut Layout,
    folder: &Folder,
    streams: &[AllowedStream],
    surveyed: &[Place],
) -> anyhow::Result<()> {
    let accounts: BTreeMap<&Account, &AwsAccount> =
        surveyed.iter().map(|place| (&place.account.account, &place.account)).collect();
    for (account, with_partition) in accounts {
        let files = grants::extended(&folder.iam, account, streams, &mut layout.notes)?;
        if !files.is_empty() {
            let paths = files.iter().map(|file| file.path.clone()).collect();
            layout.iam.push((with_partition.clone(), paths));
        }
        layout.files.extend(files.into_iter().map(|file| (file.path, file.text)));
    }
    Ok(())
}

/// Returns the path of the manifest of a stream.
#[must_use]
pub fn path(stream: &StreamArn) -> String {
    format!("streams/{}/{}/{}.yaml", stream.account, stream.region, names::of_stream(stream))
}

/// Returns the active key of a stream if it is a customer managed key and none of these. The operator checks an active key only
/// if a policy allows the key. Whoever set the key may not have been permitted to, so a person decides whether one does.
fn other_active_key<'a>(planned: &'a PlannedStream, keys: &[String]) -> Option<&'a KeyArn> {
    match &planned.stream.encryption {
        FoundEncryption::Customer(key) if !keys.contains(&key.to_string()) => Some(key),
        _ => None,
    }
}

/// Returns a stream that has a manifest already, with the key of its manifest.
///
/// A manifest that names its key by an alias or an object does not tell the ARN of the key. If KMS was not asked, an IAM
/// policy that names the stream has the key already; otherwise it is one of those that the folder's policies allow the
/// stream.
fn kept(
    stream: &StreamArn,
    manifest: &ExistingManifest,
    folder: &Folder,
    granted: &BTreeSet<String>,
) -> AllowedStream {
    let resolved = manifest.resolved.iter().map(ToString::to_string);
    let mut keys: BTreeSet<String> = manifest.key.iter().cloned().chain(resolved).collect();
    let is_exact = |key: &String| key == AWS_OWNED || key.parse::<KeyArn>().is_ok();
    let is_known = manifest.resolved.is_some() || manifest.key.as_ref().is_some_and(is_exact);
    if !is_known && !granted.contains(&stream.to_string()) {
        let specs = folder.policies.iter().filter_map(|policy| policy.spec.as_ref());
        let of_stream = specs.filter(|spec| spec.streams.contains(&stream.to_string()));
        let of_customers = of_stream.flat_map(|spec| &spec.keys).filter(|key| key.parse::<KeyArn>().is_ok());
        keys.extend(of_customers.cloned());
    }
    AllowedStream { stream: stream.clone(), role: None, keys: keys.into_iter().collect() }
}

/// Writes the files, and returns what became of each. A manifest is never overwritten. A file that has changed since the
/// folder was read is an error: the layout lacks the change.
pub fn write(folder: &Path, layout: &Layout, overwrite: bool) -> anyhow::Result<BTreeMap<String, Written>> {
    let mut written: BTreeMap<String, Written> =
        layout.left.iter().map(|path| (path.clone(), Written::Differs)).collect();
    let manifests: BTreeSet<&String> = layout.manifests.values().collect();
    let mut files: Vec<(&String, &String)> = layout.files.iter().collect();
    files.sort_by_key(|(path, _)| (!manifests.contains(path), kustomization::FILES.contains(&path.as_str())));
    for (path, content) in files {
        let target = folder.join(path);
        let found = match fs::read(&target) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", target.display())),
        };
        let before = layout.before.get(path).map(String::as_bytes);
        let outcome = match found.as_deref() {
            Some(found) if found == content.as_bytes() => Written::Unchanged,
            Some(_) if !overwrite || manifests.contains(path) => Written::Differs,
            found if found != before => {
                bail!("{} has changed since adopt read it: run the command again", target.display())
            }
            Some(_) => Written::Overwritten,
            None => Written::Created,
        };
        if matches!(outcome, Written::Created | Written::Overwritten) {
            let create = || {
                target.parent().map_or(Ok(()), fs::create_dir_all)?;
                atomic_file::write(&target, content.as_bytes())
            };
            create().with_context(|| format!("failed to write {}", target.display()))?;
        }
        written.insert(path.clone(), outcome);
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
