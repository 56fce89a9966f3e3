//! What the streams of this process are: asked once, at the start.

use std::io::{self, IsTerminal};

use super::style::Style;

/// What stdout and stderr are connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terminal {
    /// How text on stdout is painted.
    pub(crate) stdout_style: Style,
    /// How text on stderr is painted.
    pub(crate) stderr_style: Style,
    /// stdout is a terminal this many columns wide.
    pub(crate) stdout_columns: Option<usize>,
    /// stderr is a terminal on which lines can be drawn over.
    pub(crate) stderr_redraws: bool,
    /// Somebody can be asked: stdin and stderr are terminals.
    pub(crate) asks: bool,
}

/// Whether colours are wanted at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    /// Where somebody sees them.
    Auto,
    /// Nowhere.
    Never,
}

impl Terminal {
    /// Asks the streams and the environment.
    pub(crate) fn detect(colours: Colours) -> Self {
        let (out, err) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        // https://no-color.org: present and not empty. A dumb terminal can neither paint nor move its cursor.
        let dumb = variable("TERM").is_some_and(|term| term == "dumb");
        let plain = colours == Colours::Never
            || dumb
            || variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        let style = |is_terminal: bool| {
            if is_terminal && !plain {
                Style::Coloured
            } else {
                Style::Plain
            }
        };
        let columns = || {
            rustix::termios::tcgetwinsize(io::stdout())
                .ok()
                .map(|size| usize::from(size.ws_col))
        };
        Self {
            stdout_style: style(out),
            stderr_style: style(err),
            stdout_columns: if out {
                columns().filter(|columns| *columns > 0)
            } else {
                None
            },
            stderr_redraws: err && !dumb,
            asks: io::stdin().is_terminal() && err,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one place that asks the environment about the terminal"
)]
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name)
}
