//! Tables of mounts as kernels write them, and as they should not.

use std::os::unix::ffi::OsStrExt as _;

use proptest::prelude::*;

use super::*;

const NODE: &str = "\
22 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw,discard,errors=remount-ro
24 22 0:22 / /proc rw,nosuid - proc proc rw
30 22 0:26 / /run rw,nosuid master:2 shared:3 - tmpfs tmpfs rw,size=1617600k
40 22 259:2 / /var/lib/containerd rw - xfs /dev/nvme1n1 rw,prjquota
41 40 0:50 / /var/lib/containerd/x rw - overlay overlay ro,lowerdir=/a:/b,upperdir=/var/lib/up\\040per,workdir=/w
42 22 259:1 /home /srv/home ro - ext4 /dev/root rw
43 22 0:51 / /mnt/full\\134\\040disk rw - tmpfs  rw
";

fn node() -> Mounts {
    Mounts::parse(NODE.as_bytes()).unwrap()
}

fn at(mounts: &Mounts, path: &str) -> u32 {
    mounts.at(Path::new(path)).unwrap().id
}

// D-03
#[test]
fn every_field_of_a_line_is_read() {
    let mounts = node();
    let overlay = mounts.with_id(41).unwrap();
    assert_eq!(overlay.parent, 40);
    assert_eq!(
        overlay.device,
        Device {
            major: 0,
            minor: 50
        }
    );
    assert_eq!(overlay.kind, "overlay");
    assert_eq!(overlay.super_option("upperdir").unwrap(), "/var/lib/up per");
    assert_eq!(overlay.super_option("upper"), None);
    assert!(overlay.is_filesystem_read_only() && !overlay.is_read_only());
    let bound = mounts.with_id(42).unwrap();
    assert!(bound.is_read_only() && !bound.is_filesystem_read_only());
    let odd = mounts.with_id(43).unwrap();
    assert_eq!(odd.point, Path::new("/mnt/full\\ disk"));
    assert_eq!(odd.source, "", "a source may be empty");
    assert_eq!(
        mounts.with_id(30).unwrap().kind,
        "tmpfs",
        "two optional fields"
    );
}

#[test]
fn names_are_bytes_and_what_only_looks_like_an_escape_stays() {
    let line = b"1 0 8:1 / /\xff\\04x\\777 rw - ext4 /dev/a rw\n";
    let mounts = Mounts::parse(line).unwrap();
    let point = mounts.iter().next().unwrap().point.as_os_str();
    assert_eq!(point.as_bytes(), b"/\xff\\04x\\777");
}

#[test]
fn a_line_without_its_fields_is_an_error_with_its_number() {
    for (line, field) in [
        ("x", "id"),
        ("1", "parent"),
        ("1 2 8", "device"),
        ("1 2 8:1 /", "mount point"),
        ("1 2 8:1 / / rw shared:1", "'-'"),
        ("1 2 8:1 / / rw -", "type"),
        ("1 2 8:1 / / rw - ext4 /dev/a", "options of the filesystem"),
    ] {
        let error = Mounts::parse(format!("{NODE}{line}\n").as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("line 8 of mountinfo has no {field}")
        );
    }
    assert_eq!(Mounts::parse(b"").unwrap(), Mounts::default());
}

#[test]
fn a_path_leads_to_the_nearest_mount_and_not_to_a_name_that_only_begins_alike() {
    let mounts = node();
    assert_eq!(at(&mounts, "/"), 22);
    assert_eq!(at(&mounts, "/var/lib/etcd"), 22);
    assert_eq!(at(&mounts, "/var/lib/containerd/io"), 40);
    assert_eq!(at(&mounts, "/var/lib/containerd/x/y"), 41);
    assert_eq!(at(&mounts, "/var/lib/containerd-old"), 22);
    assert_eq!(Mounts::default().at(Path::new("/")), None);
}

#[test]
fn of_mounts_over_each_other_the_last_counts_and_what_it_covers_does_not() {
    let stacked = format!(
        "{NODE}50 40 8:2 / /var/lib/containerd rw - ext4 /dev/b rw\n\
         51 22 8:3 / /var/lib rw - ext4 /dev/c rw\n"
    );
    let mounts = Mounts::parse(stacked.as_bytes()).unwrap();
    assert_eq!(
        at(&mounts, "/var/lib/containerd"),
        51,
        "all of /var/lib is covered"
    );
    let stacked = stacked.lines().take(8).collect::<Vec<_>>().join("\n");
    let mounts = Mounts::parse(stacked.as_bytes()).unwrap();
    assert_eq!(at(&mounts, "/var/lib/containerd/io"), 50);
}

#[test]
fn a_table_that_runs_in_a_circle_ends() {
    let text =
        "1 1 8:1 / / rw - ext4 a rw\n2 3 8:1 / /a rw - ext4 a rw\n3 2 8:1 / /a rw - ext4 a rw\n";
    assert_eq!(at(&Mounts::parse(text.as_bytes()).unwrap(), "/a"), 1);
}

#[test]
fn a_filesystem_is_seen_through_as_few_mounts_as_show_all_of_it() {
    let ids = |mounts: &Mounts, device| -> Vec<u32> {
        mounts.views(device).iter().map(|mount| mount.id).collect()
    };
    let root = Device {
        major: 259,
        minor: 1,
    };
    assert_eq!(ids(&node(), root), [22], "/home is a part of it");
    let parts = "\
1 0 0:9 / / rw - overlay overlay rw
2 1 8:1 /pods/a /etc/hosts rw - ext4 /dev/a rw
3 1 8:1 /pods /data rw - ext4 /dev/a rw
4 1 8:1 /logs /logs rw - ext4 /dev/a rw
5 1 8:1 /gone//deleted /gone rw - ext4 /dev/a rw
";
    let device = Device { major: 8, minor: 1 };
    assert_eq!(
        ids(&Mounts::parse(parts.as_bytes()).unwrap(), device),
        [3, 4]
    );
}

/// As the kernel writes a name (`seq_path` escapes these four).
fn escape(name: &[u8]) -> Vec<u8> {
    name.iter().fold(Vec::new(), |mut text, byte| {
        if b" \t\n\\".contains(byte) {
            text.extend(format!("\\{byte:03o}").bytes());
        } else {
            text.push(*byte);
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_name_comes_back(name in prop::collection::vec(1_u8.., 0..40), source in prop::collection::vec(1_u8.., 0..9)) {
        let line = [b"7 1 8:1 / /", &escape(&name)[..], b" rw shared:9 - ext4 ", &escape(&source), b" rw,a=b"].concat();
        let mounts = Mounts::parse(&line).unwrap();
        let mount = mounts.iter().next().unwrap();
        prop_assert_eq!(mount.point.as_os_str().as_bytes(), [b"/", &name[..]].concat());
        prop_assert_eq!(mount.source.as_bytes(), source);
    }

    #[test]
    fn no_text_breaks_the_reader(text in prop::collection::vec(any::<u8>(), 0..200), lines in 0..8_usize) {
        let table: Vec<u8> = NODE.lines().take(lines).flat_map(|line| [line.as_bytes(), b"\n"].concat()).chain(text).collect();
        if let Ok(mounts) = Mounts::parse(&table) {
            mounts.at(Path::new("/var/lib"));
            for mount in mounts.iter() {
                mounts.views(mount.device);
            }
        }
    }
}
