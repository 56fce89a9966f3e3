//! The diagnosis for people: the cause in full, the rest in rows.

use std::fmt::Write as _;

use nagi_ops::{Diagnosis, Finding, Unseen};

use crate::output::style::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{Output, words};

/// Everything.
pub(super) fn whole(diagnosis: &Diagnosis, output: &Output) -> String {
    let mut text = String::new();
    let style = output.style();
    match diagnosis.findings.split_first() {
        None => text.push_str("No cause found\n"),
        Some((cause, others)) => {
            let head = format!("{} at {}", cause.cause.id(), words::clean(&cause.subject));
            // Writing to a string cannot fail, here and below.
            writeln!(text, "Cause: {}", style.paint(Tone::Bad, &head)).unwrap_or(());
            in_full(cause, &mut text);
            if !others.is_empty() {
                text.push_str("\nAlso\n");
                text.push_str(&indented(&output.table(&rows(others))));
            }
        }
    }
    if !diagnosis.notes.is_empty() {
        text.push_str("\nWorth knowing\n");
        for note in &diagnosis.notes {
            writeln!(text, "  {}", words::clean(note)).unwrap_or(());
        }
    }
    if !diagnosis.unseen.is_empty() {
        text.push_str("\nNot looked at\n");
        let mut table = Table::new(["AREA", "STATE", "WHY"]);
        for (area, why) in &diagnosis.unseen {
            let (tone, state) = match why {
                Unseen::NotHere(_) => (Tone::Dim, "not here"),
                Unseen::Failed(_) => (Tone::Busy, "unknown"),
            };
            table.row([
                Cell::from(area.name()),
                Cell::toned(tone, state),
                Cell::from(words::clean(why.why())),
            ]);
        }
        text.push_str(&indented(&output.table(&table)));
    }
    text
}

fn in_full(cause: &Finding, text: &mut String) {
    for evidence in &cause.evidence {
        writeln!(text, "  because    {}", words::clean(evidence)).unwrap_or(());
    }
    writeln!(text, "  next       {}", words::clean(&cause.next)).unwrap_or(());
    writeln!(text, "  not so if  {}", words::clean(&cause.disproof)).unwrap_or(());
}

fn rows(findings: &[Finding]) -> Table {
    let mut table = Table::new(["FINDING", "AT", "NEXT"]);
    for finding in findings {
        table.row([
            Cell::from(finding.cause.id()),
            Cell::from(words::clean(&finding.subject)),
            Cell::from(words::clean(&finding.next)),
        ]);
    }
    table
}

fn indented(text: &str) -> String {
    let mut indented = String::new();
    for line in text.lines() {
        writeln!(indented, "  {line}").unwrap_or(());
    }
    indented
}
