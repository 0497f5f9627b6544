//! Clients that speak plain HTTP where TLS is spoken: they are told so, in a way that they understand.
//!
//! A browser is sent to the same page over TLS. Whoever else comes this way has been given the wrong
//! URL, or is a client that tries plain HTTP when TLS has not worked; it gets an error that says what to
//! do. Nothing it has sent is looked at beyond that.

use std::net::SocketAddr;
use std::time::Instant;

use http::header::{ACCEPT, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};
use oci::Route;
use pingora::protocols::http::ServerSession;

use super::single_reply;
use super::socket::Socket;
use crate::filter::host::Host;
use crate::respond::{Audience, Rejection, Reply};

/// What the access log says of it.
const BECAUSE: &str = "plain HTTP on a port for HTTPS";

/// Returns whether a connection that begins with this byte is one of HTTP: with the first letter of a
/// method. A record of TLS begins with its type, a handshake's with 22.
pub(super) fn begins_with(first: u8) -> bool {
    first.is_ascii_uppercase()
}

/// Answers one request, and ends the connection.
pub(super) async fn answer(socket: Socket, client: SocketAddr) {
    let started = Instant::now();
    let mut session = ServerSession::new_http1(Box::new(socket));
    if !session.read_request().await.unwrap_or_default() {
        return;
    }
    let reply = reply(session.req_header());
    single_reply::send(session, client, started, reply, Some(BECAUSE)).await;
}

/// Decides what a request is answered.
fn reply(parts: &Parts) -> Reply {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    if parts.method == Method::GET
        && is_browser(&parts.headers)
        && path.starts_with('/')
        && let Ok(host) = Host::of(parts)
        && let Ok(there) = HeaderValue::try_from(format!("https://{}{path}", host.authority()))
    {
        return Reply::redirect(there);
    }
    let audience = match Route::covers(parts.uri.path()) {
        true => Audience::RegistryClient,
        false => Audience::Anyone,
    };
    Rejection::NeedsTls.reply(audience)
}

/// Returns whether whoever asks would like a page to show, which no client of a registry does.
fn is_browser(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        reply(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_browser_is_sent_to_the_same_page_and_others_are_told() {
        let (html, host) = (("accept", "text/html,*/*"), ("host", "r.test:8443"));
        let sent = ask("GET", "/a?b=c", &[html, host]);
        assert_eq!(sent.status, 308);
        assert_eq!(sent.headers[0].1, "https://r.test:8443/a?b=c");
        for (method, path, headers) in [
            ("GET", "/v2/", &[host][..]),
            ("GET", "/", &[host, ("accept", "*/*")]),
            ("POST", "/", &[host, html]),
            ("GET", "/", &[html]),
            ("GET", "/", &[html, ("host", "a@b")]),
        ] {
            let told = ask(method, path, headers);
            assert_eq!(told.status, 400, "{method} {path}");
            let body = String::from_utf8_lossy(&told.body).into_owned();
            assert!(body.contains("https://"), "{body}");
            assert_eq!(body.starts_with('{'), path == "/v2/", "{body}");
        }
    }

    #[test]
    fn what_begins_with_a_method_is_http() {
        assert!(b"GPHDOT".iter().all(|first| begins_with(*first)));
        assert!(![22, 0x80, 0, b'g', b' '].into_iter().any(begins_with));
    }
}
