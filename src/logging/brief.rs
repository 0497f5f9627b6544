//! A request in a short line, for somebody who looks at a terminal:
//! `19:02:11 docker push team/app:1.2 → 201 (3.1 MiB, 0.8 s)`.

use std::fmt::{self, Display, Write as _};

use bytesize::ByteSize;
use chrono::Local;
use tracing::Event;
use tracing::field::{Field, Visit};

/// How much of a name or a path a line has room for.
const SHOWN_MAX: usize = 80;

/// How many digits tell one digest from another, as docker shows it.
const HEX_SHOWN: usize = 12;

/// What of an access event is shown.
#[derive(Debug, Default)]
pub(super) struct Brief {
    client: String,
    principal: Option<String>,
    login: Option<String>,
    method: String,
    path: String,
    repository: Option<String>,
    reference: Option<String>,
    status: u64,
    bytes: u64,
    duration_ms: f64,
    because: Option<String>,
    error: Option<String>,
}

impl Brief {
    /// Reads an event; `None` where it is not about a request.
    pub(super) fn of(event: &Event<'_>) -> Option<Self> {
        let mut brief = Self::default();
        event.record(&mut brief);
        (brief.status > 0).then_some(brief)
    }

    /// Writes the line as of now, dimmed where there is colour and all is well.
    pub(super) fn write(&self, out: &mut impl fmt::Write, colour: bool) -> fmt::Result {
        let dims = colour && self.status < 400;
        let (dim, end) = if dims {
            ("\u{1b}[2m", "\u{1b}[0m")
        } else {
            ("", "")
        };
        let time = Local::now().format("%H:%M:%S");
        writeln!(out, "{dim}{time} {self}{end}")
    }

    /// Returns what was asked for, in the words of people where there are some.
    fn asked(&self) -> String {
        let verb = match self.method.as_str() {
            "GET" => "pull",
            "PUT" => "push",
            "DELETE" => "delete",
            _ => "",
        };
        let is_image = self.path.contains("/manifests/") && !verb.is_empty();
        match (&self.repository, &self.reference) {
            (Some(repository), Some(digest)) if is_image && digest.contains(':') => {
                format!("{verb} {repository}@{}", shown(digest))
            }
            (Some(repository), Some(tag)) if is_image => format!("{verb} {repository}:{tag}"),
            _ => format!("{} {}", self.method, shown(&self.path)),
        }
    }
}

impl Display for Brief {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = self.principal.as_deref().unwrap_or("-");
        write!(f, "{} {} → {}", shown(who), self.asked(), self.status)?;
        f.write_str(" (")?;
        if self.status >= 400 {
            let why = self.error.as_ref().or(self.because.as_ref());
            if let Some(why) = why {
                write!(f, "{}, ", shown(why))?;
            }
            if let Some(login) = &self.login {
                write!(f, "login as {}, ", shown(login))?;
            }
            write!(f, "from {}, ", self.client)?;
        } else if self.bytes > 0 {
            write!(f, "{}, ", ByteSize::b(self.bytes).display().iec())?;
        }
        if self.duration_ms < 100.0 {
            write!(f, "{:.0} ms)", self.duration_ms)
        } else {
            write!(f, "{:.1} s)", self.duration_ms / 1000.0)
        }
    }
}

/// Returns the begin of a text, with the long numbers of digests cut, and nothing in it that a terminal
/// would take for more than letters.
fn shown(text: &str) -> String {
    let mut shown = String::new();
    for piece in text.split_inclusive(['/', ':']) {
        let is_hash = piece.len() >= 64 && piece.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hash {
            shown.extend(piece.chars().take(HEX_SHOWN));
            shown.push('…');
        } else {
            shown.push_str(piece);
        }
    }
    let letters = shown.chars().flat_map(|letter| {
        let is_syntax = matches!(letter, '"' | '\'' | '\\');
        let escape = (!is_syntax).then(|| letter.escape_debug());
        let itself = is_syntax.then_some(letter);
        itself.into_iter().chain(escape.into_iter().flatten())
    });
    let mut begin: String = letters.clone().take(SHOWN_MAX).collect();
    if letters.count() > SHOWN_MAX {
        begin.push('…');
    }
    begin
}

impl Visit for Brief {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "principal" => self.principal = Some(value.to_owned()),
            "login" => self.login = Some(value.to_owned()),
            "method" => value.clone_into(&mut self.method),
            "path" => value.clone_into(&mut self.path),
            "because" => self.because = Some(value.to_owned()),
            "error" => self.error = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "status" => self.status = value,
            // One of them is a layer, the other a few words.
            "bytes_in" | "bytes_out" => self.bytes = self.bytes.max(value),
            _ => {}
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "duration_ms" {
            self.duration_ms = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // To write to memory does not fail.
        write!(text, "{value:?}").ok();
        match field.name() {
            "client" => self.client = text,
            "repository" => self.repository = Some(text),
            "reference" => self.reference = Some(text),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(method: &str, path: &str) -> Brief {
        Brief {
            client: "192.0.2.7".to_owned(),
            principal: Some("docker".to_owned()),
            method: method.to_owned(),
            path: path.to_owned(),
            status: 200,
            bytes: 3_250_586,
            duration_ms: 812.3,
            ..Brief::default()
        }
    }

    #[test]
    fn an_image_is_pushed_pulled_and_deleted() {
        let image = |method: &str, reference: &str| {
            let path = format!("/v2/team/app/manifests/{reference}");
            Brief {
                repository: Some("team/app".to_owned()),
                reference: Some(reference.to_owned()),
                ..brief(method, &path)
            }
            .to_string()
        };
        assert_eq!(
            image("PUT", "1.2"),
            "docker push team/app:1.2 → 200 (3.1 MiB, 0.8 s)"
        );
        assert_eq!(
            image("GET", &format!("sha256:{}", "a1".repeat(32))),
            "docker pull team/app@sha256:a1a1a1a1a1a1… → 200 (3.1 MiB, 0.8 s)"
        );
        assert_eq!(
            image("HEAD", "1.2"),
            "docker HEAD /v2/team/app/manifests/1.2 → 200 (3.1 MiB, 0.8 s)"
        );
    }

    #[test]
    fn a_refusal_says_why_and_where_it_came_from() {
        let refused = Brief {
            principal: None,
            login: Some("ann".to_owned()),
            status: 401,
            duration_ms: 3.4,
            because: Some("wrong password".to_owned()),
            ..brief("GET", "/v2/")
        };
        assert_eq!(
            refused.to_string(),
            "- GET /v2/ → 401 (wrong password, login as ann, from 192.0.2.7, 3 ms)"
        );
    }

    #[test]
    fn what_a_client_writes_is_short_and_only_text() {
        let path = format!("/{}\u{9b}2J", "x".repeat(200));
        let line = brief("GET", &path).to_string();
        assert!(line.len() < 200, "{line}");
        let login = Brief {
            status: 401,
            login: Some("\u{1b}[2Jann\n".to_owned()),
            ..brief("GET", "/")
        };
        assert!(!login.to_string().chars().any(char::is_control), "{login}");
    }

    #[test]
    fn what_went_well_is_dim_where_there_is_colour() {
        let mut line = String::new();
        brief("GET", "/").write(&mut line, true).unwrap();
        assert!(line.starts_with("\u{1b}[2m") && line.ends_with("\u{1b}[0m\n"));
        let mut plain = String::new();
        brief("GET", "/").write(&mut plain, false).unwrap();
        assert!(!plain.contains('\u{1b}'));
        let (time, rest) = plain.split_at(8);
        assert!(
            time.bytes().filter(|byte| *byte == b':').count() == 2,
            "{plain}"
        );
        assert_eq!(rest, " docker GET / → 200 (3.1 MiB, 0.8 s)\n");
    }
}
