//! Revocation lists: what authorities have to say against certificates that they issued.

use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::ssl::SslFiletype;
use openssl::x509::store::{X509Lookup, X509StoreBuilderRef};
use openssl::x509::{CrlStatus, X509, X509Crl, X509NameRef};

use crate::auth::certificate::Fault;
use crate::tls::Error;
use crate::tls::certified_key::read;

/// Where a revocation list in PEM form ends.
const LIST_END: &str = "-----END X509 CRL-----";

/// The lists, each with the file that it is from.
pub(super) struct Lists(Vec<(PathBuf, X509Crl)>);

impl Lists {
    /// Reads every list of the files, and hands them to OpenSSL, too.
    pub(super) fn read(files: &[PathBuf], store: &mut X509StoreBuilderRef) -> Result<Self, Error> {
        let mut all = Vec::new();
        let lookup = store.add_lookup(X509Lookup::file())?;
        for file in files {
            let lists = read_file(file)?;
            all.extend(lists.into_iter().map(|list| (file.clone(), list)));
            // OpenSSL's binding takes no other form of a path, and no list from memory.
            let text = file
                .to_str()
                .ok_or_else(|| Error::NotText { path: file.clone() })?;
            let handed = lookup.load_crl_file(text, SslFiletype::PEM);
            handed.map_err(|source| Error::Parse {
                path: file.clone(),
                source,
            })?;
        }
        Ok(Self(all))
    }

    /// Returns whether there is none, so that nothing is looked up.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says what will keep out clients, although it can be used.
    pub(super) fn warnings(&self, authorities: &[X509], ca_file: &Path) -> Vec<String> {
        let mut warnings = Vec::new();
        for (file, list) in &self.0 {
            let file = file.display();
            let issuer = told(list.issuer_name());
            if let Some(next) = list.next_update()
                && Asn1Time::days_from_now(0).is_ok_and(|now| *next <= *now)
            {
                warnings.push(format!(
                    "{file}: the revocation list of {issuer} was to be renewed by {next}; until then \
                     nobody with its certificates comes in"
                ));
            }
        }
        let covered = |authority: &X509| {
            let name = authority.subject_name();
            let mut lists = self.0.iter();
            lists.any(|(_, list)| {
                name.try_cmp(list.issuer_name())
                    .is_ok_and(|order| order.is_eq())
            })
        };
        if !self.0.is_empty() {
            for authority in authorities.iter().filter(|authority| !covered(authority)) {
                warnings.push(format!(
                    "{}: there is no revocation list of {}; nobody with its certificates comes in",
                    ca_file.display(),
                    told(authority.subject_name()),
                ));
            }
        }
        warnings
    }

    /// Says what the current lists of `issuer` have against an authority.
    pub(super) fn revocation(
        &self,
        authority: &X509,
        issuer: &X509,
    ) -> Result<Option<Fault>, ErrorStack> {
        let (key, now) = (issuer.public_key()?, Asn1Time::days_from_now(0)?);
        let mut fault = Some(Fault::UnknownRevocation);
        for (_, list) in &self.0 {
            let named = list.issuer_name().try_cmp(issuer.subject_name())?.is_eq();
            let begun = *list.last_update() <= *now;
            let over = list.next_update().is_some_and(|next| *next <= *now);
            // Another key may have the same name.
            if !named || !begun || over || !list.verify(&key).unwrap_or_default() {
                continue;
            }
            match list.get_by_cert(authority) {
                CrlStatus::Revoked(_) => return Ok(Some(Fault::Revoked)),
                CrlStatus::NotRevoked | CrlStatus::RemoveFromCrl(_) => fault = None,
            }
        }
        // What OpenSSL says beside that would be taken for the next call's.
        drop(ErrorStack::get());
        Ok(fault)
    }
}

/// Reads every revocation list of a file.
fn read_file(file: &Path) -> Result<Vec<X509Crl>, Error> {
    let bytes = read(file)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lists = Vec::new();
    for list in text.split_inclusive(LIST_END) {
        if list.ends_with(LIST_END) {
            let list = X509Crl::from_pem(list.as_bytes());
            lists.push(list.map_err(|source| Error::Parse {
                path: file.to_owned(),
                source,
            })?);
        }
    }
    if lists.is_empty() {
        return Err(Error::NoList {
            path: file.to_owned(),
        });
    }
    Ok(lists)
}

fn told(name: &X509NameRef) -> String {
    let entries = name.entries().filter_map(|entry| {
        let key = entry.object().nid().short_name().ok()?;
        Some(format!("{key}={}", entry.data().to_string().ok()?))
    });
    entries.collect::<Vec<_>>().join(", ")
}
