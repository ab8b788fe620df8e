//! The files for Git: their layout in a folder, and writing them.
//!
//! ```text
//! kustomization.yaml
//! policy.yaml
//! streams/ACCOUNT/REGION/SERVICE-NAME.yaml
//! iam/ACCOUNT.json
//! ```
//!
//! A file that exists with other content is never overwritten unless the person asks for it, and no file is deleted.
//! Every manifest that the folder has stays in the kustomization and in the policies, so that a later run adds streams
//! without taking permissions away: for example if the `StreamEncryption` was applied, or if the run covers another region.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use stream_encryption_core::model::arn::StreamArn;

use super::folder::{ExistingManifest, Folder};
use super::found::FoundEncryption;
use super::managed::Managed;
use super::manifests::{self, Options};
use super::names;
use super::plan::PlannedStream;
use super::policies::{self, AllowedStream};
use super::survey::Place;

/// The files of a folder, with paths relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// The content by path.
    pub files: BTreeMap<String, String>,
    /// The manifest of each stream that has one.
    pub manifests: BTreeMap<StreamArn, String>,
    /// The paths of the IAM policies, by account.
    pub iam: Vec<(String, Vec<String>)>,
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

/// Returns the files for a plan, given what the folder has already. `surveyed` are the places of the plan.
pub fn layout(
    folder: &Folder,
    plan: &[PlannedStream],
    surveyed: &[Place],
    managed: &Managed,
    options: &Options,
) -> anyhow::Result<Layout> {
    let existing = &folder.manifests;
    let new: Vec<&PlannedStream> = plan.iter().filter(|planned| planned.key.is_ok()).collect();
    let unnamed: Vec<&StreamArn> = new
        .iter()
        .map(|planned| &planned.stream.arn)
        .filter(|stream| !existing.contains_key(stream))
        .collect();
    let names = existing.values().map(|manifest| manifest.name.as_str());
    let taken: BTreeSet<&str> = managed.names_in(&options.namespace).chain(names).collect();
    let mut new_names = names::of_resources(&unnamed, &taken).into_iter();
    let mut layout = Layout::default();
    let mut allowed = Vec::new();
    for planned in new {
        let PlannedStream { stream, place, key: Ok(key), .. } = planned else { continue };
        let (name, path) = match existing.get(&stream.arn) {
            Some(manifest) => (Some(manifest.name.clone()), manifest.path.clone()),
            None => (new_names.next(), path(&stream.arn)),
        };
        let text =
            manifests::stream_encryption(&name.context("a stream has no name")?, stream, key, options)?;
        layout.files.insert(path.clone(), text);
        layout.manifests.insert(stream.arn.clone(), path);
        allowed.push(AllowedStream {
            stream: stream.arn.clone(),
            role: place.role.clone(),
            keys: key.patterns(&stream.arn),
            customer_keys: key.customer().cloned().into_iter().collect(),
        });
    }
    let by_stream: BTreeMap<&StreamArn, &PlannedStream> =
        plan.iter().map(|planned| (&planned.stream.arn, planned)).collect();
    let mut elsewhere = Vec::new();
    for (stream, manifest) in existing {
        if layout.manifests.contains_key(stream) {
            continue;
        }
        layout.manifests.insert(stream.clone(), manifest.path.clone());
        let place = surveyed.iter().find(|place| is_of(stream, place));
        let kept = kept(stream, manifest, by_stream.get(stream).copied(), folder, place, &options.namespace);
        if place.is_some() { allowed.push(kept) } else { elsewhere.push(kept) }
    }
    if layout.manifests.is_empty() {
        return Ok(layout);
    }
    allowed.sort_by(|one, other| one.stream.cmp(&other.stream));
    add_policies(&mut layout, folder, &allowed, &elsewhere, surveyed, &options.namespace)?;
    let resources: Vec<String> =
        std::iter::once("policy.yaml".to_owned()).chain(layout.manifests.values().cloned()).collect();
    layout.files.insert("kustomization.yaml".to_owned(), manifests::kustomization(&resources)?);
    Ok(layout)
}

fn is_of(stream: &StreamArn, place: &Place) -> bool {
    stream.account == place.account.account && stream.region == place.region
}

/// Adds the policies for the streams of the surveyed places. Policies of other places stay as they are, and the IAM policy
/// of an account is also for its streams elsewhere.
fn add_policies(
    layout: &mut Layout,
    folder: &Folder,
    allowed: &[AllowedStream],
    elsewhere: &[AllowedStream],
    surveyed: &[Place],
    namespace: &str,
) -> anyhow::Result<()> {
    let is_replaced = |name: &str| surveyed.iter().any(|place| policies::is_name_of(name, namespace, place));
    let mut documents: Vec<String> =
        folder.other_policies(is_replaced).map(|policy| policy.text.clone()).collect();
    for (name, spec) in policies::of_cluster(namespace, allowed) {
        documents.push(manifests::policy(&name, &spec)?);
    }
    layout.files.insert("policy.yaml".to_owned(), documents.join("---\n"));
    let is_surveyed =
        |stream: &&AllowedStream| surveyed.iter().any(|place| place.account.account == stream.stream.account);
    let mut of_iam: Vec<AllowedStream> =
        allowed.iter().chain(elsewhere.iter().filter(is_surveyed)).cloned().collect();
    of_iam.sort_by(|one, other| one.stream.cmp(&other.stream));
    for (account, documents) in policies::of_iam(&of_iam)? {
        let mut paths = Vec::new();
        for (number, document) in documents.iter().enumerate() {
            let number = if documents.len() == 1 { String::new() } else { format!("-{}", number + 1) };
            let path = format!("iam/{account}{number}.json");
            layout.files.insert(path.clone(), format!("{}\n", serde_json::to_string_pretty(document)?));
            paths.push(path);
        }
        layout.iam.push((account.to_string(), paths));
    }
    Ok(())
}

/// Returns the path of the manifest of a stream.
#[must_use]
pub fn path(stream: &StreamArn) -> String {
    format!("streams/{}/{}/{}.yaml", stream.account, stream.region, names::of_stream(stream))
}

/// Returns a stream that has a manifest and gets no new one. It keeps the keys that the policies of its place allow
/// already, because the manifest may name one of them by an alias; and it may have its active key.
fn kept(
    stream: &StreamArn,
    manifest: &ExistingManifest,
    planned: Option<&PlannedStream>,
    folder: &Folder,
    place: Option<&Place>,
    namespace: &str,
) -> AllowedStream {
    let active = match planned.map(|planned| &planned.stream.encryption) {
        Some(FoundEncryption::Customer(key)) => Some(key.to_string()),
        _ => None,
    };
    let is_of_place = |name: &str| place.is_some_and(|place| policies::is_name_of(name, namespace, place));
    let mut keys = folder.keys_of_policies(is_of_place);
    keys.extend(manifest.keys.iter().cloned().chain(active));
    let customer_keys = keys.iter().filter_map(|key| key.parse().ok()).collect();
    let role = place.and_then(|place| place.role.clone());
    AllowedStream { stream: stream.clone(), role, keys: keys.into_iter().collect(), customer_keys }
}

/// Writes the files, and returns what became of each.
pub fn write(folder: &Path, layout: &Layout, overwrite: bool) -> anyhow::Result<BTreeMap<String, Written>> {
    let mut written = BTreeMap::new();
    for (path, content) in &layout.files {
        let target = folder.join(path);
        let outcome = match fs::read(&target) {
            Ok(old) if old == content.as_bytes() => Written::Unchanged,
            Ok(_) if overwrite => Written::Overwritten,
            Ok(_) => Written::Differs,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Written::Created,
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", target.display())),
        };
        if matches!(outcome, Written::Created | Written::Overwritten) {
            let create = || {
                target.parent().map_or(Ok(()), fs::create_dir_all)?;
                fs::write(&target, content)
            };
            create().with_context(|| format!("failed to write {}", target.display()))?;
        }
        written.insert(path.clone(), outcome);
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
