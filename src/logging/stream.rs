//! A stream of lines: how they are written, and where they go.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context, Result};
use tracing_subscriber::filter::FilterExt as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::{Layer, Registry, reload};

use super::file;
use super::format::{ChosenFormat, Formatter, Style};
use super::limit::{Limit, Limited};
use crate::journal;

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
    pub(super) fn change(&self, style: Style, (filter, sink): (Targets, Sink)) {
        self.formatter.change(style);
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

    pub(super) fn is_terminal(&self) -> bool {
        match self {
            Self::File(_) | Self::Nowhere => false,
            Self::Stderr => io::stderr().is_terminal(),
            Self::Stdout => io::stdout().is_terminal(),
        }
    }

    pub(super) fn is_journal(&self) -> bool {
        match self {
            Self::File(_) | Self::Nowhere => false,
            Self::Stderr => journal::is_stream(io::stderr()),
            Self::Stdout => journal::is_stream(io::stdout()),
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
