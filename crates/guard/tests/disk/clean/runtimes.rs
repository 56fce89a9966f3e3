//! Runtimes that are made by hand: in which order they are asked, and what of the ones that are no containerd of a kubelet.

use std::path::Path;

use nagi_guard::{Consent, End, Kept, Motion, Policy, Reclaimer, Why};

use super::fake::{Answers, Fake};
use super::images::{kept, names, why};
use super::node::{apply, plan};
use crate::machine::{Mounted, Type, inside};

/// Where a runtime is unless kubelet says otherwise.
const SOCKET: &str = "run/containerd/containerd.sock";

fn idle_at(root: &Path) -> Policy {
    std::fs::create_dir_all(root.join("etc")).unwrap();
    Policy {
        only: vec![Reclaimer::Images, Reclaimer::Containers],
        target_percent: 0,
        ..Policy::at(root)
    }
}

/// A disk with a runtime whose root is a link to a directory for data.
fn linked() -> (Mounted, Fake) {
    let disk = Type::Ext4.mounted(64, &[]);
    for directory in ["data/containerd", "data/other", "var/lib"] {
        std::fs::create_dir_all(disk.point.join(directory)).unwrap();
    }
    lead(&disk, "containerd");
    let fake = Fake::serve(&disk.point, SOCKET, Answers::All);
    (disk, fake)
}

/// The root of the runtime leads there.
fn lead(disk: &Mounted, to: &str) {
    let link = disk.point.join("var/lib/containerd");
    drop(std::fs::remove_file(&link));
    std::os::unix::fs::symlink(format!("../../data/{to}"), link).unwrap();
}

/// A node on a disk of its own, with such a runtime.
fn with_fake(answers: Answers, test: impl Fn(&Path, &Fake)) {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let fake = Fake::serve(&disk.point, SOCKET, answers);
        test(&disk.point, &fake);
    });
}

// 5-17 of the review: a root that is a link to another disk, as people make it when the first one is full.
#[test]
fn images_of_a_runtime_whose_root_is_a_link_go_by_the_runtime() {
    inside("", || {
        let (disk, fake) = linked();
        let blob = "data/containerd/io.containerd.content.v1.content/blobs/sha256/aa";
        std::fs::create_dir_all(disk.point.join(blob).parent().unwrap()).unwrap();
        std::fs::write(disk.point.join(blob), [1; 9000]).unwrap();
        let made = plan(&idle_at(&disk.point));
        assert_eq!(names(&made), ["idle:1"], "{made:#?}");
        assert_eq!(made.skipped, []);
        let real = Path::new("/data/containerd");
        assert_eq!(made.steps[0].directory, real);
        // What is its owner's alone is still known as that.
        assert!(made.left[0].directory.starts_with(real), "{made:#?}");
        let report = apply(&made);
        assert_eq!(report.done[0].removed, 1, "{report:#?}");
        assert!(
            fake.calls()
                .iter()
                .any(|call| call.ends_with("RemoveImage"))
        );
        assert!(disk.point.join(blob).exists(), "nothing is unlinked there");
    });
}

// 5-17 of the review: a link that leads elsewhere than when the plan was made.
#[test]
fn a_root_that_leads_elsewhere_since_the_plan_refuses_the_step() {
    inside("", || {
        let (disk, fake) = linked();
        let made = plan(&idle_at(&disk.point));
        assert_eq!(names(&made), ["idle:1"], "{made:#?}");
        lead(&disk, "other");
        let report = apply(&made);
        let done = &report.done[0];
        let was = End::Changed("/data/containerd".into());
        assert_eq!((&done.end, done.removed), (&was, 0), "{report:#?}");
        assert!(
            !fake
                .calls()
                .iter()
                .any(|call| call.ends_with("RemoveImage"))
        );
    });
}

// 5-08 of the review: between what is listed as used and the removal nothing else is asked, however much there is to ask.
#[test]
fn what_is_used_is_asked_last_before_a_removal() {
    with_fake(Answers::All, |root, fake| {
        let made = plan(&idle_at(root));
        assert_eq!(names(&made), ["idle:1"], "{made:#?}");
        drop(fake.calls());
        let report = apply(&made);
        assert_eq!(report.done[0].removed, 1, "{report:#?}");
        let calls = fake.calls();
        let calls: Vec<&str> = calls
            .iter()
            .filter_map(|call| Some(call.rsplit_once('.')?.1))
            .collect();
        let removal = calls
            .iter()
            .position(|call| *call == "ImageService/RemoveImage");
        let removal = removal.unwrap();
        assert_eq!(
            calls[removal - 3..removal],
            [
                "RuntimeService/ListPodSandbox",
                "RuntimeService/ListContainers",
                "Containers/List"
            ],
            "{calls:#?}"
        );
        // That its container crashed, and did not end well, it was asked before.
        assert!(calls[..removal].contains(&"RuntimeService/ContainerStatus"));
    });
}

// 5-08 of the review: however many are dead, the one of a pod that goes on is asked about.
#[test]
fn an_init_container_that_has_just_ended_is_seen_behind_a_thousand_dead_ones() {
    with_fake(Answers::Crowd, |root, _| {
        let made = plan(&idle_at(root));
        let is_busy = |why: &Why| matches!(why, Why::RuntimeBusy(Motion::Pod));
        assert!(is_busy(why(&made)), "{made:#?}");
    });
}

// 5-29 of the review: settings that are there and cannot be read are not empty ones: the image of sandboxes stands in them.
#[test]
fn settings_of_a_runtime_that_cannot_be_read_let_nothing_go() {
    with_fake(Answers::Garbled, |root, _| {
        let made = plan(&idle_at(root));
        let is_said = |why: &Why| matches!(why, Why::Runtime(why) if why.contains("settings"));
        assert!(is_said(why(&made)), "{made:#?}");
    });
}

// 5-14 of the review: containerd walks what a container wrote to say how much it is. Where that takes too long nobody knows it,
// and the container goes all the same, as does the next one, whose amount is known.
#[test]
fn a_container_that_takes_too_long_to_measure_goes_unmeasured() {
    with_fake(Answers::Heavy, |root, _| {
        let policy = Policy {
            only: vec![Reclaimer::Containers],
            consent: Consent::Lossy,
            ..idle_at(root)
        };
        let made = plan(&policy);
        assert_eq!(made.skipped, []);
        let items = made.steps[0].items.iter();
        let told: Vec<_> = items
            .map(|item| {
                let is_measured = item.owned.as_ref().unwrap().is_measured;
                (&item.path[..], is_measured, item.blocks.0)
            })
            .collect();
        assert_eq!(
            told,
            [(&b"heavy-0"[..], false, 0), (&b"heavy-1"[..], true, 1)]
        );
    });
}

// 5-04 of the review: docker brings a containerd whose CRI is switched off. On a machine without kubelet nothing is missing.
#[test]
fn a_runtime_without_the_cri_is_none_where_no_kubelet_is() {
    with_fake(Answers::Nothing, |root, _| {
        let made = plan(&idle_at(root));
        assert_eq!((&made.steps[..], &made.skipped[..]), (&[][..], &[][..]));
        let settings = root.join("var/lib/kubelet/config.yaml");
        std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
        std::fs::write(settings, "kind: KubeletConfiguration").unwrap();
        let made = plan(&idle_at(root));
        assert!(matches!(why(&made), Why::Runtime(_)), "{made:#?}");
    });
}

// 5-04 of the review: a node of CRI-O as kubeadm makes it, which names the socket in its flags. Of its images nobody knows the
// age, and that is no failure.
#[test]
fn the_runtime_of_kubeadms_flags_is_asked() {
    inside("", || {
        let disk = Type::Ext4.mounted(64, &[]);
        let fake = Fake::serve(&disk.point, "run/crio/crio.sock", Answers::Cri);
        let flags = disk.point.join("var/lib/kubelet/kubeadm-flags.env");
        std::fs::create_dir_all(flags.parent().unwrap()).unwrap();
        let endpoint = "--container-runtime-endpoint=unix:///var/run/crio/crio.sock";
        std::fs::write(flags, format!("KUBELET_KUBEADM_ARGS=\"{endpoint}\"\n")).unwrap();
        let made = plan(&idle_at(&disk.point));
        assert_eq!(made.skipped, []);
        assert_eq!(names(&made), Vec::<&str>::new());
        assert!(kept(&made).contains(&Kept::AgeUnknown), "{made:#?}");
        assert!(!fake.calls().is_empty());
    });
}
