//! Apache's htpasswd file: which users there are, and whether a password is theirs.
//!
//! Read here: bcrypt (`$2a$`, `$2b$`, `$2x$`, `$2y$`), MD5-crypt (`$apr1$`, `$1$`), SHA-crypt (`$5$`, `$6$`),
//! `{SHA}`, and plain text where the config allows it. Not read: DES `crypt`, which looks at eight
//! letters only. Nothing here waits or remembers; hashing takes as long as it takes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bcrypt::HashParts;
use openssl::memcmp;
use openssl::sha::sha256;
use sha_crypt::{PasswordHashRef, PasswordVerifier, ShaCrypt};

use super::md5_crypt::md5_crypt;

/// Users and the hashes of their passwords.
pub struct Users {
    by_name: HashMap<Box<str>, Hash>,
    /// What stands for each line, so that a new password can be told from the old one.
    digests: HashMap<Box<str>, [u8; 32]>,
    /// One hash of each kind: what a wrong password is compared with, whoever it is for.
    decoys: BTreeMap<(&'static str, u32), Hash>,
}

impl Users {
    /// Reads the text of a file; `plain` says whether a password may stand in it as it is. Lines that
    /// cannot be used are left out, as nginx and Apache do, and returned by number, never by content: one
    /// of them must not keep a user in whom the same change took out.
    pub fn parse(text: &str, plain: bool) -> (Self, Vec<LineError>) {
        let mut lines: HashMap<Box<str>, usize> = HashMap::new();
        let mut by_name = HashMap::new();
        let mut digests = HashMap::new();
        let mut errors = Vec::new();
        for (line, text) in text.lines().enumerate().map(|(at, text)| (at + 1, text)) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            match parse_line(text, plain) {
                Ok((name, _)) if lines.contains_key(name) => errors.push(LineError {
                    line,
                    kind: LineErrorKind::Repeated {
                        first: lines.get(name).copied().unwrap_or_default(),
                    },
                }),
                Ok((name, hash)) => {
                    lines.insert(name.into(), line);
                    digests.insert(name.into(), sha256(text.as_bytes()));
                    by_name.insert(name.into(), hash);
                }
                Err(kind) => errors.push(LineError { line, kind }),
            }
        }
        let decoys = by_name.values().map(|hash| (hash.kind(), hash.clone()));
        let decoys = decoys.collect();
        let users = Self {
            by_name,
            digests,
            decoys,
        };
        (users, errors)
    }

    /// Returns whether there is nobody in the file.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// Returns the names of the users.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(|name| &**name)
    }

    /// Returns whether there is such a user.
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Returns what stands for the password of the user `name`: it changes with it.
    pub(crate) fn stored(&self, name: &str) -> Option<[u8; 32]> {
        self.digests.get(name).copied()
    }

    /// Returns whether `password` is that of the user `name`.
    ///
    /// A wrong password costs as much time whoever it is for: somebody with a cheap hash, with a
    /// dear one, or who is not there.
    pub fn verify(&self, name: &str, password: &[u8]) -> bool {
        self.verify_by(name, |hash| hash.matches(password))
    }

    fn verify_by(&self, name: &str, mut matches: impl FnMut(&Hash) -> bool) -> bool {
        let hash = self.by_name.get(name);
        if hash.is_some_and(&mut matches) {
            return true;
        }
        let own = hash.map(Hash::kind);
        for (_, decoy) in self.decoys.iter().filter(|(kind, _)| Some(**kind) != own) {
            std::hint::black_box(matches(decoy));
        }
        false
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("count", &self.by_name.len())
            .finish_non_exhaustive()
    }
}

/// A line of the file that cannot be used.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("line {line}: {kind}")]
pub struct LineError {
    /// The line's number, from one.
    pub line: usize,
    /// What is wrong with it.
    pub kind: LineErrorKind,
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum LineErrorKind {
    /// Nothing after the colon, which would let in whoever knows the name.
    #[error("the password or its hash is missing")]
    Empty,
    /// The hash announces a known format and is not of it.
    #[error("the {0} hash is malformed")]
    Malformed(&'static str),
    /// No name, or one that cannot travel in a header.
    #[error("the user's name is empty or holds control characters")]
    Name,
    /// No colon.
    #[error("is not of the form user:hash")]
    NoColon,
    /// The user has a line already.
    #[error("the user stands on line {first} already")]
    Repeated {
        /// Where.
        first: usize,
    },
    /// A format that is not read here.
    #[error(
        "the hash is in no supported format (DES crypt and plain text are not); write it with `htpasswd -B`"
    )]
    Unsupported,
}

/// A password's hash, checked for its form.
#[derive(Clone, Eq, PartialEq)]
enum Hash {
    Bcrypt {
        text: Box<str>,
        cost: u32,
    },
    Md5Crypt {
        magic: &'static str,
        salt: Box<str>,
        letters: Box<str>,
    },
    Plain(Box<str>),
    Sha1([u8; 20]),
    ShaCrypt {
        text: Box<str>,
        rounds: u32,
    },
}

impl Hash {
    fn parse(text: &str, plain: bool) -> Result<Self, LineErrorKind> {
        if let Some(digest) = text.strip_prefix("{SHA}") {
            let digest = STANDARD.decode(digest).ok();
            let digest = digest.and_then(|digest| digest.try_into().ok());
            return digest
                .map(Self::Sha1)
                .ok_or(LineErrorKind::Malformed("{SHA}"));
        }
        match text.strip_prefix('$').and_then(|rest| rest.split_once('$')) {
            Some(("2a" | "2b" | "2x" | "2y", _)) => parse_bcrypt(text),
            Some(("apr1", rest)) => parse_md5_crypt("$apr1$", rest),
            Some(("1", rest)) => parse_md5_crypt("$1$", rest),
            Some(("5", rest)) => parse_sha_crypt(text, rest, 43),
            Some(("6", rest)) => parse_sha_crypt(text, rest, 86),
            None if plain && !text.starts_with(['$', '{']) => Ok(Self::Plain(text.into())),
            Some(_) | None => Err(LineErrorKind::Unsupported),
        }
    }

    /// Compares in constant time: how long it takes says nothing of how much was right.
    fn matches(&self, password: &[u8]) -> bool {
        match self {
            Self::Bcrypt { text, .. } => bcrypt::verify(password, text).unwrap_or_default(),
            Self::Md5Crypt {
                magic,
                salt,
                letters,
            } => md5_crypt(password, salt.as_bytes(), magic)
                .is_ok_and(|computed| equal(computed.as_bytes(), letters.as_bytes())),
            Self::Plain(text) => equal(&sha256(text.as_bytes()), &sha256(password)),
            Self::Sha1(digest) => equal(&openssl::sha::sha1(password), digest),
            Self::ShaCrypt { text, .. } => PasswordHashRef::new(text)
                .is_ok_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok()),
        }
    }

    /// Returns what is the same for all that take as long to compare with.
    fn kind(&self) -> (&'static str, u32) {
        match self {
            Self::Bcrypt { cost, .. } => ("bcrypt", *cost),
            Self::Md5Crypt { .. } => ("MD5-crypt", 0),
            Self::Plain(_) => ("plain", 0),
            Self::Sha1(_) => ("{SHA}", 0),
            Self::ShaCrypt { text, rounds } if text.starts_with("$5$") => {
                ("SHA-256-crypt", *rounds)
            }
            Self::ShaCrypt { rounds, .. } => ("SHA-512-crypt", *rounds),
        }
    }
}

fn equal(a: &[u8], b: &[u8]) -> bool {
    // OpenSSL's comparison insists on equal lengths.
    a.len() == b.len() && memcmp::eq(a, b)
}

fn parse_line(text: &str, plain: bool) -> Result<(&str, Hash), LineErrorKind> {
    let (name, rest) = text.split_once(':').ok_or(LineErrorKind::NoColon)?;
    // What was not UTF-8 has become this character.
    let is_unusable = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
    if name.is_empty() || name.chars().any(is_unusable) {
        return Err(LineErrorKind::Name);
    }
    // What follows a second colon is a comment to Apache and nginx.
    let hash = rest.split(':').next().unwrap_or_default();
    if hash.is_empty() {
        return Err(LineErrorKind::Empty);
    }
    Ok((name, Hash::parse(hash, plain)?))
}

fn parse_bcrypt(text: &str) -> Result<Hash, LineErrorKind> {
    let parts: Result<HashParts, _> = text.parse();
    let malformed = LineErrorKind::Malformed("bcrypt");
    match parts {
        Ok(parts) if text.len() == 60 && (4..=31).contains(&parts.get_cost()) => Ok(Hash::Bcrypt {
            cost: parts.get_cost(),
            text: text.into(),
        }),
        Ok(_) | Err(_) => Err(malformed),
    }
}

fn parse_md5_crypt(magic: &'static str, rest: &str) -> Result<Hash, LineErrorKind> {
    match rest.split_once('$') {
        Some((salt, letters)) if salt.len() <= 8 && letters.len() == 22 => Ok(Hash::Md5Crypt {
            magic,
            salt: salt.into(),
            letters: letters.into(),
        }),
        Some(_) | None => Err(LineErrorKind::Malformed("MD5-crypt")),
    }
}

fn parse_sha_crypt(text: &str, rest: &str, letters_len: usize) -> Result<Hash, LineErrorKind> {
    let malformed = LineErrorKind::Malformed("SHA-crypt");
    let (rounds, rest) = match rest.strip_prefix("rounds=") {
        Some(rest) => {
            let (rounds, rest) = rest.split_once('$').ok_or(malformed)?;
            (rounds.parse().map_err(|_no_number| malformed)?, rest)
        }
        None => (sha_crypt::Params::RECOMMENDED_ROUNDS, rest),
    };
    let (_, letters) = rest.split_once('$').ok_or(malformed)?;
    let holds = letters.len() == letters_len
        && sha_crypt::Params::new(rounds).is_ok()
        && PasswordHashRef::new(text).is_ok();
    if holds {
        Ok(Hash::ShaCrypt {
            text: text.into(),
            rounds,
        })
    } else {
        Err(malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each line as Apache's own `htpasswd` wrote it for the password `correct horse`.
    const WRITTEN_BY_APACHE: [(&str, &str); 8] = [
        (
            "-B",
            "$2y$05$kAYIPg6Cz1I5umEm45qdx.38SdYCJNCpYHLPxXAR2iOA9rYdFblaK",
        ),
        ("-m", "$apr1$drWXX7jd$ug/q7Cna1/C4Q6js2qXAM1"),
        ("-s", "{SHA}L55TUjtiq8FBorTWAZ0jy6g129A="),
        (
            "-2",
            "$5$e0g3q.Jymp0HzmlJ$3iIJObbQo8/PeTPfLKGaUHJ6p71Uc3wlVhZo6FRoa4.",
        ),
        (
            "-5",
            "$6$ed2SIHLo8bb2xKzq$X/aZXTBDDju9ueLG9zTg9zQP1q1MNbHkRm1i6vXggkJ1yp3x4zZbuNyB.GryZ6iOveB8ya.nTRM8zuWfL41oE/",
        ),
        (
            "-2 -r",
            "$5$rounds=1000$UvhTdCHl6LaAGeKy$1wfKL2lmrbp/D6jkiuUG1Sr7kNflAuBMRfDchHdXUE.",
        ),
        (
            "-5 -r",
            "$6$rounds=1000$gotPktN7kj2Bhzkz$YbDIxsdzT6N2W2/NrYgnTdm3waBWnXdFmTu8S53wvajE1bc/mB3h.eu/mzyb/onrXzobELEbrD4lYGzzAs90H/",
        ),
        ("openssl passwd -1", "$1$abcdefgh$y6iHhJNbuC0xpbk0w9pm80"),
    ];

    #[test]
    fn every_format_that_htpasswd_writes_is_verified() {
        for (flag, hash) in WRITTEN_BY_APACHE {
            let (users, bad) = Users::parse(&format!("docker:{hash}\n"), false);
            assert!(bad.is_empty(), "{flag}");
            assert!(users.verify("docker", b"correct horse"), "{flag}");
            assert!(!users.verify("docker", b"correct horsf"), "{flag}");
            assert!(!users.verify("docker", b""), "{flag}");
            assert!(!users.verify("podman", b"correct horse"), "{flag}");
        }
    }

    #[test]
    fn comments_blank_lines_and_trailing_fields_are_no_users() {
        let hash = WRITTEN_BY_APACHE[2].1;
        let text = format!("# who\r\n\r\n  \na:{hash}\r\nb:{hash}:of the build\n");
        let (users, bad) = Users::parse(&text, false);
        assert!(bad.is_empty());
        assert!(users.verify("a", b"correct horse"));
        assert!(users.verify("b", b"correct horse"));
        assert!(!users.verify("# who", b"correct horse"));
        assert!(Users::parse("# nobody\n", false).0.is_empty());
    }

    #[test]
    fn plain_text_is_read_only_where_it_is_allowed() {
        let (users, bad) = Users::parse("a:secret\n", false);
        assert_eq!(bad[0].kind, LineErrorKind::Unsupported);
        assert!(!users.has("a"));
        let (users, _) = Users::parse("a:secret\n", true);
        assert!(users.verify("a", b"secret"));
        assert!(!users.verify("a", b"secre"));
        // What announces a format is never taken for a password.
        assert!(!Users::parse("a:$9$x$y\n", true).0.has("a"));
        // No password is no password.
        for (text, plain) in [("a:\n", true), ("a::of the build\n", true), ("a:\n", false)] {
            let (users, errors) = Users::parse(text, plain);
            assert_eq!(errors[0].kind, LineErrorKind::Empty, "{text}");
            assert!(users.is_empty(), "{text}");
        }
    }

    #[test]
    fn each_bad_line_is_told_by_number_and_never_by_content() {
        let sha = WRITTEN_BY_APACHE[2].1;
        let text = format!(
            "a:{sha}\nno colon\n:{sha}\na:{sha}\nb:nC3WAwp5D6PMs\nc:$2y$05$short\nd:{{SHA}}xx\ne:$6$salt$short\nf:$apr1$salt$short\ng:$5$rounds=1$salt$x\n"
        );
        let text = format!("{text}last:{sha}\n");
        let (users, errors) = Users::parse(&text, false);
        assert!(users.has("a") && users.has("last") && !users.has("b"));
        let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(errors.len(), 9, "{errors:?}");
        assert_eq!(errors[0], "line 2: is not of the form user:hash");
        assert!(errors[1].starts_with("line 3: the user's name"));
        assert_eq!(errors[2], "line 4: the user stands on line 1 already");
        assert!(errors[3].starts_with("line 5: the hash is in no supported format"));
        assert_eq!(errors[4], "line 6: the bcrypt hash is malformed");
        assert_eq!(errors[5], "line 7: the {SHA} hash is malformed");
        assert_eq!(errors[6], "line 8: the SHA-crypt hash is malformed");
        assert!(!errors.concat().contains("nC3W"));
    }

    #[test]
    fn a_wrong_password_costs_the_same_whoever_it_is_for() {
        let cheap = WRITTEN_BY_APACHE[2].1;
        let text = format!(
            "a:{cheap}\nb:{}\nc:{}\nd:{cheap}\n",
            WRITTEN_BY_APACHE[0].1, WRITTEN_BY_APACHE[1].1
        );
        let (users, _) = Users::parse(&text, false);
        let compared = |name| {
            let mut kinds = Vec::new();
            let right = users.verify_by(name, |hash| {
                kinds.push(hash.kind());
                false
            });
            assert!(!right);
            kinds.sort_unstable();
            kinds
        };
        let expected = [("MD5-crypt", 0), ("bcrypt", 5), ("{SHA}", 0)];
        for name in ["a", "b", "c", "d", "nobody"] {
            assert_eq!(compared(name), expected, "{name}");
        }
        // What is somebody else's opens nothing.
        assert!(users.verify("a", b"correct horse"));
        assert!(!users.verify("nobody", b"correct horse"));
    }
}
