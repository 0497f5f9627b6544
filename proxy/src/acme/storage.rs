//! Where keys and certificates are kept, laid out for a person to find them.
//!
//! ```text
//! <state_dir>/
//!   live/<site>/fullchain.pem, privkey.pem      what is in use: a link into archive
//!   live/<site>+rsa/…                           the same for a further type of key
//!   archive/<site>/<n>/fullchain.pem, …         what was, the last few of them
//!   accounts/<directory>.json                   who we are to a CA, with the account's key
//!   orders/<site>.json                          what came of the last order, and when the next is due
//!   challenges/<token>                          what a CA is answered at this moment
//!   renewals/                                   what `tidegate renew` asks of the edge
//!   acme.lock                                   held by the one edge that orders
//! ```
//!
//! A certificate and its key change at once: they are a folder, and `live/<site>` leads to it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::record::Record;
use crate::config::KeyType;
use crate::state_dir::{self, StateDir};

/// How many certificates of a site are kept.
const KEPT: usize = 5;

/// What no record and no account comes near.
const JSON_BYTES_MAX: u64 = 64 * 1024;

const CHAIN: &str = "fullchain.pem";
const KEY: &str = "privkey.pem";

/// The part of the state folder that is about certificates.
#[derive(Clone, Debug)]
pub struct Storage(StateDir);

/// The right to order, as long as it is held; a process that dies gives it back.
pub(super) struct Turn {
    _lock: File,
}

impl Storage {
    /// Keeps everything in `state`.
    pub fn new(state: StateDir) -> Self {
        Self(state)
    }

    /// Returns what the files of a site with these hosts are called.
    pub fn site(hosts: &[String]) -> String {
        hosts
            .first()
            .map(|host| site_name(host))
            .unwrap_or_default()
    }

    /// Returns what the files of each certificate of a site are called that has this first host.
    pub fn names(host: &str, key_types: &[KeyType]) -> Vec<(String, KeyType)> {
        let site = site_name(host);
        let name = |(index, key_type): (usize, &KeyType)| match index {
            0 => (site.clone(), *key_type),
            // No name of a site has a plus.
            _ => (format!("{site}+{}", key_type.algorithm()), *key_type),
        };
        key_types.iter().enumerate().map(name).collect()
    }

    /// Returns where the chain and the key of a site are, or will be.
    pub fn live(&self, site: &str) -> (PathBuf, PathBuf) {
        let folder = self.0.path().join("live").join(site);
        (folder.join(CHAIN), folder.join(KEY))
    }

    /// Puts a chain and its key in the place of those in use.
    ///
    /// # Errors
    /// What the system says; those in use stay then.
    pub fn publish(&self, site: &str, chain: &[u8], key: &[u8]) -> io::Result<()> {
        let archive = self.0.make(&format!("archive/{site}"))?;
        let kept = numbers(&archive)?;
        let number = kept.last().map_or(1, |last| last + 1);
        let folder = self.0.make(&format!("archive/{site}/{number}"))?;
        state_dir::replace(&folder.join(KEY), key)?;
        state_dir::replace(&folder.join(CHAIN), chain)?;
        let live = self.0.make("live")?;
        let staged = live.join(format!(".{site}"));
        state_dir::remove(&staged)?;
        symlink(
            Path::new("../archive").join(site).join(number.to_string()),
            &staged,
        )?;
        fs::rename(&staged, live.join(site))?;
        File::open(&live)?.sync_all()?;
        let spare = (kept.len() + 1).saturating_sub(KEPT);
        for old in kept.iter().take(spare) {
            fs::remove_dir_all(archive.join(old.to_string()))?;
        }
        Ok(())
    }

    /// Returns what is known of the account at the CA with this directory.
    pub(super) fn account(&self, directory: &str) -> io::Result<Option<Vec<u8>>> {
        read(&self.account_path(directory))
    }

    /// Keeps an account.
    pub(super) fn keep_account(&self, directory: &str, account: &[u8]) -> io::Result<()> {
        self.0.make("accounts")?;
        state_dir::replace(&self.account_path(directory), account)
    }

    /// Lays an account aside that the CA does not know any more.
    pub(super) fn forget_account(&self, directory: &str) -> io::Result<()> {
        let path = self.account_path(directory);
        fs::rename(&path, path.with_extension("lost"))
    }

    fn account_path(&self, directory: &str) -> PathBuf {
        let name = directory.strip_prefix("https://").unwrap_or(directory);
        let name: String = name.chars().map(fit_for_a_file).collect();
        self.0.path().join("accounts").join(format!("{name}.json"))
    }

    /// Returns what is known of a site's orders; nothing where there was none.
    ///
    /// # Errors
    /// What the system says; a record that cannot be read is none.
    pub fn record(&self, site: &str) -> io::Result<Record> {
        let bytes = read(&self.record_path(site))?;
        let parsed = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(parsed.unwrap_or_default())
    }

    /// Keeps a record.
    pub(super) fn keep_record(&self, site: &str, record: &Record) -> io::Result<()> {
        self.0.make("orders")?;
        let text = serde_json::to_vec_pretty(record).map_err(io::Error::other)?;
        state_dir::replace(&self.record_path(site), &text)
    }

    fn record_path(&self, site: &str) -> PathBuf {
        self.0.path().join("orders").join(format!("{site}.json"))
    }

    /// Takes the right to order, if nobody has it.
    pub(super) fn take_turn(&self) -> io::Result<Option<Turn>> {
        self.0.make("")?;
        let lock = open_lock(&self.0.path().join("acme.lock"))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Turn { _lock: lock })),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the folder of the answers to a CA that is asking at this moment.
    pub(crate) fn challenges(&self) -> PathBuf {
        self.0.path().join("challenges")
    }

    /// Tells the other edges on this folder how to answer.
    pub(super) fn keep_challenge(&self, name: &str, answer: &[u8]) -> io::Result<()> {
        let folder = self.0.make("challenges")?;
        state_dir::replace(&folder.join(name), answer)
    }

    /// Returns an answer that some edge on the folder gives.
    pub(super) fn challenge(&self, name: &str) -> Option<Vec<u8>> {
        read(&self.challenges().join(name)).ok().flatten()
    }

    /// Returns whether some edge on the folder is being asked.
    pub(super) fn has_challenges(&self) -> bool {
        let names = state_dir::names(&self.challenges(), "");
        names.is_ok_and(|names| !names.is_empty())
    }

    /// Takes an answer back.
    pub(super) fn drop_challenge(&self, name: &str) -> io::Result<()> {
        state_dir::remove(&self.challenges().join(name)).map(drop)
    }

    /// Returns the folder of what `tidegate renew` asks for.
    pub(super) fn renewals(&self) -> io::Result<PathBuf> {
        self.0.make("renewals")
    }

    /// Takes back what an edge left that died while it was ordering.
    pub(super) fn drop_challenges(&self, _turn: &Turn) -> io::Result<()> {
        let entries = match fs::read_dir(self.challenges()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            // What it had not finished writing is among them.
            state_dir::remove(&entry?.path())?;
        }
        Ok(())
    }
}

/// Opens a file that is there to be locked. It belongs to the folder's owner, whoever makes it.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    match state_dir::create(path, b"") {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _made_or_there => {}
    }
    File::options().write(true).open(path)
}

/// Names a site's files after its first host.
pub(super) fn site_name(host: &str) -> String {
    let host = host.replace('*', "wildcard");
    host.trim_matches(['[', ']'])
        .chars()
        .map(fit_for_a_file)
        .collect()
}

fn fit_for_a_file(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_') {
        letter
    } else {
        '_'
    }
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match state_dir::read(path, JSON_BYTES_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn numbers(archive: &Path) -> io::Result<Vec<u64>> {
    let names = state_dir::names(archive, "")?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn storage() -> (tempfile::TempDir, Storage) {
        let folder = tempfile::tempdir().unwrap();
        let storage = Storage::new(StateDir::new(folder.path().join("state")));
        (folder, storage)
    }

    #[test]
    fn a_pair_is_published_as_a_whole_and_the_last_few_are_kept() {
        let (_folder, storage) = storage();
        let (chain, key) = storage.live("a.test");
        for n in 0..9 {
            let text = format!("{n}");
            storage
                .publish("a.test", text.as_bytes(), text.as_bytes())
                .unwrap();
            assert_eq!(fs::read_to_string(&chain).unwrap(), text);
            assert_eq!(fs::read_to_string(&key).unwrap(), text);
        }
        let archive = storage.0.path().join("archive/a.test");
        assert_eq!(numbers(&archive).unwrap(), [5, 6, 7, 8, 9]);
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn only_one_has_the_turn_until_it_is_given_back() {
        let (_folder, storage) = storage();
        let turn = storage.take_turn().unwrap().unwrap();
        assert!(storage.take_turn().unwrap().is_none());
        storage.keep_challenge("token", b"answer").unwrap();
        let unfinished = storage.challenges().join(".unfinished");
        fs::write(&unfinished, "").unwrap();
        storage.drop_challenges(&turn).unwrap();
        assert!(!storage.challenges().join("token").exists() && !unfinished.exists());
        drop(turn);
        assert!(storage.take_turn().unwrap().is_some());
    }

    #[test]
    fn accounts_are_kept_by_the_cas_name() {
        let (_folder, storage) = storage();
        let directory = "https://ca.test:14000/dir";
        assert!(storage.account(directory).unwrap().is_none());
        storage.keep_account(directory, b"{}").unwrap();
        let path = storage.account_path(directory);
        assert!(
            path.ends_with("accounts/ca.test_14000_dir.json"),
            "{path:?}"
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        storage.forget_account(directory).unwrap();
        assert!(storage.account(directory).unwrap().is_none());
    }

    #[test]
    fn each_further_type_of_key_has_files_of_its_own() {
        let types = [KeyType::Rsa4096, KeyType::EcdsaP256];
        let names = Storage::names("a.test", &types);
        assert_eq!(
            names,
            [
                ("a.test".to_owned(), KeyType::Rsa4096),
                ("a.test+ecdsa".to_owned(), KeyType::EcdsaP256)
            ]
        );
    }

    #[test]
    fn a_site_is_named_by_its_first_host() {
        for (host, name) in [
            ("registry.example.com", "registry.example.com"),
            ("*.example.com", "wildcard.example.com"),
            ("[::1]", "__1"),
        ] {
            assert_eq!(site_name(host), name);
        }
    }
}
