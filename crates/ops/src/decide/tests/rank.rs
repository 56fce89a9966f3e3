//! Which of several comes first, and what is no cause at all: a true one beside an old line, and lines that only sound
//! like one.

use super::*;
use crate::classes::classify;

fn causes(observed: &Observed) -> Vec<Cause> {
    let findings = judged(observed).findings;
    findings.iter().map(|one| one.cause).collect()
}

/// Lines of logs that are true and explain nothing.
fn said(observed: &mut Observed) {
    for class in [
        LineClass::OutOfMemory,
        LineClass::Image,
        LineClass::InotifyLimit,
        LineClass::Quota,
        LineClass::KernelLimit("/sys/fs/cgroup/a".into()),
        LineClass::PortTaken,
    ] {
        log(observed, line("kubelet", class, None));
    }
    log(observed, no_space("/var/lib/kubelet/a", "/"));
}

#[test]
fn a_line_of_a_log_comes_behind_what_is_seen_to_be_down() {
    let cases = [
        (Cause::EtcdDown, with(|o| answer(o, EtcdAnswer::Refused))),
        (
            Cause::StaticPodDown,
            with(|o| runtime(o, RuntimeAnswer::Containers(Vec::new()))),
        ),
        (
            Cause::NotReady,
            reach(Reach::NotReady {
                failed: vec!["etcd".to_owned()],
            }),
        ),
    ];
    for (cause, mut observed) in cases {
        said(&mut observed);
        assert_eq!(causes(&observed)[0], cause);
    }
    // Of what nobody answers it is the only explanation.
    let mut observed = reach(Reach::Refused);
    said(&mut observed);
    let found = causes(&observed);
    assert_eq!(found[0], Cause::PortTaken, "{found:?}");
    assert_eq!(found.last(), Some(&Cause::Refused), "{found:?}");
}

#[test]
fn a_process_that_the_kernel_ended_counts_by_its_name() {
    for name in [
        "etcd",
        "kubelet",
        "containerd",
        "kube-apiserver",
        "kube-controller",
    ] {
        for line in [
            format!("Out of memory: Killed process 4711 ({name}) total-vm:1kB"),
            format!("Memory cgroup out of memory: Killed process 9 ({name}), UID 0"),
            format!("oom-kill:constraint=CONSTRAINT_NONE,task_memcg=/a,task={name},pid=9,uid=0"),
        ] {
            assert_eq!(
                classify("kernel", &line),
                Some(LineClass::OutOfMemory),
                "{line}"
            );
        }
    }
    for line in [
        "Out of memory: Killed process 4711 (java) total-vm:1kB",
        "oom-kill:constraint=CONSTRAINT_MEMCG,task_memcg=/kubepods/a,task=java,pid=9,uid=0",
        "kubelet invoked oom-killer: gfp_mask=0xcc0, order=0",
        "Out of memory: Kill",
    ] {
        assert_eq!(classify("kernel", line), None, "{line}");
    }
}

#[test]
fn an_image_counts_where_it_is_one_of_the_control_plane() {
    let of = |pod: &str| {
        classify(
            "kubelet",
            &format!("pod kube-system/{pod}: ImagePullBackOff"),
        )
    };
    assert_eq!(of("kube-scheduler-a"), Some(LineClass::Image));
    assert_eq!(of("metrics-agent-x"), None);
}

#[test]
fn a_peer_that_goes_away_damages_no_store() {
    for line in [
        r#"{"level":"warn","caller":"rafthttp/stream.go:421","msg":"lost TCP streaming connection with remote peer","error":"unexpected EOF"}"#,
        r#"{"level":"warn","caller":"embed/config_logging.go:169","msg":"rejected connection","error":"unexpected EOF"}"#,
        r#"{"level":"info","caller":"snap/snapshotter.go:1","msg":"snap: no available snapshot"}"#,
        "2021-01-01 00:00:00.0 W | rafthttp: lost the TCP streaming connection with peer 1 (unexpected EOF)",
    ] {
        assert_eq!(classify("etcd", line), None, "{line}");
    }
    for line in [
        "panic: unexpected EOF",
        r#"{"level":"fatal","caller":"storage/storage.go:1","msg":"failed to read WAL","error":"unexpected EOF"}"#,
        r#"{"level":"panic","msg":"failed to recover","error":"snap: no available snapshot"}"#,
        "2021-01-01 00:00:00.0 C | etcdserver: read wal error (walpb: crc mismatch) and cannot be repaired",
    ] {
        assert_eq!(
            classify("etcd", line),
            Some(LineClass::EtcdDamaged),
            "{line}"
        );
    }
}

#[test]
fn a_damaged_store_hides_neither_that_it_is_down_nor_its_quota() {
    let observed = with(|o| {
        answer(o, EtcdAnswer::Refused);
        log(o, line("etcd", LineClass::EtcdDamaged, None));
        log(o, line("etcd", LineClass::EtcdQuota, None));
    });
    let expected = [
        Cause::EtcdDamaged,
        Cause::EtcdQuota,
        Cause::EtcdDown,
        Cause::Refused,
    ];
    assert_eq!(causes(&observed), expected);
}

// A node that was not asked: its last words are lines as others are.
#[test]
fn what_a_store_said_that_nobody_asked_is_a_line_of_a_log() {
    let unasked = |answer: Reach| {
        let mut observed = reach(answer);
        observed.etcd = Err(Unseen::NotHere("no manifest".to_owned()));
        for class in [LineClass::EtcdDamaged, LineClass::EtcdQuota] {
            log(&mut observed, line("etcd", class, None));
        }
        observed
    };
    let ready = judged(&unasked(Reach::Ready));
    assert_eq!(ready.findings, []);
    let notes = ready.notes.join("\n");
    assert!(notes.contains("etcd-damaged, earlier"), "{notes}");
    let mut down = unasked(Reach::Refused);
    assert_eq!(causes(&down)[0], Cause::EtcdDamaged);
    runtime(&mut down, RuntimeAnswer::Down("no such file".to_owned()));
    assert_eq!(causes(&down)[0], Cause::RuntimeDown);
}

// A disk is mounted so in a rescue system, and a pod sees a healthy node so.
#[test]
fn what_another_root_mounts_read_only_is_a_note_and_hides_no_full_disk() {
    let below = |root: &str, writable: Writable| {
        let mut observed = sound();
        observed.root = root.into();
        fs(&mut observed, 0).writable = writable;
        observed
    };
    for writable in [Writable::No, Writable::NotThisMount] {
        let mut rescue = below("/mnt", writable);
        let diagnosis = judged(&rescue);
        assert_eq!(diagnosis.findings, [], "{writable:?}");
        let notes = diagnosis.notes.join("\n");
        assert!(
            notes.contains("read-only; so it is seen below /mnt"),
            "{notes}"
        );
        fill_up(&mut rescue, 0);
        assert_eq!(causes(&rescue), [Cause::DiskFull], "{writable:?}");
        let mut node = below("/", writable);
        assert_eq!(causes(&node), [Cause::FilesystemReadOnly]);
        fill_up(&mut node, 0);
        assert_eq!(causes(&node), [Cause::FilesystemReadOnly, Cause::DiskFull]);
    }
    for root in ["/", "/mnt"] {
        let withdrawn = below(root, Writable::Withdrawn);
        assert_eq!(causes(&withdrawn), [Cause::FilesystemReadOnly], "{root}");
        let evidence = &judged(&withdrawn).findings[0].evidence[0];
        assert!(evidence.contains("as after an error"), "{evidence}");
    }
    let on_purpose = &judged(&below("/", Writable::No)).findings[0].evidence[0];
    assert!(!on_purpose.contains("error"), "{on_purpose}");
}

// Systems that are never written to have the image of their root in a file of a hundred per cent.
#[test]
fn the_image_of_a_root_is_full_from_the_beginning() {
    let mut observed = sound();
    let mut image = disk("/", &["/"]);
    image.writable = Writable::No;
    observed.filesystems = Ok(vec![image, disk("/var", &["/var/lib/kubelet", "/var/log"])]);
    fill_up(&mut observed, 0);
    assert_eq!(causes(&observed), []);
}
