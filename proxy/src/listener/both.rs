//! One socket for IPv6 and IPv4: `[::]:443` is every address of the machine.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// As the standard library has it; what serves the socket makes more room.
const BACKLOG: i32 = 128;

/// Returns what an address comes to on this machine: where there is no IPv6, all of its addresses are those
/// of IPv4.
pub(super) fn or_ipv4(address: SocketAddr) -> SocketAddr {
    if !is_every(address) || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok() {
        return address;
    }
    let instead = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    tracing::warn!(%address, %instead, "there is no IPv6 here: listening on IPv4 alone");
    instead
}

/// Binds a socket; `[::]` is IPv4 as well, whatever `net.ipv6.bindv6only` says.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !is_every(address) {
        return TcpListener::bind(address);
    }
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Returns whether this is every address, of IPv6 and of IPv4.
fn is_every(address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified()
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn both_kinds_of_address_reach_one_socket() {
        let every = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let bound = bind(or_ipv4(every)).unwrap();
        let port = bound.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if bound.local_addr().unwrap().is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
    }

    #[test]
    fn an_address_of_one_kind_is_itself() {
        for text in ["127.0.0.1:443", "[::1]:443", "0.0.0.0:443"] {
            let address = text.parse().unwrap();
            assert_eq!(or_ipv4(address), address);
        }
    }
}
