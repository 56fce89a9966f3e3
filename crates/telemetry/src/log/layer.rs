//! `tracing` events as lines of the log.
//!
//! Event fields follow the message; fields of the spans around it come after, so that an event
//! inside a request carries its `request_id`. A field of an event that is called like one of the
//! line's own is renamed with the prefix `event_`: `status` in particular belongs to requests alone,
//! because the founding documents select with `.status >= 400`.
//! It deliberately writes no line for a span itself.

use std::error::Error;
use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::level::{Level, LevelFilter};
use crate::log::line::{Controls, Line, VALUE_BYTES_MAX};
use crate::log::queue::{Queue, Urgency};
use crate::names::field;

/// Targets of our own crates begin with this, as their modules do.
const OWN_TARGET: &str = "nagi";
/// Fields that only the line itself may set.
const RESERVED: [&str; 7] = [
    field::TIMESTAMP,
    field::TIME,
    field::LEVEL,
    field::STATUS,
    field::LATENCY,
    field::LATENCY_UPSTREAM,
    field::TRUNCATED,
];
/// Put before the name of an event's field that is reserved.
const RENAMED: &str = "event_";
/// Most fields kept of one span: ours have two or three, and a loop that records must not grow it.
const SPAN_FIELDS_MAX: usize = 16;

/// Writes the events that it is given to the log, whatever their level.
#[derive(Debug)]
pub struct EmitLayer {
    queue: Queue,
}

/// Our own targets down to `level`, those of libraries down to `warn` at most.
pub(crate) fn filter(level: LevelFilter) -> Targets {
    let own = level.threshold();
    let libraries = own.min(tracing::level_filters::LevelFilter::WARN);
    Targets::new()
        .with_default(libraries)
        .with_target(OWN_TARGET, own)
}

fn is_own(target: &str) -> bool {
    target.starts_with(OWN_TARGET)
}

/// The fields of a span, kept while it lives.
#[derive(Debug, Default)]
struct SpanFields(Vec<(&'static str, Value)>);

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Flag(bool),
}

/// Collects the fields of an event or a span.
#[derive(Debug, Default)]
struct Fields {
    message: Option<String>,
    fields: Vec<(&'static str, Value)>,
}

// === impl EmitLayer ===

impl EmitLayer {
    pub(crate) fn new(queue: Queue) -> Self {
        Self { queue }
    }
}

impl<S> Layer<S> for EmitLayer
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        fields.fields.truncate(SPAN_FIELDS_MAX);
        span.extensions_mut().insert(SpanFields(fields.fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        values.record(&mut fields);
        let mut extensions = span.extensions_mut();
        let Some(known) = extensions.get_mut::<SpanFields>() else {
            return;
        };
        for (name, value) in fields.fields {
            if let Some(entry) = known.0.iter_mut().find(|(other, _)| *other == name) {
                entry.1 = value;
            } else if known.0.len() < SPAN_FIELDS_MAX {
                known.0.push((name, value));
            }
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(scope) = context.event_scope(event) {
            for span in scope {
                if let Some(known) = span.extensions().get::<SpanFields>() {
                    fields.add_outer(&known.0);
                }
            }
        }
        self.queue
            .push(&fields.into_line(metadata), Urgency::Normal);
    }
}

// === impl Fields ===

impl Fields {
    /// Adds what an outer span knows and nothing nearer has said.
    fn add_outer(&mut self, outer: &[(&'static str, Value)]) {
        for (name, value) in outer {
            if self.fields.iter().all(|(nearer, _)| nearer != name) {
                self.fields.push((name, value.clone()));
            }
        }
    }

    fn into_line(self, metadata: &Metadata<'_>) -> String {
        let level = Level::from(*metadata.level());
        // Every line has a message (A-046); an event without one is named by its place.
        let message = self.message.as_deref().unwrap_or_else(|| metadata.name());
        let buffer = String::with_capacity(crate::LINE_BYTES_MAX);
        let mut line = Line::begin(buffer, crate::log::now(), level, message);
        for (name, value) in &self.fields {
            let renamed = RESERVED.contains(name).then(|| format!("{RENAMED}{name}"));
            let name = renamed.as_deref().unwrap_or(name);
            match value {
                Value::Text(text) => line.string(name, text, VALUE_BYTES_MAX, Controls::Escape),
                Value::Signed(number) => line.literal(name, number),
                Value::Unsigned(number) => line.literal(name, number),
                Value::Float(number) => line.float(name, *number),
                Value::Flag(flag) => line.literal(name, flag),
            }
        }
        // Not on our other lines: a module called `auth` would match the search for failures (A-032).
        if level == Level::Debug || !is_own(metadata.target()) {
            line.text(field::TARGET, metadata.target());
        }
        line.end()
    }

    fn add(&mut self, field: &Field, value: Value) {
        let name = field.name();
        // `r#type` is how a Rust keyword is written as a field.
        let name = name.strip_prefix("r#").unwrap_or(name);
        match value {
            Value::Text(text) if name == field::MESSAGE => self.message = Some(text),
            Value::Text(_)
            | Value::Signed(_)
            | Value::Unsigned(_)
            | Value::Float(_)
            | Value::Flag(_) => match self.fields.iter_mut().find(|(other, _)| *other == name) {
                // JSON objects with a name twice read differently from reader to reader.
                Some(entry) => entry.1 = value,
                None => self.fields.push((name, value)),
            },
        }
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::Signed(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::Unsigned(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::Float(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::Flag(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::Text(bounded(format_args!("{value}"))));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.add(field, Value::Text(error_chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::Text(bounded(format_args!("{value:?}"))));
    }
}

/// An error with its causes, joined by `: `. A cause that the text already ends with is not repeated.
pub(crate) fn error_chain(error: &(dyn Error + 'static)) -> String {
    let mut text = bounded(format_args!("{error}"));
    let mut source = error.source();
    while let Some(cause) = source {
        let part = bounded(format_args!("{cause}"));
        if !text.ends_with(&part) {
            text = bounded(format_args!("{text}: {part}"));
        }
        source = cause.source();
    }
    text
}

/// Formats at most one value's worth of text: a huge `Debug` is cut while it is written.
pub(crate) fn bounded(text: fmt::Arguments<'_>) -> String {
    struct Bounded(String);
    impl fmt::Write for Bounded {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            // A character more than fits: the line sees that it was cut and says so.
            let room = (VALUE_BYTES_MAX + char::MAX.len_utf8()).saturating_sub(self.0.len());
            let end = part.floor_char_boundary(room);
            self.0.push_str(part.get(..end).unwrap_or_default());
            if end < part.len() {
                Err(fmt::Error)
            } else {
                Ok(())
            }
        }
    }
    let mut bounded = Bounded(String::new());
    // An error means that the text was cut, or that a `Display` failed: what is there is used.
    bounded.write_fmt(text).unwrap_or(());
    bounded.0
}
