//! Downloads etcd, kube-apiserver and kubectl with `setup-envtest`, the tool of Kubernetes' own projects: the archives
//! that kubernetes-sigs/controller-tools releases. The tool compares each archive with the hash in the index. A failure
//! costs seconds; a build with Go follows.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::process::Command;
use tokio::time;

use super::build::{build_go_program, say};
use super::file;

/// The programs that an archive has.
pub(super) const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// The URL of another index, such as a mirror's. Empty: nothing is downloaded.
const VARIABLE: &str = "STREAM_ENCRYPTION_ENVTEST_INDEX";
const INDEX: &str =
    "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml";

/// The module that pins the tool.
const MODULE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/setup-envtest");
const TOOL: &str = "sigs.k8s.io/controller-runtime/tools/setup-envtest";

/// Limits the reading of the index. It is short, because many machines reach no such server.
const PATIENCE: Duration = Duration::from_secs(5);
/// Limits the download of an archive of 60 MB.
const LIMIT: Duration = Duration::from_mins(5);

/// Returns the URL of the index that the environment names, or `None` if it disables downloads.
pub(super) fn index() -> Option<String> {
    Some(env::var(VARIABLE).unwrap_or_else(|_| INDEX.to_owned())).filter(|index| !index.is_empty())
}

/// Returns the tool, built once.
pub(super) async fn tool() -> anyhow::Result<PathBuf> {
    build_go_program(Path::new(MODULE), TOOL, "setup-envtest").await
}

/// Downloads the newest release of a minor version, such as `1.35`, into the folder `to`. The caller holds the lock of
/// `work`, a folder of the same file system for temporary files.
pub(super) async fn download(index: &str, minor: &str, to: &Path, work: &Path) -> anyhow::Result<()> {
    let tool = tool().await?;
    // The name is fixed and the lock is held, so what is there is of a killed process.
    let store = work.join(".downloading");
    let _ = fs::remove_dir_all(&store);
    let run = async |arguments: &[&str], limit: Duration| {
        let mut command = Command::new(&tool);
        command.args(arguments).arg(format!("{minor}.x")).args(["--index", index, "--bin-dir"]).arg(&store);
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = time::timeout(limit, output).await;
        let output = output.with_context(|| format!("{index}: not within {} s", limit.as_secs()))??;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        anyhow::Ok(())
    };
    run(&["list"], PATIENCE).await?;
    say(&format!("downloading etcd and Kubernetes {minor}, once …"));
    run(&["use"], LIMIT).await?;
    ensure!(found(&store, PROGRAMS[0]).is_some(), "{index}: an archive without the programs");
    // A rename within one file system is atomic: a reader finds either no folder or a complete one.
    fs::rename(&store, to).with_context(|| format!("cannot make {}", to.display()))
}

/// Returns a program in a folder of downloads, if its archive had all of them.
pub(super) fn found(folder: &Path, name: &str) -> Option<PathBuf> {
    let release = fs::read_dir(folder.join("k8s")).ok()?.find_map(|entry| Some(entry.ok()?.path()))?;
    PROGRAMS.iter().all(|program| file(&release, program).is_some()).then(|| file(&release, name))?
}
