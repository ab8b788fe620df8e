//! The forwarding of one request: to the API server or to AWS, as the rules say.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy;
use hyper_util::rt::TokioIo;
use kube::Client;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Asked, Meet, Rule, When};

/// The server to which requests are forwarded.
pub(super) enum Upstream {
    Kubernetes(Client),
    Aws(Box<legacy::Client<legacy::connect::HttpConnector, Full<Bytes>>>, String),
}

/// Fields, and the objects to whose `spec` they are added.
pub(super) struct Added(pub(super) fn(&Asked) -> bool, pub(super) serde_json::Value);

/// What the connections of one proxy share.
pub(super) struct Shared {
    pub(super) upstream: Upstream,
    pub(super) rules: Mutex<Vec<Rule>>,
    /// Every request so far, with the status of its response, if it got one.
    pub(super) log: Mutex<Vec<(Asked, Option<u16>)>>,
    /// Number of requests that have been held.
    pub(super) held: watch::Sender<usize>,
    pub(super) released: watch::Sender<usize>,
    /// Whether watches are frozen: their events are held.
    pub(super) frozen: watch::Sender<bool>,
    /// Number of times that all watches were cut.
    pub(super) cut: watch::Sender<usize>,
    /// Number of watch events with the code 410.
    pub(super) gone: watch::Sender<usize>,
    /// Fields that are added to the `spec` of objects in responses, as if newer definitions kept them.
    pub(super) added: Mutex<Option<Added>>,
    /// Number of events of the watch of resources that pass before one is dropped.
    pub(super) lose_after: Mutex<Option<usize>>,
}

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Ignores poisoning: a test that panicked with the lock held must not hide its own failure.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves the connections of a proxy until the task is aborted.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
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
    pub(super) fn new(upstream: Upstream) -> Self {
        Self {
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
        }
    }

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
            self.lines(&asked.path, answered.into_body())
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
    fn lines(self: &Arc<Self>, path: &str, mut from: kube::client::Body) -> UnsyncBoxBody<Bytes, io::Error> {
        let (shared, path) = (Arc::clone(self), path.to_owned());
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
                    if shared.keeps_back(&path, &line) {
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

    /// Returns whether this event of the watch of `path` is the one to drop. Only events of resources count: the other watches
    /// deliver what other tests change at the same time.
    fn keeps_back(&self, path: &str, line: &[u8]) -> bool {
        let text = String::from_utf8_lossy(line);
        if text.contains("\"code\":410") {
            self.gone.send_modify(|count| *count += 1);
        }
        // A bookmark describes no object; dropping one would prove nothing.
        if text.contains("\"type\":\"BOOKMARK\"") || !path.ends_with("/streamencryptions") {
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
