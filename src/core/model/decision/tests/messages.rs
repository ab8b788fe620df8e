//! `docs/messages.md`: the messages of the conditions, as the operator prints them.
//!
//! `UPDATE_DOCS=1 cargo test -p stream-encryption-core messages` writes the page again after a change of a message.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;
use stream_encryption_api::condition::Reason;
use stream_encryption_api::ledger::{Action, KnownEncryption};
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_api::stream_encryption::{EncryptionStatus, KeyIdentity, KeyType, Mode, Service};

use super::rows;
use crate::model::arn::{self, KeyArn, ParseError, Region, StreamArn, check_name};
use crate::model::aws_error::{AwsError, DenyingPolicy, ErrorKind};
use crate::model::credentials::{CredentialsProblem, CredentialsRejection};
use crate::model::decision::Ownership;
use crate::model::desired::DesiredEncryption;
use crate::model::key::{Key, KeyProblem};
use crate::model::message::{self, still_reported};
use crate::model::observation::Observation;
use crate::model::permission::{EffectivePolicy, Policy};
use crate::model::scenario::{ACCOUNT, Scenario, Sight, aws_error, failed, key, midnight};
use crate::model::service::{Operation, profile};
use crate::model::status_fields;
use controller_texts::FROM_CONTROLLER;
use placeholders::{generalized, pattern};

mod controller_texts;
mod placeholders;

/// From the directory of this crate.
const PAGE: &str = "../../docs/messages.md";

const SERVICES: [Service; 2] = [Service::Firehose, Service::Kinesis];

const HEAD: &str = "\
<!-- Generated from the code by a test: UPDATE_DOCS=1 cargo test -p stream-encryption-core messages. -->
# Messages

Every message of the conditions of a StreamEncryption as the operator prints it, so that the text of a message can be searched for.
[conditions.md](conditions.md) explains each reason, and what to do. Words in capitals stand for values:

- KEY for the ARN of a key, or for \"the AWS-owned key\", \"the AWS managed key alias/aws/kinesis\", \"the key alias/NAME\", or \"a customer managed key that
  no StreamEncryptionPolicy allows this namespace to use\";
- STREAM for the ARN of a stream, REGION for a region, ACCOUNT for an account, NAME for a name;
- ACTION for an IAM action such as `kinesis:DescribeStreamSummary`, or for \"the encryption call\";
- OPERATION for an AWS operation such as `StartDeliveryStreamEncryption`, REASON for a reason of this page, and MESSAGE for its message;
- TIME for a time, CODE for an error code, VALUE for another value, STATUS for an HTTP status, ERROR for the description of an error;
- USED, EXTERNAL, LEFT and LIMIT for numbers.

In messages of `SpecInvalid`, words in capitals after \"expected\" are no placeholders: `expected arn:aws:kms:REGION:ACCOUNT:key/ID`.

## Ready

`Reconciling` and `Stalled` have the message of `Ready`. Some messages have more parts than the lists below show:

- If an attempt is planned, the message ends with \"Next attempt at TIME.\"
- While the active key is unusable, the message of `Ready` begins with [the message of `KeyUsable`](#keyusable), which states the effect on
  records. If the reason of `Ready` is the state of this key, such as `KeyDisabled`, nothing follows.
";

/// The introductions of lists, each before the list that it describes.
const STALE: &str = "
While the operator confirms what AWS reports, the message ends with one of these sentences:

";
const ACTIVE_KEY: &str = "
Many messages contain one sentence about the encryption of records. The lists below show each such message once, with one of these sentences. The actual message may have another of them in that place.

";
const OUTDATED: &str = "
In three cases `Encrypted` keeps its last message behind one of these prefixes: after three reconciles in a row in which AWS did not describe the stream, with the reason `DisableNotPermitted`, and while the resource is suspended.
While the resource is suspended, `KeyUsable` does so too.

";
const ENCRYPTED: &str = "\nOtherwise the message is one of these:\n\n";
const LOST: &str = "\nIf the active key is unusable:\n\n";
const USABLE: &str = "
Otherwise, about the desired key (if KMS does not respond, `KeyUsable` has the message of `Ready`):

";
const FAILURE: &str = "
## status.failure.message

This field of the status explains `status.failure.type`.

";
const EVENTS: &str = "
## Events

An event has the message of `Ready` or `KeyUsable`, or one of these texts. MESSAGE stands for a message of this page.

";

/// The errors of a spec that no text of the model reports.
const FROM_RESOLVE: [&str; 2] = [
    "exactly one of stream.arn or (stream.service, stream.name) must be set",
    "key.arn, key.alias and key.objectRef must not be set when key.type is AWS_OWNED_CMK, and exactly one of them must be set when it is CUSTOMER_MANAGED_CMK",
];

/// The failure types and codes that have a message of their own, and one that has none.
const FAILURES: [&str; 21] = [
    "KMS_ACCESS_DENIED",
    "KMSAccessDeniedException",
    "DISABLED_KMS_KEY",
    "KMSDisabledException",
    "KMS_KEY_NOT_FOUND",
    "KMSNotFoundException",
    "INVALID_KMS_KEY",
    "KMSInvalidStateException",
    "CREATE_KMS_GRANT_FAILED",
    "RETIRE_KMS_GRANT_FAILED",
    "KMS_OPT_IN_REQUIRED",
    "KMSOptInRequired",
    "InvalidKMSResourceException",
    "AccessDeniedException",
    "LimitExceededException",
    "NOT_APPLIED",
    "NotConnected",
    "NotReserved",
    "OperatorPaused",
    "SignerChanged",
    "(any other)",
];

/// Returns the page.
fn page() -> String {
    let rows = [rows(Service::Firehose), rows(Service::Kinesis)].concat();
    let scenarios: Vec<Scenario> =
        rows.into_iter().map(|(_, scenario, _)| scenario).chain(more()).map(named).collect();
    let mut page = HEAD.to_owned();
    page.push_str(STALE);
    items(&mut page, &stale().map(generalized).into());
    page.push_str(ACTIVE_KEY);
    items(&mut page, &active_key_sentences().into_iter().map(str::to_owned).collect());
    for reason in Reason::ALL {
        list(&mut page, *reason, &ready(*reason, &scenarios));
    }
    page.push_str("\n## Encrypted\n");
    page.push_str(OUTDATED);
    let outdated = [Some(midnight()), None].map(|at| generalized(message::outdated(at, "MESSAGE")));
    items(&mut page, &outdated.into());
    page.push_str(ENCRYPTED);
    let encrypted = scenarios.iter().map(|scenario| generalized(message::encrypted(&scenario.input())));
    items(&mut page, &encrypted.chain(stale().map(|text| generalized(format!("Unknown: {text}")))).collect());
    page.push_str("\n## KeyUsable\n");
    page.push_str(LOST);
    items(&mut page, &lost());
    page.push_str(USABLE);
    let keyed = scenarios.iter().filter(|scenario| {
        matches!(scenario.desired.encryption, DesiredEncryption::Key(_))
            || scenario.desired.key_problem.is_some_and(|problem| problem != KeyProblem::NotPermitted)
    });
    items(&mut page, &keyed.map(|scenario| generalized(message::key_usable(&scenario.input()))).collect());
    page.push_str(FAILURE);
    let mut advice: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for code in FAILURES.into_iter().chain(CredentialsProblem::ALL.map(CredentialsProblem::code)) {
        let codes = advice.entry(message::advice(code)).or_default();
        codes.push(if code.starts_with('(') { code.to_owned() } else { format!("`{code}`") });
    }
    let advice = advice.into_iter().map(|(text, codes)| {
        format!("{text} ({})", codes.join(", ").replace("(any other)", "any other type"))
    });
    items(&mut page, &advice.collect());
    page.push_str(EVENTS);
    items(&mut page, &FROM_CONTROLLER[2..].iter().map(|(text, ..)| (*text).to_owned()).collect());
    page
}

/// Returns the messages of `Ready` for a reason.
fn ready(reason: Reason, scenarios: &[Scenario]) -> BTreeSet<String> {
    match reason {
        Reason::NoCredentials => {
            CredentialsProblem::ALL.iter().map(|missing| missing.words().to_owned()).collect()
        }
        Reason::CredentialsRejected => {
            CredentialsRejection::ALL.iter().map(|rejection| rejection.words().to_owned()).collect()
        }
        Reason::Suspended => suspended(),
        Reason::SpecInvalid => spec_errors()
            .map(|error| generalized(format!("Invalid spec: {error}.")))
            .chain(FROM_CONTROLLER[..2].iter().map(|(text, ..)| (*text).to_owned()))
            .collect(),
        Reason::Drifted => {
            let observed =
                scenarios.iter().map(|scenario| scenario.clone().with(|s| s.desired.mode = Mode::Observe));
            let drifted: Vec<Scenario> =
                observed.filter(|scenario| scenario.decide().reason == reason).collect();
            // This message is not the one of the reason's own section.
            let is_own = |text: &str| text.contains(Reason::DriftCorrectionLimitReached.as_str());
            let without_why = |text: String| {
                if is_own(&text) { text } else { WHY.replace(&text, "(REASON): MESSAGE").into_owned() }
            };
            one_of_each(drifted.iter().filter_map(body).map(without_why))
        }
        // They differ only in the sentence about the encryption of records, and one of them has none.
        Reason::EncryptionDisabled => {
            let decided = scenarios.iter().filter(|scenario| scenario.decide().reason == reason);
            decided.filter_map(body).collect()
        }
        reason => {
            let decided = scenarios.iter().filter(|scenario| scenario.decide().reason == reason);
            one_of_each(decided.filter_map(body))
        }
    }
}

/// Returns the message of `Ready` without the parts that the page lists once for all messages.
fn body(scenario: &Scenario) -> Option<String> {
    let input = scenario.input();
    let mut text = message::ready(&input, &scenario.decide());
    if let (Some(problem), Some(key)) =
        (scenario.active_key_problem, status_fields::active_customer_key(&input))
        && let Some(rest) = text.strip_prefix(&message::active_key_unusable(&input, &key, problem))
    {
        text = rest.trim_start().to_owned();
    }
    for end in ENDS.iter() {
        text = end.replace(&text, "").into_owned();
    }
    (!text.is_empty()).then(|| generalized(text))
}

/// Returns the messages, one of those that differ only in the sentence about the encryption of records.
fn one_of_each(messages: impl Iterator<Item = String>) -> BTreeSet<String> {
    let of_a_key = "(KEY|[Tt]he AWS-owned key|[Tt]he AWS managed key alias/aws/kinesis|[Aa] customer managed key that no StreamEncryptionPolicy allows this namespace to use)";
    let sentence = format!(
        " (Records are (still )?in plaintext|The active key is unknown|{of_a_key} is the active key|Records are still encrypted with {of_a_key}|Records written meanwhile may be in plaintext)\\."
    );
    let sentence = pattern(&sentence);
    let mut kept: BTreeMap<String, String> = BTreeMap::new();
    for text in messages {
        let rest = sentence.replace_all(&text, "").into_owned();
        let rank = |text: &str| (!sentence.is_match(text), text.len(), text.to_owned());
        match kept.get_mut(&rest) {
            Some(known) if rank(&text) < rank(known) => *known = text,
            Some(_) => {}
            None => drop(kept.insert(rest, text)),
        }
    }
    kept.into_values().collect()
}

/// Returns the sentences about a state that may be outdated.
fn stale() -> [String; 4] {
    [
        still_reported(&Observation::Off),
        still_reported(&Observation::On(key(1))),
        still_reported(&failed(Action::Start)),
        still_reported(&failed(Action::Stop)),
    ]
}

fn active_key_sentences() -> [&'static str; 6] {
    [
        "KEY is the active key.",
        "Records are in plaintext.",
        "Records are still encrypted with KEY.",
        "Records are still in plaintext.",
        "Records written meanwhile may be in plaintext.",
        "The active key is unknown.",
    ]
}

/// Returns the messages about an unusable active key.
fn lost() -> BTreeSet<String> {
    let Key::Customer(arn) = key(1) else { unreachable!() };
    let of = |service: Service| {
        Reason::ALL
            .iter()
            .filter_map(|reason| KeyProblem::of_active_key(*reason))
            .map(move |problem| (service, problem))
    };
    let text = |(service, problem)| {
        generalized(message::active_key_unusable(&Scenario::of(service).input(), &arn, problem))
    };
    SERVICES.into_iter().flat_map(of).map(text).collect()
}

fn suspended() -> BTreeSet<String> {
    let annotation = "the annotation streamencryption.dev/suspend";
    let unknown = format!("{annotation} (its value \"VALUE\" is unknown and counts as true)");
    let (at, shown) = (Some(midnight()), Some(EncryptionStatus::Enabled));
    [
        ("spec.suspend", at, shown),
        ("spec.suspend", at, None),
        ("spec.suspend", None, shown),
        ("spec.suspend", None, None),
        (annotation, at, shown),
        (unknown.as_str(), at, shown),
    ]
    .map(|(by, at, shown)| generalized(message::suspended(by, midnight(), at, shown)))
    .into()
}

/// Returns the errors of a spec. The schema refuses most of them when the resource is applied.
fn spec_errors() -> impl Iterator<Item = String> {
    let errors: [Option<ParseError>; 8] = [
        "VALUE".parse::<StreamArn>().err(),
        "arn:aws:firehose:VALUE:111122223333:deliverystream/a".parse::<StreamArn>().err(),
        "arn:aws:firehose:eu-west-1:VALUE:deliverystream/a".parse::<StreamArn>().err(),
        "arn:VALUE:firehose:eu-west-1:111122223333:deliverystream/a".parse::<StreamArn>().err(),
        "arn:aws:firehose:cn-north-1:111122223333:deliverystream/a".parse::<StreamArn>().err(),
        "VALUE".parse::<KeyArn>().err(),
        arn::alias("VALUE").err(),
        "VALUE".parse::<Region>().err(),
    ];
    let names = SERVICES.map(|service| check_name(service, "a/b").err());
    let errors = errors.into_iter().chain(names).map(|error| error.expect("it is invalid").to_string());
    errors.chain(FROM_RESOLVE.map(str::to_owned))
}

/// Returns the scenario with the name of its key, as the controller always has it if the key is unknown.
fn named(mut scenario: Scenario) -> Scenario {
    if scenario.desired.encryption == DesiredEncryption::UnknownKey {
        scenario.desired.key_reference = Some("alias/NAME".to_owned());
    }
    if matches!(
        scenario.desired.key_problem,
        Some(KeyProblem::ReferenceNotReady | KeyProblem::ReferenceCrdMissing)
    ) {
        scenario.desired.encryption = DesiredEncryption::UnknownKey;
        scenario.desired.key_reference = Some("NAME".to_owned());
    }
    scenario
}

/// Returns scenarios whose messages depend on more than the decision's table shows.
fn more() -> Vec<Scenario> {
    SERVICES.into_iter().flat_map(|service| more_of(service).into_iter().chain(denied_of(service))).collect()
}

/// Returns the scenarios in which a policy denies a request that reads.
fn denied_of(service: Service) -> impl Iterator<Item = Scenario> {
    let operations = [profile(service).describe, Operation::AssumeRole];
    let denied = move |policy: DenyingPolicy| {
        operations.map(|operation| {
            let message = policy.phrases().concat();
            let error = AwsError { operation, message, ..aws_error(ErrorKind::Denied, "AccessDenied") };
            Scenario::of(service).with(|s| s.sight = Sight::Failed(error))
        })
    };
    DenyingPolicy::ALL.into_iter().flat_map(denied)
}

fn more_of(service: Service) -> Vec<Scenario> {
    let of = || Scenario::of(service);
    let plain = || of().sees(Observation::Off);
    let rekeying = || of().converged().wants(DesiredEncryption::Key(key(2))).calls().accepted();
    let rekeyed = || rekeying().after(100).sees(Observation::On(key(2)));
    let unknown = || of().wants(DesiredEncryption::UnknownKey);
    let failed_with = |operation, kind, code: Option<&str>| {
        let error = AwsError { operation, code: code.map(str::to_owned), ..aws_error(kind, "") };
        of().with(|s| s.sight = Sight::Failed(error))
    };
    let refused = |kind, code| plain().calls().refused(kind, code).after(1).sees(Observation::Off);
    let only_customer_keys = StreamEncryptionPolicySpec {
        keys: vec![format!("arn:aws:kms:*:{ACCOUNT}:key/*")],
        ..StreamEncryptionPolicySpec::own_account()
    };
    let mut scenarios = vec![
        of().wants(DesiredEncryption::Key(Key::AwsOwned)).converged(),
        of().sees(Observation::NotOperational("DELETING_FAILED".into())),
        unknown().key_is(KeyProblem::NotFound).sees(Observation::Off),
        unknown().sees(Observation::InProgress(Some(Action::Start))),
        plain().calls().accepted().sees(Observation::On(key(1))).after(2),
        rekeying().after(1).sees(Observation::On(key(1))),
        of().spent(1).after(1).sees(Observation::Off),
        rekeyed(),
        rekeyed().after(5),
        of().cannot_see(ErrorKind::Transient),
        failed_with(Operation::DescribeKey, ErrorKind::Transient, None),
        of().sees(Observation::Unrecognized("the source \"VALUE\"".to_owned())),
        of().wants(DesiredEncryption::Off)
            .sees(Observation::NotEncryptable("KinesisStreamAsSource".to_owned())),
        of().converged()
            .wants(DesiredEncryption::Off)
            .calls()
            .accepted()
            .after(60)
            .sees(Observation::On(key(1))),
        of().converged()
            .wants(DesiredEncryption::Off)
            .calls()
            .refused(ErrorKind::Denied, "AccessDeniedException")
            .after(1)
            .sees(Observation::On(key(1))),
        refused(ErrorKind::Transient, "NotConnected"),
        refused(ErrorKind::Transient, "NotReserved"),
        refused(ErrorKind::Transient, "OperatorPaused"),
        refused(ErrorKind::Transient, "SignerChanged"),
        refused(
            ErrorKind::KeyAccessDenied,
            match service {
                Service::Firehose => "InvalidKMSResourceException",
                Service::Kinesis => "KMSAccessDeniedException",
            },
        ),
        of().wants(DesiredEncryption::AnyKey).with(|s| {
            let own = s.permission.own_account().clone();
            s.permission =
                EffectivePolicy::of(Policy::read(&only_customer_keys).0.into_iter().collect(), own);
        }),
        of().with(|s| {
            s.ownership = Ownership::Another;
            s.other_owner = Some("NAME");
        }),
    ];
    let describe = profile(service).describe;
    scenarios.push(failed_with(describe, ErrorKind::Invalid, Some("InvalidArgumentException")));
    for code in [None, Some("502"), Some("NotConnected"), Some("InvalidResponse"), Some("InternalFailure")] {
        scenarios.push(failed_with(describe, ErrorKind::Transient, code));
    }
    for operation in [Operation::GetCallerIdentity, Operation::AssumeRole] {
        scenarios.push(failed_with(operation, ErrorKind::Denied, Some("AccessDenied")));
    }
    scenarios
}

/// The parts of a message of `Ready` that the page lists once for all messages.
static ENDS: LazyLock<[Regex; 2]> = LazyLock::new(|| {
    [
        pattern(" Next attempt at .*$"),
        pattern(" AWS reports [A-Z_]+, which may still be the state before .*$"),
    ]
});

/// Why a resource with `mode: Observe` would get no call: the reason of another section, and its message.
static WHY: LazyLock<Regex> = LazyLock::new(|| pattern("[(][A-Za-z]+[)]: .*$"));

fn list(page: &mut String, reason: Reason, messages: &BTreeSet<String>) {
    if !messages.is_empty() {
        let _ = write!(page, "\n### {}\n\n", reason.as_str());
        items(page, messages);
    }
}

fn items(page: &mut String, messages: &BTreeSet<String>) {
    for message in messages {
        let _ = writeln!(page, "- {message}");
    }
}

#[test]
fn messages_page_matches_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/messages.md");
    assert!(written == page, "{PAGE} differs: UPDATE_DOCS=1 cargo test -p stream-encryption-core messages");
}

/// The page has copies of these texts, because they are not in the model.
#[test]
fn messages_page_has_the_texts_of_the_controller() {
    for (text, file, expression) in FROM_CONTROLLER {
        assert!(file.contains(expression), "{text}");
    }
    let resolve = include_str!("../../../controller/resolve.rs");
    for text in FROM_RESOLVE {
        assert!(resolve.contains(&format!("\"{text}\"")), "{text}");
    }
}

/// The page shows only one of these sentences in each message.
#[test]
fn listed_sentences_about_the_active_key_are_those_of_the_model() {
    let scenario = Scenario::of(Service::Firehose);
    let known = |key: Option<KeyIdentity>| KnownEncryption {
        key,
        since_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(midnight()),
        encrypted_since_time: None,
    };
    let customer = KeyIdentity { kind: KeyType::CustomerManaged, arn: Some(key(1).to_string()) };
    for known in [Some(known(Some(customer))), Some(known(None)), None] {
        let sentence = generalized(message::active_key(&scenario.input(), known.as_ref()));
        assert!(active_key_sentences().contains(&sentence.as_str()), "{sentence}");
    }
}
