//! The report of a recovery for people: on a terminal, and as Markdown for a ticket.

use std::fmt::Write as _;

use super::report::{DiskBody, DoneBody, Report, State};
use crate::output::style::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{Output, words};

/// Everything.
pub(in crate::cmd::recover) fn whole(report: &Report, output: &Output) -> String {
    let mut text = String::new();
    let style = output.style();
    // Writing to a string cannot fail, here and below.
    if let Some(cause) = &report.cause {
        let head = format!("{} at {}", cause.id, words::clean(&cause.at));
        writeln!(text, "Cause: {}", style.paint(Tone::Bad, &head)).unwrap_or(());
        for line in &cause.evidence {
            writeln!(text, "  because  {}", words::clean(line)).unwrap_or(());
        }
        text.push('\n');
    }
    let mut section = |title: &str, body: &str| {
        let title = style.paint(Tone::Strong, title);
        writeln!(text, "{title}\n{body}").unwrap_or(());
    };
    if !report.plan.steps.is_empty() {
        section("Plan", &output.table(&steps(report)));
    }
    if !report.plan.free.is_empty() {
        section("What may go", &output.table(&free(report)));
    }
    if !report.plan.left_alone.is_empty() {
        section("Left alone", &output.table(&left_alone(report)));
    }
    if !report.plan.refusals.is_empty() {
        section("Refused", &refusals(report));
    }
    if !report.done.is_empty() {
        section("Done", &output.table(&done(report)));
    }
    if !report.ladder.is_empty() {
        section("Proof", &output.table(&ladder(report)));
    }
    section("State", &output.table(&states(report)));
    if !report.times.is_empty() {
        let times = report
            .times
            .iter()
            .map(|one| format!("{} {:.1} s", one.part, one.seconds));
        writeln!(text, "{}", times.collect::<Vec<_>>().join(", ")).unwrap_or(());
    }
    writeln!(text, "{}", words::clean(&report.message)).unwrap_or(());
    if let Some(digest) = &report.plan.digest {
        writeln!(text, "digest {digest}").unwrap_or(());
    }
    text
}

fn steps(report: &Report) -> Table {
    let mut table = Table::new(["STEP", "WHAT", "ONLY IF"]);
    for step in &report.plan.steps {
        table.row([
            Cell::from(step.step),
            Cell::from(words::clean(&step.what)),
            Cell::from(step.gate),
        ]);
    }
    table
}

fn free(report: &Report) -> Table {
    let mut table = Table::new(["KIND", "HARM", "FILES", "EXPECTED", "STATE", "WHERE"]);
    for one in &report.plan.free {
        let state = if one.consent { "goes" } else { "needs --lossy" };
        table.row([
            Cell::from(one.kind.clone()),
            Cell::from(one.harm.clone()),
            Cell::from(one.files.to_string()),
            Cell::from(words::bytes(one.expected_bytes)),
            Cell::from(state),
            Cell::from(words::clean(&one.directory)),
        ]);
    }
    table
}

fn left_alone(report: &Report) -> Table {
    let mut table = Table::new(["KIND", "WHERE", "WHY"]);
    for one in &report.plan.left_alone {
        table.row([
            Cell::from(one.kind.clone()),
            Cell::from(words::clean(&one.directory)),
            Cell::from(words::clean(&one.why)),
        ]);
    }
    table
}

fn refusals(report: &Report) -> String {
    let mut text = String::new();
    for refusal in &report.plan.refusals {
        writeln!(text, "  {}", refusal.blocks).unwrap_or(());
        for line in &refusal.why {
            writeln!(text, "    because  {}", words::clean(line)).unwrap_or(());
        }
        writeln!(text, "    next     {}", words::clean(&refusal.next)).unwrap_or(());
    }
    text
}

fn done(report: &Report) -> Table {
    let mut table = Table::new(["STEP", "ANNOUNCED", "MEASURED", "TOOK", "WHAT CAME OF IT"]);
    for one in &report.done {
        table.row([
            Cell::from(one.step.clone()),
            Cell::from(announced(one)),
            Cell::from(measured(one)),
            Cell::from(format!("{:.1} s", one.seconds)),
            Cell::from(words::clean(&one.evidence.join("; "))),
        ]);
    }
    table
}

/// To the byte.
fn announced(one: &DoneBody) -> String {
    one.expected_bytes
        .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string())
}

fn measured(one: &DoneBody) -> String {
    one.measured_bytes
        .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string())
}

fn ladder(report: &Report) -> Table {
    let mut table = Table::new(["RUNG", "STATE", "EVIDENCE"]);
    for one in &report.ladder {
        let tone = match one.outcome {
            "passed" => Tone::Good,
            "failed" => Tone::Bad,
            _ => Tone::Busy,
        };
        table.row([
            Cell::from(one.rung),
            Cell::toned(tone, one.outcome),
            Cell::from(words::clean(&one.evidence.join("; "))),
        ]);
    }
    table
}

fn states(report: &Report) -> Table {
    let mut table = Table::new(match report.after {
        Some(_) => vec!["", "BEFORE", "AFTER"],
        None => vec!["", "NOW"],
    });
    for (name, before, after) in rows(report) {
        let mut row = vec![Cell::from(name), Cell::from(before)];
        row.extend(after.map(Cell::from));
        table.row(row);
    }
    table
}

/// One part of a state.
type Field = fn(&State) -> &String;

/// B-040, B-041: what was, and what is.
fn rows(report: &Report) -> Vec<(String, String, Option<String>)> {
    let after = report.after.as_ref();
    let disk_of = |state: &State, point: &str| {
        let found = state.disks.iter().find(|disk| disk.mounted_on == point);
        found.map_or_else(|| "unknown".to_owned(), disk)
    };
    let mut points: Vec<&str> = Vec::new();
    for state in std::iter::once(&report.before).chain(after) {
        for disk in &state.disks {
            if !points.contains(&disk.mounted_on.as_str()) {
                points.push(&disk.mounted_on);
            }
        }
    }
    let mut rows: Vec<(String, String, Option<String>)> = points
        .into_iter()
        .map(|point| {
            (
                format!("disk {}", words::clean(point)),
                disk_of(&report.before, point),
                after.map(|after| disk_of(after, point)),
            )
        })
        .collect();
    let fields: [(&str, Field); 3] = [
        ("API server", |state| &state.api_server),
        ("etcd", |state| &state.etcd),
        ("kubelet", |state| &state.kubelet),
    ];
    for (name, field) in fields {
        rows.push((
            name.to_owned(),
            words::clean(field(&report.before)),
            after.map(|after| words::clean(field(after))),
        ));
    }
    rows
}

fn disk(disk: &DiskBody) -> String {
    let percent = disk
        .used_percent
        .map_or_else(|| "unknown".to_owned(), |percent| format!("{percent} %"));
    let number = |bytes: Option<u64>| bytes.map_or_else(|| "unknown".to_owned(), words::bytes);
    let inodes = disk
        .inodes_free
        .map_or_else(String::new, |free| format!(", {free} inodes free"));
    format!(
        "{percent} used, {} available, {} free{inodes}",
        number(disk.available),
        number(disk.free)
    )
}

/// The same for a ticket.
pub(in crate::cmd::recover) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    let cell = |text: &str| words::clean(text).replace('|', "\\|");
    writeln!(
        text,
        "# Recovery: {}\n\n{}\n",
        report.status,
        cell(&report.message)
    )
    .unwrap_or(());
    if let Some(cause) = &report.cause {
        writeln!(text, "Cause: `{}` at `{}`\n", cause.id, cell(&cause.at)).unwrap_or(());
        for line in &cause.evidence {
            writeln!(text, "- {}", cell(line)).unwrap_or(());
        }
        text.push('\n');
    }
    text.push_str("| | Before | After |\n|---|---|---|\n");
    for (name, before, after) in rows(report) {
        let after = after.unwrap_or_else(|| "-".to_owned());
        writeln!(text, "| {name} | {} | {} |", cell(&before), cell(&after)).unwrap_or(());
    }
    if !report.plan.steps.is_empty() {
        text.push_str("\n| Planned step | What | Only if |\n|---|---|---|\n");
        for step in &report.plan.steps {
            writeln!(
                text,
                "| {} | {} | {} |",
                step.step,
                cell(&step.what),
                step.gate
            )
            .unwrap_or(());
        }
    }
    if !report.done.is_empty() {
        text.push_str("\n| Done | Announced bytes | Measured bytes | Seconds | What came of it |\n|---|---|---|---|---|\n");
        for one in &report.done {
            writeln!(
                text,
                "| {} | {} | {} | {:.1} | {} |",
                cell(&one.step),
                announced(one),
                measured(one),
                one.seconds,
                cell(&one.evidence.join("; "))
            )
            .unwrap_or(());
        }
    }
    if !report.ladder.is_empty() {
        text.push_str("\n| Rung | State | Evidence |\n|---|---|---|\n");
        for one in &report.ladder {
            let evidence = cell(&one.evidence.join("; "));
            writeln!(text, "| {} | {} | {evidence} |", one.rung, one.outcome).unwrap_or(());
        }
    }
    if !report.plan.left_alone.is_empty() {
        text.push_str("\n| Left alone | Where | Why |\n|---|---|---|\n");
        for one in &report.plan.left_alone {
            let (directory, why) = (cell(&one.directory), cell(&one.why));
            writeln!(text, "| {} | {directory} | {why} |", one.kind).unwrap_or(());
        }
    }
    for refusal in &report.plan.refusals {
        writeln!(text, "\nRefused: {}.\n", refusal.blocks).unwrap_or(());
        for line in &refusal.why {
            writeln!(text, "- {}", cell(line)).unwrap_or(());
        }
        writeln!(text, "\nNext: `{}`", cell(&refusal.next)).unwrap_or(());
    }
    text
}
