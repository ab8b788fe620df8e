//! Tests the guarantees in the documentation of the test cluster.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use test_cluster::TestCluster;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Returns every process with `folder` in its command line: etcd and kube-apiserver, and their watchers.
fn processes_of(folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(&folder))
        .collect()
}

/// Waits until a condition is true, because a killed process does not end instantly.
fn becomes_true(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn nothing_is_left_of(folder: &Path) {
    becomes_true("no process left", || processes_of(folder).is_empty());
    becomes_true("the folder is deleted", || !folder.exists());
}

#[tokio::test]
async fn concurrent_clusters_are_ready_and_isolated() {
    let (one, two) = tokio::join!(TestCluster::start(), TestCluster::start());
    let (one, two) = (one.unwrap(), two.unwrap());
    for cluster in [&one, &two] {
        assert_eq!(cluster.kubectl(&["get", "--raw", "/readyz"]).await.unwrap(), "ok");
    }
    one.kubectl(&["create", "namespace", "only-in-one"]).await.unwrap();
    let error = two.kubectl(&["get", "namespace", "only-in-one"]).await.unwrap_err().to_string();
    assert!(error.contains("NotFound"), "{error}");
    assert_ne!(one.url(), two.url());
    let error = two.kubectl(&["get", "ns", "--server", &one.url()]).await.unwrap_err().to_string();
    assert!(error.contains("certificate signed by unknown authority"), "{error}");
}

#[tokio::test]
async fn service_account_has_only_permissions_of_its_role() {
    let cluster = TestCluster::start().await.unwrap();
    cluster.kubectl(&["create", "namespace", "data"]).await.unwrap();
    cluster.kubectl(&["create", "serviceaccount", "reader", "-n", "data"]).await.unwrap();
    let kubeconfig = cluster.service_account_kubeconfig("data", "reader").await.unwrap();
    let read = ["get", "configmaps", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let error = cluster.kubectl(&read).await.unwrap_err().to_string();
    assert!(error.contains("Forbidden") && error.contains("system:serviceaccount:data:reader"), "{error}");

    cluster
        .apply(
            "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: data}
rules: [{apiGroups: [''], resources: [configmaps], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: data}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: data}]
",
        )
        .await
        .unwrap();
    // The authorizer receives the new role through a watch.
    let start = Instant::now();
    while let Err(error) = cluster.kubectl(&read).await {
        assert!(start.elapsed() < Duration::from_secs(10), "{error}");
    }
    let secrets = ["get", "secrets", "--kubeconfig", kubeconfig.to_str().unwrap()];
    assert!(cluster.kubectl(&secrets).await.unwrap_err().to_string().contains("Forbidden"));
}

#[tokio::test]
async fn api_server_restart_keeps_port_and_data() {
    let cluster = TestCluster::start().await.unwrap();
    cluster.kubectl(&["create", "configmap", "kept", "--from-literal=a=b"]).await.unwrap();
    let (url, processes) = (cluster.url(), cluster.process_ids());
    assert!(cluster.start_apiserver().await.unwrap_err().to_string().contains("runs already"));

    cluster.stop_apiserver();
    let error = cluster.kubectl(&["get", "configmap", "kept"]).await.unwrap_err().to_string();
    assert!(error.contains("refused"), "{error}");

    cluster.start_apiserver().await.unwrap();
    let kept = cluster.kubectl(&["get", "configmap", "kept", "-o", "jsonpath={.data.a}"]).await.unwrap();
    assert_eq!(kept, "b");
    assert_eq!(cluster.url(), url);
    assert_ne!(cluster.process_ids(), processes, "a new API server");
}

#[tokio::test]
async fn dropped_cluster_is_removed_completely() {
    let cluster = TestCluster::start().await.unwrap();
    let (folder, processes) = (cluster.folder().to_owned(), cluster.process_ids());
    let running = |id: &u32| Path::new("/proc").join(id.to_string()).exists();
    assert_eq!(processes.iter().filter(|id| running(id)).count(), 2);
    assert!(processes_of(&folder).len() >= 2);
    drop(cluster);
    assert!(!processes.iter().any(running), "etcd and kube-apiserver end within the drop itself");
    assert!(!folder.exists());
    nothing_is_left_of(&folder);
}

#[tokio::test]
async fn cluster_of_panicking_test_is_removed_completely() {
    let (sender, receiver) = std::sync::mpsc::channel::<PathBuf>();
    let test = tokio::spawn(async move {
        let cluster = TestCluster::start().await.unwrap();
        sender.send(cluster.folder().to_owned()).unwrap();
        panic!("planned");
    });
    assert!(test.await.unwrap_err().is_panic());
    nothing_is_left_of(&receiver.recv().unwrap());
}

#[tokio::test]
async fn cluster_of_killed_process_is_removed_completely() {
    let mut holder = tokio::process::Command::new(env!("CARGO_BIN_EXE_test-cluster"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let kubeconfig = PathBuf::from(lines.next_line().await.unwrap().expect("the path of a kubeconfig"));
    let folder = kubeconfig.parent().unwrap();
    assert!(processes_of(folder).len() >= 2);
    holder.kill().await.unwrap(); // SIGKILL: no destructor runs
    nothing_is_left_of(folder);
}
