//! Whether a request may come in: the order of policy is read here.
//!
//! 1. The head: its size, its framing, its bytes. What two readers could take for two things goes no
//!    further.
//! 2. The host, and the site that it names. Without TLS there is nothing but the answer to an ACME
//!    challenge and the way to TLS.
//! 3. The connection: it must be one for that site, by its certificate and the client's.
//!    Where a site tells everyone how it is, that is answered here.
//! 4. The address: whether it is let in here, then how much it and everyone may ask for. The method.
//! 5. The pages for tokens, which are the edge's own; then, of the registry, its API alone.
//! 6. Who is asking, and how much that one may ask for.
//! 7. What they may do; last, how large a body may be.
//!
//! What is cheap and knows least comes first: a password is looked at for nobody who would be refused
//! without it.

use std::net::Ipv4Addr;
use std::sync::Arc;

use http::request::Parts;
use pingora::proxy::Session;

use super::health::Probe;
use super::{EdgeProxy, content_length, over_tls};
use crate::auth::Scrutiny;
use crate::auth::token::desk::Page;
use crate::context::Context;
use crate::filter::host::Host;
use crate::filter::{Decision, acme_challenge, framing, https_redirect, limits, registry};
use crate::limits::quota::Subject;
use crate::limits::request_body::RequestBody;
use crate::login::Asking;
use crate::respond::{Audience, Rejection};
use crate::state::State;
use crate::tls::Handshake;

/// Where a request goes that nobody refuses.
pub(super) enum Way {
    /// To the page of this edge that hands out tokens, or to their keys.
    Desk(Page),
    /// To this edge's knowledge of how it is.
    Health(Probe),
    Upstream,
}

impl EdgeProxy {
    /// Asks everyone who has a say, in this order; with nothing decided, the request goes upstream.
    pub(super) async fn admit(
        &self,
        session: &Session,
        ctx: &mut Context,
    ) -> Result<Way, Decision> {
        let parts: &Parts = session.req_header();
        let state = Arc::clone(&ctx.state);
        if oci::Route::covers(parts.uri.path()) {
            // Until the site is known, a path like the API's is taken for it.
            ctx.audience = Audience::RegistryClient;
        }
        limits::check(parts, &state.limits)?;
        framing::check(parts)?;
        if !session.req_header().raw_path_is_utf8() {
            // Upstream would see other bytes than everyone who decides here.
            return Err(Rejection::BadRequest.into());
        }
        let origin = ctx.origin;
        let client = ctx.client().unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.into());
        let host = &*ctx.host.insert(Host::of(parts)?);
        let site = state.sites.select(host);
        if let Some(site) = site {
            ctx.audience = site.audience(parts.uri.path());
        }
        if !over_tls(session) {
            acme_challenge::answer(parts, &state.answers.http)?;
            if let (Some(plan), Some(token)) = (&state.plan, acme_challenge::token(parts))
                && let Some(answer) = plan.challenge(token.to_owned()).await
            {
                return Err(acme_challenge::reply(answer));
            }
            site.ok_or_else(|| state.sites.unknown(host))?;
            return Err(https_redirect::redirect(parts, host, self.https_port));
        }
        let site = site.ok_or_else(|| state.sites.unknown(host))?;
        let site = ctx.site.insert(Arc::clone(site));
        let handshake = handshake(session).ok_or(Rejection::Misdirected)?;
        state.sites.check_connection(handshake, site)?;
        if site.health
            && let Some(probe) = Probe::of(parts)
        {
            return Ok(Way::Health(probe));
        }
        ctx.certified = site.certified(handshake)?;
        site.admit_address(client)?;
        // Whoever asks for too much takes nothing of what is everyone's.
        for subject in [Subject::Address(client), Subject::Everyone] {
            ctx.places.extend(self.ledger.enter(site, subject)?);
        }
        site.admit_method(parts)?;
        if let Some(page) = site.page(parts) {
            ctx.audience = Audience::RegistryClient;
            return Ok(Way::Desk(page));
        }
        if site.upstream.is_registry() {
            registry::admit(parts)?;
        }
        let asking = Asking {
            parts,
            client,
            host,
            origin: origin.as_ref(),
            certified: ctx.certified.as_ref(),
        };
        ctx.principal = site.authenticate(&asking, self.scrutiny(&state)).await?;
        if let Some(user) = ctx.principal.as_user() {
            let subject = Subject::Principal(user.origin, &user.name);
            let place = self.ledger.enter(site, subject)?;
            ctx.places.extend(place);
        }
        ctx.admission = site.authorize(&ctx.principal, &asking)?;
        ctx.body = RequestBody::new(site.max_body_size);
        ctx.body.announce(content_length(parts))?;
        Ok(Way::Upstream)
    }

    pub(super) fn scrutiny(&self, state: &State) -> Scrutiny<'_> {
        Scrutiny {
            attempts: &self.attempts,
            hashing: &self.hashing,
            logins: state.limits.logins,
        }
    }
}

/// Returns what the connection's handshake was about.
fn handshake(session: &Session) -> Option<&Handshake> {
    let tls = session.digest()?.ssl_digest.as_ref()?;
    tls.extension.get()
}
