//! An HTTP server that no client can exhaust: headers must arrive within seconds, and connections are few and
//! short-lived.
//!
//! Any client that reaches the port can open connections and send nothing. When there are too many, the
//! oldest connection of the address with the most connections is closed. A client that holds hundreds
//! therefore takes nothing from the kubelet or from Prometheus.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tracing::{info, warn};

/// Maximum number of concurrent connections.
const MOST_CONNECTIONS: usize = 256;
/// Timeout for the headers of a request, and for an idle connection between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum lifetime of a connection, also of one whose client never reads the response.
const LONGEST_CONNECTION: Duration = Duration::from_mins(1);
/// Size of a connection's buffer, which holds all headers of a request, in bytes.
const BUFFER: usize = 16 * 1024;
/// Delay after an error of the listener, such as too many open files.
const AFTER_ERROR: Duration = Duration::from_millis(100);
/// Maximum number of connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Binds `address`. The unspecified IPv6 address also serves IPv4, and IPv4 alone on a machine without IPv6.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    bind_or_fall_back(address, listen)
}

fn bind_or_fall_back<T>(address: SocketAddr, listen: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    match listen(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && is_without_ipv6(&error) => {
            info!(%error, "IPv6 is unavailable, listening on IPv4 only");
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    }
}

/// Returns whether the error means that IPv6 is unavailable, and not, for example, that the port is in use.
fn is_without_ipv6(error: &io::Error) -> bool {
    /// The error code of an unsupported address family: the kernel was started without IPv6.
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT)
        || matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // A node may have net.ipv6.bindv6only set.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

/// A connection that is being served.
struct Connection {
    peer: IpAddr,
    task: AbortHandle,
}

/// Serves `router` until the process ends.
pub(super) async fn serve(listener: TcpListener, router: Router) {
    // Oldest first.
    let mut open: Vec<Connection> = Vec::new();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "failed to accept a connection");
                tokio::time::sleep(AFTER_ERROR).await;
                continue;
            }
        };
        open.retain(|connection| !connection.task.is_finished());
        if open.len() >= MOST_CONNECTIONS {
            let greediest = oldest_of_greediest(open.iter().map(|connection| connection.peer));
            open.remove(greediest).task.abort();
        }
        let task = tokio::spawn(answer(stream, router.clone())).abort_handle();
        open.push(Connection { peer: peer.ip().to_canonical(), task });
    }
}

/// Serves the requests of one connection.
async fn answer(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // The client causes every error here: it has disconnected, or did not send a request.
    let _ = tokio::time::timeout(LONGEST_CONNECTION, connection).await;
}

/// Returns the position of the oldest connection of the address that has the most connections.
fn oldest_of_greediest(peers: impl Iterator<Item = IpAddr>) -> usize {
    let mut held: HashMap<IpAddr, (usize, usize)> = HashMap::new();
    for (position, peer) in peers.enumerate() {
        held.entry(peer).or_insert((0, position)).0 += 1;
    }
    let greediest = held.into_values().max_by_key(|&(count, oldest)| (count, std::cmp::Reverse(oldest)));
    greediest.map_or(0, |(_, oldest)| oldest)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn server() -> SocketAddr {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/healthz", axum::routing::get(|| async { "ok\n" }));
        tokio::spawn(serve(listener, router));
        address
    }

    async fn healthz(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Opens a connection and sends half of a request.
    async fn half_open(address: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: ").await.unwrap();
        stream
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn half_open_connections_are_closed_and_healthz_answers() {
        let address = server();
        let mut first = half_open(address).await;
        let mut held = Vec::new();
        for _ in 0..MOST_CONNECTIONS + 64 {
            held.push(half_open(address).await);
        }
        assert!(healthz(address).await.ends_with("ok\n"));
        // It is closed long before the header timeout, because too many connections followed.
        let closed = tokio::time::timeout(HEADER_TIMEOUT / 2, first.read(&mut [0; 16])).await;
        assert!(
            closed.is_ok_and(|read| read.map_or(true, |bytes| bytes == 0)),
            "the first one is still open"
        );
        let mut last = held.pop().unwrap();
        let closed = tokio::time::timeout(HEADER_TIMEOUT * 4, last.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "no headers came, and it is open for ever");
    }

    #[test]
    fn address_with_most_connections_loses_its_oldest() {
        let ip = |last| IpAddr::from([10, 0, 0, last]);
        for (peers, oldest) in
            [(vec![1], 0), (vec![1, 2, 2], 1), (vec![1, 2, 1, 2], 0), (vec![3, 1, 2, 2, 1, 2], 2)]
        {
            assert_eq!(oldest_of_greediest(peers.iter().map(|last| ip(*last))), oldest, "{peers:?}");
        }
    }

    #[tokio::test]
    async fn unspecified_ipv6_address_serves_ipv4_too() {
        let listener = match listen((Ipv6Addr::UNSPECIFIED, 0).into()) {
            Ok(listener) => listener,
            // This machine has no IPv6; the test below covers that case.
            Err(error) => return assert!(is_without_ipv6(&error), "{error}"),
        };
        let port = listener.local_addr().unwrap().port();
        for host in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            TcpStream::connect((host, port)).await.unwrap_or_else(|error| panic!("{host}: {error}"));
        }
    }

    #[test]
    fn machine_without_ipv6_serves_ipv4() {
        let refused = |kind: io::ErrorKind| {
            move |address: SocketAddr| {
                if address.is_ipv6() { Err(io::Error::from(kind)) } else { Ok(address) }
            }
        };
        let all: SocketAddr = (Ipv6Addr::UNSPECIFIED, 8080).into();
        for kind in [io::ErrorKind::Unsupported, io::ErrorKind::AddrNotAvailable] {
            let bound = bind_or_fall_back(all, refused(kind)).unwrap();
            assert_eq!(bound, (Ipv4Addr::UNSPECIFIED, 8080).into());
        }
        assert!(bind_or_fall_back(all, refused(io::ErrorKind::AddrInUse)).is_err());
        let one = (Ipv6Addr::LOCALHOST, 8080).into();
        assert!(bind_or_fall_back(one, refused(io::ErrorKind::AddrNotAvailable)).is_err());
    }
}
