//! Locates etcd, kube-apiserver and kubectl: installed, cached, downloaded or built. Never changes anything
//! outside the cache, and never takes kube-apiserver and kubectl from different places in it.

mod build;
mod envtest;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use build::{lock, say};

pub use build::{build_go_program, build_go_program_with_tags};

/// The module that pins the versions, and from which the programs are built.
const GO_MOD: &str = include_str!("../kubernetes/go.mod");

/// Paths of the programs of a cluster. Each program is the first that exists in:
/// 1. `$KUBEBUILDER_ASSETS`, the folder that other controllers' tests use;
/// 2. `PATH`, if it contains both etcd and kube-apiserver (a kubectl alone may have any version);
/// 3. the cache of built programs: `$STREAM_ENCRYPTION_CACHE`, or `$XDG_CACHE_HOME`, or `~/.cache`, and in it
///    `stream-encryption-operator/bin/kubernetes-<version>-etcd-<version>`;
/// 4. the cache of downloaded programs, `envtest-<minor version>` beside it;
/// 5. a download into that folder, by `setup-envtest`, of the newest archive of that minor version in the index at
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
pub async fn kubernetes_program(name: &str) -> anyhow::Result<PathBuf> {
    let folders = Folders::from_environment()?;
    if folders.find(name).is_none() {
        folders.provide(name, envtest::index().as_deref()).await?;
    }
    folders.find(name).with_context(|| format!("{name} was provided and is not there"))
}

/// The folders to search.
#[derive(Debug)]
struct Folders {
    assets: Option<PathBuf>,
    path: Vec<PathBuf>,
    built: PathBuf,
    downloaded: PathBuf,
    /// The minor version of Kubernetes that is built, and that is downloaded, perhaps with another patch version.
    minor: &'static str,
}

impl Folders {
    fn from_environment() -> anyhow::Result<Self> {
        let (kubernetes, etcd) = (version("k8s.io/kubernetes")?, version("go.etcd.io/etcd/server/v3")?);
        let cache = cache()?;
        let (minor, _) = kubernetes.rsplit_once('.').context("a version of three numbers")?;
        Ok(Self {
            assets: folder_in("KUBEBUILDER_ASSETS"),
            path: env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default(),
            built: cache.join(format!("kubernetes-{kubernetes}-etcd-{etcd}")),
            downloaded: cache.join(format!("envtest-{minor}")),
            minor,
        })
    }

    fn find(&self, name: &str) -> Option<PathBuf> {
        let in_path = |name: &str| self.path.iter().find_map(|folder| file(folder, name));
        let in_assets = self.assets.as_deref().and_then(|folder| file(folder, name));
        let installed = || in_path("etcd").and(in_path("kube-apiserver")).and(in_path(name));
        let built = || file(&self.built, name);
        let downloaded = || envtest::found(&self.downloaded, name).filter(|_| !self.builds());
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
    async fn provide(&self, name: &str, index: Option<&str>) -> anyhow::Result<()> {
        let _lock = lock(&self.built).await?;
        if self.find(name).is_some() || self.download(name, index).await {
            return Ok(());
        }
        build::build(&self.built, name).await
    }

    /// Downloads the archive that has a program, and returns whether the program is there. A failure is only
    /// printed, because a build follows.
    async fn download(&self, name: &str, index: Option<&str>) -> bool {
        let Some(index) = index.filter(|_| envtest::PROGRAMS.contains(&name) && !self.builds()) else {
            return false;
        };
        let result = envtest::download(index, self.minor, &self.downloaded, &self.built).await;
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
    use aws_lc_rs::digest;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn folders(root: &Path) -> Folders {
        Folders {
            assets: Some(root.join("assets")),
            path: vec![root.join("path")],
            built: root.join("cache/built"),
            downloaded: root.join("cache/envtest-1.35"),
            minor: "1.35",
        }
    }

    fn put(root: &Path, path: &str) -> PathBuf {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn assets_precede_path_and_path_precedes_cache() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "path/kubectl");
        assert_eq!(
            folders(root.path()).find("kubectl"),
            None,
            "without an API server it may be of any version"
        );
        let built = put(root.path(), "cache/built/kubectl");
        assert_eq!(folders(root.path()).find("kubectl"), Some(built));
        put(root.path(), "path/kube-apiserver");
        let in_path = put(root.path(), "path/etcd");
        assert_eq!(folders(root.path()).find("etcd"), Some(in_path));
        let in_assets = put(root.path(), "assets/etcd");
        assert_eq!(folders(root.path()).find("etcd"), Some(in_assets));
    }

    #[test]
    fn built_program_precedes_downloaded_one() {
        let root = tempfile::tempdir().unwrap();
        let downloads =
            envtest::PROGRAMS.map(|name| format!("cache/envtest-1.35/k8s/1.35.0-linux-amd64/{name}"));
        let etcd = put(root.path(), &downloads[0]);
        assert_eq!(folders(root.path()).find("etcd"), None, "the others are missing");
        let [_, _, kubectl] = downloads.map(|path| put(root.path(), &path));
        assert_eq!(folders(root.path()).find("etcd"), Some(etcd));
        let built = put(root.path(), "cache/built/etcd");
        assert_eq!(folders(root.path()).find("etcd"), Some(built));
        assert_eq!(folders(root.path()).find("kubectl"), Some(kubectl));
        put(root.path(), "cache/built/kube-apiserver");
        assert_eq!(folders(root.path()).find("kubectl"), None, "it is to be built beside a built API server");
    }

    /// Serves an index and an archive with three programs until the end of the test. Returns the URL of the index.
    async fn releases(folder: &Path, hash: impl FnOnce(&[u8]) -> String) -> String {
        for name in envtest::PROGRAMS {
            put(folder, &format!("controller-tools/envtest/{name}"));
        }
        let pack = ["-C", folder.to_str().unwrap(), "-czf", "-", "controller-tools"];
        let archive = std::process::Command::new("tar").args(pack).output().unwrap().stdout;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let system = if env::consts::OS == "macos" { "darwin" } else { "linux" };
        let machine = if env::consts::ARCH == "aarch64" { "arm64" } else { "amd64" };
        let index = format!(
            "releases: {{v1.35.7: {{envtest-v1.35.7-{system}-{machine}.tar.gz: {{hash: {}, selfLink: {url}/archive}}}}}}",
            hash(&archive)
        );
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let length = connection.read(&mut request).await.unwrap();
                let is_index = request[..length].starts_with(b"GET /index");
                let body = if is_index { index.as_bytes() } else { &archive };
                let head =
                    format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                connection.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
            }
        });
        format!("{url}/index")
    }

    #[tokio::test]
    async fn archive_is_downloaded_only_with_the_hash_of_the_index() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        std::fs::create_dir_all(&folders.built).unwrap();
        let source = root.path().join("source");
        let hash = |archive: &[u8]| hex(digest::digest(&digest::SHA512, archive).as_ref());
        let wrong = releases(&source, |archive| hash(&archive[1..])).await;
        assert!(!folders.download("etcd", Some(&wrong)).await);
        assert!(!folders.downloaded.exists());
        let index = releases(&source, hash).await;
        assert!(folders.download("etcd", Some(&index)).await);
        assert!(folders.find("kubectl").is_some());
        assert_eq!(std::fs::read_dir(&folders.built).unwrap().count(), 0, "nothing else is left");
    }

    #[tokio::test]
    async fn failed_download_is_only_printed() {
        let root = tempfile::tempdir().unwrap();
        for (name, index) in
            [("etcd", Some("not a URL")), ("kubelet", Some("no archive has it")), ("etcd", None)]
        {
            assert!(!folders(root.path()).download(name, index).await);
        }
    }

    #[tokio::test]
    async fn silent_server_is_given_up_after_five_seconds() {
        let root = tempfile::tempdir().unwrap();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let index = format!("http://{}/", silent.local_addr().unwrap());
        let (to, work) = (root.path().join("to"), root.path());
        envtest::tool().await.unwrap();
        let error = envtest::download(&index, "1.35", &to, work).await.unwrap_err();
        assert!(format!("{error:#}").contains("not within 5 s"), "{error:#}");
    }

    #[test]
    fn versions_match_module() {
        assert_eq!(version("k8s.io/kubernetes").unwrap().split('.').count(), 3);
        assert!(version("k8s.io/nothing").unwrap_err().to_string().contains("go.mod"));
    }
}
