//! Certificates for the edge under test, made by the real `openssl`.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use openssl::ssl::{SslConnector, SslMethod, SslVerifyMode};
use openssl::x509::X509;

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
                "2",
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
