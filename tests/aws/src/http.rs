//! The simulated AWS as an HTTP server on a loopback address, with the protocols of the AWS SDKs and with
//! `/_admin`.
//!
//! It carries messages to and from the model, and makes lost, held and slow replies real. It must never
//! decide an AWS answer.

mod admin;
mod clock;
mod polling;
mod sqs;
mod wire;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

pub use clock::Clock;
pub use polling::Model;

use crate::world::stream::later;
use crate::world::{Delivery, Service, World};

/// A running simulated AWS. Dropping it closes the port and every connection.
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// use simulated_aws::{Clock, PlantedStream, Settings, SimulatedAws, World};
///
/// let mut world = World::new(Settings::default());
/// world.plant_stream(PlantedStream { name: "orders".to_owned(), ..PlantedStream::default() });
/// let aws = SimulatedAws::start(world, Clock::Real).await?;
/// println!("AWS_ENDPOINT_URL={}", aws.url());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SimulatedAws {
    address: SocketAddr,
    shared: Arc<Shared>,
    server: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    clock: clock::Running,
    /// Counts how often held replies were released.
    released: watch::Sender<u64>,
    /// Changes when a message arrives in a queue.
    arrivals: watch::Sender<u64>,
}

impl SimulatedAws {
    /// Serves the world on a free port of 127.0.0.1.
    pub async fn start(world: World, clock: Clock) -> anyhow::Result<SimulatedAws> {
        SimulatedAws::start_on((Ipv4Addr::LOCALHOST, 0).into(), world, clock).await
    }

    /// Serves the world on the given address.
    pub async fn start_on(address: SocketAddr, world: World, clock: Clock) -> anyhow::Result<SimulatedAws> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}: choose a free port"))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            world: Mutex::new(world),
            clock: clock::Running::new(clock),
            released: watch::Sender::new(0),
            arrivals: watch::Sender::new(0),
        });
        let server = tokio::spawn(serve(listener, Arc::clone(&shared))).abort_handle();
        Ok(SimulatedAws { address, shared, server })
    }

    /// `http://127.0.0.1:port`, for `AWS_ENDPOINT_URL`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the model, to plant, script and read. No request is answered while the guard exists; do not
    /// hold it over an await.
    pub fn world(&self) -> Model<'_> {
        let mut world = self.shared.model();
        world.settle(self.now());
        world
    }

    /// Returns the time of this AWS.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// Advances the clock, whether real or virtual.
    pub fn advance(&self, by: SignedDuration) {
        self.shared.clock.advance(by);
        drop(self.world());
    }

    /// Releases the replies that `Fault::Hold` holds back.
    pub fn release_held(&self) {
        self.shared.release_held();
    }
}

impl Drop for SimulatedAws {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    /// Ignores lock poisoning: the panic of a test that held the lock must not hide the test's own failure.
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the model, and notifies waiting receives afterwards.
    fn model(&self) -> Model<'_> {
        Model { shared: self, world: self.world() }
    }

    fn release_held(&self) {
        self.released.send_modify(|times| *times += 1);
    }

    /// Answers one message. `Err` closes the connection without an answer.
    async fn answer(&self, request: hyper::Request<Incoming>) -> io::Result<hyper::Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        if let Some(path) = parts.uri.path().strip_prefix("/_admin/") {
            let asked = admin::Asked {
                method: &parts.method,
                path,
                query: parts.uri.query().unwrap_or_default(),
                body: &body,
            };
            let (status, answer) =
                admin::answer(&asked, &mut self.model(), &self.clock, || self.release_held());
            return response(status, "application/json", answer.to_string(), &[]);
        }
        let request = match wire::request(&parts, &body) {
            Ok(request) => request,
            Err(error) => {
                let (kind, body) = wire::error(None, &error, 0);
                return response(error.status, kind, body, &[("x-amzn-errortype", error.code)]);
            }
        };
        let (caller, region) = wire::signature(&parts);
        let now = self.clock.now();
        let mut released = self.released.subscribe();
        let (mut reply, error_header) = {
            let mut world = self.model();
            (world.call(now, &caller, &region, &request), world.settings().error_type_header)
        };
        match reply.delivery {
            Delivery::Prompt => self.wait_if_empty(now, &caller, &region, &request, &mut reply.result).await,
            Delivery::Lost => return Err(io::Error::other("the reply is lost, as scripted")),
            Delivery::After(by) => self.clock.reach(later(now, by)).await,
            Delivery::Held => released.changed().await.map_err(io::Error::other)?,
        }
        let id = ("x-amzn-requestid", reply.request_id());
        match reply.result {
            Ok(result) => {
                let host = parts.headers.get("host").and_then(|host| host.to_str().ok());
                let result = sqs::with_host(result, host.unwrap_or("localhost"));
                let (kind, body) = wire::answer(request.service, &request.operation, &result, reply.call);
                response(200, kind, body, &[id])
            }
            Err(error) => {
                let (kind, body) = wire::error(Some(request.service), &error, reply.call);
                let query = (request.service == Service::Sqs)
                    .then(|| ("x-amzn-query-error", sqs::query_error(&error)));
                let code = error_header.then(|| ("x-amzn-errortype", error.code.clone()));
                let headers: Vec<_> = std::iter::once(id).chain(query).chain(code).collect();
                response(error.status, kind, body, &headers)
            }
        }
    }
}

fn response(
    status: u16,
    kind: &str,
    body: String,
    headers: &[(&str, String)],
) -> io::Result<hyper::Response<Full<Bytes>>> {
    let mut response = hyper::Response::builder().status(status).header("content-type", kind);
    for (name, value) in headers {
        response = response.header(*name, value);
    }
    response.body(Full::new(Bytes::from(body))).map_err(io::Error::other)
}

/// Accepts connections until it is aborted; its connections end with it.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((socket, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            let _ = socket.set_nodelay(true);
            let service = service_fn(|request| shared.answer(request));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(socket), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection closed");
            }
        });
    }
}
