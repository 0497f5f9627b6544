//! Whose certificates a site takes: asks for one in the handshake, and says whether a chain is to be
//! believed, by the site's authorities and what they have revoked.

mod lists;
mod shown;

pub(super) use shown::Shown;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use openssl::error::ErrorStack;
use openssl::ssl::{SslRef, SslVerifyMode};
use openssl::stack::StackRef;
use openssl::x509::store::{X509Store, X509StoreBuilder, X509StoreRef};
use openssl::x509::verify::{X509VerifyFlags, X509VerifyParam};
use openssl::x509::{X509, X509PurposeId, X509StoreContext, X509VerifyResult};

use self::lists::Lists;
use super::Error;
use super::certified_key::read;
use crate::auth::certificate::{Fault, Verdict};
use crate::watch::Watch;

/// How many authorities may stand between a client and one that is trusted.
const DEPTH_MAX: i32 = 8;

/// What OpenSSL asks of a server's own chain by default: no SHA-1, no RSA below 2048 bits.
const SECURITY_LEVEL: i32 = 2;

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
    lists: Lists,
    store: X509Store,
    /// Whether there is an authority without the one that has issued it.
    partial: bool,
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
        loaded.lists.warnings(&loaded.authorities, &self.ca_file)
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
        let lists = Lists::read(crl_files, &mut store)?;
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
        if !lists.is_empty() {
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
            lists,
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
        if !self.partial || self.lists.is_empty() {
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
            let fault = self.lists.revocation(authority, issuer)?;
            if fault.is_some() {
                return Ok(fault);
            }
        }
        Ok(None)
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
