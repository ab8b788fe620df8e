//! Dependency rules that the compiler does not check: within the crates of `src`, and the rules in each file's
//! first lines.
//!
//! Test code inside `src` is exempt; the rules apply to the code that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

mod source;

use source::Source;

/// The maximum number of lines of a file, test or not. A longer file has more than one purpose.
const LONGEST: usize = 500;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a folder.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            found.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The crates below `src`, beside the program, whose root is `src` itself.
const MEMBERS: [&str; 2] = ["api", "core"];

/// Splits the name of a module into its crate, which is empty for the program, and its path in that crate.
fn split(module: &str) -> (&str, &str) {
    let (first, rest) = module.split_once("::").unwrap_or((module, ""));
    if MEMBERS.contains(&first) { (first, rest) } else { ("", module) }
}

fn join(outer: &str, inner: &str) -> String {
    [outer, inner].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("::")
}

/// The product's sources by module, without test-only modules. A module of the program has its path (`aws::kms`;
/// the root is empty), one of another crate begins with that crate (`core::model::ledger`).
fn modules() -> BTreeMap<String, Source> {
    let folder = root().join("src");
    let all: BTreeMap<String, Source> = rust_files(&folder)
        .into_iter()
        .map(|path| {
            let path_of_file = path.strip_prefix(&folder).unwrap().with_extension("").display().to_string();
            let module = path_of_file.replace('/', "::");
            let module =
                module.strip_suffix("lib").map_or(module.as_str(), |root| root.trim_end_matches(':'));
            (module.to_owned(), Source::read(&path))
        })
        .collect();
    let tests: BTreeSet<String> =
        all.iter().flat_map(|(module, source)| source.test_modules(module)).collect();
    let is_test = |module: &str| tests.iter().any(|test| is_within(module, test));
    all.into_iter().filter(|(module, _)| !is_test(module)).collect()
}

fn is_within(module: &str, outer: &str) -> bool {
    module == outer || module.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"))
}

/// Every module in `outer`, with each crate that it uses.
fn crates_used_in(outer: &str) -> Vec<(String, String)> {
    let crates: BTreeSet<String> = ["Cargo.toml", "src/api/Cargo.toml", "src/core/Cargo.toml"]
        .into_iter()
        .flat_map(|manifest| dependencies(&fs::read_to_string(root().join(manifest)).unwrap()))
        .collect();
    assert!(
        crates.contains("kube") && crates.contains("aws_sdk_kms") && crates.contains("sha2"),
        "the manifests are read wrongly: {crates:?}"
    );
    modules()
        .iter()
        .filter(|(module, _)| is_within(module, outer))
        .flat_map(|(module, source)| source.heads().into_iter().map(|head| (module.clone(), head)))
        .filter(|(_, head)| crates.contains(head))
        .collect()
}

fn dependencies(manifest: &str) -> Vec<String> {
    let dependencies = manifest.split("\n[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
    dependencies
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_alphabetic()))
        .map(|line| line.split(['.', ' ', '=']).next().unwrap().replace('-', "_"))
        .collect()
}

/// Every module in `outer`, with each other module of its crate that it uses.
fn modules_used_in(outer: &str) -> Vec<(String, String)> {
    imports().into_iter().filter(|(module, _)| is_within(module, outer)).collect()
}

/// The import graph of each crate: pairs of a file and a file that it names by a path from `crate`, `super` or
/// `self`. A file's declarations of its own child modules are no imports. The compiler refuses circles of crates.
fn imports() -> Vec<(String, String)> {
    let modules = modules();
    let known = |of: &str, path: &[String]| {
        (0..=path.len())
            .rev()
            .map(|length| join(of, &path[..length].join("::")))
            .find(|module| modules.contains_key(module))
            .unwrap()
    };
    let mut edges = Vec::new();
    for (module, source) in &modules {
        let (of, path) = split(module);
        let targets: BTreeSet<String> = source.paths(path).iter().map(|path| known(of, path)).collect();
        edges.extend(
            targets.into_iter().filter(|target| target != module).map(|target| (module.clone(), target)),
        );
    }
    edges
}

fn uses_only(allowed: &[&str], used: Vec<(String, String)>) {
    assert!(!used.is_empty(), "nothing is used: the sources are read wrongly");
    let wrong: Vec<_> =
        used.into_iter().filter(|(_, name)| !allowed.iter().any(|one| is_within(name, one))).collect();
    assert!(wrong.is_empty(), "only {allowed:?} may be used, not {wrong:?}");
}

#[test]
fn model_is_pure() {
    let crates = ["stream_encryption_api", "jiff", "serde", "serde_json", "sha2", "thiserror", "k8s_openapi"];
    uses_only(&crates, crates_used_in("core::model"));
    uses_only(&["core::model"], modules_used_in("core::model"));
    for (module, source) in modules().iter().filter(|(module, _)| is_within(module, "core::model")) {
        let kubernetes: Vec<String> = source.lines_with("k8s_openapi").collect();
        let only_times = |line: &String| line.ends_with("v1::Time;") || line.ends_with("v1::MicroTime;");
        assert!(
            kubernetes.iter().all(only_times),
            "{module} uses more of Kubernetes than its times: {kubernetes:?}"
        );
        for word in [
            "async fn",
            ".await",
            "Timestamp::now",
            "SystemTime::now",
            "Instant::now",
            "std::fs",
            "std::net",
            "std::env",
        ] {
            assert_eq!(source.lines_with(word).next(), None, "{module} is not pure");
        }
    }
}

#[test]
fn work_queue_depends_on_model_alone() {
    uses_only(&["core::work_queue", "core::model"], modules_used_in("core::work_queue"));
    for (module, source) in modules().iter().filter(|(module, _)| is_within(module, "core::work_queue")) {
        for word in ["async fn", ".await", "Instant::now"] {
            assert_eq!(source.lines_with(word).next(), None, "{module} is not pure");
        }
    }
}

/// The program alone has clients. Of `kube`, the API's types need only what derives them.
#[test]
fn core_and_api_have_no_clients() {
    for (manifest, allowed) in [
        ("src/api/Cargo.toml", &["jiff", "serde", "serde_json", "schemars", "kube", "k8s_openapi"][..]),
        (
            "src/core/Cargo.toml",
            &[
                "stream_encryption_api",
                "jiff",
                "serde",
                "serde_json",
                "thiserror",
                "tracing",
                "k8s_openapi",
                "sha2",
            ],
        ),
    ] {
        let manifest = fs::read_to_string(root().join(manifest)).unwrap();
        let used = dependencies(&manifest);
        assert!(used.iter().all(|one| allowed.contains(&one.as_str())), "{used:?}");
        assert!(!manifest.contains("\"client\""), "{manifest}");
    }
}

#[test]
fn aws_does_not_depend_on_kubernetes() {
    let used = crates_used_in("aws");
    assert!(used.iter().any(|(_, name)| name == "aws_sdk_firehose"), "{used:?}");
    let wrong: Vec<_> = used.iter().filter(|(_, name)| name == "kube" || name == "k8s_openapi").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    uses_only(&["aws"], modules_used_in("aws"));
}

#[test]
fn adopt_depends_on_aws_and_iam_alone() {
    uses_only(&["adopt", "aws", "iam"], modules_used_in("adopt"));
    let used = crates_used_in("adopt");
    let wrong: Vec<_> = used.iter().filter(|(_, name)| name == "kube" || name == "clap").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn only_execute_calls_start_and_stop() {
    for call in [".start(", ".stop("] {
        // `aws` implements the port, and the other tests keep decisions out of it.
        let is_port = |module: &str| is_within(module, "aws");
        let callers: Vec<String> = modules()
            .into_iter()
            .filter(|(module, source)| !is_port(module) && source.lines_with(call).next().is_some())
            .map(|(module, _)| module)
            .collect();
        assert_eq!(callers, ["core::controller::execute"], "{call}");
    }
}

/// `tracing` itself gives the text of an event this name, and JSON would have two fields of one name.
#[test]
fn no_log_event_has_a_field_named_message() {
    let is_event = |line: &str| {
        ["trace!(", "debug!(", "info!(", "warn!(", "error!("].iter().any(|event| line.contains(event))
    };
    let mut events = 0;
    for (module, source) in modules() {
        for line in source.lines_with("!(").filter(|line| is_event(line)) {
            events += 1;
            assert!(
                ![",message=", "(message=", ",message,", "(message,", "%message", "?message"]
                    .iter()
                    .any(|field| line.contains(field)),
                "{module}: {line}"
            );
        }
    }
    assert!(events > 50, "the sources are read wrongly");
}

#[test]
fn controller_does_not_depend_on_metrics() {
    let users: BTreeSet<String> = imports()
        .into_iter()
        .filter(|(module, used)| is_within(used, "metrics") && !is_within(module, "metrics"))
        .map(|(module, _)| module)
        .collect();
    assert_eq!(users, ["operator", "operator::aws_events", "operator::dispatcher"].map(str::to_owned).into());
}

/// kube wakes only the last of several tasks that await this future.
#[test]
fn no_module_waits_for_a_store() {
    for (module, source) in modules() {
        assert_eq!(source.lines_with("wait_until_ready").next(), None, "{module} awaits a store");
    }
}

#[test]
fn imports_have_no_cycles() {
    let mut edges: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (from, to) in imports() {
        edges.entry(from).or_default().insert(to);
    }
    assert!(edges.len() > 20, "only {} files import anything: the sources are read wrongly", edges.len());
    let circles: Vec<String> = edges.keys().filter_map(|start| circle(start, &edges)).collect();
    assert!(circles.is_empty(), "these files import each other in a circle:\n{}", circles.join("\n"));
}

/// Returns a shortest import cycle through a file, if that file is the first in the cycle by name.
fn circle(start: &str, edges: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let mut ways = std::collections::VecDeque::from([vec![start.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        for next in edges.get(way.last()?).into_iter().flatten() {
            if next == start {
                let first = way.iter().all(|file| file.as_str() >= start);
                return first.then(|| [way.join(" -> "), start.to_owned()].join(" -> "));
            }
            if seen.insert(next.clone()) {
                ways.push_back([way.clone(), vec![next.clone()]].concat());
            }
        }
    }
    None
}

/// Every Rust file of the repository, with its name and its text.
fn all_files() -> Vec<(String, String)> {
    let folders = ["src", "tests", "examples"].map(|folder| root().join(folder));
    let files = folders.iter().filter(|folder| folder.is_dir()).flat_map(|folder| rust_files(folder));
    let name = |file: &Path| file.strip_prefix(root()).unwrap().display().to_string();
    let files: Vec<_> = files.map(|file| (name(&file), fs::read_to_string(&file).unwrap())).collect();
    assert!(files.len() > 30);
    files
}

#[test]
fn files_have_at_most_500_lines() {
    for (name, text) in all_files() {
        let lines = text.lines().count();
        assert!(lines <= LONGEST, "{name} has {lines} lines");
    }
}

#[test]
fn every_file_starts_with_a_module_comment() {
    for (name, text) in all_files() {
        assert!(text.starts_with("//! "), "{name} does not begin with //!");
    }
}
