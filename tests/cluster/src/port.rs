//! A loopback port that no other process can take.
//!
//! To choose a free port and release it until the API server binds it would be a race. Here the port stays
//! bound (not listening) with `SO_REUSEPORT`, and kube-apiserver joins with `--permit-port-sharing`. While
//! the API server is stopped, connections to the port are refused, and the port stays reserved.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use socket2::{Domain, Socket, Type};

/// A reserved port of 127.0.0.1; released on drop.
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
