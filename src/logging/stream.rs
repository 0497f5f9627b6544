//! A stream of lines: how they are written, and where they go.

use std::fmt;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use tracing::Subscriber;
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry, reload};

use super::limit::{Limit, Limited};
use super::{LogFormat, file};

pub(super) type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// One stream of lines, whose format, filter and destination can change while it runs.
pub(super) struct Stream {
    formatter: Arc<Formatter>,
    filter: reload::Handle<Targets, Registry>,
    destination: Destination,
}

impl Stream {
    /// Makes a stream that lets nothing through yet, and never more than `limit` says.
    pub(super) fn new(limit: Arc<Limit>) -> (Self, BoxedLayer) {
        let formatter = Arc::new(Formatter::default());
        let destination = Destination(Arc::new(RwLock::new(Sink::Stderr)));
        let (filter, handle) = reload::Layer::new(Targets::new());
        let layer = tracing_subscriber::fmt::layer()
            .fmt_fields(DefaultFields::new())
            .event_format(ChosenFormat(Arc::clone(&formatter)))
            .with_writer(destination.clone())
            // A full disk must not turn into lines about lines on stderr.
            .log_internal_errors(false)
            .with_filter(filter.and(Limited(limit)))
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

    /// Takes on other settings, from the next line on.
    pub(super) fn change(&self, format: LogFormat, (filter, sink): (Targets, Sink)) {
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
pub(super) enum Sink {
    File(Arc<File>),
    Nowhere,
    Stderr,
    Stdout,
}

impl Sink {
    /// Opens the file, or stderr where there is none.
    pub(super) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::Stderr);
        };
        if let Some(sink) = Self::device(path) {
            return Ok(sink);
        }
        let file = file::open(path).with_context(|| format!("open {}", path.display()))?;
        Ok(Self::File(Arc::new(file)))
    }

    /// Returns what a path means that is the name of no file, as people use it in containers. These
    /// paths are links to others, down to whatever the descriptor is, and are never opened.
    pub(super) fn device(path: &Path) -> Option<Self> {
        match path.to_str()? {
            "/dev/null" => Some(Self::Nowhere),
            "/dev/stderr" => Some(Self::Stderr),
            "/dev/stdout" => Some(Self::Stdout),
            _ => None,
        }
    }

    fn has_colour(&self) -> bool {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        wanted
            && match self {
                Self::File(_) | Self::Nowhere => false,
                Self::Stderr => io::stderr().is_terminal(),
                Self::Stdout => io::stdout().is_terminal(),
            }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Nowhere => Ok(bytes.len()),
            Self::Stderr => io::stderr().write(bytes),
            Self::Stdout => io::stdout().write(bytes),
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
