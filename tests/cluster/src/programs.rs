//! Where etcd, kube-apiserver and kubectl come from. Decides between what is installed, what is cached and a build.
//! Never changes anything outside the cache.

mod build;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

pub use build::{build_go_program, build_go_program_with_tags};

/// The module that pins the versions, and from which the programs are built.
const GO_MOD: &str = include_str!("../kubernetes/go.mod");

/// Paths of the programs that make a cluster. Each is the first found of:
/// 1. `$KUBEBUILDER_ASSETS`, the folder that other controllers' tests use;
/// 2. `PATH`, if it has both etcd and kube-apiserver (a kubectl alone is of any age);
/// 3. the cache: `$STREAM_ENCRYPTION_CACHE`, or `$XDG_CACHE_HOME`, or `~/.cache`, and in it
///    `stream-encryption-operator/bin/kubernetes-<version>-etcd-<version>`;
/// 4. a build with Go into that cache, about 6 minutes once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// etcd, 3.6.5 where it comes from the cache.
    pub etcd: PathBuf,
    /// kube-apiserver, 1.35.4 where it comes from the cache.
    pub kube_apiserver: PathBuf,
    /// kubectl, of the same version.
    pub kubectl: PathBuf,
}

impl Programs {
    /// Finds the programs, and builds what is missing. Progress goes to stderr.
    ///
    /// # Errors
    /// Go is missing, too old, or cannot build or download; the error says what to install.
    pub async fn find_or_build() -> anyhow::Result<Self> {
        Ok(Self {
            etcd: kubernetes_program("etcd").await?,
            kube_apiserver: kubernetes_program("kube-apiserver").await?,
            kubectl: kubernetes_program("kubectl").await?,
        })
    }
}

/// One of the programs of a cluster by its name, as [`Programs`] finds it: also those that only a node needs, such as `kubelet`.
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

/// The folders to look in.
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

/// Where built programs are kept, each in a folder that names what it was built from.
fn cache() -> anyhow::Result<PathBuf> {
    let base = folder_in("STREAM_ENCRYPTION_CACHE")
        .or_else(|| folder_in("XDG_CACHE_HOME"))
        .or_else(|| folder_in("HOME").map(|home| home.join(".cache")))
        .context("no place for a cache: set STREAM_ENCRYPTION_CACHE or HOME")?;
    Ok(std::path::absolute(base)?.join("stream-encryption-operator/bin"))
}

/// The folder that an environment variable names.
fn folder_in(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn file(folder: &Path, name: &str) -> Option<PathBuf> {
    Some(folder.join(name)).filter(|path| path.is_file())
}

/// The version that go.mod requires of `module`, without the `v`.
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
    fn a_kubectl_on_the_path_without_an_api_server_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "path/kubectl");
        assert_eq!(folders(root.path()).find("kubectl"), None);
        let cached = put(root.path(), "cache/kubectl");
        assert_eq!(folders(root.path()).find("kubectl"), Some(cached));
    }

    #[test]
    fn assets_come_before_the_path_and_the_path_before_the_cache() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "cache/etcd");
        let in_path = put(root.path(), "path/etcd");
        put(root.path(), "path/kube-apiserver");
        assert_eq!(folders(root.path()).find("etcd"), Some(in_path));
        let in_assets = put(root.path(), "assets/etcd");
        assert_eq!(folders(root.path()).find("etcd"), Some(in_assets));
    }

    #[test]
    fn versions_are_those_of_the_module() {
        assert_eq!(version("k8s.io/kubernetes").unwrap().split('.').count(), 3);
        assert!(version("k8s.io/nothing").unwrap_err().to_string().contains("go.mod"));
    }
}
