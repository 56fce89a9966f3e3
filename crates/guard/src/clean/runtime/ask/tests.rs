//! What the files of a node say, on nodes that are made by hand.

use super::*;

// 5-02 of the review: a pod needs what its volumes name too.
#[test]
fn a_manifest_names_the_images_of_its_containers_and_of_its_volumes() {
    let manifest = b"\
kind: Pod
spec:
  initContainers: [{ name: first, image: r.example/first:1 }]
  containers: [{ name: main, image: r.example/main:1 }, { name: bare }]
  volumes:
  - { name: model, image: { reference: r.example/model:1, pullPolicy: Never } }
  - { name: pki, hostPath: { path: /etc/kubernetes/pki } }
";
    let named = images_of(manifest).unwrap();
    assert_eq!(
        named,
        ["r.example/main:1", "r.example/first:1", "r.example/model:1"]
    );
    for cut in [
        "",
        "kind: Pod",
        "spec: {",
        "kind: Pod\nspec: { nodeName: a }",
    ] {
        assert_eq!(images_of(cut.as_bytes()), None, "{cut}");
    }
}

/// A node with these files.
fn node(files: &[(&str, &str)]) -> (tempfile::TempDir, OwnedFd, Reach) {
    let directory = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let root = place::open_root(directory.path()).unwrap();
    let reach = Reach::of(&root).unwrap();
    (directory, root, reach)
}

fn named_at(root: &OwnedFd, reach: &Reach) -> Result<Vec<String>, Why> {
    let kubelet = kubelet_of(root, reach).unwrap();
    named(&kubelet.unwrap_or_default(), root, reach)
}

const POD: &str = "spec: { containers: [{ image: r.example/pod:1 }] }";

// 5-03 of the review: kubelet asks for no extension, and passes over directories and what begins with a dot.
#[test]
fn every_file_of_the_directory_is_a_manifest_whatever_it_is_called() {
    let (directory, root, reach) = node(&[
        ("etc/kubernetes/manifests/haproxy", POD),
        ("etc/kubernetes/manifests/etcd.yaml.bak", POD),
        ("etc/kubernetes/manifests/.etcd.yaml.swp", "{"),
        ("etc/kubernetes/manifests/old/etcd.yaml", "{"),
    ]);
    assert_eq!(
        named_at(&root, &reach),
        Ok(vec!["r.example/pod:1".to_owned(); 2])
    );
    // A full disk has cut it off.
    let cut = directory.path().join("etc/kubernetes/manifests/kube-vip");
    std::fs::write(&cut, "").unwrap();
    let why = Why::Manifest("/etc/kubernetes/manifests/kube-vip".into());
    assert_eq!(named_at(&root, &reach), Err(why));
}

// 5-03 of the review: kubelet follows links to manifests, wherever on the node they lead, and the images of those are kept like
// others. One that leads nowhere may lead somewhere again, as soon as a disk is mounted.
#[test]
fn a_link_to_a_manifest_is_followed_as_kubelet_does() {
    let (directory, root, reach) = node(&[
        ("data/manifests/real.yaml", POD),
        ("etc/kubernetes/manifests/etcd.yaml", POD),
    ]);
    let at = |name: &str| directory.path().join("etc/kubernetes/manifests").join(name);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
    link("/data/manifests/real.yaml", "whole.yaml");
    link("../../../data/manifests/real.yaml", "short.yaml");
    link("/data/manifests", "directory");
    let three = vec!["r.example/pod:1".to_owned(); 3];
    assert_eq!(named_at(&root, &reach), Ok(three.clone()));
    // The directory itself may be one.
    rustix::fs::unlink(at("short.yaml")).unwrap();
    let manifests = directory.path().join("etc/kubernetes/manifests");
    std::fs::rename(&manifests, directory.path().join("data/moved")).unwrap();
    std::os::unix::fs::symlink("../../data/moved", manifests).unwrap();
    assert_eq!(named_at(&root, &reach), Ok(three[..2].to_vec()));
    link("/data/manifests/none.yaml", "lost.yaml");
    let lost = Why::Manifest("/etc/kubernetes/manifests/lost.yaml".into());
    assert_eq!(named_at(&root, &reach), Err(lost));
    rustix::fs::unlink(at("lost.yaml")).unwrap();
    link("round.yaml", "round.yaml");
    assert_eq!(named_at(&root, &reach), Err(Why::Link));
}

// 5-30 of the review: where kubelet looks may stand in a drop-in, or be relative. What cannot be understood of that lets nothing go.
#[test]
fn drop_ins_and_relative_paths_say_where_manifests_are() {
    let flags = (
        "var/lib/kubelet/kubeadm-flags.env",
        "KUBELET_KUBEADM_ARGS=\"--config-dir=/etc/kubelet.d\"",
    );
    let settings = ("var/lib/kubelet/config.yaml", "staticPodPath: pods");
    let (_directory, root, reach) = node(&[settings, ("var/lib/kubelet/pods/a", POD)]);
    let one = Ok(vec!["r.example/pod:1".to_owned()]);
    assert_eq!(named_at(&root, &reach), one);
    let drop_in = ("etc/kubelet.d/a.conf", "staticPodPath: /srv/pods");
    let (directory, root, reach) = node(&[settings, flags, drop_in, ("srv/pods/a", POD)]);
    assert_eq!(named_at(&root, &reach), one);
    let cut = directory.path().join("etc/kubelet.d/b.conf");
    std::fs::write(cut, "").unwrap();
    let file = PathBuf::from("/etc/kubelet.d/b.conf");
    let why = Why::Manifest(file.clone());
    assert_eq!(kubelet_of(&root, &reach).unwrap_err(), (file, why));
}

// 5-17 of the review: so may kubelet's own directory.
#[test]
fn a_link_at_the_root_of_kubelet_is_followed() {
    let settings = ("data/kubelet/config.yaml", "staticPodPath: /srv/pods");
    let (directory, root, reach) = node(&[settings, ("srv/pods/a", POD), ("var/lib/a", "")]);
    std::os::unix::fs::symlink("/data/kubelet", directory.path().join("var/lib/kubelet")).unwrap();
    let one = Ok(vec!["r.example/pod:1".to_owned()]);
    assert_eq!(named_at(&root, &reach), one);
}

// 5-03 of the review: kubelet may be told one file instead of a directory.
#[test]
fn one_file_may_be_named_instead_of_a_directory_of_manifests() {
    let settings = (
        "var/lib/kubelet/config.yaml",
        "staticPodPath: /etc/pod.yaml",
    );
    let (_directory, root, reach) = node(&[settings, ("etc/pod.yaml", POD)]);
    assert_eq!(
        named_at(&root, &reach),
        Ok(vec!["r.example/pod:1".to_owned()])
    );
    let (_directory, root, reach) = node(&[settings, ("etc/pod.yaml", "spec: {")]);
    let why = Why::Manifest("/etc/pod.yaml".into());
    assert_eq!(named_at(&root, &reach), Err(why));
    let (_directory, root, reach) = node(&[settings]);
    assert_eq!(named_at(&root, &reach), Ok(Vec::new()));
}

// 5-04 of the review: kubeadm names the socket of CRI-O and of cri-dockerd in its flags, with the usual link in it.
#[test]
fn the_runtime_is_the_one_that_kubelets_file_or_kubeadms_flags_name() {
    let flags =
        "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/crio/crio.sock\"";
    let flags = ("var/lib/kubelet/kubeadm-flags.env", flags);
    let crio = ("run/crio/crio.sock", "");
    for with in [
        &[flags, crio][..],
        &[
            flags,
            crio,
            ("var/lib/kubelet/config.yaml", "kind: KubeletConfiguration"),
        ],
        &[
            crio,
            (
                "var/lib/kubelet/config.yaml",
                "containerRuntimeEndpoint: unix:///run/crio/crio.sock",
            ),
        ],
    ] {
        let (_directory, root, reach) = node(with);
        let found = runtime(&root, &reach).unwrap().unwrap();
        assert_eq!(found.socket, Path::new("/run/crio/crio.sock"));
        assert!(found.kubelet.is_some());
    }
    // A kubelet without its runtime, and a machine with neither.
    let (_directory, root, reach) = node(&[flags]);
    assert!(matches!(runtime(&root, &reach), Err((_, Why::Runtime(_)))));
    let (_directory, root, reach) = node(&[]);
    assert!(runtime(&root, &reach).unwrap().is_none());
}
