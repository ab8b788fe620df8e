//! The operator's process, and what Linux says about its memory and CPU time.
//!
//! It starts, reads and ends one process. It must never outlive the benchmark, however that ends: the process
//! ends when its standard input is closed.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use simulated_aws::MACHINE_VARIABLES;
use stream_encryption_api::policy::StreamEncryptionPolicySpec;
use stream_encryption_operator::aws::rate_limit::DEFAULT_RATE_PERCENT;

use crate::scenario::Scenario;
use crate::stage::Stage;

/// Clock ticks per second in `/proc/PID/stat`: `USER_HZ`, which is 100 on every architecture of today.
const TICKS_PER_SECOND: u64 = 100;

/// A running operator. Dropping it ends it.
pub(crate) struct Operator {
    process: Child,
    log: PathBuf,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Resident memory, in kB.
    pub(crate) resident: u64,
    /// The part of it that is no file, such as the heap, in kB.
    pub(crate) anonymous: u64,
    /// The most resident memory since the start or the last [`Operator::reset_peak`], in kB.
    pub(crate) peak: u64,
    /// CPU time since the start, of all threads, in user and system mode.
    pub(crate) cpu: Duration,
}

impl Operator {
    /// Starts the operator with a KUBECONFIG and AWS's standard environment variables: the scenario's program, or
    /// this program again.
    pub(crate) fn start(scenario: &Scenario, stage: &Stage) -> anyhow::Result<Self> {
        let log = stage.account.with_extension("log");
        let program = scenario.operator.clone().map_or_else(std::env::current_exe, Ok)?;
        let drift_interval = scenario.drift_interval().as_secs().to_string();
        let mut command = Command::new(program);
        for name in MACHINE_VARIABLES {
            command.env_remove(name);
        }
        let process = command
            .arg("run")
            .env("KUBECONFIG", &stage.account)
            .env("AWS_ENDPOINT_URL", stage.aws.url())
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
            .env("AWS_SECRET_ACCESS_KEY", "not-a-secret")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("AWS_RATE_PERCENT", DEFAULT_RATE_PERCENT.to_string())
            .env("AWS_REQUEST_LIMITS", scenario.request_limits().to_string())
            .env("DEFAULT_POLICY", serde_json::to_string(&StreamEncryptionPolicySpec::own_account())?)
            .env("DRIFT_INTERVAL_SECONDS", &drift_interval)
            // Without a queue, these two have no effect.
            .env("EVENTS_DRIFT_INTERVAL_SECONDS", &drift_interval)
            .env("EVENTS_QUEUE_URL", stage.queue.as_deref().unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?)
            .spawn()
            .context("failed to start the operator")?;
        Ok(Self { process, log })
    }

    /// Returns what the process has used, or an error if it has ended.
    pub(crate) fn usage(&mut self) -> anyhow::Result<Usage> {
        if let Some(status) = self.process.try_wait()? {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let last = log.lines().last().unwrap_or_default();
            bail!("the operator has ended ({status}); its last line: {last}");
        }
        let read = |file: &str| {
            let path = format!("/proc/{}/{file}", self.process.id());
            fs::read_to_string(&path).with_context(|| format!("failed to read {path}; this needs Linux"))
        };
        let (status, stat) = (read("status")?, read("stat")?);
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|size| size.trim().strip_suffix(" kB")?.parse().ok())
                .context("/proc has no such size")
        };
        // The name of the program in parentheses comes before the numbers. utime and stime are the 14th and 15th
        // fields, the 12th and 13th after the name.
        let (_, numbers) = stat.rsplit_once(") ").context("/proc/PID/stat has no name")?;
        let ticks: u64 =
            numbers.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Usage {
            resident: kilobytes("VmRSS")?,
            anonymous: kilobytes("RssAnon")?,
            peak: kilobytes("VmHWM")?,
            cpu: Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND),
        })
    }

    /// Lets the peak begin anew with the present size.
    pub(crate) fn reset_peak(&self) -> anyhow::Result<()> {
        let path = format!("/proc/{}/clear_refs", self.process.id());
        fs::write(&path, "5").with_context(|| format!("failed to write {path}"))
    }

    /// Copies the log to a file that outlives the cluster, and returns the path of the copy.
    pub(crate) fn keep_log(&self) -> anyhow::Result<PathBuf> {
        let kept = std::env::temp_dir().join("stream-encryption-benchmark.log");
        fs::copy(&self.log, &kept).context("failed to keep the operator's log")?;
        Ok(kept)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Ends this process, the operator, as soon as the benchmark has ended and with it the operator's standard input.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
}
