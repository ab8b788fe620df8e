//! The IAM policies of the operator's role for streams that are taken over. Pure.
//!
//! They name each stream and each key, and allow only what encryption needs. A file that the folder has already is only
//! extended: it keeps its path and all that it allows. A file in another form than `adopt`'s, for example with a
//! condition that a person added, is not touched, and the rest goes into a file of its own. Each file is short enough
//! for a managed policy.

use std::collections::BTreeSet;

use serde_json::Value;
use stream_encryption_api::stream_encryption::Service;
use stream_encryption_core::model::arn::{Account, KeyArn, Region, StreamArn};
use stream_encryption_core::model::service::Operation;

use super::folder::ExistingIamPolicy;
use super::policies::{AWS_OWNED, AllowedStream, free_name, is_numbered};
use crate::iam::document::{LONGEST_MANAGED_POLICY, PolicyDocument, characters};
use crate::iam::scope::{Scope, ScopeError};
use crate::iam::{self, Feature};

/// A file with its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IamFile {
    /// The path, relative to the folder.
    pub path: String,
    /// The content.
    pub text: String,
}

/// What a policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Grant {
    streams: BTreeSet<String>,
    /// The customer managed keys.
    keys: BTreeSet<String>,
    /// The ARNs of `alias/aws/kinesis`, by which a person has replaced `key/*`: keys of Start that are not described as
    /// customer managed ones.
    kinesis_keys: BTreeSet<String>,
    /// The regions in which Kinesis streams may use `alias/aws/kinesis`, whose ARN differs in each account and region.
    aws_keys: BTreeSet<Region>,
}

struct Draft {
    path: String,
    grant: Grant,
    /// The file as it is; `None` if it is new or has changed.
    text: Option<String>,
    is_as_written: bool,
}

/// Returns the files of an account: the existing ones, extended so that the operator may encrypt these streams with their
/// keys.
///
/// A stream that an edited policy names gets no `key/*`: the person may have removed it. `notes` takes a sentence about it.
pub fn extended(
    existing: &[ExistingIamPolicy],
    account: &Account,
    streams: &[AllowedStream],
    notes: &mut Vec<String>,
) -> anyhow::Result<Vec<IamFile>> {
    let base = format!("iam/{account}");
    let mut drafts: Vec<Draft> =
        existing.iter().filter(|file| is_of(&file.path, &base)).map(Draft::of).collect();
    drafts.sort_by_key(|draft| (draft.path.len(), draft.path.clone()));
    for allowed in streams.iter().filter(|allowed| allowed.stream.account == *account) {
        add(&mut drafts, &base, allowed, notes)?;
    }
    drafts.into_iter().map(Draft::file).collect()
}

/// Returns the ARNs of the streams that the files allow to be encrypted, with any key.
#[must_use]
pub fn granted_streams(existing: &[ExistingIamPolicy]) -> BTreeSet<String> {
    existing.iter().flat_map(|file| Grant::read(file).streams).collect()
}

fn is_of(path: &str, base: &str) -> bool {
    path.strip_suffix(".json").is_some_and(|path| is_numbered(path, base))
}

fn add(
    drafts: &mut Vec<Draft>,
    base: &str,
    allowed: &AllowedStream,
    notes: &mut Vec<String>,
) -> Result<(), ScopeError> {
    let stream = &allowed.stream;
    let of_stream: Vec<&Draft> = drafts.iter().filter(|draft| draft.grant.has_stream(stream)).collect();
    let keys = allowed.keys.iter().filter(|key| !key.contains('*') && is_key_for(key, stream));
    let keys: BTreeSet<String> =
        keys.filter(|key| !of_stream.iter().any(|draft| draft.grant.keys.contains(*key))).cloned().collect();
    let mut missing = Grant { streams: BTreeSet::from([stream.to_string()]), keys, ..Grant::default() };
    let uses_aws_key = stream.service == Service::Kinesis && allowed.keys.iter().any(|key| key == AWS_OWNED);
    if uses_aws_key && !of_stream.iter().any(|draft| draft.grant.has_aws_key(stream)) {
        let known = drafts.iter().flat_map(|draft| draft.grant.kinesis_keys_of(stream));
        missing.kinesis_keys = known.cloned().collect();
        if let Some(edited) = of_stream.iter().find(|draft| !draft.is_as_written)
            && missing.kinesis_keys.is_empty()
        {
            notes.push(format!(
                "{} was edited and does not allow {stream} to use alias/aws/kinesis, which its manifest may name; adopt does not add key/* to what you narrowed: add the key if the operator shall use it",
                edited.path
            ));
        } else if missing.kinesis_keys.is_empty() {
            // Not where a person has named the key: `key/*` would allow again what was narrowed.
            missing.aws_keys.insert(stream.region.clone());
        }
    }
    if !of_stream.is_empty() && missing.has_no_key() {
        return Ok(());
    }
    place(drafts, base, &missing)
}

/// Returns whether a pattern is the ARN of a key of the stream's region.
fn is_key_for(key: &str, stream: &StreamArn) -> bool {
    key.parse::<KeyArn>().is_ok_and(|key| key.region == stream.region)
}

/// Adds a grant to a policy that has room, or to a new one.
fn place(drafts: &mut Vec<Draft>, base: &str, grant: &Grant) -> Result<(), ScopeError> {
    let last = drafts.len().saturating_sub(1);
    for (number, draft) in drafts.iter_mut().enumerate() {
        let names_it = !draft.grant.streams.is_disjoint(&grant.streams);
        if !draft.is_as_written || !(names_it || number == last) {
            continue;
        }
        let whole = draft.grant.with(grant);
        if characters(&whole.document()?) <= LONGEST_MANAGED_POLICY {
            (draft.grant, draft.text) = (whole, None);
            return Ok(());
        }
    }
    if grant.keys.len() > 1 && characters(&grant.document()?) > LONGEST_MANAGED_POLICY {
        for is_first in [true, false] {
            let half = grant.keys.len() / 2;
            let keys = grant.keys.iter().enumerate().filter(|(number, _)| (*number < half) == is_first);
            let keys = keys.map(|(_, key)| key.clone()).collect();
            let of_aws = if is_first { grant.clone() } else { Grant::default() };
            place(drafts, base, &Grant { streams: grant.streams.clone(), keys, ..of_aws })?;
        }
        return Ok(());
    }
    let is_taken = |name: &str| drafts.iter().any(|draft| draft.path.strip_suffix(".json") == Some(name));
    let path = format!("{}.json", free_name(base, is_taken));
    drafts.push(Draft { path, grant: grant.clone(), text: None, is_as_written: true });
    Ok(())
}

impl Grant {
    /// Reads what a policy allows. A stream or a key counts wherever an `Allow` names it.
    fn read(file: &ExistingIamPolicy) -> Self {
        let mut grant = Self::default();
        let mut described = BTreeSet::new();
        let mut of_start = BTreeSet::new();
        let statements =
            file.document.as_ref().map(|document| list(&document["Statement"])).unwrap_or_default();
        // The keys of AWS are those of Start. To describe them does not allow a stream to use them.
        let is_read = |statement: &&Value| {
            statement["Effect"] == "Allow" && statement["Sid"] != iam::DESCRIBE_AWS_MANAGED_KEYS
        };
        for statement in statements.into_iter().filter(is_read) {
            let actions = list(&statement["Action"]);
            let is_start =
                actions.iter().any(|action| *action == Operation::StartStreamEncryption.iam_action());
            for resource in list(&statement["Resource"]).into_iter().filter_map(Value::as_str) {
                if let Some(any) = resource.strip_suffix("key/*") {
                    grant.aws_keys.extend(any.split(':').nth(3).and_then(|region| region.parse().ok()));
                } else if resource.parse::<KeyArn>().is_ok() {
                    let keys = if is_start { &mut of_start } else { &mut described };
                    keys.insert(resource.to_owned());
                } else if resource.contains("stream/") {
                    grant.streams.insert(resource.to_owned());
                }
            }
        }
        let account = grant.streams.iter().find_map(|stream| Some(stream.parse::<StreamArn>().ok()?.account));
        let is_own = |key: &str| key.parse::<KeyArn>().is_ok_and(|key| Some(key.account) == account);
        for key in of_start {
            // A customer managed key is described, too. That of alias/aws/kinesis is in the stream's own account.
            let is_of_aws = !described.contains(&key) && is_own(&key);
            if is_of_aws { &mut grant.kinesis_keys } else { &mut grant.keys }.insert(key);
        }
        grant.keys.extend(described);
        grant
    }

    fn has_no_key(&self) -> bool {
        self.keys.is_empty() && self.kinesis_keys.is_empty() && self.aws_keys.is_empty()
    }

    /// Returns whether a Kinesis stream may use `alias/aws/kinesis`.
    fn has_aws_key(&self, stream: &StreamArn) -> bool {
        self.aws_keys.contains(&stream.region) || self.kinesis_keys_of(stream).next().is_some()
    }

    fn kinesis_keys_of(&self, stream: &StreamArn) -> impl Iterator<Item = &String> {
        let is_of = |key: KeyArn| key.region == stream.region && key.account == stream.account;
        self.kinesis_keys.iter().filter(move |key| key.parse().is_ok_and(is_of))
    }

    fn has_stream(&self, stream: &StreamArn) -> bool {
        self.streams.contains(&stream.to_string())
    }

    fn with(&self, other: &Self) -> Self {
        Self {
            streams: &self.streams | &other.streams,
            keys: &self.keys | &other.keys,
            kinesis_keys: &self.kinesis_keys | &other.kinesis_keys,
            aws_keys: &self.aws_keys | &other.aws_keys,
        }
    }

    fn document(&self) -> Result<PolicyDocument, ScopeError> {
        let streams = self.streams.iter().map(|stream| stream.parse()).collect::<Result<_, _>>()?;
        let keys = self.keys.iter().map(|key| key.parse()).collect::<Result<_, _>>()?;
        let of_aws = self.kinesis_keys.iter().map(|key| key.parse()).collect::<Result<_, _>>()?;
        let scope = Scope::new(streams, keys, of_aws)?.with_unknown_kinesis_keys(self.aws_keys.clone());
        Ok(iam::policy(&scope, &[Feature::Encrypt]))
    }
}

impl Draft {
    fn of(file: &ExistingIamPolicy) -> Self {
        let grant = Grant::read(file);
        let written = grant.document().ok().and_then(|document| serde_json::to_value(document).ok());
        let is_as_written = written.is_some() && written == file.document;
        Self { path: file.path.clone(), grant, text: Some(file.text.clone()), is_as_written }
    }

    fn file(self) -> anyhow::Result<IamFile> {
        let text = match self.text {
            Some(text) => text,
            None => format!("{}\n", serde_json::to_string_pretty(&self.grant.document()?)?),
        };
        Ok(IamFile { path: self.path, text })
    }
}

/// Returns the items of a list, which IAM also accepts as one item.
fn list(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Null => Vec::new(),
        one => vec![one],
    }
}

#[cfg(test)]
mod tests;
