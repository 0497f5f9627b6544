//! What the streams of HTTP/2 connections may hold at once, of the registry and of memory.
//!
//! A connection carries a hundred requests, and a client that takes no bytes costs nothing to be one.
//! So it is not connections that are counted here but what each stream holds:
//!
//! - a [`Transfer`] while the registry works for it: a connection to the registry and an open file. A
//!   stream whose client takes nothing gives it back as soon as another one [wants](Transfer::wanted)
//!   it, and asks again when the client goes on;
//! - a [`Reservation`] for the bytes that were handed to HTTP/2 and are not written to the socket yet.
//!
//! Either is bounded for one connection, for one address and for the process, asked in this order, so
//! that a client with many streams stands in a queue of its own. Over HTTP/1.1 a connection carries
//! one request, and the limits for connections are those for transfers.

use std::net::IpAddr;
use std::sync::Arc;

use permits::{Keyed, Permit, Pool};

use crate::limits::neighbours::neighbours;

/// How many bytes are counted as one.
const UNIT_BYTES: usize = 16 << 10;

/// How much of the replies on one connection may wait to be written: two large pieces, one of which
/// is being written while the next is read.
const CONNECTION_UNITS: u32 = units(512 << 10);

/// What a connection has besides, in small pieces, when its address or the process has had its share:
/// so it goes on, slowly.
const RESERVE_UNITS: u32 = units(64 << 10);

/// How much all connections of one address may have waiting, and those of all addresses.
const ADDRESS_UNITS: u32 = units(32 << 20);
const PROCESS_UNITS: u32 = units(256 << 20);

/// How much of what the registry does at once is whose.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Shares {
    /// Of the streams of one connection.
    pub(crate) connection: u32,
    /// Of all connections of one address.
    pub(crate) address: u32,
    /// Of all.
    pub(crate) process: u32,
}

/// What is counted for the whole process.
#[derive(Debug)]
pub(crate) struct Transfers {
    shares: Shares,
    /// For requests without a body, which a stream may give back and ask for again.
    downloads: Level,
    /// For requests with a body: nobody can give back what is half sent.
    uploads: Level,
    memory: Level,
}

/// The pools of all connections.
#[derive(Debug)]
struct Level {
    addresses: Keyed<IpAddr>,
    process: Pool,
}

/// What is counted for one connection.
#[derive(Debug)]
pub(crate) struct Streams {
    downloads: Pool,
    uploads: Pool,
    memory: Pool,
    reserve: Pool,
}

/// Whether a request brings a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Download,
    Upload,
}

/// The right to have the registry work for a stream.
#[derive(Debug)]
pub(crate) struct Transfer {
    connection: Permit,
    address: Permit,
    process: Permit,
}

/// The right to have bytes wait for the socket.
#[derive(Debug)]
pub(crate) struct Reservation {
    bytes: usize,
    _connection: Permit,
    /// Absent for a piece of the connection's reserve.
    _shared: Option<(Permit, Permit)>,
}

impl Level {
    fn new(address: u32, process: u32) -> Self {
        Self {
            addresses: Keyed::new(address),
            process: Pool::new(process),
        }
    }
}

tokio::task_local! {
    static STREAMS: Arc<Streams>;
}

impl Streams {
    /// Serves a stream of this connection.
    pub(crate) async fn serve<T>(self: Arc<Self>, stream: impl Future<Output = T>) -> T {
        STREAMS.scope(self, stream).await
    }

    /// Returns what is counted for the connection of the stream that this task serves; over HTTP/1.1
    /// there is none.
    pub(crate) fn current() -> Option<Arc<Self>> {
        STREAMS.try_with(Arc::clone).ok()
    }
}

impl Transfers {
    pub(crate) fn new(shares: Shares) -> Self {
        Self {
            shares,
            downloads: Level::new(shares.address, shares.process),
            uploads: Level::new(shares.address, shares.process),
            memory: Level::new(ADDRESS_UNITS, PROCESS_UNITS),
        }
    }

    /// Begins a connection.
    pub(crate) fn connection(&self) -> Arc<Streams> {
        Arc::new(Streams {
            downloads: Pool::new(self.shares.connection),
            uploads: Pool::new(self.shares.connection),
            memory: Pool::new(CONNECTION_UNITS),
            reserve: Pool::new(RESERVE_UNITS),
        })
    }

    /// Waits until the registry may work for a stream of `client`.
    pub(crate) async fn begin(&self, streams: &Streams, client: IpAddr, kind: Kind) -> Transfer {
        let (own, level) = match kind {
            Kind::Download => (&streams.downloads, &self.downloads),
            Kind::Upload => (&streams.uploads, &self.uploads),
        };
        let connection = own.acquire(1).await;
        let address = level.addresses.acquire(neighbours(client), 1).await;
        let process = level.process.acquire(1).await;
        Transfer {
            connection,
            address,
            process,
        }
    }

    /// Waits until a stream of `client` may have some bytes wait to be written, `want` at most.
    pub(crate) async fn reserve(
        &self,
        streams: &Streams,
        client: IpAddr,
        want: usize,
    ) -> Reservation {
        let count = units(want);
        let connection = streams.memory.acquire(count).await;
        let address = self.memory.addresses.pool(neighbours(client));
        let shared = address.try_acquire(count);
        if let Some(shared) = shared.zip(self.memory.process.try_acquire(count)) {
            return Reservation {
                bytes: want,
                _connection: connection,
                _shared: Some(shared),
            };
        }
        drop(connection);
        Reservation {
            bytes: want.min(UNIT_BYTES),
            _connection: streams.reserve.acquire(1).await,
            _shared: None,
        }
    }
}

impl Transfer {
    /// Waits until another stream waits for what this one holds.
    pub(crate) async fn wanted(&self) {
        tokio::select! {
            () = self.connection.wanted() => {}
            () = self.address.wanted() => {}
            () = self.process.wanted() => {}
        }
    }
}

impl Reservation {
    /// Returns how many bytes may wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Counts bytes: some for any, and no more than there can be.
#[expect(
    clippy::cast_possible_truncation,
    reason = "it is 64 MiB at the most here"
)]
const fn units(bytes: usize) -> u32 {
    bytes.div_ceil(UNIT_BYTES) as u32
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    const SHARES: Shares = Shares {
        connection: 2,
        address: 3,
        process: 5,
    };

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    fn waits<T>(future: impl Future<Output = T>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut context).is_pending()
    }

    #[tokio::test]
    async fn streams_of_a_connection_an_address_and_the_process_have_their_shares() {
        let transfers = Transfers::new(SHARES);
        let slot = async |streams: &Arc<Streams>, client| {
            transfers
                .begin(streams, address(client), Kind::Download)
                .await
        };
        let first = transfers.connection();
        let _held = (slot(&first, 1).await, slot(&first, 1).await);
        assert!(waits(slot(&first, 1)), "of the connection");
        let second = transfers.connection();
        let _more = slot(&second, 1).await;
        assert!(waits(slot(&second, 1)), "of the address");
        let third = transfers.connection();
        let held = (slot(&third, 2).await, slot(&third, 2).await);
        assert!(waits(slot(&transfers.connection(), 3)), "of the process");
        let upload = transfers.begin(&first, address(1), Kind::Upload);
        assert!(!waits(upload), "uploads have slots of their own");
        drop(held);
        assert!(!waits(slot(&transfers.connection(), 3)));
    }

    #[tokio::test]
    async fn who_holds_a_slot_hears_of_others_whatever_they_share() {
        let transfers = Transfers::new(SHARES);
        let own = transfers.connection();
        let slot = transfers.begin(&own, address(1), Kind::Download).await;
        let _second = transfers.begin(&own, address(1), Kind::Download).await;
        assert!(waits(slot.wanted()));
        {
            let mut same = pin!(transfers.begin(&own, address(1), Kind::Download));
            let mut context = Context::from_waker(Waker::noop());
            assert!(same.as_mut().poll(&mut context).is_pending());
            slot.wanted().await;
        }
        assert!(waits(slot.wanted()), "it waits no more");
        let other = transfers.connection();
        let _third = transfers.begin(&other, address(1), Kind::Download).await;
        let mut neighbour = pin!(transfers.begin(&other, address(1), Kind::Download));
        let mut context = Context::from_waker(Waker::noop());
        assert!(neighbour.as_mut().poll(&mut context).is_pending());
        slot.wanted().await;
    }

    #[tokio::test]
    async fn without_room_for_an_address_its_connections_go_on_slowly() {
        let transfers = Transfers::new(SHARES);
        let piece = 256 << 10;
        let mut held = Vec::new();
        for _ in 0..64 {
            let streams = transfers.connection();
            for _ in 0..2 {
                let room = transfers.reserve(&streams, address(1), piece).await;
                assert_eq!(room.bytes(), piece);
                held.push(room);
            }
            assert!(waits(transfers.reserve(&streams, address(1), piece)));
        }
        let streams = transfers.connection();
        for _ in 0..RESERVE_UNITS {
            let room = transfers.reserve(&streams, address(1), piece).await;
            assert_eq!(room.bytes(), UNIT_BYTES);
            held.push(room);
        }
        assert!(waits(transfers.reserve(&streams, address(1), piece)));
        let streams = transfers.connection();
        let other = transfers.reserve(&streams, address(2), piece).await;
        assert_eq!(other.bytes(), piece);
    }
}
