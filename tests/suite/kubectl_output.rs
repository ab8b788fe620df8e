//! The output of kubectl for the definitions and samples: no warnings, readable columns, plaintext in
//! `kubectl explain`.

use std::time::{Duration, Instant};

use serde_json::json;
use test_cluster::TestCluster;

use crate::process::apply;

/// A cluster of its own with the definitions. These tests install everything as users do.
async fn installed() -> TestCluster {
    let cluster = TestCluster::start().await.expect("a cluster");
    kubectl(&cluster, &["apply", "--server-side", "--warnings-as-errors", "-k", "config"]).await;
    // kubectl finds a kind only some time after its definition was created.
    let end = Instant::now() + Duration::from_mins(1);
    for kind in ["strenc", "strencpol"] {
        while let Err(error) = cluster.kubectl(&["explain", kind]).await {
            assert!(Instant::now() < end, "{error:#}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    cluster
}

/// Runs kubectl. Arguments that begin with `config` are paths in this repository.
async fn kubectl(cluster: &TestCluster, arguments: &[&str]) -> String {
    let path = |argument: &str| {
        if argument.starts_with("config") {
            format!("{}/{argument}", env!("CARGO_MANIFEST_DIR"))
        } else {
            argument.to_owned()
        }
    };
    let arguments: Vec<String> = arguments.iter().map(|argument| path(argument)).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    cluster.kubectl(&arguments).await.unwrap_or_else(|error| panic!("{error:#}"))
}

/// The first row of a table that kubectl printed, with the heading of each cell.
fn cells(table: &str) -> Vec<(String, String)> {
    let mut lines = table.lines();
    let (headings, row) = (lines.next().expect("headings"), lines.next().expect("a row"));
    // Columns are separated by three spaces or more, and a heading may contain one.
    let begins =
        |at: &usize| !headings[*at..].starts_with(' ') && (*at == 0 || headings[..*at].ends_with("  "));
    let starts: Vec<usize> = (0..headings.len()).filter(begins).collect();
    let cut = |line: &str, at: usize| {
        let next = starts.iter().copied().find(|&start| start > at);
        line.get(at..next.unwrap_or(line.len()).min(line.len())).unwrap_or_default().trim().to_owned()
    };
    starts.iter().map(|&at| (cut(headings, at), cut(row, at))).collect()
}

/// The cell below this heading.
fn cell<'a>(cells: &'a [(String, String)], heading: &str) -> &'a str {
    let found = cells.iter().find(|(name, _)| name == heading);
    &found.unwrap_or_else(|| panic!("no column {heading}: {cells:?}")).1
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_policies_and_samples_apply_without_a_warning() {
    let cluster = installed().await;
    for applied in [
        &["-f", "config/policies"][..],
        &["-k", "config/samples"],
        // Applied after the second sample, to the same resource.
        &["-f", "config/samples/04-re-key-to-a-denied-key.yaml"],
        &["--server-side", "--force-conflicts", "-f", "config/install.yaml"],
    ] {
        kubectl(&cluster, &[&["apply", "--warnings-as-errors"], applied].concat()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wide_columns_show_key_calls_and_readable_times() {
    const KEY: &str = "arn:aws:kms:eu-west-1:111122223333:key/33333333-3333-4333-8333-333333333333";
    let cluster = installed().await;
    let by_name = json!({"stream": {"service": "Kinesis", "name": "orders"}});
    apply(&cluster, "default", "orders", &by_name).await;
    let shown = async |active_key: serde_json::Value| {
        let status = json!({"status": {
            "activeKey": active_key, "calls": {"used": 3, "limit": 20},
            "plaintextSinceTime": "2020-01-01T00:00:00Z", "nextAttemptTime": "2099-01-01T00:00:00Z",
        }});
        let status = status.to_string();
        let patch = ["patch", "strenc/orders", "--subresource=status", "--type=merge", "-p", &status];
        kubectl(&cluster, &patch).await;
        cells(&kubectl(&cluster, &["get", "strenc/orders", "-o", "wide"]).await)
    };
    let row = shown(json!({"type": "CUSTOMER_MANAGED_CMK", "arn": KEY})).await;
    assert_eq!(cell(&row, "KEY"), KEY);
    assert_eq!([cell(&row, "CALLS USED"), cell(&row, "CALLS LIMIT")], ["3", "20"]);
    assert_eq!(cell(&row, "NEXT ATTEMPT"), "2099-01-01T00:00:00Z");
    assert!(cell(&row, "PLAINTEXT SINCE").contains('y'), "an age in years: {row:?}");
    let row = shown(json!({"type": "AWS_OWNED_CMK", "arn": null})).await;
    assert_eq!(cell(&row, "KEY"), "AWS_OWNED_CMK");
    assert_eq!(cell(&shown(json!(null)).await, "KEY"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_states_defaults_and_describes_the_field() {
    let cluster = installed().await;
    for (field, words) in [
        ("strenc.spec.mode", "Default: Enforce."),
        ("strenc.spec.encryption", "Default: Enabled."),
        ("strenc.spec.deletionPolicy", "Default: Retain."),
        ("strenc.spec.suspend", "Default: false."),
        ("strencpol.spec.allowDisable", "Default: false."),
        ("strencpol.spec.maxCallsPerDay", "Default: 20."),
        ("strenc.spec.stream.service", "The service of a stream that is given by name"),
        ("strenc.status.encryptionStatus", "The encryption status as AWS reports it: ENABLING,"),
    ] {
        let explained = kubectl(&cluster, &["explain", field]).await;
        let text = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(words), "{field}: {explained}");
    }
}
