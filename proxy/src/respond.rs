//! The only place where a refusal becomes a response.
//!
//! A refusal is a value, [`Rejection`]; who asked decides its form: a registry's client gets the
//! spec's JSON, anyone else a line of text. Sending it is `edge`'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{StatusCode, Version};
use oci::route::RouteError;
use oci::{ErrorBody, ErrorCode};

use crate::auth::certificate::Objection;
use crate::limits::request_body::TooLarge;

/// The methods that every site knows, as `Allow` lists them.
pub(crate) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// So much of a header's name, or of a host, is shown to whoever sent it.
const NAME_SHOWN_MAX: usize = 100;

/// Who reads the body of a refusal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Audience {
    /// A person, or a program that this edge knows nothing of.
    Anyone,
    /// A client of the registry's API, which decodes JSON and shows its message.
    RegistryClient,
}

/// Why a request goes no further.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Rejection {
    /// `Host` is missing, repeated or no host.
    BadHost,
    /// The request cannot be understood.
    BadRequest,
    /// The body is longer than the site allows.
    BodyTooLarge {
        /// What it allows.
        max: u64,
    },
    /// Too many passwords wait to be hashed.
    Busy,
    /// The client's certificate does not let it in.
    Certificate(Objection),
    /// Who asks may not do this.
    Denied,
    /// The headers are too many or too long.
    HeadersTooLarge,
    /// Something failed here.
    Internal,
    /// The site does not pass on requests with this method.
    MethodNotAllowed {
        /// The methods that it does.
        allow: String,
    },
    /// The connection was made for another site.
    Misdirected,
    /// The request came without TLS where TLS is spoken.
    NeedsTls,
    /// There is no such page on a registry's site.
    NotFound,
    /// The site has as much to do as it may.
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The value of this header has blanks around it.
    PaddedHeader(HeaderName),
    /// The path under `/v2/` names nothing.
    Route(RouteError),
    /// The client stopped sending.
    Timeout,
    /// Too many logins have failed.
    TooManyFailures {
        /// When there is room for another.
        retry_after: Duration,
    },
    /// The client asks more than its share.
    TooManyRequests {
        /// When to come back.
        retry_after: Duration,
    },
    /// No credentials, or wrong ones.
    Unauthorized {
        /// How to do better, each in a header of its own.
        challenges: Vec<Challenge>,
    },
    /// No site has this host.
    UnknownHost {
        /// The host, as the client wrote it.
        host: Box<str>,
    },
    /// The upstream broke off before it answered.
    UpstreamFailed,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The upstream cannot be reached.
    UpstreamUnreachable,
    /// The path and query are too long.
    UriTooLong,
}

impl From<TooLarge> for Rejection {
    fn from(TooLarge { max }: TooLarge) -> Self {
        Self::BodyTooLarge { max }
    }
}

impl Rejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadHost | Self::BadRequest | Self::NeedsTls | Self::PaddedHeader(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy | Self::Overloaded { .. } | Self::UpstreamUnreachable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Certificate(_) | Self::Denied => StatusCode::FORBIDDEN,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Route(error) => error
                .code()
                .map_or(StatusCode::NOT_FOUND, ErrorCode::status),
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooManyFailures { .. } | Self::TooManyRequests { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Misdirected | Self::UnknownHost { .. } => StatusCode::MISDIRECTED_REQUEST,
            Self::UpstreamFailed => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
        }
    }

    /// Returns the spec's nearest code; it has none for much of what a proxy refuses.
    fn code(&self) -> ErrorCode {
        match self {
            Self::BadHost
            | Self::BadRequest
            | Self::HeadersTooLarge
            | Self::MethodNotAllowed { .. }
            | Self::Misdirected
            | Self::NeedsTls
            | Self::NotFound
            | Self::PaddedHeader(_)
            | Self::UnknownHost { .. }
            | Self::UriTooLong => ErrorCode::Unsupported,
            Self::BodyTooLarge { .. } => ErrorCode::SizeInvalid,
            Self::Busy
            | Self::Overloaded { .. }
            | Self::TooManyFailures { .. }
            | Self::TooManyRequests { .. } => ErrorCode::TooManyRequests,
            Self::Certificate(_) | Self::Denied => ErrorCode::Denied,
            Self::Internal | Self::Timeout => ErrorCode::Unknown,
            Self::Route(error) => error.code().unwrap_or(ErrorCode::Unsupported),
            Self::Unauthorized { .. } => ErrorCode::Unauthorized,
            Self::UpstreamFailed | Self::UpstreamTimeout | Self::UpstreamUnreachable => {
                ErrorCode::Unavailable
            }
        }
    }

    fn message(&self) -> String {
        match self {
            Self::BadHost => "the Host header is missing or malformed".to_owned(),
            Self::BadRequest => "malformed request".to_owned(),
            Self::BodyTooLarge { max } => format!("the body may have {max} bytes at most"),
            Self::Busy => "too many logins at once, try again shortly".to_owned(),
            Self::Certificate(objection) => format!("the client certificate is {objection}"),
            Self::Denied => "requested access to the resource is denied".to_owned(),
            Self::HeadersTooLarge => "the request's headers are too large".to_owned(),
            Self::Internal => "internal error".to_owned(),
            Self::Misdirected => {
                "this connection was not made for the site that is asked for".to_owned()
            }
            Self::MethodNotAllowed { .. } => "method not allowed here".to_owned(),
            Self::NeedsTls => {
                "this is an HTTPS port and the request came over plain HTTP: use https://"
                    .to_owned()
            }
            Self::NotFound => "not found".to_owned(),
            Self::PaddedHeader(name) => {
                format!("header \"{name:.NAME_SHOWN_MAX$}\" has blanks around its value")
            }
            Self::Overloaded { .. } => "the service is busy, try again shortly".to_owned(),
            Self::Route(error) => error.to_string(),
            Self::TooManyFailures { .. } => "too many failed logins, try again later".to_owned(),
            Self::TooManyRequests { .. } => "too many requests, slow down".to_owned(),
            Self::Timeout => "the request took too long to arrive".to_owned(),
            Self::Unauthorized { .. } => "authentication required".to_owned(),
            Self::UnknownHost { host } => {
                format!("no site of the name \"{host:.NAME_SHOWN_MAX$}\" is served here")
            }
            Self::UpstreamFailed => "the service broke off".to_owned(),
            Self::UpstreamTimeout => "the service did not answer in time".to_owned(),
            Self::UpstreamUnreachable => "the service is not available just now".to_owned(),
            Self::UriTooLong => "the request's path is too long".to_owned(),
        }
    }

    /// Returns the response for `audience`.
    pub(crate) fn reply(&self, audience: Audience) -> Reply {
        let (content_type, body) = match audience {
            Audience::Anyone => (
                "text/plain; charset=utf-8",
                format!("{}\n", self.message()).into_bytes(),
            ),
            Audience::RegistryClient => (
                ErrorBody::CONTENT_TYPE,
                ErrorBody::new(self.code(), self.message()).to_json(),
            ),
        };
        let mut reply = Reply::page(self.status(), content_type, body.into());
        match self {
            Self::Unauthorized { challenges } => {
                for challenge in challenges.iter().filter_map(Challenge::header) {
                    reply.headers.push((WWW_AUTHENTICATE, challenge));
                }
            }
            Self::Busy => reply
                .headers
                .push((RETRY_AFTER, HeaderValue::from_static("1"))),
            Self::Overloaded { retry_after }
            | Self::TooManyFailures { retry_after }
            | Self::TooManyRequests { retry_after } => {
                reply.headers.push((RETRY_AFTER, seconds(*retry_after)));
            }
            Self::UpstreamUnreachable => {
                reply
                    .headers
                    .push((RETRY_AFTER, HeaderValue::from_static("5")));
            }
            Self::MethodNotAllowed { allow } => {
                let allow = HeaderValue::try_from(allow);
                reply.headers.extend(allow.map(|allow| (ALLOW, allow)));
            }
            Self::BadHost
            | Self::BadRequest
            | Self::BodyTooLarge { .. }
            | Self::Certificate(_)
            | Self::Denied
            | Self::HeadersTooLarge
            | Self::Internal
            | Self::Misdirected
            | Self::NeedsTls
            | Self::NotFound
            | Self::PaddedHeader(_)
            | Self::Route(_)
            | Self::Timeout
            | Self::UnknownHost { .. }
            | Self::UpstreamFailed
            | Self::UpstreamTimeout
            | Self::UriTooLong => {}
        }
        reply
    }
}

/// A whole response of the edge's own.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// Returns a page with a body.
    pub(crate) fn page(status: StatusCode, content_type: &'static str, body: Bytes) -> Self {
        Self {
            status,
            headers: vec![
                (CONTENT_TYPE, HeaderValue::from_static(content_type)),
                (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
                (CACHE_CONTROL, HeaderValue::from_static("no-store")),
            ],
            body,
        }
    }

    /// Returns the permanent redirect that keeps method and body.
    pub(crate) fn redirect(location: HeaderValue) -> Self {
        Self {
            status: StatusCode::PERMANENT_REDIRECT,
            headers: vec![(LOCATION, location)],
            body: Bytes::new(),
        }
    }

    /// Returns what a registry's client is told of the methods there are.
    pub(crate) fn methods() -> Self {
        let methods = HeaderValue::from_static(METHODS);
        Self {
            status: StatusCode::NO_CONTENT,
            headers: vec![(ALLOW, methods)],
            body: Bytes::new(),
        }
    }
}

/// How a client can prove who it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Challenge {
    /// With a name and a password (RFC 7617).
    Basic {
        /// What the password is asked for.
        realm: Arc<str>,
    },
    /// With a token (RFC 6750, and distribution's words for what it must be good for).
    Bearer(Bearer),
}

/// Where to get which token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Bearer {
    /// The URL.
    pub(crate) realm: String,
    pub(crate) service: String,
    /// What it must be good for; empty where a name is enough.
    pub(crate) scope: String,
    /// What is wrong with the token that was brought.
    pub(crate) error: Option<&'static str>,
}

impl Challenge {
    fn header(&self) -> Option<HeaderValue> {
        let text = match self {
            Self::Basic { realm } => format!("Basic realm={}, charset=\"UTF-8\"", quote(realm)),
            Self::Bearer(bearer) => {
                let Bearer {
                    realm,
                    service,
                    scope,
                    error,
                } = bearer;
                let mut text = format!("Bearer realm={},service={}", quote(realm), quote(service));
                // Some clients split at every comma that a space follows.
                if !scope.is_empty() {
                    text += &format!(",scope={}", quote(scope));
                }
                if let Some(error) = error {
                    text += &format!(",error=\"{error}\"");
                }
                text
            }
        };
        HeaderValue::from_str(&text).ok()
    }
}

fn quote(text: &str) -> String {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{quoted}\"")
}

/// Returns a time in whole seconds, never less than it is.
fn seconds(time: Duration) -> HeaderValue {
    let whole = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    whole.max(1).into()
}

/// Returns how the access log and `Forwarded` spell a protocol version.
pub(crate) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(reply: &'a Reply, name: &str) -> Vec<&'a str> {
        reply
            .headers
            .iter()
            .filter(|(key, _)| key.as_str() == name)
            .map(|(_, value)| value.to_str().unwrap())
            .collect()
    }

    #[test]
    fn a_registry_client_gets_json_and_the_challenge() {
        let rejection = Rejection::Unauthorized {
            challenges: vec![
                Challenge::Bearer(Bearer {
                    realm: "https://a.test/auth/token".to_owned(),
                    service: "a.test".to_owned(),
                    scope: "repository:a:pull,push".to_owned(),
                    error: Some("insufficient_scope"),
                }),
                Challenge::Basic {
                    realm: "My \"Registry\"".into(),
                },
            ],
        };
        let reply = rejection.reply(Audience::RegistryClient);
        assert_eq!(reply.status, 401);
        assert_eq!(
            header(&reply, "www-authenticate"),
            [
                "Bearer realm=\"https://a.test/auth/token\",service=\"a.test\",\
                 scope=\"repository:a:pull,push\",error=\"insufficient_scope\"",
                "Basic realm=\"My \\\"Registry\\\"\", charset=\"UTF-8\""
            ]
        );
        assert_eq!(header(&reply, "content-type"), ["application/json"]);
        assert_eq!(
            &reply.body[..],
            br#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#
        );
    }

    #[test]
    fn anyone_else_gets_a_line_of_text() {
        let host = "registry.lan".into();
        let reply = Rejection::UnknownHost { host }.reply(Audience::Anyone);
        assert_eq!(reply.status, 421);
        assert_eq!(header(&reply, "x-content-type-options"), ["nosniff"]);
        let expected = "no site of the name \"registry.lan\" is served here\n";
        assert_eq!(reply.body, expected);
    }

    #[test]
    fn of_a_long_host_only_the_beginning_is_shown() {
        let host = "a".repeat(9000).into();
        let reply = Rejection::UnknownHost { host }.reply(Audience::RegistryClient);
        assert!(reply.body.len() < 250, "{:?}", reply.body);
    }

    #[test]
    fn of_a_header_with_a_long_name_only_the_beginning_is_shown() {
        let name: HeaderName = "a".repeat(200).parse().unwrap();
        let reply = Rejection::PaddedHeader(name).reply(Audience::Anyone);
        let expected = format!(
            "header \"{}\" has blanks around its value\n",
            "a".repeat(100)
        );
        assert_eq!(reply.body, expected);
    }

    #[test]
    fn statuses_and_codes_go_together() {
        let route = |path| Rejection::Route(oci::Route::parse(path).unwrap_err());
        for (rejection, status, code) in [
            (route("/v2/A/manifests/x"), 400, "NAME_INVALID"),
            (route("/v2/a/manifests/.x"), 400, "TAG_INVALID"),
            (route("/v2/a/blobs/x"), 400, "DIGEST_INVALID"),
            (route("/v2/a/blobs/uploads/x"), 404, "BLOB_UPLOAD_UNKNOWN"),
            (route("/v2/nothing"), 404, "UNSUPPORTED"),
            (Rejection::UpstreamUnreachable, 503, "UNAVAILABLE"),
            (Rejection::UpstreamFailed, 502, "UNAVAILABLE"),
            (Rejection::UpstreamTimeout, 504, "UNAVAILABLE"),
            (Rejection::BodyTooLarge { max: 5 }, 413, "SIZE_INVALID"),
            (Rejection::Denied, 403, "DENIED"),
            (Rejection::HeadersTooLarge, 431, "UNSUPPORTED"),
            (Rejection::UriTooLong, 414, "UNSUPPORTED"),
            (Rejection::Busy, 503, "TOOMANYREQUESTS"),
            (Rejection::Internal, 500, "UNKNOWN"),
            (
                Rejection::PaddedHeader("x".parse().unwrap()),
                400,
                "UNSUPPORTED",
            ),
        ] {
            let reply = rejection.reply(Audience::RegistryClient);
            assert_eq!(reply.status, status, "{rejection:?}");
            let body = String::from_utf8(reply.body.to_vec()).unwrap();
            assert!(body.contains(code), "{body}");
        }
        let retry_after = Duration::from_millis(1200);
        for (rejection, status) in [
            (Rejection::Overloaded { retry_after }, 503),
            (Rejection::TooManyFailures { retry_after }, 429),
            (Rejection::TooManyRequests { retry_after }, 429),
        ] {
            let reply = rejection.reply(Audience::RegistryClient);
            assert_eq!(reply.status, status, "{rejection:?}");
            assert_eq!(header(&reply, "retry-after"), ["2"]);
            let body = String::from_utf8(reply.body.to_vec()).unwrap();
            assert!(body.contains("TOOMANYREQUESTS"), "{body}");
        }
        let reply = Rejection::UpstreamUnreachable.reply(Audience::RegistryClient);
        assert_eq!(header(&reply, "retry-after"), ["5"]);
        let allow = "GET, HEAD".to_owned();
        let reply = Rejection::MethodNotAllowed { allow }.reply(Audience::RegistryClient);
        assert_eq!(
            (reply.status.as_u16(), header(&reply, "allow")),
            (405, vec!["GET, HEAD"])
        );
    }
}
