//! What a request brings to say who is asking: `Authorization`, read once.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;

/// Clients disagree on whether the padding is theirs to send.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Longer names and passwords are nobody's. SHA-crypt's time grows with the square of a password's
/// length, so one as long as a header may be would keep a core busy for minutes.
const NAME_BYTES_MAX: usize = 255;
const PASSWORD_BYTES_MAX: usize = 1024;

/// What `Authorization` holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Presented {
    /// A token (RFC 6750).
    Bearer(String),
    /// A name and a password (RFC 7617).
    Login(Login),
    /// The header is not there.
    Nothing,
    /// It is there, and nothing that is known here: never to be taken for nothing.
    Unreadable,
}

/// A name and a password.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Login {
    pub(crate) name: String,
    pub(crate) password: Vec<u8>,
}

impl Presented {
    /// Reads the header, which may be there once.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let value = match (values.next(), values.next()) {
            (None, _) => return Self::Nothing,
            (Some(value), None) => value.to_str(),
            (Some(_), Some(_)) => return Self::Unreadable,
        };
        let Ok(Some((scheme, rest))) = value.map(|value| value.split_once(' ')) else {
            return Self::Unreadable;
        };
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Bearer(rest.trim().to_owned());
        }
        let login = scheme.eq_ignore_ascii_case("basic").then(|| basic(rest));
        login.flatten().map_or(Self::Unreadable, Self::Login)
    }
}

fn basic(encoded: &str) -> Option<Login> {
    let decoded = BASE64.decode(encoded.trim()).ok()?;
    let colon = decoded.iter().position(|byte| *byte == b':')?;
    let (name, password) = decoded.split_at_checked(colon)?;
    Login::new(name, password.get(1..)?)
}

impl Login {
    /// Takes a name and a password of a length that can be hashed.
    pub(crate) fn new(name: &[u8], password: &[u8]) -> Option<Self> {
        if name.len() > NAME_BYTES_MAX || password.len() > PASSWORD_BYTES_MAX {
            return None;
        }
        Some(Self {
            name: String::from_utf8(name.to_vec()).ok()?,
            password: password.to_vec(),
        })
    }
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the password.
        f.debug_struct("Login")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn presented(values: &[&str]) -> Presented {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        Presented::of(&headers)
    }

    fn login(name: &str, password: &str) -> Presented {
        Presented::Login(Login::new(name.as_bytes(), password.as_bytes()).unwrap())
    }

    #[test]
    fn credentials_are_read_as_clients_write_them() {
        for (values, expected) in [
            (&["Basic ZG9ja2VyOnB3"][..], login("docker", "pw")),
            (&["basic  ZG9ja2VyOnB3 "], login("docker", "pw")),
            (&["BASIC ZG9ja2VyOg=="], login("docker", "")),
            (&["Basic ZG9ja2VyOg"], login("docker", "")),
            (&["Basic OnB3"], login("", "pw")),
            (&["Basic ZG9ja2VyOmE6Yg=="], login("docker", "a:b")),
            (&["Basic ZG9ja2Vy"], Presented::Unreadable),
            (&["Basic ***"], Presented::Unreadable),
            (&["Basic"], Presented::Unreadable),
            (&[""], Presented::Unreadable),
            (&["Negotiate x"], Presented::Unreadable),
            (
                &["Basic ZG9ja2VyOnB3", "Basic ZG9ja2VyOnB3"],
                Presented::Unreadable,
            ),
            (&["Bearer a.b.c"], Presented::Bearer("a.b.c".to_owned())),
            (&[], Presented::Nothing),
        ] {
            assert_eq!(presented(values), expected, "{values:?}");
        }
    }

    #[test]
    fn credentials_have_a_length_that_can_be_hashed() {
        for (name, password, read) in [
            (NAME_BYTES_MAX, PASSWORD_BYTES_MAX, true),
            (NAME_BYTES_MAX + 1, 1, false),
            (1, PASSWORD_BYTES_MAX + 1, false),
        ] {
            let text = BASE64.encode(format!("{}:{}", "n".repeat(name), "p".repeat(password)));
            let found = presented(&[&format!("Basic {text}")]);
            assert_eq!(
                matches!(found, Presented::Login(_)),
                read,
                "{name} {password}"
            );
        }
    }
}
