//! The shipped IAM policies, tested with a third-party server that enforces them: moto. Each policy suffices
//! for its scenario. Without any one action, exactly the scenarios that need it fail, with a condition that
//! names it.
//!
//! The actions that a scenario needs are those that the CLI prints for its stream and key. The tested
//! policies are the shipped ones, less one action. moto 5.2.5 decides by the action alone, so `Resource` and
//! `Condition` are not tested here, nor are the actions that AWS performs on the operator's behalf
//! ([`NOT_ENFORCED`]). Its refusals are XML, also where AWS returns JSON; their code is `AccessDenied`. These
//! tests never add an action to a policy.

mod adapter;
mod documents;
mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use stream_encryption_api::stream_encryption::Service::{self, Firehose, Kinesis};
use stream_encryption_operator::iam::Feature::{self, Disable, Encrypt, Verify};

use crate::harness::REGION;
use documents::Document;
use fixture::{Stage, Word};

/// The account of moto.
const ACCOUNT: &str = "123456789012";

/// The policies of an operator role that may do everything, as in docs/iam.md.
const WHOLE: [&str; 3] = ["operator.json", "disable.json", "verify.json"];

/// Actions that no request of the operator needs in moto: its Firehose creates no grant, its Kinesis no data
/// key, and neither calls KMS.
const NOT_ENFORCED: [&str; 3] = ["kms:CreateGrant", "kms:GenerateDataKey", "kms:Decrypt"];

/// Actions that a pod or the hub needs to get a role. Here sessions are created before moto enforces
/// policies.
const FOR_SESSIONS: [&str; 3] = ["sts:AssumeRole", "sts:AssumeRoleWithWebIdentity", "sts:TagSession"];

/// Number of scenarios that run in parallel.
const SIDE_BY_SIDE: usize = 8;

/// A use of the operator.
struct Scenario {
    name: &'static str,
    service: Service,
    /// Whether a customer managed key is used.
    own_key: bool,
    features: &'static [Feature],
    /// The files of `config/iam` that docs/iam.md names for it.
    files: &'static [&'static str],
}

const fn scenario(
    name: &'static str,
    service: Service,
    own_key: bool,
    features: &'static [Feature],
    files: &'static [&'static str],
) -> Scenario {
    Scenario { name, service, own_key, features, files }
}

const SCENARIOS: [Scenario; 8] = [
    scenario("firehose-aws-owned-key", Firehose, false, &[Encrypt], &["firehose.json"]),
    scenario("firehose-own-key", Firehose, true, &[Encrypt], &["firehose-customer-managed-key.json"]),
    scenario(
        "firehose-verified",
        Firehose,
        true,
        &[Encrypt, Verify],
        &["firehose-customer-managed-key.json", "verify.json"],
    ),
    scenario("firehose-off", Firehose, false, &[Encrypt, Disable], &["firehose.json", "disable.json"]),
    scenario("kinesis-aws-managed-key", Kinesis, false, &[Encrypt], &["kinesis.json"]),
    scenario("kinesis-own-key", Kinesis, true, &[Encrypt], &["kinesis-customer-managed-key.json"]),
    scenario(
        "kinesis-verified",
        Kinesis,
        true,
        &[Encrypt, Verify],
        &["kinesis-customer-managed-key.json", "verify.json"],
    ),
    scenario("kinesis-off", Kinesis, false, &[Encrypt, Disable], &["kinesis.json", "disable.json"]),
];

impl Scenario {
    /// The policy that the CLI prints for it.
    fn printed(&self, key: &str) -> Document {
        Document::printed(&arn(self.service, self.name), self.own_key.then_some(key), self.features)
    }

    /// The specs that a user writes, each with the expected reason of `Ready`. Encryption is disabled only
    /// after it was enabled.
    fn specs(&self, stage: &Stage, stream: &str) -> Vec<(Value, &'static str)> {
        let mut on = json!({"stream": {"arn": arn(self.service, stream)}});
        if self.own_key {
            on["key"] = json!({"type": "CUSTOMER_MANAGED_CMK", "arn": stage.key});
        }
        if self.features.contains(&Verify) {
            on["verification"] = json!("PutRecord");
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

/// The end of a scenario: it reached its goal, or `Ready` has this reason and its message names these of the
/// shipped actions.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Reached,
    Failed { reason: String, names: BTreeSet<String> },
}

impl End {
    /// The expected end without this action, as docs/conditions.md says.
    fn without(action: &str) -> Self {
        // A test record without an encrypted answer does not show which permission is missing: the message names
        // each that the writer of a record needs.
        let (reason, others): (&str, &[&str]) = match action {
            "kms:DescribeKey" => ("KeyDescribeDenied", &[]),
            "firehose:PutRecord" => ("Verifying", &["kms:GenerateDataKey", "kms:Decrypt"]),
            "kinesis:PutRecord" => ("Verifying", &["kms:GenerateDataKey"]),
            _ => ("AccessDenied", &[]),
        };
        let names = others.iter().chain([&action]).map(|&action| action.to_owned()).collect();
        Self::Failed { reason: reason.to_owned(), names }
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
fn every_shipped_action_is_covered_or_excluded() {
    let key = format!("arn:aws:kms:{REGION}:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab");
    let needed: BTreeSet<String> = SCENARIOS.iter().flat_map(|it| it.printed(&key).actions()).collect();
    assert_eq!(Document::shipped(&WHOLE).actions(), needed);
    let out_of_reach = FOR_SESSIONS.map(ToOwned::to_owned).into();
    assert_eq!(Document::all_shipped().actions(), &needed | &out_of_reach);
    assert!(NOT_ENFORCED.iter().all(|action| needed.contains(*action)), "{NOT_ENFORCED:?}");
}

/// One scenario with one policy, and its expected end.
struct Row {
    /// Name of the row, its role, its stream and its resource. moto allows at most 50 Firehose streams.
    name: String,
    scenario: &'static Scenario,
    policy: Document,
    end: End,
}

/// Each scenario with the files that are shipped for it, with the printed policy less the actions that moto
/// does not enforce, and with all shipped actions less each one.
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
#[ignore = "requires moto from PyPI; .ci/run runs it"]
async fn each_policy_suffices_and_each_missing_action_is_named() {
    let Some(stage) = Stage::start().await else { return };
    let shipped = Document::all_shipped().actions();
    // One after the other: moto may fail if several roles are assumed at once.
    let mut ready = Vec::new();
    for row in rows(&stage) {
        stage.make_stream(row.scenario.service, &row.name).await;
        ready.push((stage.session(&row.name, &row.policy).await, row));
    }
    stage.enforce().await;
    let plays = ready.iter().map(async |(session, row)| {
        let specs = row.scenario.specs(&stage, &row.name);
        let (_, goal) = specs.last().expect("a spec");
        (row.name.as_str(), End::of(stage.harness(session, &row.name, &specs).await, goal, &shipped))
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
