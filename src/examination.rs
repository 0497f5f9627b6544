//! What there is to say of a config and of all that it names, as one user sees it.

use std::path::Path;

use anyhow::{Context, Result};
use nix::unistd::User;
use registry_backend::Unready;
use serde_json::{Value, json};
use settings::{Problem, Problems, Purpose, Section};

use crate::config::{self, Config, Registry, Role};
use crate::eyes;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Examination {
    /// What keeps a role from starting.
    pub(crate) problems: Problems,
    /// What does not, and is wrong all the same.
    pub(crate) errors: Vec<String>,
    /// What may be meant.
    pub(crate) warnings: Vec<String>,
    /// The config itself is closed to this user.
    pub(crate) is_closed: bool,
}

impl Examination {
    /// Looks at a config and at what it names for a role, or for both, as this process's user.
    pub(crate) fn make(path: &Path, role: Option<Role>) -> Self {
        let mut found = Self {
            is_closed: settings::denied(path, Purpose::Read).is_some(),
            ..Self::default()
        };
        let look = |root: &Section, registry: &Registry| found.look_at_registry(root, registry);
        match config::read_and_look(path, role, look) {
            Ok(config) => found.look_at(&config, role),
            Err(problems) => found.problems = problems,
        }
        found
    }

    fn look_at_registry(&mut self, root: &Section, registry: &Registry) {
        let first = registry.configs.first();
        for config in &registry.configs {
            let key = format!("{}.storage.filesystem.root", config.key);
            // A path that could not be read is a problem already.
            let unready = config
                .unready()
                .filter(|_| !config.root.as_os_str().is_empty());
            match unready {
                Some(Unready::Unusable(why)) => root.problem(&key, why),
                Some(Unready::Absent(why)) => self.warnings.push(root.at(&key, why).to_string()),
                None => {}
            }
            // What an instance does not say itself is told once.
            let inherited = |first: &registry_backend::Config| {
                first.key != config.key && first.allow_users == config.allow_users
            };
            if first.is_some_and(inherited) {
                continue;
            }
            for (index, why) in config.unknown_users() {
                let key = format!("{}.allow_users[{index}]", config.key);
                let told = root.at(&key, why).to_string();
                // Where Tidegate's own users are not, a config may be written for another machine.
                match User::from_name(eyes::REGISTRY_USER) {
                    Ok(Some(_)) => self.errors.push(told),
                    Ok(None) | Err(_) => self.warnings.push(told),
                }
            }
        }
    }

    fn look_at(&mut self, config: &Config, role: Option<Role>) {
        self.warnings.extend(config.log_warnings(role));
        self.warnings.extend_from_slice(config.edge.warnings());
        self.errors.extend(config.edge.expired_certificates());
        let skipped = config.edge.skipped_lines().into_iter();
        self.errors
            .extend(skipped.map(|line| format!("{line}: the line is left out")));
        for trouble in config.edge.certificate_troubles() {
            if trouble.serious {
                self.errors.push(trouble.text);
            } else {
                self.warnings.push(trouble.text);
            }
        }
    }

    /// Names the config as it was `given` where it is named by its `absolute` path.
    pub(crate) fn about(mut self, absolute: &Path, given: &Path) -> Self {
        let absolute = format!("{}:", absolute.display());
        for line in self.errors.iter_mut().chain(&mut self.warnings) {
            if let Some(rest) = line.strip_prefix(&absolute) {
                *line = format!("{}:{rest}", given.display());
            }
        }
        self
    }

    /// Adds what somebody else has found; what both have is told once.
    pub(crate) fn add(&mut self, other: Self) {
        let problems = self.problems.iter().chain(&other.problems);
        self.problems = problems.cloned().collect();
        add(&mut self.errors, other.errors);
        add(&mut self.warnings, other.warnings);
    }

    /// Writes it as JSON.
    pub(crate) fn to_json(&self) -> String {
        let problem = |problem: &Problem| json!([problem.line, problem.key, problem.message]);
        let problems: Vec<Value> = self.problems.iter().map(problem).collect();
        json!({
            "problems": problems,
            "errors": self.errors,
            "warnings": self.warnings,
            "closed": self.is_closed,
        })
        .to_string()
    }

    /// Reads what [`Examination::to_json`] wrote of the config `file`.
    ///
    /// # Errors
    /// When it is something else.
    pub(crate) fn from_json(text: &str, file: &Path) -> Result<Self> {
        let mut value: Value = serde_json::from_str(text)?;
        let mut part = |key: &str| {
            let part = value.get_mut(key).map(Value::take);
            part.context("a part is missing")
        };
        let problems: Vec<(Option<usize>, String, String)> =
            serde_json::from_value(part("problems")?)?;
        let problem = |(line, key, message)| Problem {
            file: file.to_owned(),
            line,
            key,
            message,
        };
        Ok(Self {
            problems: problems.into_iter().map(problem).collect(),
            errors: serde_json::from_value(part("errors")?)?,
            warnings: serde_json::from_value(part("warnings")?)?,
            is_closed: serde_json::from_value(part("closed")?)?,
        })
    }
}

fn add(all: &mut Vec<String>, more: Vec<String>) {
    for line in more {
        if !all.contains(&line) {
            all.push(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_has_found_is_read_as_it_was_and_added_once() {
        let file = Path::new("/etc/t/edge.toml");
        let problem = |line, key: &str| Problem {
            file: file.to_owned(),
            line,
            key: key.to_owned(),
            message: "is \"wrong\"".to_owned(),
        };
        let found = Examination {
            problems: [problem(Some(7), "b"), problem(None, "")]
                .into_iter()
                .collect(),
            errors: vec!["error".to_owned()],
            warnings: vec!["warning".to_owned()],
            is_closed: true,
        };
        let read = || Examination::from_json(&found.to_json(), file).unwrap();
        assert_eq!(read().problems, found.problems);
        assert!(read().is_closed);
        let mut all = Examination {
            problems: [problem(Some(3), "a"), problem(Some(7), "b")]
                .into_iter()
                .collect(),
            ..Examination::default()
        };
        all.add(read());
        all.add(read());
        let named = Examination {
            errors: vec![
                "/a/edge.toml:1: k: wrong".to_owned(),
                "/a/cert.pem: bad".to_owned(),
            ],
            ..Examination::default()
        };
        let named = named.about(Path::new("/a/edge.toml"), Path::new("edge.toml"));
        assert_eq!(named.errors, ["edge.toml:1: k: wrong", "/a/cert.pem: bad"]);
        let lines: Vec<_> = all.problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [Some(3), Some(7), None]);
        assert_eq!((all.errors, all.warnings), (found.errors, found.warnings));
        assert!(Examination::from_json("{}", file).is_err());
    }
}
