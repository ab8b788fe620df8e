//! A proxy between the operator and the API server, or between the operator and AWS. It forwards and counts
//! requests. By rule it answers, holds or cuts them, or drops an event of a watch.
//!
//! It speaks plain HTTP to the operator. To the API server it is the operator's own client, with its token
//! and TLS.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Method;
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use kube::Client;
use serde_json::json;
use test_cluster::TestCluster;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use self::forward::{Added, Shared, Upstream, lock, serve};

mod forward;

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    query: String,
}

impl Asked {
    /// Returns whether the request may change something. All requests to AWS are POST requests and count as
    /// writes.
    pub(crate) fn is_write(&self) -> bool {
        self.method != Method::GET
    }

    pub(crate) fn is_watch(&self) -> bool {
        self.query.contains("watch=true")
    }

    pub(crate) fn is_ledger(&self) -> bool {
        self.path.contains("/streamledgers")
    }

    pub(crate) fn is_status(&self) -> bool {
        self.path.ends_with("/status")
    }
}

/// Before a request is forwarded, or after the response has arrived and before it is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// What the proxy does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meet {
    /// Answers with this status, instead of forwarding the request or instead of returning the real response.
    Answer(u16, When),
    /// Closes the connection.
    Cut(When),
    /// Holds the request until [`Proxy::release`]. [`Proxy::held`] returns once it has arrived.
    Hold(When),
}

/// Which requests are treated how.
pub(crate) struct Rule {
    /// Selects the requests.
    pub(crate) of: fn(&Asked) -> bool,
    /// Number of requests that pass first.
    pub(crate) skip: usize,
    /// Number of requests that are affected after that.
    pub(crate) times: usize,
    pub(crate) meet: Meet,
}

/// A running proxy. Dropping it closes its port and all its connections.
pub(crate) struct Proxy {
    address: SocketAddr,
    kubeconfig: PathBuf,
    shared: Arc<Shared>,
    server: AbortHandle,
}

impl Proxy {
    /// A proxy in front of the API server, with the credentials of `account`.
    pub(crate) async fn of_kubernetes(cluster: &TestCluster, account: &Path) -> Self {
        let proxy = Self::start(Upstream::Kubernetes(unhurried_client(account).await), cluster).await;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": proxy.url()}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
            "users": [{"name": "nobody", "user": {}}],
        });
        std::fs::write(&proxy.kubeconfig, kubeconfig.to_string()).expect("a kubeconfig");
        proxy
    }

    /// A proxy in front of AWS at this address.
    pub(crate) async fn of_aws(cluster: &TestCluster, url: &str) -> Self {
        let client = legacy::Client::builder(TokioExecutor::new()).build_http();
        Self::start(Upstream::Aws(Box::new(client), url.to_owned()), cluster).await
    }

    async fn start(upstream: Upstream, cluster: &TestCluster) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::new(upstream));
        let kubeconfig = cluster.folder().join(format!("proxy-{}.kubeconfig", address.port()));
        let server = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Self { address, kubeconfig, shared, server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The kubeconfig for the operator's process.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Returns a client through this proxy that does not retry, like the operator's own.
    pub(crate) async fn client(&self) -> Client {
        unhurried_client(&self.kubeconfig).await
    }

    pub(crate) fn rule(&self, rule: Rule) {
        lock(&self.shared.rules).push(rule);
    }

    /// Affects one request of this kind, after `skip` others.
    pub(crate) fn once(&self, of: fn(&Asked) -> bool, skip: usize, meet: Meet) {
        self.rule(Rule { of, skip, times: 1, meet });
    }

    /// Affects every request of this kind, until [`Proxy::heal`].
    pub(crate) fn always(&self, of: fn(&Asked) -> bool, meet: Meet) {
        self.rule(Rule { of, skip: 0, times: usize::MAX, meet });
    }

    /// Removes all rules.
    pub(crate) fn heal(&self) {
        lock(&self.shared.rules).clear();
    }

    /// Returns whether all rules have been used up.
    pub(crate) fn all_met(&self) -> bool {
        lock(&self.shared.rules).is_empty()
    }

    /// Returns once this many requests have been held in total.
    pub(crate) async fn held(&self, count: usize) {
        self.shared.held.subscribe().wait_for(|held| *held >= count).await.expect("the proxy runs");
    }

    pub(crate) fn held_so_far(&self) -> usize {
        *self.shared.held.borrow()
    }

    /// Releases all held requests.
    pub(crate) fn release(&self) {
        self.shared.released.send_modify(|times| *times += 1);
    }

    /// Freezes the events of all watches, or releases them.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.shared.frozen.send_replace(frozen);
    }

    /// Adds fields to the `spec` of every object of this kind that is read; `None` ends that.
    pub(crate) fn add_to_spec(&self, of: fn(&Asked) -> bool, fields: Option<serde_json::Value>) {
        *lock(&self.shared.added) = fields.map(|fields| Added(of, fields));
    }

    /// Ends all watches, as a load balancer does.
    pub(crate) fn cut_watches(&self) {
        self.shared.cut.send_modify(|times| *times += 1);
    }

    /// Returns how many requests of this kind have arrived.
    pub(crate) fn count(&self, of: fn(&Asked) -> bool) -> usize {
        lock(&self.shared.log).iter().filter(|(asked, _)| of(asked)).count()
    }

    /// Returns how many requests of this kind were answered with this status.
    pub(crate) fn answered(&self, of: fn(&Asked) -> bool, status: u16) -> usize {
        lock(&self.shared.log).iter().filter(|(asked, with)| of(asked) && *with == Some(status)).count()
    }

    /// Returns how often a watch reported that its resource version is gone.
    pub(crate) fn said_gone(&self) -> usize {
        *self.shared.gone.borrow()
    }

    /// Drops one event of the watch of resources, after `after` others.
    pub(crate) fn lose_line(&self, after: usize) {
        *lock(&self.shared.lose_after) = Some(after);
    }

    /// Returns whether that event has arrived and was dropped.
    pub(crate) fn has_lost_it(&self) -> bool {
        lock(&self.shared.lose_after).is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Returns a client that does not retry: kube's own retries would hide responses from the operator.
pub(crate) async fn unhurried_client(kubeconfig: &Path) -> Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = crate::harness::config(kubeconfig).await;
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}
