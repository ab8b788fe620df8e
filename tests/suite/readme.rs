//! The README, `docs/conditions.md`, and what `docs/install.md` says of a start from source: a real API server accepts
//! all their YAML, and every command is run, here or by `.ci/run`. The commands of `docs/simulated-aws.md` are run by the tests of its program.

use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use simulated_aws::world::{PlantedStream, Settings, World};
use simulated_aws::{Clock, SimulatedAws};
use test_cluster::TestCluster;

use crate::harness::{LEDGERS, firehose};
use crate::permissions::{OPERATOR, until_operator_may_read, until_operator_may_write_ledgers};
use crate::process::{OperatorProcess, apply};

const README: &str = include_str!("../../README.md");
const INSTALL: &str = include_str!("../../docs/install.md");
const CONDITIONS: &str = include_str!("../../docs/conditions.md");
const CI: &str = include_str!("../../.ci/run");

/// The fenced blocks of a page in this language.
pub(crate) fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    page.split(opening.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// Compares a file of the repository with what the code makes. With this variable set to 1, writes it.
pub(crate) fn kept(file: &str, made: &str, update: &str, test: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var(update).is_ok_and(|value| value == "1") {
        std::fs::write(&path, made).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == made, "{file} does not match the code; run: {update}=1 cargo test --test suite {test}");
}

pub(crate) fn commands(page: &str) -> Vec<&str> {
    lines(&blocks(page, "sh"))
}

/// The commands of these blocks. A block in a list is indented.
fn lines<'a>(blocks: &[&'a str]) -> Vec<&'a str> {
    blocks.iter().flat_map(|block| block.lines()).map(str::trim).filter(|line| !line.is_empty()).collect()
}

#[test]
fn ci_runs_the_cargo_commands_of_the_readme() {
    let cargo: Vec<&str> =
        commands(README).into_iter().filter(|command| command.starts_with("cargo")).collect();
    assert_eq!(cargo, ["cargo run --example quickstart", "cargo test"]);
    assert!(CI.contains("cargo run --locked --example quickstart") && CI.contains("cargo test --locked"));
}

/// The command that starts the operator builds in release mode, which is too slow here. Its arguments are
/// tested on this build.
#[test]
fn install_page_command_line_is_valid() {
    let [line] = blocks(INSTALL, "sh run")[..] else { panic!("one command starts the operator") };
    let arguments = line.trim().strip_prefix("cargo run --release -- ").expect("by cargo");
    let run = std::process::Command::new(env!("CARGO_BIN_EXE_stream-encryption-operator"))
        .args(arguments.split(' '))
        .env_remove("AWS_REGION")
        .env("KUBECONFIG", "/nowhere")
        .stderr(Stdio::piped())
        .output()
        .expect("it starts");
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(
        error.contains("KUBECONFIG=/nowhere cannot be used"),
        "the arguments are valid, and the kubeconfig is read: {error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn readme_yaml_and_kubectl_commands_work_in_order() {
    // The blocks that the reader runs before a resource: from source here, by Helm in the tests of the packages.
    let install = lines(&blocks(INSTALL, "sh source"));
    assert!(install.len() >= 2, "{install:?}");
    let cluster = TestCluster::start().await.expect("a cluster");
    let second = jiff::SignedDuration::from_secs(1);
    let mut world = World::new(Settings { enabling: second, disabling: second, ..Settings::default() });
    // The reader replaces this name.
    world.plant_stream(PlantedStream { name: "YOUR-STREAM".to_owned(), ..PlantedStream::default() });
    let aws = SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS");
    let established = ["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"];
    for command in install {
        run(&cluster, command).await;
        // The reader types slower than the API server needs to serve a new kind.
        cluster.kubectl(&established).await.expect("established");
    }
    until_operator_may_read(&cluster).await;
    until_operator_may_write_ledgers(&cluster, LEDGERS).await;
    let account = cluster.service_account_kubeconfig(LEDGERS, OPERATOR).await.expect("its account");
    let environment = [
        ("AWS_ENDPOINT_URL", aws.url()),
        ("POD_NAMESPACE", LEDGERS.to_owned()),
        // An operator from source has no default policy, so only the policy that the page installs makes
        // resources Ready.
        ("DEFAULT_POLICY", String::new()),
    ];
    let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
    let all_namespaces = "";
    let _operator = OperatorProcess::start(&account, all_namespaces, &environment);
    let kubectl: Vec<&str> =
        commands(README).into_iter().filter(|command| command.starts_with("kubectl")).collect();
    assert!(kubectl.len() >= 6, "{kubectl:?}");
    for command in kubectl {
        run(&cluster, command).await;
    }

    // The page uses the sample `orders`.
    cluster.kubectl(&["create", "namespace", "data"]).await.expect("the namespace of the page's resources");
    aws.world().plant_stream(PlantedStream::default());
    apply(&cluster, "data", "orders", &json!({"stream": {"arn": firehose("orders")}})).await;
    for command in commands(CONDITIONS) {
        run(&cluster, command).await;
    }

    let yamls = blocks(README, "yaml");
    assert_eq!(yamls.len(), 1);
    for yaml in yamls {
        cluster
            .kubectl_with_input(&["apply", "--dry-run=server", "--validate=strict", "-f", "-"], yaml)
            .await
            .expect("the YAML is accepted");
    }
}

/// Runs a line in the repository as a reader would, with the cluster's own kubectl.
pub(crate) async fn run(cluster: &TestCluster, line: &str) {
    run_in(std::path::Path::new(env!("CARGO_MANIFEST_DIR")), cluster, line).await;
}

/// Runs commands in a folder as a reader would, with the cluster's own kubectl. The first one that fails ends them.
pub(crate) async fn run_in(folder: &std::path::Path, cluster: &TestCluster, commands: &str) {
    let programs = cluster.programs().kubectl.parent().expect("a folder").display().to_string();
    let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
    let done = tokio::process::Command::new("sh")
        .args(["-ec", commands])
        .current_dir(folder)
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("PATH", path)
        .output()
        .await
        .expect("sh");
    assert!(done.status.success(), "{commands}: {}", String::from_utf8_lossy(&done.stderr));
}
