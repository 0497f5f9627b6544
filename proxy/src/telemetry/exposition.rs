//! A page of figures as families, so that pages can be joined and written in either of the texts that
//! Prometheus reads.
//!
//! What a registry sends is looked at before it goes on: a page with one line that is not as it should be
//! is none, so that whoever reads the edge's figures can rely on all of the page.

use std::collections::HashSet;

use http::HeaderMap;
use http::header::ACCEPT;

/// How the names of a registry's families begin. The edge has none like these.
const OF_REGISTRIES: &str = "registry_";

/// The label that says which registry it is.
const LABEL: &str = "registry";

/// In which of its texts Prometheus is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Format {
    /// `OpenMetrics` 1.0.
    OpenMetrics,
    /// The older one, which has no counters without `_total` and no end.
    Plain,
}

impl Format {
    /// Chooses the one that the client asks for.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
        let accept = accept.unwrap_or_default();
        if accept.contains("text/plain") && !accept.contains("application/openmetrics-text") {
            Self::Plain
        } else {
            Self::OpenMetrics
        }
    }

    /// Returns what the text is called in HTTP.
    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => instruments::MEDIA_TYPE,
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Families of figures, in order.
#[derive(Debug, Default)]
pub(crate) struct Exposition(Vec<Family>);

#[derive(Debug)]
struct Family {
    name: String,
    kind: Kind,
    help: String,
    samples: Vec<Sample>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

#[derive(Debug)]
struct Sample {
    /// The family's name with its suffix.
    name: String,
    /// Without the braces.
    labels: String,
    value: String,
}

/// Says that a text is no page of figures.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of its figures cannot be read")]
pub(crate) struct Malformed {
    line: usize,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "counter" => Self::Counter,
            "gauge" => Self::Gauge,
            "histogram" => Self::Histogram,
            "info" => Self::Info,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Info => "info",
        }
    }

    /// Returns how the names of samples may end.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_bucket", "_count", "_sum"],
            Self::Info => &["_info"],
        }
    }

    /// Returns what the older text calls this kind, and what it adds to the family's name.
    fn in_plain(self) -> (&'static str, &'static str) {
        match self {
            Self::Counter => ("counter", "_total"),
            Self::Info => ("gauge", "_info"),
            Self::Gauge | Self::Histogram => (self.name(), ""),
        }
    }
}

impl Exposition {
    /// Reads `OpenMetrics` text.
    ///
    /// # Errors
    /// [`Malformed`] names the first line that cannot be read.
    pub(crate) fn read(text: &str) -> Result<Self, Malformed> {
        let mut families = Self::default();
        let mut seen = HashSet::new();
        for (index, line) in text.lines().enumerate() {
            let is_new = |sample: &str| seen.insert(sample.to_owned());
            families
                .read_line(line, is_new)
                .ok_or(Malformed { line: index + 1 })?;
        }
        Ok(families)
    }

    fn read_line(&mut self, line: &str, is_new: impl FnOnce(&str) -> bool) -> Option<()> {
        if line.chars().any(char::is_control) {
            return None;
        }
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ')?;
            self.0.push(Family {
                name: is_name(name).then(|| name.to_owned())?,
                kind: Kind::Gauge,
                help: help.to_owned(),
                samples: Vec::new(),
            });
            return Some(());
        }
        if line == "# EOF" || line.starts_with("# UNIT ") {
            return Some(());
        }
        let family = self.0.last_mut()?;
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ')?;
            family.kind = Kind::of(kind).filter(|_| name == family.name)?;
            return Some(());
        }
        let (series, value) = line.rsplit_once(' ')?;
        value.parse::<f64>().ok()?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let suffix = name.strip_prefix(family.name.as_str())?;
        let good = family.kind.suffixes().contains(&suffix) && are_labels(labels);
        family.samples.push(Sample {
            name: name.to_owned(),
            labels: (good && is_new(series)).then(|| labels.to_owned())?,
            value: value.to_owned(),
        });
        Some(())
    }

    /// Adds a gauge with one label.
    pub(crate) fn add_gauge(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (impl AsRef<str>, bool)>,
    ) {
        let samples = values.into_iter().map(|(labelled, value)| Sample {
            name: name.to_owned(),
            labels: labelled_as(label, labelled.as_ref()),
            value: u8::from(value).to_string(),
        });
        self.0.push(Family {
            name: name.to_owned(),
            kind: Kind::Gauge,
            help: help.to_owned(),
            samples: samples.collect(),
        });
    }

    /// Adds what a registry of this name has said of itself; families that no registry has are left out.
    pub(crate) fn join(&mut self, registry: &str, said: Self) {
        let label = labelled_as(LABEL, registry);
        for mut family in said.0 {
            if !family.name.starts_with(OF_REGISTRIES) {
                continue;
            }
            for sample in &mut family.samples {
                let more = std::mem::take(&mut sample.labels);
                let comma = if more.is_empty() { "" } else { "," };
                sample.labels = format!("{label}{comma}{more}");
            }
            let mut known = self.0.iter_mut();
            match known.find(|known| known.name == family.name) {
                Some(known) if known.kind == family.kind => known.samples.extend(family.samples),
                Some(_) => {}
                None => self.0.push(family),
            }
        }
    }

    /// Writes all of it.
    pub(crate) fn write(&self, format: Format) -> String {
        let mut text = String::new();
        for family in &self.0 {
            let (kind, suffix) = match format {
                Format::OpenMetrics => (family.kind.name(), ""),
                Format::Plain => family.kind.in_plain(),
            };
            let Family { name, help, .. } = family;
            text.push_str(&format!("# HELP {name}{suffix} {help}\n"));
            text.push_str(&format!("# TYPE {name}{suffix} {kind}\n"));
            for Sample {
                name,
                labels,
                value,
            } in &family.samples
            {
                if labels.is_empty() {
                    text.push_str(&format!("{name} {value}\n"));
                } else {
                    text.push_str(&format!("{name}{{{labels}}} {value}\n"));
                }
            }
        }
        if format == Format::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }
}

fn labelled_as(label: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    format!("{label}=\"{}\"", value.replace('\n', "\\n"))
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    let begins = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    bytes.next().is_some_and(begins) && bytes.all(|byte| begins(byte) || byte.is_ascii_digit())
}

/// Returns whether a text is `name="value",…`, and none of the names is the one that is added here.
fn are_labels(mut text: &str) -> bool {
    while !text.is_empty() {
        let Some((name, rest)) = text.split_once("=\"") else {
            return false;
        };
        if !is_name(name) || name == LABEL {
            return false;
        }
        let mut escaped = false;
        let end = rest.bytes().position(|byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let Some(rest) = end.and_then(|end| rest.get(end + 1..)) else {
            return false;
        };
        text = match rest.strip_prefix(',') {
            Some(more) if !more.is_empty() => more,
            _ => return rest.is_empty(),
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# HELP registry_requests Requests\n\
        # TYPE registry_requests counter\n\
        registry_requests_total{route=\"blob\"} 1\n\
        # HELP registry_free_bytes Room\n\
        # TYPE registry_free_bytes gauge\n\
        # UNIT registry_free_bytes bytes\n\
        registry_free_bytes 5\n\
        # HELP registry_build Build\n\
        # TYPE registry_build info\n\
        registry_build_info{version=\"1 \\\"{x}\\\"\"} 1\n\
        # EOF\n";

    #[test]
    fn figures_of_registries_are_joined_family_by_family() {
        let mut page = Exposition::default();
        page.add_gauge("up", "Up", "registry", [("a", true), ("b", true)]);
        for name in ["a", "b"] {
            page.join(name, Exposition::read(PAGE).unwrap());
        }
        let written = page.write(Format::OpenMetrics);
        let expected = "# HELP up Up\n\
            # TYPE up gauge\n\
            up{registry=\"a\"} 1\n\
            up{registry=\"b\"} 1\n\
            # HELP registry_requests Requests\n\
            # TYPE registry_requests counter\n\
            registry_requests_total{registry=\"a\",route=\"blob\"} 1\n\
            registry_requests_total{registry=\"b\",route=\"blob\"} 1\n\
            # HELP registry_free_bytes Room\n\
            # TYPE registry_free_bytes gauge\n\
            registry_free_bytes{registry=\"a\"} 5\n\
            registry_free_bytes{registry=\"b\"} 5\n\
            # HELP registry_build Build\n\
            # TYPE registry_build info\n\
            registry_build_info{registry=\"a\",version=\"1 \\\"{x}\\\"\"} 1\n\
            registry_build_info{registry=\"b\",version=\"1 \\\"{x}\\\"\"} 1\n\
            # EOF\n";
        assert_eq!(written, expected);
        let plain = page.write(Format::Plain);
        for line in [
            "# TYPE registry_requests_total counter",
            "# TYPE registry_build_info gauge",
            "# TYPE registry_free_bytes gauge",
        ] {
            assert!(plain.lines().any(|other| other == line), "{line}\n{plain}");
        }
        assert!(!plain.contains("# EOF"));
    }

    #[test]
    fn a_page_with_a_line_that_is_not_as_it_should_be_is_none() {
        let head = "# HELP registry_x X\n# TYPE registry_x gauge\n";
        for line in [
            "registry_x",
            "registry_x five",
            "registry_x 1 2 3",
            "registry_y 1",
            "edge_requests_total 1",
            "registry_x_total 1",
            "registry_x{registry=\"other\"} 1",
            "registry_x{a=\"b} 1",
            "registry_x{a=\"b\"c} 1",
            "registry_x{a=\"b\",} 1",
            "registry_x{a b=\"c\"} 1",
            "registry_x{=\"c\"} 1",
            "registry_x{a=\"b\"}{c=\"d\"} 1",
            "registry_x 1\r",
            "registry_x{a=\"\u{1b}[31m\"} 1",
            "# TYPE registry_y gauge",
            "# TYPE registry_x summary",
            "# HELP registry-x X",
            "nonsense",
            "",
        ] {
            let text = format!("{head}{line}\nregistry_x 1\n");
            assert!(Exposition::read(&text).is_err(), "{line:?}");
        }
        let twice = format!("{head}registry_x 1\nregistry_x 2\n");
        assert_eq!(Exposition::read(&twice).unwrap_err().line, 4);
        assert!(Exposition::read("registry_x 1\n").is_err());
    }

    #[test]
    fn no_registry_speaks_for_the_edge() {
        let mut page = Exposition::default();
        let text = "# HELP edge_draining X\n# TYPE edge_draining gauge\nedge_draining 1\n";
        page.join("a", Exposition::read(text).unwrap());
        page.join("a", Exposition::read(PAGE).unwrap());
        let other = "# HELP registry_free_bytes X\n# TYPE registry_free_bytes counter\n\
            registry_free_bytes_total 1\n";
        page.join("b", Exposition::read(other).unwrap());
        let written = page.write(Format::OpenMetrics);
        assert!(!written.contains("edge_"), "{written}");
        assert!(!written.contains("registry=\"b\""), "{written}");
    }

    #[test]
    fn the_text_is_the_one_that_is_asked_for() {
        for (accept, expected) in [
            (None, Format::OpenMetrics),
            (Some("*/*"), Format::OpenMetrics),
            (Some("text/plain;version=0.0.4"), Format::Plain),
            (
                Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5,*/*;q=0.1"),
                Format::OpenMetrics,
            ),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, accept.parse().unwrap());
            }
            assert_eq!(Format::of(&headers), expected, "{accept:?}");
        }
    }
}
