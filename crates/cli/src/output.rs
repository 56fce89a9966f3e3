//! How commands speak: data to stdout, everything else to stderr.
//!
//! [`Output`] knows the format that was asked for and what the two streams are. What is shown is made by the pure
//! functions of the modules below; this file only writes it.

pub(crate) mod away;
pub(crate) mod style;
pub(crate) mod table;
pub(crate) mod terminal;
pub(crate) mod words;

use std::io::{self, BufRead as _, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::Failure;
use style::{Style, Tone};
use terminal::Terminal;

/// In which form data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns for people
    Table,
    /// The same with more columns
    Wide,
    /// The bodies of the REST API
    Json,
    /// The same as YAML
    Yaml,
}

/// The streams of one command.
#[derive(Debug, Clone)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    terminal: Terminal,
}

/// How a document stands among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The only one: indented.
    Alone,
    /// One of a series: one line each as JSON, separated by `---` as YAML.
    InSeries,
}

impl Output {
    /// The output of a command.
    pub(crate) fn new(format: Format, quiet: bool, terminal: Terminal) -> Self {
        Self {
            format,
            quiet,
            terminal,
        }
    }

    /// The form of data.
    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    /// What the streams are.
    pub(crate) const fn terminal(&self) -> &Terminal {
        &self.terminal
    }

    /// How text on stdout is painted.
    pub(crate) const fn style(&self) -> Style {
        self.terminal.stdout_style
    }

    /// A table as it is shown on stdout.
    pub(crate) fn table(&self, table: &table::Table) -> String {
        table.text(self.style(), self.terminal.stdout_columns)
    }

    /// Writes a body of the API: as `table` makes it for people, or as it is.
    pub(crate) fn body(
        &self,
        raw: &Value,
        place: Place,
        table: impl FnOnce(Detail) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => write(&table(Detail::Normal)),
            Format::Wide => write(&table(Detail::Wide)),
            Format::Json => write(&json(raw, place)),
            Format::Yaml => write(&yaml(raw, place)?),
        }
    }

    /// Says something that is not data, unless `--quiet`. A stderr that is gone is nobody to tell.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            tell(text);
        }
    }

    /// As [`Self::note`], with a word in front.
    pub(crate) fn labelled(&self, label: &str, tone: Tone, text: &str) {
        self.note(&format!(
            "{} {text}",
            self.terminal.stderr_style.paint(tone, &format!("{label}:"))
        ));
    }

    /// Something that the caller should know.
    pub(crate) fn warn(&self, text: &str) {
        self.labelled("warning", Tone::Busy, text);
    }

    /// A next step.
    pub(crate) fn hint(&self, text: &str) {
        self.labelled("hint", Tone::Calm, text);
    }

    /// Says why a command failed, `--quiet` or not.
    pub(crate) fn failure(&self, failure: &Failure) {
        for (label, text) in failure.lines() {
            let tone = match label {
                "error" => Tone::Bad,
                "cause" => Tone::Plain,
                _ => Tone::Calm,
            };
            let label = self.terminal.stderr_style.paint(tone, &format!("{label}:"));
            tell(&format!("{label} {}", words::clean(&text)));
        }
    }

    /// True unless `--quiet`.
    pub(crate) const fn speaks(&self) -> bool {
        !self.quiet
    }
}

/// Writes data, with a line end behind it.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !text.ends_with('\n') && !text.is_empty() {
        stdout.write_all(b"\n")?;
    }
    // At once, also into a pipe: somebody may be waiting for it.
    stdout.flush()?;
    Ok(())
}

/// Writes to stderr as it is.
pub(crate) fn tell(text: &str) {
    drop(writeln!(io::stderr(), "{text}"));
}

/// Writes to stderr without a line end, for what is drawn over again.
pub(crate) fn draw(text: &str) {
    let mut stderr = io::stderr().lock();
    drop(
        stderr
            .write_all(text.as_bytes())
            .and_then(|()| stderr.flush()),
    );
}

/// Asks whoever is at the terminal; only a yes is one.
///
/// # Errors
/// The answer cannot be read.
pub(crate) fn is_confirmed(what: &str) -> io::Result<bool> {
    draw(&format!("{what}? [y/N] "));
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// How much a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What most people want.
    Normal,
    /// Everything.
    Wide,
}

fn json(value: &Value, place: Place) -> String {
    match place {
        Place::Alone => format!("{value:#}"),
        Place::InSeries => value.to_string(),
    }
}

fn yaml(value: &Value, place: Place) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| {
        Failure::of(
            crate::exit::Exit::Failed,
            "cannot write the answer as YAML",
            &error,
        )
    })?;
    Ok(match place {
        Place::Alone => text,
        Place::InSeries => format!("---\n{text}"),
    })
}
