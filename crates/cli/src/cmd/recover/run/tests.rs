//! The words, the verdict behind the ladder, and the page.

use std::time::Duration;

use nagi_ops::recover::{Applied, Blocks, Plan, Refusal, Step};

use super::*;

fn applied(refuses: bool, is_ready: bool, stopped: Option<Stopped>) -> Applied {
    let refusal = Refusal {
        cause: None,
        blocks: Blocks::Restart,
        why: vec!["systemd knows no kubelet".to_owned()],
        next: "nagi disk".to_owned(),
    };
    Applied {
        done: Vec::new(),
        stopped,
        last: Some(Plan::refused(if refuses {
            vec![refusal]
        } else {
            Vec::new()
        })),
        is_ready,
    }
}

// What a person has to mend is not waited for.
#[test]
fn a_refusal_is_waited_for_only_where_the_api_server_is_up() {
    let minutes = Duration::from_mins;
    let proof = ProofArgs {
        nodes: None,
        stable: minutes(1),
        within: minutes(10),
        markdown: false,
    };
    assert_eq!(proof.waits(&applied(true, false, None)), Duration::ZERO);
    assert_eq!(proof.waits(&applied(true, true, None)), minutes(1));
    assert_eq!(proof.waits(&applied(false, false, None)), minutes(10));
    let stopped = Some(Stopped::Blind("gone".to_owned()));
    assert_eq!(proof.waits(&applied(false, true, stopped)), Duration::ZERO);
    assert!(proof.check_times().is_ok());
    let proof = ProofArgs {
        stable: minutes(11),
        ..proof
    };
    assert!(proof.check_times().is_err());
}

// A cluster that is up while a person has something to mend is not done with.
#[test]
fn what_is_refused_or_stopped_is_no_recovery() {
    let refuses = applied(true, true, None);
    let refusals = refuses.last.clone().unwrap().refusals;
    let well = applied(false, true, None);
    let stopped = applied(false, true, Some(Stopped::Blind("gone".to_owned())));
    let of = |applied: &Applied, refusals: &[Refusal]| {
        with_what_is_open(Verdict::Recovered, applied, refusals)
    };
    assert_eq!(of(&well, &[]), Verdict::Recovered);
    assert_eq!(of(&refuses, &refusals), Verdict::UpNotStable);
    assert_eq!(of(&stopped, &[]), Verdict::UpNotStable);
    let worse = with_what_is_open(Verdict::NotRecovered, &refuses, &refusals);
    assert_eq!(worse, Verdict::NotRecovered);
    assert_eq!(
        refused_words(&refusals[0]),
        "kubelet is not restarted: systemd knows no kubelet"
    );
}

#[test]
fn words_that_are_no_digest_and_no_count_are_no_arguments() {
    assert!(parse_digest(&"aB".repeat(32)).is_ok_and(|one| one == "ab".repeat(32)));
    for bad in ["zzz", "", &"0".repeat(63), &"g".repeat(64)] {
        assert!(parse_digest(bad).is_err(), "{bad}");
    }
    assert_eq!(parse_count("3"), Ok(3));
    assert!(parse_count("0").is_err() && parse_count("-1").is_err());
}

// 5-28: a pod that is being started takes the images out of a plan, and not a file came or went.
#[test]
fn what_was_left_alone_is_told_where_a_plan_is_another() {
    let busy = LeftAloneBody {
        kind: "images".to_owned(),
        directory: "/run/containerd/containerd.sock".to_owned(),
        why: "a pod is being started".to_owned(),
    };
    let failure = changed(&[busy.words()]);
    assert_eq!(
        failure.causes,
        ["images at /run/containerd/containerd.sock left alone: a pod is being started"]
    );
    assert!(changed(&[]).causes.is_empty());
}

// B-026, D-26: the runbook has the steps that the code has, in its order and with its conditions.
#[test]
fn the_page_has_every_step_as_the_code_has_it() {
    let row = |step: Step| format!("| `{}` | {} | {} |", step.name(), step.when(), step.gate());
    let rows: Vec<String> = Step::ALL.into_iter().map(row).collect();
    let rows = rows.join("\n");
    let page = include_str!("../../../../../../docs/recovery.md");
    assert!(page.contains(&rows), "docs/recovery.md must have:\n{rows}");
    let twin = include_str!("../../../../../../docs/ja/recovery.md");
    let cell = |step: Step| format!("| `{}` |", step.name());
    let places: Vec<Option<usize>> = Step::ALL
        .into_iter()
        .map(|step| twin.find(&cell(step)))
        .collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted());
}
