//! What the person does after `adopt`: the files that were written, and the commands that use them. Pure.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use stream_encryption_api::stream_encryption::Mode;
use stream_encryption_core::model::arn::{AwsAccount, RoleArn, StreamArn};

use super::{Adoption, Arguments};
use crate::adopt::files::{Layout, Written};
use crate::adopt::found::FoundEncryption;
use crate::adopt::plan::PlannedStream;

/// Default maximum number of managed policies of a role
/// ([quotas](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html)).
const MAX_POLICIES_OF_ROLE: usize = 10;

/// Returns the text.
pub(super) fn next(adoption: &Adoption, arguments: &Arguments) -> String {
    let to_adopt = adoption.plan.iter().filter(|planned| planned.key.is_ok()).count();
    let mut text = String::new();
    let Some(folder) = &arguments.write else {
        if to_adopt > 0 {
            let _ = writeln!(text, "\nTo write manifests for {}, add --write DIR.", streams(to_adopt));
        }
        return text;
    };
    let files = files(adoption);
    if to_adopt == 0 && !adoption.written.keys().any(|path| is_changed(adoption, path)) {
        return format!("\nNo stream is left to adopt.{files}\n{}", differing(adoption));
    }
    let given = folder.display().to_string();
    let (folder, flags) = (quoted(&given), arguments.cluster.flags());
    if to_adopt == 0 {
        let _ = writeln!(text, "\nNo stream is left to adopt.{files}");
    } else {
        let _ = writeln!(text, "\nManifests for {} are in {given}.{files}", streams(to_adopt));
    }
    text.push_str(&differing(adoption));
    text.push_str("\nNext:\n");
    let namespace = &adoption.namespace;
    let iam = iam(adoption, arguments, &given);
    let allow = if iam.is_empty() { "." } else { ", and allow the operator's role these streams and keys:" };
    let _ = writeln!(
        text,
        "1. Review the files{allow}\n{iam}2. Commit the files, or apply them to namespace {namespace}:"
    );
    let _ = writeln!(text, "     kubectl apply -k {folder}{flags}");
    let _ = writeln!(text, "     kubectl get strenc -n {namespace}{flags}");
    let unknown = match (adoption.is_namespace_unknown(), adoption.searched_policies) {
        (false, true) => None,
        (false, false) => Some("list the StreamEncryptionPolicies of the cluster. A StreamEncryptionPolicy"),
        (true, true) => Some("search the cluster. A StreamEncryption"),
        (true, false) => Some("search the cluster. A StreamEncryption or StreamEncryptionPolicy"),
    };
    if let Some(unknown) = unknown {
        let _ = writeln!(
            text,
            "   adopt could not {unknown} of the same name would get the content of the file. Whoever applies the files should compare first:"
        );
        let _ = writeln!(text, "     kubectl diff -k {folder}{flags}");
    }
    if let Some(account) = adoption.own.as_ref().filter(|own| has_role(arguments, own)) {
        let _ = writeln!(
            text,
            "   The policies name a role for account {}, which is that of your credentials. If the operator runs in it, the chart's default policy allows its streams without a role, and the operator reports ConflictingPolicyRoles. Survey this account without --role-arn, or set defaultPolicy.enabled=false.",
            account.account
        );
    }
    let has_tool =
        |planned: &&PlannedStream| planned.stream.owners.as_ref().is_some_and(|owners| !owners.is_empty());
    let of_tools = adoption.plan.iter().filter(|planned| planned.key.is_ok()).filter(has_tool).count();
    if of_tools > 0 {
        let _ = writeln!(
            text,
            "   {} may belong to other tools (column MANAGED BY). Configure these tools to leave encryption alone before the operator changes the streams.",
            streams(of_tools)
        );
    }
    if to_adopt > 0 {
        text.push_str(&modes(adoption, arguments));
    }
    text
}

/// Returns the IAM commands for the policies that this run has created or extended.
fn iam(adoption: &Adoption, arguments: &Arguments, folder: &str) -> String {
    let mut text = String::new();
    for (account, paths) in &adoption.layout.iam {
        let changed: Vec<&String> = paths.iter().filter(|path| is_changed(adoption, path)).collect();
        if paths.len() > MAX_POLICIES_OF_ROLE && !changed.is_empty() {
            let _ = writeln!(
                text,
                "     # {} has {} policies in {folder}/iam, and IAM allows {MAX_POLICIES_OF_ROLE} for a role by default. To name streams by",
                account.account,
                paths.len()
            );
            text.push_str("     # pattern instead: stream-encryption-operator iam policy --help\n");
            continue;
        }
        for path in changed {
            text.push_str(&iam_commands(adoption, arguments, account, path));
        }
    }
    text
}

/// Returns what the operator does with the manifests: each has its own mode, also if this run names another one.
fn modes(adoption: &Adoption, arguments: &Arguments) -> String {
    let Layout { modes, kept, .. } = &adoption.layout;
    let enforcing = modes.values().filter(|mode| **mode == Mode::Enforce).count();
    let observing = modes.len() - enforcing;
    let has_other_mode = |stream| modes.get(stream).is_some_and(|mode| *mode != Mode::from(arguments.mode));
    let mut text = String::new();
    if !kept.is_empty() && (!arguments.keys.is_empty() || kept.iter().any(has_other_mode)) {
        let _ = writeln!(
            text,
            "   {} existed already, and --mode and --key change no existing manifest.",
            manifests(kept.len())
        );
    }
    let is_to_encrypt = |planned: &&PlannedStream| {
        planned.stream.encryption == FoundEncryption::Plaintext
            && modes.get(&planned.stream.arn) == Some(&Mode::Enforce)
    };
    let plaintext = adoption.plan.iter().filter(is_to_encrypt).count();
    let known: BTreeSet<&StreamArn> = adoption.plan.iter().map(|planned| &planned.stream.arn).collect();
    let is_unknown =
        |(stream, mode): &(&StreamArn, &Mode)| **mode == Mode::Enforce && !known.contains(stream);
    let unknown = modes.iter().filter(is_unknown).count();
    if enforcing > 0 {
        let part = if observing > 0 { format!(" ({})", manifests(enforcing)) } else { String::new() };
        let _ = write!(
            text,
            "3. With mode: Enforce{part}, the operator encrypts {} that {} in plaintext now",
            streams(plaintext),
            are(plaintext)
        );
        let more = match unknown {
            0 => ".".to_owned(),
            _ => format!(", and each other one of {} that this run has not surveyed.", streams(unknown)),
        };
        let _ = writeln!(text, "{more}");
    }
    match (observing, enforcing) {
        (0, _) => {}
        (_, 0) => text.push_str(
            "3. The operator reports Encrypted or Drifted, and changes nothing. To let it act, set mode: Enforce.\n",
        ),
        _ => {
            let _ = writeln!(
                text,
                "   With mode: Observe ({}), it reports Encrypted or Drifted, and changes nothing. To let it act, set mode: Enforce.",
                manifests(observing)
            );
        }
    }
    text
}

fn manifests(count: usize) -> String {
    if count == 1 { "1 manifest".to_owned() } else { format!("{count} manifests") }
}

/// Returns whether this run has written a file.
fn is_changed(adoption: &Adoption, path: &str) -> bool {
    matches!(adoption.written.get(path), Some(Written::Created | Written::Overwritten))
}

/// Returns the commands that give the operator's role an IAM policy: a new one, or a new version of an existing one.
fn iam_commands(adoption: &Adoption, arguments: &Arguments, account: &AwsAccount, path: &str) -> String {
    let AwsAccount { account, partition } = account;
    let stem = path.rsplit('/').next().and_then(|file| file.strip_suffix(".json")).unwrap_or_default();
    let name = format!("stream-encryption-{stem}");
    let arn = format!("arn:{partition}:iam::{account}:policy/{name}");
    let folder = arguments.write.as_ref().map(|folder| folder.display().to_string()).unwrap_or_default();
    let document = quoted(&format!("file://{folder}/{path}"));
    let create = |indent: &str| {
        format!(
            "{indent}aws iam create-policy --policy-name {name} --policy-document {document}\n\
             {indent}aws iam attach-role-policy --role-name {} --policy-arn {arn}\n",
            role(arguments, account.as_str())
        )
    };
    if adoption.written.get(path) != Some(&Written::Overwritten) {
        return create("     ");
    }
    // That the file existed does not say whether somebody has created its policy in AWS.
    format!(
        "     aws iam create-policy-version --policy-arn {arn} --policy-document {document} --set-as-default\n     \
         # If this policy was not created yet:\n{}",
        create("     # ")
    )
}

/// Returns a word as a shell reads it.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Returns the text about files that were not written, if there are any.
pub(super) fn differing(adoption: &Adoption) -> String {
    let is_manifest = |path: &str| adoption.layout.manifests.values().any(|manifest| manifest == path);
    // A note says what to do about these: --overwrite does not extend them.
    let is_left = |path: &str| adoption.layout.left.contains(path);
    let mut text = String::new();
    for (of_manifests, words) in [
        (false, "These files exist with other content and were left as they are; --overwrite extends them:"),
        (
            true,
            "These files exist with other content; adopt never overwrites a manifest. Rename or remove them:",
        ),
    ] {
        let paths: Vec<&str> = with(adoption, Written::Differs)
            .filter(|path| is_manifest(path) == of_manifests && !is_left(path))
            .collect();
        if !paths.is_empty() {
            let _ = writeln!(text, "{words}\n  {}", paths.join("\n  "));
        }
    }
    text
}

fn has_role(arguments: &Arguments, account: &AwsAccount) -> bool {
    arguments.places.roles().iter().any(|role| role.account == account.account)
}

/// Returns the name of the operator's role in an account.
fn role(arguments: &Arguments, account: &str) -> String {
    let of_account = |role: &&RoleArn| role.account.as_str() == account;
    let name = |role: &RoleArn| role.to_string().rsplit('/').next().unwrap_or_default().to_owned();
    arguments.places.roles().iter().find(of_account).map_or_else(|| "OPERATOR-ROLE".to_owned(), name)
}

pub(super) fn streams(count: usize) -> String {
    if count == 1 { "1 stream".to_owned() } else { format!("{count} streams") }
}

pub(super) fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

fn with(adoption: &Adoption, what: Written) -> impl Iterator<Item = &str> {
    adoption.written.iter().filter(move |(_, written)| **written == what).map(|(path, _)| path.as_str())
}

/// Returns a sentence about the files, with a space before it.
fn files(adoption: &Adoption) -> String {
    let counts: Vec<String> = Written::ALL
        .iter()
        .map(|what| (with(adoption, *what).count(), what.word()))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    if counts.is_empty() { String::new() } else { format!(" Files: {}.", counts.join(", ")) }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::super::NotSearched;
    use super::super::tests::{own, parse};
    use super::*;
    use crate::adopt::found::FoundStream;
    use crate::adopt::keys::ManifestKey;
    use crate::adopt::owners::Owner;
    use crate::adopt::survey::Place;

    pub(in super::super) fn adoption(iam: usize) -> Adoption {
        let arn = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";
        let stream = FoundStream {
            arn: arn.parse().unwrap(),
            described_time: Timestamp::UNIX_EPOCH,
            encryption: FoundEncryption::Plaintext,
            owners: Some(vec![Owner::Cdk]),
        };
        let place = Place { account: own(), region: "eu-west-1".parse().unwrap(), role: None };
        let key = Ok(ManifestKey::AwsOwned);
        let paths: Vec<String> = (1..=iam).map(|number| format!("iam/111122223333-{number}.json")).collect();
        let written = paths.iter().map(|path| (path.clone(), Written::Created)).collect();
        Adoption {
            surveys: Vec::new(),
            plan: vec![PlannedStream { stream, place, managed_by: None, key }],
            own: Some(own()),
            not_searched: None,
            searched_policies: true,
            namespace: "data".to_owned(),
            layout: Layout {
                iam: vec![(own(), paths)],
                modes: BTreeMap::from([(arn.parse().unwrap(), Mode::Observe)]),
                ..Layout::default()
            },
            written,
            notes: Vec::new(),
        }
    }

    fn next_of(adoption: &Adoption, flags: &[&str]) -> String {
        next(adoption, &parse(&[&["--region", "eu-west-1"], flags].concat()).unwrap())
    }

    fn text(flags: &[&str], iam: usize, written: Written) -> String {
        let mut adoption = adoption(iam);
        adoption.written.insert("policy.yaml".to_owned(), written);
        next_of(&adoption, flags)
    }

    #[test]
    fn survey_without_files_names_the_flag() {
        assert_eq!(text(&[], 0, Written::Created), "\nTo write manifests for 1 stream, add --write DIR.\n");
    }

    #[test]
    fn file_that_differs_is_named_with_its_flag() {
        let text = text(&["--write", "out"], 1, Written::Differs);
        assert!(
            text.contains("1 different.") && text.contains("--overwrite extends them:\n  policy.yaml"),
            "{text}"
        );
    }

    #[test]
    fn mode_and_owners_decide_the_last_step() {
        let observe = text(&["--write", "out"], 1, Written::Created);
        assert!(observe.contains("1 stream may belong to other tools"), "{observe}");
        assert!(observe.contains("changes nothing. To let it act, set mode: Enforce"), "{observe}");
        let mut adoption = adoption(1);
        let (clicks, other) =
            (adoption.plan[0].stream.arn.clone(), "arn:aws:kinesis:eu-west-1:111122223333:stream/other");
        adoption.layout.modes.insert(clicks.clone(), Mode::Enforce);
        let enforce = next_of(&adoption, &["--write", "out", "--mode", "Enforce"]);
        assert!(enforce.contains("the operator encrypts 1 stream that is in plaintext now.\n"), "{enforce}");
        assert!(!enforce.contains("changes nothing") && !enforce.contains("existed already"), "{enforce}");
        // Each manifest has the mode of its file, whatever this run names.
        adoption.layout.kept.insert(clicks.clone());
        let kept = next_of(&adoption, &["--write", "out"]);
        assert!(
            kept.contains("the operator encrypts 1 stream") && !kept.contains("changes nothing"),
            "{kept}"
        );
        assert!(kept.contains("1 manifest existed already"), "{kept}");
        adoption.layout.modes = BTreeMap::from([(clicks, Mode::Observe)]);
        let kept = next_of(&adoption, &["--write", "out", "--mode", "Enforce"]);
        assert!(kept.contains("changes nothing") && !kept.contains("operator encrypts"), "{kept}");
        adoption.layout.modes.insert(other.parse().unwrap(), Mode::Enforce);
        let both = next_of(&adoption, &["--write", "out"]);
        assert!(both.contains("With mode: Enforce (1 manifest), the operator encrypts 0 streams"), "{both}");
        assert!(both.contains("With mode: Observe (1 manifest), it reports"), "{both}");
        assert!(both.contains("1 stream that this run has not surveyed"), "{both}");
    }

    #[test]
    fn policies_that_changed_have_commands_also_if_no_stream_is_new() {
        let mut adoption = adoption(3);
        adoption.plan.clear();
        for (number, written) in [(2, Written::Unchanged), (3, Written::Differs)] {
            adoption.written.insert(format!("iam/111122223333-{number}.json"), written);
        }
        for (written, versions) in [(Written::Created, 0), (Written::Overwritten, 1)] {
            adoption.written.insert("iam/111122223333-1.json".to_owned(), written);
            let text = next_of(&adoption, &["--write", "out"]);
            assert!(text.contains("No stream is left to adopt.") && text.contains("apply -k out"), "{text}");
            assert_eq!(text.matches("create-policy ").count(), 1, "{text}");
            assert_eq!(text.matches("create-policy-version").count(), versions, "{text}");
            assert_eq!(text.matches("# If this policy was not created yet").count(), versions, "{text}");
        }
    }

    #[test]
    fn commands_name_the_cluster_of_the_flags() {
        let mut adoption = adoption(1);
        let why = "no cluster is configured".to_owned();
        adoption.not_searched = Some(NotSearched { why, searched_namespace: false });
        let text = next_of(&adoption, &["--write", "out, new; x", "--context", "staging"]);
        for command in ["apply -k 'out, new; x'", "diff -k 'out, new; x'", "get strenc -n data"] {
            assert!(text.contains(&format!("kubectl {command} --context staging\n")), "{text}");
        }
    }

    #[test]
    fn file_that_cannot_be_extended_is_not_to_be_overwritten() {
        let mut adoption = adoption(1);
        let path = "kustomization.yaml".to_owned();
        adoption.layout.left.insert(path.clone());
        adoption.written.insert(path, Written::Differs);
        assert_eq!(differing(&adoption), "");
    }

    #[test]
    fn more_policies_than_a_role_can_have_are_not_attached() {
        let ten = text(&["--write", "out"], 10, Written::Created);
        assert_eq!(ten.matches("attach-role-policy").count(), 10, "{ten}");
        let eleven = text(&["--write", "out"], 11, Written::Created);
        assert!(
            !eleven.contains("attach-role-policy") && eleven.contains("IAM allows 10 for a role"),
            "{eleven}"
        );
    }

    #[test]
    fn outdated_files_are_named_if_no_stream_is_new() {
        let mut adoption = adoption(1);
        adoption.plan.clear();
        adoption.written = BTreeMap::from([("policy.yaml".to_owned(), Written::Differs)]);
        let text = next_of(&adoption, &["--write", "out"]);
        assert!(text.contains("No stream is left to adopt. Files: 1 different."), "{text}");
        assert!(text.contains("--overwrite extends them:\n  policy.yaml\n"), "{text}");
    }

    #[test]
    fn manifest_that_differs_is_never_to_be_overwritten() {
        let mut adoption = adoption(1);
        let path = "streams/x.yaml".to_owned();
        adoption.layout.manifests.insert(adoption.plan[0].stream.arn.clone(), path.clone());
        adoption.written = BTreeMap::from([(path, Written::Differs)]);
        let text = differing(&adoption);
        assert!(text.contains("never overwrites a manifest") && !text.contains("--overwrite"), "{text}");
    }

    #[test]
    fn commands_have_the_partition_and_a_quoted_folder() {
        let mut adoption = adoption(0);
        let china = AwsAccount::of(&"arn:aws-cn:kinesis:cn-north-1:111122223333:stream/x".parse().unwrap());
        adoption.layout.iam = vec![(china, vec!["iam/111122223333-2.json".to_owned()])];
        adoption.written = BTreeMap::from([("iam/111122223333-2.json".to_owned(), Written::Created)]);
        let flags = ["--write", "it's my folder"];
        let text = next_of(&adoption, &flags);
        assert!(
            text.contains("arn:aws-cn:iam::111122223333:policy/stream-encryption-111122223333-2\n"),
            "{text}"
        );
        assert!(text.contains(r"'file://it'\''s my folder/iam/111122223333-2.json'"), "{text}");
        assert!(text.contains(r"kubectl apply -k 'it'\''s my folder'"), "{text}");
        adoption.written = BTreeMap::from([("iam/111122223333-2.json".to_owned(), Written::Overwritten)]);
        let text = next_of(&adoption, &flags);
        assert!(
            text.contains("create-policy-version --policy-arn arn:aws-cn:iam::111122223333:policy/"),
            "{text}"
        );
        assert!(!text.contains("\n     aws iam attach-role-policy"), "{text}");
    }

    #[test]
    fn unsearched_cluster_is_compared_before_it_changes() {
        let mut adoption = adoption(1);
        assert!(!next_of(&adoption, &["--write", "out"]).contains("kubectl diff"));
        for (namespace, is_compared) in [(false, true), (true, false)] {
            let why = "no cluster is configured".to_owned();
            adoption.not_searched = Some(NotSearched { why, searched_namespace: namespace });
            let text = next_of(&adoption, &["--write", "out"]);
            assert_eq!(text.contains("kubectl diff -k out"), is_compared, "{text}");
        }
        adoption.searched_policies = false;
        for (not_searched, words) in [
            (None, "list the StreamEncryptionPolicies of the cluster. A StreamEncryptionPolicy"),
            (
                Some(NotSearched { why: "no cluster is configured".to_owned(), searched_namespace: false }),
                "search the cluster. A StreamEncryption or StreamEncryptionPolicy",
            ),
        ] {
            adoption.not_searched = not_searched;
            let text = next_of(&adoption, &["--write", "out"]);
            let expected =
                format!("adopt could not {words} of the same name would get the content of the file.");
            assert!(text.contains(&expected) && text.contains("kubectl diff -k out"), "{text}");
        }
    }

    #[test]
    fn role_of_the_own_account_is_a_conflict() {
        for (account, is_conflict) in [("111122223333", true), ("444455556666", false)] {
            let role = format!("arn:aws:iam::{account}:role/spoke");
            let text = next_of(&adoption(1), &["--write", "out", "--role-arn", &role]);
            assert_eq!(text.contains("ConflictingPolicyRoles"), is_conflict, "{text}");
        }
    }
}
