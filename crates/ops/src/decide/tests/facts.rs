//! A control plane that is well, as facts, and what breaks it.

use std::path::PathBuf;

use crate::certificate::Certificate;
use crate::decide::{Diagnosis, decide};
use crate::observed::{
    CertificateFile, Container, ContainerState, Endpoint, Etcd, EtcdAnswer, EtcdStatus, Filesystem,
    Line, LineClass, Listener, Manifest, Observed, Reach, Runtime, RuntimeAnswer, Signed, Space,
    StaticPod, Unit, Writable,
};
use crate::policy::Policy;
use jiff::Timestamp;

pub(super) const NOW: &str = "2026-01-31T12:00:00Z";

pub(crate) fn now() -> Timestamp {
    NOW.parse().unwrap()
}

pub(super) fn judged(observed: &Observed) -> Diagnosis {
    decide(&Policy::default(), observed, now())
}

pub(super) fn pod(name: &str) -> Manifest {
    Manifest {
        path: format!("/etc/kubernetes/manifests/{name}.yaml").into(),
        pod: Ok(StaticPod {
            name: name.to_owned(),
            namespace: "kube-system".to_owned(),
            pod: name.to_owned(),
            flags: vec![(
                "etcd-servers".to_owned(),
                "https://127.0.0.1:2379".to_owned(),
            )],
            mounts: Vec::new(),
            missing: Vec::new(),
        }),
    }
}

pub(super) fn certificate(from: &str, to: &str) -> Certificate {
    Certificate {
        subject: "CN=kube-apiserver".to_owned(),
        issuer: "CN=kubernetes".to_owned(),
        names: ["kubernetes", "ip-172-31-37-254", "10.96.0.1"]
            .map(str::to_owned)
            .to_vec(),
        not_before: from.parse().unwrap(),
        not_after: to.parse().unwrap(),
        is_authority: false,
        der: Vec::new(),
    }
}

pub(super) fn good_certificate() -> Certificate {
    certificate("2025-06-01T00:00:00Z", "2026-06-01T00:00:00Z")
}

pub(super) fn disk(point: &str, holds: &[&str]) -> Filesystem {
    Filesystem {
        point: point.into(),
        fstype: "ext4".to_owned(),
        writable: Writable::Yes,
        space: Some(Space {
            bytes: 8 << 30,
            bytes_free: 4 << 30,
            bytes_available: 3 << 30,
            inodes: 500_000,
            inodes_free: 400_000,
        }),
        holds: holds.iter().map(PathBuf::from).collect(),
        evicting: Vec::new(),
    }
}

pub(crate) fn status() -> EtcdStatus {
    EtcdStatus {
        version: "3.5.21".to_owned(),
        db_size: 40 << 20,
        db_size_in_use: 20 << 20,
        quota: Some(2 << 30),
        has_leader: true,
        is_leader: true,
        is_alarm_own: true,
        alarms: Ok(Vec::new()),
    }
}

pub(super) fn line(source: &str, class: LineClass, point: Option<&str>) -> Line {
    Line {
        at: Some("2026-01-31T11:59:00Z".parse().unwrap()),
        source: source.to_owned(),
        text: format!("what {} says", class.name()),
        class,
        point: point.map(PathBuf::from),
    }
}

pub(super) fn no_space(path: &str, point: &str) -> Line {
    line(
        "kubelet",
        LineClass::NoSpace(Some(path.into())),
        Some(point),
    )
}

/// A control plane that is well.
pub(crate) fn sound() -> Observed {
    let container = |name: &str| Container {
        id: format!("{name}-0123456789abcdef"),
        namespace: "kube-system".to_owned(),
        pod: format!("{name}-ip-172-31-37-254"),
        name: name.to_owned(),
        state: ContainerState::Running,
        attempt: 1,
    };
    Observed {
        root: "/".into(),
        endpoint: Ok(Endpoint {
            kubeconfig: "/etc/kubernetes/admin.conf".to_owned(),
            holder: "/etc/kubernetes/admin.conf".to_owned(),
            context: "kubernetes-admin@kubernetes".to_owned(),
            cluster: "kubernetes".to_owned(),
            server: "https://127.0.0.1:6443".to_owned(),
            expected_name: "127.0.0.1".to_owned(),
            reach: Reach::Ready,
            presented: Some(good_certificate()),
            client: Some(good_certificate()),
            listener: Some("kube-apiserver (process 7)".to_owned()),
            clock_ahead_seconds: Some(0),
        }),
        filesystems: Ok(vec![
            disk("/", &["/", "/var/lib/kubelet", "/var/log"]),
            disk("/var/lib/etcd", &["/var/lib/etcd"]),
        ]),
        units: Ok(vec![
            Unit {
                name: "kubelet.service".to_owned(),
                is_known: true,
                state: "active".to_owned(),
                substate: "running".to_owned(),
                restarts: 0,
                result: "success".to_owned(),
                active_for: None,
            },
            Unit {
                name: "kube-apiserver.service".to_owned(),
                is_known: false,
                state: "inactive".to_owned(),
                substate: "dead".to_owned(),
                restarts: 0,
                result: "success".to_owned(),
                active_for: None,
            },
        ]),
        listeners: Ok(vec![Listener {
            port: 6443,
            process: Some((7, "kube-apiserver".to_owned())),
        }]),
        containers: Ok(Runtime {
            socket: "/run/containerd/containerd.sock".into(),
            answer: RuntimeAnswer::Containers(vec![container("kube-apiserver"), container("etcd")]),
        }),
        manifests: Ok(vec![pod("kube-apiserver"), pod("etcd")]),
        etcd: Ok(Etcd {
            endpoint: "https://127.0.0.1:2379".to_owned(),
            data_dir: "/var/lib/etcd".into(),
            is_placed: true,
            point: Some("/var/lib/etcd".into()),
            answer: EtcdAnswer::Status(status()),
            broken: Vec::new(),
        }),
        certificates: Ok(vec![file(
            "/etc/kubernetes/pki/apiserver.crt",
            good_certificate(),
        )]),
        lines: Ok(Vec::new()),
        partly_unseen: Vec::new(),
        newest_write: Some(("/var/log/journal/a/system.journal".into(), now())),
    }
}

pub(super) fn file(place: &str, certificate: Certificate) -> CertificateFile {
    CertificateFile {
        place: place.to_owned(),
        certificate: Ok(certificate),
        is_used: true,
        authority: Some(Signed {
            by: "/etc/kubernetes/pki/ca.crt".to_owned(),
            matches: true,
        }),
    }
}

pub(super) fn reach(reach: Reach) -> Observed {
    let mut observed = sound();
    observed.endpoint.as_mut().unwrap().reach = reach;
    observed
}

pub(super) fn with(change: impl FnOnce(&mut Observed)) -> Observed {
    let mut observed = reach(Reach::Refused);
    change(&mut observed);
    observed
}

pub(super) fn fs(observed: &mut Observed, index: usize) -> &mut Filesystem {
    &mut observed.filesystems.as_mut().unwrap()[index]
}

pub(super) fn log(observed: &mut Observed, line: Line) {
    observed.lines.as_mut().unwrap().push(line);
}

pub(super) fn fill_up(observed: &mut Observed, index: usize) {
    let space = fs(observed, index).space.as_mut().unwrap();
    space.bytes_available = 0;
    space.bytes_free = 0;
}

pub(super) fn answer(observed: &mut Observed, answer: EtcdAnswer) {
    observed.etcd.as_mut().unwrap().answer = answer;
}

pub(super) fn member(observed: &mut Observed) -> &mut EtcdStatus {
    match &mut observed.etcd.as_mut().unwrap().answer {
        EtcdAnswer::Status(status) => status,
        EtcdAnswer::Refused | EtcdAnswer::Failed(_) | EtcdAnswer::Odd(_) => panic!("it answers"),
    }
}

pub(super) fn runtime(observed: &mut Observed, answer: RuntimeAnswer) {
    observed.containers.as_mut().unwrap().answer = answer;
}

pub(super) fn alarm(observed: &mut Observed, alarm: &str) {
    let alarms = member(observed).alarms.as_mut();
    alarms.unwrap().push(alarm.to_owned());
}
