//! Locates etcd, kube-apiserver and kubectl: installed, cached or built. Never changes anything outside the
//! cache.

mod build;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use build::{build_go_program, build_go_program_with_tags};

/// The module that pins the versions, and from which the programs are built.
const GO_MOD: &str = include_str!("../kubernetes/go.mod");

/// Paths of the programs of a cluster. Each program is the first that exists in:
/// 1. `$KUBEBUILDER_ASSETS`, the folder that other controllers' tests use;
/// 2. `PATH`, if it contains both etcd and kube-apiserver (a kubectl alone may have any version);
/// 3. the cache: `$STREAM_ENCRYPTION_CACHE`, or `$XDG_CACHE_HOME`, or `~/.cache`, and in it
///    `stream-encryption-operator/bin/kubernetes-<version>-etcd-<version>`;
/// 4. a build with Go into that cache, which takes about 6 minutes, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// etcd; 3.6.5 if it comes from the cache.
    pub etcd: PathBuf,
    /// kube-apiserver; 1.35.4 if it comes from the cache.
    pub kube_apiserver: PathBuf,
    /// kubectl, of the same version.
    pub kubectl: PathBuf,
}

impl Programs {
    /// Finds the programs, and builds those that are missing. Prints its progress to stderr.
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
        build::build(&folders.cache, name).await?;
    }
    folders.find(name).with_context(|| format!("{name} was built and is not there"))
}

/// The folders to search.
#[derive(Debug)]
struct Folders {
    assets: Option<PathBuf>,
    path: Vec<PathBuf>,
    cache: PathBuf,
}

impl Folders {
    fn from_environment() -> anyhow::Result<Self> {
        let pinned = format!(
            "kubernetes-{}-etcd-{}",
            version("k8s.io/kubernetes")?,
            version("go.etcd.io/etcd/server/v3")?
        );
        Ok(Self {
            assets: folder_in("KUBEBUILDER_ASSETS"),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            cache: cache()?.join(pinned),
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let in_path = |name: &str| self.path.iter().find_map(|folder| file(folder, name));
        let in_assets = self.assets.as_deref().and_then(|folder| file(folder, name));
        let installed = || in_path("etcd").and(in_path("kube-apiserver")).and(in_path(name));
        in_assets.or_else(installed).or_else(|| file(&self.cache, name))
    }
}

/// Returns the folder of built programs, each in a subfolder that is named after its sources.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(root: &Path) -> Folders {
        Folders {
            assets: Some(root.join("assets")),
            path: vec![root.join("path")],
            cache: root.join("cache"),
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
        let cached = put(root.path(), "cache/kubectl");
        assert_eq!(folders(root.path()).find("kubectl"), Some(cached));
    }

    #[test]
    fn assets_precede_path_and_path_precedes_cache() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "cache/etcd");
        let in_path = put(root.path(), "path/etcd");
        put(root.path(), "path/kube-apiserver");
        assert_eq!(folders(root.path()).find("etcd"), Some(in_path));
        let in_assets = put(root.path(), "assets/etcd");
        assert_eq!(folders(root.path()).find("etcd"), Some(in_assets));
    }

    #[test]
    fn versions_match_module() {
        assert_eq!(version("k8s.io/kubernetes").unwrap().split('.').count(), 3);
        assert!(version("k8s.io/nothing").unwrap_err().to_string().contains("go.mod"));
    }
}
