//! Third-party emulators to compare with: moto (Firehose, Kinesis, KMS, STS, IAM) and kinesis-local (Kinesis
//! with UPDATING).
//!
//! This module installs each emulator once from its package registry into a cache, starts it on loopback, and
//! ends it with its owner, even if the owner panics or is killed. If Python or node is missing, it prints one
//! line and returns `None`. An emulator must never listen on any other address than 127.0.0.1.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hyper::Method;
use serde_json::Value;

use crate::raw_client::RawClient;

const MOTO: &str = "5.2.5";
const KINESIS_LOCAL: &str = "0.6.2";

/// A running `moto_server`. Its account is 123456789012.
#[derive(Debug)]
pub struct Moto {
    process: Process,
}

impl Moto {
    /// Installs moto on first use, and starts it; `None` if there is no python3.
    pub async fn start() -> anyhow::Result<Option<Moto>> {
        if !exists("python3") {
            println!("no python3: moto is not started, tests against it are skipped");
            return Ok(None);
        }
        let venv = tokio::task::spawn_blocking(install_moto).await??;
        let process = Process::start("/moto-api/", |ports| {
            let mut command = dying_with_us(&venv.join("bin/python"));
            command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", &ports[0].to_string()]);
            command
        })
        .await?;
        Ok(Some(Moto { process }))
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> &str {
        &self.process.url
    }
}

/// A running kinesis-local.
#[derive(Debug)]
pub struct KinesisLocal {
    process: Process,
}

impl KinesisLocal {
    /// Installs kinesis-local on first use, and starts it; `None` if there is no node or npm. `update` is the duration
    /// of UPDATING after Start and Stop, and of CREATING after Create.
    pub async fn start(update: Duration) -> anyhow::Result<Option<KinesisLocal>> {
        if let Some(missing) = ["node", "npm"].into_iter().find(|program| !exists(program)) {
            println!("no {missing}: kinesis-local is not started, tests against it are skipped");
            return Ok(None);
        }
        let folder = tokio::task::spawn_blocking(install_kinesis_local).await??;
        let process = Process::start("/healthcheck", |ports| {
            let package = folder.join("node_modules/kinesis-local");
            let update = format!("{}ms", update.as_millis());
            let mut command = dying_with_us(Path::new("node"));
            command
                .arg("-r")
                .arg(folder.join("bind-loopback.js"))
                .arg(package.join("main.js"))
                .env("KINESIS_MOCK_CERT_PATH", package.join("server.json"))
                .env("KINESIS_MOCK_PLAIN_PORT", ports[0].to_string())
                .env("KINESIS_MOCK_TLS_PORT", ports[1].to_string())
                .env("AWS_ACCOUNT_ID", "123456789012")
                .env("AWS_REGION", "eu-west-1")
                .env("SHARD_LIMIT", "1000")
                .env("LOG_LEVEL", "ERROR")
                .env("CREATE_STREAM_DURATION", &update)
                .env("DELETE_STREAM_DURATION", &update)
                .env("START_STREAM_ENCRYPTION_DURATION", &update)
                .env("STOP_STREAM_ENCRYPTION_DURATION", &update);
            command
        })
        .await?;
        Ok(Some(KinesisLocal { process }))
    }

    /// `http://127.0.0.1:port`.
    pub fn url(&self) -> &str {
        &self.process.url
    }
}

/// A child process and the thread that owns it. Linux sends the death signal when the *thread* that started a
/// child ends. The starting thread therefore lives as long as the child, whichever thread runs the test.
#[derive(Debug)]
struct Process {
    url: String,
    /// Closed on drop, which signals the thread to end the child.
    end: Option<mpsc::Sender<()>>,
    owner: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts the command on free ports and waits until `probe` succeeds. Makes three attempts, because
    /// another program may take a port in the meantime.
    async fn start(probe: &str, command: impl Fn(&[u16; 2]) -> Command) -> anyhow::Result<Process> {
        let mut last = None;
        for _ in 0..3 {
            let ports = free_ports()?;
            let process = Process::own(command(&ports), format!("http://127.0.0.1:{}", ports[0]))?;
            match process.ready(probe).await {
                Ok(()) => return Ok(process),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("not started")))
    }

    fn own(mut command: Command, url: String) -> anyhow::Result<Process> {
        let (end, ended) = mpsc::channel::<()>();
        let (started, outcome) = mpsc::channel();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let shown = format!("{command:?}");
        let owner = std::thread::spawn(move || match command.spawn() {
            Ok(mut child) => {
                let _ = started.send(Ok(()));
                while let Err(mpsc::RecvTimeoutError::Timeout) = ended.recv_timeout(Duration::from_millis(50))
                {
                    if matches!(child.try_wait(), Ok(Some(_))) {
                        return;
                    }
                }
                let _ = child.kill();
                let _ = child.wait();
            }
            Err(error) => {
                let _ = started.send(Err(error));
            }
        });
        outcome.recv()?.with_context(|| format!("cannot start {shown}"))?;
        Ok(Process { url, end: Some(end), owner: Some(owner) })
    }

    async fn ready(&self, probe: &str) -> anyhow::Result<()> {
        let client = RawClient::new(&self.url);
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            if self.owner.as_ref().is_none_or(JoinHandle::is_finished) {
                bail!("the emulator for {} ended at once: delete the cache folder and try again", self.url);
            }
            if client.plain(Method::GET, probe, &Value::Null).await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{}{probe} did not answer within 60 s: delete the cache folder and try again", self.url)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(owner) = self.owner.take() {
            let _ = owner.join();
        }
    }
}

fn free_ports() -> anyhow::Result<[u16; 2]> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}

/// Wraps the program so that the kernel kills it if this process is killed before it can clean up. Without
/// setpriv, the program is not wrapped.
fn dying_with_us(program: &Path) -> Command {
    if !exists("setpriv") {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

fn exists(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Returns `$STREAM_ENCRYPTION_CACHE`, or `stream-encryption-operator` in the user's cache folder.
fn cache() -> anyhow::Result<PathBuf> {
    let set =
        |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let folder = set("STREAM_ENCRYPTION_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("stream-encryption-operator")))
        .or_else(|| Some(set("HOME")?.join(".cache/stream-encryption-operator")))
        .context("no place for the emulators: set STREAM_ENCRYPTION_CACHE to a folder")?;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

fn install_moto() -> anyhow::Result<PathBuf> {
    install(&format!("moto-{MOTO}"), |folder| {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder))?;
        let package = format!("moto[server]=={MOTO}");
        run(Command::new(folder.join("bin/pip")).args(["install", "--quiet", &package]))
    })
}

fn install_kinesis_local() -> anyhow::Result<PathBuf> {
    install(&format!("kinesis-local-{KINESIS_LOCAL}"), |folder| {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("package.json"), "{}")?;
        fs::write(folder.join("bind-loopback.js"), include_str!("emulators/bind-loopback.js"))?;
        let package = format!("kinesis-local@{KINESIS_LOCAL}");
        run(Command::new("npm").args(["install", "--no-audit", "--no-fund", &package]).current_dir(folder))
    })
}

/// Installs into a folder of the cache, once. A lock excludes other processes, and a marker file shows that
/// an installation is complete.
fn install(name: &str, steps: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    let folder = cache.join(name);
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock().context("cannot lock the cache of emulators")?;
    let mark = folder.join("installed");
    if mark.is_file() {
        return Ok(folder);
    }
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    steps(&folder).with_context(|| format!("cannot install {name}: is the package registry reachable?"))?;
    fs::write(mark, "")?;
    Ok(folder)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim())
}
