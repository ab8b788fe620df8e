//! Argo CD on the node: its application controller, its repository server and Redis, as plain processes.

use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use serde_json::json;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::commands::{apply, eventually, kubectl, state, try_kubectl};

/// The name of the program in the node's program folder.
pub const PROGRAM: &str = "argocd";
/// The name of the folder of Argo CD's CRDs there.
pub const DEFINITIONS: &str = "argocd-definitions";
/// Interval at which Argo CD compares every application again, in seconds; the default in a cluster is 120.
pub const RESYNC: u64 = 2;

/// A running Argo CD. Dropping it ends its processes.
pub struct ArgoCd {
    _folder: TempDir,
    _processes: [Child; 3],
}

impl ArgoCd {
    /// Starts Argo CD, with the health check and the actions that `docs/gitops.md` describes.
    pub async fn start() -> Self {
        kubectl("delete --ignore-not-found --wait namespace argocd").await;
        let definitions = state().join("programs").join(DEFINITIONS);
        kubectl(&format!("apply --server-side -f {}", definitions.display())).await;
        let kinds = ["get", "applications,applicationsets,appprojects", "-A"];
        eventually("its kinds are served", 30, async || try_kubectl(&kinds, "").await.is_ok()).await;
        let labels = json!({"app.kubernetes.io/part-of": "argocd"});
        let map = |kind: &str, name: &str| {
            let metadata = json!({"name": name, "namespace": "argocd", "labels": labels});
            json!({"apiVersion": "v1", "kind": kind, "metadata": metadata})
        };
        let mut secret = map("Secret", "argocd-secret");
        secret["stringData"] = json!({"server.secretkey": "not-a-secret"});
        apply(&json!({"apiVersion": "v1", "kind": "List", "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}},
            map("ConfigMap", "argocd-cm"),
            map("ConfigMap", "argocd-rbac-cm"),
            secret,
            {"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "default", "namespace": "argocd"},
             "spec": {
                "sourceRepos": ["*"],
                "destinations": [{"namespace": "*", "server": "*"}],
                "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
             }},
        ]}))
        .await;
        kubectl("apply --server-side --field-manager=stream-encryption -f config/argocd/argocd-cm.yaml")
            .await;

        let folder = tempfile::tempdir().expect("a folder");
        let redis = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", "6379"];
        let server = [
            ["--address", "127.0.0.1"],
            ["--port", "8081"],
            ["--redis", "127.0.0.1:6379"],
            ["--metrics-address", "127.0.0.1"],
            ["--client-ca-path", ""],
            ["--disable-tls", "--default-cache-expiration=24h"],
        ];
        let resync = RESYNC.to_string();
        let controller = [
            ["--redis", "127.0.0.1:6379"],
            ["--repo-server", "127.0.0.1:8081"],
            ["--namespace", "argocd"],
            ["--metrics-port", "18082"],
            ["--app-resync", resync.as_str()],
            ["--repo-server-plaintext", "--app-resync-jitter=0"],
        ];
        let processes = [
            start(folder.path(), "redis-server", "redis-server", &redis),
            start(folder.path(), "argocd-repo-server", PROGRAM, server.as_flattened()),
            start(folder.path(), "argocd-application-controller", PROGRAM, controller.as_flattened()),
        ];
        Self { _folder: folder, _processes: processes }
    }

    /// Returns one field of an application, by kubectl's jsonpath; empty while the field does not exist.
    pub async fn field(&self, application: &str, path: &str) -> String {
        let path = format!("jsonpath={path}");
        try_kubectl(&["get", "application", application, "-n", "argocd", "-o", &path], "")
            .await
            .unwrap_or_default()
    }

    /// Returns the sync and health status of an application, for example `Synced Healthy`.
    pub async fn says(&self, application: &str) -> String {
        self.field(application, "{.status.sync.status} {.status.health.status}").await
    }

    /// Waits until an application has this status.
    pub async fn until(&self, application: &str, says: &str, seconds: u64) {
        eventually(&format!("{application} is {says}"), seconds, async || {
            self.says(application).await == says
        })
        .await;
    }
}

/// Starts one of its processes, which are one program with several names.
fn start(folder: &Path, name: &str, program: &str, arguments: &[&str]) -> Child {
    let path = std::env::var("PATH").unwrap_or_default();
    for own in ["tls", "ssh", "gpg", "tmp"] {
        fs::create_dir_all(folder.join(own)).expect("a folder");
    }
    let log = File::create(state().join(format!("{name}.log"))).expect("a log");
    Command::new(program)
        .args(arguments)
        .env("PATH", format!("{}:{path}", state().join("programs").display()))
        .env("ARGOCD_BINARY_NAME", name)
        .env("ARGOCD_FAKE_IN_CLUSTER", "true")
        .env("ARGOCD_GPG_ENABLED", "false")
        .env("ARGOCD_TLS_DATA_PATH", folder.join("tls"))
        .env("ARGOCD_SSH_DATA_PATH", folder.join("ssh"))
        .env("ARGOCD_GNUPGHOME", folder.join("gpg"))
        .env("TMPDIR", folder.join("tmp"))
        .env("HOME", folder)
        // The user who runs the tests owns their repositories.
        .envs([
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log"))
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}
