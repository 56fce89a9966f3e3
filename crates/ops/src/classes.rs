//! What lines of logs mean, by their words; and which of them only sound like a full disk.
//!
//! ENOSPC is the error of many limits. A line counts for a filesystem only when nothing in it says that a watch of inotify,
//! a control group or a quota is meant. The path in it is taken as it stands, so that it can be mapped to its filesystem.

use std::path::PathBuf;

use crate::observed::LineClass;

/// Words of which every line has one that means something: what journalctl is asked for. Lower case.
pub(crate) const WORDS: &[&str] = &[
    "no space left on device",
    "too many open files",
    "disk quota exceeded",
    "read-only file system",
    "database space exceeded",
    "unexpected eof",
    "walpb: crc mismatch",
    "snap: no available snapshot",
    "out of memory: kill",
    "oom-kill",
    "running with swap on",
    "address already in use",
    "errimageneverpull",
    "imagepullbackoff",
    "errimagepull",
    "open failed: connect failed: connection refused",
];

const INOTIFY: [&str; 4] = ["inotify", "fsnotify", "file watch", "watcher"];
/// Static pods of a control plane.
const CONTROL_PLANE: [&str; 4] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
];
/// Processes that a node or its control plane lives from, as the kernel names them: it cuts after 15 bytes.
const OF_THE_NODE: [&str; 12] = [
    "kube-apiserver",
    "kube-controller",
    "kube-scheduler",
    "etcd",
    "kubelet",
    "containerd",
    "dockerd",
    "cri-dockerd",
    "crio",
    "k3s",
    "k3s-server",
    "k0s",
];
const KERNEL: [&str; 3] = ["/sys/", "/proc/", "/dev/"];

/// What a line means. `source` is who wrote it; none when it means nothing here.
pub(crate) fn classify(source: &str, line: &str) -> Option<LineClass> {
    let text = line.to_ascii_lowercase();
    let has = |words: &str| text.contains(words);
    let is_watch = INOTIFY.iter().any(|word| has(word));
    if has("disk quota exceeded") {
        return Some(LineClass::Quota);
    }
    if has("no space left on device") {
        if is_watch {
            return Some(LineClass::InotifyLimit);
        }
        let path = path_before(line, "no space left on device");
        return Some(match path {
            Some(path) if KERNEL.iter().any(|kernel| path.starts_with(kernel)) => {
                LineClass::KernelLimit(path)
            }
            path => LineClass::NoSpace(path),
        });
    }
    if has("too many open files") && is_watch {
        return Some(LineClass::InotifyLimit);
    }
    if has("read-only file system") {
        return Some(LineClass::ReadOnly);
    }
    if has("database space exceeded") {
        return Some(LineClass::EtcdQuota);
    }
    if source.contains("etcd")
        && [
            "unexpected eof",
            "walpb: crc mismatch",
            "snap: no available snapshot",
        ]
        .iter()
        .any(|words| has(words))
        && is_fatal(&text)
    {
        return Some(LineClass::EtcdDamaged);
    }
    if ended_for_memory(&text).is_some_and(|name| OF_THE_NODE.contains(&name)) {
        return Some(LineClass::OutOfMemory);
    }
    if has("running with swap on") {
        return Some(LineClass::Swap);
    }
    if has("address already in use") && source.contains("kube-apiserver") {
        return Some(LineClass::PortTaken);
    }
    if has("open failed: connect failed: connection refused") {
        return Some(LineClass::TunnelRefused);
    }
    let is_image = ["errimageneverpull", "imagepullbackoff", "errimagepull"]
        .iter()
        .any(|words| has(words));
    let is_of_the_control_plane = CONTROL_PLANE
        .iter()
        .any(|name| has(&format!("kube-system/{name}")) || has(&format!("kube-system_{name}")));
    (is_image && is_of_the_control_plane).then_some(LineClass::Image)
}

/// etcd ended with this line. A connection that ends too early has the same error, and a level that says that it goes on.
fn is_fatal(text: &str) -> bool {
    // zap, a panic of Go, and capnslog of 3.4 in this order.
    [
        r#""level":"fatal""#,
        r#""level":"panic""#,
        "panic: ",
        " c | ",
    ]
    .iter()
    .any(|words| text.contains(words))
}

/// The name of the process that the kernel ended: `killed process 812 (etcd) total-vm`, or `oom-kill:…,task=etcd,pid=812`.
/// Who asked for the memory that was not there is another one.
fn ended_for_memory(text: &str) -> Option<&str> {
    if let Some((_, rest)) = text.split_once("out of memory: kill") {
        let (_, name) = rest.split_once('(')?;
        return Some(name.split_once(')')?.0);
    }
    let (_, rest) = text.split_once("oom-kill:")?;
    rest.split(',').find_map(|part| part.strip_prefix("task="))
}

/// The last absolute path before these words: errors of Go and C name it there, `write /a/b: no space left on device`.
fn path_before(line: &str, words: &str) -> Option<PathBuf> {
    let lower = line.to_ascii_lowercase();
    // ASCII letters only change their case, so places are the same in both.
    let before = line.get(..lower.find(words)?)?;
    let ends =
        |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '`' | '(' | '=' | '[');
    before
        .split(ends)
        .rev()
        .map(|word| word.trim_end_matches([':', ',', ';', ')', ']', '.']))
        .find(|word| word.len() > 1 && word.starts_with('/') && !word.starts_with("//"))
        .map(PathBuf::from)
}

/// Joins what was split over two lines: the first ends with a colon, the second begins with the error. B-007
pub(crate) fn joined(first: &str, second: &str) -> Option<String> {
    let first = first.trim_end();
    let second = second.trim_start();
    let is_error = second
        .get(.."no space left on device".len())
        .is_some_and(|head| head.eq_ignore_ascii_case("no space left on device"));
    (first.ends_with(':') && is_error).then(|| format!("{first} {second}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_space(path: &str) -> LineClass {
        LineClass::NoSpace(Some(path.into()))
    }

    // B-007
    #[test]
    fn the_path_of_a_full_disk_is_found_in_lines_of_each_program() {
        for (source, line, path) in [
            (
                "kubelet",
                "CreateContainerConfigError: write /var/lib/kubelet/pods/5f/etc-hosts: no space left on device",
                "/var/lib/kubelet/pods/5f/etc-hosts",
            ),
            (
                "kubelet",
                r#"E0101 12:00:00.0 1 pod.go:1] "Error syncing pod" err="failed to \"StartContainer\": write /var/lib/kubelet/pods/a/etc-hosts: no space left on device""#,
                "/var/lib/kubelet/pods/a/etc-hosts",
            ),
            (
                "containerd",
                r#"time="2026-01-01T00:00:00Z" level=error msg="failed to pull" error="copy failed: write /var/lib/containerd/io.containerd.content.v1.content/ingest/ab/data: no space left on device""#,
                "/var/lib/containerd/io.containerd.content.v1.content/ingest/ab/data",
            ),
            (
                "etcd",
                r#"{"level":"fatal","msg":"failed to commit tx","error":"write /var/lib/etcd/member/snap/db: no space left on device"}"#,
                "/var/lib/etcd/member/snap/db",
            ),
        ] {
            assert_eq!(classify(source, line), Some(no_space(path)), "{line}");
        }
        assert_eq!(
            classify("etcd", "cannot commit tx: No space left on device"),
            Some(LineClass::NoSpace(None))
        );
    }

    // B-007
    #[test]
    fn a_line_that_was_split_is_put_together() {
        let whole = joined(
            "CreateContainerConfigError: write /var/lib/kubelet/pods/.../etc-hosts:",
            "  no space left on device",
        );
        assert_eq!(
            classify("kubelet", &whole.unwrap()),
            Some(no_space("/var/lib/kubelet/pods/.../etc-hosts"))
        );
        assert_eq!(joined("all is well", "no space left on device"), None);
        assert_eq!(joined("x:", "something else"), None);
    }

    // D-04
    #[test]
    fn look_alikes_are_no_full_disk() {
        for (source, line, class) in [
            (
                "kubelet",
                "Failed to start cAdvisor inotify_add_watch /sys/fs/cgroup/cpu: no space left on device",
                LineClass::InotifyLimit,
            ),
            (
                "kubelet",
                "failed to create fsnotify watcher: too many open files",
                LineClass::InotifyLimit,
            ),
            (
                "kubelet",
                "mkdir /sys/fs/cgroup/memory/kubepods/burstable/pod1: no space left on device",
                LineClass::KernelLimit("/sys/fs/cgroup/memory/kubepods/burstable/pod1".into()),
            ),
            (
                "kubelet",
                "write /var/lib/kubelet/pods/a/volumes/b: disk quota exceeded",
                LineClass::Quota,
            ),
        ] {
            assert_eq!(classify(source, line), Some(class), "{line}");
        }
        for line in [
            "all is well",
            "open /a: too many open files",
            "unexpected EOF",
        ] {
            assert_eq!(classify("kubelet", line), None, "{line}");
        }
    }

    // B-004
    #[test]
    fn what_ssh_says_of_a_tunnel_is_known() {
        let line = "channel 2: open failed: connect failed: Connection refused";
        assert_eq!(classify("ssh", line), Some(LineClass::TunnelRefused));
        assert_eq!(
            classify("ssh", "connect to host a port 22: Connection refused"),
            None
        );
    }

    // What journalctl is asked for leaves out nothing that has a meaning.
    #[test]
    fn every_class_has_its_words() {
        for line in [
            "x: no space left on device",
            "inotify: too many open files",
            "a: Disk quota exceeded",
            "open /a: read-only file system",
            "etcdserver: mvcc: database space exceeded",
            "Out of memory: Killed process 1 (etcd)",
            "running with swap on is not supported",
            "channel 2: open failed: connect failed: Connection refused",
        ] {
            let lower = line.to_ascii_lowercase();
            assert!(classify("kubelet", line).is_some(), "{line}");
            assert!(WORDS.iter().any(|word| lower.contains(word)), "{line}");
        }
        assert_eq!(
            classify("etcd", "panic: unexpected EOF"),
            Some(LineClass::EtcdDamaged)
        );
        assert_eq!(
            classify("kube-apiserver", "bind: address already in use"),
            Some(LineClass::PortTaken)
        );
        assert_eq!(
            classify("kubelet", "pod kube-system/etcd-a: ImagePullBackOff"),
            Some(LineClass::Image)
        );
    }
}
