//! Which events are worth a line.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

use super::limit::LEFT_OUT;

/// The target of the events that make up the access log.
pub(super) const ACCESS: &str = "access";

/// Our own crates: `level = "debug"` is about them, not about the libraries below.
const OWN: [&str; 5] = ["oci", "proxy", "registry_backend", "settings", "tidegate"];

/// Where Pingora reports as an error that a client broke off or spoke nonsense. Anyone can cause
/// that, as often as they like; what was under way then is in the access log.
const CLIENTS: [&str; 2] = ["pingora_core::apps", "pingora_proxy"];

/// What is worth a line: a level for our own crates, and others by target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Levels {
    own: LevelFilter,
    targets: Vec<(String, LevelFilter)>,
}

impl Default for Levels {
    fn default() -> Self {
        Self {
            own: LevelFilter::INFO,
            targets: Vec::new(),
        }
    }
}

impl Levels {
    /// The filter of the stream that `access` events join or do not.
    pub(super) fn filter(&self, access: bool) -> Targets {
        // What a library reports, the crate that uses it reports with more sense.
        let libraries = self.own.min(LevelFilter::WARN);
        let clients = if self.own >= LevelFilter::DEBUG {
            libraries
        } else {
            LevelFilter::OFF
        };
        Targets::new()
            .with_default(libraries)
            .with_targets(CLIENTS.map(|target| (target, clients)))
            .with_targets(OWN.map(|target| (target, self.own)))
            .with_target(ACCESS, LevelFilter::INFO)
            // These tell of lines that were let through.
            .with_target(LEFT_OUT, LevelFilter::INFO)
            .with_targets(self.targets.iter().cloned())
            .with_targets((!access).then_some((ACCESS, LevelFilter::OFF)))
    }

    /// The filter of a stream of `access` events alone.
    pub(super) fn access_filter(&self) -> Targets {
        let level = self
            .targets
            .iter()
            .rev()
            .find(|(target, _)| target == ACCESS);
        Targets::new().with_target(ACCESS, level.map_or(LevelFilter::INFO, |(_, level)| *level))
    }
}

impl FromStr for Levels {
    type Err = UnknownLevel;

    /// Parses `"debug"`, or `"warn,proxy=debug,pingora=info"`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut levels = Self::default();
        for item in text.split(',').map(str::trim) {
            match item.split_once('=') {
                Some((target, name)) => levels.targets.push((target.to_owned(), level(name)?)),
                None if item == text => {
                    levels.own = level(item).map_err(|unknown| UnknownLevel {
                        alone: true,
                        ..unknown
                    })?;
                }
                None => levels.own = level(item)?,
            }
        }
        Ok(levels)
    }
}

fn level(name: &str) -> Result<LevelFilter, UnknownLevel> {
    let mut known = LEVELS.iter().filter(|(word, _)| *word == name);
    let unknown = || UnknownLevel {
        name: name.to_owned(),
        alone: false,
    };
    known.next().map(|(_, level)| *level).ok_or_else(unknown)
}

/// Every level, from the fewest lines to the most.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];

/// A word that names no level.
#[derive(Debug)]
pub(super) struct UnknownLevel {
    name: String,
    /// It is all of the text, which whoever tells of it has quoted already.
    alone: bool,
}

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.alone {
            write!(f, "{:?} ", self.name)?;
        }
        f.write_str(&settings::choices(
            &self.name,
            &LEVELS.map(|(word, _)| word),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_written() {
        let levels: Levels = "warn, proxy=debug".parse().unwrap();
        assert_eq!(levels.own, LevelFilter::WARN);
        assert_eq!(levels.targets, [("proxy".to_owned(), LevelFilter::DEBUG)]);
        for bad in ["inof", "", "proxy=loud", "info,"] {
            assert!(bad.parse::<Levels>().is_err(), "{bad:?}");
        }
        let told = |text: &str| text.parse::<Levels>().unwrap_err().to_string();
        let list = "must be one of \"off\", \"error\", \"warn\", \"info\", \"debug\" or \"trace\"";
        assert_eq!(told("verbose"), list);
        assert_eq!(told("inof"), format!("{list}, did you mean \"info\"?"));
        assert_eq!(told("proxy=loud"), format!("\"loud\" {list}"));
    }

    #[test]
    fn own_level_does_not_open_the_libraries_and_access_is_apart() {
        let filter = "debug".parse::<Levels>().unwrap().filter(true);
        assert!(filter.would_enable("proxy::edge", &tracing::Level::DEBUG));
        assert!(filter.would_enable("pingora_core", &tracing::Level::WARN));
        assert!(!filter.would_enable("pingora_core", &tracing::Level::INFO));

        let usual = Levels::default().filter(true);
        assert!(usual.would_enable("pingora_core::listeners", &tracing::Level::WARN));
        assert!(!usual.would_enable("pingora_core::apps", &tracing::Level::ERROR));
        assert!(filter.would_enable("pingora_core::apps", &tracing::Level::ERROR));
        let asked = "warn,pingora_proxy=debug".parse::<Levels>().unwrap();
        assert!(
            asked
                .filter(true)
                .would_enable("pingora_proxy", &tracing::Level::DEBUG)
        );

        let quiet = "error".parse::<Levels>().unwrap();
        assert!(
            quiet
                .filter(true)
                .would_enable(ACCESS, &tracing::Level::INFO)
        );
        assert!(
            !quiet
                .filter(false)
                .would_enable(ACCESS, &tracing::Level::ERROR)
        );
        assert!(
            quiet
                .access_filter()
                .would_enable(ACCESS, &tracing::Level::INFO)
        );
        assert!(
            !quiet
                .access_filter()
                .would_enable("proxy", &tracing::Level::ERROR)
        );
        let off = "info,access=off".parse::<Levels>().unwrap();
        assert!(!off.filter(true).would_enable(ACCESS, &tracing::Level::INFO));
        assert!(
            !off.access_filter()
                .would_enable(ACCESS, &tracing::Level::INFO)
        );
    }
}
