//! Shows something again whenever it changes: drawn over on a terminal, one document after the other elsewhere.
//!
//! It looks at intervals and shows what is new. A server that is away for a moment is waited for.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::away::Away;
use crate::output::table::Table;
use crate::output::{Detail, Format, Output, Place, write};
use crate::session::Session;

/// Clears the screen and goes to its top.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J\u{1b}[3J";

/// A body of the API and how it looks.
#[derive(Debug)]
pub(crate) struct Shown {
    body: Value,
    text: String,
    empty: bool,
}

impl Shown {
    /// A body with its table.
    pub(crate) fn new(
        output: &Output,
        body: Value,
        empty: bool,
        table: impl FnOnce(Detail) -> Table,
    ) -> Self {
        let text = match output.format() {
            Format::Table => output.table(&table(Detail::Normal)),
            Format::Wide => output.table(&table(Detail::Wide)),
            Format::Json | Format::Yaml => String::new(),
        };
        Self { body, text, empty }
    }

    /// A body with its text.
    pub(crate) fn text(body: Value, text: String) -> Self {
        Self {
            body,
            text,
            empty: false,
        }
    }

    /// What was answered.
    pub(crate) const fn body(&self) -> &Value {
        &self.body
    }

    /// Nothing is in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.empty
    }

    /// Writes it to stdout; an empty table is left out.
    pub(crate) fn print(&self, output: &Output, place: Place) -> Result<(), Failure> {
        let text = if self.empty { "" } else { &self.text };
        output.body(&self.body, place, |_| text.to_owned())
    }

    /// Does it say something else? When the answer was made is no difference.
    fn differs(&self, other: &Self) -> bool {
        let facts = |shown: &Self| {
            let mut body = shown.body.clone();
            forget_times(&mut body);
            body
        };
        facts(self) != facts(other)
    }
}

/// Takes out the instants at which an answer was made or its facts were seen.
fn forget_times(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.shift_remove("observed_at");
            object.shift_remove("timestamp");
            object.values_mut().for_each(forget_times);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_times),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Looks until it is ended from outside.
///
/// # Errors
/// What looking again does not mend.
pub(crate) async fn run(
    session: &Session,
    every: Duration,
    mut look: impl AsyncFnMut() -> Result<Shown, Failure>,
) -> Result<(), Failure> {
    let output = &session.output;
    let redraw = output.terminal().stdout_columns.is_some()
        && matches!(output.format(), Format::Table | Format::Wide);
    let mut last: Option<Shown> = None;
    let mut away = Away::default();
    loop {
        match look().await {
            Ok(shown) => {
                // On a terminal spans of time go on; a pipe gets what changed.
                let news = last
                    .as_ref()
                    .is_none_or(|last| shown.differs(last) || (redraw && shown.text != last.text));
                if news {
                    if redraw {
                        write(CLEAR)?;
                    }
                    shown.print(output, Place::InSeries)?;
                    last = Some(shown);
                }
                away.is_back();
            }
            // Before anything was seen, it is more likely a wrong address.
            Err(failure) if failure.exit == Exit::Unreachable && last.is_some() => {
                away.warn(output, failure);
            }
            Err(failure) => return Err(failure),
        }
        sleep(every).await;
    }
}
