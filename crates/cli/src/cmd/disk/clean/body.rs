//! What came of a plan, for programs: everything around the plan itself, which is in [`mod@super::file`].
//!
//! Sizes are in bytes, allocated and not apparent.

use nagi_guard::{Done, End, Plan, Report, Space, Step, Tally};
use serde::Serialize;

use super::super::body::shown;
use super::file::{PathBody, PlanBody};
use super::text;

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    /// `planned`; or `success`, or `partial` when a step was not done to its end, less came back than was
    /// expected, or a place could not be looked at.
    status: &'static str,
    message: String,
    /// What the plan gives back, without steps that lack consent.
    expected_bytes: u64,
    steps: Vec<StepSummary>,
    disks: Vec<DiskBody>,
    skipped: Vec<SkippedBody>,
    owners_only: Vec<LeftBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audit_ring: Option<bool>,
    plan: PlanBody,
}

#[derive(Debug, Serialize)]
struct StepSummary {
    kind: &'static str,
    harm: &'static str,
    price: &'static str,
    directory: PathBody,
    consent: bool,
    files: usize,
    expected_bytes: u64,
    /// Of so many nobody knows what comes back: they count as nothing in what is expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    not_measured: Option<usize>,
    /// What may go too and is not needed, or is more than the cap.
    spared: TallyBody,
    stays: Vec<KeptBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeBody>,
}

#[derive(Debug, Serialize)]
struct OutcomeBody {
    end: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    removed_files: u64,
    /// What the removed files took, as the plan said.
    expected_bytes: u64,
    /// What its disk has more, or less, than before.
    measured_bytes: i64,
    failed_files: u64,
}

#[derive(Debug, Serialize)]
struct TallyBody {
    files: u64,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct KeptBody {
    why: &'static str,
    #[serde(flatten)]
    tally: TallyBody,
}

#[derive(Debug, Serialize)]
struct DiskBody {
    mounted_on: PathBody,
    device: String,
    #[serde(rename = "type")]
    fstype: String,
    before: SpaceBody,
    /// What has to go until the target is reached.
    needed_bytes: u64,
    needed_inodes: u64,
    expected_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<SpaceBody>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target_reached: Option<bool>,
}

#[derive(Debug, Serialize)]
struct SpaceBody {
    bytes: u64,
    used: u64,
    free: u64,
    available: u64,
    reserved: u64,
    used_percent: Option<u64>,
    inodes_used_percent: Option<u64>,
}

#[derive(Debug, Serialize)]
struct SkippedBody {
    kind: &'static str,
    directory: PathBody,
    why: String,
}

#[derive(Debug, Serialize)]
struct LeftBody {
    owner: &'static str,
    directory: PathBody,
    #[serde(flatten)]
    tally: TallyBody,
    how: &'static str,
}

// === impl Answer ===

impl Answer {
    pub(super) fn of(plan: &Plan, report: Option<&Report>) -> Self {
        let outcome = |at: usize| report.and_then(|report| report.done.get(at));
        let is_done = |done: &Done| {
            matches!(
                done.end,
                End::Done | End::Target | End::Cap | End::NoConsent
            ) && done.failures.1 == 0
        };
        let status = match report {
            None => "planned",
            Some(report)
                if report.done.iter().all(is_done)
                    && !report.skipped.iter().any(|place| place.why.is_failure()) =>
            {
                "success"
            }
            Some(_) => "partial",
        };
        let steps = plan.steps.iter().enumerate();
        Self {
            status,
            message: text::message(plan, report),
            expected_bytes: plan.expected(),
            steps: steps
                .map(|(at, step)| StepSummary::of(step, outcome(at)))
                .collect(),
            disks: disks(plan, report),
            skipped: text::skipped_of(plan, report)
                .iter()
                .map(|skipped| SkippedBody {
                    kind: skipped.reclaimer.name(),
                    directory: PathBody::of(&skipped.directory),
                    why: text::why(&skipped.why),
                })
                .collect(),
            owners_only: plan
                .left
                .iter()
                .map(|left| LeftBody {
                    owner: left.owner.name(),
                    directory: PathBody::of(&left.directory),
                    tally: TallyBody::of(left.tally),
                    how: left.lever,
                })
                .collect(),
            audit_ring: report.map(|report| report.has_ring),
            plan: PlanBody::of(plan),
        }
    }
}

fn disks(plan: &Plan, report: Option<&Report>) -> Vec<DiskBody> {
    let of = |disk: &nagi_guard::Disk| {
        let after = report.and_then(|report| {
            report
                .after
                .iter()
                .find(|after| after.device == disk.device)
        });
        DiskBody {
            mounted_on: PathBody::of(&disk.point),
            device: disk.device.to_string(),
            fstype: disk.fstype.clone(),
            before: SpaceBody::of(&disk.space),
            needed_bytes: disk.needed.bytes,
            needed_inodes: disk.needed.inodes,
            expected_bytes: disk.expected,
            after: after.map(|after| SpaceBody::of(&after.space)),
            target_reached: after.map(|after| after.is_clean),
        }
    };
    text::disks_of(plan, report).iter().map(of).collect()
}

impl StepSummary {
    fn of(step: &Step, done: Option<&Done>) -> Self {
        let kept = step.kept.iter().map(|(why, tally)| KeptBody {
            why: text::kept(*why),
            tally: TallyBody::of(*tally),
        });
        Self {
            kind: step.reclaimer.name(),
            harm: step.reclaimer.harm().word(),
            price: step.reclaimer.price(),
            directory: PathBody::of(&step.directory),
            consent: step.has_consent,
            files: step.items.len(),
            expected_bytes: step.expected(),
            not_measured: not_measured(step),
            spared: TallyBody::of(step.spared),
            stays: kept.collect(),
            outcome: done.map(|done| OutcomeBody {
                end: text::end_word(&done.end),
                detail: match &done.end {
                    End::Changed(path) => Some(shown(path)),
                    End::Broken(error) | End::NoRecord(error) => Some(error.to_string()),
                    End::Done
                    | End::Target
                    | End::Cap
                    | End::Short
                    | End::NoConsent
                    | End::Away
                    | End::OwnerBusy
                    | End::TimedOut => None,
                },
                removed_files: done.removed,
                expected_bytes: done.expected,
                measured_bytes: done.measured,
                failed_files: done.failures.1,
            }),
        }
    }
}

/// None where everything is.
fn not_measured(step: &Step) -> Option<usize> {
    let owned = step.items.iter().filter_map(|item| item.owned.as_ref());
    Some(owned.filter(|owned| !owned.is_measured).count()).filter(|count| *count > 0)
}

impl SpaceBody {
    fn of(space: &Space) -> Self {
        Self {
            bytes: space.bytes,
            used: space.used(),
            free: space.bytes_free,
            available: space.bytes_available,
            reserved: space.reserved(),
            used_percent: space.used_percent(),
            inodes_used_percent: space.inodes_used_percent(),
        }
    }
}

impl TallyBody {
    fn of(tally: Tally) -> Self {
        Self {
            files: tally.inodes,
            bytes: tally.bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use nagi_guard::{Instant, Policy, Reclaimer, Skipped, Why};

    use super::*;

    // P1-5 of the review: nothing could be looked at is no success; that there is nothing to look at is one.
    #[test]
    fn a_place_that_could_not_be_looked_at_makes_an_answer_partial() {
        let plan = Plan {
            at: Instant::default(),
            policy: Policy::at(Path::new("/")),
            steps: Vec::new(),
            disks: Vec::new(),
            skipped: Vec::new(),
            left: Vec::new(),
        };
        for (why, status) in [
            (Why::ReadOnly, "partial"),
            (Why::Type("nfs".to_owned()), "success"),
        ] {
            let report = Report {
                done: Vec::new(),
                disks: Vec::new(),
                after: Vec::new(),
                skipped: vec![Skipped {
                    reclaimer: Reclaimer::Apt,
                    directory: PathBuf::from("/var/cache/apt"),
                    why,
                }],
                has_ring: true,
            };
            let answer = Answer::of(&plan, Some(&report));
            assert_eq!(answer.status, status);
            assert_eq!(answer.skipped.len(), 1, "as with a plan of a file");
        }
    }

    // Images and containers: their names, their harm, why others stay, and of how many nobody knows what comes back.
    #[test]
    fn what_a_runtime_has_is_told_with_its_names_and_what_nobody_knows() {
        let item = |name: &str, is_measured| nagi_guard::Item {
            path: b"sha256:0123".to_vec(),
            device: nagi_guard::Device { major: 8, minor: 1 },
            inode: 0,
            size: 1,
            blocks: nagi_guard::Blocks(if is_measured { 8 } else { 0 }),
            written: Instant::default(),
            links: 1,
            owned: Some(nagi_guard::Owned {
                names: vec![name.to_owned()],
                inodes: 1,
                is_measured,
            }),
        };
        let step = |reclaimer, items| Step {
            reclaimer,
            directory: PathBuf::from("/var/lib/containerd"),
            disk: nagi_guard::Device { major: 8, minor: 1 },
            has_consent: true,
            items,
            spared: Tally::default(),
            kept: vec![(nagi_guard::Kept::Pinned, Tally::default())],
        };
        let plan = Plan {
            at: Instant::default(),
            policy: Policy::at(Path::new("/")),
            steps: vec![
                step(Reclaimer::Images, vec![item("r.example/a:1", true)]),
                step(
                    Reclaimer::Containers,
                    vec![item("default/a/b", true), item("default/a/c", false)],
                ),
            ],
            disks: Vec::new(),
            skipped: Vec::new(),
            left: Vec::new(),
        };
        let answer = serde_json::to_value(Answer::of(&plan, None)).unwrap();
        let steps = &answer["steps"];
        assert_eq!(steps[0]["kind"], "images");
        assert_eq!(steps[0]["harm"], "regenerable");
        assert_eq!(steps[0]["expected_bytes"], 4096);
        assert_eq!(steps[0]["stays"][0]["why"], "pinned");
        assert_eq!(steps[0].get("not_measured"), None);
        assert_eq!(
            (&steps[1]["harm"], &steps[1]["not_measured"]),
            (&"lossy".into(), &1.into())
        );
        let names = &answer["plan"]["steps"][0]["items"][0]["owned"]["names"];
        assert_eq!(names[0], "r.example/a:1");
        let message = answer["message"].as_str().unwrap();
        assert!(message.starts_with("3 items to remove"), "{message}");
    }
}
