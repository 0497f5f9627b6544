//! The sockets that connections come in on, and the way of a connection to its first request.
//!
//! [`accept`] takes connections and asks, in this order, what costs nothing first: who may connect,
//! how many connections there may be, whom a load balancer speaks for, and last the handshake.
//! [`heads`] hands what is left to Pingora and minds the time. [`challenge`] answers a CA that a
//! list would keep out, [`plain_http`] who speaks no TLS where it is spoken; [`metrics`] has a socket of its own.
//!
//! Pingora's own accept loop is not used: it can neither drop a connection before its handshake by a
//! list of its listener, nor read a header in front of a plain one, nor leave it to others what is
//! said of a handshake that failed.

mod accept;
mod both;
mod buffered;
mod challenge;
mod figures;
mod heads;
pub(crate) mod metrics;
mod places;
mod plain_http;
mod proxy_protocol;
mod secured;
mod single_reply;
mod socket;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use tokio::net::TcpSocket;

use crate::config::{self, Limits, Listener};
use crate::edge::EdgeProxy;
use crate::error::Error;

pub(crate) use accept::serve;
pub(crate) use heads::{Connections, HeadRead, Kept};

/// The largest HTTP/2 frame: four TLS records instead of one.
const H2_FRAME_BYTES: u32 = 64 << 10;

/// How often an address is tried that is in use.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How many connections may wait to be accepted; the kernel's own limit is the lower one.
const BACKLOG: u32 = 65_535;

/// How long connections are still listened to once no new ones are taken: what a client has sent by
/// then may be on its way to us, and it would not know whether it was read.
pub(crate) const SETTLE: Duration = Duration::from_millis(500);

/// A bound socket.
pub(crate) struct Bound {
    pub(crate) listener: Listener,
    /// Where it really listens: port 0 has become one.
    pub(crate) address: SocketAddr,
    socket: TcpListener,
}

impl Bound {
    /// Returns the socket, and where it listens.
    pub(crate) fn socket(&self) -> (BorrowedFd<'_>, SocketAddr) {
        (self.socket.as_fd(), self.address)
    }

    /// Makes the socket one of the runtime's, with room for a crowd.
    fn into_tokio(self) -> io::Result<tokio::net::TcpListener> {
        let socket = TcpStream::from(OwnedFd::from(self.socket));
        TcpSocket::from_std_stream(socket).listen(BACKLOG)
    }
}

/// Binds every listener, or says which cannot be; those that are among the `handed` listen already.
pub(crate) fn bind(
    listeners: &[Listener],
    handed: &mut Vec<TcpListener>,
    patience: Duration,
) -> Result<Vec<Bound>, Error> {
    let bind = |listener: &Listener| {
        let (socket, address) = bind_at(listener.address, handed, patience)?;
        Ok(Bound {
            listener: listener.clone(),
            address,
            socket,
        })
    };
    listeners.iter().map(bind).collect()
}

/// Takes a socket from the `handed`, or binds it, for which an address in use is waited for with `patience`;
/// says where it really listens.
pub(crate) fn bind_at(
    address: SocketAddr,
    handed: &mut Vec<TcpListener>,
    patience: Duration,
) -> Result<(TcpListener, SocketAddr), Error> {
    let address = both::or_ipv4(address);
    let failed = |source| Error::Bind { address, source };
    let at = |meant: &dyn Fn(SocketAddr) -> bool| {
        let mut handed = handed.iter();
        handed.position(|socket| socket.local_addr().is_ok_and(meant))
    };
    // With port 0 any will do, but for those that another listener means.
    let index =
        at(&|bound| bound == address).or_else(|| at(&|bound| config::is_meant(bound, address)));
    let socket = match index {
        Some(index) => handed.swap_remove(index),
        None => bind_patiently(address, patience).map_err(failed)?,
    };
    socket.set_nonblocking(true).map_err(failed)?;
    let bound = socket.local_addr().map_err(failed)?;
    Ok((socket, bound))
}

/// Binds a socket; waits for a while for an address that is in use.
fn bind_patiently(address: SocketAddr, patience: Duration) -> io::Result<TcpListener> {
    let deadline = Instant::now() + patience;
    loop {
        match both::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::park_timeout(ASK_EVERY);
            }
            bound => return bound,
        }
    }
}

/// Sets what the proxy asks of HTTP/2 connections.
pub(crate) fn tune(proxy: &mut HttpProxy<EdgeProxy>, limits: &Limits) {
    // Pingora's own options bound what a hostile client can make HTTP/2 hold in memory.
    let mut options = default_h2_options();
    options
        .initial_window_size(limits.http2_window)
        .initial_connection_window_size(limits.http2_window)
        .max_frame_size(H2_FRAME_BYTES)
        .max_concurrent_streams(limits.http2_max_streams);
    proxy.h2_options = Some(options);
}
