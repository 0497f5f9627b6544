//! What happens in a handshake: OpenSSL's settings, and the certificate by name.

use std::sync::Arc;

use async_trait::async_trait;
use openssl::ssl::{NameType, SslMode, SslOptions, SslVersion};
use pingora::listeners::TlsAccept;
use pingora::listeners::tls::TlsSettings;
use pingora::protocols::tls::TlsRef;

use super::Error;
use crate::config::{Tls, TlsVersion};
use crate::state::Current;

/// Binds resumed sessions to this product; without one OpenSSL refuses every resumption as soon as
/// clients' certificates are asked for.
const SESSION_ID_CONTEXT: &[u8] = b"tidegate";

/// Returns the settings of a TLS listener: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1.
pub(crate) fn settings(tls: &Tls, current: Arc<Current>) -> Result<TlsSettings, Error> {
    // Mozilla's intermediate list: forward secrecy and authenticated encryption only.
    let mut settings = TlsSettings::with_callbacks(Box::new(SelectCertificate { current }))
        .map_err(|_no_context| Error::OpenSsl(openssl::error::ErrorStack::get()))?;
    settings.set_min_proto_version(Some(match tls.min_version {
        TlsVersion::Tls12 => SslVersion::TLS1_2,
        TlsVersion::Tls13 => SslVersion::TLS1_3,
    }))?;
    if let Some(ciphers) = &tls.ciphers {
        settings.set_cipher_list(ciphers)?;
    }
    // AES-128 comes first in the list and is the cheapest by a quarter; who asks for ChaCha first
    // has no AES in hardware and gets it.
    settings.set_options(
        SslOptions::CIPHER_SERVER_PREFERENCE
            | SslOptions::PRIORITIZE_CHACHA
            | SslOptions::NO_RENEGOTIATION,
    );
    // An idle connection keeps no record buffers.
    settings.set_mode(SslMode::RELEASE_BUFFERS);
    settings.set_session_id_context(SESSION_ID_CONTEXT)?;
    settings.enable_h2();
    Ok(settings)
}

/// Gives each handshake the certificate that the current state has for its name.
struct SelectCertificate {
    current: Arc<Current>,
}

#[async_trait]
impl TlsAccept for SelectCertificate {
    async fn certificate_callback(&self, ssl: &mut TlsRef) {
        let state = self.current.load();
        let name = ssl.servername(NameType::HOST_NAME);
        // Without a certificate the handshake fails with an alert, which is all there is to say.
        if let Some(key) = state.certificates.select(name)
            && let Err(error) = key.apply(ssl)
        {
            tracing::error!(%error, "a certificate cannot be used in a handshake");
        }
    }
}
