//! Certificates for the edge under test, made by the real `openssl`.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Builder};

use super::run;

/// A certificate and its key, in files.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
}

impl Pair {
    /// Makes a self-signed pair for `names` and both loopback addresses, as `<stem>.pem` and
    /// `<stem>-key.pem` in `folder`. What is there is replaced.
    pub(crate) fn create(folder: &Path, stem: &str, names: &[&str]) -> Self {
        let p256 = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        Self::create_with(&p256, folder, stem, names)
    }

    /// As [`create`](Self::create), with a key as `openssl req -newkey` is asked for it.
    pub(crate) fn create_with(key: &[&str], folder: &Path, stem: &str, names: &[&str]) -> Self {
        let pair = Self {
            cert: folder.join(format!("{stem}.pem")),
            key: folder.join(format!("{stem}-key.pem")),
        };
        let mut subject: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        subject.extend(["IP:127.0.0.1".to_owned(), "IP:::1".to_owned()]);
        run(Command::new("openssl")
            .args(["req", "-x509", "-newkey"])
            .args(key)
            .args([
                "-nodes",
                "-days",
                "30",
                "-subj",
                "/CN=tidegate-test",
                "-addext",
            ])
            .arg(format!("subjectAltName={}", subject.join(",")))
            .arg("-keyout")
            .arg(&pair.key)
            .arg("-out")
            .arg(&pair.cert));
        pair
    }

    /// Gives the certificate another time: it began a year ago and ends so many seconds from now.
    pub(crate) fn end_in(&self, secs: i64) {
        let key = std::fs::read(&self.key).expect("read the key");
        let key = PKey::private_key_from_pem(&key).expect("a key");
        let now = i64::try_from(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .expect("a time after 1970")
                .as_secs(),
        )
        .expect("a time before the sun is cold");
        let at = |secs| Asn1Time::from_unix(now + secs).expect("a time");
        let old = self.certificate();
        let mut new = X509Builder::new().expect("a certificate");
        let made = move || -> Result<X509, ErrorStack> {
            new.set_version(2)?;
            new.set_serial_number(old.serial_number())?;
            new.set_subject_name(old.subject_name())?;
            new.set_issuer_name(old.issuer_name())?;
            new.set_pubkey(&key)?;
            new.set_not_before(&at(-365 * 24 * 60 * 60))?;
            new.set_not_after(&at(secs))?;
            let mut names = SubjectAlternativeName::new();
            for name in old.subject_alt_names().iter().flatten() {
                if let Some(name) = name.dnsname() {
                    names.dns(name);
                }
                let octets = name.ipaddress();
                if let Some(octets) = octets.and_then(|octets| <[u8; 4]>::try_from(octets).ok()) {
                    names.ip(&IpAddr::from(octets).to_string());
                }
            }
            let names = names.build(&new.x509v3_context(None, None))?;
            new.append_extension(names)?;
            new.sign(&key, MessageDigest::sha256())?;
            Ok(new.build())
        };
        let pem = made().and_then(|made| made.to_pem());
        std::fs::write(&self.cert, pem.expect("a certificate")).expect("write the certificate");
    }

    /// The certificate itself.
    pub(crate) fn certificate(&self) -> X509 {
        let pem = std::fs::read(&self.cert).expect("read the certificate");
        X509::from_pem(&pem).expect("a certificate")
    }
}

/// The certificate a TLS listener answers `name` with.
pub(crate) fn peer_certificate(address: SocketAddr, name: &str) -> Option<X509> {
    let mut connector = SslConnector::builder(SslMethod::tls_client()).expect("a TLS client");
    connector.set_verify(SslVerifyMode::NONE);
    let mut connection = connector.build().configure().expect("a TLS client");
    connection.set_verify_hostname(false);
    let tcp = TcpStream::connect(address).ok()?;
    let stream = connection.connect(name, tcp).ok()?;
    stream.ssl().peer_certificate()
}
