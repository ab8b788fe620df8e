//! The stage: a real API server, a simulated AWS with its streams and keys, and the operator as a process of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use simulated_aws::{Clock, SimulatedAws, samples};
use stream_encryption_operator::api::policy::StreamEncryptionPolicySpec;
use test_cluster::TestCluster;

/// Everything that runs. Dropping it ends it all.
pub(crate) struct Stage {
    cluster: TestCluster,
    pub(crate) aws: SimulatedAws,
    client: Client,
    operator: Operator,
}

/// The operator's process, ended when dropped.
struct Operator {
    process: Child,
    log: PathBuf,
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Stage {
    /// Starts everything and installs the operator's definitions and roles.
    pub(crate) async fn set() -> anyhow::Result<Self> {
        let cluster = TestCluster::start().await?;
        let aws = SimulatedAws::start(samples::world(), Clock::Real).await?;
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        for folder in ["config"] {
            let folder = repository.join(folder);
            cluster.kubectl(&["apply", "--server-side", "-k", &folder.display().to_string()]).await?;
        }
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
        let account = cluster
            .service_account_kubeconfig("stream-encryption-system", "stream-encryption-operator")
            .await?;
        let operator = Operator::start(&account, &aws.url())?;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self { client: Client::try_from(config)?, cluster, aws, operator })
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        self.cluster.kubeconfig()
    }

    pub(crate) fn aws_url(&self) -> String {
        self.aws.url()
    }

    /// What a user would type.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.cluster.kubectl(arguments).await
    }

    /// Applies a file of `config/samples`.
    pub(crate) async fn apply(&self, sample: &str) -> anyhow::Result<()> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/samples").join(sample);
        self.kubectl(&["apply", "-f", &file.display().to_string()]).await.map(|_| ())
    }

    /// Where the operator's log lies, so that it can be read after the end.
    pub(crate) fn keep_log(&self) -> anyhow::Result<PathBuf> {
        let kept = std::env::temp_dir().join("stream-encryption-quickstart.log");
        std::fs::copy(&self.operator.log, &kept).context("the operator's log could not be kept")?;
        Ok(kept)
    }
}

impl Operator {
    /// This program started again, with nothing but a KUBECONFIG and AWS's standard environment.
    fn start(kubeconfig: &Path, aws: &str) -> anyhow::Result<Self> {
        let log = kubeconfig.with_extension("log");
        let process = Command::new(std::env::current_exe()?)
            .arg("run")
            .env("KUBECONFIG", kubeconfig)
            .env("AWS_ENDPOINT_URL", aws)
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
            // What the chart's default policy says: all streams and keys of the own account.
            .env("DEFAULT_POLICY", serde_json::to_string(&StreamEncryptionPolicySpec::own_account())?)
            // So that a change made behind our back is seen while somebody watches; 10 minutes is the default.
            .env("DRIFT_INTERVAL_SECONDS", "10")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("the operator could not be started")?;
        Ok(Self { process, log })
    }
}
