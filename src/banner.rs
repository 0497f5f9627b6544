//! What `tidegate up` tells a person once both roles are ready.
//!
//! All of it is read from the files as they are, for they are there to be edited.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use settings::{Document, Section};

use crate::folder::Folder;
use crate::htpasswd;
use crate::kept_password;
use crate::output::shell_word;

/// Describes what runs from `folder`, with TLS on `https`.
pub(crate) fn text(folder: &Folder, https: Option<SocketAddr>) -> String {
    let config = folder.config();
    let Some(https) = https else {
        return format!("\nTidegate runs as {} says.\n", config.display());
    };
    let site = Site::read(folder);
    let host = site.host.unwrap_or_else(|| listening_host(https.ip()));
    let authority = match https.port() {
        443 => host.clone(),
        port => format!("{host}:{port}"),
    };
    let login = login(folder, &site.way_in, &authority);
    let trust = if site.self_signed {
        trust(folder, &host, &authority)
    } else {
        String::new()
    };
    format!(
        "
Tidegate runs at https://{authority}

{login}
  config    {}
{trust}
Ctrl-C finishes the transfers under way and stops it.
",
        config.display()
    )
}

/// Who may log in and how.
fn login(folder: &Folder, way_in: &WayIn, authority: &str) -> String {
    let htpasswd = match way_in {
        WayIn::Passwords(file) => file,
        WayIn::Certificates => {
            let folder = format!("/etc/docker/certs.d/{authority}");
            return format!(
                "  docker pull {authority}/IMAGE\n\n  user      whoever shows a certificate: \
                 {folder}/client.cert and client.key"
            );
        }
        WayIn::Open => {
            return format!("  docker pull {authority}/IMAGE\n\n  user      nobody is asked");
        }
        WayIn::Elsewhere => return format!("  docker login {authority}\n"),
    };
    let password = folder.password();
    // Only what works is shown.
    if let Some(user) = kept_password::whose(&password, htpasswd) {
        return format!(
            "  docker login {authority} --username {user} --password-stdin < {}\n\n  \
             user      {user}\n  password  {}",
            shell_word(&password),
            password.display()
        );
    }
    let users = fs::read_to_string(htpasswd).unwrap_or_default();
    let user = htpasswd::users(&users).next().unwrap_or("USER");
    format!(
        "  docker login {authority} --username {user}\n\n  user      {user}\n  \
         password  as it was set"
    )
}

/// How clients come to know a certificate that no authority has signed.
fn trust(folder: &Folder, host: &str, authority: &str) -> String {
    let why = if is_loopback(host) {
        "Docker takes any certificate on this address; Podman and others must know this one:"
    } else {
        "The certificate is self-signed: each client's machine must know it:"
    };
    format!(
        "\n{why}\n  sudo install -D -m 644 {} /etc/docker/certs.d/{authority}/ca.crt\n",
        shell_word(&folder.certificate())
    )
}

/// What Docker's daemon counts as insecure by default: 127.0.0.0/8, and names that lead there.
fn is_loopback(host: &str) -> bool {
    let v4 = host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_ipv4() && address.is_loopback());
    v4 || host == "localhost"
}

/// The first site of the config, as far as the banner needs it.
struct Site {
    host: Option<String>,
    self_signed: bool,
    way_in: WayIn,
}

/// How somebody comes in to a site.
enum WayIn {
    /// By a certificate alone.
    Certificates,
    /// With what another server hands out.
    Elsewhere,
    /// By asking.
    Open,
    /// By a password of this htpasswd file.
    Passwords(PathBuf),
}

impl WayIn {
    fn of(site: &mut Section) -> Self {
        let Some(mut auth) = site.table("auth") else {
            return Self::Open;
        };
        match (auth.path("htpasswd_file"), auth.has("client_ca_file")) {
            (Some(file), _) => Self::Passwords(file),
            (None, true) => Self::Certificates,
            (None, false) => Self::Elsewhere,
        }
    }
}

impl Site {
    fn read(folder: &Folder) -> Self {
        let mut site = Document::read(&folder.config())
            .ok()
            .and_then(|mut document| document.root().tables("site").into_iter().next());
        let hosts: Option<Vec<String>> = site.as_mut().and_then(|site| site.optional("hosts"));
        let certificate: Option<PathBuf> = site
            .as_mut()
            .and_then(|site| site.table("certificate"))
            .and_then(|mut certificate| certificate.path("cert_file"));
        Self {
            host: hosts.into_iter().flatten().find(|host| !host.contains('*')),
            self_signed: certificate == Some(folder.certificate()),
            way_in: site.as_mut().map_or(WayIn::Open, WayIn::of),
        }
    }
}

/// A host that leads to a listener, for a site that names none.
fn listening_host(address: IpAddr) -> String {
    match address {
        _ if address.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn folder(path: &Path, host: &str) -> Folder {
        let folder = Folder::new(path).unwrap();
        folder.create().unwrap();
        let config = format!(
            "[[site]]\nhosts = ['*.example.com', '{host}']\n\
             certificate = {{ cert_file = 'tls/cert.pem' }}\n\
             [site.auth]\nhtpasswd_file = 'auth/htpasswd'\n"
        );
        fs::write(folder.config(), config).unwrap();
        // `secret`
        let hash = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
        fs::write(folder.htpasswd(), format!("# first\nbob:x\nann:{hash}\n")).unwrap();
        folder
    }

    #[test]
    fn login_line_is_ready_to_run() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = folder(temporary.path(), "registry.lan");
        fs::write(folder.password(), "secret\n").unwrap();
        let text = text(&folder, Some("0.0.0.0:8443".parse().unwrap()));
        let login = format!(
            "docker login registry.lan:8443 --username ann --password-stdin < {}",
            folder.password().display()
        );
        assert!(text.contains("https://registry.lan:8443\n"), "{text}");
        assert!(text.contains(&login), "{text}");
        assert!(
            text.contains("/etc/docker/certs.d/registry.lan:8443/ca.crt"),
            "{text}"
        );
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn well_known_port_is_not_part_of_the_name() {
        let temporary = tempfile::tempdir().unwrap();
        let text = text(
            &folder(temporary.path(), "a.b"),
            Some("[::]:443".parse().unwrap()),
        );
        assert!(text.contains("docker login a.b --username bob\n"), "{text}");
    }

    #[test]
    fn a_password_that_lets_nobody_in_is_not_shown() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = folder(temporary.path(), "a.b");
        fs::write(folder.password(), "another\n").unwrap();
        let text = text(&folder, Some("0.0.0.0:443".parse().unwrap()));
        assert!(!text.contains("--password-stdin"), "{text}");
        assert!(text.contains("password  as it was set"), "{text}");
    }

    #[test]
    fn a_site_of_certificates_asks_for_no_password() {
        let temporary = tempfile::tempdir().unwrap();
        let folder = folder(temporary.path(), "a.b");
        let config = fs::read_to_string(folder.config()).unwrap();
        let config = config.replace(
            "htpasswd_file = 'auth/htpasswd'",
            "client_ca_file = 'ca.pem'",
        );
        fs::write(folder.config(), &config).unwrap();
        let https = Some("0.0.0.0:443".parse().unwrap());
        let said = text(&folder, https);
        assert!(!said.contains("docker login"), "{said}");
        assert!(
            said.contains("/etc/docker/certs.d/a.b/client.cert"),
            "{said}"
        );
        let (open, _auth) = config.split_once("[site.auth]").unwrap();
        fs::write(folder.config(), open).unwrap();
        assert!(!text(&folder, https).contains("docker login"));
    }

    #[test]
    fn loopback_is_what_docker_counts_as_such() {
        for (host, expected) in [("localhost", true), ("127.0.0.2", true), ("[::1]", false)] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
