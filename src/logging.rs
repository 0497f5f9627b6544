//! The log: `[log]` and `[registry.log]` of the config, and where the lines go.
//!
//! Two streams: what the program has to say, and one `access` event per request. They share a
//! destination unless `access_file` parts them. Every setting changes with a reload, and each file
//! is opened again then, so that logrotate can move it away.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result, anyhow};
use rustix::fs::{Access, access};
use settings::Section;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, reload};

use crate::files;

/// The environment variable that takes the place of every `level` key.
const LEVEL_VARIABLE: &str = "TIDEGATE_LOG";

/// The target of the events that make up the access log.
const ACCESS: &str = "access";

/// Our own crates: `level = "debug"` is about them, not about the libraries below.
const OWN: [&str; 5] = ["oci", "proxy", "registry_backend", "settings", "tidegate"];

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

/// What is worth a line: a level for our own crates, and others by target.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Levels {
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
    fn filter(&self, access: bool) -> Targets {
        // What a library reports, the crate that uses it reports with more sense.
        Targets::new()
            .with_default(self.own.min(LevelFilter::WARN))
            .with_targets(OWN.map(|target| (target, self.own)))
            .with_target(ACCESS, LevelFilter::INFO)
            .with_targets(self.targets.iter().cloned())
            .with_targets((!access).then_some((ACCESS, LevelFilter::OFF)))
    }

    /// The filter of a stream of `access` events alone.
    fn access_filter(&self) -> Targets {
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
                None => levels.own = level(item)?,
            }
        }
        Ok(levels)
    }
}

fn level(name: &str) -> Result<LevelFilter, UnknownLevel> {
    match name {
        "debug" => Ok(LevelFilter::DEBUG),
        "error" => Ok(LevelFilter::ERROR),
        "info" => Ok(LevelFilter::INFO),
        "off" => Ok(LevelFilter::OFF),
        "trace" => Ok(LevelFilter::TRACE),
        "warn" => Ok(LevelFilter::WARN),
        _ => Err(UnknownLevel(name.to_owned())),
    }
}

/// A word that names no level.
#[derive(Debug)]
struct UnknownLevel(String);

impl fmt::Display for UnknownLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no level (off, error, warn, info, debug, trace)",
            self.0
        )
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

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// One stream of lines, whose format, filter and destination can change while it runs.
struct Stream {
    formatter: Arc<Formatter>,
    filter: reload::Handle<Targets, Registry>,
    destination: Destination,
}

impl Stream {
    fn new() -> (Self, BoxedLayer) {
        let formatter = Arc::new(Formatter::default());
        let destination = Destination(Arc::new(RwLock::new(Sink::Stderr)));
        let (filter, handle) = reload::Layer::new(Targets::new());
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(DefaultFields::new())
            .event_format(ChosenFormat(Arc::clone(&formatter)))
            .with_writer(destination.clone())
            // A full disk must not turn into lines about lines on stderr.
            .log_internal_errors(false)
            .with_filter(filter)
            .boxed();
        (
            Self {
                formatter,
                filter: handle,
                destination,
            },
            layer,
        )
    }

    fn change(&self, format: LogFormat, (filter, sink): (Targets, Sink)) {
        self.formatter
            .json
            .store(format == LogFormat::Json, Ordering::Relaxed);
        self.formatter
            .colour
            .store(sink.has_colour(), Ordering::Relaxed);
        *self
            .destination
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = sink;
        // It fails only where the subscriber is gone, and then nobody logs.
        self.filter.reload(filter).ok();
    }
}

/// Where the lines of a stream go at this moment.
#[derive(Clone)]
struct Destination(Arc<RwLock<Sink>>);

impl<'a> MakeWriter<'a> for Destination {
    type Writer = Sink;

    fn make_writer(&'a self) -> Sink {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Takes whole lines; each is one `write`, so lines of several processes do not mix.
#[derive(Clone)]
enum Sink {
    File(Arc<File>),
    Stderr,
}

impl Sink {
    fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stderr);
        };
        let file = OpenOptions::new().append(true).create(true).open(path);
        Ok(Self::File(Arc::new(
            file.with_context(|| format!("open {}", path.display()))?,
        )))
    }

    fn has_colour(&self) -> bool {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        matches!(self, Self::Stderr) && wanted && io::stderr().is_terminal()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Stderr => io::stderr().write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every way to write a line, and which of them is in force.
struct Formatter {
    json: AtomicBool,
    colour: AtomicBool,
    as_json: Format<Json>,
    as_plain_text: Format<Full>,
    as_coloured_text: Format<Full>,
}

impl Default for Formatter {
    fn default() -> Self {
        Self {
            json: AtomicBool::default(),
            colour: AtomicBool::default(),
            as_json: Format::default()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
            as_plain_text: Format::default().with_ansi(false),
            as_coloured_text: Format::default().with_ansi(true),
        }
    }
}

struct ChosenFormat(Arc<Formatter>);

impl<S, N> FormatEvent<S, N> for ChosenFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &tracing::Event<'_>,
    ) -> fmt::Result {
        if self.0.json.load(Ordering::Relaxed) {
            self.0.as_json.format_event(context, writer, event)
        } else if self.0.colour.load(Ordering::Relaxed) {
            self.0.as_coloured_text.format_event(context, writer, event)
        } else {
            self.0.as_plain_text.format_event(context, writer, event)
        }
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
    }

    #[test]
    fn own_level_does_not_open_the_libraries_and_access_is_apart() {
        let filter = "debug".parse::<Levels>().unwrap().filter(true);
        assert!(filter.would_enable("proxy::edge", &tracing::Level::DEBUG));
        assert!(filter.would_enable("pingora_core", &tracing::Level::WARN));
        assert!(!filter.would_enable("pingora_core", &tracing::Level::INFO));

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
