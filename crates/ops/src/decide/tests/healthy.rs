//! Machines that are well, or are no nodes at all, and look as if they were broken.

use super::*;

fn causes(observed: &Observed) -> Vec<Cause> {
    let findings = judged(observed).findings;
    findings.iter().map(|one| one.cause).collect()
}

// A worker may have static pods too: kube-proxy, a virtual address.
#[test]
fn a_worker_with_a_static_pod_misses_no_control_plane() {
    let mut observed = sound();
    observed.manifests = Ok(vec![pod("kube-proxy"), pod("kube-vip")]);
    observed.containers = Err(Unseen::NotHere("not asked".to_owned()));
    observed.etcd = Err(Unseen::NotHere("no manifest".to_owned()));
    assert_eq!(causes(&observed), []);
    let manifests = observed.manifests.as_mut().unwrap();
    manifests.push(pod("kube-scheduler"));
    assert!(causes(&observed).contains(&Cause::ManifestMissing));
}

#[test]
fn a_full_filesystem_that_nothing_of_the_node_lives_from_is_a_note() {
    let mut observed = sound();
    let disks = observed.filesystems.as_mut().unwrap();
    disks.push(disk("/tmp", &["/tmp", "/var/tmp"]));
    disks.push(disk("/run", &["/run"]));
    fill_up(&mut observed, 2);
    assert_eq!(causes(&observed), []);
    let notes = judged(&observed).notes.join("\n");
    assert!(notes.contains("/tmp is full"), "{notes}");
    fill_up(&mut observed, 3);
    assert_eq!(causes(&observed), [Cause::DiskFull], "/run");
}

// Docker brings containerd, and podman its images.
#[test]
fn a_workstation_with_containers_is_no_node() {
    let mut observed = reach(Reach::Refused);
    observed.manifests = Err(Unseen::NotHere("none".to_owned()));
    let held = [
        "/",
        "/var/lib/docker",
        "/var/lib/containerd",
        "/var/lib/containers",
        "/var/log",
    ];
    observed.filesystems = Ok(vec![disk("/", &held)]);
    fill_up(&mut observed, 0);
    assert_eq!(causes(&observed), [Cause::Refused]);
    fs(&mut observed, 0).holds.push("/var/lib/kubelet".into());
    assert_eq!(causes(&observed)[0], Cause::DiskFull);
}

// Between two ends a kubelet that crashes runs; one that crashed last week, and runs since, is well.
#[test]
fn a_kubelet_that_is_started_again_and_again_is_down_though_it_runs_now() {
    let running = |restarts: u64, age: Option<u64>| {
        let mut observed = sound();
        let unit = &mut observed.units.as_mut().unwrap()[0];
        (unit.restarts, unit.active_for) = (restarts, age.map(Duration::from_secs));
        causes(&observed)
    };
    assert_eq!(running(5, Some(59)), [Cause::KubeletDown]);
    assert_eq!(running(5, Some(60)), []);
    assert_eq!(running(4, Some(1)), []);
    assert_eq!(running(5, None), []);
}

// Of two clocks that differ nobody knows which is wrong.
#[test]
fn a_clock_that_differs_from_the_api_servers_is_one_of_two() {
    let mut observed = sound();
    observed.endpoint.as_mut().unwrap().clock_ahead_seconds = Some(7200);
    let subject = |observed: &Observed| judged(observed).cause().unwrap().subject.clone();
    assert_eq!(subject(&observed), "this machine or https://127.0.0.1:6443");
    let later = "2026-02-01T12:00:00Z".parse().unwrap();
    observed.newest_write = Some(("/var/log/journal/a".into(), later));
    assert_eq!(subject(&observed), "this machine");
}
