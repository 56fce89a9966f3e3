//! Images and dead containers of a real containerd: what nothing uses goes, by the runtime itself, and nothing else does.

use std::time::Duration;

use nagi_guard::{Consent, Done, End, Kept, Motion, Plan, Policy, Reclaimer, Why};
use nagi_testkit::{Bar, measured};

use super::containerd::{Containerd, may_run};
use super::node::{apply, plan, rounds};
use super::registry::Layer;
use crate::machine::inside;

/// In these tests everything settles in this time.
const QUIET: Duration = Duration::from_millis(300);
const MIB: usize = 1 << 20;

pub(super) fn policy(containerd: &Containerd) -> Policy {
    Policy {
        only: vec![Reclaimer::Images],
        target_percent: 0,
        grace: Duration::ZERO,
        quiet: QUIET,
        ..Policy::at(&containerd.root)
    }
}

pub(super) fn names(plan: &Plan) -> Vec<&str> {
    let items = plan.steps.iter().flat_map(|step| &step.items);
    items
        .map(|item| {
            let names = &item.owned.as_ref().unwrap().names;
            names[0].rsplit('/').next().unwrap()
        })
        .collect()
}

/// What was expected of these steps and what came back, which is the same but for a hundredth, or a megabyte that others may write
/// meanwhile.
#[expect(clippy::print_stdout, reason = "a test says what it has measured")]
pub(super) fn gave_back(what: &str, done: &[Done]) -> (u64, i64) {
    let (expected, measured) = done.iter().fold((0, 0), |(expected, measured), one| {
        (expected + one.expected, measured + one.measured)
    });
    println!("B3: {what}, {expected} expected, {measured} measured");
    let off = measured.abs_diff(i64::try_from(expected).unwrap());
    assert!(off <= (expected / 100).max(1 << 20), "{done:#?}");
    (expected, measured)
}

pub(super) fn settle() {
    std::thread::sleep(QUIET * 2);
}

// B9, B3, D-15, M7: three images share a layer. The one that nothing uses goes, and gives back what only it has.
#[test]
fn an_image_that_nothing_uses_goes_by_its_runtime_and_gives_back_what_was_said() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = Containerd::start(600, "pause:1", Duration::ZERO);
        let base = Layer::filled("base", 1, 20 * MIB);
        for (seed, name) in [(2, "used:1"), (3, "idle:1"), (4, "other:1")] {
            let own = Layer::filled("own", seed, 10 * MIB);
            containerd.registry.put(name, &[base.clone(), own]);
            containerd.pull(name).unwrap();
        }
        let sandbox = containerd.sandbox().unwrap();
        containerd
            .container(&sandbox, "used:1", ("app", 0))
            .unwrap();
        settle();
        let plan = plan(&policy(&containerd));
        assert_eq!(names(&plan), ["idle:1", "other:1"], "{plan:#?}");
        let step = &plan.steps[0];
        let kept: Vec<Kept> = step.kept.iter().map(|(why, _)| *why).collect();
        assert_eq!(kept, [Kept::Used], "the sandbox has its image too");
        let report = apply(&plan);
        let done = &report.done[0];
        assert_eq!((&done.end, done.removed), (&End::Done, 2), "{report:#?}");
        assert_eq!(containerd.names(), ["pause:1", "used:1"]);
        // Twice 10 MiB, packed and unpacked.
        let (expected, _) = gave_back("two images of a shared layer", &report.done);
        assert!(expected > 40 << 20);
    });
}

// 5-09, B3: layers of another snapshotter than the one of the CRI's settings, as of a class of runtimes that has its own. What
// they take is a part of what an image gives back.
#[test]
fn an_image_of_another_snapshotter_gives_back_what_was_said() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&[], Duration::ZERO);
        let layer = Layer::filled("own", 55, 10 * MIB);
        containerd.registry.put("native:1", &[layer]);
        let name = containerd.registry.name("native:1");
        let pull = ["images", "pull", "--plain-http", "--snapshotter", "native"];
        containerd.ctr(&[&pull[..], &[&name]].concat());
        settle();
        let plan = plan(&policy(&containerd));
        assert_eq!(names(&plan), ["native:1"], "{plan:#?}");
        let report = apply(&plan);
        let done = &report.done[0];
        assert_eq!((&done.end, done.removed), (&End::Done, 1), "{report:#?}");
        // Packed and unpacked.
        let (expected, _) = gave_back("an image of another snapshotter", &report.done);
        assert!(expected > 20 << 20);
    });
}

// D-15, M7: what a pull left that was given up goes by containerd itself, when nobody has written to it for a day.
#[test]
fn a_pull_that_was_given_up_goes_by_its_runtime_and_gives_back_what_was_said() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&[], Duration::ZERO);
        containerd.ingest("layer-old", 3 * MIB);
        containerd.ingest("layer-new", MIB);
        let day = Duration::from_hours(25);
        // containerd writes down when somebody wrote last once it has seen that nobody is there any more.
        settle();
        let now = std::time::SystemTime::now();
        containerd.age("layer-old", now - day);
        let mut policy = policy(&containerd);
        policy.only = vec![Reclaimer::Pulls];
        settle();
        let made = plan(&policy);
        assert_eq!(names(&made), ["layer-old"], "{made:#?}");
        assert_eq!(kept(&made), [Kept::Young]);
        let done = apply(&made).done.remove(0);
        assert_eq!((&done.end, done.removed), (&End::Done, 1), "{done:#?}");
        println!(
            "B3: a pull that was given up, {} expected, {} measured",
            done.expected, done.measured
        );
        let expected = i64::try_from(done.expected).unwrap();
        assert!(done.expected > 3 << 20 && done.measured.abs_diff(expected) <= 64 << 10);
        assert_eq!(containerd.ingests(), ["layer-new"]);
        // Somebody goes on with it after the plan.
        containerd.age("layer-new", now - day);
        let made = plan(&policy);
        assert_eq!(names(&made), ["layer-new"], "{made:#?}");
        containerd.age("layer-new", now);
        let done = apply(&made).done.remove(0);
        assert!(matches!(done.end, End::Changed(_)), "{done:#?}");
        assert_eq!(containerd.ingests(), ["layer-new"]);
    });
}

fn small(seed: u64) -> Vec<Layer> {
    vec![Layer::filled("own", seed, MIB / 4)]
}

/// A containerd with a pod, a used image and idle ones.
pub(super) fn with_idle(idle: &[&str], slow: Duration) -> Containerd {
    let containerd = Containerd::start(300, "pause:1", slow);
    for (seed, name) in (10..).zip(["used:1"].iter().chain(idle)) {
        containerd.registry.put(name, &small(seed));
        containerd.pull(name).unwrap();
    }
    let sandbox = containerd.sandbox().unwrap();
    containerd
        .container(&sandbox, "used:1", ("app", 0))
        .unwrap();
    settle();
    containerd
}

pub(super) fn kept(plan: &Plan) -> Vec<Kept> {
    let steps = plan.steps.iter().flat_map(|step| &step.kept);
    steps.map(|(why, _)| *why).collect()
}

pub(super) fn why(plan: &Plan) -> &Why {
    assert_eq!(plan.steps, [], "no step of a runtime that cannot be asked");
    assert_eq!(plan.skipped.len(), 1, "and it is said once");
    &plan.skipped[0].why
}

// D-15, B4: what a real containerd is told to keep, each by its own rule. 5-02 of the review: as newer ones mount an image for a
// pod, so does this one here, and only the snapshot tells.
#[test]
fn images_of_static_pods_of_lists_of_dead_containers_of_volumes_and_young_ones_stay() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&["idle:1", "named:1", "listed:1"], Duration::ZERO);
        let own = Layer::filled("own", 99, MIB / 4);
        let layers = [containerd.program.clone(), own];
        containerd.registry.put("dead:1", &layers);
        containerd.pull("dead:1").unwrap();
        let sandbox = containerd.sandbox().unwrap();
        let dead = containerd
            .container(&sandbox, "dead:1", ("dead", 0))
            .unwrap();
        containerd.start_container(&dead).unwrap();
        containerd.stop_container(&dead).unwrap();
        containerd.stop_sandbox(&sandbox.0).unwrap();
        let before = containerd.snapshots();
        containerd.registry.put("mounted:1", &small(98));
        containerd.pull("mounted:1").unwrap();
        let mut layers = containerd.snapshots();
        layers.retain(|layer| !before.contains(layer));
        assert_eq!(layers.len(), 1);
        containerd.ctr(&["snapshots", "prepare", "/image-volumes/box", &layers[0]]);
        let manifests = containerd.root.join("etc/kubernetes/manifests");
        std::fs::create_dir_all(&manifests).unwrap();
        let named = containerd.registry.name("named:1");
        let manifest =
            format!("kind: Pod\nspec:\n  containers:\n  - name: a\n    image: {named}\n");
        std::fs::write(manifests.join("a.yaml"), manifest).unwrap();
        settle();
        let mut policy = policy(&containerd);
        policy.keep_images = vec![containerd.registry.name("listed")];
        let first = plan(&policy);
        assert_eq!(names(&first), ["idle:1"], "{first:#?}");
        for why in [Kept::Used, Kept::Manifest, Kept::KeepList] {
            assert!(kept(&first).contains(&why), "{first:#?}");
        }
        // 5-06 of the review: an entry that names nothing is a slip of the hand, and what it meant would go.
        let slip = Policy {
            keep_images: vec![containerd.registry.name("listed"), "idel".to_owned()],
            ..policy.clone()
        };
        assert_eq!(why(&plan(&slip)), &Why::KeepImage("idel".to_owned()));
        policy.grace = Duration::from_hours(1);
        let young = plan(&policy);
        assert_eq!(names(&young), Vec::<&str>::new());
        assert!(kept(&young).contains(&Kept::Young));
        assert_eq!(apply(&first).done[0].removed, 1);
        let left = [
            "dead:1",
            "listed:1",
            "mounted:1",
            "named:1",
            "pause:1",
            "used:1",
        ];
        assert_eq!(containerd.names(), left);
        // A manifest that a full disk has cut off: nobody knows what it needs.
        std::fs::write(manifests.join("b.yaml"), "").unwrap();
        assert!(matches!(why(&plan(&policy)), Why::Manifest(_)));
        // And the settings of a kubelet, which say where its manifests are.
        std::fs::remove_file(manifests.join("b.yaml")).unwrap();
        let settings = containerd.root.join("var/lib/kubelet/config.yaml");
        std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
        std::fs::write(&settings, "staticPodPath: [").unwrap();
        assert!(matches!(why(&plan(&policy)), Why::Manifest(_)));
    });
}

// N-4, D-13: between plan and apply the image came into use, or a pod is being started: it stays, and the step ends there.
#[test]
fn an_image_that_came_into_use_after_the_plan_stays() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&["one:1", "two:1"], Duration::ZERO);
        let made = plan(&policy(&containerd));
        assert_eq!(names(&made), ["one:1", "two:1"]);
        let sandbox = containerd.sandbox().unwrap();
        // 5-07 of the review: it has no container yet, however long that takes.
        settle();
        let busy = apply(&made);
        // Looked at before anything is done: it is not even begun.
        assert_eq!(
            (&busy.done[0].end, busy.done[0].removed),
            (&End::OwnerBusy, 0)
        );
        assert!(matches!(busy.skipped[0].why, Why::RuntimeBusy(Motion::Pod)));
        containerd.container(&sandbox, "two:1", ("app", 0)).unwrap();
        settle();
        let report = apply(&made);
        let done = &report.done[0];
        assert!(matches!(done.end, End::Changed(_)), "{report:#?}");
        assert_eq!(done.removed, 0);
        assert_eq!(containerd.names(), ["one:1", "pause:1", "two:1", "used:1"]);
    });
}

// B4: of dead containers the newest of each name stays; the rest goes by the runtime, with what it wrote.
#[test]
fn dead_containers_go_but_for_the_newest_of_each_name() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&[], Duration::ZERO);
        let sandbox = containerd.sandbox().unwrap();
        for attempt in 0..3 {
            let id = containerd
                .container(&sandbox, "pause:1", ("app", attempt))
                .unwrap();
            containerd.start_container(&id).unwrap();
            containerd.stop_container(&id).unwrap();
        }
        settle();
        let mut policy = policy(&containerd);
        policy.only = vec![Reclaimer::Containers];
        policy.consent = Consent::Lossy;
        let alive = plan(&policy);
        assert_eq!(names(&alive), Vec::<&str>::new(), "its pod may still run");
        assert!(kept(&alive).contains(&Kept::PodAlive));
        containerd.stop_sandbox(&sandbox.0).unwrap();
        settle();
        policy.consent = Consent::Regenerable;
        let asked = plan(&policy);
        assert!(!asked.steps[0].has_consent && asked.steps[0].items.len() == 2);
        assert_eq!(apply(&asked).done[0].end, End::NoConsent);
        policy.consent = Consent::Lossy;
        let made = plan(&policy);
        let attempts: Vec<&str> = made.steps[0]
            .items
            .iter()
            .map(|item| item.owned.as_ref().unwrap().names[1].as_str())
            .collect();
        assert_eq!(attempts, ["attempt 0", "attempt 1"]);
        let report = apply(&made);
        assert_eq!(
            (&report.done[0].end, report.done[0].removed),
            (&End::Done, 2),
            "{report:#?}"
        );
        let left = containerd.containers().unwrap();
        let left: Vec<u32> = left.iter().map(|one| one.attempt).collect();
        assert_eq!(
            left.len(),
            2,
            "the one that runs, and the last that ended: {left:?}"
        );
        assert!(left.contains(&2));
    });
}

// Fail closed: a runtime that is down, hangs or lists no pod loses no image, and everything else goes on.
#[test]
fn without_an_answer_no_image_goes_and_everything_else_does() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&["idle:1"], Duration::ZERO);
        let package = containerd.root.join("var/cache/apt/archives/a_1_all.deb");
        std::fs::create_dir_all(package.parent().unwrap()).unwrap();
        std::fs::write(&package, [1; 9000]).unwrap();
        let mut policy = policy(&containerd);
        policy.only = vec![Reclaimer::Apt, Reclaimer::Images];
        containerd.stand_still();
        let began = std::time::Instant::now();
        let hanging = plan(&policy);
        assert!(began.elapsed() < Duration::from_secs(30));
        containerd.go_on();
        assert!(matches!(&hanging.skipped[0].why, Why::Runtime(why) if why.contains("no answer")));
        assert!(hanging.skipped[0].why.is_failure());
        assert_eq!(apply(&hanging).done[0].removed, 1);
        assert!(!package.exists());
        policy.only = vec![Reclaimer::Images];
        for sandbox in containerd.sandboxes().unwrap() {
            containerd.remove_sandbox(&sandbox.id).unwrap();
        }
        settle();
        assert_eq!(why(&plan(&policy)), &Why::NoPods);
        assert!(containerd.names().contains(&"idle:1".to_owned()));
        let root = containerd.root.join("elsewhere");
        for directory in ["run/containerd", "var/lib", "etc"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        policy.root = root.clone();
        assert_eq!(plan(&policy).skipped, [], "a node without a runtime");
        let socket = root.join("run/containerd/containerd.sock");
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(
            matches!(why(&plan(&policy)), Why::Runtime(_)),
            "nobody listens"
        );
    });
}

// 5-01 of the review: an image that was imported cannot be pulled again and needs consent, also where it has a name by digest,
// as a pulled one has. With a name that the CRI does not know it stays: removing it would take the other names, and give
// nothing back. What a pull that is under way has written holds all.
#[test]
fn imported_images_need_consent_and_a_pull_holds_everything() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&["idle:1"], Duration::ZERO);
        containerd.import("local:1", &small(77), Some("local"));
        containerd.import("odd:1", &small(79), None);
        settle();
        let mut policy = policy(&containerd);
        policy.only = vec![Reclaimer::Images, Reclaimer::LocalImages];
        let made = plan(&policy);
        assert_eq!(names(&made), ["idle:1", "local:1"], "{made:#?}");
        assert!(kept(&made).contains(&Kept::NotUnderstood), "{made:#?}");
        let consents: Vec<bool> = made.steps.iter().map(|step| step.has_consent).collect();
        assert_eq!(consents, [true, false]);
        containerd.registry.put("slow:1", &small(78));
        std::thread::scope(|scope| {
            let shut = containerd.registry.shut();
            let pull = scope.spawn(|| containerd.pull("slow:1"));
            shut.reached();
            // It writes nothing for longer than everything settles in, as while it unpacks.
            settle();
            let held = plan(&policy);
            let is_pull = matches!(why(&held), Why::RuntimeBusy(Motion::Pull));
            assert!(is_pull && !pull.is_finished(), "{held:#?}");
            drop(shut);
            pull.join().unwrap().unwrap();
        });
        settle();
        policy.consent = Consent::Lossy;
        policy.only = vec![Reclaimer::LocalImages];
        let report = apply(&plan(&policy));
        assert_eq!(report.done[0].removed, 1, "{report:#?}");
        let left = containerd.names();
        assert!(!left.contains(&"local:1".to_owned()) && left.contains(&"odd:1".to_owned()));
    });
}

// B5, M7: with neither a byte left for root the runtime still removes an image.
#[test]
fn at_zero_bytes_an_image_goes() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&["idle:1"], Duration::ZERO);
        let made = plan(&policy(&containerd));
        let ballast = containerd.root.join("tmp/ballast");
        fill_up(&ballast);
        let report = apply(&made);
        let done = &report.done[0];
        assert_eq!(done.removed, 1, "{report:#?} {}", containerd.log());
        assert!(done.measured > 0);
        std::fs::remove_file(ballast).unwrap();
    });
}

fn fill_up(path: &std::path::Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path).unwrap();
    for size in [MIB, 4096, 1] {
        let piece = vec![1; size];
        while file.write_all(&piece).is_ok() {}
    }
    drop(file.sync_all());
}

/// What the workers of a race saw.
#[derive(Debug, Default)]
struct Race {
    iterations: u32,
    failures: Vec<String>,
    removed: u64,
}

/// Pods are begun as kubelet begins them, four at a time, while somebody cleans: the sandbox first, then the image is looked
/// for and pulled where it is not, and then the container is made.
fn race(waves: u32, clean: impl Fn(&Containerd) -> u64 + Sync) -> Race {
    let containerd = with_idle(&[], Duration::from_millis(20));
    let all = ["app-0:1", "app-1:1", "app-2:1", "app-3:1", "app-4:1"];
    for (seed, name) in (20..).zip(all) {
        let base = Layer::filled("base", 9, MIB / 4);
        let own = Layer::filled("own", seed, MIB / 8);
        containerd.registry.put(name, &[base, own]);
    }
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let begin = |number: u32| -> Result<(), nagi_cri::CallError> {
        // Spread over a second, and never twice the same way.
        std::thread::sleep(Duration::from_millis(u64::from(number * 7919 % 1000)));
        let name = all[usize::try_from(number * 31 % 5).unwrap()];
        let sandbox = containerd.sandbox()?;
        if !containerd.has(name)? {
            containerd.pull(name)?;
        }
        std::thread::sleep(Duration::from_millis(u64::from(number * 17 % 50)));
        let made = containerd.container(&sandbox, name, ("app", 0));
        let made = made.and_then(|id| containerd.remove_container(&id));
        containerd.remove_sandbox(&sandbox.0)?;
        made
    };
    std::thread::scope(|scope| {
        let cleaner = scope.spawn(|| {
            let mut removed = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                removed += clean(&containerd);
            }
            removed
        });
        let mut race = Race::default();
        for wave in 0..waves {
            let ended: Vec<_> = std::thread::scope(|scope| {
                let workers = (0..4).map(|one| scope.spawn(move || begin(wave * 4 + one)));
                let workers: Vec<_> = workers.collect();
                workers.into_iter().map(|one| one.join().unwrap()).collect()
            });
            race.iterations += 4;
            let failed = ended.into_iter().filter_map(Result::err);
            race.failures.extend(failed.map(|error| error.to_string()));
            // Some waves begin while the one before is cleaned up after, some before, some later.
            std::thread::sleep(Duration::from_millis(u64::from(wave * 733 % 3000)));
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        race.removed = cleaner.join().unwrap();
        race
    })
}

fn tell(race: &Race, beside: &str, bar: Bar) {
    let what = format!(
        "of {} pods begun {beside} failed ({} images removed)",
        race.iterations, race.removed
    );
    let failed = u32::try_from(race.failures.len()).unwrap();
    measured("B9", &what, (f64::from(failed), "pods"), bar);
}

// B9: as many pods as the goal names are begun while this cleans without a pause: none of them fails, and images do go.
#[test]
fn pods_that_are_begun_while_images_are_cleaned_lose_nothing() {
    if !may_run() {
        return;
    }
    inside("", || {
        let seen = race(rounds(10, 250), |containerd| {
            let policy = Policy {
                quiet: Duration::from_secs(1),
                ..policy(containerd)
            };
            let report = apply(&plan(&policy));
            report.done.iter().map(|done| done.removed).sum()
        });
        tell(&seen, "while images are cleaned", Bar::AtMost(0.0));
        assert_eq!(seen.failures, Vec::<String>::new());
        assert!(seen.removed > 0, "nothing was cleaned: {seen:?}");
    });
}

// B9: the harness is strong enough: a cleaner that lists what no container uses and removes it does harm.
#[test]
fn the_same_pods_are_harmed_by_list_and_remove() {
    if !may_run() {
        return;
    }
    inside("", || {
        let seen = race(6, |containerd| {
            let images = containerd.images().unwrap();
            let used = containerd.containers().unwrap();
            let is_used =
                |image: &nagi_cri::Image| used.iter().any(|one| one.images.contains(&image.id));
            // Without that of sandboxes, which no container has, no pod begins: that would be another harm.
            let pause = containerd.registry.name("pause:1");
            let idle: Vec<_> = images
                .iter()
                .filter(|image| !is_used(image) && !image.tags.contains(&pause))
                .collect();
            let gone = idle
                .iter()
                .filter(|image| containerd.remove_image(&image.id).is_ok());
            u64::try_from(gone.count()).unwrap()
        });
        tell(&seen, "beside list and remove", Bar::AtLeast(1.0));
        assert!(
            !seen.failures.is_empty(),
            "the harness is too weak: {seen:?}"
        );
    });
}
