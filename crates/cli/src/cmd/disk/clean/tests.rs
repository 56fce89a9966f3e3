//! What is read from the command line, and what is said to do next.

use super::*;

#[test]
fn sizes_are_read_with_their_unit() {
    let rows = [
        ("1", Some(1)),
        ("500M", Some(500 << 20)),
        ("2GiB", Some(2 << 30)),
        ("4K", Some(4096)),
        ("1T", Some(1 << 40)),
        ("0", None),
        ("", None),
        ("M", None),
        ("-1", None),
        ("1.5G", None),
        ("99999999999T", None),
    ];
    for (text, bytes) in rows {
        assert_eq!(parse_bytes(text).ok(), bytes, "{text}");
    }
    assert_eq!(parse_age("0"), Ok(Duration::ZERO));
    assert!(parse_kind("etcd").is_err() && parse_absolute("a").is_err());
}

fn at_work() -> nagi_guard::Skipped {
    nagi_guard::Skipped {
        reclaimer: Reclaimer::Images,
        directory: PathBuf::from("/run/containerd/containerd.sock"),
        why: nagi_guard::Why::RuntimeBusy(nagi_guard::Motion::Pod),
    }
}

fn empty(skipped: Vec<nagi_guard::Skipped>) -> Plan {
    Plan {
        at: nagi_guard::Instant::default(),
        policy: Policy::at(Path::new("/")),
        steps: Vec::new(),
        disks: Vec::new(),
        skipped,
        left: Vec::new(),
    }
}

fn hints(result: Result<(), Failure>) -> String {
    result.unwrap_err().hints.join("; ")
}

// 5-18 of the review: a runtime that is at work settles by itself, and then its images go.
#[test]
fn where_the_runtime_is_at_work_the_next_step_is_to_wait() {
    let report = |skipped, end: Option<End>| Report {
        done: end
            .into_iter()
            .map(|end| Done {
                reclaimer: Reclaimer::Images,
                directory: PathBuf::from("/var/lib/containerd"),
                end,
                removed: 1,
                expected: 1,
                measured: 1,
                failures: (Vec::new(), 0),
            })
            .collect(),
        disks: Vec::new(),
        after: vec![nagi_guard::After {
            device: nagi_guard::Device { major: 8, minor: 1 },
            space: nagi_guard::Space {
                bytes: 1,
                bytes_free: 0,
                bytes_available: 0,
                inodes: 0,
                inodes_free: 0,
            },
            is_clean: false,
        }],
        skipped,
        has_ring: true,
    };
    let again = "again in 15 s";
    let (busy, calm) = (empty(vec![at_work()]), empty(Vec::new()));
    assert!(hints(is_enough(&busy, &report(vec![at_work()], None))).contains(again));
    // A plan of a file, or of a moment before.
    assert!(hints(is_enough(&calm, &report(vec![at_work()], None))).contains(again));
    assert!(!hints(is_enough(&calm, &report(Vec::new(), None))).contains(again));
    let owner = report(Vec::new(), Some(End::OwnerBusy));
    assert!(hints(is_whole(&owner)).contains(again));
    let changed = report(Vec::new(), Some(End::Changed(PathBuf::from("a"))));
    assert!(!hints(is_whole(&changed)).contains(again));
}

// 5-18 of the review: what was left alone only when the plan was carried out is said beside what the plan left alone.
#[test]
fn what_was_left_alone_later_is_told_too() {
    let away = nagi_guard::Skipped {
        why: nagi_guard::Why::NoPods,
        ..at_work()
    };
    let plan = empty(vec![at_work()]);
    let report = Report {
        done: Vec::new(),
        disks: Vec::new(),
        after: Vec::new(),
        skipped: vec![at_work(), away.clone()],
        has_ring: true,
    };
    let told = text::skipped_of(&plan, Some(&report));
    let told: Vec<nagi_guard::Skipped> = told.into_iter().cloned().collect();
    assert_eq!(told, [at_work(), away]);
}

// 5-28 of the review: the plan is another one because a pod is being started, and not because something came or went.
#[test]
fn a_digest_that_differs_for_a_runtime_at_work_says_so() {
    let digest = "0".repeat(64);
    let busy = check_digest(&digest, &empty(vec![at_work()])).unwrap_err();
    assert!(
        busy.message.contains("the container runtime is at work"),
        "{busy:?}"
    );
    assert!(busy.hints[0].contains("again in 15 s"));
    let calm = check_digest(&digest, &empty(Vec::new())).unwrap_err();
    assert!(calm.message.contains("files came"), "{calm:?}");
    assert!(!calm.hints[0].contains("again in 15 s"));
}

// What a plan file holds cannot be given beside it.
#[test]
fn every_rule_conflicts_with_a_plan_file() {
    use clap::{Args as _, Command};
    let of = |command: Command| -> Vec<String> {
        command
            .get_arguments()
            .map(|arg| arg.get_id().to_string())
            .collect()
    };
    let mut rules = of(RuleArgs::augment_args(Command::new("rules")));
    rules.sort_unstable();
    let mut named = RULES;
    named.sort_unstable();
    assert_eq!(rules, named);
}

// B-035: who asks for images and gets none, because the runtime is at work, is told to come again.
#[test]
fn images_that_were_asked_for_and_not_looked_at_are_no_success() {
    let mut plan = empty(vec![at_work()]);
    let report = Report {
        done: Vec::new(),
        disks: Vec::new(),
        after: Vec::new(),
        skipped: Vec::new(),
        has_ring: true,
    };
    plan.policy.target_percent = 0;
    assert!(is_looked_at(&plan, &report).is_ok(), "nobody named them");
    plan.policy.only = vec![Reclaimer::Apt];
    assert!(is_looked_at(&plan, &report).is_ok());
    plan.policy.only.push(Reclaimer::Images);
    let failure = is_looked_at(&plan, &report).unwrap_err();
    assert_eq!(failure.exit, Exit::Conflict);
    assert_eq!(failure.hints, [AGAIN]);
    // How full the disks are tells where there is a target.
    plan.policy.target_percent = 80;
    assert!(is_looked_at(&plan, &report).is_ok());
}
