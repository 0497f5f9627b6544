//! The header that a load balancer puts in front of a connection to say whom it is from.
//!
//! The PROXY protocol of `HAProxy`, versions 1 and 2. Whose word is taken for it is decided by
//! `accept`; here it is read, and not a byte more than it.

use std::io;
use std::net::SocketAddr;

use proxy_header::{ParseConfig, Protocol, ProxyHeader};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest header of version 1, by its specification.
const TEXT_BYTES_MAX: usize = 107;

/// The part of version 2 whose length is known, which ends with the length of the rest.
const BINARY_START_BYTES: usize = 16;

/// The longest rest: addresses, and what else a balancer tells. The largest of that, a client's
/// certificate, is 2 KiB.
const BINARY_REST_BYTES_MAX: usize = 4 << 10;

/// Why a header cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The bytes are no header.
    #[error("no header of the PROXY protocol")]
    Malformed,
    /// It speaks of something else than a TCP connection.
    #[error("a PROXY protocol header for another protocol than TCP")]
    NotTcp,
    /// The connection ended within it.
    #[error("the connection ended within the PROXY protocol header")]
    Read(#[source] io::Error),
    /// It is longer than any that is to be expected.
    #[error("the PROXY protocol header is too long")]
    TooLong,
}

/// Reads a header and returns the client that it names; `None` is the peer itself, as for a
/// balancer's own health checks.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<SocketAddr>, Error> {
    let mut header = vec![stream.read_u8().await.map_err(Error::Read)?];
    match header.first() {
        Some(b'P') => read_text(stream, &mut header).await?,
        Some(b'\r') => read_binary(stream, &mut header).await?,
        _ => return Err(Error::Malformed),
    }
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: true,
        allow_v2: true,
    };
    let (parsed, length) = ProxyHeader::parse(&header, config).map_err(|_why| Error::Malformed)?;
    if length != header.len() {
        return Err(Error::Malformed);
    }
    match parsed.proxied_address() {
        Some(told) if told.protocol == Protocol::Stream => Ok(Some(told.source)),
        Some(_) => Err(Error::NotTcp),
        None => Ok(None),
    }
}

async fn read_text(
    stream: &mut (impl AsyncRead + Unpin),
    header: &mut Vec<u8>,
) -> Result<(), Error> {
    while !header.ends_with(b"\r\n") {
        // Whatever else begins with this letter need not be waited for.
        if !header.starts_with(b"PROXY ") && !b"PROXY ".starts_with(header) {
            return Err(Error::Malformed);
        }
        if header.len() == TEXT_BYTES_MAX {
            return Err(Error::TooLong);
        }
        header.push(stream.read_u8().await.map_err(Error::Read)?);
    }
    Ok(())
}

async fn read_binary(
    stream: &mut (impl AsyncRead + Unpin),
    header: &mut Vec<u8>,
) -> Result<(), Error> {
    let mut start = [0; BINARY_START_BYTES - 1];
    stream.read_exact(&mut start).await.map_err(Error::Read)?;
    header.extend_from_slice(&start);
    let [.., high, low] = start;
    let rest = usize::from(u16::from_be_bytes([high, low]));
    if rest > BINARY_REST_BYTES_MAX {
        return Err(Error::TooLong);
    }
    header.resize(BINARY_START_BYTES + rest, 0);
    let rest = header.get_mut(BINARY_START_BYTES..).unwrap_or_default();
    stream.read_exact(rest).await.map_err(Error::Read)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2 with this command, family and rest.
    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
        header.extend([command, family]);
        header.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
        header.extend(rest);
        header
    }

    const V4: &[u8] = &[203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x34, 1, 0xbb];

    fn v6() -> Vec<u8> {
        let mut rest = vec![0x20, 1, 0x0d, 0xb8];
        rest.extend([0; 11]);
        rest.push(7);
        rest.extend([0; 15]);
        rest.extend([1, 0x12, 0x34, 1, 0xbb]);
        rest
    }

    #[tokio::test]
    async fn a_header_is_read_to_its_last_byte_and_no_further() {
        let with_extras = [V4, &[0x04, 0, 3, 1, 2, 3]].concat();
        for (header, client) in [
            (
                b"PROXY TCP4 203.0.113.7 10.0.0.1 4660 443\r\n".to_vec(),
                Some("203.0.113.7:4660"),
            ),
            (
                b"PROXY TCP6 2001:db8::7 2001:db8::1 4660 443\r\n".to_vec(),
                Some("[2001:db8::7]:4660"),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (
                b"PROXY UNKNOWN ffff:ffff::1 ffff:ffff::2 65535 65535\r\n".to_vec(),
                None,
            ),
            (binary(0x21, 0x11, V4), Some("203.0.113.7:4660")),
            (binary(0x21, 0x11, &with_extras), Some("203.0.113.7:4660")),
            (binary(0x21, 0x21, &v6()), Some("[2001:db8::7]:4660")),
            (binary(0x20, 0x00, &[]), None),
            (binary(0x20, 0x11, V4), None),
            (binary(0x21, 0x00, &[]), None),
            (binary(0x21, 0x31, &[0; 216]), None),
        ] {
            let bytes = [&header[..], b"GET"].concat();
            let mut stream = &bytes[..];
            let found = read(&mut stream).await.unwrap();
            let name = String::from_utf8_lossy(&header).into_owned();
            assert_eq!(
                found,
                client.map(|client| client.parse().unwrap()),
                "{name}"
            );
            assert_eq!(stream, b"GET", "{name}");
        }
    }

    #[tokio::test]
    async fn whatever_else_comes_is_no_header() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for (bytes, told) in [
            (b"\x16\x03\x01\x02\x00\x01".to_vec(), "no header"),
            (b"GET / HTTP/1.1\r\n".to_vec(), "no header"),
            (b"POST / HTTP/1.1\r\n".to_vec(), "no header"),
            (b"PRI * HTTP/2.0\r\n".to_vec(), "no header"),
            (b"PROXY TCP4 1.2.3.4\r\n".to_vec(), "no header"),
            (b"PROXY TCP4 ::1 ::1 1 1\r\n".to_vec(), "no header"),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n".to_vec(),
                "no header",
            ),
            (b"PROXY TCP9 1.2.3.4 1.2.3.4 1 1\r\n".to_vec(), "no header"),
            (b"PROXY \r\n".to_vec(), "no header"),
            (b"PROXY TCP4 1.2.3.4".to_vec(), "ended within"),
            (long.into_bytes(), "too long"),
            (binary(0x11, 0x11, V4), "no header"),
            (binary(0x22, 0x11, V4), "no header"),
            (binary(0x21, 0x41, V4), "no header"),
            (binary(0x21, 0x11, &V4[..5]), "no header"),
            (binary(0x21, 0x21, V4), "no header"),
            (binary(0x21, 0x12, V4), "another protocol"),
            (binary(0x21, 0x11, &[0; 5000]), "too long"),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01".to_vec(),
                "ended within",
            ),
            (b"\r\nxxxxxxxxxxxxxxxxxxxxx".to_vec(), "too long"),
            (Vec::new(), "ended within"),
        ] {
            let error = read(&mut &bytes[..]).await.unwrap_err().to_string();
            assert!(error.contains(told), "{error}: {bytes:?}");
        }
    }
}
