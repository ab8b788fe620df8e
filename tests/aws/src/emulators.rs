//! Third-party emulators to compare with: moto (Firehose, Kinesis, KMS, STS, IAM) and kinesis-local (Kinesis
//! with UPDATING).
//!
//! This module installs each emulator once from its package registry into a cache, starts it on loopback, and
//! ends it with its owner, even if the owner panics or is killed. If Python or node is missing, or if the installation
//! fails, it prints why and returns `None`. An emulator must never listen on any other address than 127.0.0.1.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
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
    /// Installs moto on first use, and starts it; `None` if there is no python3, or if moto cannot be installed.
    pub async fn start() -> anyhow::Result<Option<Moto>> {
        if !exists("python3") {
            println!("no python3: moto is not started, tests against it are skipped");
            return Ok(None);
        }
        let Some(venv) = installed("moto", install_moto).await? else { return Ok(None) };
        let process = Process::start("/moto-api/", |ports| {
            let mut command = watched(&venv.join("bin/python"));
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
    /// Installs kinesis-local on first use, and starts it; `None` if there is no node or npm, or if kinesis-local cannot be
    /// installed. `update` is the duration of UPDATING after Start and Stop, and of CREATING after Create.
    pub async fn start(update: Duration) -> anyhow::Result<Option<KinesisLocal>> {
        if let Some(missing) = ["node", "npm"].into_iter().find(|program| !exists(program)) {
            println!("no {missing}: kinesis-local is not started, tests against it are skipped");
            return Ok(None);
        }
        let Some(folder) = installed("kinesis-local", install_kinesis_local).await? else { return Ok(None) };
        let process = Process::start("/healthcheck", |ports| {
            let package = folder.join("node_modules/kinesis-local");
            let update = format!("{}ms", update.as_millis());
            let mut command = watched(Path::new("node"));
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

/// An emulator. It ends when this value is dropped, and when our process ends, whatever the cause (see [`WATCHED`]).
#[derive(Debug)]
struct Process {
    url: String,
    child: Child,
}

/// The shell holds the read end of a pipe whose write end only we hold, and kills the program when the pipe closes. `$$`
/// is the shell's process id even in the subshell, and `exec` gives it to the program.
const WATCHED: &str = r#"exec 3<&0; { read -r _ <&3; kill -KILL $$; } & exec "$@" 3<&- </dev/null"#;

/// Returns a command that runs a program until its stdin is closed.
fn watched(program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", WATCHED, "sh"]).arg(program);
    command
}

impl Process {
    /// Starts the command on free ports and waits until `probe` succeeds. Makes three attempts, because
    /// another program may take a port in the meantime.
    async fn start(probe: &str, command: impl Fn(&[u16; 2]) -> Command) -> anyhow::Result<Process> {
        let mut last = None;
        for _ in 0..3 {
            let ports = free_ports()?;
            let mut command = command(&ports);
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
            let mut process = Process { url: format!("http://127.0.0.1:{}", ports[0]), child };
            match process.ready(probe).await {
                Ok(()) => return Ok(process),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| anyhow::anyhow!("not started")))
    }

    async fn ready(&mut self, probe: &str) -> anyhow::Result<()> {
        let client = RawClient::new(&self.url);
        let deadline = Instant::now() + Duration::from_mins(1);
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
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
        // An error means that the program has already ended. `wait` closes the pipe, which ends the watching subshell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_ports() -> anyhow::Result<[u16; 2]> {
    let (first, second) = (TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?);
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
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

/// Returns the folder of an emulator. `None` if it cannot be installed: neither a Python without venv nor a package registry
/// that cannot be reached is a defect of the operator.
async fn installed(name: &str, install: fn() -> anyhow::Result<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    Ok(match tokio::task::spawn_blocking(install).await? {
        Ok(folder) => Some(folder),
        Err(error) => {
            println!("{name} is not installed, tests against it are skipped: {error:#}");
            None
        }
    })
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
