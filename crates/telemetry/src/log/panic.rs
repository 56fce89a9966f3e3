//! Panics as lines of the log.
//!
//! `kubectl logs --previous` must show why a container died, so a panic on any thread becomes
//! one line at level error, written before the process can end. The default text on stderr is not
//! printed where the log is stdout: container logs merge both, and every line must be JSON.
//! It deliberately neither ends the process nor catches anything.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::time::Duration;

use crate::level::Level;
use crate::log::layer::bounded;
use crate::log::line::{Controls, LINE_BYTES_MAX, Line, VALUE_BYTES_MAX};
use crate::log::queue::{Queue, Urgency};
use crate::names::field;

/// How long a panic waits until its line is written, behind all that is queued: a reader that reads
/// takes the whole queue in some 50 ms, and one that has stopped must not hold up the thread for long.
const FLUSH_MAX: Duration = Duration::from_millis(500);
/// Longest text of a panic, encoded: the location and the start of a stack still fit the line.
const PANIC_BYTES_MAX: usize = 1024;

/// Whether the text on stderr is printed as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DefaultText {
    Print,
    Suppress,
}

/// Installs the hook for the whole process.
pub(crate) fn install(queue: Queue, default_text: DefaultText) {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        queue.push(&line(info), Urgency::LastWords);
        queue.flush(FLUSH_MAX);
        match default_text {
            DefaultText::Print => previous(info),
            DefaultText::Suppress => {}
        }
    }));
}

fn line(info: &PanicHookInfo<'_>) -> String {
    let buffer = String::with_capacity(LINE_BYTES_MAX);
    let mut line = Line::begin(buffer, crate::log::now(), Level::Error, "Panic");
    let text = info.payload_as_str().unwrap_or("without a text");
    line.string(field::PANIC, text, PANIC_BYTES_MAX, Controls::Escape);
    if let Some(location) = info.location() {
        line.text(field::LOCATION, &bounded(format_args!("{location}")));
    }
    let thread = std::thread::current();
    line.text(field::THREAD, thread.name().unwrap_or("unnamed"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let text = bounded(format_args!("{backtrace}"));
        line.string(field::BACKTRACE, &text, VALUE_BYTES_MAX, Controls::Escape);
    }
    line.end()
}
