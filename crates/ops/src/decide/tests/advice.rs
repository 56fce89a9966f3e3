//! The next command: that it fits the node it is given on, and does no harm there.

use super::*;

fn next(observed: &Observed) -> String {
    judged(observed).cause().unwrap().next.clone()
}

fn above_quota(run: u64) -> Observed {
    with(|o| {
        alarm(o, "NOSPACE");
        let mut one = disk("/run", &["/run"]);
        one.fstype = "tmpfs".to_owned();
        let space = one.space.as_mut().unwrap();
        (space.bytes, space.bytes_available) = (512 << 20, run);
        o.filesystems.as_mut().unwrap().push(one);
    })
}

// A snapshot is as large as the file: 40 MiB here, and 48 MiB with a fifth to spare.
#[test]
fn a_snapshot_goes_to_memory_only_where_it_has_room() {
    let room = next(&above_quota(48 << 20));
    assert!(
        room.ends_with("snapshot save /run/etcd-snapshot.db"),
        "{room}"
    );
    for observed in [above_quota((48 << 20) - 1), {
        let mut unknown = above_quota(1 << 40);
        unknown.filesystems.as_mut().unwrap().pop();
        unknown
    }] {
        let diagnosis = judged(&observed);
        let cause = diagnosis.cause().unwrap();
        assert!(
            cause
                .next
                .ends_with("snapshot save ELSEWHERE/etcd-snapshot.db"),
            "{}",
            cause.next
        );
        let evidence = cause.evidence.join("\n");
        assert!(evidence.contains("48.0 MiB"), "{evidence}");
    }
}

#[test]
fn a_store_that_is_silent_is_only_looked_at() {
    let mut observed = with(|o| {
        answer(o, EtcdAnswer::Failed("no answer in time".to_owned()));
        log(o, line("etcd", LineClass::EtcdQuota, None));
    });
    assert_eq!(next(&observed), "crictl ps --all --name etcd");
    observed.etcd = Err(Unseen::NotHere("no manifest".to_owned()));
    assert_eq!(next(&observed), "crictl ps --all --name etcd");
}

// The certificate of a kubelet is of the same authority: nothing may make a client trust it as an API server.
#[test]
fn a_name_is_offered_only_of_the_certificate_of_an_api_server() {
    let presenting = |server: &str, names: &[&str]| {
        let mut observed = reach(Reach::TlsName);
        let endpoint = observed.endpoint.as_mut().unwrap();
        server.clone_into(&mut endpoint.server);
        endpoint.presented.as_mut().unwrap().names =
            names.iter().map(|name| (*name).to_owned()).collect();
        observed
    };
    let other = judged(&presenting(
        "https://10.0.0.7:6443",
        &["worker-3", "10.0.0.7"],
    ));
    let cause = other.cause().unwrap();
    assert_eq!(cause.cause, Cause::TlsName);
    assert_eq!(
        cause.next,
        "openssl s_client -connect 10.0.0.7:6443 -showcerts"
    );
    let evidence = cause.evidence.join("\n");
    assert!(
        evidence.contains("no API server's certificate"),
        "{evidence}"
    );
    for (server, name) in [
        ("https://127.0.0.1:6443", "ip-172-31-37-254"),
        ("https://localhost:6443", "ip-172-31-37-254"),
        ("https://[::1]:6443", "ip-172-31-37-254"),
        ("https://10.0.0.7:6443", "kubernetes.default"),
    ] {
        let names = ["ip-172-31-37-254", "kubernetes.default", "10.96.0.1"];
        let next = next(&presenting(server, &names));
        assert!(
            next.ends_with(&format!("--tls-server-name {name}")),
            "{next}"
        );
    }
}

// kubectl edits what KUBECONFIG names, which need not be what was read.
#[test]
fn kubectl_is_told_which_kubeconfig() {
    let file = "/etc/kubernetes/admin.conf";
    let edit = next(&reach(Reach::TlsName));
    assert!(
        edit.starts_with(&format!("nagi recover kubeconfig --kubeconfig {file} ")),
        "{edit}"
    );
    for answer in [
        Reach::Unauthorized,
        Reach::Forbidden,
        Reach::NotReady { failed: Vec::new() },
        Reach::Unusable("no context".to_owned()),
    ] {
        let next = next(&reach(answer));
        assert!(
            next.starts_with(&format!("KUBECONFIG={file} kubectl ")),
            "{next}"
        );
    }
}

// Commands run on this machine: in a rescue system the node is elsewhere.
#[test]
fn a_command_is_about_the_node_and_not_about_the_rescue_system() {
    let below = |change: &dyn Fn(&mut Observed)| {
        let mut observed = with(change);
        observed.root = "/mnt".into();
        let cause = judged(&observed).cause().unwrap().clone();
        (cause.next, cause.disproof)
    };
    // A mount point is one of this machine from the beginning: U11.
    let (clean, disproof) = below(&|o| {
        fill_up(o, 1);
        o.filesystems.as_mut().unwrap()[1].point = "/mnt/var/lib/etcd".into();
    });
    assert_eq!(clean, "nagi disk clean --root /mnt");
    assert_eq!(disproof, "`df /mnt/var/lib/etcd` shows more available");
    let (journal, _) = below(&|o| o.units.as_mut().unwrap()[0].state = "failed".to_owned());
    assert!(
        journal.starts_with("journalctl --root /mnt --unit kubelet "),
        "{journal}"
    );
    let (manifest, _) = below(&|o| {
        o.manifests.as_mut().unwrap()[0].pod = Err("the file is empty".to_owned());
    });
    assert!(
        manifest.ends_with(" --filename /mnt/etc/kubernetes/manifests/kube-apiserver.yaml"),
        "{manifest}"
    );
    let (verify, _) = below(&|o| {
        let file = &mut o.certificates.as_mut().unwrap()[0];
        file.authority.as_mut().unwrap().matches = false;
    });
    assert_eq!(
        verify,
        "openssl verify -CAfile /mnt/etc/kubernetes/pki/ca.crt /mnt/etc/kubernetes/pki/apiserver.crt"
    );
    let (data, _) = below(&|o| {
        answer(o, EtcdAnswer::Refused);
        log(o, line("etcd", LineClass::EtcdDamaged, None));
    });
    assert!(
        data.starts_with("ls -l /mnt/var/lib/etcd/member/snap "),
        "{data}"
    );
}

// What is renewed is named as kubeadm calls it; what it does not renew is not named so.
#[test]
fn a_certificate_that_has_ended_has_the_command_that_renews_it() {
    let ended = |root: &str, place: &str, subject: &str| {
        let observed = with(|o| {
            o.root = root.into();
            let file = &mut o.certificates.as_mut().unwrap()[0];
            place.clone_into(&mut file.place);
            file.authority = None;
            let certificate = file.certificate.as_mut().unwrap();
            subject.clone_into(&mut certificate.subject);
            certificate.not_after = "2020-01-01T00:00:00Z".parse().unwrap();
        });
        let diagnosis = judged(&observed);
        let cause = diagnosis.cause().unwrap();
        assert_eq!(cause.cause, Cause::CertificateExpired);
        cause.next.clone()
    };
    let pki = |name: &str| format!("/etc/kubernetes/pki/{name}");
    let node = "O=system:nodes, CN=system:node:node-a";
    for (place, subject, next) in [
        (
            &*pki("etcd/server.crt"),
            "CN=a",
            "kubeadm certs renew etcd-server",
        ),
        (
            "/etc/kubernetes/scheduler.conf (client)",
            "CN=a",
            "kubeadm certs renew scheduler.conf",
        ),
        (
            "/etc/kubernetes/kubelet.conf (client)",
            node,
            "kubeadm kubeconfig user --org system:nodes --client-name system:node:node-a",
        ),
        (
            &*pki("ca.crt"),
            "CN=kubernetes",
            "kubeadm certs check-expiration",
        ),
    ] {
        assert_eq!(ended("/", place, subject), next);
    }
    assert_eq!(
        ended("/mnt", &pki("apiserver.crt"), "CN=a"),
        "kubeadm certs renew apiserver --cert-dir /mnt/etc/kubernetes/pki"
    );
    // kubeadm renews the kubeconfigs of its own root only.
    assert_eq!(
        ended("/mnt", "/etc/kubernetes/scheduler.conf (client)", "CN=a"),
        "kubeadm certs check-expiration --cert-dir /mnt/etc/kubernetes/pki"
    );
    // The copy on another machine.
    let mut observed = reach(Reach::Unauthorized);
    let endpoint = observed.endpoint.as_mut().unwrap();
    "/home/a/.kube/config".clone_into(&mut endpoint.kubeconfig);
    let mut client = endpoint.presented.clone().unwrap();
    client.not_after = "2020-01-01T00:00:00Z".parse().unwrap();
    endpoint.client = Some(client);
    let diagnosis = judged(&observed);
    let cause = diagnosis.cause().unwrap();
    assert_eq!(cause.next, "kubeadm certs renew admin.conf");
    assert!(
        cause.evidence[1].contains("is a copy"),
        "{:?}",
        cause.evidence
    );
}
