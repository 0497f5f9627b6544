//! The log: `[log]` and `[registry.log]` of the config, and where the lines go.
//!
//! Two streams: what the program has to say, and one `access` event per request. They share a
//! destination unless `access_file` parts them. Every setting changes with a reload, and each file
//! is opened again then, so that logrotate can move it away.

mod levels;
mod stream;

use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Result, anyhow};
use rustix::fs::{Access, access};
use settings::Section;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::files;
use levels::{Levels, UnknownLevel};
use stream::{Sink, Stream};

/// The environment variable that takes the place of every `level` key.
const LEVEL_VARIABLE: &str = "TIDEGATE_LOG";

/// A `[log]` table, proven.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    format: Option<LogFormat>,
    level: Option<Levels>,
    file: Option<PathBuf>,
    access_file: Option<PathBuf>,
}

impl Log {
    /// Reads `[log]`; `writes` says whether this process is the one that will write the files.
    pub(crate) fn read(section: &mut Section, writes: bool) -> Self {
        let mut log = Self::read_common(section, writes);
        log.access_file = file(section, "access_file", writes);
        log
    }

    /// Reads `[registry.log]`, which has no access log and takes from `log` what it does not say.
    pub(crate) fn read_registry(section: Option<&mut Section>, log: &Self, writes: bool) -> Self {
        let mut own = section
            .map(|table| Self::read_common(table, writes))
            .unwrap_or_default();
        own.format = own.format.or(log.format);
        own.level = own.level.or_else(|| log.level.clone());
        own
    }

    fn read_common(section: &mut Section, writes: bool) -> Self {
        Self {
            format: section.parsed("format"),
            level: section.parsed("level"),
            file: file(section, "file", writes),
            access_file: None,
        }
    }

    /// The levels in force: the environment's before the config's.
    fn levels(&self) -> Result<Levels> {
        match std::env::var(LEVEL_VARIABLE) {
            Ok(text) if !text.is_empty() => text
                .parse()
                .map_err(|error: UnknownLevel| anyhow!("{LEVEL_VARIABLE}: {error}")),
            _ => Ok(self.level.clone().unwrap_or_default()),
        }
    }
}

/// Reads the path of a log file and notes whether it could be written, without creating it: the
/// one who checks a config is often not the user who will write the log.
fn file(section: &mut Section, key: &str, writes: bool) -> Option<PathBuf> {
    let path = section.path(key)?;
    if writes {
        let target = if path.exists() {
            path.as_path()
        } else {
            files::directory(&path)
        };
        if path.is_dir() {
            section.problem(key, format!("{}: is a folder", path.display()));
        } else if let Err(error) = access(target, Access::WRITE_OK) {
            section.problem(
                key,
                format!("write {}: {}", path.display(), io::Error::from(error)),
            );
        }
    }
    Some(path)
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum LogFormat {
    Json,
    #[default]
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("is neither \"text\" nor \"json\""),
        }
    }
}

/// The running log; [`Logs::apply`] gives it other settings.
pub(crate) struct Logs {
    main: Stream,
    access: Stream,
}

/// Settings that are sure to work: the files are open.
pub(crate) struct Prepared {
    format: LogFormat,
    main: (Targets, Sink),
    access: (Targets, Sink),
}

impl Prepared {
    /// Opens the files that `log` names.
    ///
    /// # Errors
    /// A log file that cannot be opened, or a bad `TIDEGATE_LOG`.
    pub(crate) fn open(log: &Log) -> Result<Self> {
        let levels = log.levels()?;
        let main = Sink::open(log.file.as_deref())?;
        let access = log
            .access_file
            .as_deref()
            .map(|path| Sink::open(Some(path)))
            .transpose()?;
        Ok(Self {
            format: log.format.unwrap_or_default(),
            main: (levels.filter(access.is_none()), main),
            access: match access {
                Some(sink) => (levels.access_filter(), sink),
                None => (Targets::new(), Sink::Stderr),
            },
        })
    }
}

impl Logs {
    /// Starts the log of this process.
    ///
    /// # Errors
    /// As [`Prepared::open`].
    pub(crate) fn start(log: &Log) -> Result<Self> {
        let prepared = Prepared::open(log)?;
        let (main, main_layer) = Stream::new();
        let (access, access_layer) = Stream::new();
        tracing_subscriber::registry()
            .with(vec![main_layer, access_layer])
            .try_init()?;
        let logs = Self { main, access };
        logs.apply(prepared);
        Ok(logs)
    }

    /// Takes on other settings.
    pub(crate) fn apply(
        &self,
        Prepared {
            format,
            main,
            access,
        }: Prepared,
    ) {
        self.main.change(format, main);
        self.access.change(format, access);
        // Libraries that speak to the `log` crate are asked there first, and by this alone.
        let level = LevelFilter::current().to_string().parse();
        log::set_max_level(level.unwrap_or(log::LevelFilter::Trace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reload_moves_the_lines_to_another_file_and_format() {
        let folder = tempfile::tempdir().unwrap();
        let (main, layer) = Stream::new();
        let (access, access_layer) = Stream::new();
        let logs = Logs { main, access };
        let log = |name: &str, format| Log {
            file: Some(folder.path().join(name)),
            format: Some(format),
            ..Log::default()
        };
        logs.apply(Prepared::open(&log("first", LogFormat::Text)).unwrap());
        let subscriber = tracing_subscriber::registry().with(vec![layer, access_layer]);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "tidegate", answer = 42, "one");
            std::fs::rename(folder.path().join("first"), folder.path().join("first.1")).unwrap();
            logs.apply(Prepared::open(&log("first", LogFormat::Json)).unwrap());
            tracing::info!(target: "access", status = 200, "GET /v2/");
        });
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(
            read("first.1")
                .trim_end()
                .ends_with("INFO tidegate: one answer=42")
        );
        assert!(read("first").contains(r#""message":"GET /v2/","status":200,"target":"access""#));
    }

    #[test]
    fn file_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent/log");
        let Err(error) = Prepared::open(&Log {
            file: Some(path),
            ..Log::default()
        }) else {
            panic!("it was opened");
        };
        assert!(format!("{error:#}").contains("absent/log"), "{error:#}");
    }
}
