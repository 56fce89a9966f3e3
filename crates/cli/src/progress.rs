//! Progress of something that takes time, on stderr: a line for each step that passed, and on a terminal one below
//! them that is drawn over while the current step lasts.

use std::time::Duration;

use crate::output::style::Tone;
use crate::output::{Output, draw, words};

/// Goes to the beginning of the line and clears it.
const CLEAR_LINE: &str = "\r\u{1b}[K";

/// What is shown of one wait.
#[derive(Debug)]
pub(crate) struct Progress<'o> {
    output: &'o Output,
    drawn: bool,
}

impl<'o> Progress<'o> {
    /// Nothing is shown yet; with `--quiet` nothing will be.
    pub(crate) const fn new(output: &'o Output) -> Self {
        Self {
            output,
            drawn: false,
        }
    }

    /// A step that passed, and when.
    pub(crate) fn step(&mut self, after: Duration, text: &str) {
        self.clear();
        self.output.note(&step_line(after, text));
    }

    /// What is going on now; shown on a terminal only.
    pub(crate) fn current(&mut self, after: Duration, text: &str) {
        if !self.output.speaks() || !self.output.terminal().stderr_redraws {
            return;
        }
        let style = self.output.terminal().stderr_style;
        let line = style.paint(Tone::Dim, &step_line(after, &format!("{text} …")));
        draw(&format!("{CLEAR_LINE}{line}"));
        self.drawn = true;
    }

    /// Takes the drawn line away.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.drawn) {
            draw(CLEAR_LINE);
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        self.clear();
    }
}

fn step_line(after: Duration, text: &str) -> String {
    format!("{:>7.2} s  {}", after.as_secs_f64(), words::clean(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_line_up_by_their_time() {
        assert_eq!(
            step_line(Duration::from_millis(5), "accepted"),
            "   0.01 s  accepted"
        );
        assert_eq!(
            step_line(Duration::from_secs(128), "waiting\u{1b}-for-node"),
            " 128.00 s  waiting\u{fffd}-for-node"
        );
    }
}
