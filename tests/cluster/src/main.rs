//! Starts a cluster for manual use, prints the path of its kubeconfig, and keeps it running until Ctrl-C.
//!
//! `cargo run -p test-cluster`

use test_cluster::TestCluster;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cluster = TestCluster::start().await?;
    println!("{}", cluster.kubeconfig().display());
    tokio::signal::ctrl_c().await?;
    Ok(())
}
