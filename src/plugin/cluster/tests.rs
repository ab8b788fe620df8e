//! The flags that name a cluster, the commands that repeat them, and what the API server responds.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use kube::core::Status;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;

fn arguments(kubeconfig: Option<&str>, context: Option<&str>) -> ClusterArguments {
    ClusterArguments {
        kubeconfig: kubeconfig.map(PathBuf::from),
        context: context.map(str::to_owned),
        namespace: None,
        operator_namespace: OPERATOR_NAMESPACE.to_owned(),
    }
}

#[test]
fn empty_namespace_is_that_of_the_context_or_default() {
    let namespace = |flag: Option<&str>, of_context: &str| {
        let namespace = flag.map(str::to_owned);
        let given = ClusterArguments { namespace, ..arguments(None, None) };
        // `doctor` checks all namespaces without one, and `adopt` uses `default` without a cluster.
        assert_eq!(given.namespace().unwrap(), flag.filter(|name| !name.is_empty()));
        given.namespace_or(of_context).map_err(|error| error.to_string())
    };
    for none in [None, Some("")] {
        assert_eq!(namespace(none, "team"), Ok("team".to_owned()));
        assert_eq!(namespace(none, ""), Ok(DEFAULT_NAMESPACE.to_owned()));
    }
    for of_context in ["", "team", "Data_Team"] {
        assert_eq!(namespace(Some("data"), of_context), Ok("data".to_owned()));
    }
}

/// A script passes it if its variable is not set.
#[test]
fn empty_flag_of_the_cluster_is_not_given() {
    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        cluster: ClusterArguments,
    }
    let parsed = |words: &[&str]| {
        let words = ["program"].iter().chain(words);
        let program = <Program as clap::Parser>::try_parse_from(words).map_err(|error| error.to_string());
        program.map(|program| (program.cluster.names_a_cluster(), program.cluster.flags()))
    };
    for empty in [&["--context", ""][..], &["--kubeconfig", ""], &["--kubeconfig=", "--context="]] {
        assert_eq!(parsed(empty), Ok((false, String::new())), "{empty:?}");
    }
    let given = parsed(&["--kubeconfig", "prod.yaml", "--context", ""]);
    assert_eq!(given, Ok((true, " --kubeconfig prod.yaml".to_owned())));
}

/// A context may have the namespace of a template that was not filled in.
#[tokio::test]
async fn invalid_namespace_of_the_context_matters_only_if_used() {
    let client = Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let cluster = Cluster {
        client,
        server: String::new(),
        namespace: "${NS}".to_owned(),
        operator_namespace: String::new(),
        flags: String::new(),
        plugin_flags: String::new(),
    };
    let scope = |all_namespaces| {
        ScopeArguments { cluster: arguments(None, None), all_namespaces, selector: None }.scope(&cluster)
    };
    assert!(scope(true).unwrap().namespace.is_none());
    let error = scope(false).unwrap_err().to_string();
    assert!(error.starts_with("the namespace of the kubeconfig's context is"), "{error}");
}

/// An API server that starts, or that has too many requests, refuses some.
#[tokio::test]
async fn refused_request_of_a_command_is_repeated() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let is_ready = Arc::new(AtomicBool::new(false));
    let router = Router::new().fallback(async move || {
        let list = r#"{"apiVersion":"streamencryption.dev/v1alpha1","kind":"StreamLedgerList","metadata":{},"items":[]}"#;
        let is_ready = is_ready.swap(true, Ordering::Relaxed);
        (if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, list)
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let kubeconfig = json!({"current-context": "x", "contexts": [{"name": "x", "context": {"cluster": "x"}}],
        "clusters": [{"name": "x", "cluster": {"server": server}}]});
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let operator_namespace = "operator".to_owned();
    let given = ClusterArguments { operator_namespace, ..arguments(file.to_str(), None) };
    let cluster = given.connect().await.unwrap();
    cluster.has_ledgers().await.unwrap();
}

/// Each of 10,000 resources may have megabytes of them.
#[test]
fn metadata_that_no_verb_reads_is_dropped() {
    for mode in ["Enforce", "OfANewerOperator"] {
        let object = json!({"apiVersion": "streamencryption.dev/v1alpha1", "kind": "StreamEncryption",
            "metadata": {"name": "orders", "namespace": "data", "generation": 2, "labels": {"a": "x"},
                "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": ["a/b", FINALIZER],
                "annotations": {"a": "x", SUSPEND_ANNOTATION: "true"}},
            "spec": {"stream": {"service": "Kinesis", "name": "orders"}, "mode": mode}});
        let found = Found::of(serde_json::from_value(object).unwrap());
        let metadata = match found.resource {
            Ok(resource) => resource.metadata,
            Err(unreadable) => unreadable.object.metadata,
        };
        let kept = json!({"name": "orders", "namespace": "data", "generation": 2,
            "deletionTimestamp": "2026-01-02T00:00:00Z", "finalizers": [FINALIZER],
            "annotations": {SUSPEND_ANNOTATION: "true"}});
        assert_eq!(serde_json::to_value(metadata).unwrap(), kept, "{mode}");
    }
}

#[test]
fn command_to_copy_names_the_cluster_of_the_flags() {
    let flags = arguments(Some("my configs/prod"), Some("prod")).flags();
    assert_eq!(flags, " --kubeconfig 'my configs/prod' --context prod");
    for (sentence, expected) in [
        ("See:  kubectl get strencpol", "See:  kubectl get strencpol --context prod"),
        ("kubectl get strenc -A | grep x", "kubectl get strenc -A --context prod | grep x"),
        (
            "See: kubectl get pods,events -n N; docs/x.md.",
            "See: kubectl get pods,events -n N --context prod; docs/x.md.",
        ),
        ("Run kubectl streamencryption doctor.", "Run kubectl streamencryption doctor --context prod."),
        ("aws kms enable-key", "aws kms enable-key"),
    ] {
        assert_eq!(with_flags(sentence, " --context prod", ""), expected);
        let none = arguments(None, None);
        assert_eq!(with_flags(sentence, &none.flags(), &none.plugin_flags()), sentence);
    }
}

/// kubectl itself does not know the flag.
#[test]
fn command_of_the_plugin_names_the_operators_namespace() {
    let operator_namespace = "encryption".to_owned();
    let given = ClusterArguments { operator_namespace, ..arguments(None, Some("prod")) };
    for (sentence, expected) in [
        (
            "Run kubectl streamencryption doctor.",
            "Run kubectl streamencryption doctor --context prod --operator-namespace encryption.",
        ),
        ("kubectl get strenc -A | grep x", "kubectl get strenc -A --context prod | grep x"),
    ] {
        assert_eq!(with_flags(sentence, &given.flags(), &given.plugin_flags()), expected);
    }
}

#[test]
fn missing_definition_is_not_a_missing_object() {
    let status = |reason: &str| Status::failure("404 page not found", reason).with_code(404);
    let missing = Status {
        details: Some(serde_json::from_value(json!({"name": "orders"})).unwrap()),
        ..status("NotFound")
    };
    let answer = |status: Status| none_if_missing::<()>(Err(kube::Error::Api(status.boxed())));
    assert!(matches!(answer(missing), Ok(None)));
    let error = readable(answer(status("Failed to parse error data")).unwrap_err()).to_string();
    assert!(error.contains("not installed"), "{error}");
}
