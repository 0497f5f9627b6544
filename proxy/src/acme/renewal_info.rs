//! When a CA wants a certificate to be renewed: it is asked for that (RFC 9773).

use std::time::{Duration, SystemTime};

use instant_acme::{Account, CertificateIdentifier, Error};

use super::client::Client;
use super::failure::Failure;
use super::record::{Record, RenewalInfo};
use super::{Plan, account, schedule};
use crate::config::Authority;

/// How soon to ask again for renewal information that did not come.
const ASK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// How soon to ask again a CA that has none.
const ASK_SELDOM: Duration = Duration::from_secs(24 * 60 * 60);

/// Asks the CA that has issued a certificate, and returns what is known now.
pub(super) async fn ask(plan: &Plan, record: &Record, id: &str, now: SystemTime) -> RenewalInfo {
    let known = record
        .renewal_info
        .clone()
        .filter(|info| info.certificate == id);
    let mut info = known.unwrap_or_default();
    id.clone_into(&mut info.certificate);
    info.asked = Some(now);
    let issued = record.issued.as_ref();
    let authority = plan
        .acme
        .authorities
        .iter()
        .find(|authority| issued.is_some_and(|issue| issue.directory == authority.directory));
    let Some(authority) = authority else {
        info.ask_again = Some(now + ASK_SELDOM);
        return info;
    };
    match fetch(plan, authority, id).await {
        Ok((fetched, again)) => {
            let window = fetched.suggested_window;
            info.start = Some(window.start.into());
            info.end = Some(window.end.into());
            if let Some(why) = fetched.explanation_url {
                tracing::info!(why, "the CA explains when to renew");
                info.explanation = Some(why);
            }
            info.ask_again = Some(schedule::ask_again(now, again));
        }
        Err(Some(failure)) => {
            tracing::info!(said = %failure, "the CA did not say when to renew");
            info.ask_again = Some(now + ASK_AGAIN);
        }
        Err(None) => info.ask_again = Some(now + ASK_SELDOM),
    }
    info
}

/// Returns what the CA says, or why it said nothing; `None` when it never does.
async fn fetch(
    plan: &Plan,
    authority: &Authority,
    id: &str,
) -> Result<(instant_acme::RenewalInfo, Duration), Option<Failure>> {
    let client = Client::new(authority.root_file.as_deref());
    let client = client.map_err(|error| Some(Failure::ours(error)))?;
    let account: Account = account::open(authority, &client, &plan.storage)
        .await
        .map_err(Some)?;
    let (key, serial) = id.split_once('.').unwrap_or_default();
    let id = CertificateIdentifier {
        authority_key_identifier: key.into(),
        serial: serial.into(),
    };
    match account.renewal_info(&id).await {
        Ok(told) => Ok(told),
        Err(Error::Unsupported(_)) => Err(None),
        Err(error) => Err(Some(error.into())),
    }
}
