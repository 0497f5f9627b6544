//! Who we are to a CA: an account that is made once and kept.

use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};

use super::client::Client;
use super::failure::Failure;
use super::storage::Storage;
use crate::config::Authority;

/// Opens the account at a CA, or makes one.
pub(super) async fn open(
    authority: &Authority,
    client: &Client,
    storage: &Storage,
) -> Result<Account, Failure> {
    let directory = authority.directory.as_str();
    let kept = storage.account(directory).map_err(Failure::ours)?;
    let kept = kept.and_then(|bytes| serde_json::from_slice::<AccountCredentials>(&bytes).ok());
    let builder = Account::builder_with_http(Box::new(client.clone()));
    if let Some(credentials) = kept {
        return Ok(builder.from_credentials(credentials).await?);
    }
    let contact = authority
        .email
        .iter()
        .map(|email| format!("mailto:{email}"));
    let contact: Vec<String> = contact.collect();
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let external = authority.external_account.as_ref();
    let external = external.map(|own| ExternalAccountKey::new(own.id.clone(), &own.key));
    let wanted = NewAccount {
        contact: &contact,
        terms_of_service_agreed: true,
        only_return_existing: false,
    };
    let (account, credentials) = builder
        .create(&wanted, directory.to_owned(), external.as_ref())
        .await?;
    let credentials = serde_json::to_vec_pretty(&credentials).map_err(Failure::ours)?;
    storage
        .keep_account(directory, &credentials)
        .map_err(Failure::ours)?;
    tracing::info!(
        directory,
        account = account.id(),
        "an account was made at the CA"
    );
    Ok(account)
}
