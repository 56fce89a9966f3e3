//! The rules on facts: each cause where it holds, where it does not, and which comes first.

mod advice;
mod answers;
pub(crate) mod facts;
mod healthy;
mod rank;

use std::time::Duration;

use super::*;
use crate::observed::{
    CertificateFile, EtcdAnswer, EtcdStatus, LineClass, Reach, RuntimeAnswer, Stage, Writable,
};
use facts::*;

#[test]
fn a_cluster_that_is_well_has_no_cause() {
    let diagnosis = judged(&sound());
    assert_eq!(diagnosis.findings, []);
    assert_eq!(diagnosis.verdict, Verdict::Sound);
}

// B-005, K-39, D-02: the API server is a static pod; that it is no unit is information.
#[test]
fn a_missing_unit_of_the_api_server_is_no_fault() {
    let diagnosis = judged(&sound());
    assert_eq!(diagnosis.findings, []);
    let notes = diagnosis.notes.join("\n");
    assert!(
        notes.contains("kube-apiserver is no unit of systemd"),
        "{notes}"
    );
}

type Case = (&'static str, Cause, Observed);

/// What a disk does.
fn of_the_node() -> Vec<Case> {
    vec![
        ("root is full", Cause::DiskFull, with(|o| fill_up(o, 0))),
        (
            "inodes are gone",
            Cause::InodesExhausted,
            with(|o| {
                fs(o, 0).space.as_mut().unwrap().inodes_free = 12;
            }),
        ),
        (
            "logs cannot be written",
            Cause::FilesystemReadOnly,
            with(|o| fs(o, 0).writable = Writable::No),
        ),
        (
            "kubelet evicts",
            Cause::DiskPressure,
            with(|o| {
                fs(o, 0).evicting.push("/: kubelet kills pods".to_owned());
            }),
        ),
    ]
}

/// What the store and the certificates do.
fn of_the_store() -> Vec<Case> {
    let ended = certificate("2024-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
    let begins = certificate("2027-01-01T00:00:00Z", "2028-01-01T00:00:00Z");
    vec![
        (
            "alarm NOSPACE",
            Cause::EtcdQuota,
            with(|o| alarm(o, "NOSPACE")),
        ),
        (
            "alarm CORRUPT",
            Cause::EtcdCorrupt,
            with(|o| alarm(o, "CORRUPT")),
        ),
        (
            "no leader",
            Cause::EtcdNoLeader,
            with(|o| {
                let status = member(o);
                (status.has_leader, status.is_leader) = (false, false);
            }),
        ),
        (
            "etcd is down",
            Cause::EtcdDown,
            with(|o| answer(o, EtcdAnswer::Refused)),
        ),
        (
            "etcd is down and damaged",
            Cause::EtcdDamaged,
            with(|o| {
                answer(o, EtcdAnswer::Refused);
                o.etcd
                    .as_mut()
                    .unwrap()
                    .broken
                    .push("/var/lib/etcd/member/snap/1.snap.broken".into());
            }),
        ),
        (
            "etcd says that it is above its quota",
            Cause::EtcdQuota,
            with(|o| {
                answer(o, EtcdAnswer::Failed("no answer in time".to_owned()));
                log(o, line("etcd", LineClass::EtcdQuota, None));
            }),
        ),
        (
            "the clock of the API server is ahead",
            Cause::ClockWrong,
            with(|o| {
                o.endpoint.as_mut().unwrap().clock_ahead_seconds = Some(7200);
            }),
        ),
        (
            "the journal is of tomorrow",
            Cause::ClockWrong,
            with(|o| {
                o.newest_write = Some((
                    "/var/log/journal/a".into(),
                    "2026-02-01T12:00:00Z".parse().unwrap(),
                ));
            }),
        ),
        (
            "a certificate ended",
            Cause::CertificateExpired,
            with(|o| {
                o.certificates.as_mut().unwrap()[0].certificate = Ok(ended.clone());
            }),
        ),
        (
            "a certificate begins later",
            Cause::CertificateNotYetValid,
            with(|o| {
                o.certificates.as_mut().unwrap()[0].certificate = Ok(begins.clone());
            }),
        ),
        (
            "a certificate of another authority",
            Cause::CertificateWrongAuthority,
            with(|o| {
                o.certificates.as_mut().unwrap()[0]
                    .authority
                    .as_mut()
                    .unwrap()
                    .matches = false;
            }),
        ),
        (
            "a certificate is cut off",
            Cause::CertificateUnreadable,
            with(|o| {
                o.certificates.as_mut().unwrap()[0].certificate = Err("no PEM".to_owned());
            }),
        ),
    ]
}

/// What kubelet, the runtime and the static pods do.
fn of_the_control_plane() -> Vec<Case> {
    vec![
        (
            "a manifest is empty",
            Cause::ManifestUnreadable,
            with(|o| {
                o.manifests.as_mut().unwrap()[0].pod = Err("the file is empty".to_owned());
            }),
        ),
        (
            "a manifest is gone",
            Cause::ManifestMissing,
            with(|o| {
                o.manifests.as_mut().unwrap().remove(0);
            }),
        ),
        (
            "a file of a pod is gone",
            Cause::ManifestFileMissing,
            with(|o| {
                let pod = o.manifests.as_mut().unwrap()[0].pod.as_mut().unwrap();
                pod.missing.push("/etc/kubernetes/pki/apiserver.key".into());
            }),
        ),
        (
            "the runtime is down",
            Cause::RuntimeDown,
            with(|o| {
                runtime(o, RuntimeAnswer::Down("no such file".to_owned()));
            }),
        ),
        (
            "the runtime is silent",
            Cause::RuntimeSilent,
            with(|o| {
                runtime(o, RuntimeAnswer::Silent(Duration::from_secs(1)));
            }),
        ),
        (
            "kubelet failed",
            Cause::KubeletDown,
            with(|o| {
                o.units.as_mut().unwrap()[0].state = "failed".to_owned();
            }),
        ),
        (
            "kubelet does not start with swap",
            Cause::KubeletSwap,
            with(|o| {
                o.units.as_mut().unwrap()[0].state = "activating".to_owned();
                log(o, line("kubelet", LineClass::Swap, None));
            }),
        ),
        (
            "a static pod has no container",
            Cause::StaticPodDown,
            with(|o| {
                runtime(o, RuntimeAnswer::Containers(Vec::new()));
            }),
        ),
    ]
}

/// What the port and the logs say.
fn of_logs() -> Vec<Case> {
    vec![
        (
            "another program has the port",
            Cause::PortTaken,
            with(|o| {
                o.listeners.as_mut().unwrap()[0].process = Some((9, "nginx".to_owned()));
            }),
        ),
        (
            "an image cannot be had",
            Cause::ImageMissing,
            with(|o| log(o, line("kubelet", LineClass::Image, None))),
        ),
        (
            "out of memory",
            Cause::OutOfMemory,
            with(|o| log(o, line("kernel", LineClass::OutOfMemory, None))),
        ),
        (
            "no watches",
            Cause::InotifyLimit,
            with(|o| log(o, line("kubelet", LineClass::InotifyLimit, None))),
        ),
        (
            "a quota",
            Cause::QuotaExceeded,
            with(|o| log(o, line("kubelet", LineClass::Quota, None))),
        ),
        (
            "a control group",
            Cause::KernelLimit,
            with(|o| {
                log(
                    o,
                    line(
                        "kubelet",
                        LineClass::KernelLimit("/sys/fs/cgroup/a".into()),
                        None,
                    ),
                );
            }),
        ),
        (
            "full no more",
            Cause::NoSpaceUnexplained,
            with(|o| log(o, no_space("/var/lib/kubelet/a", "/"))),
        ),
    ]
}

/// What an API server says to a client.
fn of_the_endpoint() -> Vec<Case> {
    let after = Duration::from_secs(1);
    let stage = Stage::Connection;
    vec![
        ("name", Cause::TlsName, reach(Reach::TlsName)),
        ("ended", Cause::CertificateExpired, reach(Reach::TlsExpired)),
        (
            "begins",
            Cause::CertificateNotYetValid,
            reach(Reach::TlsNotYetValid),
        ),
        (
            "authority",
            Cause::TlsUnknownAuthority,
            reach(Reach::TlsUnknownAuthority),
        ),
        (
            "alert",
            Cause::TlsFailed,
            reach(Reach::TlsFailed("alert".to_owned())),
        ),
        ("401", Cause::Unauthorized, reach(Reach::Unauthorized)),
        ("403", Cause::Forbidden, reach(Reach::Forbidden)),
        (
            "not ready",
            Cause::NotReady,
            reach(Reach::NotReady {
                failed: vec!["etcd".to_owned()],
            }),
        ),
        ("refused", Cause::Refused, reach(Reach::Refused)),
        (
            "behind a tunnel",
            Cause::TunnelRefused,
            reach(Reach::RefusedThroughTunnel),
        ),
        ("closed", Cause::Closed, reach(Reach::Closed)),
        (
            "silent",
            Cause::TimedOut,
            reach(Reach::TimedOut { stage, after }),
        ),
        (
            "no way",
            Cause::Unreachable,
            reach(Reach::Unreachable("no route".to_owned())),
        ),
        (
            "no address",
            Cause::Unresolved,
            reach(Reach::Unresolved("no such name".to_owned())),
        ),
        (
            "a web server",
            Cause::Odd,
            reach(Reach::Odd("200 hello".to_owned())),
        ),
        (
            "no kubeconfig",
            Cause::KubeconfigUnusable,
            reach(Reach::Unusable("no context".to_owned())),
        ),
        ("closed, and ssh says why", Cause::TunnelRefused, {
            let mut observed = reach(Reach::Closed);
            log(
                &mut observed,
                line("tunnel.log", LineClass::TunnelRefused, None),
            );
            observed
        }),
    ]
}

// B-002, B-003, B-004, B-007, D-01, D-04, D-08, D-09
#[test]
fn every_cause_is_the_first_where_it_is_the_only_one() {
    let cases = [
        of_the_node(),
        of_the_store(),
        of_the_control_plane(),
        of_logs(),
        of_the_endpoint(),
    ]
    .concat();
    for (name, cause, observed) in &cases {
        let diagnosis = judged(observed);
        let found = diagnosis
            .cause()
            .unwrap_or_else(|| panic!("{name}: nothing"));
        assert_eq!(found.cause, *cause, "{name}: {found:?}");
        assert!(!found.evidence.is_empty(), "{name}");
        assert!(!found.next.contains(['{', '}']), "{name}: {}", found.next);
        assert!(
            !found.disproof.contains(['{', '}']),
            "{name}: {}",
            found.disproof
        );
        assert_eq!(diagnosis.verdict, Verdict::Cause, "{name}");
    }
    let covered: std::collections::BTreeSet<Cause> = cases.iter().map(|case| case.1).collect();
    for row in crate::cause::ROWS {
        assert!(covered.contains(&row.cause), "no case for {}", row.id);
    }
}

// B-003: the incident of the founding document, with everything that follows from it.
#[test]
fn a_full_disk_comes_before_all_that_it_brings_down() {
    let mut observed = reach(Reach::RefusedThroughTunnel);
    fill_up(&mut observed, 0);
    let path = "/var/lib/kubelet/pods/a/etc-hosts";
    log(&mut observed, no_space(path, "/"));
    log(
        &mut observed,
        line("kubelet", LineClass::InotifyLimit, None),
    );
    answer(&mut observed, EtcdAnswer::Refused);
    runtime(&mut observed, RuntimeAnswer::Containers(Vec::new()));
    observed.listeners = Ok(Vec::new());
    let diagnosis = judged(&observed);
    let causes: Vec<Cause> = diagnosis.findings.iter().map(|one| one.cause).collect();
    let expected = [
        Cause::DiskFull,
        Cause::EtcdDown,
        Cause::StaticPodDown,
        Cause::StaticPodDown,
        Cause::InotifyLimit,
        Cause::TunnelRefused,
    ];
    assert_eq!(causes, expected);
    let evidence = diagnosis.findings[0].evidence.join("\n");
    assert!(evidence.contains("/var/lib/kubelet"), "{evidence}");
    assert!(evidence.contains("what no-space says"), "{evidence}");
    assert_eq!(diagnosis.findings[0].next, "nagi disk clean");
}

// D-04, W-B14
#[test]
fn enospc_of_a_disk_that_is_not_full_never_says_that_it_is() {
    let mut other = reach(Reach::Refused);
    fill_up(&mut other, 1);
    log(&mut other, no_space("/var/lib/kubelet/a", "/"));
    let causes: Vec<Cause> = judged(&other)
        .findings
        .iter()
        .map(|one| one.cause)
        .collect();
    // The store's disk is full, and the line is of the root, which is not: both are said, and not as one.
    assert_eq!(causes[..2], [Cause::DiskFull, Cause::NoSpaceUnexplained]);
    let first = &judged(&other).findings[0];
    assert_eq!(first.subject, "/var/lib/etcd");
    assert!(!first.evidence.join("\n").contains("what no-space says"));
}

#[test]
fn what_was_said_before_is_a_note_where_the_api_server_is_ready() {
    let mut observed = sound();
    log(&mut observed, no_space("/var/lib/kubelet/a", "/"));
    let diagnosis = judged(&observed);
    assert_eq!(diagnosis.verdict, Verdict::Sound);
    let notes = diagnosis.notes.join("\n");
    assert!(notes.contains("no-space-unexplained, earlier"), "{notes}");
}

// M3: XFS makes inodes as long as there are blocks; where there are none, bytes say so.
#[test]
fn few_inodes_on_xfs_are_no_cause() {
    let mut observed = reach(Reach::Refused);
    let disk = fs(&mut observed, 0);
    disk.fstype = "xfs".to_owned();
    disk.space.as_mut().unwrap().inodes_free = 0;
    assert_eq!(judged(&observed).cause().unwrap().cause, Cause::Refused);
}

#[test]
fn a_full_disk_of_a_machine_without_a_cluster_is_a_note() {
    let mut observed = reach(Reach::Refused);
    observed.filesystems = Ok(vec![disk("/", &["/", "/var/log"])]);
    observed.manifests = Err(Unseen::NotHere("none".to_owned()));
    fill_up(&mut observed, 0);
    let diagnosis = judged(&observed);
    assert_eq!(diagnosis.cause().unwrap().cause, Cause::Refused);
    assert!(
        diagnosis
            .notes
            .iter()
            .any(|note| note.starts_with("/ is full"))
    );
}

// W-B15: at the edges of version and room.
#[test]
fn a_defragmentation_needs_a_mended_etcd_and_room() {
    let room = |available: u64| {
        let mut one = disk("/var/lib/etcd", &[]);
        one.space.as_mut().unwrap().bytes_available = available;
        one
    };
    let of = |version: &str, in_use: u64, available: u64| {
        let status = EtcdStatus {
            version: version.to_owned(),
            db_size_in_use: in_use,
            ..status()
        };
        defrag(&status, Some(&room(available)))
    };
    for version in ["3.4.35", "3.5.17", "3.6.0", "3.6.0-rc.1", "4.0.0"] {
        assert_eq!(of(version, 1000, 1200), Defrag::Safe, "{version}");
    }
    for version in ["3.4.34", "3.5.16", "3.4.23", "3.3.99", "3.5", "", "x.y.z"] {
        assert!(
            matches!(of(version, 1000, 1 << 30), Defrag::Refused(_)),
            "{version}"
        );
    }
    assert!(matches!(of("3.5.17", 1000, 1199), Defrag::Refused(_)));
    assert!(
        matches!(defrag(&status(), None), Defrag::Refused(_)),
        "no room is known"
    );
}

// "No data" is not zero.
#[test]
fn what_was_not_seen_is_never_found_well() {
    let mut observed = sound();
    observed.filesystems = Err(Unseen::Failed("no answer in time".to_owned()));
    let diagnosis = judged(&observed);
    assert_eq!(diagnosis.verdict, Verdict::Unclear);
    assert_eq!(diagnosis.unseen.len(), 1);
    observed.filesystems = Err(Unseen::NotHere("no node".to_owned()));
    assert_eq!(judged(&observed).verdict, Verdict::Sound);
    let mut nowhere = sound();
    nowhere.endpoint = Err(Unseen::NotHere("no kubeconfig".to_owned()));
    nowhere.manifests = Err(Unseen::NotHere("no node".to_owned()));
    assert_eq!(
        judged(&nowhere).verdict,
        Verdict::Unclear,
        "nobody was asked"
    );
}

#[test]
fn a_certificate_that_nobody_reads_takes_nothing_down() {
    let mut observed = sound();
    let files = observed.certificates.as_mut().unwrap();
    files.push(CertificateFile {
        is_used: false,
        ..file(
            "/etc/kubernetes/pki/apiserver-old.crt",
            certificate("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z"),
        )
    });
    let diagnosis = judged(&observed);
    assert_eq!(diagnosis.verdict, Verdict::Sound);
    assert!(
        diagnosis
            .notes
            .iter()
            .any(|note| note.contains("apiserver-old.crt ended"))
    );
}

#[test]
fn a_store_that_others_run_is_missed_by_nobody() {
    let mut observed = sound();
    let manifests = observed.manifests.as_mut().unwrap();
    manifests.remove(1);
    let pod = manifests[0].pod.as_mut().unwrap();
    pod.flags = vec![(
        "etcd-servers".to_owned(),
        "https://10.0.0.9:2379".to_owned(),
    )];
    assert_eq!(judged(&observed).findings, []);
}
