//! Builds programs from their Go modules into the cache. A lock prevents concurrent builds in two test
//! processes, and an interrupted build leaves no incomplete program.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_lc_rs::digest;
use tokio::process::Command;
use tokio::time::{self, Instant};

use super::{cache, hex, version};

/// The module with the go.mod and go.sum that pin every dependency by its hash.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/kubernetes");

/// The interval at which a running build prints its progress.
const PROGRESS: Duration = Duration::from_secs(15);

/// Builds a program into `cache`. The caller holds the lock of `cache`.
pub(super) async fn build(cache: &Path, name: &str) -> anyhow::Result<()> {
    let instead = "no etcd and Kubernetes to test with; a folder that holds etcd, kube-apiserver and kubectl will do, too: \
                   set KUBEBUILDER_ASSETS to it";
    let kubernetes = version("k8s.io/kubernetes")?;
    let (package, version, duration) = match name {
        "etcd" => {
            ("go.etcd.io/etcd/server/v3".to_owned(), version("go.etcd.io/etcd/server/v3")?, "10 seconds")
        }
        "kube-apiserver" => (format!("k8s.io/kubernetes/cmd/{name}"), kubernetes, "5 minutes"),
        _ => (format!("k8s.io/kubernetes/cmd/{name}"), kubernetes, "1 minute"),
    };
    say(&format!("building {name} {version}, once, about {duration} …"));
    go_build(Path::new(MODULE), &package, "", &ldflags(kubernetes), &cache.join(name)).await.context(instead)
}

/// Builds `package` of the Go module in the folder `module` as the program `name`, unless the cache contains
/// it from the same sources. The module's go.mod and go.sum pin all dependencies.
pub async fn build_go_program(module: &Path, package: &str, name: &str) -> anyhow::Result<PathBuf> {
    build_go_program_with_tags(module, package, name, "").await
}

/// Runs [`build_go_program`] with build tags, as in `go build -tags`. A program of a module always has the
/// same tags.
pub async fn build_go_program_with_tags(
    module: &Path,
    package: &str,
    name: &str,
    tags: &str,
) -> anyhow::Result<PathBuf> {
    let folder = cache()?.join(format!("{name}-{}", fingerprint(module)?));
    let program = folder.join(name);
    if program.is_file() {
        return Ok(program);
    }
    let _lock = lock(&folder).await?;
    if !program.is_file() {
        say(&format!("building {name}, once …"));
        go_build(module, package, tags, "-s -w", &program).await?;
    }
    Ok(program)
}

/// Returns a hash of go.mod, go.sum and the Go files in a module's own folder.
fn fingerprint(module: &Path) -> anyhow::Result<String> {
    let mut names: Vec<_> =
        fs::read_dir(module).and_then(Iterator::collect).with_context(|| module.display().to_string())?;
    names.retain(|entry: &fs::DirEntry| {
        let path = entry.path();
        path.extension().is_some_and(|extension| ["go", "mod", "sum"].iter().any(|known| extension == *known))
    });
    names.sort_by_key(fs::DirEntry::file_name);
    let mut context = digest::Context::new(&digest::SHA256);
    for entry in names {
        context.update(entry.file_name().as_encoded_bytes());
        context.update(digest::digest(&digest::SHA256, &fs::read(entry.path())?).as_ref());
    }
    Ok(hex(&context.finish().as_ref()[..8]))
}

/// Acquires the lock of a folder of the cache. The operating system releases it when the process ends.
pub(super) async fn lock(folder: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make the cache {}", folder.display()))?;
    let lock = File::create(folder.join(".lock"))?;
    if lock.try_lock().is_err() {
        say("waiting for another process that builds or downloads the same …");
    }
    Ok(tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??)
}

/// Builds one program, and prints its progress every 15 seconds.
async fn go_build(
    module: &Path,
    package: &str,
    tags: &str,
    ldflags: &str,
    program: &Path,
) -> anyhow::Result<()> {
    let (Some(folder), Some(name)) = (program.parent(), program.file_name().and_then(|name| name.to_str()))
    else {
        bail!("{} names no program", program.display());
    };
    let work = tempfile::Builder::new().prefix(".building-").tempdir_in(folder)?;
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-trimpath", "-tags", tags, "-ldflags", ldflags])
        .arg("-o")
        .arg(work.path().join(name))
        .arg(package)
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let start = Instant::now();
    let output = go.output();
    tokio::pin!(output);
    let output = loop {
        match time::timeout(PROGRESS, &mut output).await {
            Ok(output) => {
                break output.context("cannot run `go build`: install Go from https://go.dev/dl")?;
            }
            Err(_) => say(&format!("building {name}: {} s", start.elapsed().as_secs())),
        }
    };
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("cannot build {name} with Go (does it reach its module proxy?):\n{words}");
    }
    // A rename within one file system is atomic: a reader finds either no program or a complete one.
    fs::rename(work.path().join(name), program)?;
    say(&format!("built {name} in {} s", start.elapsed().as_secs()));
    Ok(())
}

/// Prints a line past the test harness, which withholds the output of `eprintln!` until a test has failed. A
/// failure to print is ignored.
pub(super) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Returns the linker flags that set the programs' version; without them, `kubectl version` and the API
/// server's /version report v0.0.0.
fn ldflags(kubernetes: &str) -> String {
    let minor = kubernetes.split('.').nth(1).unwrap_or_default();
    let package = "k8s.io/component-base/version";
    format!(
        "-s -w -X {package}.gitVersion=v{kubernetes} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_sources_have_different_fingerprints() {
        let module = tempfile::tempdir().unwrap();
        fs::write(module.path().join("main.go"), "package main").unwrap();
        let one = fingerprint(module.path()).unwrap();
        fs::write(module.path().join("README.md"), "not built").unwrap();
        assert_eq!(fingerprint(module.path()).unwrap(), one);
        fs::write(module.path().join("go.sum"), "").unwrap();
        let other = fingerprint(module.path()).unwrap();
        assert_ne!(other, one);
        assert_eq!(other.len(), 16);
    }
}
