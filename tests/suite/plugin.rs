//! The kubectl plugin: the commands of its page print what the page shows, on a real API server, with the operator and a
//! simulated AWS; and 1,000 streams.

mod fleet;
mod planned;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use simulated_aws::world::{PlantedStream, Service};
use simulated_aws::{Clock, MACHINE_VARIABLES, SimulatedAws, samples};
use test_cluster::TestCluster;

use crate::harness::own_cluster;
use crate::permissions::{until_permitted, user_of};
use crate::process::{OperatorProcess, eventually, own_account};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A person's shell: kubectl with the plugin, in a folder with the samples, with AWS credentials.
pub(crate) struct Shell {
    folder: PathBuf,
    kubeconfig: PathBuf,
    kubectl: PathBuf,
    aws: String,
}

impl Shell {
    pub(crate) fn new(cluster: &TestCluster, aws: &SimulatedAws) -> Self {
        let folder = cluster.kubeconfig().with_file_name("shell");
        std::fs::create_dir_all(&folder).expect("a folder");
        let program = env!("CARGO_BIN_EXE_stream-encryption-operator");
        for name in ["kubectl-streamencryption", "kubectl_complete-streamencryption"] {
            symlink(program, folder.join(name)).expect("a link");
        }
        symlink(repository().join("config"), folder.join("config")).expect("a link");
        Self {
            folder,
            kubeconfig: cluster.kubeconfig().to_owned(),
            kubectl: cluster.programs().kubectl.parent().expect("a folder").to_owned(),
            aws: aws.url(),
        }
    }

    fn command(&self, line: &str) -> tokio::process::Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("{}:{}:{path}", self.folder.display(), self.kubectl.display());
        let mut command = tokio::process::Command::new("sh");
        for name in MACHINE_VARIABLES {
            command.env_remove(name);
        }
        command
            .args(["-c", line])
            .current_dir(&self.folder)
            .env("PATH", path)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("AWS_ENDPOINT_URL", &self.aws)
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_REGION", "eu-west-1")
            .kill_on_drop(true);
        command
    }

    /// Runs a line, and returns its exit code, its output, and its errors.
    pub(crate) async fn run(&self, line: &str) -> (i32, String, String) {
        let done = self.command(line).output().await.expect("sh");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (done.status.code().unwrap_or(-1), text(done.stdout), text(done.stderr))
    }

    /// Runs a line that must succeed, and returns its output.
    pub(crate) async fn output(&self, line: &str) -> String {
        let (code, output, errors) = self.run(line).await;
        assert_eq!(code, 0, "{line}: {output}{errors}");
        output
    }

    /// Runs a line that must print JSON.
    pub(crate) async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.output(line).await).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

/// The samples, once every resource has its final state.
async fn samples_installed(cluster: &TestCluster, account: &Path) -> (SimulatedAws, OperatorProcess) {
    let aws = SimulatedAws::start(samples::world(), Clock::Real).await.expect("a simulated AWS");
    let url = aws.url();
    let environment = [
        ("AWS_ENDPOINT_URL", url.as_str()),
        ("POD_NAMESPACE", "stream-encryption-system"),
        ("LEADER_ELECTION", "true"),
        ("POD_NAME", "stream-encryption-operator-7d4b9c6f5-x2x7k"),
    ];
    let config = |path: &str| repository().join("config").join(path).display().to_string();
    // Its pods do not run here, so its status is set.
    cluster.kubectl(&["apply", "--server-side", "-k", &config("operator")]).await.expect("a Deployment");
    let deployment = ["-n", "stream-encryption-system", "deployment", "stream-encryption-operator"];
    let status = json!({"observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2});
    let status = json!({"status": status}).to_string();
    cluster
        .kubectl(
            &[&["patch", "--subresource=status", "--type=merge", "-p", &status], &deployment[..]].concat(),
        )
        .await
        .expect("its status");
    let operator = OperatorProcess::start(account, "", &environment);
    cluster.kubectl(&["apply", "-k", &config("samples")]).await.expect("the samples");
    let reasons = ["get", "strenc", "-n", "data", "-o", "jsonpath={.items[*].status.conditions[0].reason}"];
    eventually("the samples have their final states", async || {
        let reasons = cluster.kubectl(&reasons).await.unwrap_or_default();
        reasons == "KeyDisabled Encrypted Encrypted Encrypted SourceNotDirectPut Encrypted"
    })
    .await;
    (aws, operator)
}

/// Replaces what differs in each run or on each machine: times, ages, ports and the patch version of Kubernetes; and the widths
/// of columns, which depend on them.
fn comparable(output: &str) -> String {
    let patterns = [
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME"),
        (r"\b(in )?(\d+[dhms]){1,2}( ago)?\b", "AGE"),
        (r"127\.0\.0\.1:\d+", "HOST"),
        (r"\bv1\.\d+\.\d+\S*", "VERSION"),
        (r" +", " "),
    ];
    patterns.iter().fold(output.to_owned(), |text, (pattern, word)| {
        regex::Regex::new(pattern).expect("a pattern").replace_all(&text, *word).into_owned()
    })
}

/// The blocks of a page: each command, with the output that follows it. A block with a here document is one command.
fn commands_with_output(page: &str) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for part in page.split("```sh\n").skip(1) {
        let (block, rest) = part.split_once("```").expect("a block ends");
        let output = rest.trim_start().strip_prefix("```text\n").and_then(|text| text.split_once("```"));
        let lines: Vec<&str> =
            if block.contains("<<") { vec![block] } else { block.lines().map(str::trim).collect() };
        for (at, line) in lines.iter().enumerate() {
            let output = output.filter(|_| at + 1 == lines.len()).map(|(text, _)| text.to_owned());
            found.push(((*line).to_owned(), output));
        }
    }
    assert!(!found.is_empty(), "the page is read wrongly");
    found
}

/// Runs each command of a page, and compares its output with what the page shows. With `UPDATE_DOCS=1`, writes it.
async fn run_page(shell: &Shell, name: &str) {
    let path = repository().join(name);
    let mut page = std::fs::read_to_string(&path).expect("the page");
    let update = std::env::var("UPDATE_DOCS").is_ok_and(|value| value == "1");
    for (command, expected) in commands_with_output(&page) {
        let (code, output, errors) = shell.run(&command).await;
        // One sample is in plaintext, because its key is disabled.
        let wanted = if command.contains("--fail-on") { 3 } else { 0 };
        assert_eq!(code, wanted, "{name}: {command}: {output}{errors}");
        let Some(expected) = expected else { continue };
        let output = output.replace(&cluster_url(&output), "https://kubernetes.example.com/");
        if update {
            page = page.replacen(
                &format!("{command}\n```\n\n```text\n{expected}```"),
                &format!("{command}\n```\n\n```text\n{output}```"),
                1,
            );
        } else {
            assert_eq!(comparable(&output), comparable(&expected), "{name}: {command}");
        }
    }
    if update {
        std::fs::write(&path, page).expect("the page is written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_what_their_commands_print() {
    let (cluster, account) = own_cluster(&["data"]).await;
    let (aws, _operator) = samples_installed(&cluster, &account).await;
    let shell = Shell::new(&cluster, &aws);
    readme_output(&shell).await;
    run_page(&shell, "docs/kubectl-plugin.md").await;
    let report = std::fs::read_to_string(shell.folder().join("report.html")).expect("the report");
    assert!(report.contains("deliverystream/payments"));
    exit_codes(&shell).await;
    ledgers_of_another_namespace(&shell).await;
    planned::refusals(&shell).await;
    permissions_of_plan(&cluster, &shell).await;
    surveyed_report(&shell, &aws).await;
    let seen = shell.folder().join("watched");
    let watch = format!("exec kubectl-streamencryption status -n data --watch > {}", seen.display());
    let mut watch = shell.command(&watch).spawn().expect("it starts");
    for page in ["docs/re-key.md", "docs/troubleshooting.md", "docs/tutorial.md"] {
        run_page(&shell, page).await;
    }
    watch.kill().await.expect("it still runs");
    let seen = std::fs::read_to_string(seen).expect("its output");
    let states: Vec<&str> = seen.lines().filter(|line| line.contains("firehose/invoices")).collect();
    let has = |word: &str| states.iter().any(|line| line.contains(word));
    assert!(has("Changing") && has("Encrypted") && has("66666666-"), "each change is printed: {seen}");
}

/// The README shows some lines of what commands print, in their order.
async fn readme_output(shell: &Shell) {
    let readme = std::fs::read_to_string(repository().join("README.md")).expect("the README");
    let mut shown = 0;
    for part in readme.split("$ kubectl ").skip(1) {
        let (command, rest) = part.split_once('\n').expect("a command");
        let lines = rest.split("```").next().unwrap_or_default();
        let printed = comparable(&shell.output(&format!("kubectl {command}")).await);
        let mut printed = printed.lines();
        for line in lines.lines().filter(|line| !["", "…"].contains(&line.trim())) {
            let line = comparable(line);
            assert!(printed.any(|other| other == line), "`kubectl {command}` does not print: {line}");
        }
        shown += 1;
    }
    assert_eq!(shown, 1);
}

/// What the page of the plugin says of exit codes and completion.
async fn exit_codes(shell: &Shell) {
    for (line, code) in [
        ("kubectl streamencryption status -n data --fail-on stalled", 3),
        ("kubectl streamencryption status -n data --fail-on suspended", 0),
        ("kubectl streamencryption status -n data --fail-on nonsense", 2),
        ("kubectl streamencryption status --context nowhere", 1),
        ("kubectl streamencryption explain nothing -n data", 1),
        ("kubectl streamencryption explain $(kubectl get strenc payments -n data -o name) -n data", 0),
        ("kubectl streamencryption explain pods/payments -n data", 2),
        ("kubectl streamencryption report -n data --fail-on-failed-controls", 3),
        ("kubectl streamencryption report -n data --aws", 2),
        ("kubectl streamencryption status -n Data_Team", 2),
        ("kubectl streamencryption plan -f config/samples/04-re-key-to-a-denied-key.yaml --fail-on calls", 3),
        ("kubectl streamencryption plan -f config/namespace", 1),
        ("kubectl streamencryption adopt", 2),
        ("kubectl streamencryption report -A --region eu-west-1", 2),
        ("kubectl streamencryption report -A --service Kinesis", 2),
        ("kubectl streamencryption plan -k streams -R", 2),
        ("kubectl streamencryption plan -f config/samples --region Ireland", 2),
        ("kubectl streamencryption plan -f config/samples --aws-rate-percent 0", 2),
        ("kubectl streamencryption doctor --region Ireland", 2),
        ("kubectl streamencryption doctor --aws-endpoint-url foo", 2),
        ("kubectl streamencryption report -A --aws --region eu-west-1 --aws-rate-percent 150", 2),
    ] {
        let (got, output, errors) = shell.run(line).await;
        assert_eq!(got, code, "{line}: {output}{errors}");
    }
    // As for kubectl, this is a variable that is not set.
    let (_, _, errors) = shell.run("kubectl streamencryption status -n \"$NOT_SET\"").await;
    assert!(errors.contains("in namespace default;"), "{errors}");
    // A pager that is left early is no error, and hides nothing that was found.
    for (verb, code) in [
        ("report -A -o json", 0),
        ("completion bash", 0),
        ("report -A -o json --fail-on-failed-controls", 3),
        ("status -A -o json --fail-on plaintext", 3),
    ] {
        let line =
            format!("(kubectl-streamencryption {verb}; echo \"ended with $?\" >&2) | head -c1 > /dev/null");
        let (_, _, errors) = shell.run(&line).await;
        assert_eq!(errors, format!("ended with {code}\n"), "{verb}");
    }
    let candidates = shell.output("kubectl_complete-streamencryption ex").await;
    assert!(candidates.starts_with("explain\t"), "{candidates}");
    let script = shell.output("kubectl-streamencryption completion bash").await;
    assert!(script.contains("complete "), "{script}");
}

/// The list of a namespace without ledgers is empty and no error. The verbs say that calls are missing.
async fn ledgers_of_another_namespace(shell: &Shell) {
    let elsewhere = "--operator-namespace default";
    for (verb, words) in [
        ("report -n data -o json", "namespace default has no readable StreamLedger for 4 of 4 streams"),
        ("explain payments -n data", "Calls are not shown: namespace default has no StreamLedger"),
    ] {
        let (_, _, errors) = shell.run(&format!("kubectl streamencryption {verb}")).await;
        assert!(!errors.contains("StreamLedger"), "{verb}: {errors}");
        let (code, output, errors) = shell.run(&format!("kubectl streamencryption {verb} {elsewhere}")).await;
        assert!(code == 0 && errors.contains(words), "{verb}: {code}: {output}{errors}");
    }
    let remedies = shell.json(&format!("kubectl-streamencryption doctor -o json {elsewhere}")).await;
    let see = "kubectl streamencryption status -A --only attention,plaintext --operator-namespace default";
    let repeats = |check: &Value| check["remedy"].as_str().is_some_and(|remedy| remedy.contains(see));
    assert!(remedies.as_array().expect("checks").iter().any(repeats), "{remedies}");
}

/// With `--aws`, the report has the streams that nobody manages, and what AWS says now.
async fn surveyed_report(shell: &Shell, aws: &SimulatedAws) {
    let (service, name) = (Service::Kinesis, "forgotten".to_owned());
    let forgotten = aws.world().plant_stream(PlantedStream { service, name, ..PlantedStream::default() });
    let report = shell.json("kubectl streamencryption report -A --aws --region eu-west-1 -o json").await;
    assert_eq!(report["accounts"], json!(["111122223333 in eu-west-1"]));
    let streams = report["streams"].as_array().expect("streams");
    assert_eq!(streams.len(), 7, "six samples, and the forgotten one");
    let found = streams.iter().find(|stream| stream["stream"] == *forgotten).expect("the stream");
    assert!(found["resource"].is_null() && found["state"] == "Plaintext", "{found}");
    assert!(found["controls"].as_array().expect("controls").iter().all(|one| one["result"] == "Failed"));
    // Resources outside of the scope manage their streams nevertheless.
    let default =
        shell.json("kubectl streamencryption report -n default --aws --region eu-west-1 -o json").await;
    let unmanaged =
        default["streams"].as_array().expect("streams").iter().filter(|one| one["managed"] == false);
    let unmanaged: Vec<&str> = unmanaged.filter_map(|stream| stream["stream"].as_str()).collect();
    assert_eq!(unmanaged, [&*forgotten], "{default}");
    // Without AWS's answers, the report is printed, and the exit code is 1.
    let role = "--role-arn arn:aws:iam::444455556666:role/nobody --aws-endpoint-url http://127.0.0.1:9";
    let flags = format!("-A --aws --region eu-west-1 {role} --fail-on-failed-controls");
    let (code, output, errors) = shell.run(&format!("kubectl streamencryption report {flags}")).await;
    assert!(code == 1 && output.contains("This report is incomplete"), "{code}: {output}{errors}");
    assert!(errors.contains("444455556666 in eu-west-1: "), "{errors}");
}

/// A team with the role `edit` can plan once it has the `ClusterRole` of the page.
async fn permissions_of_plan(cluster: &TestCluster, shell: &Shell) {
    let policy = "apiVersion: streamencryption.dev/v1alpha1\nkind: StreamEncryptionPolicy\nmetadata: {name: team}\n\
                  spec: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: data}}, keys: [AWS_OWNED_CMK], \
                  streams: ['arn:aws:firehose:*:own:deliverystream/*']}\n---\n";
    let sample = repository().join("config/samples/01-firehose-aws-owned-key.yaml");
    let sample = std::fs::read_to_string(sample).expect("a sample");
    std::fs::write(shell.folder().join("team.yaml"), format!("{policy}{sample}")).expect("a file");
    shell.output("kubectl create serviceaccount team -n data").await;
    // No controller of this cluster aggregates these to the role `edit`.
    for role in ["system:aggregate-to-view", "stream-encryption-operator-edit"] {
        let binding = role.replace(':', "-");
        let bind = format!("kubectl create rolebinding {binding} -n data --serviceaccount=data:team");
        shell.output(&format!("{bind} --clusterrole={role}")).await;
    }
    let team = user_of("data", "team");
    until_permitted(cluster, &team, "patch streamencryptions", "data").await;
    let kubeconfig = cluster.service_account_kubeconfig("data", "team").await.expect("a kubeconfig");
    let plan = format!(
        "kubectl streamencryption plan -f team.yaml -o json --region eu-west-1 --kubeconfig {}",
        kubeconfig.display()
    );
    // The policies cannot be read, so it is not known what the operator would do.
    let (code, output, errors) = shell.run(&plan).await;
    let unplanned: Value = serde_json::from_str(&output).expect("JSON");
    let message = unplanned[0]["message"].as_str().expect("a message");
    assert!(code == 1 && message.contains("The plan failed"), "{code}: {output}{errors}");
    assert_eq!((&unplanned[0]["unplanned"], &unplanned[0]["refused"]), (&json!(true), &json!(false)));

    let page = std::fs::read_to_string(repository().join("docs/kubectl-plugin.md")).expect("the page");
    let [role] = crate::readme::blocks(&page, "yaml")[..] else { panic!("one ClusterRole") };
    cluster.kubectl_with_input(&["apply", "-f", "-"], role).await.expect("the ClusterRole");
    let bind = "kubectl create clusterrolebinding team --clusterrole=stream-encryption-plan";
    shell.output(&format!("{bind} --serviceaccount=data:team")).await;
    until_permitted(cluster, &team, "list streamencryptionpolicies", "").await;
    // The team may not list Deployments, so it gives the default policy itself.
    let given = format!("{plan} --default-policy '{}'", own_account());
    for (line, is_missing) in [(&plan, true), (&given, false)] {
        let (code, output, errors) = shell.run(line).await;
        assert_eq!(code, 0, "{output}{errors}");
        assert!(errors.contains("The operator's settings are not known"), "{errors}");
        assert_eq!(errors.contains("the plan has no default policy"), is_missing, "{errors}");
    }
    let plan = shell.json(&plan).await;
    assert_eq!((&plan[0]["refused"], &plan[0]["change"]), (&json!(false), &json!("Unchanged")), "{plan}");
}

/// The URL of the API server in an output; it differs in each run.
fn cluster_url(output: &str) -> String {
    let url = output.split_whitespace().find(|word| word.starts_with("https://127.0.0.1:"));
    url.map_or_else(|| "no URL".to_owned(), |url| url.trim_end_matches(',').to_owned())
}
