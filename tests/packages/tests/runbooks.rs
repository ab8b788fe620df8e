//! Tests that each runbook begins with commands that list the streams concerned: one of the kubectl plugin, and
//! one of kubectl alone, which the tests run. If no stream is the cause, an explanation precedes the commands.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;

use packages::{path, text};
use serde_json::{Value, json};

use crate::documents::blocks;
use crate::stage::cluster;

/// The values of `--only` of the plugin.
const ONLY: [&str; 6] =
    ["plaintext", "not-ready", "reconciling", "key-unusable", "active-key-unusable", "budget"];
const PLUGIN: &str = "kubectl streamencryption status -A --only ";
const KUBECTL: &str = "kubectl get strenc -A ";

/// Returns the first two commands of each runbook, by the name of its alert.
fn runbooks() -> BTreeMap<String, (String, String)> {
    let entries = fs::read_dir(path("docs/runbooks")).expect("docs/runbooks");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"));
    names
        .map(|file| {
            let page = text(&format!("docs/runbooks/{file}"));
            let [plugin, kubectl] = [0, 1].map(|index| blocks(&page, "sh")[index].trim_end().to_owned());
            let name = file.trim_end_matches(".md").to_owned();
            let without = "Without the [plugin](../kubectl-plugin.md#install-it):";
            let commands = format!("```sh\n{plugin}\n```\n\n{without}\n\n```sh\n{kubectl}\n```\n\n");
            let (before, _) = page.split_once(&commands).unwrap_or_else(|| panic!("{file}: two commands"));
            let explanation = before.strip_prefix(&format!("# {name}\n\n")).expect("a heading");
            assert_eq!(!explanation.is_empty(), plugin.ends_with(" reconciling"), "{file}: {explanation}");
            assert!(!explanation.contains("## "), "{file} begins with the two commands");
            (name, (plugin, kubectl))
        })
        .collect()
}

#[test]
fn runbooks_begin_with_lists_of_streams() {
    let runbooks = runbooks();
    assert!(runbooks.len() > 6);
    for (name, (plugin, kubectl)) in runbooks {
        let only = plugin.strip_prefix(PLUGIN).unwrap_or_else(|| panic!("{name}: {plugin}"));
        assert!(ONLY.contains(&only), "{name}: {only}");
        assert!(kubectl.starts_with(KUBECTL) && !kubectl.contains('\n'), "{name}: {kubectl}");
    }
}

/// Returns a status with these conditions, each a type, a status and a reason, and with other fields.
fn status(conditions: &[[&str; 3]], others: Value) -> Value {
    let conditions: Vec<Value> = conditions
        .iter()
        .map(|[kind, status, reason]| {
            json!({"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"})
        })
        .collect();
    let mut status = others;
    status["conditions"] = conditions.into();
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn runbook_commands_list_the_streams_concerned() {
    const NAMESPACE: &str = "runbooks";
    const EARLY: &str = "2026-01-01T00:00:00Z";
    const LATE: &str = "2026-01-02T00:00:00Z";
    let cluster = cluster().await;
    cluster.kubectl(&["create", "namespace", NAMESPACE]).await.expect("a namespace");
    let ready = ["Ready", "True", "Encrypted"];
    let failure = json!({"attempts": 1, "message": "", "type": "X", "lastFailureTime": EARLY});
    for (name, encryption, status) in [
        ("new", "Enabled", Value::Null),
        ("good", "Enabled", status(&[ready], json!({"calls": {"used": 1, "limit": 20}}))),
        (
            "public",
            "Disabled",
            status(&[["Ready", "True", "EncryptionDisabled"]], json!({"plaintextSinceTime": EARLY})),
        ),
        (
            "waits",
            "Enabled",
            status(
                &[
                    ["Ready", "False", "KeyDisabled"],
                    ["KeyUsable", "False", "KeyDisabled"],
                    ["Reconciling", "True", "KeyDisabled"],
                ],
                json!({"plaintextSinceTime": LATE, "calls": {"used": 5, "limit": 20}, "failure": failure}),
            ),
        ),
        (
            "lost",
            "Enabled",
            status(
                &[["Ready", "False", "KeyDisabled"]],
                json!({"activeKeyUnusableSinceTime": EARLY, "activeKey": {"type": "CUSTOMER_MANAGED_CMK"}}),
            ),
        ),
        (
            "paused",
            "Enabled",
            status(&[["Ready", "False", "Suspended"]], json!({"plaintextSinceTime": EARLY})),
        ),
        ("uncounted", "Enabled", status(&[["Ready", "False", "LedgerInvalid"]], json!({}))),
        ("throttled", "Enabled", status(&[["Ready", "Unknown", "AwsThrottled"]], json!({}))),
    ] {
        let spec = json!({"stream": {"service": "Kinesis", "name": name}, "encryption": encryption});
        let resource = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec});
        cluster.apply(&resource.to_string()).await.expect("a resource");
        if !status.is_null() {
            let patch =
                ["patch", "strenc", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p"];
            let status = json!({"status": status}).to_string();
            cluster.kubectl(&[&patch[..], &[&status]].concat()).await.expect("a status");
        }
    }
    let waiting = ["new", "waits"].as_slice();
    let expected: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("StreamEncryptionPlaintext", ["paused", "waits"].as_slice()),
        ("StreamEncryptionActiveKeyUnusable", &["lost"]),
        ("StreamEncryptionKeysUnusable", &["waits"]),
        ("StreamEncryptionNotReady", &["lost", "new", "throttled", "uncounted", "waits"]),
        ("StreamEncryptionLedgerInvalid", &["uncounted"]),
        ("StreamEncryptionFewCallsLeft", &["good", "waits"]),
        ("StreamEncryptionCallsRefused", &["waits"]),
        ("StreamEncryptionAwsFailing", &["throttled"]),
        ("StreamEncryptionAwsThrottled", &["throttled"]),
        ("StreamEncryptionEventsStopped", waiting),
        ("StreamEncryptionNoLeader", waiting),
        ("StreamEncryptionNotReconciling", waiting),
        ("StreamEncryptionReconcileErrors", waiting),
    ]);
    let runbooks = runbooks();
    assert_eq!(
        runbooks.keys().map(String::as_str).collect::<Vec<_>>(),
        expected.keys().copied().collect::<Vec<_>>()
    );
    for (alert, (_, command)) in runbooks {
        // Other tests have resources in the same cluster.
        let command = command.replace(" -A ", &format!(" -n {NAMESPACE} "));
        let kubectl = cluster.programs().kubectl.display().to_string();
        let done = tokio::process::Command::new("sh")
            .args(["-ec", &command.replacen("kubectl", &format!("'{kubectl}'"), 1)])
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdin(Stdio::null())
            .output()
            .await
            .expect("sh");
        let printed = String::from_utf8_lossy(&done.stdout);
        // Each line has the name after the namespace.
        let names = printed.lines().filter_map(|line| {
            line.split_whitespace().skip_while(|word| *word != NAMESPACE).nth(1).map(str::to_owned)
        });
        let names: Vec<String> = names.collect();
        assert_eq!(names, expected[alert.as_str()], "{alert}: {command}\n{printed}");
    }
}
