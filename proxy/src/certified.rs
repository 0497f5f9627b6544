//! Whether a connection is one that a request to a site may come over, and whom the client's
//! certificate makes of it.

use std::sync::Arc;

use crate::auth::certificate::ClientCertificate;
use crate::auth::{Principal, User};
use crate::filter::Refused;
use crate::refusals::{LoginRefusal, count_login};
use crate::respond::Rejection;
use crate::site::{Site, Sites};
use crate::tls::Handshake;

/// A client whose certificate is good.
#[derive(Clone, Debug)]
pub(crate) struct Certified {
    certificate: Arc<ClientCertificate>,
    /// Whom it makes of the client; `None` where it only opens the door.
    user: Option<Arc<User>>,
}

impl Certified {
    /// Returns who asks if nothing else says so.
    pub(crate) fn principal(certified: Option<&Self>) -> Principal {
        let user = certified.and_then(|certified| certified.user.clone());
        user.map_or_else(Principal::anonymous, Principal::user)
    }

    /// Returns the fingerprint of the certificate.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.certificate.fingerprint
    }
}

impl Sites {
    /// Refuses a request for a site that its connection was not made for (RFC 9110, section
    /// 15.5.20): over another one, what the handshake has asked of the client would not count.
    ///
    /// A client that named no site has shaken hands as for the site that such clients get. It may
    /// ask any, unless either asks for certificates.
    pub(crate) fn check_connection(
        &self,
        handshake: &Handshake,
        site: &Arc<Site>,
    ) -> Result<(), Refused> {
        let made_for = match handshake.server_name() {
            Some(name) => self.named(name),
            None => self.fallback(),
        };
        let same = made_for.is_some_and(|made_for| Arc::ptr_eq(made_for, site));
        let unnamed = handshake.server_name().is_none();
        let asks = |site: &Arc<Site>| site.client_certificates().is_some();
        if same || unnamed && !asks(site) && !made_for.is_some_and(asks) {
            Ok(())
        } else {
            Err(Rejection::Misdirected.because("server name"))
        }
    }
}

impl Site {
    /// Looks at the client's certificate, if one is asked for here; `None` is none, where none is
    /// needed.
    pub(crate) fn certified(&self, handshake: &Handshake) -> Result<Option<Certified>, Refused> {
        let Some(certificates) = self.client_certificates() else {
            return Ok(None);
        };
        if !handshake.has_asked() {
            // It goes on from a session at which nobody was asked, or is older than the demand.
            return Err(Rejection::Misdirected.because("certificate: not asked for"));
        }
        let Some(certificate) = handshake.certificate(&certificates.authorities) else {
            return if certificates.authorities.is_required() {
                Err(Rejection::Misdirected.because("certificate: none"))
            } else {
                Ok(None)
            };
        };
        match certificates.naming.user(&certificate) {
            Ok(user) => Ok(Some(Certified {
                certificate,
                user: user.map(Arc::new),
            })),
            Err(objection) => {
                count_login(LoginRefusal::Certificate);
                let because = format!("certificate: {objection}");
                Err(Rejection::Certificate(objection).because(because))
            }
        }
    }
}
