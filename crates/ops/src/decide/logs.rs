//! What logs alone say. ENOSPC of a filesystem that is full now is evidence there; here is what is left of it.

use super::disks::{has_no_inodes, is_full, shown};
use super::{Facts, Found, store};
use crate::cause::Cause;
use crate::observed::{Line, LineClass, Reach, Writable};

pub(super) fn judge(facts: Facts<'_>, found: &mut Found) {
    let before = found.findings.len();
    alone(facts, found);
    let added = found.findings.split_off(before);
    // A line is of the past. Where the API server is ready, it says what was, and no longer what is.
    let is_ready =
        matches!(&facts.observed.endpoint, Ok(endpoint) if endpoint.reach == Reach::Ready);
    if is_ready {
        for finding in added {
            let evidence = finding.evidence.join("; ");
            found.note(format!("{}, earlier: {evidence}", finding.cause.id()));
        }
    } else {
        found.said.extend(added);
    }
}

fn alone(facts: Facts<'_>, found: &mut Found) {
    store::by_logs(facts, found);
    no_space(facts, found);
    for (class, cause) in [
        (LineClass::InotifyLimit, Cause::InotifyLimit),
        (LineClass::Quota, Cause::QuotaExceeded),
        (LineClass::OutOfMemory, Cause::OutOfMemory),
        (LineClass::Image, Cause::ImageMissing),
    ] {
        if let Some(line) = facts.last_line(|known| *known == class) {
            found.add(cause, "logs", vec![line], &[]);
        }
    }
    if let Some(line) = facts.last_line(|class| matches!(class, LineClass::KernelLimit(_))) {
        found.add(Cause::KernelLimit, "logs", vec![line], &[]);
    }
    let is_said = found
        .findings
        .iter()
        .any(|one| one.cause == Cause::PortTaken);
    if !is_said && let Some(line) = facts.last_line(|class| *class == LineClass::PortTaken) {
        found.add(Cause::PortTaken, "logs", vec![line], &[]);
    }
}

/// D-04, W-B14: the words of a full disk without one. When the filesystem is full they are its evidence already.
fn no_space(facts: Facts<'_>, found: &mut Found) {
    let lines: Vec<&Line> = facts
        .lines(|class| matches!(class, LineClass::NoSpace(_)))
        .filter(|line| !is_explained(line, facts))
        .collect();
    let Some(last) = lines.last() else {
        return;
    };
    let mut evidence = vec![super::said(last, lines.len())];
    match (&last.point, &facts.observed.filesystems) {
        (_, Err(_)) => {
            // Whether the disk is full was not seen, so the words stand for what they say.
            evidence.push("how full its filesystem is was not seen".to_owned());
        }
        (Some(point), Ok(seen)) if !seen.iter().any(|one| one.point == *point) => {
            evidence.push(format!("how full {} is was not asked", shown(point)));
        }
        (Some(point), Ok(_)) => {
            evidence.push(format!("{} has bytes and inodes left now", shown(point)));
        }
        (None, Ok(_)) => evidence.push("no filesystem of this node is full now".to_owned()),
    }
    found.add(Cause::NoSpaceUnexplained, "logs", evidence, &[]);
}

/// A filesystem that is full now, or without inodes: the one that the path lies on, or any where there is no path.
fn is_explained(line: &Line, facts: Facts<'_>) -> bool {
    let filesystems = facts.observed.filesystems.as_deref().unwrap_or_default();
    filesystems.iter().any(|one| {
        let is_there = line.point.as_ref().is_none_or(|point| *point == one.point);
        let has_none = one
            .space
            .is_some_and(|space| is_full(one, facts) || has_no_inodes(one, &space, facts));
        let is_read_only = matches!(one.writable, Writable::No | Writable::Withdrawn);
        is_there && (has_none || is_read_only)
    })
}
