//! Messages of the program at startup, on standard error: which setting is invalid, what is missing, and
//! whether it can work.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::process::{OperatorProcess, Place, eventually, free_address};

/// The binary with only these variables.
fn program(variables: &[(&str, &str)]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_stream-encryption-operator"));
    program.arg("run").env_clear().env("AWS_REGION", "eu-west-1").env("AWS_EC2_METADATA_DISABLED", "true");
    program.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    program
}

fn run(variables: &[(&str, &str)]) -> (Output, String) {
    let output = program(variables).output().expect("it runs");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    (output, words)
}

/// Writes a kubeconfig with this server and this user.
fn write_kubeconfig(path: &Path, server: &str, user: &Value) {
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": server}}],
        "users": [{"name": "x", "user": user}],
    });
    fs::write(path, kubeconfig.to_string()).expect("a file");
}

/// A log file that can be read while the operator runs.
pub(crate) struct Log(std::path::PathBuf);

impl Log {
    pub(crate) fn new() -> (Self, fs::File) {
        let name = format!("started-{}-{}.log", std::process::id(), free_address().port());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let file = fs::File::create(&path).expect("a file");
        (Self(path), file)
    }

    pub(crate) async fn until(&self, words: &str) {
        eventually(words, async || self.text().contains(words)).await;
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        fs::File::open(&self.0).and_then(|mut file| file.read_to_string(&mut text)).expect("text");
        text
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn invalid_settings_end_the_operator_without_a_backtrace() {
    for (variables, words) in [
        ([("POD_NAMESPACE", "default,data"), ("RUST_BACKTRACE", "1")], "must be one namespace"),
        (
            [("WATCH_NAMESPACE", "default,Data"), ("RUST_BACKTRACE", "full")],
            "must be the name of a namespace",
        ),
        ([("WATCH_LABEL_SELECTOR", "shard in a"), ("RUST_BACKTRACE", "1")], "must be a label selector"),
        ([("KUBECONFIG", "/nope/config"), ("RUST_BACKTRACE", "1")], "KUBECONFIG=/nope/config cannot be used"),
        ([("KUBECONFIG", "/nope/config"), ("HTTPS_PROXY", "http://127.0.0.1:1")], "No such file"),
    ] {
        let (output, stderr) = run(&variables);
        assert!(!output.status.success());
        assert!(stderr.contains(words), "{words} is not in {stderr}");
        let error: Vec<&str> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
        assert_eq!(error.len(), 1, "one line is enough: {stderr}");
        assert!(error[0].starts_with("Error: "), "{stderr}");
    }
}

/// clap's own message has several lines, and names no variable.
#[test]
fn setting_that_clap_refuses_is_named_on_one_line() {
    for (variables, flags, line) in [
        (
            &[("LISTEN", ":8080")][..],
            &[][..],
            "Error: --listen (LISTEN) is \":8080\", but must be an address and a port, such as [::]:8080\n",
        ),
        (
            &[("CONCURRENCY", "abc")],
            &[],
            "Error: --concurrency (CONCURRENCY) is \"abc\", but must be a whole number from 1 to 65535\n",
        ),
        (
            &[("AWS_RATE_PERCENT", "300")],
            &[],
            "Error: --aws-rate-percent (AWS_RATE_PERCENT) is \"300\", but must be a whole number from 1 to 100\n",
        ),
        (&[], &["--lisen=[::]:8080"], "Error: unknown argument --lisen; did you mean --listen (LISTEN)?\n"),
    ] {
        let output = program(variables).args(flags).output().expect("it runs");
        assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(2), line));
    }
}

/// Help is for people, so it is printed as for every other command.
#[test]
fn requested_help_of_the_operator_is_no_error() {
    let output = program(&[]).arg("--help").stdout(Stdio::piped()).output().expect("it runs");
    let help = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && help.contains("--listen <LISTEN>"), "{help}");
}

/// Runs the operator until it ends, with a kubeconfig in `folder` that calls a program: a shell, which runs `script` and prints
/// the credential of this status. Returns the exit status and the log.
async fn run_with_program(folder: &Path, script: &str, status: &Value) -> (ExitStatus, String) {
    let version = "client.authentication.k8s.io/v1";
    let credential = json!({"apiVersion": version, "kind": "ExecCredential", "status": status});
    let script = format!("{script}; printf %s '{credential}'");
    let program = json!({
        "apiVersion": version, "command": "/bin/sh", "args": ["-c", script], "interactiveMode": "Never",
    });
    let path = folder.join("kubeconfig");
    write_kubeconfig(&path, "http://127.0.0.1:1", &json!({"exec": program}));
    let (log, file) = Log::new();
    let mut operator = OperatorProcess::logging_to(file, &path, "default", &[]);
    eventually("it ends", async || operator.ended().is_some()).await;
    (operator.ended().expect("it has ended"), log.text())
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_api_server_is_named_with_the_cause() {
    let port = free_address().port();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("unreachable-{port}.kubeconfig"));
    write_kubeconfig(&path, &format!("http://127.0.0.1:{port}"), &json!({}));
    let (log, file) = Log::new();
    let _operator = OperatorProcess::logging_to(file, &path, "default", &[("LOG_FORMAT", "text")]);
    log.until("failed to watch StreamEncryptions").await;
    let text = log.text();
    fs::remove_file(&path).expect("it is there");
    for words in [&format!("http://127.0.0.1:{port}"), "Connection refused"] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    assert!(!text.contains("definitions"), "{text}");
    assert!(!text.contains('\u{1b}'), "colours in a file: {text}");
}

/// In a pod, the kernel would discard a signal that the operator does not handle yet. Here such a signal would kill the operator.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_during_setup_ends_the_operator() {
    let folder = tempfile::tempdir().expect("a folder");
    let sent = folder.path().join("sent");
    // The operator calls the program several times. A second signal would end the operator at once.
    let script = format!("[ -e '{0}' ] || {{ : > '{0}'; kill -TERM $PPID; }}", sent.display());
    let (ended, log) = run_with_program(folder.path(), &script, &json!({"token": "x"})).await;
    assert!(sent.exists(), "the program has run: {log}");
    assert!(ended.success() && log.contains("operator stopped"), "{ended}: {log}");
}

/// The program may wait for a person. Here it ends with the operator.
#[tokio::test(flavor = "multi_thread")]
async fn sigterm_while_a_program_hangs_ends_the_operator() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = "kill -TERM $PPID; while kill -0 $PPID; do sleep 1; done";
    let (ended, log) = run_with_program(folder.path(), script, &json!({"token": "x"})).await;
    assert!(ended.success() && log.contains("operator stopped"), "{ended}: {log}");
    assert!(!log.contains("operator started"), "the program has ended before: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_exits_before_its_certificate_expires() {
    let made = rcgen::generate_simple_self_signed(["operator".to_owned()]).expect("a certificate");
    let status = json!({
        "clientCertificateData": made.cert.pem(), "clientKeyData": made.signing_key.serialize_pem(),
        "expirationTimestamp": (Timestamp::now() + SignedDuration::from_secs(30)).to_string(),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let (ended, log) = run_with_program(folder.path(), ":", &status).await;
    assert_eq!(ended.code(), Some(1), "{log}");
    assert!(
        log.contains("Error: the client certificate from the program in the kubeconfig expires at"),
        "{log}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_definitions_are_reported_with_the_command() {
    let own = test_cluster::TestCluster::start().await.expect("a cluster");
    let (log, file) = Log::new();
    let _operator = OperatorProcess::logging_to(file, own.kubeconfig(), "default", &[]);
    log.until("the definitions are not installed; run `stream-encryption-operator crd").await;
    assert!(!log.text().contains("Failed to parse error data"), "{}", log.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_without_policies_or_namespace_warns() {
    let place = Place::new().await;
    let (log, file) = Log::new();
    let watched = format!("{},not-there-yet", place.namespace);
    let _operator = place.logging_to(file, &[("DEFAULT_POLICY", ""), ("WATCH_NAMESPACE", &watched)]);
    log.until("the watched namespace does not exist").await;
    // Other tests of this cluster create policies, so one may exist. The unit tests of `presence` cover the
    // other case.
    eventually("policies are reported", async || {
        let text = log.text();
        text.contains("no StreamEncryptionPolicy exists") || text.contains("found a StreamEncryptionPolicy")
    })
    .await;
    let reported = |words: &str| {
        let text = log.text();
        text.lines().any(|line| line.contains(words) && line.contains("\"not-there-yet\""))
    };
    assert!(reported("the watched namespace does not exist") && !reported("the watched namespace exists"));
    place.cluster.kubectl(&["create", "namespace", "not-there-yet"]).await.expect("a namespace");
    eventually("the new namespace is reported", async || reported("the watched namespace exists")).await;
}
