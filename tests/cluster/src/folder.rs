//! The cluster's own temporary folder, which is deleted with the cluster, even if our process is killed: etcd
//! alone writes 64 MB.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context as _;
use tempfile::TempDir;

/// Waits for the pipe to close, as in `process`, then deletes the folder; retries while the ending programs
/// still write.
const SWEEP: &str =
    r#"read -r _; n=0; until rm -rf -- "$1" 2>/dev/null || [ $n -ge 50 ]; do n=$((n + 1)); sleep 0.1; done"#;

/// A folder that is deleted when this value is dropped or our process ends.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
    sweeper: Child,
}

impl Folder {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("test-cluster-").tempdir()?;
        let sweeper = Command::new("sh")
            .args(["-c", SWEEP, "sh"])
            .arg(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start `sh`")?;
        Ok(Self { folder, sweeper })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Closes the pipe, so that the sweeper deletes the folder, and waits for the sweeper.
        let _ = self.sweeper.wait();
    }
}
