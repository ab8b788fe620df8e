//! Argo CD's health check and actions, tested with upstream's own test format and on every possible state.
//!
//! `config/argocd/resource_customizations` has the layout of <https://github.com/argoproj/argo-cd>. These
//! tests read `health_test.yaml` and `action_test.yaml` as `go test ./util/lua` does there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use stream_encryption_api::stream_encryption::StreamEncryption;
use stream_encryption_core::controller::annotations::is_suspended;

use crate::resource_states::{WORDS, every, table};

mod configured;
mod lua;

/// The actions, in the order in which Argo CD shows them.
const ACTIONS: [&str; 3] = ["reconcile", "suspend", "resume"];

const RETRY: &str = "streamencryption.dev/retry";

/// Result of a health check.
#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Health {
    status: String,
    message: Option<String>,
    deletion_message: Option<String>,
}

/// One action that Argo CD offers.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Offer {
    #[serde(default)]
    name: String,
    disabled: bool,
    display_name: String,
    icon_class: String,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/argocd/resource_customizations/streamencryption.dev/StreamEncryption")
}

fn script(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn yaml<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn health(resource: &Value) -> Health {
    let said = lua::run(&script("health.lua"), resource).expect("the health check runs");
    serde_json::from_value(said).expect("a health")
}

fn offers(resource: &Value) -> BTreeMap<String, Offer> {
    let said = lua::run(&script("actions/discovery.lua"), resource).expect("the discovery runs");
    serde_json::from_value(said).expect("offers")
}

/// Returns the resource after an action.
fn act(action: &str, resource: &Value) -> Value {
    let script = script(&format!("actions/{action}/action.lua"));
    let mut after = lua::run(&script, resource).expect("the action runs");
    lua::mend_empty_objects(&mut after, resource);
    after
}

#[test]
fn health_of_every_state_is_as_documented() {
    let table = table();
    for state in every() {
        let health = health(&state.resource);
        assert_eq!(health.status, table[state.row].argo_cd, "{}: {}", state.row, state.name);
    }
}

#[test]
fn health_message_repeats_ready_message() {
    for state in every() {
        let health = health(&state.resource);
        let message = health.message.unwrap_or_default();
        match state.row {
            "not reconciled yet" | "changed, and not reconciled since" => {
                assert!(message.starts_with("Waiting"), "{message}");
            }
            "being deleted" => {
                let told = health.deletion_message.unwrap_or_default();
                assert!(told.contains("disabled first"), "{told}");
            }
            // A resource that was suspended when it was created has no earlier message.
            _ if message.starts_with("Suspended by") && state.name.starts_with("Suspended") => {}
            _ => assert!(message.ends_with(WORDS), "{}: {}: {message}", state.row, state.name),
        }
    }
}

/// Another controller's finalizer blocks the deletion; the operator has set none.
#[test]
fn deletion_message_says_stream_is_retained() {
    let mut resource: Value = yaml(&folder().join("testdata/firehose-encrypted.yaml"));
    resource["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let health = health(&resource);
    assert_eq!(health.status, "Progressing");
    assert_eq!(health.deletion_message.as_deref(), Some("Being deleted. The stream in AWS is not changed."));
}

#[test]
fn health_check_passes_upstream_tests() {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Test {
        input_path: String,
        health_status: Health,
    }
    let mut tests: BTreeMap<String, Vec<Test>> = yaml(&folder().join("health_test.yaml"));
    let tests = tests.remove("tests").expect("tests");
    let mut words: Vec<&str> = tests.iter().map(|test| test.health_status.status.as_str()).collect();
    for test in &tests {
        assert_eq!(
            health(&yaml(&folder().join(&test.input_path))),
            test.health_status,
            "{}",
            test.input_path
        );
    }
    words.sort_unstable();
    words.dedup();
    assert_eq!(words, ["Degraded", "Healthy", "Progressing", "Suspended"], "each health status has a test");
    let inputs: Vec<&str> = tests.iter().map(|test| test.input_path.as_str()).collect();
    every_file_is_used("testdata", &inputs);
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ActionTests {
    discovery_tests: Vec<DiscoveryTest>,
    action_tests: Vec<ActionTest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DiscoveryTest {
    input_path: String,
    result: Vec<Offer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ActionTest {
    action: String,
    input_path: String,
    expected_output_path: String,
}

#[test]
fn actions_pass_upstream_tests() {
    let folder = folder().join("actions");
    let tests: ActionTests = yaml(&folder.join("action_test.yaml"));
    for test in &tests.discovery_tests {
        let offers = offers(&yaml(&folder.join(&test.input_path)));
        let offers: Vec<Offer> = offers.into_iter().map(|(name, offer)| Offer { name, ..offer }).collect();
        let mut expected = test.result.clone();
        expected.sort_by(|one, other| one.name.cmp(&other.name));
        assert_eq!(offers, expected, "{}", test.input_path);
    }
    for test in &tests.action_tests {
        let before: Value = yaml(&folder.join(&test.input_path));
        let mut after = act(&test.action, &before);
        // Upstream's test replaces such a time by the same constant.
        if let Some(time) = after.pointer_mut("/metadata/annotations/streamencryption.dev~1retry") {
            let text = time.as_str().expect("a text").to_owned();
            text.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{text}: {error}"));
            *time = "0001-01-01T00:00:00Z".into();
        }
        let expected: Value = yaml(&folder.join(&test.expected_output_path));
        assert_eq!(after, expected, "{} of {}", test.action, test.input_path);
    }
    for action in ACTIONS {
        assert!(tests.action_tests.iter().any(|test| test.action == action), "{action} has no test");
    }
    let discovered = tests.discovery_tests.iter().map(|test| test.input_path.as_str());
    let acted =
        tests.action_tests.iter().flat_map(|test| [test.input_path.as_str(), &test.expected_output_path]);
    every_file_is_used("actions/testdata", &discovered.chain(acted).collect::<Vec<_>>());
}

/// Checks that a test uses each file in a folder of test data, and that each file is a complete resource that
/// the product can parse.
fn every_file_is_used(data: &str, used: &[&str]) {
    for entry in fs::read_dir(folder().join(data)).expect("test data") {
        let path = entry.expect("a file").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        assert!(used.iter().any(|used| used.ends_with(name)), "{data}/{name} is not used by a test");
        let read: StreamEncryption = yaml(&path);
        assert!(
            read.metadata.uid.is_some() && read.metadata.generation.is_some(),
            "{name} is not a complete object of a cluster"
        );
    }
}

#[test]
fn action_is_offered_only_if_it_has_an_effect() {
    let offered = |resource: &Value| -> Vec<&str> {
        let offers = offers(resource);
        assert_eq!(offers.len(), ACTIONS.len(), "{offers:?}");
        ACTIONS.into_iter().filter(|action| !offers[*action].disabled).collect()
    };
    let plain = json!({"metadata": {"name": "orders"}, "spec": {}});
    assert_eq!(offered(&plain), ["reconcile", "suspend"]);
    let suspended = act("suspend", &plain);
    assert_eq!(offered(&suspended), ["resume"]);
    assert_eq!(offered(&act("resume", &suspended)), ["reconcile", "suspend"]);
    // Another value that the operator treats as true, also before it has seen the value.
    let mut until_monday = suspended.clone();
    until_monday["metadata"]["annotations"]["streamencryption.dev/suspend"] = "until Monday".into();
    assert_eq!(offered(&until_monday), ["resume"]);
    assert_eq!(offered(&act("resume", &until_monday)), ["reconcile", "suspend"]);
    for by_git in [&plain, &suspended] {
        let mut by_git = by_git.clone();
        by_git["spec"]["suspend"] = true.into();
        assert!(offered(&by_git).is_empty(), "only Git resumes what Git suspends");
    }
    let mut deleted = plain.clone();
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    assert_eq!(offered(&deleted), ["reconcile"], "suspending it would block its deletion");
    deleted["metadata"]["annotations"]["streamencryption.dev/suspend"] = "true".into();
    assert_eq!(offered(&deleted), ["resume"]);
}

/// The resource is stalled, so its conditions do not show the suspension.
#[test]
fn suspend_annotation_has_the_same_values_as_for_the_operator() {
    let mut resource: Value = yaml(&folder().join("testdata/source-not-direct-put.yaml"));
    assert_eq!(health(&resource).status, "Degraded");
    let values = [
        "true",
        "True",
        "yes",
        "on",
        "1",
        "until Monday",
        "nope",
        "falsehood",
        "2026-01-01",
        "-",
        "false",
        "False",
        "FALSE",
        " false ",
        "no",
        "No",
        "off",
        "OFF",
        "0",
        "",
    ];
    let long = "x".repeat(1000);
    for value in values.into_iter().chain([long.as_str()]) {
        resource["metadata"]["annotations"] = json!({"streamencryption.dev/suspend": value});
        let parsed: StreamEncryption = serde_json::from_value(resource.clone()).expect("a resource");
        let suspended = is_suspended(&parsed);
        assert_eq!(health(&resource).status, if suspended { "Suspended" } else { "Degraded" }, "{value:?}");
        let offers = offers(&resource);
        let disabled = ACTIONS.map(|action| offers[action].disabled);
        assert_eq!(disabled, [suspended, suspended, !suspended], "{value:?}");
    }
}

#[test]
fn action_changes_no_field_from_git() {
    for resource in ["firehose-encrypted.yaml", "suspended-by-annotation.yaml"] {
        let before: Value = yaml(&folder().join("testdata").join(resource));
        for action in ACTIONS {
            let mut after = act(action, &before);
            assert_eq!(after["spec"], before["spec"], "{action}");
            let annotations = after["metadata"]["annotations"].as_object_mut();
            let added = annotations.map(|annotations| annotations.remove(RETRY));
            assert_eq!(added.flatten().is_some(), action == "reconcile");
            assert_eq!(after["status"], before["status"], "{action}");
        }
    }
}
