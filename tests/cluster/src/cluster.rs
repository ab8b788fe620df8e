//! [`TestCluster`]: starts etcd and kube-apiserver, and accesses them through kubectl.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, bail, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::credentials;
use crate::folder::Folder;
use crate::patience::Patience;
use crate::port::Port;
use crate::process::Process;
use crate::programs::Programs;

/// A running etcd and kube-apiserver. Dropping it ends them and deletes their data.
#[derive(Debug)]
pub struct TestCluster {
    // Dropped in this order: the API server, its etcd, then their folder.
    apiserver: Mutex<Option<Process>>,
    etcd: Process,
    port: Port,
    programs: Programs,
    admin_token: String,
    authority: String,
    kubeconfig: PathBuf,
    kubeconfig_yaml: String,
    folder: Folder,
}

/// Returns the cluster that all tests of this process share; the first caller starts it. Tests that use it
/// keep to their own namespaces and never stop its API server. It ends with the process.
pub async fn shared() -> anyhow::Result<&'static TestCluster> {
    static SHARED: OnceCell<TestCluster> = OnceCell::const_new();
    SHARED.get_or_try_init(TestCluster::start).await
}

impl TestCluster {
    /// Starts a cluster and returns when its API is ready, after about 3 seconds (plus one build of the
    /// programs, if they are missing).
    ///
    /// # Errors
    /// A program cannot be found, built or started; the error contains the end of its log.
    pub async fn start() -> anyhow::Result<Self> {
        let programs = Programs::find_or_build().await?;
        let folder = Folder::new()?;
        let port = Port::reserve()?;
        let admin_token = credentials::random_token()?;
        credentials::write_service_account_keys(folder.path())?;
        std::fs::write(
            folder.path().join("tokens.csv"),
            format!("{admin_token},admin,admin,\"system:masters\"\n"),
        )?;
        let etcd = start_etcd(&programs, folder.path()).await?;
        let mut cluster = Self {
            apiserver: Mutex::new(None),
            etcd,
            port,
            programs,
            admin_token,
            authority: String::new(),
            kubeconfig: folder.path().join("kubeconfig"),
            kubeconfig_yaml: String::new(),
            folder,
        };
        // kube-apiserver signs its own certificate before it serves; kubectl needs this certificate to check
        // readiness.
        let certificate = cluster.folder.path().join("certificates/apiserver.crt");
        let key = cluster.folder.path().join("certificates/apiserver.key");
        cluster.spawn_apiserver()?;
        let log = cluster.apiserver_log();
        let patience = Patience::new("kube-apiserver has created its certificate", &log);
        while !(certificate.is_file() && key.is_file()) {
            patience.wait(cluster.apiserver_exited()?).await?;
        }
        cluster.authority = credentials::certificate_authority(&std::fs::read_to_string(&certificate)?)?;
        cluster.kubeconfig_yaml = cluster.kubeconfig_for("admin", &cluster.admin_token, "default");
        std::fs::write(&cluster.kubeconfig, &cluster.kubeconfig_yaml)?;
        cluster.wait_until_ready().await?;
        Ok(cluster)
    }

    /// Stops the API server immediately, as a crash would. Connections to its port are refused until it is
    /// started again; etcd keeps the data.
    pub fn stop_apiserver(&self) {
        self.apiserver.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Starts a stopped API server on its old port, with its old certificate, and returns when it is ready.
    pub async fn start_apiserver(&self) -> anyhow::Result<()> {
        self.spawn_apiserver()?;
        self.wait_until_ready().await
    }

    /// Runs kubectl as the administrator and returns its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.kubectl_with_input(arguments, "").await
    }

    /// Runs kubectl as the administrator with `input` as its stdin (`-f -`), and returns its output. To act
    /// as another user, pass `--kubeconfig`.
    pub async fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut child = Command::new(&self.programs.kubectl)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            // The user's own settings and cache must not affect a test.
            .env("KUBECACHEDIR", self.folder.path().join("kubectl-cache"))
            .env("KUBERC", "off")
            // It ends before its garbage is worth a collection.
            .envs([("GOGC", "off"), ("GOMEMLIMIT", "1GiB")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.programs.kubectl.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A kubectl that does not read its input closes the pipe; only its exit status is relevant.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = child.wait_with_output().await?;
        if !output.status.success() {
            bail!("kubectl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs `kubectl apply` with one or more YAML documents.
    pub async fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.kubectl_with_input(&["apply", "-f", "-"], yaml).await
    }

    /// Writes a kubeconfig for an existing `ServiceAccount`, with a token for 24 hours (`TokenRequest` API)
    /// and its namespace as the default namespace. The file exists as long as the cluster.
    pub async fn service_account_kubeconfig(&self, namespace: &str, name: &str) -> anyhow::Result<PathBuf> {
        let token =
            self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration", "24h"]).await?;
        let path = self.folder.path().join(format!("{namespace}.{name}.kubeconfig"));
        std::fs::write(&path, self.kubeconfig_for(name, token.trim(), namespace))?;
        Ok(path)
    }

    /// Returns the path of the administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Returns the content of [`TestCluster::kubeconfig`], which needs no other file.
    pub fn kubeconfig_yaml(&self) -> &str {
        &self.kubeconfig_yaml
    }

    /// Returns the API's address, `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port.number())
    }

    /// Returns the certificate authority of the API, as PEM.
    pub fn ca(&self) -> &str {
        &self.authority
    }

    /// Returns the administrator's bearer token.
    pub fn admin_token(&self) -> &str {
        &self.admin_token
    }

    /// Returns the paths of the programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Returns the folder of the cluster's data, logs (`etcd.log`, `kube-apiserver.log`) and kubeconfigs; it
    /// is deleted with the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the process ids of etcd and, while it runs, kube-apiserver.
    pub fn process_ids(&self) -> Vec<u32> {
        let apiserver = self.apiserver.lock().unwrap_or_else(PoisonError::into_inner);
        apiserver.iter().map(Process::id).chain([self.etcd.id()]).collect()
    }

    fn kubeconfig_for(&self, user: &str, token: &str, namespace: &str) -> String {
        credentials::kubeconfig(&self.url(), &self.authority, user, token, namespace)
    }

    fn spawn_apiserver(&self) -> anyhow::Result<()> {
        let folder = self.folder.path();
        let path = |name: &str| folder.join(name).display().to_string();
        let arguments = [
            format!("--etcd-servers=unix://{}", path("etcd.sock")),
            "--bind-address=127.0.0.1".to_owned(),
            format!("--secure-port={}", self.port.number()),
            // The port is shared with its reservation, see `port`.
            "--permit-port-sharing=true".to_owned(),
            format!("--cert-dir={}", path("certificates")),
            "--authorization-mode=RBAC".to_owned(),
            format!("--token-auth-file={}", path("tokens.csv")),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-key-file={}", path("service-accounts.pub")),
            format!("--service-account-signing-key-file={}", path("service-accounts.key")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            // There are no pods, so the endpoints of the Service `kubernetes` are not needed.
            "--endpoint-reconciler-type=none".to_owned(),
            // Reduces the load and the startup time. The watch cache stays enabled, because it affects what
            // controllers observe.
            "--enable-priority-and-fairness=false".to_owned(),
            "--profiling=false".to_owned(),
        ];
        let mut apiserver = self.apiserver.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(apiserver.is_none(), "the API server runs already: call stop_apiserver first");
        *apiserver = Some(Process::spawn(&self.programs.kube_apiserver, &arguments, &self.apiserver_log())?);
        Ok(())
    }

    fn apiserver_log(&self) -> PathBuf {
        self.folder.path().join("kube-apiserver.log")
    }

    fn apiserver_exited(&self) -> anyhow::Result<Option<ExitStatus>> {
        let mut apiserver = self.apiserver.lock().unwrap_or_else(PoisonError::into_inner);
        apiserver.as_mut().context("the API server was stopped while it started")?.exited()
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let log = self.apiserver_log();
        let patience = Patience::new("kube-apiserver is ready", &log);
        while self.kubectl(&["get", "--raw", "/readyz"]).await.is_err() {
            patience.wait(self.apiserver_exited()?).await?;
        }
        Ok(())
    }
}

async fn start_etcd(programs: &Programs, folder: &Path) -> anyhow::Result<Process> {
    // etcd listens on sockets in our folder, so that no other cluster's API server can reach it. The
    // addresses that it advertises to other members must be host:port, but there are no other members.
    let socket = folder.join("etcd.sock");
    let nobody = "http://127.0.0.1:2380";
    let log = folder.join("etcd.log");
    let arguments = [
        format!("--data-dir={}", folder.join("etcd").display()),
        "--unsafe-no-fsync".to_owned(),
        // 8 GiB: a test writes a thousand objects of 1 MB, each of them more than once.
        "--quota-backend-bytes=8589934592".to_owned(),
        format!("--listen-client-urls=unix://{}", socket.display()),
        format!("--advertise-client-urls={nobody}"),
        format!("--listen-peer-urls=unix://{}", folder.join("etcd-peer.sock").display()),
        format!("--initial-advertise-peer-urls={nobody}"),
        format!("--initial-cluster=default={nobody}"),
    ];
    let mut etcd = Process::spawn(&programs.etcd, &arguments, &log)?;
    let patience = Patience::new("etcd listens", &log);
    while !socket.exists() {
        patience.wait(etcd.exited()?).await?;
    }
    Ok(etcd)
}
