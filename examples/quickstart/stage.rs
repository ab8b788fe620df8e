//! The environment: a real API server, a simulated AWS with its streams and keys, and the operator in a
//! separate process.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use simulated_aws::{Clock, MACHINE_VARIABLES, SimulatedAws, samples};
use stream_encryption_operator::plugin;
use test_cluster::TestCluster;

/// The simulated AWS accepts any credentials.
const ACCESS_KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET_KEY: &str = "not-a-secret";
const REGION: &str = "eu-west-1";

/// Everything that the example runs. All of it is stopped when dropped.
pub(crate) struct Stage {
    cluster: TestCluster,
    pub(crate) aws: SimulatedAws,
    client: Client,
    operator: Operator,
}

/// The operator's process, killed when dropped.
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
    /// Starts everything, and installs the operator's definitions and roles.
    pub(crate) async fn set() -> anyhow::Result<Self> {
        let cluster = TestCluster::start().await?;
        let aws = SimulatedAws::start(samples::world(), Clock::Real).await?;
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let config = |path: &str| repository.join("config").join(path).display().to_string();
        cluster.kubectl(&["apply", "--server-side", "-k", &config("")]).await?;
        cluster.kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"]).await?;
        // All streams and keys of the operator's own account.
        cluster.kubectl(&["apply", "-f", &config("policies/own-account.yaml")]).await?;
        let account = cluster
            .service_account_kubeconfig("stream-encryption-system", "stream-encryption-operator")
            .await?;
        let operator = Operator::start(&account, &aws.url())?;
        let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig())?;
        let mut config =
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        // kube would use the machine's proxy, although the API server is on this machine.
        config.proxy_url = None;
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

    /// Writes a file that sets up a shell for people: with kubectl, its plugin, and the credentials of the simulated AWS.
    /// Returns its path.
    pub(crate) fn shell(&self) -> anyhow::Result<PathBuf> {
        let programs = self.kubeconfig().with_file_name("bin");
        std::fs::create_dir_all(&programs)?;
        let kubectl = &self.cluster.programs().kubectl;
        for (program, name) in
            [(kubectl.as_path(), "kubectl"), (&std::env::current_exe()?, plugin::FILE_NAME)]
        {
            std::os::unix::fs::symlink(program, programs.join(name))
                .with_context(|| format!("failed to link {name}"))?;
        }
        let environment = format!(
            "export KUBECONFIG={} PATH=\"{}:$PATH\"\nexport AWS_ENDPOINT_URL={} AWS_REGION={REGION} AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}\n",
            self.kubeconfig().display(),
            programs.display(),
            self.aws_url(),
        );
        let file = self.kubeconfig().with_file_name("env");
        std::fs::write(&file, environment).context("failed to write the shell's environment")?;
        Ok(file)
    }

    /// Runs kubectl.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.cluster.kubectl(arguments).await
    }

    /// Applies a file of `config/samples`.
    pub(crate) async fn apply(&self, sample: &str) -> anyhow::Result<()> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/samples").join(sample);
        self.kubectl(&["apply", "-f", &file.display().to_string()]).await.map(|_| ())
    }

    /// Copies the operator's log to a file that outlives the environment, and returns the path of the copy.
    pub(crate) fn keep_log(&self) -> anyhow::Result<PathBuf> {
        let kept = std::env::temp_dir().join("stream-encryption-quickstart.log");
        std::fs::copy(&self.operator.log, &kept).context("failed to keep the operator's log")?;
        Ok(kept)
    }
}

impl Operator {
    /// Starts this program again, configured by a KUBECONFIG and AWS's standard environment variables.
    fn start(kubeconfig: &Path, aws: &str) -> anyhow::Result<Self> {
        let log = kubeconfig.with_extension("log");
        let mut command = Command::new(std::env::current_exe()?);
        for name in MACHINE_VARIABLES {
            command.env_remove(name);
        }
        let process = command
            .arg("run")
            .env("KUBECONFIG", kubeconfig)
            .env("AWS_ENDPOINT_URL", aws)
            .env("AWS_REGION", REGION)
            .env("AWS_ACCESS_KEY_ID", ACCESS_KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            // Drift is detected while the example runs; the default interval is 10 minutes.
            .env("DRIFT_INTERVAL_SECONDS", "10")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .context("failed to start the operator")?;
        Ok(Self { process, log })
    }
}
