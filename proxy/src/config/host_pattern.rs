//! The hosts that a site serves, as they are written in the config.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// Which hosts are meant: one, all of one label below a name, or all.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum HostPattern {
    /// `*`
    Any,
    /// `registry.example.com`, or an address; an IPv6 address stands in brackets.
    Exact(String),
    /// `*.example.com`, kept without the `*.`; it stands for one label, as in certificates.
    Wildcard(String),
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum HostPatternError {
    /// A label with other letters, or too long, or none.
    #[error("is not a valid host name")]
    Name,
    /// `host:port`
    #[error("must be without a port: sites are found by name alone")]
    Port,
    /// `https://…`
    #[error("must be a host name alone, not a URL")]
    Url,
    /// A `*` anywhere but as the first label.
    #[error("a \"*\" may only stand alone or as the whole first label")]
    Wildcard,
}

impl FromStr for HostPattern {
    type Err = HostPatternError;

    fn from_str(text: &str) -> Result<Self, HostPatternError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if text.contains('/') {
            return Err(HostPatternError::Url);
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(IpAddr::V6(address)) => return Ok(Self::Exact(format!("[{address}]"))),
            Ok(IpAddr::V4(address)) => return Ok(Self::Exact(address.to_string())),
            Err(_) => {}
        }
        if text.contains(':') {
            return Err(HostPatternError::Port);
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (wildcard, rest) = match name.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, name.as_str()),
        };
        if rest.contains('*') {
            return Err(HostPatternError::Wildcard);
        }
        if rest.len() > 253 || !rest.split('.').all(is_label) {
            return Err(HostPatternError::Name);
        }
        Ok(if wildcard {
            Self::Wildcard(rest.to_owned())
        } else {
            Self::Exact(name)
        })
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

/// Letters, digits, `-` and, because it is out there, `_`.
fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_read_in_one_spelling() {
        for (text, expected) in [
            ("*", HostPattern::Any),
            (
                "Registry.Example.com.",
                HostPattern::Exact("registry.example.com".to_owned()),
            ),
            (
                "*.Example.com",
                HostPattern::Wildcard("example.com".to_owned()),
            ),
            ("127.0.0.1", HostPattern::Exact("127.0.0.1".to_owned())),
            ("::1", HostPattern::Exact("[::1]".to_owned())),
            ("[0:0::1]", HostPattern::Exact("[::1]".to_owned())),
            ("localhost", HostPattern::Exact("localhost".to_owned())),
            ("my_host", HostPattern::Exact("my_host".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, expected) in [
            ("", HostPatternError::Name),
            ("a..b", HostPatternError::Name),
            ("-a", HostPatternError::Name),
            ("a b", HostPatternError::Name),
            ("bücher.test", HostPatternError::Name),
            ("a:443", HostPatternError::Port),
            ("https://a", HostPatternError::Url),
            ("*a.test", HostPatternError::Wildcard),
            ("a.*.test", HostPatternError::Wildcard),
            ("*.*", HostPatternError::Wildcard),
        ] {
            assert_eq!(text.parse::<HostPattern>(), Err(expected), "{text}");
        }
    }
}
