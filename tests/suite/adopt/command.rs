//! The command as a person runs it: the plugin's own process, a real API server, and the simulated AWS with AWS's limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use simulated_aws::world::{
    Calls as _, Fault, KeyState, PlantedKey, PlantedRole, PlantedStream, Rule, Service, Settings, Snapshot,
    Source, StreamKey, World,
};
use simulated_aws::{Clock, SimulatedAws};

use crate::harness::{ACCOUNT, firehose, own_cluster};
use crate::permissions::kubeconfig_of_reader;
use crate::process::{OperatorProcess, Place, apply, eventually, field, until_it_says};
use crate::readme::{commands, kept};

mod earlier_run;

const PAGE: &str = include_str!("../../../docs/adopt.md");
const KEY: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";

/// A person's machine: the plugin under its own name, a home directory, and AWS.
struct Machine {
    folder: tempfile::TempDir,
    url: String,
    kubeconfig: Option<PathBuf>,
    /// The folder of kubectl.
    programs: Option<PathBuf>,
}

impl Machine {
    fn new(aws: &SimulatedAws) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let bin = folder.path().join("bin");
        fs::create_dir(&bin).expect("a folder");
        for name in ["kubectl-streamencryption", "stream-encryption-operator"] {
            std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_stream-encryption-operator"), bin.join(name))
                .expect("a link");
        }
        Self { folder, url: aws.url(), kubeconfig: None, programs: None }
    }

    /// Returns the machine of a person who uses this cluster as an administrator.
    fn with_cluster(aws: &SimulatedAws, cluster: &test_cluster::TestCluster) -> Self {
        let programs = cluster.programs().kubectl.parent().map(Path::to_owned);
        Self { kubeconfig: Some(cluster.kubeconfig().to_owned()), programs, ..Self::new(aws) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns a command line of a shell on the machine.
    fn shell(&self, line: &str) -> Command {
        let mut command = Command::new("sh");
        let paths = [Some(self.path("bin")), self.programs.clone(), Some("/usr/bin:/bin".into())];
        let paths: Vec<String> = paths.iter().flatten().map(|path| path.display().to_string()).collect();
        command
            .args(["-c", line])
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", paths.join(":"))
            .env("HOME", self.path("home"))
            .env("AWS_ENDPOINT_URL", &self.url)
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
            .stdin(Stdio::null());
        if let Some(kubeconfig) = &self.kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command
    }

    /// Runs `adopt` with these flags.
    async fn adopt(&self, flags: &str) -> Output {
        self.run(&format!("kubectl-streamencryption adopt {flags}")).await
    }

    /// Runs a command line, without blocking the servers of the test.
    async fn run(&self, line: &str) -> Output {
        let mut command = self.shell(line);
        tokio::task::spawn_blocking(move || command.output().expect("sh")).await.expect("it ends")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json_of(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Plants the streams of the page: two encrypted ones, three in plaintext, and one that cannot be encrypted.
fn plant(world: &mut World) {
    let key = world.plant_key(PlantedKey { id: KEY.to_owned(), ..PlantedKey::default() });
    world.plant_alias("alias/orders", &key);
    let tags = |tags: &[(&str, &str)]| {
        tags.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let stream =
        |service, name: &str| PlantedStream { service, name: name.to_owned(), ..PlantedStream::default() };
    let enabled = Snapshot::enabled(StreamKey::AwsOwned);
    for planted in [
        PlantedStream { state: enabled, ..stream(Service::Firehose, "audit") },
        PlantedStream {
            tags: tags(&[("aws:cloudformation:stack-name", "shop")]),
            ..stream(Service::Firehose, "Orders_EU")
        },
        PlantedStream { source: Source::KinesisStreamAsSource, ..stream(Service::Firehose, "replica") },
        PlantedStream {
            state: Snapshot::enabled(StreamKey::arn(&key)),
            ..stream(Service::Kinesis, "clicks")
        },
        PlantedStream { tags: tags(&[("ManagedBy", "terraform")]), ..stream(Service::Kinesis, "telemetry") },
    ] {
        world.plant_stream(planted);
    }
}

/// An account that no other test uses: the tests share a cluster, in which any resource may manage a stream.
const OTHER_ACCOUNT: &str = "222233334444";

async fn aws() -> SimulatedAws {
    aws_of(ACCOUNT).await
}

async fn aws_of(account: &str) -> SimulatedAws {
    let mut world = World::new(Settings { account: account.to_owned(), ..Settings::default() });
    plant(&mut world);
    SimulatedAws::start(world, Clock::Real).await.expect("a simulated AWS")
}

/// Returns whether AWS received only requests that read, and throttled none.
fn only_reads(aws: &SimulatedAws) -> bool {
    let world = aws.world();
    let reads = |operation: &str| {
        ["List", "Describe", "GetCallerIdentity", "AssumeRole"].iter().any(|verb| operation.starts_with(verb))
    };
    world.calls().iter().all(|call| {
        reads(&call.operation) && !call.outcome.contains("imit") && !call.outcome.contains("hrottl")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_reported_without_a_cluster() {
    let aws = aws().await;
    let machine = Machine::new(&aws);
    let output = machine.adopt("--region eu-west-1 -o json").await;
    let report = json_of(&output);
    assert_eq!(report["searchedCluster"], false);
    assert!(text(&output.stderr).contains("Did not look for StreamEncryptions: no cluster is configured"));
    let of = |name: &str| {
        let streams = report["streams"].as_array().expect("streams");
        streams
            .iter()
            .find(|stream| stream["name"] == name)
            .unwrap_or_else(|| panic!("{name} is missing"))
            .clone()
    };
    assert_eq!(
        (of("audit")["state"].clone(), of("audit")["activeKey"].clone()),
        (json!("Encrypted"), json!("AWS_OWNED_CMK"))
    );
    assert_eq!(of("clicks")["activeKey"], format!("arn:aws:kms:eu-west-1:111122223333:key/{KEY}"));
    assert_eq!(of("Orders_EU")["managedBy"], "CloudFormation shop");
    assert_eq!(of("telemetry")["managedBy"], "tag ManagedBy=terraform");
    assert!(of("replica")["leftOut"].as_str().expect("a reason").contains("KinesisStreamAsSource"));
    let summary = json!([{
        "account": "111122223333", "region": "eu-west-1", "streams": 5, "encrypted": 2, "plaintext": 2,
        "notEncryptable": 1, "unknown": 0, "managed": 0, "otherTools": {"CloudFormation": 1, "tags": 1}, "toAdopt": 4,
    }]);
    assert_eq!(report["summary"], summary);
    assert!(only_reads(&aws));
    let cache = machine.path("home/.cache/stream-encryption");
    assert_eq!(fs::read_dir(cache).expect("the cache").count(), 0, "the progress file is deleted at the end");
    let csv = machine.adopt("--region eu-west-1 --service Kinesis -o csv").await;
    let csv = text(&csv.stdout);
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert!(csv.starts_with("account,region,service,name,arn,state,"), "{csv}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_accepted_and_lead_to_no_call() {
    let place = Place { aws: aws_of(OTHER_ACCOUNT).await, ..Place::new().await };
    place.aws.world().plant_stream(PlantedStream::default());
    let orders = firehose("orders").replace(ACCOUNT, OTHER_ACCOUNT);
    apply(place.cluster, &place.namespace, "orders", &json!({"stream": {"arn": orders}})).await;
    let machine = Machine::with_cluster(&place.aws, place.cluster);
    let namespace = &place.namespace;
    let flags = format!("--region eu-west-1 -n {namespace} --write adopted");
    let output = machine.adopt(&flags).await;
    let printed = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(printed.contains(&format!("StreamEncryption {namespace}/orders")), "{printed}");
    assert!(!machine.path("adopted/streams/222233334444/eu-west-1/firehose-orders.yaml").exists());
    let again = machine.adopt(&flags).await;
    assert!(text(&again.stdout).contains("Files: 3 unchanged."), "{}", text(&again.stdout));
    let dry_run = machine.run("kubectl apply -k adopted --dry-run=server --validate=strict").await;
    assert!(dry_run.status.success(), "{}", text(&dry_run.stderr));
    let applied = machine.run("kubectl apply -k adopted").await;
    assert!(applied.status.success(), "{}", text(&applied.stderr));

    // Only the written policy allows the streams.
    let _operator: OperatorProcess = place.start(&[("DEFAULT_POLICY", "")]);
    let plaintext = field_names(&place, "telemetry").await;
    for name in ["firehose-audit", "kinesis-clicks"] {
        until_it_says(place.cluster, namespace, name, "Encrypted").await;
    }
    until_it_says(place.cluster, namespace, &plaintext, "Drifted").await;
    assert_eq!(changes(&place.aws), 0);
    // Encrypted streams are right already, so nothing is called for them in the other mode either.
    for name in ["firehose-audit", "kinesis-clicks"] {
        let enforce = r#"{"spec":{"mode":"Enforce"}}"#;
        let patch = ["patch", "strenc", name, "-n", namespace, "--type=merge", "-p", enforce];
        place.cluster.kubectl(&patch).await.expect("patched");
        let generation = "{.status.observedGeneration}";
        let is_seen = async || field(place.cluster, namespace, name, generation).await == "2";
        eventually("the new mode is seen", is_seen).await;
        until_it_says(place.cluster, namespace, name, "Encrypted").await;
    }
    assert_eq!(changes(&place.aws), 0);

    // What is applied now has an owner, and a new stream is added without taking permissions away.
    place.aws.world().plant_stream(PlantedStream { name: "new".to_owned(), ..PlantedStream::default() });
    let output = machine.adopt(&format!("{flags} --overwrite")).await;
    let printed = text(&output.stdout);
    assert!(printed.contains("Manifests for 1 stream are in adopted"), "{printed}");
    let policy = fs::read_to_string(machine.path("adopted/policy.yaml")).expect("the policy");
    for name in ["audit", "new", "clicks"] {
        assert!(policy.contains(&format!("/{name}\n")), "{policy}");
    }
    assert!(!policy.contains("/replica"), "{policy}");
    // The policy of another folder does not take the name of this one, which would replace its streams.
    machine.adopt(&flags.replace("adopted", "other")).await;
    let policy = fs::read_to_string(machine.path("other/policy.yaml")).expect("the policy");
    assert!(policy.contains("-222233334444-eu-west-1-2\n"), "{policy}");
}

/// Returns the name of the resource of a stream.
async fn field_names(place: &Place, stream: &str) -> String {
    let path = "jsonpath={range .items[*]}{.metadata.name} {.spec.stream.arn}{\"\\n\"}{end}";
    let listed =
        place.cluster.kubectl(&["get", "strenc", "-n", &place.namespace, "-o", path]).await.expect("listed");
    let line = listed.lines().find(|line| line.ends_with(&format!("/{stream}"))).expect("a resource");
    line.split(' ').next().expect("a name").to_owned()
}

/// The number of Starts and Stops, except those of the stream `orders`, whose owner asked for them.
fn changes(aws: &SimulatedAws) -> usize {
    let world = aws.world();
    world.calls().iter().filter(|call| call.changes_encryption() && call.target != "orders").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_account_is_reported_and_exits_with_one() {
    let aws = aws().await;
    for (account, external_id) in [("444455556666", "right"), ("777788889999", "another")] {
        let mut world = aws.world();
        world.plant_role(PlantedRole {
            arn: format!("arn:aws:iam::{account}:role/spoke"),
            external_id: Some(external_id.to_owned()),
            ..PlantedRole::default()
        });
        world.plant_stream(PlantedStream {
            account: account.to_owned(),
            name: "orders".to_owned(),
            ..PlantedStream::default()
        });
    }
    let machine = Machine::new(&aws);
    let roles = "--role-arn arn:aws:iam::444455556666:role/spoke,arn:aws:iam::777788889999:role/spoke";
    let flags = format!("--region eu-west-1 {roles} --external-id right --write adopted -n data");
    let output = machine.adopt(&flags).await;
    let (printed, errors) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("777788889999 eu-west-1: sts:AssumeRole failed: AccessDenied"), "{errors}");
    assert!(printed.contains("444455556666   eu-west-1   firehose/orders"), "{printed}");
    let policy = fs::read_to_string(machine.path("adopted/policy.yaml")).expect("the policy");
    assert!(policy.contains("arn: arn:aws:iam::444455556666:role/spoke"), "{policy}");
    assert!(policy.contains("externalID: right"), "{policy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn given_key_is_checked_before_it_is_written() {
    let aws = aws().await;
    let machine = Machine::new(&aws);
    let flags = "--region eu-west-1 --service Kinesis --key alias/orders --write adopted -o json";
    json_of(&machine.adopt(flags).await);
    let manifest = machine.path("adopted/streams/111122223333/eu-west-1/kinesis-telemetry.yaml");
    let manifest = fs::read_to_string(manifest).expect("the manifest");
    assert!(manifest.contains("alias: alias/orders"), "{manifest}");
    let policy = fs::read_to_string(machine.path("adopted/policy.yaml")).expect("the policy");
    let key = format!("arn:aws:kms:eu-west-1:111122223333:key/{KEY}");
    assert!(
        policy.contains("arn:aws:kms:eu-west-1:111122223333:alias/orders") && policy.contains(&key),
        "{policy}"
    );
    aws.world().key_mut(&key).expect("the key").state = KeyState::Disabled;
    let report =
        json_of(&machine.adopt("--region eu-west-1 --service Kinesis --key alias/orders -o json").await);
    let streams = report["streams"].as_array().expect("streams").iter();
    let left_out: Vec<&str> = streams.filter_map(|stream| stream["leftOut"].as_str()).collect();
    assert_eq!(left_out, ["alias/orders cannot encrypt streams in eu-west-1: KeyDisabled"]);
}

/// Without the resources of the cluster, streams that they manage would be adopted a second time.
#[tokio::test(flavor = "multi_thread")]
async fn cluster_out_of_reach_ends_the_run_before_the_survey() {
    let aws = aws().await;
    let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: far\ncontexts: [{name: far, context: {cluster: far, user: me}}]\nclusters: [{name: far, cluster: {server: 'http://127.0.0.1:1'}}]\nusers: [{name: me, user: {}}]\n";
    let machine = Machine::new(&aws);
    std::fs::write(machine.path("far.yaml"), kubeconfig).expect("written");
    let machine = Machine { kubeconfig: Some(machine.path("far.yaml")), ..machine };
    let output = machine.adopt("--region eu-west-1 --write adopted").await;
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let command = "Run the command again, or without a cluster: KUBECONFIG=/dev/null";
    assert!(errors.contains(command), "{errors}");
    assert!(!machine.path("adopted").exists());
    assert!(!aws.world().calls().iter().any(|call| call.operation.starts_with("ListDeliveryStreams")));
    let without =
        machine.run("KUBECONFIG=/dev/null kubectl-streamencryption adopt --region eu-west-1 -o json").await;
    assert_eq!(json_of(&without)["searchedCluster"], false);
}

/// The person has a cluster, and may not know that its kubeconfig is broken.
#[tokio::test(flavor = "multi_thread")]
async fn kubeconfig_that_cannot_be_used_ends_the_run() {
    let aws = aws().await;
    let machine = Machine::new(&aws);
    let line = "kubectl-streamencryption adopt --region eu-west-1 -o json";
    let without = machine.run(line).await;
    assert_eq!(json_of(&without)["searchedCluster"], false, "there is none");
    let default = machine.path("home/.kube");
    std::fs::create_dir_all(&default).expect("a folder");
    let kind = "apiVersion: v1\nkind: Config\n";
    for (kubeconfig, ends_the_run) in [
        (format!("{kind}clusters: []\n"), false),
        (format!("{kind}current-context: gone\n"), true),
        ("clusters: [".to_owned(), true),
    ] {
        std::fs::write(default.join("config"), &kubeconfig).expect("written");
        let output = machine.run(line).await;
        assert_eq!(output.status.success(), !ends_the_run, "{kubeconfig}: {}", text(&output.stderr));
    }
}

/// Whoever may read one namespace only, as most members of teams, must not lose what the team has changed in it.
#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_own_namespace_are_known_to_a_tenant() {
    let place = Place { aws: aws_of("333344445555").await, ..Place::new().await };
    let namespace = &place.namespace;
    let kubeconfig = kubeconfig_of_reader(place.cluster, namespace).await;
    let clicks = "arn:aws:kinesis:eu-west-1:333344445555:stream/clicks";
    apply(place.cluster, namespace, "kinesis-clicks", &json!({"stream": {"arn": clicks}})).await;
    let machine = Machine { kubeconfig: Some(kubeconfig), ..Machine::new(&place.aws) };
    let output = machine.adopt(&format!("--region eu-west-1 -n {namespace} --write adopted -o json")).await;
    let report = json_of(&output);
    assert_eq!((&report["searchedCluster"], &report["searchedNamespace"]), (&json!(false), &json!(true)));
    assert_eq!(report["summary"][0]["managed"], 1);
    let errors = text(&output.stderr);
    let resources = format!("Looked for StreamEncryptions in namespace {namespace} only");
    for words in [resources.as_str(), "Did not look for StreamEncryptionPolicies: "] {
        assert!(errors.contains(words), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_format_reports_the_files_that_differ() {
    let aws = aws().await;
    let machine = Machine::new(&aws);
    let flags = "--region eu-west-1 --write adopted -o json";
    let report = json_of(&machine.adopt(&format!("{flags} --service Kinesis")).await);
    assert_eq!(report["files"]["policy.yaml"], "created");
    let output = machine.adopt(flags).await;
    let report = json_of(&output);
    assert_eq!(report["files"]["policy.yaml"], "different");
    assert_eq!(report["files"]["streams/111122223333/eu-west-1/firehose-audit.yaml"], "created");
    let errors = text(&output.stderr);
    assert!(errors.contains("--overwrite extends them:") && errors.contains("\n  policy.yaml\n"), "{errors}");
}

/// A person may write another key into a manifest; the next run allows it without touching the manifest.
#[tokio::test(flavor = "multi_thread")]
async fn alias_that_a_person_wrote_is_allowed_with_its_key() {
    let aws = aws().await;
    let machine = Machine::new(&aws);
    let flags = "--region eu-west-1 --service Firehose --write adopted -o json";
    json_of(&machine.adopt(flags).await);
    let path = machine.path("adopted/streams/111122223333/eu-west-1/firehose-audit.yaml");
    let written = fs::read_to_string(&path).expect("the manifest");
    let edited = written
        .replace("type: AWS_OWNED_CMK", "type: CUSTOMER_MANAGED_CMK\n    alias: alias/orders")
        .replace("Observe", "Enforce");
    fs::write(&path, &edited).expect("written");
    json_of(&machine.adopt(&format!("{flags} --overwrite")).await);
    assert_eq!(fs::read_to_string(&path).expect("the manifest"), edited);
    let policy = fs::read_to_string(machine.path("adopted/policy.yaml")).expect("the policy");
    let iam = fs::read_to_string(machine.path("adopted/iam/111122223333.json")).expect("the IAM policy");
    assert!(policy.contains(":alias/orders") && policy.contains(KEY) && iam.contains(KEY), "{policy}{iam}");
    fs::write(&path, edited.replace("alias/orders", "alias/gone")).expect("written");
    let output = machine.adopt(flags).await;
    assert!(text(&output.stderr).contains(":alias/gone does not exist"), "{}", text(&output.stderr));
}

/// An account need not have enabled the first region, for example if only those of the roles have.
#[tokio::test(flavor = "multi_thread")]
async fn first_region_without_sts_hides_no_other() {
    let aws = aws().await;
    let refused = Rule {
        operation: Some("GetCallerIdentity".to_owned()),
        times: Some(1),
        ..Rule::always(Fault::AccessDenied)
    };
    aws.world().script(refused);
    let machine = Machine::new(&aws);
    let report = json_of(&machine.adopt("--region eu-central-1,eu-west-1 -o json").await);
    assert_eq!(report["summary"][1]["streams"], 5);
    aws.world().script(Rule {
        operation: Some("GetCallerIdentity".to_owned()),
        ..Rule::always(Fault::AccessDenied)
    });
    let output = machine.adopt("--region eu-central-1,eu-west-1 -o json").await;
    let errors = text(&output.stderr);
    assert!(output.status.code() == Some(1) && errors.contains("your AWS account is not known"), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_run_continues_where_it_was() {
    let aws = aws().await;
    for number in 0..10 {
        aws.world().plant_stream(PlantedStream { name: format!("s-{number}"), ..PlantedStream::default() });
    }
    let machine = Machine::new(&aws);
    let describe = "DescribeDeliveryStream";
    let line =
        "exec kubectl-streamencryption adopt --region eu-west-1 --service Firehose --progress-file progress";
    let mut first =
        machine.shell(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let lines = || fs::read_to_string(machine.path("progress")).unwrap_or_default().lines().count();
    eventually("three streams are described", async || lines() >= 3).await;
    first.kill().expect("killed");
    first.wait().expect("ended");
    let output = machine.run(line).await;
    let errors = text(&output.stderr);
    assert!(
        output.status.success() && errors.contains("streams were described by an earlier run"),
        "{errors}"
    );
    assert!(text(&output.stdout).contains("111122223333   eu-west-1   13 "), "{}", text(&output.stdout));
    // A description whose answer was on its way when the process was killed is requested again; no other is.
    let twice =
        (0..10).filter(|number| aws.world().calls().count(describe, &format!("s-{number}")) > 1).count();
    assert!(twice <= 1, "{twice} streams were described twice");
    assert!(!machine.path("progress").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn adopt_page_commands_print_the_documented_output() {
    let (cluster, _) = own_cluster(&["data"]).await;
    let aws = aws().await;
    let machine = Machine::with_cluster(&aws, &cluster);
    let mut made = String::new();
    let mut printed: Option<String> = None;
    let mut ran = 0;
    for (number, part) in PAGE.split("```").enumerate() {
        made.push_str(if number > 0 { "```" } else { "" });
        let is_block = number % 2 == 1;
        let (kind, content) = part.split_once('\n').unwrap_or_default();
        match (kind, printed.take()) {
            ("sh", _) if is_block => {
                let output = machine.run(content).await;
                assert!(output.status.success(), "{content}: {}", text(&output.stderr));
                printed = Some(text(&output.stdout));
                ran += 1;
                made.push_str(part);
            }
            ("text" | "yaml", Some(shown)) if is_block => {
                made.push_str(&[kind, "\n", shown.as_str()].concat());
            }
            (_, shown) => {
                // The output follows its command directly.
                printed = shown.filter(|_| !is_block && part.trim().is_empty());
                made.push_str(part);
            }
        }
    }
    kept("docs/adopt.md", &made, "UPDATE_DOCS", "adopt");
    assert!(ran >= 4 && commands(PAGE).len() >= ran, "the page's blocks are found");
    assert_eq!(changes(&aws), 0);
}
