//! How a CA's questions are answered: opened before it is told to ask, closed when it has.
//!
//! HTTP-01 and TLS-ALPN-01 are answered by the listeners, from maps that outlive each reload;
//! DNS-01 by a program of the operator's. What is open is also kept in the state folder: another
//! edge on the same folder may be the one that the CA asks.

use std::fmt::Display;

use super::failure::{Failure, Part};
use super::storage::Storage;
use super::{dns01, http01, tls_alpn01};
use crate::config::DnsHook;
use crate::filter::acme_challenge::Challenges;
use crate::tls::AlpnChallenges;

/// What is answered by the listeners at this moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) http: Challenges,
    pub(crate) tls: AlpnChallenges,
}

/// What a CA is to be answered for a host.
pub(super) struct Question<'a> {
    pub(super) method: Method,
    pub(super) host: &'a str,
    pub(super) token: &'a str,
    /// What stands in the reply of HTTP-01.
    pub(super) authorization: &'a str,
    /// Its digest, for TLS-ALPN-01.
    pub(super) digest: &'a [u8],
    /// The same in the letters of a DNS record.
    pub(super) record: &'a str,
}

/// How a CA asks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Method {
    Dns01,
    Http01,
    TlsAlpn01,
}

impl Method {
    /// Returns its name in RFC 8555 and RFC 8737.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dns01 => "dns-01",
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// An answer that is to be taken back.
enum Open {
    Dns { name: String, value: String },
    Http { token: String },
    Tls { host: String },
}

/// The answers of one order.
pub(super) struct Desk<'a> {
    answers: &'a Answers,
    storage: &'a Storage,
    hook: Option<&'a DnsHook>,
    open: Vec<Open>,
}

impl<'a> Desk<'a> {
    pub(super) fn new(
        answers: &'a Answers,
        storage: &'a Storage,
        hook: Option<&'a DnsHook>,
    ) -> Self {
        Self {
            answers,
            storage,
            hook,
            open: Vec::new(),
        }
    }

    /// Makes ready for one question.
    pub(super) async fn open(&mut self, question: &Question<'_>) -> Result<(), Failure> {
        let host = question.host;
        let ours = |error: &dyn Display| Failure::ours(error).about(host);
        match question.method {
            Method::Http01 => {
                self.open.push(Open::Http {
                    token: question.token.to_owned(),
                });
                http01::open(question, &self.answers.http, self.storage)
                    .map_err(|error| ours(&error))
            }
            Method::TlsAlpn01 => {
                self.open.push(Open::Tls {
                    host: host.to_owned(),
                });
                tls_alpn01::open(question, &self.answers.tls, self.storage)
                    .map_err(|error| ours(&error))
            }
            Method::Dns01 => {
                let hook = self
                    .hook
                    .ok_or_else(|| Failure::by(Part::Hook, "there is no [acme.dns]"))?;
                let name = dns01::name(host);
                // Also taken back when the program failed half-way.
                self.open.push(Open::Dns {
                    name: name.clone(),
                    value: question.record.to_owned(),
                });
                dns01::add(hook, &name, question.record)
                    .await
                    .map_err(|error| Failure::by(Part::Hook, error).about(host))
            }
        }
    }

    /// Waits until the whole network can know what was opened.
    pub(super) async fn settle(&self) {
        let by_dns = |open: &Open| matches!(open, Open::Dns { .. });
        if let Some(hook) = self.hook.filter(|_| self.open.iter().any(by_dns)) {
            tokio::time::sleep(hook.propagation).await;
        }
    }

    /// Takes everything back.
    pub(super) async fn close(self) {
        for open in self.open {
            let closed = match open {
                Open::Http { token } => http01::close(&token, &self.answers.http, self.storage)
                    .map_err(|error| error.to_string()),
                Open::Tls { host } => tls_alpn01::close(&host, &self.answers.tls, self.storage)
                    .map_err(|error| error.to_string()),
                Open::Dns { name, value } => match self.hook {
                    Some(hook) => dns01::remove(hook, &name, &value)
                        .await
                        .map_err(|error| error.to_string()),
                    None => Ok(()),
                },
            };
            if let Err(error) = closed {
                tracing::warn!(error, "an answer to a CA's challenge was not taken back");
            }
        }
    }
}
