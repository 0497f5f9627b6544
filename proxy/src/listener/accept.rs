//! Takes connections, and asks of each what can be asked before its first request.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::ServerApp as _;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Bound;
use super::buffered::Buffers;
use super::challenge;
use super::heads::Connections;
use super::places::{Place, Places};
use super::plain_http;
use super::proxy_protocol;
use super::secured::Secured;
use super::socket::Socket;
use crate::config::Limits;
use crate::state::{Current, State};
use crate::tls::accept::Failure;

/// What is read from and written to a client at once: measured, a third fewer system calls for a
/// download than with Pingora's defaults.
const TRANSFERS: Buffers = Buffers {
    read: 256 << 10,
    write: 264 << 10,
};

/// Redirects are small.
const REDIRECTS: Buffers = Buffers {
    read: 16 << 10,
    write: 4 << 10,
};

/// How often, and how many times, a silent connection is asked whether it still stands.
const TCP_KEEPALIVE: (Duration, Duration, u32) =
    (Duration::from_secs(60), Duration::from_secs(15), 4);

/// How much the kernel takes that it cannot send yet: enough to never run out of it, and little enough
/// to be sent while it is still in the caches. A client that reads slowly would have megabytes wait.
const UNSENT_BYTES: u32 = 256 << 10;

/// How long no connection is taken when there is no descriptor for one.
pub(super) const EXHAUSTED: Duration = Duration::from_millis(200);

/// What the accept loops have in common.
struct Entrance {
    connections: Arc<Connections>,
    current: Arc<Current>,
    places: Arc<Places>,
    stop: ShutdownWatch,
}

/// One accept loop.
#[derive(Clone, Copy)]
struct Door {
    /// The listener's place in the config.
    index: usize,
    tls: bool,
    proxy_protocol: bool,
}

/// Why a connection goes no further.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("listener[{0}].{1}")]
    Address(usize, &'static str),
    #[error("limits.max_connections_per_address")]
    AddressFull,
    #[error("limits.max_connections")]
    Full,
    #[error("the handshake failed: {0}")]
    Handshake(Failure),
    #[error("{0}")]
    ProxyProtocol(#[from] proxy_protocol::Error),
    #[error("limits.header_timeout")]
    Slow,
    #[error(
        "not one of trusted_proxies, which alone may connect to a listener with proxy_protocol"
    )]
    UntrustedProxy,
}

/// Serves connections of all these sockets until `stop` says so.
pub(crate) async fn serve(
    bound: Vec<Bound>,
    connections: Connections,
    current: Arc<Current>,
    limits: Limits,
    stop: ShutdownWatch,
) -> io::Result<()> {
    let entrance = Arc::new(Entrance {
        connections: Arc::new(connections),
        current,
        places: Arc::default(),
        stop,
    });
    let mut loops = JoinSet::new();
    for (index, bound) in bound.into_iter().enumerate() {
        let door = Door {
            index,
            tls: bound.listener.tls,
            proxy_protocol: bound.listener.proxy_protocol,
        };
        let socket = bound.into_tokio()?;
        if let Err(error) = tune(&socket, &limits) {
            // Without it a connection is slower to end, and no worse.
            tracing::warn!(%error, "the options of connections cannot be set");
        }
        loops.spawn(Arc::clone(&entrance).accept(socket, door));
    }
    while loops.join_next().await.is_some() {}
    entrance.connections.cleanup().await;
    Ok(())
}

/// Sets what each connection is to have: it has it from the socket that it was accepted on.
fn tune(socket: &TcpListener, limits: &Limits) -> io::Result<()> {
    let socket = SockRef::from(socket);
    let (idle, interval, count) = TCP_KEEPALIVE;
    let keepalive = TcpKeepalive::new().with_time(idle);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive.with_interval(interval).with_retries(count))?;
    // The kernel knows what a client has taken; no timer here could tell a slow one, whose buffer
    // takes minutes to fill a window, from one that takes nothing.
    socket.set_tcp_user_timeout(Some(limits.write_timeout))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

impl Entrance {
    async fn accept(self: Arc<Self>, socket: TcpListener, door: Door) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            match accepted {
                Ok((stream, peer)) => self.receive(stream, peer, door),
                // The client was gone before its turn came.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::error!(%error, "connections cannot be taken");
                    // Asked again at once, the answer would be the same.
                    sleep(EXHAUSTED).await;
                }
            }
        }
    }

    /// Refuses a connection, or has it served by a task of its own.
    fn receive(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr, door: Door) {
        let state = self.current.take();
        let place = match self.place(&state, peer.ip(), door) {
            Ok(place) => place,
            Err(refused) => return tell(&refused, peer.ip(), door),
        };
        tokio::spawn(Arc::clone(self).serve(stream, peer, place, door));
    }

    /// Asks all that is known once a connection is there.
    fn place(&self, state: &State, peer: IpAddr, door: Door) -> Result<Place, Refused> {
        let trusted = state.trusts(peer);
        if door.proxy_protocol {
            if !trusted {
                return Err(Refused::UntrustedProxy);
            }
            let max = state.limits.max_connections;
            // Whom it is from is not known yet.
            return self.places.take(max).ok_or(Refused::Full);
        }
        refuse_for_good(state, peer, door)?;
        let max = state.limits.max_connections;
        let mut place = self.places.take(max).ok_or(Refused::Full)?;
        // A proxy that is trusted brings the connections of many.
        if !trusted {
            count(&mut place, state, peer)?;
        }
        Ok(place)
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, place: Place, door: Door) {
        let mut place = place;
        let mut client = peer;
        let patience = self.current.load().limits.header_timeout;
        let opening = self.open(stream, &mut client, &mut place, door);
        let opened = timeout(patience, Box::pin(opening)).await;
        match opened.unwrap_or(Err(Refused::Slow)) {
            Ok(None) => {}
            Ok(Some(stream)) => {
                self.connections
                    .process_new(stream, &self.stop.clone())
                    .await;
            }
            Err(refused) => tell(&refused, client.ip(), door),
        }
    }

    /// Brings a connection to where HTTP begins, if it goes on from there.
    async fn open(
        &self,
        stream: TcpStream,
        client: &mut SocketAddr,
        place: &mut Place,
        door: Door,
    ) -> Result<Option<Stream>, Refused> {
        let buffers = if door.tls { TRANSFERS } else { REDIRECTS };
        let mut socket = Socket::new(stream, buffers);
        if door.proxy_protocol
            && let Some(told) = proxy_protocol::read(&mut socket).await?
        {
            *client = told;
            let state = self.current.take();
            refuse_for_good(&state, client.ip(), door)?;
            count(place, &state, client.ip())?;
        }
        socket.set_client(*client);
        if !door.tls {
            let state = self.current.take();
            let Err(refused) = refuse_address(&state, client.ip(), door) else {
                return Ok(Some(Box::new(socket)));
            };
            let asks = challenge::is_open(&state).await;
            let answered = asks && challenge::answer(socket, *client, &state).await;
            return if answered { Ok(None) } else { Err(refused) };
        }
        // One that is gone fails in the handshake.
        if let Ok(Some(first)) = socket.peek().await
            && plain_http::begins_with(first)
        {
            plain_http::answer(socket, *client).await;
            return Ok(None);
        }
        socket.set_shaking_hands(true);
        let state = self.current.take();
        let handshake = state.acceptor.handshake(socket, &state);
        let mut secured = handshake.await.map_err(Refused::Handshake)?;
        secured.get_mut().set_shaking_hands(false);
        Ok(Some(Box::new(Secured::new(secured))))
    }
}

/// Says why a connection went no further.
fn tell(refused: &Refused, client: IpAddr, door: Door) {
    let client = client.to_canonical();
    let listener = door.index;
    let Refused::Handshake(failure) = refused else {
        tracing::info!(%client, listener, because = %refused, "connection refused");
        return;
    };
    if failure.is_silence() {
        tracing::debug!(%client, listener, "a client went away before its handshake");
    } else {
        tracing::info!(
            %client,
            listener,
            server_name = failure.server_name(),
            because = %failure,
            "handshake failed"
        );
    }
}

/// Refuses an address that is kept out, unless it may be a CA that has a question.
fn refuse_for_good(state: &State, client: IpAddr, door: Door) -> Result<(), Refused> {
    let may_ask = !door.tls && state.plan.is_some();
    refuse_address(state, client, door).or_else(|refused| match may_ask {
        true => Ok(()),
        false => Err(refused),
    })
}

fn refuse_address(state: &State, client: IpAddr, door: Door) -> Result<(), Refused> {
    let addresses = state.listeners.get(door.index);
    let admitted = addresses.map_or(Ok(()), |addresses| addresses.admit(client));
    admitted.map_err(|list| Refused::Address(door.index, list.key()))
}

/// Counts a connection as one of its client's.
fn count(place: &mut Place, state: &State, client: IpAddr) -> Result<(), Refused> {
    let client = client.to_canonical();
    let max = state.limits.connections_of(client);
    if place.give_to(client, max) {
        Ok(())
    } else {
        Err(Refused::AddressFull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_have_what_was_set_of_their_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let limits = Limits::default();
        tune(&listener, &limits).unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap());
        let (_client, accepted) = tokio::join!(connecting, listener.accept());
        let accepted = accepted.unwrap().0;
        let accepted = SockRef::from(&accepted);
        let (idle, interval, count) = TCP_KEEPALIVE;
        assert!(accepted.tcp_nodelay().unwrap());
        assert!(accepted.keepalive().unwrap());
        assert_eq!(accepted.tcp_keepalive_time().unwrap(), idle);
        assert_eq!(accepted.tcp_keepalive_interval().unwrap(), interval);
        assert_eq!(accepted.tcp_keepalive_retries().unwrap(), count);
        let patience = accepted.tcp_user_timeout().unwrap();
        assert_eq!(patience, Some(limits.write_timeout));
        assert_eq!(accepted.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    }
}
