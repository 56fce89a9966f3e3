//! Links and mounts that somebody lays in the way while a plan is carried out, and plans that are no longer true.

use std::fs;
use std::path::Path;

use nagi_guard::{ApplyError, AuditError, End, Event, Plan, Reclaimer};
use nagi_testkit::{Bar, measured};

use super::node::{Node, apply, paths, plan, try_apply};
use crate::machine::{Type, inside, run};

/// How somebody leads a cleaner from the directory or the file that it was to clean (the first path) to a treasure (the second).
type Attack = fn(&Path, &Path);

/// Those on a directory, by names that tell what goes wrong.
const ON_DIRECTORIES: [(&str, Attack); 4] = [
    ("a link to there", |from, to| {
        fs::rename(from, from.with_extension("moved")).unwrap();
        std::os::unix::fs::symlink(to, from).unwrap();
    }),
    ("a link by way of the directory above", |from, to| {
        fs::rename(from, from.with_extension("moved")).unwrap();
        let up = "../".repeat(from.components().count());
        let to = Path::new(&up).join(to.strip_prefix("/").unwrap());
        std::os::unix::fs::symlink(to, from).unwrap();
    }),
    ("a mount", mount_over),
    ("another directory in its place", |from, to| {
        fs::rename(from, from.with_extension("moved")).unwrap();
        fs::rename(to, from).unwrap();
        std::os::unix::fs::symlink(from, to).unwrap();
    }),
];
/// Those on a file.
const ON_FILES: [(&str, Attack); 4] = [
    ("a link", |from, to| {
        fs::remove_file(from).unwrap();
        std::os::unix::fs::symlink(to, from).unwrap();
    }),
    ("a second name", |from, to| {
        fs::remove_file(from).unwrap();
        fs::hard_link(to, from).unwrap();
    }),
    ("a mount", mount_over),
    ("the treasure itself", |from, to| {
        fs::rename(to, from).unwrap();
        std::os::unix::fs::symlink(from, to).unwrap();
    }),
];

fn mount_over(from: &Path, to: &Path) {
    run(
        "mount",
        ["--bind".as_ref(), to.as_os_str(), from.as_os_str()],
    );
}

/// A node on a disk of its own, with two packages that may go and a treasure beside it.
fn with_node(test: impl Fn(&Node, &Path)) {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let node = Node::at(&disk.point.join("node"));
        for name in ["a_1_all.deb", "b_1_all.deb"] {
            node.file(format!("var/cache/apt/archives/{name}"), 5000);
        }
        let treasure = disk.point.join("treasure");
        fs::create_dir(&treasure).unwrap();
        for name in ["a_1_all.deb", "b_1_all.deb"] {
            crate::machine::fill(&treasure.join(name), 5000);
        }
        test(&node, &treasure);
        assert_eq!(
            fs::read_dir(&treasure).unwrap().count(),
            2,
            "the treasure is there"
        );
    });
}

fn end_of(plan: &Plan, tell: &mut dyn FnMut(&Event<'_>)) -> (End, u64) {
    let report = try_apply(plan, tell).unwrap();
    let done = report
        .done
        .into_iter()
        .find(|done| done.reclaimer == Reclaimer::Apt)
        .unwrap();
    (done.end, done.removed)
}

/// Nothing went, and the first file that was to go is named.
fn first_is_refused() -> (End, u64) {
    let first = "/var/cache/apt/archives/a_1_all.deb";
    (End::Changed(first.into()), 0)
}

fn archives(node: &Node) -> std::path::PathBuf {
    node.root.join("var/cache/apt/archives")
}

/// Does it at the first intent.
fn once(mut act: impl FnMut()) -> impl FnMut(&Event<'_>) {
    let mut is_done = false;
    move |event| {
        if let Event::Intent(_) = event
            && !is_done
        {
            is_done = true;
            act();
        }
    }
}

// The safety rule on links: a directory that becomes one between the plan and the removal leads nowhere.
#[test]
fn a_directory_that_becomes_a_link_while_a_plan_is_carried_out_is_not_followed() {
    with_node(|node, treasure| {
        let archives = archives(node);
        let swap = || {
            fs::rename(&archives, archives.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink(treasure, &archives).unwrap();
        };
        let (end, removed) = end_of(&node.plan(), &mut once(swap));
        assert_eq!((end, removed), first_is_refused());
        assert_eq!(
            fs::read_dir(archives.with_extension("moved"))
                .unwrap()
                .count(),
            2
        );
    });
}

// The same where the link leads to the very files of the plan: it is refused for being a link.
#[test]
fn a_link_to_the_same_files_is_not_followed() {
    with_node(|node, _| {
        let archives = archives(node);
        let swap = || {
            fs::rename(&archives, archives.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink("archives.moved", &archives).unwrap();
        };
        let (end, removed) = end_of(&node.plan(), &mut once(swap));
        assert_eq!((end, removed), first_is_refused());
        let apt = node.plan();
        assert!(
            apt.steps.iter().all(|step| step.items.is_empty()),
            "nor is it planned"
        );
        assert_eq!(
            fs::read_dir(archives.with_extension("moved"))
                .unwrap()
                .count(),
            2
        );
    });
}

// And a mount that leads to the very files of the plan.
#[test]
fn a_mount_of_the_same_files_is_not_entered() {
    with_node(|node, _| {
        let archives = archives(node);
        let moved = archives.with_extension("moved");
        let swap = || {
            fs::rename(&archives, &moved).unwrap();
            fs::create_dir(&archives).unwrap();
            mount_over(&archives, &moved);
        };
        let (end, removed) = end_of(&node.plan(), &mut once(swap));
        assert_eq!((end, removed), first_is_refused());
        let apt = node.plan();
        assert!(
            apt.steps.iter().all(|step| step.items.is_empty()),
            "nor is it planned"
        );
        run("umount", [archives.as_os_str()]);
        assert_eq!(fs::read_dir(&moved).unwrap().count(), 2);
    });
}

// And on mounts.
#[test]
fn a_directory_that_is_mounted_over_while_a_plan_is_carried_out_is_not_entered() {
    with_node(|node, treasure| {
        let archives = archives(node);
        let swap = || mount_over(&archives, treasure);
        let (end, removed) = end_of(&node.plan(), &mut once(swap));
        assert_eq!((end, removed), first_is_refused());
        run("umount", [archives.as_os_str()]);
        assert_eq!(fs::read_dir(&archives).unwrap().count(), 2);
    });
}

// A file that is mounted over is somebody's.
#[test]
fn a_file_that_is_mounted_over_stays() {
    with_node(|node, treasure| {
        let file = archives(node).join("a_1_all.deb");
        let from = treasure.join("a_1_all.deb");
        let swap = || mount_over(&file, &from);
        let (end, removed) = end_of(&node.plan(), &mut once(swap));
        assert_eq!((end, removed), first_is_refused());
        let mounted_before = node.plan();
        let apt = mounted_before
            .steps
            .iter()
            .find(|step| step.reclaimer == Reclaimer::Apt)
            .unwrap();
        assert_eq!(apt.items.len(), 1, "it is not even planned");
        run("umount", [file.as_os_str()]);
        assert!(file.exists());
    });
}

// A file under the same name that is another one, at the last moment.
#[test]
fn a_file_that_is_replaced_at_the_last_moment_stays() {
    with_node(|node, treasure| {
        let file = archives(node).join("b_1_all.deb");
        let other = treasure.with_file_name("other");
        fs::copy(treasure.join("b_1_all.deb"), &other).unwrap();
        let mut seen = 0;
        let (end, removed) = end_of(&node.plan(), &mut |event| {
            if let Event::Intent(_) = event {
                seen += 1;
                if seen == 2 {
                    fs::rename(&other, &file).unwrap();
                }
            }
        });
        assert_eq!(
            (end, removed),
            (
                End::Changed("/var/cache/apt/archives/b_1_all.deb".into()),
                1
            )
        );
        assert!(file.exists());
    });
}

// D-13: whatever changed between plan and apply, the step is refused as a whole.
#[test]
fn a_changed_world_refuses_the_step() {
    let changes: [fn(&Path); 5] = [
        |archives| fs::remove_file(archives.join("b_1_all.deb")).unwrap(),
        |archives| crate::machine::fill(&archives.join("b_1_all.deb"), 5001),
        |archives| fs::hard_link(archives.join("b_1_all.deb"), archives.join("c")).unwrap(),
        |archives| {
            let far = std::time::SystemTime::now() - std::time::Duration::from_hours(5);
            super::node::touch(&archives.join("b_1_all.deb"), far);
        },
        |archives| {
            fs::rename(archives, archives.with_extension("moved")).unwrap();
            std::os::unix::fs::symlink("moved", archives).unwrap();
        },
    ];
    with_node(move |node, _| {
        for (number, change) in changes.iter().enumerate() {
            let node = Node::at(&node.root.join(number.to_string()));
            for name in ["a_1_all.deb", "b_1_all.deb"] {
                node.file(format!("var/cache/apt/archives/{name}"), 5000);
            }
            let plan = node.plan();
            change(&archives(&node));
            let traces = node.traces();
            let (end, removed) = end_of(&plan, &mut |event| {
                assert!(
                    matches!(event, Event::Ended(_)),
                    "nothing is begun: {event:?}"
                );
            });
            assert!(matches!(end, End::Changed(_)), "{number}: {end:?}");
            assert_eq!(removed, 0);
            assert_eq!(node.traces(), traces, "{number}");
        }
    });
}

// D-13: a plan that was edited names only what the rules allow, or nothing of it is done.
#[test]
fn an_edited_plan_removes_nothing_that_the_rules_do_not_allow() {
    with_node(|node, treasure| {
        let with = |edit: &dyn Fn(&mut Plan)| {
            let mut plan = node.plan();
            edit(&mut plan);
            let before = node.traces();
            let report = try_apply(&plan, &mut |_| {});
            assert_eq!(node.traces(), before);
            report
        };
        node.file("var/cache/apt/archives/mine.deb", 5000);
        let changed = |report: Result<nagi_guard::Report, ApplyError>| {
            let done = report.unwrap().done;
            assert!(done.iter().all(|done| done.removed == 0), "{done:?}");
            assert!(
                matches!(done[0].end, End::Changed(_) | End::Away),
                "{done:?}"
            );
        };
        changed(with(&|plan| {
            plan.steps[0].items[1].path = b"archives/mine.deb".to_vec();
        }));
        let outside = format!(
            "../../../../{}/a_1_all.deb",
            treasure.file_name().unwrap().display()
        );
        changed(with(&|plan| {
            plan.steps[0].items[1].path = outside.clone().into_bytes();
        }));
        changed(with(&|plan| plan.steps[0].directory = treasure.to_owned()));
        changed(with(&|plan| plan.steps[0].items[1].inode += 1));
        let future = with(&|plan| plan.at.seconds += 3600);
        assert!(matches!(future, Err(ApplyError::FromTheFuture)));
        let old = with(&|plan| plan.at.seconds -= 25 * 3600);
        assert!(matches!(old, Err(ApplyError::TooOld)));
        // Consent is the policy's, whatever stands at a step.
        node.plant(5000);
        let mut policy = node.policy();
        policy.consent = nagi_guard::Consent::Regenerable;
        let mut edited = plan(&policy);
        for step in &mut edited.steps {
            step.has_consent = true;
        }
        for done in apply(&edited).done {
            let is_apt = done.reclaimer == Reclaimer::Apt;
            assert_eq!(done.end == End::NoConsent, !is_apt, "{done:?}");
            assert!(is_apt || done.removed == 0);
        }
    });
}

// D-13: two cleaners at once.
#[test]
fn a_second_cleaner_is_refused_while_the_first_is_at_work() {
    with_node(|node, _| {
        let plan = node.plan();
        let mut second = None;
        let mut other = once(|| second = Some(try_apply(&plan, &mut |_| {})));
        let report = try_apply(&plan, &mut other).unwrap();
        drop(other);
        assert!(matches!(
            second,
            Some(Err(ApplyError::Audit(AuditError::Busy)))
        ));
        assert_eq!(report.done[0].removed, 2, "the first goes on");
    });
}

// A base that is a link is said to be one.
#[test]
fn a_place_that_is_a_link_is_left_alone_and_named() {
    with_node(|node, treasure| {
        let apt = node.root.join("var/cache/apt");
        fs::rename(&apt, node.root.join("moved")).unwrap();
        fs::create_dir(treasure.with_file_name("archives")).unwrap();
        std::os::unix::fs::symlink(treasure.parent().unwrap(), &apt).unwrap();
        let plan = node.plan();
        assert!(
            plan.steps
                .iter()
                .all(|step| step.reclaimer != Reclaimer::Apt)
        );
        assert_eq!(plan.skipped[0].why, nagi_guard::Why::Link);
    });
}

// 5-17 of the review: what a link makes the root of an owner is the owner's, though our own rules would let it go.
#[test]
fn nothing_goes_from_where_the_root_of_an_owner_leads() {
    with_node(|node, _| {
        node.plant(5000);
        let link = |to: &str, owner: &str| {
            let root = node.root.join("var/lib").join(owner);
            drop(fs::remove_dir_all(&root));
            std::os::unix::fs::symlink(to, root).unwrap();
        };
        let of = |plan: &nagi_guard::Plan, reclaimer: Reclaimer| {
            let mut steps = plan.steps.iter();
            steps.any(|step| step.reclaimer == reclaimer && !step.items.is_empty())
        };
        let before = node.plan();
        assert!(of(&before, Reclaimer::PodLogs) && of(&before, Reclaimer::Coredumps));
        link("../log/pods/default_app_0123", "containerd");
        link("/var/crash", "docker");
        link("systemd/coredump", "etcd");
        let after = node.plan();
        assert!(!of(&after, Reclaimer::PodLogs) && !of(&after, Reclaimer::Coredumps));
        assert!(of(&after, Reclaimer::Apt));
        let why: Vec<_> = after.skipped.iter().map(|one| &one.why).collect();
        for owner in [nagi_guard::Owner::Docker, nagi_guard::Owner::Etcd] {
            assert!(why.contains(&&nagi_guard::Why::BelongsTo(owner)), "{why:?}");
        }
        // Nor by a plan that was made before.
        let traces = node.traces();
        let report = try_apply(&before, &mut |_| {}).unwrap();
        let kinds = [Reclaimer::PodLogs, Reclaimer::Coredumps];
        let done = report
            .done
            .iter()
            .filter(|done| kinds.contains(&done.reclaimer));
        assert_eq!(done.map(|done| done.removed).sum::<u64>(), 0, "{report:#?}");
        let left = node.traces();
        let gone = traces.keys().filter(|path| !left.contains_key(*path));
        let places = ["var/log/pods", "var/crash", "var/lib/systemd/coredump"];
        let mut gone = gone.filter(|path| {
            places
                .iter()
                .any(|place| path.starts_with(node.root.join(place)))
        });
        assert_eq!(gone.next(), None);
    });
}

// B20, the safety section: on each filesystem, for each kind, at the last moment: every directory on the way, and every file,
// becomes a way to files of the same names elsewhere. None of those goes.
#[test]
fn nothing_that_is_laid_in_the_way_leads_out() {
    inside("", || {
        let (mut tried, mut escapes) = (0, Vec::new());
        for kind in Type::ALL {
            let disk = kind.mounted(if kind == Type::Xfs { 320 } else { 200 }, &[]);
            for reclaimer in [
                Reclaimer::Apt,
                Reclaimer::PodLogs,
                Reclaimer::Journal,
                Reclaimer::Coredumps,
            ] {
                // The file, its directory, and the two above that.
                for above in 0..4 {
                    let attacks = if above == 0 { ON_FILES } else { ON_DIRECTORIES };
                    for (name, attack) in attacks {
                        let place = disk.point.join(tried.to_string());
                        tried += 1;
                        if !withstands(&place, reclaimer, above, attack) {
                            escapes.push(format!("{kind}, {reclaimer:?}, {above} up: {name}"));
                        }
                    }
                }
            }
        }
        let what = format!("of {tried} tries to lead a cleaner elsewhere");
        let count = u32::try_from(escapes.len()).unwrap();
        measured(
            "B20",
            &what,
            (f64::from(count), "escapes"),
            Bar::AtMost(0.0),
        );
        assert!(tried >= 40);
        assert_eq!(escapes, Vec::<String>::new());
    });
}

/// Whether a treasure is left alone, of files that are named as those of a plan, so many directories above its first file.
fn withstands(place: &Path, reclaimer: Reclaimer, above: usize, attack: Attack) -> bool {
    let node = Node::at(&place.join("node"));
    node.plant(5000);
    let mut policy = node.policy();
    policy.only = vec![reclaimer];
    let plan = plan(&policy);
    let first = paths(&plan).into_iter().next().unwrap();
    let from = first.ancestors().nth(above).unwrap();
    let to = place.join("treasure");
    run("cp", ["-a".as_ref(), from.as_os_str(), to.as_os_str()]);
    let treasure = |path: &Path| {
        let found = run(
            "find",
            [
                path.as_os_str(),
                "-type".as_ref(),
                "f".as_ref(),
                "-printf".as_ref(),
                "%i %s\n".as_ref(),
            ],
        );
        let mut found: Vec<String> = found.lines().map(str::to_owned).collect();
        found.sort();
        found
    };
    let before = treasure(&to);
    assert!(!before.is_empty());
    let mut is_laid = false;
    let mut lay = once(|| {
        attack(from, &to);
        is_laid = true;
    });
    // What was planned may still go, where it went: the directory that was opened is moved and not lost.
    try_apply(&plan, &mut lay).unwrap();
    drop(lay);
    assert!(is_laid, "nothing was begun");
    // Whoever opens a directory by its name finds it there, wherever it was moved.
    treasure(&fs::canonicalize(&to).unwrap()) == before
}
