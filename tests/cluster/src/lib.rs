//! A real Kubernetes API for tests: etcd and kube-apiserver as plain processes, and kubectl to talk to them. No Docker, no
//! root, about 3 seconds and 300 MB each.
//!
//! ```no_run
//! # async fn test() -> anyhow::Result<()> {
//! let cluster = test_cluster::TestCluster::start().await?;
//! cluster.kubectl(&["create", "namespace", "data"]).await?;
//! # Ok(()) }
//! ```
//!
//! # Guarantees
//! - Clusters do not meet: each has its own port (reserved before use), etcd socket, token, certificate and folder.
//! - Nothing is left behind: processes and folder go with the [`TestCluster`], also after a panic, and also where the test's
//!   process is killed by SIGKILL.
//! - RBAC is on. The token of [`TestCluster::admin_token`] is of `system:masters` and passes it; the tokens of
//!   [`TestCluster::service_account_kubeconfig`] do not.
//!
//! # Caveats
//! Only the API is there. Without kube-controller-manager nothing collects garbage (an owner reference deletes nothing), a
//! deleted namespace stays `Terminating`, and a new namespace gets no `default` `ServiceAccount`, so Pods that name none are
//! refused. Without a scheduler and a kubelet no Pod runs. Runs on Linux and macOS (it needs `sh`).
//!
//! # Programs
//! etcd, kube-apiserver and kubectl come from `$KUBEBUILDER_ASSETS`, else `PATH`, else the cache, else they are built with Go
//! into the cache, once; see [`Programs`].

mod cluster;
mod credentials;
mod folder;
mod patience;
mod port;
mod process;
mod programs;

pub use cluster::{TestCluster, shared};
pub use programs::{Programs, build_go_program, build_go_program_with_tags, kubernetes_program};
