//! A plan and what came of it for people.

use std::fmt::Write as _;
use std::path::Path;

use nagi_guard::{
    Disk, Done, End, Harm, Item, Kept, Motion, Plan, Reclaimer, Report, Skipped, Step, Why,
};

use super::super::body::shown;
use crate::output::style::Tone;
use crate::output::table::{Cell, Table};
use crate::output::{Detail, Output, words};

/// Everything. `--output wide` names the files too.
pub(super) fn whole(
    plan: &Plan,
    report: Option<&Report>,
    detail: Detail,
    output: &Output,
) -> String {
    let mut text = output.table(&steps(plan, report));
    let mut section = |title: &str, table: &Table| {
        let title = output.style().paint(Tone::Strong, title);
        // Writing to a string cannot fail, here and below.
        write!(text, "\n{title}\n{}", output.table(table)).unwrap_or(());
    };
    if !disks_of(plan, report).is_empty() {
        section("Disks", &disks(plan, report));
    }
    if plan.steps.iter().any(|step| !step.kept.is_empty()) {
        section("Stays", &stays(plan));
    }
    if !skipped_of(plan, report).is_empty() {
        section("Left alone", &skipped(plan, report));
    }
    if !plan.left.is_empty() {
        section("Only their owners may give these back", &left(plan));
    }
    if detail == Detail::Wide {
        section("Files", &files(plan));
    }
    writeln!(text, "\n{}", message(plan, report)).unwrap_or(());
    writeln!(text, "digest {}", plan.digest()).unwrap_or(());
    text
}

/// One sentence on the whole.
pub(super) fn message(plan: &Plan, report: Option<&Report>) -> String {
    let Some(report) = report else {
        let ready = plan.steps.iter().filter(|step| step.has_consent);
        let files: usize = ready.clone().map(|step| step.items.len()).sum();
        let noun = noun(
            ready
                .filter(|step| !step.items.is_empty())
                .map(|step| step.reclaimer),
        );
        let files = u64::try_from(files).unwrap_or(u64::MAX);
        return match files {
            0 => "nothing is to be removed".to_owned(),
            files => format!(
                "{} to remove, expected to give back {}",
                words::count(files, noun),
                words::bytes(plan.expected())
            ),
        };
    };
    let removed = report.done.iter().map(|done| done.removed).sum();
    let did = report.done.iter().filter(|done| done.removed > 0);
    let noun = noun(did.map(|done| done.reclaimer));
    let expected = report.done.iter().map(|done| done.expected).sum();
    let measured: i64 = report.done.iter().map(|done| done.measured).sum();
    format!(
        "measured {} given back; {} removed, expected {}",
        signed(measured),
        words::count(removed, noun),
        words::bytes(expected)
    )
}

/// Images and containers are no files.
fn noun(kinds: impl Iterator<Item = Reclaimer>) -> &'static str {
    if kinds.into_iter().any(Reclaimer::is_of_runtime) {
        "item"
    } else {
        "file"
    }
}

/// How a step ended, in a sentence.
pub(crate) fn end(end: &End) -> String {
    match end {
        End::Done => "done".to_owned(),
        End::Target => "done: the target is reached".to_owned(),
        End::Cap => "done: as much came back as --max allows".to_owned(),
        End::Short => "done, and less came back than expected".to_owned(),
        End::NoConsent => "not done: it needs --lossy".to_owned(),
        End::Changed(path) => format!(
            "refused: {} is not what the plan says any more, or may not go",
            shown(path)
        ),
        End::Away => {
            "refused: the place cannot be looked at, or not be written to, any more".to_owned()
        }
        End::OwnerBusy => "not done: its owner is at work there".to_owned(),
        End::Broken(error) => format!("broken off: {error}"),
        End::TimedOut => "broken off: it took too long".to_owned(),
        End::NoRecord(error) => format!(
            "broken off: what is removed cannot be written down, neither in the ring nor under /run: {error}"
        ),
    }
}

/// The same in one word, for programs.
pub(super) const fn end_word(end: &End) -> &'static str {
    match end {
        End::Done => "done",
        End::Target => "target-reached",
        End::Cap => "cap-reached",
        End::Short => "short",
        End::NoConsent => "no-consent",
        End::Changed(_) => "changed",
        End::Away => "away",
        End::OwnerBusy => "owner-busy",
        End::Broken(_) => "broken",
        End::TimedOut => "timed-out",
        End::NoRecord(_) => "no-record",
    }
}

/// Why a place is left alone.
pub(crate) fn why(why: &Why) -> String {
    match why {
        Why::Link => "there is a symbolic link on the way, and links are not followed".to_owned(),
        Why::BelongsTo(owner) => format!(
            "a link makes it the directory of {}, below which nobody else removes anything",
            owner.name()
        ),
        Why::ReadOnly => "its filesystem cannot be written to".to_owned(),
        Why::Type(fstype) => format!("its filesystem is {fstype}, which is not cleaned"),
        Why::Unreadable(error) => format!("it cannot be read: {error}"),
        Why::OwnerElsewhere => {
            "its owner can only be asked on the node itself: nagi disk clean without --root"
                .to_owned()
        }
        Why::Owner(error) => format!("its owner does not say what may go: {error}"),
        Why::NotUnderstood => "its owner's answer is of another form than is known".to_owned(),
        Why::Runtime(why) => format!("the container runtime does not say what it has: {why}"),
        Why::RuntimeBusy(Motion::Pull) => {
            "an image is being pulled: what nothing uses now may be used in a moment".to_owned()
        }
        Why::RuntimeBusy(Motion::Pod) => {
            "a pod is being started: what nothing uses now may be used in a moment".to_owned()
        }
        Why::NoPods => {
            "the container runtime lists no pod at all, so nobody can tell which images are used"
                .to_owned()
        }
        Why::Manifest(file) => format!(
            "{} cannot be understood, so nobody knows which images are needed",
            shown(file)
        ),
        Why::KeepImage(kept) => format!(
            "no image is called '{kept}', which --keep-image names, so nobody knows which one is to be kept"
        ),
        Why::NoMachineId => {
            "/etc/machine-id does not say which journals are this node's".to_owned()
        }
    }
}

/// Why files stay, in one word.
pub(super) const fn kept(why: Kept) -> &'static str {
    match why {
        Kept::Unknown => "unknown",
        Kept::Active => "in-use",
        Kept::Young => "young",
        Kept::Links => "other-names",
        Kept::Mount => "mounted-over",
        Kept::KeepList => "kept",
        Kept::Window => "window",
        Kept::NotUnderstood => "not-understood",
        Kept::Pinned => "pinned",
        Kept::Used => "used",
        Kept::Sandbox => "sandbox",
        Kept::Manifest => "manifest",
        Kept::Leased => "leased",
        Kept::AgeUnknown => "age-unknown",
        Kept::PodAlive => "pod-alive",
        Kept::Newest => "newest",
    }
}

/// And in words.
const fn kept_in_words(why: Kept) -> &'static str {
    match why {
        Kept::Unknown => "no rule knows the name",
        Kept::Active => "is open, being written, or runs",
        Kept::Young => "written, renamed, pulled or ended within --min-age",
        Kept::Links => "has other names, so that removing one frees nothing",
        Kept::Mount => "something is mounted on it",
        Kept::KeepList => "named by --keep or --keep-image",
        Kept::Window => "has entries that are kept",
        Kept::NotUnderstood => "cannot be understood: nobody knows what would be lost",
        Kept::Pinned => "pinned by the container runtime",
        Kept::Used => "a container has it, alive or dead, or a pod has mounted it",
        Kept::Sandbox => "sandboxes of pods are made of it",
        Kept::Manifest => "a static pod names it",
        Kept::Leased => "a pull that is under way or was given up holds a part of it",
        Kept::AgeUnknown => "nobody tells how old it is",
        Kept::PodAlive => "its pod may still run",
        Kept::Newest => "the last of its name that ended: evidence",
    }
}

fn steps(plan: &Plan, report: Option<&Report>) -> Table {
    let mut headings = vec!["KIND", "HARM", "FILES", "EXPECTED"];
    if report.is_some() {
        headings.extend(["REMOVED", "MEASURED"]);
    }
    headings.extend(["STATE", "WHERE"]);
    let mut table = Table::new(headings);
    for (at, step) in plan.steps.iter().enumerate() {
        let harm = step.reclaimer.harm();
        let tone = match harm {
            Harm::Regenerable => Tone::Good,
            Harm::Lossy => Tone::Busy,
        };
        let done = report.and_then(|report| report.done.get(at));
        let mut row = vec![
            Cell::from(step.reclaimer.name()),
            Cell::toned(tone, harm.word()),
            Cell::from(step.items.len().to_string()),
            Cell::from(words::bytes(step.expected())),
        ];
        if let Some(done) = done {
            row.push(Cell::from(done.removed.to_string()));
            row.push(Cell::from(signed(done.measured)));
        }
        row.push(state(step, done));
        row.push(path(&step.directory));
        table.row(row);
    }
    table
}

fn state(step: &Step, done: Option<&Done>) -> Cell {
    if let Some(done) = done {
        let tone = match &done.end {
            End::Done if done.failures.1 == 0 => Tone::Good,
            End::Target | End::Cap => Tone::Good,
            End::NoConsent => Tone::Plain,
            End::Short => Tone::Busy,
            End::Done
            | End::Changed(_)
            | End::Away
            | End::OwnerBusy
            | End::Broken(_)
            | End::TimedOut
            | End::NoRecord(_) => Tone::Bad,
        };
        return Cell::toned(tone, words::clean(&end(&done.end)));
    }
    let text = match (step.items.is_empty(), step.has_consent) {
        (true, _) if step.spared.inodes > 0 => "not needed",
        (true, _) => "nothing",
        (false, true) => "planned",
        (false, false) => "needs --lossy",
    };
    Cell::from(text)
}

fn disks(plan: &Plan, report: Option<&Report>) -> Table {
    let mut headings = vec![
        "MOUNTED ON",
        "TYPE",
        "USED%",
        "INODES%",
        "AVAILABLE",
        "RESERVED",
        "TO TARGET",
        "EXPECTED",
    ];
    if report.is_some() {
        headings.extend(["USED% NOW", "AVAILABLE NOW"]);
    }
    let mut table = Table::new(headings);
    let percent = |space: &nagi_guard::Space| {
        Cell::or_dash(space.used_percent().map(|percent| format!("{percent}%")))
    };
    for disk in disks_of(plan, report) {
        let mut row = vec![
            path(&disk.point),
            Cell::from(words::clean(&disk.fstype)),
            percent(&disk.space),
            Cell::or_dash(
                disk.space
                    .inodes_used_percent()
                    .map(|percent| format!("{percent}%")),
            ),
            Cell::from(words::bytes(disk.space.bytes_available)),
            Cell::from(words::bytes(disk.space.reserved())),
            Cell::from(to_target(disk)),
            Cell::from(words::bytes(disk.expected)),
        ];
        if let Some(report) = report {
            let after = report.after.iter().find(|one| one.device == disk.device);
            row.push(after.map_or_else(
                || Cell::or_dash(None::<&str>),
                |after| percent(&after.space),
            ));
            row.push(Cell::or_dash(
                after.map(|after| words::bytes(after.space.bytes_available)),
            ));
        }
        table.row(row);
    }
    table
}

/// Inodes only where they are what is missing.
fn to_target(disk: &nagi_guard::Disk) -> String {
    let bytes = words::bytes(disk.needed.bytes);
    match disk.needed.inodes {
        0 => bytes,
        inodes => format!("{bytes}, {}", words::count(inodes, "file")),
    }
}

fn stays(plan: &Plan) -> Table {
    let mut table = Table::new(["KIND", "FILES", "SIZE", "WHY"]);
    for step in &plan.steps {
        for (why, tally) in &step.kept {
            table.row([
                Cell::from(step.reclaimer.name()),
                Cell::from(tally.inodes.to_string()),
                Cell::from(words::bytes(tally.bytes())),
                Cell::from(kept_in_words(*why)),
            ]);
        }
    }
    table
}

/// The disks; a plan of a file has none, and then what was looked at to carry it out counts.
pub(super) fn disks_of<'a>(plan: &'a Plan, report: Option<&'a Report>) -> &'a [Disk] {
    match report {
        Some(report) if plan.disks.is_empty() => &report.disks,
        Some(_) | None => &plan.disks,
    }
}

/// The same for places that are left alone.
pub(super) fn skipped_of<'a>(plan: &'a Plan, report: Option<&'a Report>) -> Vec<&'a Skipped> {
    let since = report.into_iter().flat_map(|report| &report.skipped);
    let since = since.filter(|place| !plan.skipped.contains(place));
    plan.skipped.iter().chain(since).collect()
}

fn skipped(plan: &Plan, report: Option<&Report>) -> Table {
    let mut table = Table::new(["KIND", "WHERE", "WHY"]);
    for skipped in skipped_of(plan, report) {
        table.row([
            Cell::from(skipped.reclaimer.name()),
            path(&skipped.directory),
            Cell::from(words::clean(&why(&skipped.why))),
        ]);
    }
    table
}

fn left(plan: &Plan) -> Table {
    let mut table = Table::new(["OWNER", "FILES", "SIZE", "HOW"]);
    for left in &plan.left {
        table.row([
            Cell::from(left.owner.name()),
            Cell::from(left.tally.inodes.to_string()),
            Cell::from(words::bytes(left.tally.bytes())),
            Cell::from(left.lever),
        ]);
    }
    table
}

fn files(plan: &Plan) -> Table {
    use std::os::unix::ffi::OsStrExt as _;
    let mut table = Table::new(["KIND", "SIZE", "FILE"]);
    for step in &plan.steps {
        for item in &step.items {
            let file = Path::new(std::ffi::OsStr::from_bytes(&item.path));
            table.row([
                Cell::from(step.reclaimer.name()),
                Cell::from(gives_back(item)),
                match &item.owned {
                    Some(owned) => Cell::from(words::clean(&owned.names.join(" "))),
                    None => path(&step.directory.join(file)),
                },
            ]);
        }
    }
    table
}

/// What nobody knows is not nothing.
fn gives_back(item: &Item) -> String {
    let is_known = item.owned.as_ref().is_none_or(|owned| owned.is_measured);
    if is_known {
        words::bytes(item.gives_back())
    } else {
        "-".to_owned()
    }
}

/// Less than nothing where others wrote more meanwhile than was removed.
fn signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "-" } else { "" };
    format!("{sign}{}", words::bytes(bytes.unsigned_abs()))
}

fn path(path: &Path) -> Cell {
    Cell::from(words::clean(&shown(path)))
}
