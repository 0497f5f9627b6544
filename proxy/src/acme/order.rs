//! One order: its authorizations, its challenges, and the certificate at its end (RFC 8555,
//! section 7.4).

use std::net::IpAddr;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, Authorizations, CertificateIdentifier, ChallengeStatus,
    ChallengeType, Identifier, NewOrder, Order, OrderStatus, RetryPolicy,
};

use super::answers::{Desk, Method, Question};
use super::chain;
use super::client::Client;
use super::failure::{Failure, Part};
use crate::config::{Authority, KeyType};
use crate::tls::request;

/// How long a CA may take to look at the answers, and again to sign.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// What is ordered.
pub(super) struct Wish<'a> {
    /// Of whom.
    pub(super) authority: &'a Authority,
    pub(super) hosts: &'a [String],
    pub(super) key_type: KeyType,
    pub(super) profile: Option<&'a str>,
    pub(super) method: Method,
    /// The certificate that is to be replaced.
    pub(super) replaces: Option<&'a str>,
}

/// What is got.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: Vec<u8>,
}

/// Orders a certificate, and waits for it.
pub(super) async fn obtain(
    account: &Account,
    client: &Client,
    wish: &Wish<'_>,
    mut desk: Desk<'_>,
) -> Result<Issued, Failure> {
    let mut order = begin(account, wish).await?;
    let answered = answer(&mut order, wish, &mut desk).await;
    let ready = match answered {
        Ok(()) => wait(&mut order).await,
        Err(failure) => Err(failure),
    };
    desk.close().await;
    ready?;
    let (request, key) = request::make(wish.hosts, wish.key_type).map_err(Failure::ours)?;
    order.finalize_csr(&request).await?;
    let offered = order.poll_certificate(&PATIENCE).await?;
    let chain = chain::choose(offered, wish.authority, account, client).await;
    Ok(Issued { chain, key })
}

async fn begin(account: &Account, wish: &Wish<'_>) -> Result<Order, Failure> {
    let identifiers: Vec<Identifier> = wish.hosts.iter().map(|host| identifier(host)).collect();
    let new = || {
        let new = NewOrder::new(&identifiers);
        match wish.profile {
            Some(profile) => new.profile(profile),
            None => new,
        }
    };
    let replaces = wish.replaces.and_then(|id| id.split_once('.'));
    let Some((authority, serial)) = replaces else {
        return Ok(account.new_order(&new()).await?);
    };
    let replaced = CertificateIdentifier {
        authority_key_identifier: authority.into(),
        serial: serial.into(),
    };
    match account.new_order(&new().replaces(replaced)).await {
        Ok(order) => Ok(order),
        Err(error) => {
            let failure = Failure::from(error);
            if !failure.may_be_about_replacing() {
                return Err(failure);
            }
            // The CA does not see it as a replacement: then it is an order like any other.
            Ok(account.new_order(&new()).await?)
        }
    }
}

/// Makes ready for every question, and then tells the CA to ask.
async fn answer(order: &mut Order, wish: &Wish<'_>, desk: &mut Desk<'_>) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let host = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            other => {
                return Err(Failure::by(
                    Part::Challenge,
                    format!("the authorization is {other:?}"),
                )
                .about(host));
            }
        }
        let method = method(wish, authorization.wildcard);
        let Some(challenge) = authorization.challenge(challenge_type(method)) else {
            let method = method.name();
            return Err(
                Failure::by(Part::Challenge, format!("the CA offers no {method}")).about(host),
            );
        };
        let key = challenge.key_authorization();
        let digest = key.digest();
        let question = Question {
            method,
            host: &host,
            token: &challenge.token,
            authorization: key.as_str(),
            digest: digest.as_ref(),
            record: &key.dns_value(),
        };
        desk.open(&question).await?;
    }
    desk.settle().await;
    let authorizations = order.authorizations();
    tell_to_ask(authorizations, wish).await
}

async fn tell_to_ask(
    mut authorizations: Authorizations<'_>,
    wish: &Wish<'_>,
) -> Result<(), Failure> {
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let host = authorization.identifier().to_string();
        let method = method(wish, authorization.wildcard);
        if let Some(mut challenge) = authorization.challenge(challenge_type(method))
            && challenge.status == ChallengeStatus::Pending
        {
            let told = challenge.set_ready().await;
            told.map_err(|error| Failure::from(error).about(host))?;
        }
    }
    Ok(())
}

/// Waits until the CA is convinced, or finds out why it is not.
async fn wait(order: &mut Order) -> Result<(), Failure> {
    let failure = match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready) => return Ok(()),
        Ok(_) => Failure::by(Part::Challenge, "the CA is not convinced"),
        Err(error) => error.into(),
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        authorization.refresh().await?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let host = authorization.identifier().to_string();
        let mut challenges = authorization.challenges.iter();
        if let Some(problem) = challenges.find_map(|challenge| challenge.error.as_ref()) {
            return Err(Failure {
                host: None,
                ..Failure::of(problem)
            }
            .about(host));
        }
    }
    Err(failure)
}

/// Wildcards can be answered for in DNS alone.
fn method(wish: &Wish<'_>, wildcard: bool) -> Method {
    if wildcard { Method::Dns01 } else { wish.method }
}

fn challenge_type(method: Method) -> ChallengeType {
    match method {
        Method::Dns01 => ChallengeType::Dns01,
        Method::Http01 => ChallengeType::Http01,
        Method::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

fn identifier(host: &str) -> Identifier {
    match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => Identifier::Ip(address),
        Err(_) => Identifier::Dns(host.to_owned()),
    }
}
