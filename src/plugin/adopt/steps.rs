//! What the person does after `adopt`: the files that were written, and the commands that use them. Pure.

use std::fmt::Write as _;

use stream_encryption_core::model::arn::RoleArn;

use super::{Adoption, Arguments, ModeName};
use crate::adopt::files::Written;
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
    if to_adopt == 0 {
        return "\nNo stream is left to adopt.\n".to_owned();
    }
    let folder = folder.display();
    let _ =
        writeln!(text, "\nManifests for {} are in {folder}. Files: {}.", streams(to_adopt), counts(adoption));
    let differing: Vec<&str> = with(adoption, Written::Differs).collect();
    if !differing.is_empty() {
        text.push_str(
            "These files exist with other content and were left as they are; --overwrite replaces them:\n",
        );
        for path in differing {
            let _ = writeln!(text, "  {path}");
        }
    }
    text.push_str("\nNext:\n");
    let namespace = &adoption.namespace;
    let _ = writeln!(text, "1. Review the files, and allow the operator's role these streams and keys:");
    for (account, paths) in &adoption.layout.iam {
        if paths.len() > MAX_POLICIES_OF_ROLE {
            let _ = writeln!(
                text,
                "     # {account} has {} policies in {folder}/iam, and IAM allows {MAX_POLICIES_OF_ROLE} for a role by default. To name streams by",
                paths.len()
            );
            text.push_str("     # pattern instead: stream-encryption-operator iam policy --help\n");
            continue;
        }
        for (number, path) in paths.iter().enumerate() {
            let number = if paths.len() == 1 { String::new() } else { format!("-{}", number + 1) };
            let role = role(arguments, account);
            let _ = writeln!(
                text,
                "     aws iam create-policy --policy-name stream-encryption-{account}{number} --policy-document file://{folder}/{path}"
            );
            let _ = writeln!(
                text,
                "     aws iam attach-role-policy --role-name {role} --policy-arn arn:aws:iam::{account}:policy/stream-encryption-{account}{number}"
            );
        }
    }
    let _ = writeln!(text, "2. Commit the files, or apply them to namespace {namespace}:");
    let _ = writeln!(text, "     kubectl apply -k {folder}");
    let _ = writeln!(text, "     kubectl get strenc -n {namespace}");
    let has_tool =
        |planned: &&PlannedStream| planned.stream.owners.as_ref().is_some_and(|owners| !owners.is_empty());
    let of_tools = adoption.plan.iter().filter(|planned| planned.key.is_ok()).filter(has_tool).count();
    if of_tools > 0 {
        let _ = writeln!(
            text,
            "   Before the operator may change them: {} may belong to other tools, which must leave encryption alone.",
            streams(of_tools)
        );
    }
    if arguments.mode == ModeName::Enforce {
        let is_plaintext = |planned: &&PlannedStream| planned.stream.encryption == FoundEncryption::Plaintext;
        let plaintext =
            adoption.plan.iter().filter(|planned| planned.key.is_ok()).filter(is_plaintext).count();
        let _ = writeln!(text, "3. The operator now encrypts {} in plaintext.", streams(plaintext));
    } else {
        text.push_str("3. The operator reports Encrypted or Drifted, and changes nothing. To let it act, set mode: Enforce.\n");
    }
    text
}

/// Returns the name of the operator's role in an account.
fn role(arguments: &Arguments, account: &str) -> String {
    let of_account = |role: &&RoleArn| role.account.as_str() == account;
    let name = |role: &RoleArn| role.to_string().rsplit('/').next().unwrap_or_default().to_owned();
    arguments.places.roles().iter().find(of_account).map_or_else(|| "OPERATOR-ROLE".to_owned(), name)
}

fn streams(count: usize) -> String {
    if count == 1 { "1 stream".to_owned() } else { format!("{count} streams") }
}

fn with(adoption: &Adoption, what: Written) -> impl Iterator<Item = &str> {
    adoption.written.iter().filter(move |(_, written)| **written == what).map(|(path, _)| path.as_str())
}

fn counts(adoption: &Adoption) -> String {
    let words = [
        (Written::Created, "created"),
        (Written::Overwritten, "overwritten"),
        (Written::Unchanged, "unchanged"),
        (Written::Differs, "different"),
    ];
    let counts: Vec<String> = words
        .iter()
        .map(|(what, word)| (with(adoption, *what).count(), word))
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}"))
        .collect();
    counts.join(", ")
}
