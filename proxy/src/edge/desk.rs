//! The pages where tokens are handed out: reads what is asked, and lets the site answer.

use std::net::Ipv4Addr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::header::{ALLOW, HeaderValue};
use http::request::Parts;
use http::{Method, StatusCode};
use pingora::proxy::Session;
use tokio::time::timeout;

use super::{EdgeProxy, content_length};
use crate::auth::token::desk::Page;
use crate::context::Context;
use crate::filter::Decision;
use crate::filter::host::Host;
use crate::limits::request_body::TooLarge;
use crate::login::Asking;
use crate::respond::{Rejection, Reply};

/// The longest form: a name, a password and a hundred scopes are far shorter.
const FORM_BYTES_MAX: u64 = 64 << 10;

impl EdgeProxy {
    /// Answers a request for a page.
    pub(super) async fn serve(
        &self,
        page: Page,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Reply, Decision> {
        let form = match (page, &session.req_header().method) {
            (_, &Method::GET) | (Page::Keys, &Method::HEAD) => None,
            (Page::Token, &Method::POST) => {
                // It is short, so it has no more time than a head has.
                let patience = ctx.state.limits.header_timeout;
                let form = timeout(patience, read_form(session)).await;
                Some(form.map_err(|_elapsed| Rejection::Timeout)??)
            }
            (_, &Method::OPTIONS) => return Ok(Reply::methods()),
            (page, _) => return Ok(not_allowed(page)),
        };
        let (Some(site), Some(host)) = (ctx.site.clone(), ctx.host.clone()) else {
            return Err(Rejection::Internal.into());
        };
        if page == Page::Keys {
            return Ok(site.keys());
        }
        let state = Arc::clone(&ctx.state);
        let parts: &Parts = session.req_header();
        let host: &Host = &host;
        let asking = Asking {
            parts,
            client: ctx.client().unwrap_or_else(|| Ipv4Addr::UNSPECIFIED.into()),
            host,
            origin: ctx.origin.as_ref(),
            certified: ctx.certified.as_ref(),
        };
        let scrutiny = self.scrutiny(&state);
        let handed = site.hand_out(&asking, form.as_deref(), scrutiny).await?;
        ctx.principal = handed.principal;
        ctx.denied = handed.denied;
        Ok(handed.reply)
    }
}

async fn read_form(session: &mut Session) -> Result<Bytes, Rejection> {
    let too_large = Rejection::from(TooLarge {
        max: FORM_BYTES_MAX,
    });
    if content_length(session.req_header()) > FORM_BYTES_MAX {
        return Err(too_large);
    }
    let mut form = BytesMut::new();
    loop {
        match session.as_downstream_mut().read_request_body().await {
            Ok(Some(piece)) => form.extend_from_slice(&piece),
            Ok(None) => return Ok(form.freeze()),
            Err(_gone) => return Err(Rejection::BadRequest),
        }
        if form.len() as u64 > FORM_BYTES_MAX {
            return Err(too_large);
        }
    }
}

fn not_allowed(page: Page) -> Reply {
    let methods = match page {
        Page::Keys => "GET, HEAD",
        Page::Token => "GET, POST",
    };
    let text = Bytes::from_static(b"method not allowed\n");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    let mut reply = Reply::page(status, "text/plain; charset=utf-8", text);
    reply
        .headers
        .push((ALLOW, HeaderValue::from_static(methods)));
    reply
}
