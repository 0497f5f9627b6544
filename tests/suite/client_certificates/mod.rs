//! Client certificates: of a real authority, shown at sites that ask for them in their ways.

mod clients;
mod connections;
mod entry;
mod revocation;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Authority, Output, Pair, Rig, Setup, eventually, try_run};

/// The hosts of the sites, beside the usual one, and what each asks for.
const SITES: [(&str, &str); 5] = [
    ("required.test", ""),
    (
        "optional.test",
        "client_certificate = \"optional\"\nhtpasswd_file = \"htpasswd\"\n",
    ),
    (
        "both.test",
        "client_principal = \"none\"\nhtpasswd_file = \"htpasswd\"\n",
    ),
    (
        "email.test",
        "client_principal = \"san_email\"\nclient_allow = [\"*@a.test\"]\n",
    ),
    ("ruled.test", ""),
];

/// A rig with a site for each way of asking for a certificate, and the authority they trust.
struct Doors {
    rig: Rig,
    authority: Authority,
}

impl Doors {
    fn open() -> Self {
        Self::open_with("")
    }

    /// With more keys for each site.
    fn open_with(keys: &str) -> Self {
        let mut rig = Setup {
            tables: "[log]\nformat = \"json\"\n".to_owned(),
            ..Setup::default()
        }
        .prepare();
        let folder = rig.config().parent().unwrap().to_owned();
        let authority = Authority::found(&folder, "clients");
        let names: Vec<&str> = SITES.iter().map(|(host, _)| *host).collect();
        let names = [&["localhost", "registry.test"], &names[..]].concat();
        Pair::create(&folder, "cert", &names);
        let mut text = fs::read_to_string(rig.config()).unwrap();
        for (host, more) in SITES {
            text += &format!(
                "[[site]]\nhosts = [\"{host}\"]\nupstream = \"registry\"\n\
                 certificate = {{ cert_file = \"cert.pem\", key_file = \"cert-key.pem\" }}\n\
                 [site.auth]\nclient_ca_file = \"clients/root.pem\"\n{more}{keys}"
            );
        }
        // The last of them has rules.
        text += "[[site.access.rule]]\nrepositories = [\"team/**\"]\nwho = [\"@dev\"]\n\
                 actions = [\"pull\", \"push\"]\n\
                 [[site.access.rule]]\nwho = [\"cert:ci-7\"]\nactions = [\"pull\"]\n";
        fs::write(rig.config(), text).unwrap();
        rig.start_registry();
        rig.start_edge();
        rig.wait_until_ready();
        Self { rig, authority }
    }

    /// What curl says of `/v2/<path>` at a site, with a certificate or without.
    fn curl(&self, host: &str, path: &str, pair: Option<&Pair>, more: &[&str]) -> Output {
        let port = self.rig.https.port();
        let mut command = Command::new("curl");
        command
            .args(["-s", "-S", "-m", "20", "-w", "\n%{http_code}", "--resolve"])
            .arg(format!("{host}:{port}:127.0.0.1"))
            .arg("--cacert")
            .arg(self.rig.path("cert.pem"))
            .args(more);
        if let Some(pair) = pair {
            command.arg("--cert").arg(&pair.cert);
            command.arg("--key").arg(&pair.key);
        }
        try_run(command.arg(format!("https://{host}:{port}/v2/{path}")))
    }

    fn status(&self, host: &str, path: &str, pair: Option<&Pair>) -> String {
        let output = self.curl(host, path, pair, &[]);
        let status = output.stdout.lines().last().unwrap_or_default().to_owned();
        assert!(output.success || status == "000", "{output}");
        status
    }

    /// The one line of the edge's log that holds all of these.
    fn logged(&self, parts: &[&str]) -> String {
        eventually("a line of the log", || self.rig.edge_lines(parts).pop())
    }
}

/// The certificates that are shown, good and bad.
struct Wallet {
    good: Pair,
    expired: Pair,
    early: Pair,
    server: Pair,
    stranger: Pair,
}

impl Wallet {
    fn of(doors: &Doors) -> Self {
        let authority = &doors.authority;
        let folder = doors.rig.config().parent().unwrap().to_owned();
        let stranger = Authority::found(&folder, "strangers");
        let client = "extendedKeyUsage=clientAuth\n";
        let subject = "/CN=ci-7/OU=dev/OU=night";
        let early = authority.issue("early", subject);
        make_early(authority, &early);
        Self {
            good: authority.issue("good", subject),
            expired: authority.issue_with("expired", subject, client, -1),
            early,
            server: authority.issue_with("server", subject, "extendedKeyUsage=serverAuth\n", 10),
            stranger: stranger.issue("stranger", subject),
        }
    }
}

/// Signs the certificate again, to begin in a year.
fn make_early(authority: &Authority, pair: &Pair) {
    use openssl::asn1::Asn1Time;
    use openssl::hash::MessageDigest;
    use openssl::pkey::PKey;
    use openssl::x509::{X509, X509Builder};
    let read = |file: PathBuf| fs::read(file).unwrap();
    let issuer = X509::from_pem(&read(authority.at("intermediate.pem"))).unwrap();
    let key = PKey::private_key_from_pem(&read(authority.at("intermediate.key"))).unwrap();
    let before = X509::from_pem(&read(pair.cert.clone())).unwrap();
    let mut builder = X509Builder::new().unwrap();
    builder.set_version(2).unwrap();
    builder.set_serial_number(before.serial_number()).unwrap();
    builder.set_subject_name(before.subject_name()).unwrap();
    builder.set_issuer_name(issuer.subject_name()).unwrap();
    builder.set_pubkey(&before.public_key().unwrap()).unwrap();
    let (from, to) = (Asn1Time::days_from_now(365), Asn1Time::days_from_now(400));
    builder.set_not_before(&from.unwrap()).unwrap();
    builder.set_not_after(&to.unwrap()).unwrap();
    builder.sign(&key, MessageDigest::sha256()).unwrap();
    let chain = [builder.build().to_pem().unwrap(), issuer.to_pem().unwrap()];
    fs::write(&pair.cert, chain.concat()).unwrap();
}
