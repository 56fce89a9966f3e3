//! What is wrong, by rules alone: facts and `now` in, findings by rank out.
//!
//! Each rule looks at one area and says what it found with its evidence; none needs another's answer, but for the store
//! and the containers, whose silence means more where the disk or the runtime is known to be sound. Where an area was not
//! seen, its rules say nothing, and the area stands in `unseen`.

mod certificates;
mod disks;
mod endpoint;
mod logs;
mod node;
mod store;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

use jiff::Timestamp;

use crate::cause::{Cause, fill};
use crate::observed::{Area, Looked, Observed, Unseen};
use crate::policy::Policy;

pub(crate) use disks::inodes_used_percent;
pub(crate) use store::{DEFRAG_TENTHS, beside_etcd, defrag_by_version};
pub use store::{Defrag, defrag};

pub(crate) use endpoint::best_name;

/// What was decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// What is wrong, the most explaining first: that is the cause.
    pub findings: Vec<Finding>,
    /// What is worth knowing and is no fault.
    pub notes: Vec<String>,
    /// What was not seen, and why.
    pub unseen: Vec<(Area, Unseen)>,
    /// All together.
    pub verdict: Verdict,
}

/// All together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Something is wrong.
    Cause,
    /// The API server says that it is ready, or every area of the node was seen; and nothing is wrong.
    Sound,
    /// Nothing wrong was seen, and not everything that can be wrong could be looked at.
    Unclear,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub cause: Cause,
    /// Which one: a mount point, a file, a unit, an address.
    pub subject: String,
    /// What shows it.
    pub evidence: Vec<String>,
    /// The next command.
    pub next: String,
    /// What would show that it is not so.
    pub disproof: String,
}

/// Whether a filesystem that the node lives from has the room without which nothing may be started on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floor {
    /// Where it is mounted.
    pub point: std::path::PathBuf,
    /// It has.
    pub is_met: bool,
    /// What shows it.
    pub evidence: String,
}

/// The floors of the filesystems that the node lives from.
///
/// # Errors
/// They were not seen.
pub fn floors(policy: &Policy, observed: &Observed) -> Looked<Vec<Floor>> {
    disks::floors(Facts {
        policy,
        observed,
        // No floor depends on it.
        now: Timestamp::UNIX_EPOCH,
    })
}

/// What the rules fill.
#[derive(Debug, Default)]
struct Found {
    /// The words that lead a command to the root of the node; none on the node itself.
    root: Vec<String>,
    findings: Vec<Finding>,
    /// What lines of logs alone say, which stands behind all that was seen, but for symptoms.
    said: Vec<Finding>,
    notes: Vec<String>,
}

/// What the rules look at.
#[derive(Debug, Clone, Copy)]
struct Facts<'a> {
    policy: &'a Policy,
    observed: &'a Observed,
    now: Timestamp,
}

/// Says what is wrong.
pub fn decide(policy: &Policy, observed: &Observed, now: Timestamp) -> Diagnosis {
    let facts = Facts {
        policy,
        observed,
        now,
    };
    let mut found = Found {
        root: at_root(&observed.root),
        ..Found::default()
    };
    disks::judge(facts, &mut found);
    store::judge(facts, &mut found);
    certificates::judge(facts, &mut found);
    node::judge(facts, &mut found);
    endpoint::judge(facts, &mut found);
    logs::judge(facts, &mut found);
    let Found {
        root: _,
        mut findings,
        mut said,
        notes,
    } = found;
    // Stable: what was found first of one cause stays first.
    findings.sort_by_key(|finding| finding.cause);
    said.sort_by_key(|finding| finding.cause);
    let symptoms = findings.partition_point(|finding| finding.cause < Cause::TunnelRefused);
    findings.splice(symptoms..symptoms, said);
    let unseen: Vec<(Area, Unseen)> = observed
        .unseen()
        .into_iter()
        .map(|(area, why)| (area, why.clone()))
        .collect();
    let verdict = verdict(&findings, &unseen);
    Diagnosis {
        findings,
        notes,
        unseen,
        verdict,
    }
}

/// A command with `{at_root}` in it, about the node with this root.
pub(crate) fn about(root: &Path, command: &'static str) -> String {
    let words = at_root(root);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    fill(command, &[("at_root", words.as_slice())])
}

fn at_root(root: &Path) -> Vec<String> {
    if root == Path::new("/") {
        return Vec::new();
    }
    vec!["--root".to_owned(), root.display().to_string()]
}

fn verdict(findings: &[Finding], unseen: &[(Area, Unseen)]) -> Verdict {
    if !findings.is_empty() {
        return Verdict::Cause;
    }
    let failed = |(_, why): &(Area, Unseen)| matches!(why, Unseen::Failed(_));
    // Without an API server to ask, a machine that is no node says nothing about a cluster.
    let nobody_answers = [Area::Endpoint, Area::Manifests]
        .iter()
        .all(|area| unseen.iter().any(|(other, _)| other == area));
    if unseen.iter().any(failed) || nobody_answers {
        Verdict::Unclear
    } else {
        Verdict::Sound
    }
}

// === impl Diagnosis ===

impl Diagnosis {
    /// The cause: the first of the findings.
    pub fn cause(&self) -> Option<&Finding> {
        self.findings.first()
    }
}

// === impl Found ===

impl Found {
    /// Adds one. `values` fill the next command and the disproof.
    fn add(
        &mut self,
        cause: Cause,
        subject: impl Into<String>,
        evidence: Vec<String>,
        values: &[(&str, &[&str])],
    ) {
        self.add_with_next_of(cause, cause, subject, evidence, values);
    }

    /// Adds one whose next command is another than that of its row.
    fn add_with_next(
        &mut self,
        next: &'static str,
        cause: Cause,
        subject: impl Into<String>,
        evidence: Vec<String>,
        values: &[(&str, &[&str])],
    ) {
        let root: Vec<&str> = self.root.iter().map(String::as_str).collect();
        let values = [values, &[("at_root", root.as_slice())]].concat();
        self.findings.push(Finding {
            cause,
            subject: subject.into(),
            evidence,
            next: fill(next, &values),
            disproof: fill(cause.row().disproof, &values),
        });
    }

    /// Adds one whose own next command does not fit as it was found; that of another cause does.
    fn add_with_next_of(
        &mut self,
        other: Cause,
        cause: Cause,
        subject: impl Into<String>,
        evidence: Vec<String>,
        values: &[(&str, &[&str])],
    ) {
        self.add_with_next(other.row().next, cause, subject, evidence, values);
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }
}

// === impl Facts ===

impl Facts<'_> {
    /// Where a path of the node lies for commands of this machine.
    fn outside(&self, path: &Path) -> String {
        let below = path.strip_prefix("/").unwrap_or(path);
        self.observed.root.join(below).display().to_string()
    }

    /// The lines of a class, newest last.
    fn lines(
        &self,
        of: impl Fn(&crate::observed::LineClass) -> bool,
    ) -> impl Iterator<Item = &crate::observed::Line> {
        let lines = self.observed.lines.as_deref().unwrap_or_default();
        lines.iter().filter(move |line| of(&line.class))
    }

    /// How the last line of a class reads as evidence, with how many there are; none without any.
    fn last_line(&self, of: impl Fn(&crate::observed::LineClass) -> bool) -> Option<String> {
        let lines: Vec<_> = self.lines(of).collect();
        let last = lines.last()?;
        Some(said(last, lines.len()))
    }
}

/// A line as evidence.
fn said(line: &crate::observed::Line, count: usize) -> String {
    let at = line
        .at
        .map_or_else(String::new, |at| format!(" at {at:.0}"));
    let more = if count > 1 {
        format!(", the last of {count} such lines")
    } else {
        String::new()
    };
    format!("{}{at}{more}: {}", line.source, line.text)
}

/// Bytes as people read them: `12.0 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut shift = 10;
    let mut unit = 0;
    while bytes >> shift >= 1024 && unit + 1 < UNITS.len() {
        shift += 10;
        unit += 1;
    }
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}
