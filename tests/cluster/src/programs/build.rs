//! Builds the programs from their Go modules into the cache. Two test processes do not build at once, and a build that is
//! interrupted leaves no half-written program.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tokio::process::Command;
use tokio::time::{self, Instant};

use super::{GO_MOD, version};

/// go.mod and go.sum, which pin every module by its hash.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes");

/// How often a running build says so.
const PROGRESS: Duration = Duration::from_secs(15);

/// Builds those of `names` that `cache` does not hold by the time that we have its lock.
pub(super) async fn build(cache: &Path, names: &[&str]) -> anyhow::Result<()> {
    check_go().await?;
    std::fs::create_dir_all(cache).with_context(|| format!("cannot make the cache {}", cache.display()))?;
    let lock = File::create(cache.join(".lock"))?;
    if lock.try_lock().is_err() {
        say("waiting for another process that builds etcd and Kubernetes …");
    }
    // Held until this function returns; the system lets go of it where the process dies.
    let _lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    for name in names {
        if !cache.join(name).is_file() {
            build_one(cache, name).await?;
        }
    }
    Ok(())
}

async fn build_one(cache: &Path, name: &str) -> anyhow::Result<()> {
    let kubernetes = version("k8s.io/kubernetes")?;
    let (package, version, duration) = match name {
        "etcd" => {
            ("go.etcd.io/etcd/server/v3".to_owned(), version("go.etcd.io/etcd/server/v3")?, "10 seconds")
        }
        "kube-apiserver" => (format!("k8s.io/kubernetes/cmd/{name}"), kubernetes, "5 minutes"),
        _ => (format!("k8s.io/kubernetes/cmd/{name}"), kubernetes, "1 minute"),
    };
    say(&format!("building {name} {version}, once, about {duration} …"));
    let work = tempfile::Builder::new().prefix(".building-").tempdir_in(cache)?;
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-trimpath", "-ldflags", &ldflags(kubernetes)])
        .arg("-o")
        .arg(work.path().join(name))
        .arg(&package)
        .current_dir(MODULE)
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let start = Instant::now();
    let output = go.output();
    tokio::pin!(output);
    let output = loop {
        match time::timeout(PROGRESS, &mut output).await {
            Ok(output) => break output.context("cannot run `go build`")?,
            Err(_) => say(&format!("building {name}: {} s", start.elapsed().as_secs())),
        }
    };
    if !output.status.success() {
        bail!(
            "cannot build {name} {version} with Go (does it reach its module proxy? else put etcd, kube-apiserver and kubectl \
             into a folder and set KUBEBUILDER_ASSETS to it):\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    // Within one file system, hence atomic: whoever looks sees no program or a whole one.
    std::fs::rename(work.path().join(name), cache.join(name))?;
    say(&format!("built {name} {version} in {} s", start.elapsed().as_secs()));
    Ok(())
}

/// Past the test harness, which holds back what `eprintln!` prints until a test has failed. Progress that nobody can read is no
/// reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Makes the programs report their version; without it `kubectl version` and the API server's /version say v0.0.0.
fn ldflags(kubernetes: &str) -> String {
    let minor = kubernetes.split('.').nth(1).unwrap_or_default();
    let package = "k8s.io/component-base/version";
    format!(
        "-s -w -X {package}.gitVersion=v{kubernetes} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
    )
}

/// Go is there and as new as go.mod asks. A Go since 1.21 that is older than that downloads the newer one by itself, unless
/// it is told not to: then `go version` fails in this folder, and says so.
async fn check_go() -> anyhow::Result<()> {
    let wanted =
        GO_MOD.lines().find_map(|line| line.strip_prefix("go ")).context("go.mod names no version of Go")?;
    let install = format!(
        "Go {wanted} or newer is needed to build etcd and Kubernetes for the tests: install it from https://go.dev/dl, or set \
         KUBEBUILDER_ASSETS to a folder that holds etcd, kube-apiserver and kubectl"
    );
    let output = match Command::new("go").arg("version").current_dir(MODULE).output().await {
        Err(error) if error.kind() == ErrorKind::NotFound => bail!("{install}. There is no `go` in PATH"),
        output => output.context("cannot run `go version`")?,
    };
    ensure!(output.status.success(), "{install}. {}", String::from_utf8_lossy(&output.stderr).trim());
    let found = String::from_utf8_lossy(&output.stdout);
    ensure!(minor(go_version(&found)) >= minor(wanted), "{install}. Found: {}", found.trim());
    Ok(())
}

/// `1.26.8` of `go version go1.26.8 linux/amd64`.
fn go_version(output: &str) -> &str {
    output
        .split_whitespace()
        .find_map(|word| word.strip_prefix("go1.").map(|_| &word[2..]))
        .unwrap_or_default()
}

/// 26 of 1.26.8 or 1.26rc1.
fn minor(version: &str) -> Option<u32> {
    let rest = version.strip_prefix("1.")?;
    rest.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_go_is_read_from_what_it_prints() {
        assert_eq!(go_version("go version go1.26.8 linux/amd64\n"), "1.26.8");
        assert_eq!(minor("1.26rc1"), Some(26));
        assert!(minor("1.9.7") < minor("1.25.0"), "by number, not by letter");
        assert!(minor(go_version("no such thing")) < minor("1.25.0"));
    }
}
