//! An authority for client certificates, run with the real `openssl` as a company would run one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Pair, run};

/// What makes a certificate that of an authority.
const AUTHORITY: &str =
    "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n";

/// A root, an intermediate, and what they have issued and revoked.
pub(crate) struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// Founds one in a new folder.
    pub(crate) fn found(folder: &Path, name: &str) -> Self {
        let folder = folder.join(name);
        fs::create_dir(&folder).expect("create a folder");
        let authority = Self { folder };
        authority.key("root");
        run(authority
            .openssl(&["req", "-x509", "-new", "-days", "30", "-subj"])
            .arg(format!("/O={name}/CN={name} root"))
            .args(["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
            .arg("-key")
            .arg(authority.at("root.key"))
            .arg("-out")
            .arg(authority.at("root.pem")));
        let subject = format!("/O={name}/CN={name} intermediate");
        authority.sign("intermediate", "root", &subject, AUTHORITY, 30);
        for issuer in ["root", "intermediate"] {
            fs::write(authority.at(&format!("{issuer}.index")), "").expect("write an index");
            fs::write(authority.at(&format!("{issuer}.number")), "01\n").expect("write a number");
        }
        authority.publish();
        authority
    }

    /// Where it keeps a file.
    pub(crate) fn at(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Issues a certificate for clients to `subject`, and puts the intermediate behind it.
    pub(crate) fn issue(&self, name: &str, subject: &str) -> Pair {
        self.issue_with(name, subject, "extendedKeyUsage=clientAuth\n", 10)
    }

    /// Issues one with these extensions, which is good for so many days.
    pub(crate) fn issue_with(
        &self,
        name: &str,
        subject: &str,
        extensions: &str,
        days: i32,
    ) -> Pair {
        let pair = self.sign(name, "intermediate", subject, extensions, days);
        let intermediate = Pair {
            cert: self.at("intermediate.pem"),
            key: self.at("intermediate.key"),
        };
        chain(&pair, &intermediate);
        pair
    }

    /// Issues one by another intermediate of the same root, which is made for it.
    pub(crate) fn issue_by_another(&self, name: &str, subject: &str) -> Pair {
        let issuer = format!("{name}-authority");
        let title = format!("/CN={issuer}");
        let other = self.sign(&issuer, "root", &title, AUTHORITY, 30);
        let pair = self.sign(name, &issuer, subject, "extendedKeyUsage=clientAuth\n", 10);
        chain(&pair, &other);
        pair
    }

    /// Revokes a certificate of the intermediate's, and publishes that.
    pub(crate) fn revoke(&self, pair: &Pair) {
        run(self.ca("intermediate").arg("-revoke").arg(&pair.cert));
        self.publish();
    }

    /// Revokes the intermediate, and publishes that.
    pub(crate) fn revoke_intermediate(&self) {
        let intermediate = self.at("intermediate.pem");
        run(self.ca("root").arg("-revoke").arg(intermediate));
        self.publish();
    }

    /// Makes both revocation lists anew, in one file: `crl.pem`.
    pub(crate) fn publish(&self) {
        let mut lists = String::new();
        for issuer in ["root", "intermediate"] {
            let file = self.at(&format!("{issuer}.crl"));
            run(self.ca(issuer).arg("-gencrl").arg("-out").arg(&file));
            lists += &fs::read_to_string(file).expect("read a list");
        }
        // As a careful administrator replaces a file that is in use.
        let fresh = self.at("crl.fresh");
        fs::write(&fresh, lists).expect("write the lists");
        run(Command::new("mv").arg(fresh).arg(self.at("crl.pem")));
    }

    fn sign(&self, name: &str, issuer: &str, subject: &str, extensions: &str, days: i32) -> Pair {
        let pair = Pair {
            cert: self.at(&format!("{name}.pem")),
            key: self.key(name),
        };
        let (request, file) = (self.at("request"), self.at("extensions"));
        fs::write(&file, extensions).expect("write extensions");
        run(self
            .openssl(&["req", "-new", "-subj", subject, "-key"])
            .arg(&pair.key)
            .arg("-out")
            .arg(&request));
        run(self
            .openssl(&["x509", "-req", "-days", &days.to_string()])
            .arg("-in")
            .arg(request)
            .arg("-extfile")
            .arg(file)
            .arg("-CA")
            .arg(self.at(&format!("{issuer}.pem")))
            .arg("-CAkey")
            .arg(self.at(&format!("{issuer}.key")))
            .args(["-CAcreateserial", "-out"])
            .arg(&pair.cert));
        pair
    }

    fn key(&self, name: &str) -> PathBuf {
        let file = self.at(&format!("{name}.key"));
        let curve = "ec_paramgen_curve:P-256";
        run(self
            .openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out"])
            .arg(&file));
        file
    }

    fn ca(&self, issuer: &str) -> Command {
        let config = self.at(&format!("{issuer}.cnf"));
        let at = |suffix: &str| self.at(&format!("{issuer}.{suffix}")).display().to_string();
        let text = format!(
            "[ca]\ndefault_ca = here\n[here]\ndatabase = {}\ncrlnumber = {}\ncertificate = {}\n\
             private_key = {}\ndefault_md = sha256\ndefault_crl_days = 30\n",
            at("index"),
            at("number"),
            at("pem"),
            at("key"),
        );
        fs::write(&config, text).expect("write a config");
        let mut command = self.openssl(&["ca", "-batch", "-config"]);
        command.arg(config);
        command
    }

    fn openssl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("openssl");
        command.current_dir(&self.folder).args(arguments);
        command
    }
}

/// Puts the issuer behind a certificate, in its file.
fn chain(pair: &Pair, issuer: &Pair) {
    let chain = [&pair.cert, &issuer.cert].map(|file| fs::read_to_string(file).expect("read it"));
    fs::write(&pair.cert, chain.concat()).expect("write a chain");
}
