//! What kubelet makes of its files, on nodes that are made of words.

use std::collections::BTreeMap;
use std::convert::Infallible;

use super::*;

/// Files and links by their paths; a directory is there as long as something is in it.
#[derive(Default)]
struct Made(BTreeMap<PathBuf, Thing>);

enum Thing {
    File(String),
    Link(PathBuf),
    Pipe,
}

impl Made {
    fn of(files: &[(&str, &str)]) -> Self {
        let files = files.iter();
        Self(
            files
                .map(|(path, text)| (path.into(), Thing::File((*text).to_owned())))
                .collect(),
        )
    }

    fn with(mut self, path: &str, thing: Thing) -> Self {
        self.0.insert(path.into(), thing);
        self
    }

    fn kind(&self, path: &Path) -> Kind {
        match self.0.get(path) {
            Some(Thing::File(_)) => Kind::File,
            Some(Thing::Link(to)) => self.kind(to),
            Some(Thing::Pipe) => Kind::Other,
            None if self.0.keys().any(|one| one.starts_with(path)) => Kind::Directory,
            None => Kind::Nowhere,
        }
    }

    fn kubelet(&self) -> Kubelet {
        let settings = settings(self).unwrap();
        assert_eq!(settings.broken, Vec::<PathBuf>::new());
        settings.kubelet
    }
}

impl Files for Made {
    type Error = Infallible;

    fn read(&self, file: &Path) -> Result<Option<Vec<u8>>, Infallible> {
        match self.0.get(file) {
            Some(Thing::File(text)) => Ok(Some(text.clone().into_bytes())),
            Some(Thing::Link(to)) => self.read(to),
            Some(Thing::Pipe) | None => Ok(None),
        }
    }

    fn list(&self, directory: &Path) -> Result<Option<Vec<Entry>>, Infallible> {
        if let Some(Thing::Link(to)) = self.0.get(directory) {
            return self.list(to);
        }
        if self.kind(directory) != Kind::Directory {
            return Ok(None);
        }
        let below = self
            .0
            .keys()
            .filter_map(|one| one.strip_prefix(directory).ok());
        let names = below.filter_map(|one| Some(one.components().next()?.as_os_str().to_owned()));
        let names: std::collections::BTreeSet<OsString> = names.collect();
        // Not in the order of their names.
        let entries = names.into_iter().rev().map(|name| {
            let path = directory.join(&name);
            Entry {
                name,
                kind: self.kind(&path),
                is_link: matches!(self.0.get(&path), Some(Thing::Link(_))),
            }
        });
        Ok(Some(entries.collect()))
    }
}

fn flags_file(flags: &str) -> String {
    format!("KUBELET_KUBEADM_ARGS=\"{flags}\"\n")
}

#[test]
fn the_file_says_where_things_are_and_defaults_say_the_rest() {
    let of = |text: &str| Made::of(&[(CONFIG, text)]);
    let default = of("kind: KubeletConfiguration\n").kubelet();
    assert_eq!(default, Kubelet::default());
    assert_eq!(default.socket(), Path::new(SOCKET));
    assert_eq!(default.manifests(), Path::new(MANIFESTS));
    let told = of("containerRuntimeEndpoint: unix:///a\nstaticPodPath: /b\n").kubelet();
    assert_eq!(told.socket(), Path::new("/a"));
    assert_eq!(told.manifests(), Path::new("/b"));
    let empty = of("staticPodPath: ''\ncontainerRuntimeEndpoint: ''\n").kubelet();
    assert_eq!(empty.socket(), Path::new(SOCKET));
    assert_eq!(empty.manifests(), Path::new(MANIFESTS));
    for broken in ["", "\n", "staticPodPath: [", "staticPodPath: [a]"] {
        let settings = settings(&of(broken)).unwrap();
        assert_eq!(settings.broken, [Path::new(CONFIG)], "{broken}");
        assert!(settings.is_there && settings.kubelet == Kubelet::default());
    }
    assert_eq!(settings(&Made::default()), Ok(Settings::default()));
}

// 5-04 of the review: kubeadm before 1.35 names the socket there and leaves the file of settings empty.
#[test]
fn kubelet_takes_a_flag_for_more_than_its_file() {
    let file = (CONFIG, "containerRuntimeEndpoint: unix:///a\n");
    let with = |flags: &str| Made::of(&[file, (FLAGS, flags)]).kubelet();
    let alone = Made::of(&[file]).kubelet();
    let other = "KUBELET_KUBEADM_ARGS=\"--pod-infra-container-image=a/pause:3.9\"\n";
    assert_eq!(with(other), alone);
    assert_eq!(with(""), alone);
    for text in [
        "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///var/run/crio/crio.sock --a=b\"\n",
        "# a\nKUBELET_KUBEADM_ARGS='--a --container-runtime-endpoint unix:///var/run/crio/crio.sock'",
        "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=/b --container-runtime-endpoint=/var/run/crio/crio.sock\"",
    ] {
        let socket = with(text).socket();
        assert_eq!(socket, Path::new("/var/run/crio/crio.sock"), "{text}");
    }
    let moved = flags_file("--pod-manifest-path=/etc/pods");
    assert_eq!(with(&moved).manifests(), Path::new("/etc/pods"));
}

// 5-30 of the review: where packages have people put flags, as `--config-dir`; they stand behind those of kubeadm.
#[test]
fn flags_that_people_give_count_for_more_than_those_of_kubeadm() {
    let kubeadm = flags_file("--pod-manifest-path=/kubeadm --config-dir=/etc/none");
    let people = "# KUBELET_EXTRA_ARGS=--a\nKUBELET_EXTRA_ARGS=--pod-manifest-path=/old\n\
                  KUBELET_EXTRA_ARGS=\"--node-ip=10.0.0.1 --config-dir=/etc/kubelet.d\"\n";
    let drop_in = (
        "/etc/kubelet.d/a.conf",
        "containerRuntimeEndpoint: unix:///run/crio/crio.sock",
    );
    for file in EXTRA {
        let node = Made::of(&[(FLAGS, &kubeadm), (file, people), drop_in]);
        let kubelet = node.kubelet();
        assert_eq!(kubelet.manifests(), Path::new("/kubeadm"));
        assert_eq!(kubelet.socket(), Path::new("/run/crio/crio.sock"));
    }
    // Its package alone is no kubelet of a node.
    let alone = Made::of(&[(EXTRA[0], people)]);
    assert!(!settings(&alone).unwrap().is_there);
}

// 5-30 of the review: kubelet resolves what is relative in its file by where the file lies, and the rest by where it runs.
#[test]
fn a_relative_path_begins_where_kubelet_has_it_begin() {
    let moved = flags_file("--config=etc/kubelet/own.yaml --config-dir=etc/kubelet.d");
    let moved = (FLAGS, moved.as_str());
    let own = |text| ("/etc/kubelet/own.yaml", text);
    let drop_in = ("/etc/kubelet.d/a.conf", "staticPodPath: manifests");
    let file = (CONFIG, "staticPodPath: pods/../manifests/.");
    let [flag, above] = ["=manifests", " ../manifests/"]
        .map(|path| flags_file(&format!("--pod-manifest-path{path}")));
    for (files, expected) in [
        (&[file][..], "/var/lib/kubelet/manifests"),
        (
            &[moved, own("staticPodPath: manifests"), file][..],
            "/etc/kubelet/manifests",
        ),
        (&[moved, own("a: b"), drop_in][..], "/manifests"),
        (&[(FLAGS, &*flag)][..], "/manifests"),
        (&[(FLAGS, &*above)][..], "/manifests"),
    ] {
        let kubelet = Made::of(files).kubelet();
        assert_eq!(kubelet.manifests(), Path::new(expected), "{files:?}");
    }
}

// 5-30 of the review: a drop-in counts for more than the file and than those before it by name, and a flag for more than it.
#[test]
fn drop_ins_are_merged_over_the_file_in_the_order_of_their_names() {
    let told = flags_file("--config-dir /etc/kubelet.d");
    let at = |name: &str| format!("/etc/kubelet.d/{name}");
    let node = |drop_ins: &[(&str, &str)]| {
        let mut node = Made::of(&[
            (
                CONFIG,
                "staticPodPath: /file\ncontainerRuntimeEndpoint: unix:///file\n",
            ),
            (FLAGS, &told),
        ]);
        for (name, text) in drop_ins {
            node = node.with(&at(name), Thing::File((*text).to_owned()));
        }
        node
    };
    let path = |drop_ins: &[(&str, &str)]| node(drop_ins).kubelet().manifests().to_owned();
    assert_eq!(path(&[]), Path::new("/file"));
    let both = [
        ("20-a.conf", "staticPodPath: /b"),
        ("10-b.conf", "staticPodPath: /a"),
    ];
    assert_eq!(path(&both), Path::new("/b"));
    // Directories lie in the same order; other names are none of kubelet's.
    let deep = [
        ("20-a.conf", "staticPodPath: /b"),
        ("30/a.conf", "staticPodPath: /c"),
        ("40-a.yaml", "staticPodPath: /d"),
        ("50-a.conf.bak", "staticPodPath: ["),
    ];
    assert_eq!(path(&deep), Path::new("/c"));
    assert_eq!(node(&deep).kubelet().socket(), Path::new("/file"));
    // Null takes back.
    assert_eq!(
        path(&[("a.conf", "staticPodPath: null")]),
        Path::new(MANIFESTS)
    );
    assert_eq!(path(&[("a.conf", "maxPods: 3")]), Path::new("/file"));
    // A link to a file counts as one, a link to a directory is not gone into.
    let linked = node(&[])
        .with(&at("a.conf"), Thing::Link("/x/one".into()))
        .with(&at("b"), Thing::Link("/x".into()))
        .with("/x/one", Thing::File("staticPodPath: /one".to_owned()))
        .with("/x/two.conf", Thing::File("staticPodPath: /two".to_owned()));
    assert_eq!(linked.kubelet().manifests(), Path::new("/one"));
    let elsewhere = Thing::File(flags_file("--config-dir=/etc/link.d"));
    let linked = node(&both)
        .with("/etc/link.d", Thing::Link("/etc/kubelet.d".into()))
        .with(FLAGS, elsewhere);
    let broken = settings(&linked).unwrap().broken;
    assert_eq!(broken, [Path::new("/etc/link.d")]);
    let flag = flags_file("--config-dir=/etc/kubelet.d --pod-manifest-path=/flag");
    let over = node(&both).with(FLAGS, Thing::File(flag));
    assert_eq!(over.kubelet().manifests(), Path::new("/flag"));
    // Kubelet does not start with one that is cut off, or is not there behind its link.
    for thing in [
        Thing::File(String::new()),
        Thing::File("a: [".to_owned()),
        Thing::Link("/none".into()),
    ] {
        let cut = node(&both).with(&at("15.conf"), thing);
        let settings = settings(&cut).unwrap();
        assert_eq!(settings.broken, [PathBuf::from(at("15.conf"))]);
        assert_eq!(settings.kubelet.manifests(), Path::new("/b"));
    }
}

// 5-03 of the review: kubelet asks for no ending, follows links, and passes over what begins with a dot and what is no file.
#[test]
fn every_regular_file_of_the_directory_is_a_manifest_whatever_it_is_called() {
    let at = |name: &str| format!("{MANIFESTS}/{name}");
    let node = Made::of(&[
        (&at("etcd.yaml"), ""),
        (&at("etcd.yaml.bak"), ""),
        (&at("haproxy"), ""),
        (&at(".etcd.yaml.swp"), ""),
        (&at("old/etcd.yaml"), ""),
        ("/srv/pod", ""),
    ])
    .with(&at("pipe"), Thing::Pipe)
    .with(&at("linked"), Thing::Link("/srv/pod".into()))
    .with(&at("lost"), Thing::Link("/srv/none".into()))
    .with(&at("above"), Thing::Link("/srv".into()));
    let found = Kubelet::default().manifest_files(&node).unwrap();
    let expected = ["etcd.yaml", "etcd.yaml.bak", "haproxy", "linked", "lost"];
    assert_eq!(found, expected.map(|name| PathBuf::from(at(name))));
    // One file may be named instead.
    let one = Made::of(&[
        (CONFIG, "staticPodPath: /etc/pod.yaml"),
        ("/etc/pod.yaml", ""),
    ]);
    let found = one.kubelet().manifest_files(&one).unwrap();
    assert_eq!(found, [Path::new("/etc/pod.yaml")]);
}
