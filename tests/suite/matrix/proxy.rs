//! A proxy between the operator and the API server, or between the operator and AWS. It forwards and counts
//! requests. By rule it answers, holds or cuts them, or drops an event of a watch.
//!
//! It speaks plain HTTP to the operator. To the API server it is the operator's own client, with its token
//! and TLS.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;
use test_cluster::TestCluster;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

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

/// The server to which requests are forwarded.
enum Upstream {
    Kubernetes(Client),
    Aws(Box<legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>>, String),
}

/// Fields, and the objects to whose `spec` they are added.
struct Added(fn(&Asked) -> bool, serde_json::Value);

struct Shared {
    upstream: Upstream,
    rules: Mutex<Vec<Rule>>,
    /// Every request so far, with the status of its response, if it got one.
    log: Mutex<Vec<(Asked, Option<u16>)>>,
    /// Number of requests that have been held.
    held: watch::Sender<usize>,
    released: watch::Sender<usize>,
    /// Whether watches are frozen: their events are held.
    frozen: watch::Sender<bool>,
    /// Number of times that all watches were cut.
    cut: watch::Sender<usize>,
    /// Number of watch events with the code 410.
    gone: watch::Sender<usize>,
    /// Fields that are added to the `spec` of objects in responses, as if newer definitions kept them.
    added: Mutex<Option<Added>>,
    /// Number of watch events that pass before one is dropped.
    lose_after: Mutex<Option<usize>>,
}

/// A running proxy. Dropping it closes its port and all its connections.
pub(crate) struct Proxy {
    address: SocketAddr,
    kubeconfig: PathBuf,
    shared: Arc<Shared>,
    server: AbortHandle,
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

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
        let shared = Arc::new(Shared {
            upstream,
            rules: Mutex::default(),
            log: Mutex::default(),
            held: watch::Sender::new(0),
            released: watch::Sender::new(0),
            frozen: watch::Sender::new(false),
            cut: watch::Sender::new(0),
            gone: watch::Sender::new(0),
            added: Mutex::new(None),
            lose_after: Mutex::new(None),
        });
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

    /// Drops one watch event, after `after` others.
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
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.expect("a configuration");
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

/// Ignores poisoning: a test that panicked with the lock held must not hide its own failure.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _ = socket.set_nodelay(true);
            let service = service_fn(|request| answer(Arc::clone(&shared), request));
            // An error means a closed connection: by the operator, or by a rule.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
        });
    }
}

/// Answers one request. An error closes the connection.
async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Answer> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let asked = Asked {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
    };
    let number = {
        let mut log = lock(&shared.log);
        log.push((asked.clone(), None));
        log.len() - 1
    };
    let given = shared.meet(&asked, parts, body).await?;
    lock(&shared.log)[number].1 = Some(given.status().as_u16());
    Ok(given)
}

impl Shared {
    async fn meet(
        self: &Arc<Self>,
        asked: &Asked,
        parts: http::request::Parts,
        body: Bytes,
    ) -> io::Result<Answer> {
        let met = self.met(asked);
        match met {
            Some(Meet::Answer(410, When::Before)) if asked.is_watch() => {
                // The API server accepts the watch, and its first event reports the error.
                self.gone.send_modify(|count| *count += 1);
                return Ok(Response::new(whole(Bytes::from_static(GONE))));
            }
            Some(Meet::Answer(status, When::Before)) => return Ok(refusal(status)),
            Some(Meet::Cut(When::Before)) => return Err(io::Error::other("cut, as told")),
            Some(Meet::Hold(When::Before)) => self.hold().await,
            _ => {}
        }
        let answer = self.pass_on(asked, parts, body).await?;
        match met {
            Some(Meet::Answer(status, When::After)) => return Ok(refusal(status)),
            Some(Meet::Cut(When::After)) => return Err(io::Error::other("cut, as told")),
            Some(Meet::Hold(When::After)) => self.hold().await,
            _ => {}
        }
        Ok(answer)
    }

    /// Returns the effect of the first rule that applies to a request, and removes the rule once it is used
    /// up.
    fn met(&self, asked: &Asked) -> Option<Meet> {
        let mut rules = lock(&self.rules);
        let at = rules.iter_mut().position(|rule| {
            if !(rule.of)(asked) {
                return false;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                return false;
            }
            true
        })?;
        let meet = rules[at].meet;
        rules[at].times -= 1;
        if rules[at].times == 0 {
            rules.remove(at);
        }
        Some(meet)
    }

    async fn hold(&self) {
        let mut released = self.released.subscribe();
        self.held.send_modify(|held| *held += 1);
        let _ = released.changed().await;
    }

    async fn pass_on(
        self: &Arc<Self>,
        asked: &Asked,
        parts: http::request::Parts,
        body: Bytes,
    ) -> io::Result<Answer> {
        let client = match &self.upstream {
            Upstream::Kubernetes(client) => client,
            Upstream::Aws(client, url) => {
                let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
                let mut onward = Request::builder().method(parts.method).uri(format!("{url}{path}"));
                *onward.headers_mut().expect("its headers") = parts.headers;
                let onward = onward.body(Full::new(body)).map_err(io::Error::other)?;
                let (parts, body) = client.request(onward).await.map_err(io::Error::other)?.into_parts();
                let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
                return Ok(Response::from_parts(parts, whole(body)));
            }
        };
        let mut onward = Request::builder().method(parts.method).uri(parts.uri);
        for name in ["accept", "content-type"] {
            if let Some(value) = parts.headers.get(name) {
                onward = onward.header(name, value);
            }
        }
        let onward = onward.body(kube::client::Body::from(body.to_vec())).map_err(io::Error::other)?;
        let answered = client.send(onward).await.map_err(io::Error::other)?;
        let status = answered.status();
        let body = if asked.is_watch() && status == StatusCode::OK {
            self.lines(answered.into_body())
        } else {
            let body = answered.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
            whole(self.with_additions(asked, body))
        };
        Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(body)
            .map_err(io::Error::other)
    }

    fn with_additions(&self, asked: &Asked, body: Bytes) -> Bytes {
        let added = lock(&self.added);
        let Some(Added(_, fields)) = added.as_ref().filter(|Added(of, _)| !asked.is_write() && of(asked))
        else {
            return body;
        };
        let mut object: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        if let (Some(spec), Some(fields)) = (object["spec"].as_object_mut(), fields.as_object()) {
            spec.extend(fields.clone());
        }
        Bytes::from(object.to_string())
    }

    /// Forwards a watch, event by event.
    fn lines(self: &Arc<Self>, mut from: kube::client::Body) -> UnsyncBoxBody<Bytes, io::Error> {
        let shared = Arc::clone(self);
        let (send, mut receive) = tokio::sync::mpsc::channel::<Bytes>(16);
        let (mut cut, mut frozen) = (self.cut.subscribe(), self.frozen.subscribe());
        tokio::spawn(async move {
            let mut rest = BytesMut::new();
            loop {
                let frame = tokio::select! {
                    frame = from.frame() => frame,
                    _ = cut.changed() => return,
                    () = send.closed() => return,
                };
                let Some(Ok(frame)) = frame else { return };
                rest.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line = rest.split_to(end + 1).freeze();
                    if shared.keeps_back(&line) {
                        continue;
                    }
                    let thawed = async { frozen.wait_for(|frozen| !frozen).await.is_ok() };
                    let goes_on = tokio::select! {
                        thawed = thawed => thawed,
                        _ = cut.changed() => false,
                    };
                    if !goes_on || send.send(line).await.is_err() {
                        return;
                    }
                }
            }
        });
        let lines = futures_util::stream::poll_fn(move |context| receive.poll_recv(context));
        StreamBody::new(lines.map(|line| Ok(Frame::data(line)))).boxed_unsync()
    }

    /// Returns whether this watch event is the one to drop.
    fn keeps_back(&self, line: &[u8]) -> bool {
        let text = String::from_utf8_lossy(line);
        if text.contains("\"code\":410") {
            self.gone.send_modify(|count| *count += 1);
        }
        // A bookmark describes no object; dropping one would prove nothing.
        if text.contains("\"type\":\"BOOKMARK\"") {
            return false;
        }
        let mut after = lock(&self.lose_after);
        let lost = *after == Some(0);
        *after = after.and_then(|left| left.checked_sub(1));
        lost
    }
}

fn whole(body: Bytes) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

const GONE: &[u8] = b"{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":\"too old resource version: 1 (2)\",\"reason\":\"Expired\",\"code\":410}}\n";

/// An error response in the API server's format.
fn refusal(status: u16) -> Answer {
    let reason = match status {
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let words = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "as told", "reason": reason, "code": status,
    });
    Response::builder()
        .status(status)
        .header("content-type", "application/json")
        .body(whole(Bytes::from(words.to_string())))
        .expect("an answer")
}
