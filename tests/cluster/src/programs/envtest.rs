//! Downloads etcd, kube-apiserver and kubectl: the archives that kubernetes-sigs/controller-tools releases
//! for the tests of controllers (`setup-envtest` reads the same index). Never uses an archive whose hash is
//! not the index's, and never leaves an incomplete folder. A failure costs seconds; a build with Go follows.

mod archive;
mod http;
mod index;
#[cfg(test)]
mod tests;

use std::env::{self, consts};
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::Seek as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;
use tokio::time::{self, Instant};

use super::build::say;
use super::file;
use index::{Release, Version};

/// The programs that an archive has.
pub(super) const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];

/// The URL of another index, such as a mirror's. Empty: nothing is downloaded.
const VARIABLE: &str = "STREAM_ENCRYPTION_ENVTEST_INDEX";

const INDEX: &str =
    "https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml";

/// The index has 70 KB.
const MAX_INDEX: usize = 4 << 20;

/// An index of archives, and how long to wait for its server and the archives'.
#[derive(Debug)]
pub(super) struct Releases {
    index: String,
    /// Limits everything until the index is read. It is short, because many machines reach no such server.
    patience: Duration,
    /// Limits each wait for the next bytes of an archive.
    stall: Duration,
}

impl Releases {
    /// Returns the index that the environment names, or `None` if it disables downloads.
    pub(super) fn from_environment() -> Option<Self> {
        Self::from_variable(env::var_os(VARIABLE))
    }

    fn from_variable(value: Option<OsString>) -> Option<Self> {
        let index = value.map_or(INDEX.into(), |value| value.to_string_lossy().into_owned());
        (!index.is_empty()).then(|| Self::at(&index))
    }

    /// Returns the index at a URL.
    pub(super) fn at(index: &str) -> Self {
        Self { index: index.to_owned(), patience: Duration::from_secs(5), stall: Duration::from_secs(15) }
    }

    /// Downloads the newest release of the minor version of `kubernetes` into its folder of `cache`. The
    /// caller holds the lock of `work`, a folder of the same file system for temporary files.
    pub(super) async fn download(&self, kubernetes: &str, cache: &Path, work: &Path) -> anyhow::Result<()> {
        let wanted = Version::parse(kubernetes).with_context(|| format!("{kubernetes} is no version"))?;
        let index = &self.index;
        let index = match time::timeout(self.patience, http::get_text(index, MAX_INDEX)).await {
            Ok(text) => text.with_context(|| format!("cannot read {index}"))?,
            Err(_) => anyhow::bail!("{index} was not read within {} s", self.patience.as_secs()),
        };
        let release = index::newest(&index, wanted, &platform())?;
        let (version, start) = (release.version, Instant::now());
        say(&format!("downloading etcd and Kubernetes {version}, once …"));
        self.download_release(release, cache, work)
            .await
            .with_context(|| format!("cannot download Kubernetes {version}"))?;
        say(&format!("downloaded etcd and Kubernetes {version} in {} s", start.elapsed().as_secs()));
        Ok(())
    }

    async fn download_release(&self, release: Release, cache: &Path, work: &Path) -> anyhow::Result<()> {
        // The file has no name, so that nothing is left of it when this process ends, even by SIGKILL.
        let mut archive = tempfile::tempfile_in(work)?;
        let hash = http::download(&release.url, &mut archive, self.stall).await?;
        let stated = &release.hash;
        ensure!(hash.eq_ignore_ascii_case(stated), "{} has the hash {hash}, not {stated}", release.url);
        let unpacked = unpack(archive, empty_folder(work)?).await.context(release.url)?;
        // A rename within one file system is atomic: a reader finds either no folder or a complete one.
        let folder = cache.join(folder_name(release.version));
        fs::rename(unpacked.path(), &folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let _ = unpacked.keep(); // there is nothing to delete any more
        Ok(())
    }
}

/// Returns the newest complete folder of the minor version of `kubernetes` in the cache.
pub(super) fn cached(cache: &Path, kubernetes: &str) -> Option<PathBuf> {
    let wanted = Version::parse(kubernetes)?;
    let names = fs::read_dir(cache).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names
        .filter_map(|name| Version::parse(name.strip_prefix("envtest-")?))
        .filter(|version| version.has_minor_of(wanted))
        .map(|version| (version, cache.join(folder_name(version))))
        .filter(|(_, folder)| PROGRAMS.iter().all(|name| file(folder, name).is_some()))
        .max()
        .map(|(_, folder)| folder)
}

fn folder_name(version: Version) -> String {
    format!("envtest-{version}")
}

/// Returns this platform as the archives' names have it, such as `linux-amd64`.
fn platform() -> String {
    let system = if consts::OS == "macos" { "darwin" } else { consts::OS };
    let machine = match consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("{system}-{machine}")
}

/// Makes a temporary folder. Its name is fixed and the lock is held, so what is there is of a killed process.
fn empty_folder(work: &Path) -> anyhow::Result<TempDir> {
    let name = ".unpacking";
    let _ = fs::remove_dir_all(work.join(name));
    let permissions = Permissions::from_mode(0o755);
    Ok(tempfile::Builder::new().prefix(name).rand_bytes(0).permissions(permissions).tempdir_in(work)?)
}

async fn unpack(mut archive: File, folder: TempDir) -> anyhow::Result<TempDir> {
    let unpacking = tokio::task::spawn_blocking(move || {
        archive.rewind()?;
        archive::unpack(archive, folder.path(), archive::LIMIT)?;
        Ok(folder)
    });
    unpacking.await?
}
