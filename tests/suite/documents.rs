//! What the documentation says is what the code does, and the policies allow what the code does.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;
use stream_encryption_operator::api::condition::{ConditionType, Reason, Standing, find, standing};
use stream_encryption_operator::model::fault::Operation;

/// One line of the table of reasons.
struct Line {
    reason: String,
    ready: String,
    reconciling: String,
    stalled: String,
    words: [String; 2],
}

fn table() -> Vec<Line> {
    let page = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/conditions.md");
    let text = fs::read_to_string(page).unwrap();
    let (_, reasons) = text.split_once("\n## Reasons\n").expect("docs/conditions.md has a heading Reasons");
    let lines = reasons.lines().filter(|line| line.starts_with("| `"));
    lines
        .map(|line| {
            let cells: Vec<String> =
                line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
            let [reason, ready, reconciling, stalled, means, to_do] =
                cells.try_into().unwrap_or_else(|cells| {
                    panic!("docs/conditions.md: six cells are wanted: {cells:?}");
                });
            Line {
                reason: reason.trim_matches('`').to_owned(),
                ready,
                reconciling,
                stalled,
                words: [means, to_do],
            }
        })
        .collect()
}

#[test]
fn every_reason_is_documented_once_and_in_order_and_no_other() {
    let documented: Vec<String> = table().into_iter().map(|line| line.reason).collect();
    let reasons: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(documented, reasons, "left: docs/conditions.md; right: the code");
}

#[test]
fn every_reason_is_documented_with_the_conditions_that_it_leads_to() {
    for line in table() {
        let reason: Reason =
            line.reason.parse().unwrap_or_else(|()| panic!("no reason is called {}", line.reason));
        let made = standing(&[], reason, "", None, jiff::Timestamp::UNIX_EPOCH);
        let mut expected = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled]
            .map(|kind| find(&made, kind).map_or("-", |condition| condition.status.as_str()));
        if reason.standing() == Standing::Unchanged {
            expected[0] = "as before";
        }
        assert_eq!([line.ready, line.reconciling, line.stalled], expected, "{reason}");
    }
}

#[test]
fn every_reason_is_documented_with_its_meaning_and_what_to_do() {
    for line in table() {
        for words in line.words {
            assert!(words.ends_with('.') && words.len() > 4, "{}: {words:?} is no sentence", line.reason);
        }
    }
}

fn page(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

/// The statements of a policy, each with its actions and resources.
fn statements(name: &str) -> Vec<(Vec<String>, Vec<String>)> {
    let policy: Value = serde_json::from_str(&page(&format!("config/iam/{name}"))).expect(name);
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

/// What no call of the operator needs, but what AWS does for it: a grant for Firehose, a data key for a record.
const ON_ITS_BEHALF: [&str; 2] = ["kms:CreateGrant", "kms:GenerateDataKey"];

#[test]
fn the_policies_allow_every_call_of_the_operator_and_no_other() {
    let policies = ["operator.json", "disable.json", "verify.json"];
    let allowed: Vec<String> =
        policies.into_iter().flat_map(statements).flat_map(|(actions, _)| actions).collect();
    let mut needed: Vec<&str> = Operation::EACH.map(Operation::iam_action).to_vec();
    // Everybody may ask who they are. Which roles may be assumed only an administrator knows, so no policy comes with it.
    needed.retain(|action| !action.starts_with("sts:"));
    needed.extend(ON_ITS_BEHALF);
    needed.sort_unstable();
    let mut sorted = allowed.clone();
    sorted.sort();
    assert_eq!(sorted, needed);
    let readme = page("README.md");
    for action in allowed {
        assert!(readme.contains(&format!("`{action}`")), "the README does not name {action}");
    }
}

/// The list of Kinesis' actions has two resources for each of the two, and a policy must allow both.
#[test]
fn to_change_the_encryption_of_a_kinesis_stream_is_allowed_on_the_stream_and_on_the_key() {
    for (policy, action) in
        [("operator.json", "kinesis:StartStreamEncryption"), ("disable.json", "kinesis:StopStreamEncryption")]
    {
        let of_action =
            |(actions, _): &(Vec<String>, Vec<String>)| actions.iter().any(|other| other == action);
        let (_, resources) = statements(policy).into_iter().find(of_action).expect(action);
        let kinds: Vec<&str> =
            resources.iter().map(|arn| arn.split(':').nth(2).expect("a service")).collect();
        assert_eq!(kinds, ["kinesis", "kms"], "{action}");
    }
}
