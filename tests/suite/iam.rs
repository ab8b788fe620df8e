//! `config/iam` matches the output of the CLI, contains the actions that the code needs, and is shown on the
//! pages.
//!
//! `UPDATE_IAM=1 cargo test --test suite iam` regenerates the files.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use stream_encryption_core::model::principal::SESSION_TAGS;
use stream_encryption_core::model::service::Operation;

use crate::readme::kept;

const PAGE: &str = include_str!("../../docs/iam.md");

const FIREHOSE: &str = "--stream arn:aws:firehose:eu-west-1:111122223333:deliverystream/*";
const KINESIS: &str = "--stream arn:aws:kinesis:eu-west-1:111122223333:stream/*";
const KEYS: &str = "--key arn:aws:kms:eu-west-1:111122223333:key/*";
const KEY: &str = "--key arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

const QUEUE: &str = "--queue arn:aws:sqs:eu-west-1:111122223333:stream-encryption-events";
/// The rules of the events, of the heartbeat, and of the events that other accounts and regions forward to a hub.
const EVENT_RULES: &str = "--rule arn:aws:events:eu-west-1:111122223333:rule/stream-encryption-events arn:aws:events:eu-west-1:111122223333:rule/stream-encryption-events-heartbeat arn:aws:events:eu-west-1:111122223333:rule/stream-encryption-events/stream-encryption-events-forwarded";

/// Each file, with the flags of `iam` that print it. The operator's account is 111122223333, and that of a
/// spoke is 444455556666.
fn all() -> Vec<(&'static str, String)> {
    let policy = |about: &[&str]| format!("policy {}", about.join(" "));
    let spoke = |about: String| about.replace("111122223333", "444455556666");
    vec![
        ("operator.json", policy(&[FIREHOSE, KINESIS, KEYS])),
        ("firehose.json", policy(&[FIREHOSE])),
        ("firehose-customer-managed-key.json", policy(&[FIREHOSE, KEY])),
        ("kinesis.json", policy(&[KINESIS])),
        ("kinesis-customer-managed-key.json", policy(&[KINESIS, KEY])),
        ("disable.json", policy(&[FIREHOSE, KINESIS, KEYS, "--only disable"])),
        ("verify.json", policy(&[FIREHOSE, KINESIS, KEYS, "--only verify"])),
        ("hub.json", "hub --spoke-role arn:aws:iam::444455556666:role/stream-encryption-spoke".to_owned()),
        ("spoke.json", spoke(policy(&[FIREHOSE, KINESIS, KEYS]))),
        (
            "spoke-trust.json",
            "spoke-trust --hub-role arn:aws:iam::111122223333:role/stream-encryption --external-id EXAMPLE".to_owned(),
        ),
        (
            "key-policy.json",
            format!(
                "key-policy --role arn:aws:iam::444455556666:role/stream-encryption-spoke {} {KEY}",
                spoke(FIREHOSE.to_owned())
            ),
        ),
        ("events.json", format!("events policy {QUEUE}")),
        ("events-queue-policy.json", format!("events queue-policy {QUEUE} {EVENT_RULES}")),
        ("adopt.json", "adopt".to_owned()),
        ("trust-pod-identity.json", "trust-pod-identity".to_owned()),
        (
            "trust-irsa.json",
            "trust-irsa --oidc-provider arn:aws:iam::111122223333:oidc-provider/oidc.eks.eu-west-1.amazonaws.com/id/EXAMPLE".to_owned(),
        ),
    ]
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/iam")
}

fn printed(flags: &str) -> String {
    let program = env!("CARGO_BIN_EXE_stream-encryption-operator");
    let run = Command::new(program).arg("iam").args(flags.split(' ')).output().expect("it runs");
    assert!(run.status.success(), "iam {flags}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("UTF-8")
}

#[test]
fn files_in_config_iam_match_cli_output() {
    for (file, flags) in all() {
        kept(&format!("config/iam/{file}"), &printed(&flags), "UPDATE_IAM", "iam");
    }
}

#[test]
fn every_file_in_config_iam_is_generated_and_documented() {
    for entry in fs::read_dir(directory()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(all().iter().any(|(file, _)| *file == name), "config/iam/{name} is not generated: delete it");
        assert!(PAGE.contains(&format!("](../config/iam/{name})")), "docs/iam.md does not link {name}");
    }
}

/// The statements of a policy file, each with its actions and resources.
fn statements(name: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let text = fs::read_to_string(directory().join(name)).expect(name);
    let policy: Value = serde_json::from_str(&text).expect(name);
    let words = |value: &Value| match value {
        Value::String(word) => vec![word.clone()],
        other => other
            .as_array()
            .expect("words")
            .iter()
            .map(|word| word.as_str().expect("a word").to_owned())
            .collect(),
    };
    let statements = policy["Statement"].as_array().expect("statements").iter();
    statements.map(|statement| (words(&statement["Action"]), words(&statement["Resource"]))).collect()
}

/// Actions that no request of the operator needs, but that AWS performs on its behalf: a grant for Firehose,
/// a data key for a record.
const ON_ITS_BEHALF: [&str; 3] = ["kms:CreateGrant", "kms:GenerateDataKey", "kms:Decrypt"];

#[test]
fn policies_allow_exactly_the_required_actions() {
    let policies = ["operator.json", "disable.json", "verify.json"];
    let mut allowed: Vec<String> =
        policies.into_iter().flat_map(statements).flat_map(|(actions, _)| actions).collect();
    let mut needed: Vec<&str> = Operation::of_operator().map(Operation::iam_action).collect();
    // Every principal may call GetCallerIdentity. Only an administrator knows which roles may be assumed
    // (`hub.json`).
    needed.retain(|action| !action.starts_with("sts:"));
    needed.extend(ON_ITS_BEHALF);
    needed.sort_unstable();
    allowed.sort();
    // A record for Firehose and one for Kinesis need a data key each, under different conditions.
    allowed.dedup();
    assert_eq!(allowed, needed);
    for action in allowed {
        assert!(PAGE.contains(&action), "docs/iam.md does not name {action}");
    }
}

#[test]
fn events_policy_allows_exactly_the_operators_requests() {
    let [(allowed, queues)] = &statements("events.json")[..] else { panic!("one statement") };
    let needed =
        Operation::OF_QUEUE.into_iter().filter(|operation| *operation != Operation::GetQueueAttributes);
    assert_eq!(*allowed, needed.map(Operation::iam_action).collect::<Vec<_>>());
    assert_eq!(queues.len(), 1);
    for operation in Operation::OF_QUEUE {
        let action = operation.iam_action();
        assert!(PAGE.contains(action), "docs/iam.md does not name {action}");
    }
}

#[test]
fn adopt_policy_allows_exactly_its_requests_and_only_reads() {
    let allowed: BTreeSet<String> =
        statements("adopt.json").into_iter().flat_map(|(actions, _)| actions).collect();
    let describes =
        [Operation::DescribeDeliveryStream, Operation::DescribeStreamSummary, Operation::DescribeKey];
    let needed = Operation::LISTING.into_iter().chain(describes);
    assert_eq!(allowed, needed.map(|operation| operation.iam_action().to_owned()).collect());
    for action in allowed {
        let (_, verb) = action.split_once(':').expect("an action");
        assert!(verb.starts_with("List") || verb.starts_with("Describe"), "{action}");
        assert!(PAGE.contains(&action), "docs/iam.md does not name {action}");
    }
}

/// AWS's list of actions for Kinesis names two resources for each of the two actions, and a policy must allow
/// both.
#[test]
fn kinesis_encryption_is_allowed_on_stream_and_key() {
    for (policy, action) in [
        ("operator.json", "kinesis:StartStreamEncryption"),
        ("kinesis.json", "kinesis:StartStreamEncryption"),
        ("disable.json", "kinesis:StopStreamEncryption"),
    ] {
        let of_action =
            |(actions, _): &(Vec<String>, Vec<String>)| actions.iter().any(|other| other == action);
        let (_, resources) = statements(policy).into_iter().find(of_action).expect(action);
        let kinds: Vec<&str> =
            resources.iter().map(|arn| arn.split(':').nth(2).expect("a service")).collect();
        assert_eq!(kinds, ["kinesis", "kms"], "{action}");
    }
}

/// Each `sh` block of a page, with the `json` block that directly follows it, if any.
fn shown(page: &'static str) -> Vec<(&'static str, Option<&'static str>)> {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split_once("```").expect("an end"));
    let output = |after: &'static str| after.trim_start().strip_prefix("```json\n")?.split("```").next();
    blocks.map(|(command, after)| (command, output(after))).collect()
}

/// Runs the commands of a block, with this build in place of the release build that they would make.
fn run(commands: &str) -> String {
    let command = commands.replace("cargo run --release -- ", "stream-encryption-operator ");
    let program = Path::new(env!("CARGO_BIN_EXE_stream-encryption-operator"));
    let path = format!(
        "{}:{}",
        program.parent().expect("a folder").display(),
        std::env::var("PATH").unwrap_or_default()
    );
    let run = Command::new("sh").args(["-c", &command]).env("PATH", path).output().expect("sh");
    assert!(run.status.success(), "{command}: {}", String::from_utf8_lossy(&run.stderr));
    String::from_utf8(run.stdout).expect("UTF-8")
}

#[test]
fn iam_page_commands_print_the_documented_output() {
    let shown = shown(PAGE);
    assert!(shown.iter().filter(|(_, output)| output.is_some()).count() >= 2, "{shown:?}");
    for (command, output) in shown {
        let printed = run(command);
        if let Some(output) = output {
            assert!(printed == output, "docs/iam.md shows something else than {command}prints:\n{printed}");
        }
    }
}

#[test]
fn iam_page_names_every_session_tag() {
    for tag in SESSION_TAGS {
        assert!(PAGE.contains(tag), "docs/iam.md does not name {tag}");
    }
}
