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
        let _ = writeln!(
            text,
            "3. With mode: Enforce, the operator encrypts {} that {} in plaintext now.",
            streams(plaintext),
            are(plaintext)
        );
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

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::tests::{own, parse};
    use super::*;
    use crate::adopt::files::Layout;
    use crate::adopt::found::FoundStream;
    use crate::adopt::keys::ManifestKey;
    use crate::adopt::owners::Owner;
    use crate::adopt::survey::Place;

    fn text(flags: &[&str], iam: usize, written: Written) -> String {
        let arn = "arn:aws:kinesis:eu-west-1:111122223333:stream/clicks";
        let stream = FoundStream {
            arn: arn.parse().unwrap(),
            encryption: FoundEncryption::Plaintext,
            owners: Some(vec![Owner::Cdk]),
        };
        let place = Place { account: own(), region: "eu-west-1".parse().unwrap(), role: None };
        let key = Ok(ManifestKey::AwsOwned);
        let paths = (1..=iam).map(|number| format!("iam/{number}.json")).collect();
        let adoption = Adoption {
            surveys: Vec::new(),
            plan: vec![PlannedStream { stream, place, managed_by: None, key }],
            no_cluster: None,
            namespace: "data".to_owned(),
            layout: Layout { iam: vec![("111122223333".to_owned(), paths)], ..Layout::default() },
            written: BTreeMap::from([("policy.yaml".to_owned(), written)]),
            notes: Vec::new(),
        };
        next(&adoption, &parse(&[&["--region", "eu-west-1"], flags].concat()).unwrap())
    }

    #[test]
    fn survey_without_files_names_the_flag() {
        assert_eq!(text(&[], 0, Written::Created), "\nTo write manifests for 1 stream, add --write DIR.\n");
    }

    #[test]
    fn file_that_differs_is_named_with_its_flag() {
        let text = text(&["--write", "out"], 1, Written::Differs);
        assert!(
            text.contains("Files: 1 different.")
                && text.contains("--overwrite replaces them:\n  policy.yaml"),
            "{text}"
        );
    }

    #[test]
    fn mode_and_owners_decide_the_last_step() {
        let observe = text(&["--write", "out"], 1, Written::Created);
        assert!(observe.contains("1 stream may belong to other tools"), "{observe}");
        assert!(observe.contains("changes nothing. To let it act, set mode: Enforce"), "{observe}");
        let enforce = text(&["--write", "out", "--mode", "Enforce"], 1, Written::Created);
        assert!(enforce.contains("the operator encrypts 1 stream that"), "{enforce}");
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
}
