//! Locates etcd, kube-apiserver and kubectl: installed, cached, downloaded or built. Never changes anything
//! outside the cache, and never takes kube-apiserver and kubectl from different places in it.

mod build;
mod envtest;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use build::{lock, say};
use envtest::Releases;

pub use build::{build_go_program, build_go_program_with_tags};

/// The module that pins the versions, and from which the programs are built.
const GO_MOD: &str = include_str!("../kubernetes/go.mod");

/// Paths of the programs of a cluster. Each program is the first that exists in:
/// 1. `$KUBEBUILDER_ASSETS`, the folder that other controllers' tests use;
/// 2. `PATH`, if it contains both etcd and kube-apiserver (a kubectl alone may have any version);
/// 3. the cache of built programs: `$STREAM_ENCRYPTION_CACHE`, or `$XDG_CACHE_HOME`, or `~/.cache`, and in it
///    `stream-encryption-operator/bin/kubernetes-<version>-etcd-<version>`;
/// 4. the cache of downloaded programs, `envtest-<version>` beside it, of the same minor version;
/// 5. a download into that folder of the newest archive of that minor version in the index at
///    `$STREAM_ENCRYPTION_ENVTEST_INDEX`, by default the releases of kubernetes-sigs/controller-tools. If the
///    variable is empty, nothing is downloaded;
/// 6. a build with Go into the cache of built programs, which takes about 6 minutes, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// etcd; 3.6.5 if it was built.
    pub etcd: PathBuf,
    /// kube-apiserver; 1.35.4 if it was built, any 1.35 if it was downloaded.
    pub kube_apiserver: PathBuf,
    /// kubectl, of the same version.
    pub kubectl: PathBuf,
}

impl Programs {
    /// Finds the programs, and downloads or builds those that are missing. Prints its progress to stderr.
    ///
    /// # Errors
    /// Go is missing, too old, or cannot build or download; the error states what to install.
    pub async fn find_or_build() -> anyhow::Result<Self> {
        Ok(Self {
            etcd: kubernetes_program("etcd").await?,
            kube_apiserver: kubernetes_program("kube-apiserver").await?,
            kubectl: kubernetes_program("kubectl").await?,
        })
    }
}

/// Returns one program of a cluster by its name, as [`Programs`] finds it, including those that only a node
/// needs, such as `kubelet`.
///
/// # Errors
/// As [`Programs::find_or_build`].
pub async fn kubernetes_program(name: &str) -> anyhow::Result<PathBuf> {
    let folders = Folders::from_environment()?;
    if folders.find(name).is_none() {
        folders.provide(name, Releases::from_environment().as_ref()).await?;
    }
    folders.find(name).with_context(|| format!("{name} was provided and is not there"))
}

/// The folders to search.
#[derive(Debug)]
struct Folders {
    assets: Option<PathBuf>,
    path: Vec<PathBuf>,
    /// The cache, which contains `built`, and one folder for each downloaded release.
    cache: PathBuf,
    built: PathBuf,
    /// The version of Kubernetes that is built. A downloaded one has the same minor version.
    kubernetes: &'static str,
}

impl Folders {
    fn from_environment() -> anyhow::Result<Self> {
        let (kubernetes, etcd) = (version("k8s.io/kubernetes")?, version("go.etcd.io/etcd/server/v3")?);
        let cache = cache()?;
        Ok(Self {
            assets: folder_in("KUBEBUILDER_ASSETS"),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            built: cache.join(format!("kubernetes-{kubernetes}-etcd-{etcd}")),
            cache,
            kubernetes,
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let in_path = |name: &str| self.path.iter().find_map(|folder| file(folder, name));
        let in_assets = self.assets.as_deref().and_then(|folder| file(folder, name));
        let installed = || in_path("etcd").and(in_path("kube-apiserver")).and(in_path(name));
        let built = || file(&self.built, name);
        let release = || envtest::cached(&self.cache, self.kubernetes).filter(|_| !self.builds());
        let downloaded = || file(&release()?, name);
        in_assets.or_else(installed).or_else(built).or_else(downloaded)
    }

    /// Returns whether kube-apiserver and kubectl come from the cache of built programs: as soon as it has one
    /// of the two, the other is built, so that they always have the same version.
    fn builds(&self) -> bool {
        ["kube-apiserver", "kubectl"].iter().any(|name| file(&self.built, name).is_some())
    }

    /// Downloads or builds a program, unless another process has done so once the lock is acquired.
    ///
    /// The lock is the same for both. Otherwise, one process could build kube-apiserver while another
    /// downloads it, and the next would have kubectl from the other place.
    async fn provide(&self, name: &str, releases: Option<&Releases>) -> anyhow::Result<()> {
        let _lock = lock(&self.built).await?;
        if self.find(name).is_some() || self.download(name, releases).await {
            return Ok(());
        }
        build::build(&self.built, name).await
    }

    /// Downloads the archive that has a program, and returns whether the program is there. A failure is only
    /// printed, because a build follows.
    async fn download(&self, name: &str, releases: Option<&Releases>) -> bool {
        let Some(releases) = releases.filter(|_| envtest::PROGRAMS.contains(&name) && !self.builds()) else {
            return false;
        };
        let result = releases.download(self.kubernetes, &self.cache, &self.built).await;
        // A process with another go.mod, and so another lock, may have made the same folder meanwhile.
        let found = self.find(name).is_some();
        if let (Err(error), false) = (result, found) {
            say(&format!("no download of etcd and Kubernetes, so Go builds them: {error:#}"));
        }
        found
    }
}

/// Returns the folder of built and downloaded programs, each in a subfolder that is named after its sources.
fn cache() -> anyhow::Result<PathBuf> {
    let base = folder_in("STREAM_ENCRYPTION_CACHE")
        .or_else(|| folder_in("XDG_CACHE_HOME"))
        .or_else(|| folder_in("HOME").map(|home| home.join(".cache")))
        .context("no place for a cache: set STREAM_ENCRYPTION_CACHE or HOME")?;
    Ok(std::path::absolute(base)?.join("stream-encryption-operator/bin"))
}

/// Returns the folder that an environment variable names.
fn folder_in(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn file(folder: &Path, name: &str) -> Option<PathBuf> {
    Some(folder.join(name)).filter(|path| path.is_file())
}

/// Returns the version of `module` that go.mod requires, without the `v`.
fn version(module: &str) -> anyhow::Result<&'static str> {
    GO_MOD
        .lines()
        .find_map(|line| line.trim().strip_prefix(module)?.strip_prefix(" v"))
        .and_then(|rest| rest.split_whitespace().next())
        .with_context(|| format!("tests/cluster/kubernetes/go.mod does not require {module}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(root: &Path) -> Folders {
        Folders {
            assets: Some(root.join("assets")),
            path: vec![root.join("path")],
            cache: root.join("cache"),
            built: root.join("cache/built"),
            kubernetes: "1.35.4",
        }
    }

    fn put(root: &Path, path: &str) -> PathBuf {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn kubectl_on_path_without_api_server_is_ignored() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "path/kubectl");
        assert_eq!(folders(root.path()).find("kubectl"), None);
        let cached = put(root.path(), "cache/built/kubectl");
        assert_eq!(folders(root.path()).find("kubectl"), Some(cached));
    }

    #[test]
    fn assets_precede_path_and_path_precedes_cache() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "cache/built/etcd");
        let in_path = put(root.path(), "path/etcd");
        put(root.path(), "path/kube-apiserver");
        assert_eq!(folders(root.path()).find("etcd"), Some(in_path));
        let in_assets = put(root.path(), "assets/etcd");
        assert_eq!(folders(root.path()).find("etcd"), Some(in_assets));
    }

    #[test]
    fn built_program_precedes_downloaded_one_of_same_minor() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["envtest-1.36.0", "envtest-1.35.9", "envtest-1.35.10", "envtest-1.35.11-rc.0"] {
            for name in envtest::PROGRAMS {
                put(root.path(), &format!("cache/{folder}/{name}"));
            }
        }
        let incomplete = put(root.path(), "cache/envtest-1.35.12/etcd");
        assert_ne!(folders(root.path()).find("etcd"), Some(incomplete));
        let newest = root.path().join("cache/envtest-1.35.10/etcd");
        assert_eq!(folders(root.path()).find("etcd"), Some(newest));
        let built = put(root.path(), "cache/built/etcd");
        assert_eq!(folders(root.path()).find("etcd"), Some(built));
    }

    #[test]
    fn kubectl_is_not_downloaded_beside_built_api_server() {
        let root = tempfile::tempdir().unwrap();
        let [_, _, kubectl] =
            envtest::PROGRAMS.map(|name| put(root.path(), &format!("cache/envtest-1.35.0/{name}")));
        assert_eq!(folders(root.path()).find("kubectl"), Some(kubectl));
        put(root.path(), "cache/built/kube-apiserver");
        assert_eq!(folders(root.path()).find("kubectl"), None, "it is to be built, too");
    }

    #[tokio::test]
    async fn failed_download_is_only_printed() {
        let root = tempfile::tempdir().unwrap();
        let releases = Releases::at("not a URL");
        assert!(!folders(root.path()).download("etcd", Some(&releases)).await);
        assert!(!folders(root.path()).download("kubelet", Some(&releases)).await, "no archive has it");
        assert!(!folders(root.path()).download("etcd", None).await, "downloads are disabled");
    }

    #[test]
    fn versions_match_module() {
        assert_eq!(version("k8s.io/kubernetes").unwrap().split('.').count(), 3);
        assert!(version("k8s.io/nothing").unwrap_err().to_string().contains("go.mod"));
    }
}
