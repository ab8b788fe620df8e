//! `docs/messages.md`: the messages of every row of the decision, as the operator prints them.
//!
//! `UPDATE_DOCS=1 cargo test --lib messages` writes the page again after a change of a message.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use regex::Regex;

use super::rows;
use crate::api::condition::Reason;
use crate::api::stream_encryption::{EncryptionStatus, Service};
use crate::model::aws_error::{AwsError, ErrorKind, Operation};
use crate::model::credentials::{CredentialsProblem, CredentialsRejection};
use crate::model::decision::Ownership;
use crate::model::message;
use crate::model::scenario::{Scenario, Sight, midnight};

const PAGE: &str = "docs/messages.md";

const HEAD: &str = "\
<!-- Generated from the code by a test: UPDATE_DOCS=1 cargo test --lib messages. -->
# Messages

The messages of the conditions as the operator prints them, so that the text of a message can be searched for. KEY and OTHER-KEY stand
for ARNs of keys, STREAM for the ARN of a stream, TIME for a time, CODE for an error code, VALUE for a value that AWS reports, USED and LIMIT for
numbers. [conditions.md](conditions.md) explains each reason, and what to do.

If an attempt is planned, the message of `Ready` ends with `Next attempt at TIME.` While records are being lost because the active key is unusable, it
begins with the message of `KeyUsable`. `Reconciling` and `Stalled` have the message of `Ready`.
";

/// Returns the page.
fn page() -> String {
    let rows = [rows(Service::Firehose), rows(Service::Kinesis)].concat();
    let decided = |reason: Reason| {
        let rows = rows.iter().filter(move |(_, situation, _)| situation.decide().reason == reason);
        rows.map(|(_, situation, _)| generalized(&message::ready(&situation.input(), &situation.decide())))
    };
    let mut page = HEAD.to_owned();
    page.push_str("\n## Ready\n");
    for reason in Reason::ALL {
        let messages: BTreeSet<String> = match reason {
            Reason::NoCredentials => {
                CredentialsProblem::ALL.iter().map(|missing| missing.words().to_owned()).collect()
            }
            Reason::CredentialsRejected => {
                CredentialsRejection::ALL.iter().map(|rejection| rejection.words().to_owned()).collect()
            }
            reason => decided(*reason).chain(more(*reason)).collect(),
        };
        list(&mut page, reason.as_str(), &messages);
    }
    page.push_str("\n## Encrypted\n\n");
    let encrypted =
        rows.iter().map(|(_, situation, _)| generalized(&message::encrypted(&situation.input()))).collect();
    items(&mut page, &encrypted);
    page.push_str("\n## KeyUsable\n\n");
    let usable =
        rows.iter().map(|(_, situation, _)| generalized(&message::key_usable(&situation.input()))).collect();
    items(&mut page, &usable);
    page
}

/// Returns the messages of a reason that depend on more than the decision's table shows.
fn more(reason: Reason) -> Vec<String> {
    let firehose = || Scenario::of(Service::Firehose);
    let failed = |operation, kind, code: Option<&str>| {
        let (code, message) = (code.map(str::to_owned), String::new());
        let error = AwsError { operation, kind, code, message };
        let scenario = firehose().with(|s| s.sight = Sight::Failed(error));
        message::ready(&scenario.input(), &scenario.decide())
    };
    match reason {
        Reason::AwsUnreachable => [None, Some("502"), Some("InvalidResponse"), Some("OperatorPaused")]
            .map(|code| failed(Operation::DescribeDeliveryStream, ErrorKind::Transient, code))
            .to_vec(),
        Reason::AccessDenied => [Operation::GetCallerIdentity, Operation::AssumeRole]
            .map(|operation| failed(operation, ErrorKind::Denied, Some("AccessDenied")))
            .to_vec(),
        Reason::StreamAlreadyManaged => {
            let other = firehose().with(|s| {
                s.ownership = Ownership::Another;
                s.other_owner = Some("orders");
            });
            vec![message::ready(&other.input(), &other.decide())]
        }
        Reason::Suspended => vec![message::suspended(
            "spec.suspend",
            midnight(),
            Some(midnight()),
            Some(EncryptionStatus::Enabled),
        )],
        Reason::SpecInvalid => vec!["Invalid spec: the error in the spec, with the field.".to_owned()],
        _ => Vec::new(),
    }
    .iter()
    .map(|message| generalized(message))
    .collect()
}

/// Returns the message without the next attempt, and with placeholders for the values of one case.
fn generalized(message: &str) -> String {
    let mut message =
        message.split_once(" Next attempt at ").map_or(message, |(before, _)| before).to_owned();
    for (value, placeholder) in [
        ("arn:aws:kms:[a-z0-9:-]+key/1", "KEY"),
        ("arn:aws:kms:[a-z0-9:-]+key/[0-9]", "OTHER-KEY"),
        ("arn:aws:[a-z]+:[a-z0-9:-]+stream/[a-z]+", "STREAM"),
        ("StreamLedger stream-[0-9a-f]+", "StreamLedger NAME"),
        ("[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]+Z", "TIME"),
        ("\"(ROT13|SUSPENDED)\"", "\"VALUE\""),
        ("call: (x|InvalidArgumentException)[.]", "call: CODE."),
        (": Code[)]", ": CODE)"),
        ("[0-9]+ of [0-9]+ encryption calls", "USED of LIMIT encryption calls"),
    ] {
        message = Regex::new(value).expect("a pattern").replace_all(&message, placeholder).into_owned();
    }
    message
}

fn list(page: &mut String, heading: &str, messages: &BTreeSet<String>) {
    if !messages.is_empty() {
        let _ = write!(page, "\n### {heading}\n\n");
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
    assert!(written == page, "{PAGE} differs: UPDATE_DOCS=1 cargo test --lib messages");
}
