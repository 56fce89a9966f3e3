//! Target and cap of a run, as measured: what was expected of an image may be far less than what comes back.

use std::time::Duration;

use nagi_guard::{Blocks, Consent, End, Kept, Plan, Policy, Reclaimer};

use super::containerd::{Containerd, may_run};
use super::images::{gave_back, kept, names, policy, settle, with_idle};
use super::node::{apply, plan};
use super::registry::Layer;
use crate::machine::inside;

const MIB: usize = 1 << 20;

/// Three images that nothing uses, of which each gives back about 20 MiB of 600.
fn three() -> Containerd {
    let containerd = with_idle(&[], Duration::ZERO);
    for (seed, name) in [(61, "one:1"), (62, "two:1"), (63, "three:1")] {
        let own = Layer::filled("own", seed, 10 * MIB);
        containerd.registry.put(name, &[own]);
        containerd.pull(name).unwrap();
    }
    settle();
    containerd
}

/// Every image that nothing uses may go.
fn all_images(containerd: &Containerd) -> Policy {
    Policy {
        only: vec![Reclaimer::Images, Reclaimer::LocalImages],
        consent: Consent::Lossy,
        ..policy(containerd)
    }
}

/// The same plan by somebody who knows nothing of what comes back.
fn blind(mut plan: Plan) -> Plan {
    for item in &mut plan.steps[0].items {
        item.blocks = Blocks(0);
        item.owned.as_mut().unwrap().inodes = 0;
    }
    plan
}

// 5-31 of the review: a name that stands in containerd's books as it was given, and that the CRI tells in full. Asked to remove
// the image, containerd 1.6 would take all names but that one and keep the image; so it keeps them all.
#[test]
fn an_image_with_a_short_name_stays_with_all_its_names() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&["idle:1", "named:1"], Duration::ZERO);
        let whole = containerd.registry.name("named:1");
        containerd.ctr(&["images", "tag", &whole, "short:1"]);
        settle();
        let made = plan(&all_images(&containerd));
        assert_eq!(names(&made), ["idle:1"], "{made:#?}");
        assert!(kept(&made).contains(&Kept::NotUnderstood), "{made:#?}");
        assert_eq!(apply(&made).done[0].removed, 1);
        let left = ["named:1", "pause:1", "short:1", "used:1"];
        assert_eq!(containerd.names(), left);
    });
}

// 5-16 of the review, B3: a layer that a pulled image and an imported one share goes with the last of them, in one run of both
// kinds.
#[test]
fn what_two_kinds_share_comes_back_with_the_second_of_them() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = with_idle(&[], Duration::ZERO);
        let base = Layer::filled("base", 65, 10 * MIB);
        let own = |seed| Layer::filled("own", seed, MIB);
        containerd
            .registry
            .put("pulled:1", &[base.clone(), own(66)]);
        containerd.pull("pulled:1").unwrap();
        containerd.import("local:1", &[base, own(67)], Some("local"));
        settle();
        let made = plan(&all_images(&containerd));
        assert_eq!(names(&made), ["pulled:1", "local:1"], "{made:#?}");
        let (_, measured) = gave_back("two kinds that share", &apply(&made).done);
        assert!(measured > 20 << 20);
    });
}

// 5-31 of the review: df is looked at before each image, and not only once what was expected is there.
#[test]
fn it_stops_at_the_target_as_measured_whatever_was_expected() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = three();
        let made = plan(&policy(&containerd));
        let space = &made.disks[0].space;
        // One image is enough for this, and two would be for one more.
        let percent = (space.used() - (10 << 20)) * 100 / (space.bytes - space.reserved());
        let target_percent = u8::try_from(percent).unwrap();
        let mut made = blind(made);
        made.policy.target_percent = target_percent;
        let done = apply(&made).done.remove(0);
        assert_eq!((&done.end, done.removed), (&End::Target, 1), "{done:#?}");
    });
}

// 5-31 of the review: and so is what has come back altogether.
#[test]
fn it_stops_at_the_cap_as_measured_whatever_was_expected() {
    if !may_run() {
        return;
    }
    inside("", || {
        let containerd = three();
        let mut made = blind(plan(&policy(&containerd)));
        assert_eq!(made.steps[0].items.len(), 3);
        made.policy.bytes_max = Some(15 << 20);
        let done = apply(&made).done.remove(0);
        assert_eq!((&done.end, done.removed), (&End::Cap, 1), "{done:#?}");
    });
}
