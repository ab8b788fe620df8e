//! The documentation matches the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use stream_encryption_api::condition::{ConditionType, ReadyState, Reason, find, ready_conditions};
use stream_encryption_api::crd::definitions;
use stream_encryption_api::policy::{StreamEncryptionPolicy, StreamEncryptionPolicySpec};

use crate::readme::{blocks, commands};

/// One row of the table of reasons.
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
fn reasons_are_documented_once_and_in_order() {
    let documented: Vec<String> = table().into_iter().map(|line| line.reason).collect();
    // The table is about `Ready`, which never has this reason.
    let of_key_usable = Reason::KeyEnabled;
    let reasons = Reason::ALL.iter().filter(|reason| **reason != of_key_usable);
    let reasons: Vec<String> = reasons.map(ToString::to_string).collect();
    assert_eq!(documented, reasons, "left: docs/conditions.md; right: the code");
    assert!(page("docs/conditions.md").contains(&format!("its reason is `{of_key_usable}`")));
}

#[test]
fn documented_conditions_of_each_reason_match_code() {
    for line in table() {
        let reason: Reason =
            line.reason.parse().unwrap_or_else(|()| panic!("no reason is called {}", line.reason));
        let made = ready_conditions(&[], reason, "", None, jiff::Timestamp::UNIX_EPOCH);
        let mut expected = [ConditionType::Ready, ConditionType::Reconciling, ConditionType::Stalled]
            .map(|kind| find(&made, kind).map_or("-", |condition| condition.status.as_str()));
        if reason.ready_state() == ReadyState::Unchanged {
            expected[0] = "as before";
        }
        assert_eq!([line.ready, line.reconciling, line.stalled], expected, "{reason}");
    }
}

#[test]
fn every_reason_has_a_meaning_and_an_action() {
    for line in table() {
        for words in line.words {
            assert!(words.ends_with('.') && words.len() > 4, "{}: {words:?} is no sentence", line.reason);
        }
    }
}

fn page(name: &str) -> String {
    fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

#[test]
fn default_policy_is_the_same_in_code_and_config() {
    let code = StreamEncryptionPolicySpec::own_account();
    let deployment: Value = serde_saphyr::from_str(&page("config/operator/deployment.yaml")).expect("YAML");
    let environment =
        deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables");
    let variable =
        environment.iter().find(|variable| variable["name"] == "DEFAULT_POLICY").expect("the policy");
    let deployed = serde_json::from_str(variable["value"].as_str().expect("a text")).expect("a policy");
    assert_eq!(code, deployed);
    let object: StreamEncryptionPolicy =
        serde_saphyr::from_str(&page("config/policies/own-account.yaml")).expect("a policy");
    assert_eq!(code, object.spec);
}

/// Returns whether each field of the spec is required, and its default, as the definition has them. A default of
/// `false` is only in the description.
fn fields_of_spec() -> BTreeMap<String, [String; 2]> {
    let (_, definition) = definitions()
        .into_iter()
        .find(|(file, _)| file.starts_with("streamencryptions."))
        .expect("the definition");
    let definition = serde_json::to_value(definition).expect("JSON");
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let required = spec["required"].as_array().expect("required fields");
    let fields = spec["properties"].as_object().expect("fields").iter();
    fields
        .map(|(name, field)| {
            let described = field["description"].as_str().expect("a description").split_once(" Default: ");
            let described = described.map(|(_, default)| default.trim_end_matches('.'));
            let default = field["default"].as_str().or(described);
            let default = default.map_or("-".to_owned(), |default| format!("`{default}`"));
            let is_required = required.iter().any(|one| one == name);
            (name.clone(), [if is_required { "yes" } else { "no" }.to_owned(), default])
        })
        .collect()
}

#[test]
fn api_page_has_each_field_of_the_spec_with_its_default() {
    let page = page("docs/api.md");
    let (_, rows) = page
        .split_once("\n| field | required | default | meaning |\n|---|---|---|---|\n")
        .expect("the table of the spec");
    let rows = rows.lines().take_while(|line| line.starts_with('|'));
    let documented: BTreeMap<String, [String; 2]> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), [cells[2], cells[3]].map(str::to_owned))
        })
        .collect();
    assert_eq!(documented, fields_of_spec(), "left: docs/api.md; right: the definition");
    assert!(documented.len() > 5);
}

/// Appends every Rust source below a folder.
fn sources(folder: &Path, found: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// Returns the tests that the last cell of a table row cites. The row begins with `row`.
fn tests_of_row<'a>(page: &'a str, row: &str) -> Vec<&'a str> {
    let line = page.lines().find(|line| line.starts_with(&format!("| {row} | ")));
    let line = line.unwrap_or_else(|| panic!("row {row} is missing"));
    let last = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
    last.split('`').skip(1).step_by(2).collect()
}

/// Returns the tests that a section of the page about faults names, in its last paragraph.
fn tests_of_section(section: &str) -> Vec<&str> {
    let (_, tests) = section.split_once("\n\nTests: ").unwrap_or_else(|| panic!("no tests in: {section}"));
    let paragraph = tests.split("\n\n").next().unwrap_or_default();
    paragraph.split('`').skip(1).step_by(2).collect()
}

/// That policy allows every namespace every stream of the account, so an administrator must choose it knowingly.
#[test]
fn no_remedy_names_the_policy_that_allows_everything() {
    let mut code = String::new();
    sources(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src"), &mut code);
    assert!(code.contains("config/policies/data-team.yaml"), "the sources are read wrongly");
    assert!(!code.contains("config/policies/own-account.yaml"));
}

#[test]
fn settings_page_lists_every_variable_with_its_flag() {
    let (settings, code) = (page("docs/settings.md"), page("src/settings.rs"));
    let variables = code.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
    let mut listed = 0;
    for variable in variables {
        assert!(
            settings.contains(&format!(" | `{variable}` | `--")),
            "docs/settings.md has no row for {variable}"
        );
        listed += 1;
    }
    assert!(listed > 10, "src/settings.rs is read wrongly");
}

#[test]
fn index_lists_every_page_of_the_documentation() {
    let index = page("docs/README.md");
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
    for entry in fs::read_dir(docs).expect("docs") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        assert!(
            ["README.md", "pictures"].contains(&name.as_str()) || index.contains(&format!("]({name})")),
            "docs/README.md lists no {name}"
        );
    }
}

/// The kinds belong to other projects, so the test API server does not know them.
#[test]
fn beside_page_yaml_parses_and_names_its_kinds() {
    let page = page("docs/beside.md");
    let groups: Vec<String> = blocks(&page, "yaml")
        .into_iter()
        .map(|yaml| {
            let object: Value = serde_saphyr::from_str(yaml).expect("YAML");
            object["apiVersion"].as_str().expect("a version").to_owned()
        })
        .collect();
    assert_eq!(groups, ["firehose.services.k8s.aws/v1alpha1", "kinesis.aws.m.upbound.io/v1beta1"]);
    for wanted in
        ["ignore_changes = [encryption_type, kms_key_id]", "ignore_changes = [server_side_encryption]"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
}

/// The measurements take minutes in a release build. `.ci/run` runs a small one, and the flags are compared here.
#[test]
fn performance_page_uses_flags_of_the_benchmark() {
    let programs = [
        ("cargo run --release --example benchmark", page("examples/benchmark/scenario.rs")),
        ("cargo run --release -p fleet --example fleet", page("tests/fleet/examples/fleet.rs")),
        ("cargo bench -p benches", String::new()),
    ];
    let page = page("docs/performance.md");
    let commands = commands(&page);
    assert!(!commands.is_empty());
    for command in commands {
        let flags =
            |(begin, code): &(&str, String)| command.strip_prefix(*begin).map(|flags| (flags, code.clone()));
        let (flags, code) = programs.iter().find_map(flags).expect("it runs a benchmark");
        for flag in
            flags.split(' ').filter_map(|word| word.strip_prefix("--")).filter(|flag| !flag.is_empty())
        {
            let field = format!("{}: ", flag.replace('-', "_"));
            assert!(code.contains(&field), "{command}: the benchmark has no flag --{flag}");
        }
    }
}

#[test]
fn every_threat_and_fault_cites_existing_tests() {
    let mut all = String::new();
    for folder in ["src", "tests"] {
        sources(&PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(folder), &mut all);
    }
    let (threats, faults) = (page("docs/security.md"), page("docs/reliability.md"));
    let of_threats =
        (1..=18).map(|number| format!("T{number}")).map(|row| (tests_of_row(&threats, &row), row));
    let sections = faults.split("\n### ").skip(1);
    let of_faults = sections.map(|section| (tests_of_section(section), section.lines().take(1).collect()));
    for (tests, name) in of_threats.chain(of_faults) {
        assert!(!tests.is_empty(), "{name} names no test");
        for test in tests {
            assert!(all.contains(&format!("fn {test}(")), "{name}: there is no test {test}");
        }
    }
}
