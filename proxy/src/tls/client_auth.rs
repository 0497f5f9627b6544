//! Whose certificates a site takes: its authorities, and what they have revoked.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::{SslFiletype, SslRef, SslVerifyMode};
use openssl::stack::{Stack, StackRef};
use openssl::x509::store::{X509Lookup, X509Store, X509StoreBuilder, X509StoreRef};
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{
    CrlStatus, X509, X509Crl, X509NameRef, X509PurposeId, X509StoreContext, X509VerifyResult,
};

use super::Error;
use super::certified_key::read;
use crate::auth::certificate::{ClientCertificate, Fault, Verdict};
use crate::watch::Watch;

/// How many authorities may stand between a client and one that is trusted.
const DEPTH_MAX: i32 = 8;

/// What OpenSSL asks of a server's own chain by default: no SHA-1, no RSA below 2048 bits.
const SECURITY_LEVEL: i32 = 2;

/// Where a revocation list in PEM form ends.
const LIST_END: &str = "-----END X509 CRL-----";

/// The authorities whose certificates let clients into a site.
pub(crate) struct ClientAuth {
    required: bool,
    ca_file: PathBuf,
    crl_files: Vec<PathBuf>,
    loaded: ArcSwap<Loaded>,
    watch: Watch,
}

/// The files as they were read.
struct Loaded {
    /// Different for each.
    generation: u64,
    authorities: Vec<X509>,
    revoked: Vec<(PathBuf, X509Crl)>,
    store: X509Store,
    /// Whether there is an authority without the one that has issued it.
    partial: bool,
}

/// A chain that a client has shown, the client's own certificate first.
pub(crate) struct Shown {
    leaf: X509,
    others: Stack<X509>,
}

/// What is wrong with a chain, as OpenSSL finds it while it shakes hands.
pub(super) type Noted = Arc<Mutex<Option<Fault>>>;

impl ClientAuth {
    /// Reads the authorities and their revocation lists, all in PEM form.
    pub(crate) fn load(
        required: bool,
        ca_file: PathBuf,
        crl_files: Vec<PathBuf>,
    ) -> Result<Self, Error> {
        let watch = Watch::over(files(&ca_file, &crl_files));
        let loaded = Loaded::read(&ca_file, &crl_files)?;
        Ok(Self {
            required,
            ca_file,
            crl_files,
            loaded: ArcSwap::from_pointee(loaded),
            watch,
        })
    }

    /// Returns whether nobody comes in without a certificate.
    pub(crate) fn is_required(&self) -> bool {
        self.required
    }

    /// Returns a number that is another one as soon as the files are.
    pub(crate) fn generation(&self) -> u64 {
        self.loaded.load().generation
    }

    /// Says what will keep out clients, although it can be used.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let loaded = self.loaded.load();
        let mut warnings = Vec::new();
        for (file, list) in &loaded.revoked {
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
            let mut lists = loaded.revoked.iter();
            lists.any(|(_, list)| {
                name.try_cmp(list.issuer_name())
                    .is_ok_and(|order| order.is_eq())
            })
        };
        if !loaded.revoked.is_empty() {
            for authority in loaded
                .authorities
                .iter()
                .filter(|authority| !covered(authority))
            {
                warnings.push(format!(
                    "{}: there is no revocation list of {}; nobody with its certificates comes in",
                    self.ca_file.display(),
                    told(authority.subject_name()),
                ));
            }
        }
        warnings
    }

    /// Reads the files again if they look changed; files that cannot be used change nothing, and
    /// that is told once.
    pub(crate) fn refresh(&self) {
        let files = files(&self.ca_file, &self.crl_files);
        let read = || Loaded::read(&self.ca_file, &self.crl_files);
        let may_pass = |error: &Error| matches!(error, Error::Read { .. } | Error::OpenSsl(_));
        let file = self.ca_file.display();
        match self.watch.look(files, read, may_pass) {
            None => {}
            Some(Ok(loaded)) => {
                self.loaded.store(Arc::new(loaded));
                tracing::info!(%file, "client authorities or revocation lists changed, read again");
                for warning in self.warnings() {
                    tracing::warn!("{warning}");
                }
            }
            Some(Err(error)) => tracing::error!(
                %error,
                "client authorities or revocation lists changed and cannot be used, they stay as they were"
            ),
        }
    }

    /// Makes a handshake ask for a certificate, and note what is wrong with the one that comes.
    pub(super) fn ask(&self, ssl: &mut SslRef, noted: Noted) -> Result<Authorities, ErrorStack> {
        let loaded = self.loaded.load_full();
        for authority in &loaded.authorities {
            ssl.add_client_ca(authority)?;
        }
        let required = self.required;
        let mode = if required {
            SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT
        } else {
            SslVerifyMode::PEER
        };
        let asked_by = Arc::clone(&loaded);
        ssl.set_verify_callback(mode, move |good, context| {
            let found = match context.error_depth() {
                _ if !good => Some(fault(context.error())),
                // The whole chain is good to OpenSSL.
                0 => asked_by.look_up(context.chain()).unwrap_or_else(|error| {
                    tracing::error!(%error, "revocation lists cannot be asked");
                    Some(Fault::Other)
                }),
                _ => None,
            };
            let Some(found) = found else {
                return true;
            };
            if good {
                context.set_error(X509VerifyResult::APPLICATION_VERIFICATION);
            }
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            noted.get_or_insert(found);
            !required
        });
        // A session that goes on later would go on with an identity that nobody looks at again.
        ssl.set_num_tickets(0)?;
        Ok(Authorities(loaded))
    }

    /// Says whether a chain may be believed, by what the files say now.
    pub(super) fn judge(&self, shown: &Shown) -> Verdict {
        let found = self.loaded.load().judge(shown);
        // What OpenSSL says beside that would be taken for the next call's.
        drop(ErrorStack::get());
        match found {
            Ok(None) => Verdict::Verified,
            Ok(Some(fault)) => Verdict::Rejected(fault),
            Err(error) => {
                tracing::error!(%error, "a client's certificate cannot be looked at");
                Verdict::Rejected(Fault::Other)
            }
        }
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientAuth")
            .field("ca_file", &self.ca_file)
            .field("required", &self.required)
            .finish_non_exhaustive()
    }
}

/// Whom one handshake trusts.
pub(super) struct Authorities(Arc<Loaded>);

impl Authorities {
    /// Returns them as OpenSSL knows them.
    pub(super) fn store(&self) -> &X509StoreRef {
        &self.0.store
    }

    /// Returns by which files they are.
    pub(super) fn generation(&self) -> u64 {
        self.0.generation
    }
}

impl Loaded {
    fn read(ca_file: &Path, crl_files: &[PathBuf]) -> Result<Self, Error> {
        static GENERATION: AtomicU64 = AtomicU64::new(0);
        let parse = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::Parse { path, source }
        };
        let authorities = X509::stack_from_pem(&read(ca_file)?).map_err(parse(ca_file))?;
        if authorities.is_empty() {
            return Err(Error::Empty {
                path: ca_file.to_owned(),
            });
        }
        let mut store = X509StoreBuilder::new()?;
        for authority in &authorities {
            store.add_cert(authority.clone())?;
        }
        let mut revoked = Vec::new();
        let lookup = store.add_lookup(X509Lookup::file())?;
        for file in crl_files {
            let lists = revocation_lists(file)?;
            revoked.extend(lists.into_iter().map(|list| (file.clone(), list)));
            // OpenSSL's binding takes no other form of a path, and no list from memory.
            let text = file
                .to_str()
                .ok_or_else(|| Error::NotText { path: file.clone() })?;
            lookup
                .load_crl_file(text, SslFiletype::PEM)
                .map_err(parse(file))?;
        }
        let mut terms = X509VerifyParam::new()?;
        terms.set_purpose(X509PurposeId::SSL_CLIENT)?;
        terms.set_depth(DEPTH_MAX);
        terms.set_auth_level(SECURITY_LEVEL);
        let mut flags = X509VerifyFlags::empty();
        // An authority whose own issuer is not among them is trusted for itself. OpenSSL, which
        // cannot look up the revocation of such a chain's last certificate, looks up the first one's
        // then, and the others' are looked up here.
        let partial = authorities
            .iter()
            .any(|authority| issuer(&authorities, authority).is_none());
        if partial {
            flags |= X509VerifyFlags::PARTIAL_CHAIN;
        }
        if !revoked.is_empty() {
            flags |= X509VerifyFlags::CRL_CHECK;
            if !partial {
                flags |= X509VerifyFlags::CRL_CHECK_ALL;
            }
        }
        terms.set_flags(flags)?;
        store.set_param(&terms)?;
        Ok(Self {
            generation: GENERATION.fetch_add(1, Ordering::Relaxed),
            authorities,
            revoked,
            store: store.build(),
            partial,
        })
    }

    fn judge(&self, shown: &Shown) -> Result<Option<Fault>, ErrorStack> {
        X509StoreContext::new()?.init(&self.store, &shown.leaf, &shown.others, |context| {
            if context.verify_cert()? {
                self.look_up(context.chain())
            } else {
                Ok(Some(fault(context.error())))
            }
        })
    }

    /// Says what the lists have against the authorities of a good chain, where OpenSSL does not ask
    /// them.
    fn look_up(&self, chain: Option<&StackRef<X509>>) -> Result<Option<Fault>, ErrorStack> {
        if !self.partial || self.revoked.is_empty() {
            return Ok(None);
        }
        let chain = chain.into_iter().flatten().skip(1);
        let mut chain: Vec<X509> = chain.map(ToOwned::to_owned).collect();
        // It ends with the first that is trusted; others that are may stand above.
        let longest = chain.len() + self.authorities.len();
        while chain.len() < longest
            && let Some(last) = chain.last()
            && !has_issued(last, last)
            && let Some(above) = issuer(&self.authorities, last)
        {
            chain.push(above.clone());
        }
        // Of the last there is no issuer here whose list could be asked.
        for (authority, issuer) in chain.iter().zip(chain.iter().skip(1)) {
            let fault = self.revocation(authority, issuer)?;
            if fault.is_some() {
                return Ok(fault);
            }
        }
        Ok(None)
    }

    /// Says what the current lists of `issuer` have against an authority.
    fn revocation(&self, authority: &X509, issuer: &X509) -> Result<Option<Fault>, ErrorStack> {
        let (key, now) = (issuer.public_key()?, Asn1Time::days_from_now(0)?);
        let mut fault = Some(Fault::UnknownRevocation);
        for (_, list) in &self.revoked {
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

impl Shown {
    /// Takes what the client has shown in a handshake, if it has.
    pub(super) fn of(ssl: &SslRef) -> Option<Self> {
        let leaf = ssl.peer_certificate()?;
        let mut others = Stack::new().ok()?;
        for other in ssl.peer_cert_chain().into_iter().flatten() {
            others.push(other.to_owned()).ok()?;
        }
        Some(Self { leaf, others })
    }

    /// Says in words what the client's own certificate says.
    pub(super) fn describe(&self, verdict: Verdict) -> ClientCertificate {
        let subject = |nid| {
            let entries = self.leaf.subject_name().entries_by_nid(nid);
            entries.filter_map(|entry| Some(entry.data().to_string().ok()?.as_str().into()))
        };
        let alternatives = self.leaf.subject_alt_names();
        let alternatives = || alternatives.iter().flatten();
        let fingerprint = self.leaf.digest(MessageDigest::sha256());
        let fingerprint = fingerprint.as_deref().unwrap_or_default().iter();
        ClientCertificate {
            common_name: subject(Nid::COMMONNAME).next(),
            organizational_units: subject(Nid::ORGANIZATIONALUNITNAME).collect(),
            emails: alternatives()
                .filter_map(|name| Some(name.email()?.into()))
                .collect(),
            dns_names: alternatives()
                .filter_map(|name| Some(name.dnsname()?.into()))
                .collect(),
            uris: alternatives()
                .filter_map(|name| Some(name.uri()?.into()))
                .collect(),
            fingerprint: fingerprint
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
                .into(),
            verdict,
        }
    }
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown")
            .field("subject", &self.leaf.subject_name())
            .finish_non_exhaustive()
    }
}

fn has_issued(issuer: &X509, certificate: &X509) -> bool {
    issuer.issued(certificate) == X509VerifyResult::OK
}

/// Returns the one of `authorities` that has issued a certificate.
fn issuer<'a>(authorities: &'a [X509], certificate: &X509) -> Option<&'a X509> {
    authorities
        .iter()
        .find(|authority| has_issued(authority, certificate))
}

fn files<'a>(ca_file: &'a Path, crl_files: &'a [PathBuf]) -> impl Iterator<Item = &'a Path> {
    std::iter::once(ca_file).chain(crl_files.iter().map(PathBuf::as_path))
}

/// Reads every revocation list of a file.
fn revocation_lists(file: &Path) -> Result<Vec<X509Crl>, Error> {
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

/// Sorts OpenSSL's many findings (`X509_V_ERR_…` in its `x509_vfy.h`) into the few that help
/// whoever reads them.
fn fault(found: X509VerifyResult) -> Fault {
    match found.as_raw() {
        // …_CERT_NOT_YET_VALID
        9 => Fault::NotYetValid,
        // …_CERT_HAS_EXPIRED
        10 => Fault::Expired,
        // …_CERT_REVOKED
        23 => Fault::Revoked,
        // …_INVALID_PURPOSE
        26 => Fault::WrongPurpose,
        // …_UNABLE_TO_GET_CRL, …_CRL_SIGNATURE_FAILURE, …_CRL_NOT_YET_VALID, …_CRL_HAS_EXPIRED,
        // …_UNABLE_TO_GET_CRL_ISSUER
        3 | 8 | 11 | 12 | 33 => Fault::UnknownRevocation,
        // …_UNABLE_TO_GET_ISSUER_CERT, …_CERT_SIGNATURE_FAILURE, …_DEPTH_ZERO_SELF_SIGNED_CERT,
        // …_SELF_SIGNED_CERT_IN_CHAIN, …_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        // …_UNABLE_TO_VERIFY_LEAF_SIGNATURE, …_CERT_UNTRUSTED
        2 | 7 | 18 | 19 | 20 | 21 | 27 => Fault::UnknownAuthority,
        _ => Fault::Other,
    }
}
