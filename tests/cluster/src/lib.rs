//! A real Kubernetes API for tests: etcd and kube-apiserver as plain processes, and kubectl to access them.
//! A cluster needs neither Docker nor root, takes about 3 seconds to start, and uses 300 MB.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! let cluster = test_cluster::TestCluster::start().await?;
//! cluster.kubectl(&["create", "namespace", "data"]).await?;
//! # Ok(()) }
//! ```
//!
//! # Guarantees
//! - Clusters are isolated: each has its own port (reserved before use), etcd socket, token, certificate and
//!   folder.
//! - Cleanup is complete: processes and folder are removed with the [`TestCluster`], even after a panic or if
//!   the test's process is killed by SIGKILL.
//! - RBAC is enabled. The token of [`TestCluster::admin_token`] belongs to `system:masters` and bypasses it;
//!   the tokens of [`TestCluster::service_account_kubeconfig`] do not.
//!
//! # Caveats
//! A cluster has only the API. Without kube-controller-manager there is no garbage collection (an owner
//! reference has no effect), a deleted namespace stays `Terminating`, and a new namespace has no `default`
//! `ServiceAccount`, so Pods that name none are refused. Without a scheduler and a kubelet no Pod runs. The
//! crate runs on Linux and macOS (it needs `sh`).
//!
//! # Programs
//! etcd, kube-apiserver and kubectl come from `$KUBEBUILDER_ASSETS`, `PATH` or the cache, in this order;
//! otherwise they are downloaded, or built with Go, into the cache, once. See [`Programs`].

#![allow(clippy::must_use_candidate, reason = "only this repository's tests use it")]

mod cluster;
mod credentials;
mod folder;
mod patience;
mod port;
mod process;
mod programs;

pub use cluster::{TestCluster, shared};
pub use programs::{Programs, build_go_program, build_go_program_with_tags, kubernetes_program};
