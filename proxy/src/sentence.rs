//! What an error of Pingora's says, as one plain sentence.
//!
//! Pingora's own text is for its developers: names of types, the same context at every level. And it
//! may quote what was received, which has no place in a log.

use pingora::{Error, ErrorType};

/// Says what went wrong, and with whom if that is known: `connect to 127.0.0.1:1: connection refused`.
pub(crate) fn sentence(error: &Error, peer: Option<&str>) -> String {
    use ErrorType as T;
    let (step, known) = match error.etype() {
        T::ConnectRefused => ("connect to", Some("connection refused")),
        T::ConnectTimedout => ("connect to", Some("timed out")),
        T::ConnectNoRoute
        | T::ConnectError
        | T::ConnectProxyFailure
        | T::BindError
        | T::SocketError => ("connect to", None),
        T::TLSHandshakeTimedout => ("TLS handshake with", Some("timed out")),
        T::InvalidCert => (
            "TLS handshake with",
            Some("its certificate cannot be verified"),
        ),
        T::TLSHandshakeFailure | T::HandshakeError | T::TLSWantX509Lookup => {
            ("TLS handshake with", None)
        }
        T::InvalidHTTPHeader | T::H1Error => ("read from", Some("not valid HTTP")),
        T::H2Error | T::H2Downgrade | T::InvalidH2 => ("speak HTTP/2 with", None),
        T::ReadError => ("read from", None),
        T::ReadTimedout => ("read from", Some("timed out")),
        T::WriteError => ("write to", None),
        T::WriteTimedout => ("write to", Some("timed out")),
        T::ConnectionClosed => ("read from", Some("connection closed")),
        T::FileOpenError | T::FileCreateError | T::FileReadError | T::FileWriteError => {
            return match system(error) {
                Some(cause) => format!("file of a blob: {cause}"),
                None => "file of a blob".to_owned(),
            };
        }
        T::AcceptError | T::InternalError | T::UnknownError => {
            return match system(error) {
                Some(cause) => format!("internal error: {cause}"),
                None => "internal error".to_owned(),
            };
        }
        T::HTTPStatus(status) | T::CustomCode(_, status) => return format!("status {status}"),
        T::Custom(name) => return (*name).to_owned(),
    };
    let step = match peer {
        Some(peer) => format!("{step} {peer}"),
        // The preposition is left without its object.
        None => step
            .rsplit_once(' ')
            .map_or(step, |(verb, _)| verb)
            .to_owned(),
    };
    let known = known.map(str::to_owned);
    let cause = known.or_else(|| system(error)).or_else(|| openssl(error));
    format!("{step}: {}", cause.as_deref().unwrap_or("failed"))
}

/// Returns what the system, or whatever else is not Pingora, said at the root of it all.
fn system(error: &Error) -> Option<String> {
    let root = error.root_cause();
    if root.is::<Box<Error>>() || root.is::<Error>() {
        return None;
    }
    let text = root.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    let first = chars.next()?.to_lowercase();
    Some(first.chain(chars).collect())
}

/// Returns OpenSSL's reason, of which Pingora keeps nothing but a text:
/// `…error:0A00010B:SSL routines:ssl3_get_record:wrong version number:…`.
fn openssl(error: &Error) -> Option<String> {
    let root = error.root_cause().downcast_ref::<Error>()?;
    let mut fields = root.context.as_ref()?.as_str().split(':');
    fields.find(|field| field.ends_with(" routines"))?;
    let reason = fields.nth(1)?;
    (!reason.is_empty()).then(|| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn an_error_is_one_sentence_that_names_the_peer_and_quotes_nothing_received() {
        use ErrorType as T;
        let peer = Some("127.0.0.1:1");
        let because = |kind, cause: io::Error| Error::because(kind, "peer: a: secret", cause);
        let refused = because(T::ConnectRefused, io::ErrorKind::ConnectionRefused.into());
        let told = sentence(&refused, peer);
        assert_eq!(told, "connect to 127.0.0.1:1: connection refused");
        let again = Error::because(T::ConnectRefused, "Fail to connect to addr", refused);
        assert_eq!(sentence(&again, peer), told);
        assert_eq!(sentence(&again, None), "connect: connection refused");
        let absent = because(T::ConnectError, io::Error::from_raw_os_error(2));
        let told = sentence(&absent, Some("/run/x.sock"));
        assert_eq!(told, "connect to /run/x.sock: no such file or directory");
        for (kind, told) in [
            (
                T::InvalidHTTPHeader,
                "read from 127.0.0.1:1: not valid HTTP",
            ),
            (T::ReadError, "read from 127.0.0.1:1: failed"),
            (T::ReadTimedout, "read from 127.0.0.1:1: timed out"),
            (T::InternalError, "internal error"),
            (
                T::InvalidCert,
                "TLS handshake with 127.0.0.1:1: its certificate cannot be verified",
            ),
        ] {
            let bare = Error::explain(kind, "buf: Set-Cookie: secret");
            assert_eq!(sentence(&bare, peer), told);
        }
        let context = "TLS connect() failed: error:0A00010B:SSL routines:ssl3_get_record:wrong version \
                       number:../ssl/record/ssl3_record.c:354:, SNI: a";
        let tls = Error::explain(T::TLSHandshakeFailure, context);
        let told = "TLS handshake with 127.0.0.1:1: wrong version number";
        assert_eq!(sentence(&tls, peer), told);
        let outer = Error::because(T::TLSHandshakeFailure, "more", tls);
        assert_eq!(sentence(&outer, peer), told);
    }
}
