//! The log: `[log]` and `[registry.log]` of the config, and where the lines go.
//!
//! Two streams: what the program has to say, and one `access` event per request. They share a
//! destination unless `access_file` parts them. Every setting changes with a reload, and each file
//! is opened again then, so that logrotate can move it away.
//!
//! Whatever clients do, the log grows at a bounded rate: see [`limit`]. Nobody but its owner and root
//! decides what a log file is: see [`mod@file`].

mod brief;
mod file;
mod format;
mod levels;
mod limit;
mod stream;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use settings::Section;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use format::Style;
use levels::{Levels, UnknownLevel};
use limit::Limit;
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
    login_names: Option<bool>,
}

impl Log {
    /// Reads `[log]`; `writes` says whether this process is the one that will write the files.
    pub(crate) fn read(section: &mut Section, writes: bool) -> Self {
        let mut log = Self::read_common(section, writes);
        log.access_file = log_file(section, "access_file", writes);
        log.login_names = section.optional("login_names");
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
            format: section.word("format", &LogFormat::NAMES),
            level: section.parsed("level"),
            file: log_file(section, "file", writes),
            access_file: None,
            login_names: None,
        }
    }

    /// Returns whether the access log has the names of logins that fail.
    pub(crate) fn login_names(&self) -> bool {
        self.login_names.unwrap_or(true)
    }

    /// Returns what is not wrong with the files and not good either.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let files = [("file", &self.file), ("access_file", &self.access_file)];
        let named = files
            .into_iter()
            .filter_map(|(key, path)| Some((key, path.as_deref()?)))
            .filter(|(_, path)| Sink::device(path).is_none());
        named
            .filter_map(|(key, path)| Some(format!("log.{key}: {}", file::exposure(path)?)))
            .collect()
    }

    /// The levels in force: the environment's before the config's.
    fn levels(&self) -> Result<Levels> {
        match std::env::var(LEVEL_VARIABLE) {
            Ok(text) if !text.is_empty() => text
                .parse()
                .map_err(|error: UnknownLevel| anyhow!("{LEVEL_VARIABLE}: {text:?}: {error}")),
            _ => Ok(self.level.clone().unwrap_or_default()),
        }
    }
}

/// Reads the path of a log file and notes whether it could be written, without creating it: the
/// one who checks a config is often not the user who will write the log.
fn log_file(section: &mut Section, key: &str, writes: bool) -> Option<PathBuf> {
    let path = section.path(key)?;
    if writes
        && Sink::device(&path).is_none()
        && let Err(error) = file::check(&path)
    {
        let message = file::denied(&path, &error);
        section.problem(
            key,
            message.unwrap_or_else(|| format!("{}: {error}", path.display())),
        );
    }
    Some(path)
}

/// How a line is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LogFormat {
    Json,
    Text,
}

impl LogFormat {
    /// Every format, as the config writes it.
    const NAMES: [(&'static str, Self); 2] = [("text", Self::Text), ("json", Self::Json)];
}

/// The running log; [`Logs::apply`] gives it other settings.
pub(crate) struct Logs {
    main: Stream,
    access: Stream,
    limit: Arc<Limit>,
    /// Somebody is to look at a terminal, as with `tidegate up`.
    on_show: bool,
}

/// Tells, once it is dropped, which lines were left out last: hold it to the end of the process.
pub(crate) struct LastWord(Arc<Limit>);

impl Drop for LastWord {
    fn drop(&mut self) {
        self.0.report();
    }
}

/// Settings that are sure to work: the files are open.
pub(crate) struct Prepared {
    format: Option<LogFormat>,
    main: (Targets, Sink),
    access: (Targets, Sink),
    warnings: Vec<String>,
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
            format: log.format,
            main: (levels.filter(access.is_none()), main),
            access: match access {
                Some(sink) => (levels.access_filter(), sink),
                None => (Targets::new(), Sink::Stderr),
            },
            warnings: log.warnings(),
        })
    }
}

impl Logs {
    /// Starts the log of this process, `on_show` where somebody is to look at it.
    ///
    /// # Errors
    /// As [`Prepared::open`].
    pub(crate) fn start(log: &Log, on_show: bool) -> Result<Self> {
        let prepared = Prepared::open(log)?;
        let limit = Limit::start().context("start the thread of the log")?;
        let (main, main_layer) = Stream::new(Arc::clone(&limit));
        let (access, access_layer) = Stream::new(Arc::clone(&limit));
        tracing_subscriber::registry()
            .with(vec![main_layer, access_layer])
            .try_init()?;
        let logs = Self {
            main,
            access,
            limit,
            on_show,
        };
        logs.apply(prepared);
        Ok(logs)
    }

    /// Returns what is to be dropped last.
    pub(crate) fn last_word(&self) -> LastWord {
        LastWord(Arc::clone(&self.limit))
    }

    /// Takes on other settings.
    pub(crate) fn apply(
        &self,
        Prepared {
            format,
            main,
            access,
            warnings,
        }: Prepared,
    ) {
        for (stream, settings) in [(&self.main, main), (&self.access, access)] {
            let style = Style::choose(format, &settings.1, self.on_show);
            stream.change(style, settings);
        }
        // Libraries that speak to the `log` crate are asked there first, and by this alone.
        let level = LevelFilter::current().to_string().parse();
        log::set_max_level(level.unwrap_or(log::LevelFilter::Trace));
        for warning in warnings {
            tracing::warn!("{warning}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log that writes to `name` in a folder, and the folder.
    fn logging(name: &str) -> (Logs, impl tracing::Subscriber, Log, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let limit = Limit::start().unwrap();
        let (main, layer) = Stream::new(Arc::clone(&limit));
        let (access, access_layer) = Stream::new(Arc::clone(&limit));
        let logs = Logs {
            main,
            access,
            limit,
            on_show: false,
        };
        let log = Log {
            file: Some(folder.path().join(name)),
            ..Log::default()
        };
        logs.apply(Prepared::open(&log).unwrap());
        let subscriber = tracing_subscriber::registry().with(vec![layer, access_layer]);
        (logs, subscriber, log, folder)
    }

    #[test]
    fn what_a_flood_leaves_out_is_told_with_its_level_and_target() {
        let (logs, subscriber, log, _folder) = logging("log");
        tracing::subscriber::with_default(subscriber, || {
            for frame in 0..100_000 {
                tracing::warn!(target: "h2::ping", "frame {frame}");
                tracing::debug!(target: "h2::ping", "nobody asked for this");
            }
            tracing::info!(target: "access", "GET /v2/");
            drop(logs.last_word());
        });
        let text = std::fs::read_to_string(log.file.unwrap()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.len() < 30, "{} lines", lines.len());
        assert!(text.contains(" INFO access: GET /v2/"), "{text}");
        let last = lines.last().unwrap();
        let begin = " WARN tidegate::left_out: lines were left out left_out=";
        let (_, rest) = last.split_once(begin).unwrap();
        let (left_out, rest) = rest.split_once(' ').unwrap();
        assert_eq!(rest, r#"of="h2::ping" like="frame 0""#);
        assert_eq!(
            left_out.parse::<usize>().unwrap() + lines.len() - 2,
            100_000
        );
    }

    #[test]
    fn reload_moves_the_lines_to_another_file_and_format() {
        let (logs, subscriber, log, folder) = logging("first");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "tidegate", answer = 42, "one");
            std::fs::rename(folder.path().join("first"), folder.path().join("first.1")).unwrap();
            let json = Log {
                format: Some(LogFormat::Json),
                ..log
            };
            logs.apply(Prepared::open(&json).unwrap());
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
