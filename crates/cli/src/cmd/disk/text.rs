//! The survey for people: tables, the most useful first.

use std::fmt::Write as _;
use std::path::Path;

use nagi_guard::{
    Advice, Class, Effort, Estimate, Filesystem, Gap, Kind, NodeId, Place, Quantity, ReadOnly,
    SIZE_ADVISED, SIZE_FLOOR, Signal, Survey, Tally, ThresholdSource, Tree, Under,
};

use super::body::shown;
use crate::output::style::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{Detail, Output, words};

/// Directories of less than this part of the whole are not shown.
const ROW_PARTS: u64 = 50;
/// The same for `--output wide`.
const ROW_PARTS_WIDE: u64 = 200;

/// Everything.
pub(super) fn whole(
    survey: &Survey,
    effort: Effort,
    top: usize,
    detail: Detail,
    output: &Output,
) -> String {
    if effort == Effort::Total {
        return output.table(&totals(survey));
    }
    let mut text = output.table(&filesystems(survey, detail));
    for place in &survey.places {
        text.push_str(&of_place(place, top, detail, output));
    }
    if !survey.advice.is_empty() {
        text.push_str("\nWhat it means\n");
        for one in &survey.advice {
            let line = words::clean(&advice(one));
            // Writing to a string cannot fail, here and below.
            writeln!(text, "  {}", output.style().paint(tone(one), &line)).unwrap_or(());
        }
        writeln!(text, "  {}", source(&survey.thresholds.source)).unwrap_or(());
    }
    text
}

/// What a class of owners takes.
pub(super) fn of_class(place: &Place, class: Class) -> Tally {
    let owners = place.owners.iter();
    owners
        .filter(|(owner, _)| owner.class() == class)
        .map(|(_, tally)| *tally)
        .sum()
}

/// One piece of advice in a sentence.
pub(super) fn advice(advice: &Advice) -> String {
    match advice {
        Advice::ReadOnly { point } => {
            format!("{} cannot be written to", shown(point))
        }
        Advice::Evicting {
            point,
            signal,
            left,
            threshold,
            rule,
        } => format!(
            "{}: kubelet kills pods: {} left, below {} ({}<{})",
            shown(point),
            amount(*signal, *left),
            amount(*signal, *threshold),
            signal.name(),
            quantity(*signal, *rule),
        ),
        Advice::OnlyReserve { point, reserved } => format!(
            "{}: nothing is left for anybody but root, who can still write {}",
            shown(point),
            words::bytes(*reserved),
        ),
        Advice::AboveGoal {
            point,
            used_percent,
            goal_percent,
        } => format!(
            "{}: {used_percent}% is above the {goal_percent}% goal",
            shown(point)
        ),
        Advice::Headroom {
            point,
            signal,
            until,
            threshold,
            rule,
        } => format!(
            "{}: {} until kubelet kills pods; the last {} can never be used ({}<{})",
            shown(point),
            amount(*signal, *until),
            amount(*signal, *threshold),
            signal.name(),
            quantity(*signal, *rule),
        ),
        Advice::BelowFloor { point, bytes } => format!(
            "{}: {} is less than the {} GB that a control plane needs; grow it to {} GB or more",
            shown(point),
            words::bytes(*bytes),
            SIZE_FLOOR / 1_000_000_000,
            SIZE_ADVISED / 1_000_000_000,
        ),
        Advice::BelowAdvised { point, bytes } => format!(
            "{}: {} is little for production; grow it to {} GB or more",
            shown(point),
            words::bytes(*bytes),
            SIZE_ADVISED / 1_000_000_000,
        ),
        Advice::ImagesAboveHalf { point, percent } => format!(
            "{}: images and containers take {percent}% of all files",
            shown(point)
        ),
    }
}

fn tone(advice: &Advice) -> Tone {
    match advice {
        Advice::ReadOnly { .. } | Advice::Evicting { .. } | Advice::OnlyReserve { .. } => Tone::Bad,
        Advice::AboveGoal { .. } | Advice::BelowFloor { .. } => Tone::Busy,
        Advice::Headroom { .. } | Advice::BelowAdvised { .. } | Advice::ImagesAboveHalf { .. } => {
            Tone::Plain
        }
    }
}

fn amount(signal: Signal, value: u64) -> String {
    if signal.counts_inodes() {
        format!("{value} inodes")
    } else {
        words::bytes(value)
    }
}

fn quantity(signal: Signal, rule: Quantity) -> String {
    match rule {
        Quantity::Amount(value) if !signal.counts_inodes() => words::bytes(value),
        Quantity::Amount(_) | Quantity::Percent(_) => rule.to_string(),
    }
}

fn source(source: &ThresholdSource) -> String {
    let text = match source {
        ThresholdSource::File => "thresholds: those of this node's kubelet".to_owned(),
        ThresholdSource::Defaults => {
            "thresholds: kubelet's defaults, for it has no configuration file here".to_owned()
        }
        ThresholdSource::Unreadable(why) => {
            format!("thresholds: kubelet's defaults, for its file cannot be read: {why}")
        }
    };
    words::clean(&text)
}

fn totals(survey: &Survey) -> Table {
    let mut table = Table::new(["SIZE", "INODES", "PATH"]);
    for place in &survey.places {
        table.row([
            Cell::from(words::bytes(place.visible.bytes())),
            Cell::from(place.visible.inodes.to_string()),
            path_cell(place.paths.first().map_or(Path::new(""), |path| path)),
        ]);
    }
    table
}

fn filesystems(survey: &Survey, detail: Detail) -> Table {
    let mut headings = vec![
        "MOUNTED ON",
        "TYPE",
        "SIZE",
        "USED",
        "AVAILABLE",
        "RESERVED",
        "USED%",
        "INODES%",
        "STATE",
    ];
    headings.push(match detail {
        Detail::Normal => "HOLDS",
        Detail::Wide => "SOURCE",
    });
    let mut table = Table::new(headings);
    let matters = |one: &&Filesystem| {
        let is_walked = survey
            .places
            .iter()
            .any(|place| place.filesystem.device == one.device);
        detail == Detail::Wide || is_walked || !one.holds.is_empty() || one.kind == Kind::Disk
    };
    for one in survey.filesystems.iter().filter(matters) {
        let bytes = |of: fn(&nagi_guard::Space) -> u64| {
            Cell::or_dash(one.space.as_ref().map(|space| words::bytes(of(space))))
        };
        let percent = |of: fn(&nagi_guard::Space) -> Option<u64>| {
            let value = one.space.as_ref().and_then(of);
            let tone = match value {
                Some(95..) => Tone::Bad,
                Some(86..) => Tone::Busy,
                Some(_) | None => Tone::Plain,
            };
            value.map_or_else(
                || Cell::or_dash(None::<&str>),
                |value| Cell::toned(tone, format!("{value}%")),
            )
        };
        let holds: Vec<String> = one.holds.iter().map(|held| shown(held)).collect();
        let last = match detail {
            Detail::Normal => holds.join(" "),
            Detail::Wide => shown(Path::new(&one.source)),
        };
        table.row([
            path_cell(&one.point),
            Cell::from(words::clean(&one.fstype)),
            bytes(|space| space.bytes),
            bytes(nagi_guard::Space::used),
            bytes(|space| space.bytes_available),
            bytes(nagi_guard::Space::reserved),
            percent(nagi_guard::Space::used_percent),
            percent(nagi_guard::Space::inodes_used_percent),
            state(one),
            Cell::or_dash(Some(words::clean(&last)).filter(|text| !text.is_empty())),
        ]);
    }
    table
}

fn state(one: &Filesystem) -> Cell {
    match (one.kind, one.read_only) {
        (Kind::Unknown, _) => Cell::toned(Tone::Busy, "unknown type"),
        (Kind::Remote, _) => Cell::toned(Tone::Dim, "not asked"),
        (_, ReadOnly::No) => Cell::from("writable"),
        (Kind::Image, _) => Cell::toned(Tone::Dim, "image"),
        (_, ReadOnly::Mount) => Cell::toned(Tone::Busy, "read-only here"),
        (_, ReadOnly::Filesystem | ReadOnly::Withdrawn) => Cell::toned(Tone::Bad, "read-only"),
    }
}

fn of_place(place: &Place, top: usize, detail: Detail, output: &Output) -> String {
    let mut text = String::new();
    let mut section = |title: String, table: &Table| {
        let title = output.style().paint(Tone::Strong, &words::clean(&title));
        write!(text, "\n{title}\n{}", output.table(table)).unwrap_or(());
    };
    let names: Vec<String> = place.paths.iter().map(|path| shown(path)).collect();
    let name = names.join(" and ");
    if let Some(gap) = &place.gap {
        section(
            format!("What df counts as used on {name}"),
            &used(gap, place),
        );
    }
    section(format!("Owners in {name}"), &owners(place));
    section(
        format!("Directories in {name}"),
        &directories(place, top, detail),
    );
    if !place.deleted.is_empty() {
        section(format!("Deleted and still open on {name}"), &deleted(place));
    }
    if let Some(table) = under(&place.under) {
        section(format!("Under mounts in {name}"), &table);
    }
    if !place.subvolumes.is_empty() {
        let mut table = Table::new(["SUBVOLUME"]);
        for path in &place.subvolumes {
            table.row([path_cell(path)]);
        }
        section(format!("Subvolumes and snapshots in {name}"), &table);
    }
    section(format!("Largest files in {name}"), &largest(place));
    section(format!("Fullest directories in {name}"), &crowded(place));
    text
}

fn used(gap: &Gap, place: &Place) -> Table {
    let mut table = Table::new(["WHAT", "SIZE", "SHARE", "NOTE"]);
    let mut line = |what: &'static str, bytes: u64, share: String, note: String| {
        table.row([
            Cell::from(what),
            Cell::from(words::bytes(bytes)),
            Cell::from(share),
            Cell::from(note),
        ]);
    };
    let mut row = |what: &'static str, bytes: u64, note: String| {
        line(what, bytes, words::share(bytes, gap.used), note);
    };
    row("files", gap.files, "what du finds".to_owned());
    match (&place.under, gap.hidden) {
        (Under::Seen(_), Some(hidden)) => {
            row("hidden under mounts", hidden, String::new());
        }
        (Under::NotSeen(..), Some(_)) => {
            row("hidden under mounts", 0, "no mounts in it".to_owned());
        }
        (Under::NotSeen(why, points), _) => row(
            "hidden under mounts",
            0,
            format!(
                "not looked under {}: {why}",
                words::count(u64::try_from(points.len()).unwrap_or(u64::MAX), "mount")
            ),
        ),
        (Under::Seen(_), None) => {}
    }
    row("deleted, still open", gap.deleted, String::new());
    let note = match gap.own {
        Estimate::Exact(_) => "",
        Estimate::About(_) => "computed by a rule",
    };
    row("the filesystem itself", gap.own.bytes(), note.to_owned());
    if gap.shared > 0 {
        row(
            "shared, counted twice",
            gap.shared,
            "take this off the lines above".to_owned(),
        );
    }
    let rest = gap.rest();
    let size = u64::try_from(rest.unsigned_abs()).unwrap_or(u64::MAX);
    let note = if rest < 0 {
        "the lines above are more than is used: files share extents, or changed meanwhile"
    } else {
        ""
    };
    row("not explained", size, note.to_owned());
    row("used", gap.used, String::new());
    let reserved = place.filesystem.space.map_or(0, |space| space.reserved());
    if reserved > 0 {
        // It is no share of what is used.
        line(
            "reserve",
            reserved,
            "-".to_owned(),
            "free, but not for everybody: df counts it neither as used nor as available".to_owned(),
        );
    }
    table
}

fn owners(place: &Place) -> Table {
    let mut table = Table::new(["OWNER", "MAY FREE", "SIZE", "SHARE", "INODES", "HOW"]);
    let whole = place.visible.bytes();
    for (owner, tally) in &place.owners {
        table.row([
            Cell::from(owner.name()),
            Cell::toned(class_tone(owner.class()), owner.class().word()),
            Cell::from(words::bytes(tally.bytes())),
            Cell::from(words::share(tally.bytes(), whole)),
            Cell::from(tally.inodes.to_string()),
            Cell::or_dash(owner.lever()),
        ]);
    }
    table
}

const fn class_tone(class: Class) -> Tone {
    match class {
        Class::Nagi => Tone::Good,
        Class::Owner => Tone::Calm,
        Class::Human => Tone::Plain,
        Class::Unknown => Tone::Dim,
    }
}

fn directories(place: &Place, top: usize, detail: Detail) -> Table {
    let mut table = Table::new(["SIZE", "OF PARENT", "INODES", "OWNER", "DIRECTORY"]);
    let tree = &place.tree;
    let parts = match detail {
        Detail::Normal => ROW_PARTS,
        Detail::Wide => ROW_PARTS_WIDE,
    };
    let floor = tree.total().bytes() / parts;
    // The largest first, each before what lies in it.
    let mut stack: Vec<(NodeId, usize, Option<u64>)> =
        tree.starts().map(|start| (start, 0, None)).collect();
    stack.reverse();
    while let Some((id, depth, parent)) = stack.pop() {
        let sum = tree.sum(id);
        table.row([
            Cell::from(words::bytes(sum.bytes())),
            Cell::or_dash(parent.map(|parent| words::share(sum.bytes(), parent))),
            Cell::from(sum.inodes.to_string()),
            Cell::from(tree.owner(id).name()),
            Cell::from(row_name(tree, id, depth)),
        ]);
        // What belongs to one program is that program's affair.
        let is_closed = detail == Detail::Normal && depth > 0 && is_of_one_owner(tree, id);
        if is_closed {
            continue;
        }
        let below = tree.largest_below(id).into_iter().take(top);
        let large = below.filter(|child| tree.sum(*child).bytes() > floor);
        let rows: Vec<_> = large
            .map(|child| (child, depth + 1, Some(sum.bytes())))
            .collect();
        stack.extend(rows.into_iter().rev());
    }
    table
}

fn is_of_one_owner(tree: &Tree, id: NodeId) -> bool {
    let owner = tree.owner(id);
    owner.class() == Class::Owner
        && tree
            .below(id)
            .iter()
            .all(|below| tree.owner(*below) == owner)
}

fn row_name(tree: &Tree, id: NodeId, depth: usize) -> String {
    let name = words::clean(&shown(Path::new(&tree.name(id))));
    let hidden = if tree.is_hidden(id) {
        " (under a mount)"
    } else {
        ""
    };
    format!("{}{name}{hidden}", "  ".repeat(depth))
}

fn deleted(place: &Place) -> Table {
    let mut table = Table::new(["SIZE", "HELD BY", "FILE"]);
    for file in &place.deleted {
        let holders: Vec<String> = file
            .holders
            .iter()
            .map(|holder| {
                if holder.pid == 0 {
                    return format!("{}, at most", words::clean(&holder.command));
                }
                let how = match holder.fd {
                    Some(fd) => format!("fd {fd}"),
                    None => "mapped".to_owned(),
                };
                format!("{} {} ({how})", words::clean(&holder.command), holder.pid)
            })
            .collect();
        table.row([
            Cell::from(words::bytes(file.blocks.bytes())),
            Cell::from(holders.join(", ")),
            path_cell(&file.path),
        ]);
    }
    table
}

/// None when there is nothing to tell: a mount on an empty directory hides nothing.
fn under(under: &Under) -> Option<Table> {
    match under {
        Under::Seen(hidden) => {
            let mut table = Table::new(["SIZE", "INODES", "MOUNTED OVER IT", "DIRECTORY"]);
            let mut full = hidden.iter().filter(|one| one.tally.inodes > 1).peekable();
            full.peek()?;
            for one in full {
                table.row([
                    Cell::from(words::bytes(one.tally.bytes())),
                    Cell::from(one.tally.inodes.to_string()),
                    Cell::from(words::clean(&one.fstype)),
                    path_cell(&one.point),
                ]);
            }
            Some(table)
        }
        Under::NotSeen(_, points) => {
            let mut table = Table::new(["NOT LOOKED UNDER"]);
            points.first()?;
            for point in points {
                table.row([path_cell(point)]);
            }
            Some(table)
        }
    }
}

fn largest(place: &Place) -> Table {
    let mut table = Table::new(["SIZE", "OWNER", "FILE"]);
    for file in &place.largest {
        table.row([
            Cell::from(words::bytes(file.blocks.bytes())),
            Cell::from(file.owner.name()),
            path_cell(&file.path),
        ]);
    }
    table
}

fn crowded(place: &Place) -> Table {
    let mut table = Table::new(["INODES", "OWNER", "DIRECTORY"]);
    for id in &place.crowded {
        table.row([
            Cell::from(place.tree.own(*id).inodes.to_string()),
            Cell::from(place.tree.owner(*id).name()),
            path_cell(&place.tree.path(*id)),
        ]);
    }
    table
}

fn path_cell(path: &Path) -> Cell {
    Cell::from(words::clean(&shown(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    // B-042, B-033, D-25: what is said of the disk with which the founding document ends.
    #[test]
    fn advice_names_the_number_the_rule_and_the_next_step() {
        let evicting = Advice::Evicting {
            point: "/".into(),
            signal: Signal::NodefsAvailable,
            left: 595 << 20,
            threshold: 778 << 20,
            rule: Quantity::Percent(10.0),
        };
        assert_eq!(
            advice(&evicting),
            "/: kubelet kills pods: 595.0 MiB left, below 778.0 MiB (nodefs.available<10%)"
        );
        let above = Advice::AboveGoal {
            point: "/".into(),
            used_percent: 93,
            goal_percent: 85,
        };
        assert_eq!(advice(&above), "/: 93% is above the 85% goal");
        let small = Advice::BelowAdvised {
            point: "/".into(),
            bytes: 8_160_437_862,
        };
        assert_eq!(
            advice(&small),
            "/: 7.6 GiB is little for production; grow it to 20 GB or more"
        );
        let inodes = Advice::Headroom {
            point: "/".into(),
            signal: Signal::ImagefsInodesFree,
            until: 10,
            threshold: 5,
            rule: Quantity::Amount(5),
        };
        assert_eq!(
            advice(&inodes),
            "/: 10 inodes until kubelet kills pods; the last 5 inodes can never be used (imagefs.inodesFree<5)"
        );
    }
}
