//! The shipped IAM policies under a server that enforces them: moto, which others wrote. Each suffices for its scenario, and without
//! any one action exactly the scenarios that need it fail, with a condition that names it.
//!
//! What a scenario needs is what the program prints for its stream and key; what is tried is what is shipped, less one action.
//! moto 5.2.5 decides by the action alone: `Resource` and `Condition` are not tried here, nor is what AWS does with the operator's
//! rights ([`NOT_ENFORCED`]). Its no is XML, also where AWS would speak JSON; the code in it is `AccessDenied`. These tests never add
//! an action to a policy.

mod documents;
mod port;
mod stage;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use stream_encryption_operator::api::stream_encryption::Service::{self, Firehose, Kinesis};
use stream_encryption_operator::model::iam::Feature::{self, Disable, Encrypt, Verify};

use crate::play::REGION;
use documents::Document;
use stage::{Stage, Word};

/// The account of moto.
const ACCOUNT: &str = "123456789012";

/// What the role of an operator gets that may do everything, as docs/iam.md has it.
const WHOLE: [&str; 3] = ["operator.json", "disable.json", "verify.json"];

/// What no call of the operator is for: moto's Firehose takes no grant, its Kinesis no data key, and neither asks KMS for anything.
const NOT_ENFORCED: [&str; 3] = ["kms:CreateGrant", "kms:GenerateDataKey", "kms:Decrypt"];

/// What a pod or the hub needs to get a role at all. Here sessions are made before anything is enforced.
const FOR_SESSIONS: [&str; 3] = ["sts:AssumeRole", "sts:AssumeRoleWithWebIdentity", "sts:TagSession"];

/// Plays that go on at a time.
const SIDE_BY_SIDE: usize = 8;

/// What somebody wants of a stream.
struct Scenario {
    name: &'static str,
    service: Service,
    /// Whether with a customer managed key.
    own_key: bool,
    features: &'static [Feature],
    /// The files of `config/iam` that docs/iam.md names for it.
    files: &'static [&'static str],
}

const SCENARIOS: [Scenario; 8] = [
    Scenario {
        name: "firehose-aws-owned-key",
        service: Firehose,
        own_key: false,
        features: &[Encrypt],
        files: &["firehose.json"],
    },
    Scenario {
        name: "firehose-own-key",
        service: Firehose,
        own_key: true,
        features: &[Encrypt],
        files: &["firehose-customer-managed-key.json"],
    },
    Scenario {
        name: "firehose-verified",
        service: Firehose,
        own_key: true,
        features: &[Encrypt, Verify],
        files: &["firehose-customer-managed-key.json", "verify.json"],
    },
    Scenario {
        name: "firehose-off",
        service: Firehose,
        own_key: false,
        features: &[Encrypt, Disable],
        files: &["firehose.json", "disable.json"],
    },
    Scenario {
        name: "kinesis-aws-managed-key",
        service: Kinesis,
        own_key: false,
        features: &[Encrypt],
        files: &["kinesis.json"],
    },
    Scenario {
        name: "kinesis-own-key",
        service: Kinesis,
        own_key: true,
        features: &[Encrypt],
        files: &["kinesis-customer-managed-key.json"],
    },
    Scenario {
        name: "kinesis-verified",
        service: Kinesis,
        own_key: true,
        features: &[Encrypt, Verify],
        files: &["kinesis-customer-managed-key.json", "verify.json"],
    },
    Scenario {
        name: "kinesis-off",
        service: Kinesis,
        own_key: false,
        features: &[Encrypt, Disable],
        files: &["kinesis.json", "disable.json"],
    },
];

impl Scenario {
    /// The policy that the program prints for it.
    fn printed(&self, key: &str) -> Document {
        Document::printed(&arn(self.service, self.name), self.own_key.then_some(key), self.features)
    }

    /// What a user writes, and the reason of `Ready` to which it leads. Encryption is turned off after it was on.
    fn specs(&self, stage: &Stage, stream: &str) -> Vec<(Value, &'static str)> {
        let mut on = json!({"stream": {"arn": arn(self.service, stream)}});
        if self.own_key {
            on["key"] = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": stage.key});
        }
        if self.features.contains(&Verify) {
            on["verify"] = json!({"putRecord": true});
        }
        let mut off = on.clone();
        off["encryption"] = json!("Disabled");
        let turned_off = self.features.contains(&Disable).then_some((off, "EncryptionDisabled"));
        std::iter::once((on, "Encrypted")).chain(turned_off).collect()
    }
}

fn arn(service: Service, name: &str) -> String {
    match service {
        Firehose => format!("arn:aws:firehose:{REGION}:{ACCOUNT}:deliverystream/{name}"),
        Kinesis => format!("arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/{name}"),
    }
}

/// How a scenario ended: it reached its goal, or `Ready` gives this reason and names these actions of those that are shipped.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Reached,
    Failed { reason: String, names: BTreeSet<String> },
}

impl End {
    /// What the operator has to say where this action is missing, as docs/conditions.md has it.
    fn without(action: &str) -> Self {
        let reason = match action {
            "kms:DescribeKey" => "KeyUnreadable",
            "firehose:PutRecord" | "kinesis:PutRecord" => "Verifying",
            _ => "AccessDenied",
        };
        Self::Failed { reason: reason.to_owned(), names: BTreeSet::from([action.to_owned()]) }
    }

    fn of(word: Word, goal: &str, shipped: &BTreeSet<String>) -> Self {
        if word.reason == goal {
            return Self::Reached;
        }
        let names = shipped.iter().filter(|action| word.message.contains(action.as_str())).cloned().collect();
        Self::Failed { reason: word.reason, names }
    }
}

/// Actions whose absence moto can show.
fn enforced(document: &Document) -> BTreeSet<String> {
    document.actions().into_iter().filter(|action| !NOT_ENFORCED.contains(&action.as_str())).collect()
}

#[test]
fn every_action_that_is_shipped_is_taken_away_from_a_scenario_that_needs_it_or_said_to_be_out_of_reach() {
    let key = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab");
    let needed: BTreeSet<String> = SCENARIOS.iter().flat_map(|it| it.printed(&key).actions()).collect();
    assert_eq!(Document::shipped(&WHOLE).actions(), needed);
    let out_of_reach = FOR_SESSIONS.map(ToOwned::to_owned).into();
    assert_eq!(Document::all_shipped().actions(), &needed | &out_of_reach);
    assert!(NOT_ENFORCED.iter().all(|action| needed.contains(*action)), "{NOT_ENFORCED:?}");
}

/// One scenario with one policy, and how it is to end.
struct Row {
    /// Of the row, its role, its stream and its resource. moto has room for 50 Firehose streams.
    name: String,
    scenario: &'static Scenario,
    policy: Document,
    end: End,
}

/// Each scenario with the files that are shipped for it; with what is printed for it, less what moto does not enforce; and with
/// everything that is shipped, less each one action.
fn rows(stage: &Stage) -> Vec<Row> {
    let whole = Document::shipped(&WHOLE);
    let mut rows = Vec::new();
    for scenario in &SCENARIOS {
        let printed = scenario.printed(&stage.key);
        let mut row = |with: &str, policy, end| {
            let name = format!("{}.{with}", scenario.name);
            rows.push(Row { name, scenario, policy, end });
        };
        row("shipped", Document::shipped(scenario.files), End::Reached);
        let enforced_of_it = NOT_ENFORCED.iter().fold(printed.clone(), |less, action| less.without(action));
        row("printed", enforced_of_it, End::Reached);
        for action in enforced(&whole) {
            let needs_it = printed.actions().contains(&action);
            let end = if needs_it { End::without(&action) } else { End::Reached };
            row(&action.to_lowercase().replace(':', "-"), whole.without(&action), end);
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn each_policy_suffices_and_without_one_action_exactly_the_scenarios_that_need_it_fail_and_name_it() {
    let Some(stage) = Stage::start().await else { return };
    let shipped = Document::all_shipped().actions();
    // One after the other: moto, asked for several roles at once, may fail.
    let mut ready = Vec::new();
    for row in rows(&stage) {
        stage.make_stream(row.scenario.service, &row.name).await;
        ready.push((stage.session(&row.name, &row.policy).await, row));
    }
    stage.enforce().await;
    let plays = ready.iter().map(async |(session, row)| {
        let specs = row.scenario.specs(&stage, &row.name);
        let (_, goal) = specs.last().expect("a spec");
        (row.name.as_str(), End::of(stage.play(session, &row.name, &specs).await, goal, &shipped))
    });
    let ends: BTreeMap<&str, End> =
        futures_util::stream::iter(plays).buffer_unordered(SIDE_BY_SIDE).collect().await;
    let wrong: Vec<String> = ready
        .iter()
        .filter(|(_, row)| ends[row.name.as_str()] != row.end)
        .map(|(_, row)| format!("{}: {:?}, and not {:?}", row.name, ends[row.name.as_str()], row.end))
        .collect();
    assert!(wrong.is_empty(), "of {} rows:\n{}", ready.len(), wrong.join("\n"));
}
