//! What flags of `up` and `setup` ask of a folder that is set up already: its files are never touched, so
//! what they do not say anyway has to be edited there.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use settings::{Document, Section};

/// What was given.
pub(crate) struct Given<'a> {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
    /// The hosts, as a client writes them.
    pub(crate) hosts: &'a [String],
}

/// Returns what `given` asks for and the config does not say, each with the key to edit.
///
/// # Errors
/// When the config is no TOML.
pub(crate) fn differences(config: &Path, given: &Given<'_>) -> Result<Vec<String>> {
    let mut document = Document::read(config)?;
    let mut root = document.root();
    let listeners: Vec<Listener> = root
        .tables("listener")
        .iter_mut()
        .map(Listener::of)
        .collect();
    let mut hosts: Vec<String> = Vec::new();
    for mut site in root.tables("site") {
        hosts.extend(site.optional::<Vec<String>>("hosts").into_iter().flatten());
    }
    let config = config.display();
    let mut differences = Vec::new();
    for (flag, wanted, tls) in [
        ("--http", given.http, false),
        ("--https", given.https, true),
    ] {
        let Some(wanted) = wanted else { continue };
        let mut listeners = listeners
            .iter()
            .enumerate()
            .filter(|(_, one)| one.tls == tls);
        if listeners
            .clone()
            .any(|(_, listener)| listener.address == Some(wanted))
        {
            continue;
        }
        let key = match listeners.next() {
            Some((index, _)) => format!("listener[{index}].address"),
            None => "[[listener]]".to_owned(),
        };
        differences.push(format!("{flag} {wanted}: edit {key} in {config}"));
    }
    for host in given.hosts.iter().filter(|host| !hosts.contains(*host)) {
        differences.push(format!(
            "--name or --ip {host}: add it to site[0].hosts in {config}, and make a certificate for it \
             with tidegate gencert"
        ));
    }
    Ok(differences)
}

struct Listener {
    address: Option<SocketAddr>,
    tls: bool,
}

impl Listener {
    fn of(section: &mut Section) -> Self {
        let address = section.optional::<String>("address");
        Self {
            address: address.and_then(|address| address.parse().ok()),
            tls: section.optional("tls").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flag_that_the_config_does_not_follow_is_told_with_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("edge.toml");
        let text = "[[listener]]\naddress = '127.0.0.1:80'\n\
                    [[listener]]\naddress = '[::1]:443'\ntls = true\n\
                    [[site]]\nhosts = ['a.b', '[::1]']\n";
        std::fs::write(&config, text).unwrap();
        let hosts =
            |hosts: &[&str]| -> Vec<String> { hosts.iter().map(ToString::to_string).collect() };
        let differ = |http: &str, https: &str, names: &[&str]| {
            let given = Given {
                http: http.parse().ok(),
                https: https.parse().ok(),
                hosts: &hosts(names),
            };
            differences(&config, &given).unwrap()
        };
        assert!(differ("", "", &[]).is_empty());
        assert!(differ("127.0.0.1:80", "[::1]:443", &["[::1]", "a.b"]).is_empty());
        let all = differ("0.0.0.0:80", "127.0.0.1:80", &["c.d", "a.b"]);
        let [http, https, host] = all.as_slice() else {
            panic!("{all:?}");
        };
        assert!(
            http.starts_with("--http 0.0.0.0:80: edit listener[0].address in "),
            "{http}"
        );
        assert!(
            https.starts_with("--https 127.0.0.1:80: edit listener[1].address in "),
            "{https}"
        );
        assert!(host.contains("c.d: add it to site[0].hosts"), "{host}");
    }
}
