//! Collects the programs of a node in one folder, and builds those that are missing: `cargo run -p node --
//! FOLDER`.
//!
//! The first run takes about 10 minutes on two cores; later runs use the cache of `tests/cluster`.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use node::argocd;
use packages::programs::{argocd_definitions, helm, helm_3};
use test_cluster::{build_go_program, kubernetes_program};

const KUBERNETES: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kubectl",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder: PathBuf =
        std::env::args().nth(1).context("missing argument: cargo run -p node -- FOLDER")?.into();
    fs::create_dir_all(&folder)?;
    for name in KUBERNETES {
        symlink(kubernetes_program(name).await?, folder.join(name))?;
    }
    symlink(helm().await?, folder.join("helm"))?;
    symlink(helm_3().await?, folder.join("helm3"))?;

    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("argocd");
    let program = build_go_program(&module, "github.com/argoproj/argo-cd/v3/cmd", "argocd").await?;
    symlink(program, folder.join(argocd::PROGRAM))?;
    let definitions = folder.join(argocd::DEFINITIONS);
    fs::create_dir(&definitions)?;
    for file in argocd_definitions().await? {
        symlink(&file, definitions.join(file.file_name().context("a file has a name")?))?;
    }
    // The repository server looks for this file in PATH, even if commits are not signed.
    let verify = folder.join("git-verify-wrapper.sh");
    fs::write(&verify, "#!/bin/sh\ngit verify-commit \"$1\" 2>&1 || true\n")?;
    fs::set_permissions(&verify, fs::Permissions::from_mode(0o755))?;
    Ok(())
}
