//! What happens in a handshake: OpenSSL's settings, and by name which certificate is shown and
//! whether one is asked for.
//!
//! Sessions that go on (tickets) carry no identity: a handshake that asks for a certificate gives out
//! no ticket, so no session that is resumed has one, and no chain that a client has shown outlives its
//! connection. What a session was begun under is part of it: when other sites ask for certificates
//! than did then, it is not resumed, and whoever is to be asked now is asked.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use openssl::ssl::{
    AlpnError, NameType, SslAcceptor, SslMethod, SslMode, SslOptions, SslSessionCacheMode,
    SslVersion, select_next_proto,
};
use pingora::ErrorType;
use pingora::listeners::TlsAccept;
use pingora::protocols::IO;
use pingora::protocols::tls::server::handshake_with_callback;
use pingora::protocols::tls::{SslStream, TlsRef};
use pingora::tls::ext::ssl_set_verify_cert_store;

use super::client_auth::{ClientAuth, Noted, Shown};
use super::{Error, Handshake, Presented, TicketKeys, alpn, tickets};
use crate::auth::certificate::Verdict;
use crate::config::{HostPattern, Tls, TlsVersion};
use crate::state::State;

/// How many each handshake of TLS 1.3 gives out. Clients of registries resume none, and each is a
/// write of its own.
const TICKETS: usize = 1;

/// The ciphers of TLS 1.2: Mozilla's intermediate list but for what agrees on keys in finite fields,
/// which no client needs, and which is more work for a server than for who asks for it.
const CIPHERS: &str = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:\
    ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:\
    ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

/// How keys are agreed on, the best first; of OpenSSL 3.5 and later.
const GROUPS_HYBRID: &str = "X25519MLKEM768:X25519:P-256:P-384";

/// The same for older ones.
const GROUPS: &str = "X25519:P-256:P-384";

/// What is spoken within TLS, the best first (RFC 7301, section 3.1).
const PROTOCOLS: &[u8] = b"\x02h2\x08http/1.1";

/// How TLS is spoken.
pub(crate) struct Acceptor(SslAcceptor);

impl Acceptor {
    /// Speaks TLS 1.2 and 1.3, and within it HTTP/2 and HTTP/1.1.
    ///
    /// At the hosts `asking`, clients are asked for a certificate.
    pub(crate) fn new(
        tls: &Tls,
        tickets: &Arc<TicketKeys>,
        asking: &[HostPattern],
    ) -> Result<Self, Error> {
        // Forward secrecy and authenticated encryption only.
        let mut settings = SslAcceptor::mozilla_intermediate_v5(SslMethod::tls())?;
        // Against who records today and has a quantum computer one day, where OpenSSL can.
        settings
            .set_groups_list(GROUPS_HYBRID)
            .or_else(|_unknown| settings.set_groups_list(GROUPS))?;
        settings.set_min_proto_version(Some(match tls.min_version {
            TlsVersion::Tls12 => SslVersion::TLS1_2,
            TlsVersion::Tls13 => SslVersion::TLS1_3,
        }))?;
        settings.set_cipher_list(tls.ciphers.as_deref().unwrap_or(CIPHERS))?;
        // AES-128 comes first in the list and is the cheapest by a quarter; who asks for ChaCha
        // first has no AES in hardware and gets it.
        settings.set_options(
            SslOptions::CIPHER_SERVER_PREFERENCE
                | SslOptions::PRIORITIZE_CHACHA
                | SslOptions::NO_RENEGOTIATION,
        );
        // A session is what its ticket says: nothing is kept here.
        settings.set_session_cache_mode(SslSessionCacheMode::OFF);
        settings.set_num_tickets(TICKETS)?;
        tickets::install(&mut settings, Arc::clone(tickets))?;
        settings.set_session_id_context(&rules(asking))?;
        // Only a name that was accepted goes with a session of TLS 1.2.
        settings.set_servername_callback(|_ssl, _alert| Ok(()));
        // An idle connection keeps no record buffers.
        settings.set_mode(SslMode::RELEASE_BUFFERS);
        settings.set_alpn_select_callback(|_ssl, offered| {
            if offered == alpn::OFFER {
                return Ok(alpn::PROTOCOL);
            }
            // Who speaks neither is answered in HTTP/1.1, which it may well understand.
            select_next_proto(PROTOCOLS, offered).ok_or(AlpnError::NOACK)
        });
        Ok(Self(settings.build()))
    }

    /// Shakes hands over `socket`, with the certificates of `state`.
    pub(crate) async fn handshake<S: IO>(
        &self,
        socket: S,
        state: &State,
    ) -> Result<SslStream<S>, Failure> {
        let accepting = Accepting {
            state,
            server_name: Mutex::default(),
            asked_by: Mutex::default(),
            noted: Noted::default(),
        };
        let shaken = handshake_with_callback(&self.0, socket, &accepting).await;
        let shaken = shaken.and_then(|stream| {
            // A CA has seen what it asked for; there is nothing to be said after that.
            if stream.ssl().selected_alpn_protocol() == Some(alpn::PROTOCOL) {
                return Err(pingora::Error::explain(
                    ErrorType::ConnectionClosed,
                    ANSWERED,
                ));
            }
            Ok(stream)
        });
        shaken.map_err(|error| Failure {
            server_name: take(&accepting.server_name),
            reason: match take(&accepting.noted) {
                Some(fault) => format!("client certificate: {fault}"),
                None => reason(&error.to_string()).to_owned(),
            },
        })
    }
}

/// Sums up what is asked of clients, so that a session begun under other rules is told from one under
/// these.
fn rules(asking: &[HostPattern]) -> [u8; 32] {
    let mut hosts: Vec<String> = asking.iter().map(ToString::to_string).collect();
    hosts.sort_unstable();
    openssl::sha::sha256(hosts.join("\n").as_bytes())
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

/// Why a handshake failed.
#[derive(Debug)]
pub(crate) struct Failure {
    server_name: Option<Box<str>>,
    reason: String,
}

impl Failure {
    /// Returns the name that the client asked for, as far as that is known.
    pub(crate) fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// Returns whether there is nothing wrong: the client just went away, as a balancer's health check
    /// does, or was a CA that has seen enough.
    pub(crate) fn is_silence(&self) -> bool {
        self.server_name.is_none() && self.reason == GONE || self.reason == ANSWERED
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// The reason of a handshake that is all a CA wanted.
const ANSWERED: &str = "a challenge of a CA was answered";

/// The reason of a handshake that ended without a word.
const GONE: &str = "the client went away";

/// Finds the few words that say what happened in what Pingora makes of OpenSSL's errors, each of
/// which reads `error:<number>:<library>:<function>:<reason>:<file>:<line>:<more>`.
fn reason(error: &str) -> &str {
    let reason = error
        .split_once("error:")
        .and_then(|(_, fields)| fields.split(':').nth(3));
    match reason {
        Some("unexpected eof while reading") => GONE,
        Some("peer did not return a certificate") => "no client certificate",
        Some(reason) => reason,
        None if error.contains(ANSWERED) => ANSWERED,
        None if error.contains("unexpected EOF") || error.contains("os error") => GONE,
        None => "it could not go on",
    }
}

/// One handshake.
struct Accepting<'a> {
    state: &'a State,
    server_name: Mutex<Option<Box<str>>>,
    /// The generation of the authorities by which a certificate was asked for.
    asked_by: Mutex<Option<u64>>,
    noted: Noted,
}

impl Accepting<'_> {
    fn ask(&self, clients: &ClientAuth, ssl: &mut TlsRef) -> Result<(), Error> {
        let authorities = clients.ask(ssl, Arc::clone(&self.noted))?;
        ssl_set_verify_cert_store(ssl, authorities.store())?;
        put(&self.asked_by, Some(authorities.generation()));
        Ok(())
    }

    /// Answers a CA; without an answer there is no certificate, and no handshake.
    async fn answer(&self, host: &str, ssl: &mut TlsRef) -> Result<(), Error> {
        if self.state.answers.tls.apply(host, ssl)? {
            return Ok(());
        }
        if let Some(plan) = &self.state.plan
            && let Some(digest) = plan.challenge_of(host).await
        {
            alpn::AlpnChallenges::apply_other(host, &digest, ssl)?;
        }
        Ok(())
    }

    fn present(&self, presented: &Presented, ssl: &mut TlsRef) -> Result<(), Error> {
        if let Some(clients) = &presented.clients {
            self.ask(clients, ssl)?;
        }
        Ok(presented.apply(ssl)?)
    }
}

#[async_trait]
impl TlsAccept for Accepting<'_> {
    async fn certificate_callback(&self, ssl: &mut TlsRef) {
        let name = ssl.servername(NameType::HOST_NAME).map(Box::<str>::from);
        // TLS 1.3 has chosen a protocol by now, and CAs speak it.
        if ssl.selected_alpn_protocol() == Some(alpn::PROTOCOL) {
            if let Err(error) = self.answer(name.as_deref().unwrap_or_default(), ssl).await {
                tracing::error!(%error, "the answer to a challenge cannot be used in a handshake");
            }
            put(&self.server_name, name);
            return;
        }
        // Without a certificate of ours the handshake fails with an alert, which is all there is to
        // say. It comes last, so that no handshake succeeds that should have asked and could not.
        if let Some(presented) = self.state.certificates.select(name.as_deref())
            && let Err(error) = self.present(presented, ssl)
        {
            tracing::error!(%error, "a certificate cannot be used in a handshake");
        }
        put(&self.server_name, name);
    }

    async fn handshake_complete_callback(
        &self,
        ssl: &TlsRef,
    ) -> Option<Arc<dyn Any + Send + Sync>> {
        let name = ssl.servername(NameType::HOST_NAME).map(Box::<str>::from);
        let selected = self.state.certificates.select(name.as_deref());
        let asks = selected.is_some_and(|presented| presented.clients.is_some());
        // A session that goes on was none at which anyone was asked.
        let handshake = if asks && !ssl.session_reused() {
            Handshake::asked(name, Shown::of(ssl))
        } else {
            Handshake::unasked(name)
        };
        Some(Arc::new(match take(&self.asked_by) {
            Some(generation) => {
                let verdict = take(&self.noted).map_or(Verdict::Verified, Verdict::Rejected);
                handshake.judged(generation, verdict)
            }
            None => handshake,
        }))
    }
}

fn put<T>(into: &Mutex<Option<T>>, value: Option<T>) {
    *into.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn take<T>(from: &Mutex<Option<T>>) -> Option<T> {
    from.lock().unwrap_or_else(PoisonError::into_inner).take()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::thread;

    use openssl::pkey::{Id, PKey};
    use openssl::ssl::{Ssl, SslConnector, SslStream, SslVerifyMode};
    use openssl::x509::X509;

    use super::*;
    use crate::tls::self_signed;

    /// The first version of OpenSSL that has the hybrid group.
    const OPENSSL_3_5: i64 = 0x3050_0000;

    /// Shakes hands with a client that offers these groups, and in TLS 1.3; returns what kind of key
    /// the server sent, if it was one: by the hybrid group it sends none.
    fn shake_hands(groups: &str) -> Option<Option<Id>> {
        let tickets = Arc::new(TicketKeys::make().unwrap());
        let acceptor = Acceptor::new(&Tls::default(), &tickets, &[]).unwrap();
        let pair = self_signed::generate(&["a.test".to_owned()], &[]).unwrap();
        let mut server = Ssl::new(acceptor.0.context()).unwrap();
        server
            .set_certificate(&X509::from_pem(&pair.cert_pem).unwrap())
            .unwrap();
        server
            .set_private_key(&PKey::private_key_from_pem(&pair.key_pem).unwrap())
            .unwrap();
        let mut client = SslConnector::builder(SslMethod::tls_client()).unwrap();
        client.set_verify(SslVerifyMode::NONE);
        client
            .set_min_proto_version(Some(SslVersion::TLS1_3))
            .unwrap();
        client.set_groups_list(groups).ok()?;
        let (near, far) = UnixStream::pair().unwrap();
        let answering = thread::spawn(move || server.accept(far).is_ok());
        let shaken = client.build().connect("a.test", near);
        let key = |stream: SslStream<_>| stream.ssl().peer_tmp_key().ok().map(|key| key.id());
        let key = shaken.ok().map(key);
        assert_eq!(answering.join().unwrap(), key.is_some());
        key
    }

    #[test]
    fn keys_are_agreed_on_by_the_hybrid_group_where_openssl_has_it() {
        let hybrid = openssl::version::number() >= OPENSSL_3_5;
        println!(
            "{}: {}",
            openssl::version::version(),
            if hybrid { "X25519MLKEM768" } else { "X25519" }
        );
        // A client that offers nothing else, one that offers both, and one of today.
        assert_eq!(shake_hands("X25519MLKEM768").is_some(), hybrid);
        let both = shake_hands(if hybrid { GROUPS_HYBRID } else { GROUPS });
        assert_eq!(both == Some(Some(Id::X25519)), !hybrid, "{both:?}");
        assert_eq!(shake_hands("X25519"), Some(Some(Id::X25519)));
        assert_eq!(shake_hands("P-521"), None);
    }
}
