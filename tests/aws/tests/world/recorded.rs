//! Compares the simulated AWS with the answers of the real AWS, recorded in `tests/aws/recorded`.
//!
//! Each comparison sends a request over HTTP, and compares the operation, the status and the body. A recording
//! counts as compared only when [`Recordings`] has compared its own content, and the test requires this of every
//! file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use scene::Answer;

mod access;
mod firehose;
mod kinesis;
mod scene;

/// Members whose values do not concern encryption or differ from stream to stream or from key to key. Only one
/// recording has the whole `Destinations`.
const INCIDENTAL: [&str; 12] = [
    "StreamCreationTimestamp",
    "CreateTimestamp",
    "LastUpdateTimestamp",
    "CreationDate",
    "CurrentKeyMaterialId",
    "MaxRecordSizeInKiB",
    "VersionId",
    "Source",
    "Destinations",
    "SequenceNumber",
    "ShardId",
    "RecordId",
];

/// Members that AWS added in 2026. The simulated AWS shows them; an older recording cannot have them.
const ADDED_IN_2026: [&str; 1] = ["ChannelCount"];

/// Every recording, and the result of the comparisons so far.
struct Recordings {
    by_name: BTreeMap<String, Value>,
    compared: BTreeSet<String>,
    differences: Vec<String>,
}

impl Recordings {
    /// Reads every file of the directory.
    fn read() -> Recordings {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("recorded");
        let mut by_name = BTreeMap::new();
        for entry in std::fs::read_dir(directory).expect("the recordings") {
            let path = entry.expect("a file").path();
            let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name").to_owned();
            let recording = serde_json::from_slice(&std::fs::read(&path).expect(&name)).expect(&name);
            by_name.insert(name, recording);
        }
        Recordings { by_name, compared: BTreeSet::new(), differences: Vec::new() }
    }

    fn get(&self, name: &str) -> &Value {
        self.by_name.get(name).unwrap_or_else(|| panic!("no recording {name}"))
    }

    /// Compares an answer with the recorded one. The operation must be the recorded one, or one that is said to
    /// answer alike.
    fn compare(&mut self, name: &str, answer: &Answer) {
        let recording = self.get(name);
        let alike = recording["replayedAs"].as_array().into_iter().flatten();
        let mut operations = std::iter::once(&recording["operation"]).chain(alike);
        let is_recorded = operations.any(|operation| *operation == answer.operation);
        assert!(is_recorded, "{name} is no answer of {}", answer.operation);
        let dated_before_2026 = recording["recorded"].as_str().is_some_and(|date| date < "2026");
        let newer: &[&str] = if dated_before_2026 { &ADDED_IN_2026 } else { &[] };
        let expected = (recording["status"].clone(), told(&recording["body"], &[]));
        let actual = (answer.status.into(), told(&answer.body, newer));
        self.note(name, &actual, &expected);
    }

    /// Compares the logged request with the recorded event of `CloudTrail`, in the members that both have.
    fn compare_event(&mut self, name: &str, event: &Value) {
        let recorded = &self.get(name)["event"];
        let members = event.as_object().into_iter().flatten();
        let expected: Value = members.map(|(member, _)| (member.clone(), recorded[member].clone())).collect();
        self.note(name, event, &expected);
    }

    fn note<T: std::fmt::Debug + PartialEq>(&mut self, name: &str, actual: &T, expected: &T) {
        self.compared.insert(name.to_owned());
        if actual != expected {
            self.differences.push(format!("{name}\n simulated: {actual:?}\n  recorded: {expected:?}"));
        }
    }

    fn not_compared(&self) -> Vec<&String> {
        self.by_name.keys().filter(|name| !self.compared.contains(*name)).collect()
    }
}

/// Returns a body without the incidental and the newer members. A null is how tools print an absent member.
fn told(body: &Value, newer: &[&str]) -> Value {
    match body {
        Value::Object(members) => members
            .iter()
            .filter(|(name, _)| !INCIDENTAL.contains(&name.as_str()) && !newer.contains(&name.as_str()))
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), told(value, newer)))
            .collect(),
        other => other.clone(),
    }
}

#[tokio::test]
async fn every_recording_equals_the_simulated_answer() {
    let mut recordings = Recordings::read();
    kinesis::encryption_changes(&mut recordings).await;
    kinesis::creation_and_deletion(&mut recordings).await;
    kinesis::names_of_keys(&mut recordings).await;
    kinesis::mode_switches(&mut recordings).await;
    kinesis::refused_requests(&mut recordings).await;
    firehose::encryption_changes(&mut recordings).await;
    firehose::unencryptable_and_old_streams(&mut recordings).await;
    firehose::refused_requests(&mut recordings).await;
    access::credentials(&mut recordings).await;
    access::missing_permissions(&mut recordings).await;
    access::descriptions_of_keys(&mut recordings).await;
    assert!(recordings.differences.is_empty(), "{}", recordings.differences.join("\n"));
    assert_eq!(recordings.not_compared(), [""; 0], "every recording is compared");
}
