//! What came of a reload.

use std::fmt;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

/// What came of a reload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// The whole config is in force, but for these keys, which need a restart.
    InForce { waiting: Vec<String> },
    /// Nothing was changed, for these reasons.
    Refused { problems: Vec<String> },
}

impl Outcome {
    /// Writes it as a line of JSON.
    pub(crate) fn to_json(&self) -> String {
        match self {
            Self::InForce { waiting } => json!({"outcome": "in force", "needs_restart": waiting}),
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
        let list = |key: &str| -> Result<Vec<String>> {
            let list = value.get(key).cloned().unwrap_or_default();
            serde_json::from_value(list).context("read the answer")
        };
        match value.get("outcome").and_then(Value::as_str) {
            Some("in force") => Ok(Self::InForce {
                waiting: list("needs_restart")?,
            }),
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
            Self::InForce { waiting } if waiting.is_empty() => f.write_str("config reloaded"),
            Self::InForce { waiting } => write!(
                f,
                "config reloaded, but for what needs a restart: {}",
                waiting.join(", ")
            ),
            Self::Refused { .. } => f.write_str("nothing was changed: the config in force stays"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        for outcome in [
            Outcome::InForce {
                waiting: Vec::new(),
            },
            Outcome::InForce {
                waiting: vec!["listener".to_owned()],
            },
            Outcome::Refused {
                problems: vec!["a \"b\"\nc".to_owned()],
            },
        ] {
            let line = outcome.to_json();
            assert!(!line.contains('\n'));
            assert_eq!(Outcome::from_json(&line).unwrap(), outcome);
        }
        for other in ["", "{}", "[]", "{\"outcome\": \"else\"}"] {
            assert!(Outcome::from_json(other).is_err(), "{other}");
        }
    }
}
