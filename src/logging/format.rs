//! How a line is written: as text or as JSON, with a time or for the journal, at length or in short.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use super::brief::Brief;
use super::levels::ACCESS;
use super::stream::Sink;
use crate::journal::Prefixed;

/// How the lines of a stream are written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Style {
    json: bool,
    colour: bool,
    /// For the journal, which has the time itself.
    journal: bool,
    /// Requests in short.
    brief: bool,
}

impl Style {
    /// Chooses the style of lines that go to `sink`. Requests are told in short to a terminal, where
    /// `on_show` says that somebody is to look at them and the config asks for no format.
    pub(super) fn choose(format: Option<LogFormat>, sink: &Sink, on_show: bool) -> Self {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            json: format == Some(LogFormat::Json),
            colour: colour && sink.is_terminal(),
            journal: sink.is_journal(),
            brief: on_show && format.is_none() && sink.is_terminal(),
        }
    }
}

/// Every way to write a line, and which of them is in force.
pub(super) struct Formatter {
    json: AtomicBool,
    colour: AtomicBool,
    journal: AtomicBool,
    brief: AtomicBool,
    as_json: Format<Json>,
    as_plain_text: Format<Full>,
    as_coloured_text: Format<Full>,
    as_text_without_time: Format<Full, ()>,
}

impl Default for Formatter {
    fn default() -> Self {
        Self {
            json: AtomicBool::default(),
            colour: AtomicBool::default(),
            journal: AtomicBool::default(),
            brief: AtomicBool::default(),
            as_json: Format::default()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false),
            as_plain_text: Format::default().with_ansi(false),
            as_coloured_text: Format::default().with_ansi(true),
            as_text_without_time: Format::default().with_ansi(false).without_time(),
        }
    }
}

impl Formatter {
    /// Takes on another style, from the next line on.
    pub(super) fn change(&self, style: Style) {
        let Style {
            json,
            colour,
            journal,
            brief,
        } = style;
        self.json.store(json, Ordering::Relaxed);
        self.colour.store(colour, Ordering::Relaxed);
        self.journal.store(journal, Ordering::Relaxed);
        self.brief.store(brief, Ordering::Relaxed);
    }
}

/// The format that is in force when a line is written.
pub(super) struct ChosenFormat(pub(super) Arc<Formatter>);

impl<S, N> FormatEvent<S, N> for ChosenFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let formatter = &*self.0;
        let is = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let (json, colour) = (is(&formatter.json), is(&formatter.colour));
        if is(&formatter.journal) {
            let mut lines = Prefixed::new(writer, *event.metadata().level());
            let writer = Writer::new(&mut lines);
            return match json {
                // A program that reads it has no other time.
                true => formatter.as_json.format_event(context, writer, event),
                false => {
                    let format = &formatter.as_text_without_time;
                    format.format_event(context, writer, event)
                }
            };
        }
        if is(&formatter.brief)
            && event.metadata().target() == ACCESS
            && let Some(brief) = Brief::of(event)
        {
            return brief.write(&mut writer, colour);
        }
        if json {
            formatter.as_json.format_event(context, writer, event)
        } else if colour {
            formatter
                .as_coloured_text
                .format_event(context, writer, event)
        } else {
            formatter.as_plain_text.format_event(context, writer, event)
        }
    }
}
