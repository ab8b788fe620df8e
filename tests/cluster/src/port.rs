//! A loopback port that nobody else can take.
//!
//! Choosing a free port and letting go of it until the API server binds it is a race. Here the port stays bound
//! (not listening) with `SO_REUSEPORT`, and kube-apiserver joins with `--permit-port-sharing`. While the API server is stopped
//! the port answers "connection refused", and stays ours.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

/// A reserved port of 127.0.0.1; free again when dropped.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reservation: Socket,
}

impl Port {
    pub(crate) fn reserve() -> anyhow::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).context("no free loopback port")?;
        let address = socket.local_addr()?.as_socket().context("a TCP socket has an IP address")?;
        Ok(Self { number: address.port(), _reservation: socket })
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
