//! The policies of the cluster for streams that are taken over. Pure.
//!
//! The policies name each stream and each key, without any pattern. A policy that the folder has already is only
//! extended: it keeps its name, its streams and keys, and the settings that a person gave it. A policy in another form
//! than `adopt`'s is not touched, and the rest goes into a policy of its own. A new policy gets no name that the cluster
//! has: the policy there is that of another folder, and applying one of the same name would replace its lists.

use std::collections::{BTreeMap, BTreeSet};

use stream_encryption_api::policy::{
    DEFAULT_CALLS_PER_DAY, NamespaceSelector, PolicyRole, StreamEncryptionPolicySpec,
};
use stream_encryption_core::model::arn::{Account, AwsAccount, KeyArn, Region, StreamArn};
use stream_encryption_core::model::key::Key;
use stream_encryption_core::model::permission::{EffectivePolicy, Policy};
use stream_encryption_core::model::principal::Role;

use super::folder::ExistingPolicy;
use super::manifests;

/// Maximum number of streams, and of keys, in a `StreamEncryptionPolicy`.
const MAX_ITEMS: usize = 100;
/// The label that Kubernetes sets on each namespace.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";
/// The pattern of the AWS-owned key.
pub const AWS_OWNED: &str = "AWS_OWNED_CMK";

/// A stream that is taken over, as policies need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowedStream {
    /// The stream.
    pub stream: StreamArn,
    /// The role with which it is reached.
    pub role: Option<Role>,
    /// The patterns of the keys that it may have, as far as they are known.
    pub keys: Vec<String>,
}

/// A document of the file: as it was, or changed.
struct Draft {
    name: String,
    spec: Option<StreamEncryptionPolicySpec>,
    /// The text; `None` if the spec has changed since.
    text: Option<String>,
    is_as_written: bool,
}

/// Returns the documents of the existing policies, extended so that a namespace may use these streams with their keys.
/// Each account and region has policies of its own. `in_cluster` are the names of the policies that the cluster has. `notes`
/// takes a sentence about each stream that no policy can allow, because its key is not known.
pub fn extended(
    existing: &[ExistingPolicy],
    namespace: &str,
    streams: &[AllowedStream],
    in_cluster: &BTreeSet<String>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<String>> {
    let draft = |policy: &ExistingPolicy| Draft {
        name: policy.name.clone(),
        spec: policy.spec.clone(),
        text: Some(policy.text.clone()),
        is_as_written: policy.is_as_written(),
    };
    let mut drafts: Vec<Draft> = existing.iter().map(draft).collect();
    for allowed in streams {
        add(&mut drafts, namespace, allowed, in_cluster, notes);
    }
    let text = |draft: Draft| match (draft.text, draft.spec) {
        (None, Some(spec)) => manifests::policy(&draft.name, &spec),
        (text, _) => Ok(text.unwrap_or_default()),
    };
    drafts.into_iter().map(text).collect()
}

fn add(
    drafts: &mut Vec<Draft>,
    namespace: &str,
    allowed: &AllowedStream,
    in_cluster: &BTreeSet<String>,
    notes: &mut Vec<String>,
) {
    let stream = &allowed.stream;
    let specs = drafts.iter().filter_map(|draft| Some((draft.name.as_str(), draft.spec.as_ref()?)));
    let of_stream = for_stream(specs, namespace, stream);
    let is_missing = |key: &&String| !of_stream.iter().any(|(_, policy)| has_key(policy, stream, key));
    let missing: Vec<String> = allowed.keys.iter().filter(is_missing).cloned().collect();
    if missing.is_empty() {
        if of_stream.is_empty() {
            notes.push(format!(
                "{stream} gets no policy, because its manifest does not have the ARN of its key: add the stream and the key to policy.yaml"
            ));
        }
        return;
    }
    // What is missing gets the settings that the stream has already: with another role, no policy would apply to it.
    let empty = match of_stream.first() {
        Some((spec, _)) => {
            StreamEncryptionPolicySpec { streams: Vec::new(), keys: Vec::new(), ..(*spec).clone() }
        }
        None => settings(selector(namespace), allowed.role.as_ref()),
    };
    let base = name(namespace, &stream.account, &stream.region);
    place(drafts, &base, &empty, stream, &missing, in_cluster);
}

/// Returns whether the policies of a folder allow a namespace to use a customer managed key for a stream.
#[must_use]
pub fn allow_key(existing: &[ExistingPolicy], namespace: &str, stream: &StreamArn, key: &KeyArn) -> bool {
    let specs = existing.iter().filter_map(|policy| Some((policy.name.as_str(), policy.spec.as_ref()?)));
    let of_stream = for_stream(specs, namespace, stream);
    of_stream.iter().any(|(_, policy)| has_key(policy, stream, &key.to_string()))
}

/// Returns those of the specs, which have the names of their policies, that allow a namespace to use a stream.
fn for_stream<'a>(
    specs: impl Iterator<Item = (&'a str, &'a StreamEncryptionPolicySpec)>,
    namespace: &str,
    stream: &StreamArn,
) -> Vec<(&'a StreamEncryptionPolicySpec, EffectivePolicy)> {
    let base = name(namespace, &stream.account, &stream.region);
    let selector = selector(namespace);
    specs
        .filter(|(name, spec)| is_numbered(name, &base) || spec.namespace_selector == selector)
        .filter_map(|(_, spec)| Some((spec, allows(spec, stream)?)))
        .collect()
}

/// Adds a stream with keys to the first policy of the same settings that has room, or to a new one.
fn place(
    drafts: &mut Vec<Draft>,
    base: &str,
    empty: &StreamEncryptionPolicySpec,
    stream: &StreamArn,
    keys: &[String],
    in_cluster: &BTreeSet<String>,
) {
    let extend = |spec: &StreamEncryptionPolicySpec| {
        let text = stream.to_string();
        let streams = spec.streams.len() + usize::from(!spec.streams.contains(&text));
        let new_keys = keys.iter().filter(|key| !spec.keys.contains(key)).count();
        (streams <= MAX_ITEMS && spec.keys.len() + new_keys <= MAX_ITEMS).then(|| {
            let mut spec = spec.clone();
            insert(&mut spec.streams, &text);
            for key in keys {
                insert(&mut spec.keys, key);
            }
            spec
        })
    };
    let may_change = |draft: &&mut Draft| draft.is_as_written && is_numbered(&draft.name, base);
    for draft in drafts.iter_mut().filter(may_change) {
        let spec = draft.spec.as_ref().filter(|spec| has_same_settings(spec, empty));
        if let Some(spec) = spec.and_then(extend) {
            (draft.spec, draft.text) = (Some(spec), None);
            return;
        }
    }
    if let Some(spec) = extend(empty) {
        let is_taken =
            |name: &str| in_cluster.contains(name) || drafts.iter().any(|draft| draft.name == name);
        let name = free_name(base, is_taken);
        drafts.push(Draft { name, spec: Some(spec), text: None, is_as_written: true });
        return;
    }
    let (first, second) = keys.split_at(keys.len() / 2);
    place(drafts, base, empty, stream, first, in_cluster);
    place(drafts, base, empty, stream, second, in_cluster);
}

/// Returns whether two policies differ in their streams and keys only.
fn has_same_settings(one: &StreamEncryptionPolicySpec, other: &StreamEncryptionPolicySpec) -> bool {
    let StreamEncryptionPolicySpec { namespace_selector, role, allow_disable, max_calls_per_day, .. } = one;
    *namespace_selector == other.namespace_selector
        && *role == other.role
        && *allow_disable == other.allow_disable
        && *max_calls_per_day == other.max_calls_per_day
}

/// Inserts an item into a list, in order.
fn insert(list: &mut Vec<String>, item: &str) {
    if !list.iter().any(|known| known == item) {
        list.push(item.to_owned());
        list.sort();
    }
}

/// Returns `BASE`, or `BASE-2` and so on if that is taken.
pub fn free_name(base: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let names = std::iter::once(base.to_owned()).chain((2_usize..).map(|number| format!("{base}-{number}")));
    names.into_iter().find(|name| !is_taken(name)).unwrap_or_default()
}

/// Returns whether a name is `BASE`, or `BASE` with a number.
#[must_use]
pub fn is_numbered(name: &str, base: &str) -> bool {
    let is_number = |rest: &str| rest.strip_prefix('-').is_some_and(|number| number.parse::<usize>().is_ok());
    name.strip_prefix(base).is_some_and(|rest| rest.is_empty() || is_number(rest))
}

fn name(namespace: &str, account: &Account, region: &Region) -> String {
    format!("adopted-{namespace}-{account}-{region}")
}

/// Returns the policy if it allows the stream, whoever the operator is.
fn allows(spec: &StreamEncryptionPolicySpec, stream: &StreamArn) -> Option<EffectivePolicy> {
    // Most policies name other streams: parsing each of them for each stream would take minutes for 10,000 streams.
    let text = stream.to_string();
    let may_match = |pattern: &String| *pattern == text || pattern.contains('*') || pattern.contains(":own:");
    if !spec.streams.iter().any(may_match) {
        return None;
    }
    let account = AwsAccount::of(stream);
    let policy = Policy::read(spec).0?;
    (policy.applies_to(stream, &account) && !policy.depends_on_operator(stream))
        .then(|| EffectivePolicy::of(vec![policy], account))
}

fn has_key(policy: &EffectivePolicy, stream: &StreamArn, key: &str) -> bool {
    if key == AWS_OWNED {
        return policy.check_key(stream, &Key::AwsOwned).is_ok();
    }
    match (key.parse::<KeyArn>(), key.split_once(":alias/")) {
        (Ok(key), _) => policy.check_key(stream, &Key::Customer(key)).is_ok(),
        (_, Some((_, alias))) => policy.check_alias(stream, &format!("alias/{alias}")).is_ok(),
        _ => false,
    }
}

fn selector(namespace: &str) -> NamespaceSelector {
    let match_labels = BTreeMap::from([(NAMESPACE_LABEL.to_owned(), namespace.to_owned())]);
    NamespaceSelector { match_labels, ..NamespaceSelector::default() }
}

/// Returns a policy without streams and keys.
fn settings(namespace_selector: NamespaceSelector, role: Option<&Role>) -> StreamEncryptionPolicySpec {
    StreamEncryptionPolicySpec {
        namespace_selector,
        role: role.map(|role| PolicyRole {
            arn: role.arn.to_string(),
            external_id: role.external_id.as_ref().map(|id| id.as_str().to_owned()),
        }),
        streams: Vec::new(),
        keys: Vec::new(),
        allow_disable: false,
        max_calls_per_day: DEFAULT_CALLS_PER_DAY,
    }
}

#[cfg(test)]
mod tests;
