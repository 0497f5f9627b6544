//! The outcome of a reload or an upgrade.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// The outcome of a reload or an upgrade.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The config is in force.
    InForce(Reloaded),
    /// Another process serves, of this version.
    Upgraded { version: String },
    /// Nothing was changed, for these reasons.
    Refused { problems: Vec<String> },
}

/// What is to be said of a config that is in force.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Reloaded {
    /// Keys that have changed, and need a restart.
    pub(crate) waiting: Vec<String>,
    /// Lines of files of users and groups that are left out.
    pub(crate) skipped: Vec<String>,
}

/// How many of these lines are named.
const SKIPPED_MAX: usize = 100;

impl Outcome {
    /// Writes it as a line of JSON.
    pub(crate) fn to_json(&self) -> String {
        match self {
            Self::InForce(Reloaded { waiting, skipped }) => json!({
                "outcome": "in force",
                "needs_restart": waiting,
                "skipped": skipped.get(..SKIPPED_MAX).unwrap_or(skipped),
            }),
            Self::Upgraded { version } => json!({"outcome": "upgraded", "version": version}),
            Self::Refused { problems } => json!({"outcome": "refused", "problems": problems}),
        }
        .to_string()
    }

    /// Reads what [`Outcome::to_json`] wrote.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn from_json(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).context("read the answer")?;
        // They go to a terminal.
        let printable = |text: &str| text.replace(char::is_control, " ");
        let list = |key: &str| -> Result<Vec<String>> {
            let list = value.get(key).cloned().unwrap_or_default();
            let list: Vec<String> = serde_json::from_value(list).context("read the answer")?;
            Ok(list.iter().map(|text| printable(text)).collect())
        };
        match value.get("outcome").and_then(Value::as_str) {
            Some("in force") => Ok(Self::InForce(Reloaded {
                waiting: list("needs_restart")?,
                skipped: list("skipped")?,
            })),
            Some("upgraded") => {
                let version = value.get("version").and_then(Value::as_str);
                Ok(Self::Upgraded {
                    version: printable(version.unwrap_or("unknown")),
                })
            }
            Some("refused") => Ok(Self::Refused {
                problems: list("problems")?,
            }),
            _ => bail!("the answer is of another version"),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InForce(Reloaded { waiting, .. }) if waiting.is_empty() => {
                f.write_str("config reloaded")
            }
            Self::InForce(Reloaded { waiting, .. }) => write!(
                f,
                "config reloaded, but for what needs a restart: {}",
                waiting.join(", ")
            ),
            Self::Upgraded { version } => {
                write!(
                    f,
                    "a new process serves, version {version}; the one before finishes its requests"
                )
            }
            Self::Refused { .. } => f.write_str("nothing was changed: what was in force goes on"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        for outcome in [
            Outcome::InForce(Reloaded::default()),
            Outcome::InForce(Reloaded {
                waiting: vec!["listener".to_owned()],
                skipped: vec!["line 1".to_owned()],
            }),
            Outcome::Upgraded {
                version: "1.2.3".to_owned(),
            },
            Outcome::Refused {
                problems: vec!["a \"b\" c".to_owned()],
            },
        ] {
            let line = outcome.to_json();
            assert!(!line.contains('\n'));
            assert_eq!(Outcome::from_json(&line).unwrap(), outcome);
        }
        let line = r#"{"outcome": "refused", "problems": ["\u001b[2Ja"]}"#;
        let Ok(Outcome::Refused { problems }) = Outcome::from_json(line) else {
            panic!("it was refused");
        };
        assert_eq!(problems, [" [2Ja"]);
        for other in ["", "{}", "[]", "{\"outcome\": \"else\"}"] {
            assert!(Outcome::from_json(other).is_err(), "{other}");
        }
    }
}
