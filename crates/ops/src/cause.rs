//! Every cause that can be named: when, what to do next, and what would show that it is not the one. Only data.
//!
//! The order is the rank: what explains most, and is surest, comes first. What is certain of a disk, the store or a
//! certificate stands before what an API server says to one client; lines of logs alone stand behind both, and behind all
//! that was seen to be down; that nothing answers is a symptom, and stands last. `next` looks at something, writes a snapshot, or
//! renews a certificate that is of no use any more; never more.

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// A filesystem of the node cannot be written to.
    FilesystemReadOnly,
    /// One has no bytes left.
    DiskFull,
    /// One has no inodes left.
    InodesExhausted,
    /// The store has files that a full disk damaged.
    EtcdDamaged,
    /// The store says that its data differ.
    EtcdCorrupt,
    /// The store is above its quota.
    EtcdQuota,
    /// The clock is wrong.
    ClockWrong,
    /// A certificate has ended.
    CertificateExpired,
    /// A certificate has not begun.
    CertificateNotYetValid,
    /// A certificate is of another authority than it must be.
    CertificateWrongAuthority,
    /// A certificate cannot be read.
    CertificateUnreadable,
    /// The manifest of a static pod cannot be read.
    ManifestUnreadable,
    /// The manifest of a static pod is not there.
    ManifestMissing,
    /// A file that a static pod needs is not there.
    ManifestFileMissing,
    /// The container runtime is down.
    RuntimeDown,
    /// The container runtime does not answer.
    RuntimeSilent,
    /// kubelet does not start because of swap.
    KubeletSwap,
    /// kubelet does not run.
    KubeletDown,
    /// The store has no leader.
    EtcdNoLeader,
    /// The certificate is for other names.
    TlsName,
    /// The certificate is of an unknown authority.
    TlsUnknownAuthority,
    /// TLS fails in another way.
    TlsFailed,
    /// The credentials are not accepted.
    Unauthorized,
    /// The credentials may not do this.
    Forbidden,
    /// The kubeconfig cannot be used.
    KubeconfigUnusable,
    /// Something else has the port of the API server.
    PortTaken,
    /// kubelet kills pods for space.
    DiskPressure,
    /// The store does not answer.
    EtcdDown,
    /// A static pod does not run.
    StaticPodDown,
    /// The API server is not ready.
    NotReady,
    /// The kernel ended something for want of memory.
    OutOfMemory,
    /// An image of the control plane cannot be had.
    ImageMissing,
    /// Watches of inotify are used up.
    InotifyLimit,
    /// A quota is used up.
    QuotaExceeded,
    /// A limit of the kernel is reached, which is said with the words of a full disk.
    KernelLimit,
    /// Something said that a disk is full, and none is.
    NoSpaceUnexplained,
    /// Nothing listens behind the tunnel.
    TunnelRefused,
    /// Nothing listens.
    Refused,
    /// The connection is closed before a word.
    Closed,
    /// No answer in time.
    TimedOut,
    /// The network has no way.
    Unreachable,
    /// The name has no address.
    Unresolved,
    /// The answer is that of no API server.
    Odd,
}

/// What there is to know of a cause.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Which.
    pub cause: Cause,
    /// Its name in answers. Scripts depend on it.
    pub id: &'static str,
    /// The rule, in words: when it is named.
    pub when: &'static str,
    /// The next command, with the places of values in braces.
    pub next: &'static str,
    /// What would show that it is not the cause.
    pub disproof: &'static str,
}

// === impl Cause ===

impl Cause {
    /// What there is to know of it.
    pub fn row(self) -> &'static Row {
        // The table has a row for each, which a test holds.
        ROWS.iter()
            .find(|row| row.cause == self)
            .unwrap_or(&ROWS[0])
    }

    /// Its name in answers.
    pub fn id(self) -> &'static str {
        self.row().id
    }
}

const fn row(
    cause: Cause,
    id: &'static str,
    when: &'static str,
    next: &'static str,
    disproof: &'static str,
) -> Row {
    Row {
        cause,
        id,
        when,
        next,
        disproof,
    }
}

/// Every cause, by rank.
pub const ROWS: &[Row] = &[
    row(
        Cause::FilesystemReadOnly,
        "filesystem-read-only",
        "a filesystem with kubelet, the container runtime, etcd or logs on it cannot be written to; below another root only where the kernel withdrew it",
        "dmesg --level=err,crit | tail -n 50",
        "`findmnt --output VFS-OPTIONS,FS-OPTIONS --target {path}` shows rw twice",
    ),
    row(
        Cause::DiskFull,
        "disk-full",
        "a filesystem that the node lives from has less than 64 MiB available, the room of one WAL segment of etcd; a small one less than a hundredth of its size",
        "nagi disk clean {at_root}",
        "`df {point}` shows more available",
    ),
    row(
        Cause::InodesExhausted,
        "inodes-exhausted",
        "a filesystem that the node lives from has less than a thousandth of its inodes free, or less than 100, on other types than XFS and btrfs",
        "nagi disk clean {at_root}",
        "`df --inodes {point}` shows free inodes",
    ),
    row(
        Cause::EtcdDamaged,
        "etcd-damaged",
        "etcd does not answer, and has files that end in .snap.broken and are newer than its data, or ended with the words that its files are damaged",
        "ls -l {data_dir}/member/snap {data_dir}/member/wal",
        "etcd starts, and `etcdctl endpoint status` answers",
    ),
    row(
        Cause::EtcdCorrupt,
        "etcd-corrupt",
        "etcd has the alarm CORRUPT",
        "etcdctl {flags} endpoint hashkv --cluster",
        "`endpoint hashkv` gives one hash for all members at one revision",
    ),
    row(
        Cause::EtcdQuota,
        "etcd-quota",
        "etcd has the alarm NOSPACE, or says `mvcc: database space exceeded` and does not answer, and is then only looked at",
        "etcdctl {flags} snapshot save {snapshot}",
        "`etcdctl alarm list` is empty, and a write succeeds",
    ),
    row(
        Cause::ClockWrong,
        "clock-wrong",
        "the clock differs from the API server's by more than 5 minutes, or stands before the newest write of this node's own logs and store",
        "timedatectl status",
        "`date --utc` agrees with another machine",
    ),
    row(
        Cause::CertificateExpired,
        "certificate-expired",
        "a certificate of the control plane, of kubelet or of the kubeconfig has ended, in a file or in the handshake",
        "kubeadm certs renew {certificate} {cert_dir}",
        "`openssl x509 -noout -enddate -in {file}` shows a time to come, and the clock is right",
    ),
    row(
        Cause::CertificateNotYetValid,
        "certificate-not-yet-valid",
        "a certificate begins later than now, in a file or in the handshake",
        "timedatectl status",
        "`date --utc` is later than its beginning",
    ),
    row(
        Cause::CertificateWrongAuthority,
        "certificate-wrong-authority",
        "a certificate of the control plane or of a kubeconfig is not signed by the authority beside it",
        "openssl verify -CAfile {authority} {file}",
        "`openssl verify` says OK",
    ),
    row(
        Cause::CertificateUnreadable,
        "certificate-unreadable",
        "a file that must hold a certificate of the control plane holds none",
        "openssl x509 -noout -subject -in {file}",
        "`openssl x509` shows a subject",
    ),
    row(
        Cause::ManifestUnreadable,
        "manifest-unreadable",
        "the manifest of a static pod is no pod",
        "kubectl create --dry-run=client --filename {file}",
        "kubectl reads the file",
    ),
    row(
        Cause::ManifestMissing,
        "manifest-missing",
        "kubelet has manifests of a control plane, and the one of its API server or of its etcd is not among them",
        "ls -la {directory}",
        "the manifest is there, or the control plane runs it elsewhere",
    ),
    row(
        Cause::ManifestFileMissing,
        "manifest-file-missing",
        "a static pod names a file of the node that is not there",
        "ls -l {file}",
        "the file is there",
    ),
    row(
        Cause::RuntimeDown,
        "runtime-down",
        "nobody listens on the socket of the container runtime",
        "journalctl {at_root} --unit containerd --lines 50 --no-pager",
        "`crictl version` answers",
    ),
    row(
        Cause::RuntimeSilent,
        "runtime-silent",
        "the container runtime takes a call and does not answer",
        "journalctl {at_root} --unit containerd --lines 50 --no-pager",
        "`crictl version` answers within a second",
    ),
    row(
        Cause::KubeletSwap,
        "kubelet-swap",
        "kubelet does not run, and says that it does not start with swap on",
        "swapon --show",
        "`swapon --show` is empty",
    ),
    row(
        Cause::KubeletDown,
        "kubelet-down",
        "systemd knows kubelet, and it is not active or is started again and again",
        "journalctl {at_root} --unit kubelet --lines 50 --no-pager",
        "`systemctl is-active kubelet` says active for a minute",
    ),
    row(
        Cause::EtcdNoLeader,
        "etcd-no-leader",
        "etcd answers and knows no leader",
        "etcdctl {flags} endpoint status --cluster --write-out table",
        "one member is shown as leader",
    ),
    row(
        Cause::TlsName,
        "tls-name",
        "the certificate of the API server is of a trusted authority, and for other names than the kubeconfig's",
        "nagi recover kubeconfig --kubeconfig {holder} --cluster {cluster} --tls-server-name {name}",
        "`openssl s_client -connect {address} | openssl x509 -noout -ext subjectAltName` shows {expected}",
    ),
    row(
        Cause::TlsUnknownAuthority,
        "tls-unknown-authority",
        "the certificate of the API server is of an authority that the kubeconfig does not have",
        "openssl s_client -connect {address} -showcerts",
        "the issuer is the subject of the kubeconfig's certificate-authority",
    ),
    row(
        Cause::TlsFailed,
        "tls-failed",
        "the TLS handshake with the API server fails in another way",
        "openssl s_client -connect {address}",
        "openssl shows a certificate and no alert",
    ),
    row(
        Cause::Unauthorized,
        "unauthorized",
        "the API server answers 401",
        "KUBECONFIG={file} kubectl --context {context} auth whoami",
        "`kubectl auth whoami` shows a user",
    ),
    row(
        Cause::Forbidden,
        "forbidden",
        "the API server answers 403",
        "KUBECONFIG={file} kubectl --context {context} auth can-i get /readyz",
        "`kubectl auth can-i get /readyz` says yes",
    ),
    row(
        Cause::KubeconfigUnusable,
        "kubeconfig-unusable",
        "the kubeconfig is there and cannot be used",
        "KUBECONFIG={file} kubectl config view",
        "kubectl reads the file and calls the server",
    ),
    row(
        Cause::PortTaken,
        "port-taken",
        "another program has the port of the API server, or the API server says that its port is taken",
        "ss --tcp --listening --numeric --processes",
        "the port belongs to kube-apiserver, or to nobody",
    ),
    row(
        Cause::DiskPressure,
        "disk-pressure",
        "less is left than a hard eviction threshold of this node's kubelet",
        "nagi disk clean {at_root}",
        "`nagi disk {at_root}` no longer says that kubelet kills pods, for 5 minutes",
    ),
    row(
        Cause::EtcdDown,
        "etcd-down",
        "the manifest of etcd is there, and it does not answer",
        "crictl ps --all --name etcd",
        "`etcdctl endpoint status` answers",
    ),
    row(
        Cause::StaticPodDown,
        "static-pod-down",
        "a static pod has a manifest, the container runtime answers, and no container of it runs",
        "crictl ps --all --name {name}",
        "`crictl ps` shows it running for a minute",
    ),
    row(
        Cause::NotReady,
        "not-ready",
        "the API server answers, and says that it is not ready",
        "KUBECONFIG={file} kubectl --context {context} get --raw '/readyz?verbose'",
        "`/readyz` says ok",
    ),
    row(
        Cause::OutOfMemory,
        "out-of-memory",
        "the kernel says that it ended a process of the control plane, of kubelet or of the runtime, by its name, for want of memory",
        "journalctl {at_root} _TRANSPORT=kernel --grep 'out of memory|oom' --lines 20 --no-pager",
        "the process runs, and `free --human` shows memory available",
    ),
    row(
        Cause::ImageMissing,
        "image-missing",
        "kubelet says that an image of the control plane cannot be had",
        "crictl images",
        "the image is in the list",
    ),
    row(
        Cause::InotifyLimit,
        "inotify-limit",
        "a log says `no space left on device` or `too many open files` of an inotify watch",
        "sysctl fs.inotify",
        "the watches in use are fewer than `fs.inotify.max_user_watches`",
    ),
    row(
        Cause::QuotaExceeded,
        "quota-exceeded",
        "a log says `disk quota exceeded`",
        "repquota --all",
        "no quota of `repquota` is reached",
    ),
    row(
        Cause::KernelLimit,
        "kernel-limit",
        "a log says `no space left on device` of a path in /sys, /proc or /dev",
        "cat /proc/cgroups",
        "the same write succeeds",
    ),
    row(
        Cause::NoSpaceUnexplained,
        "no-space-unexplained",
        "a log says `no space left on device` of a path whose filesystem has room now",
        "nagi disk {at_root}",
        "the line does not come again",
    ),
    row(
        Cause::TunnelRefused,
        "tunnel-refused",
        "ssh listens here and closes at once, or says `open failed: connect failed: Connection refused`: the tunnel works, and nothing listens on the port of the API server behind it",
        "nagi recover diagnose --ssh {host}",
        "`ss -tln` on the node shows the port",
    ),
    row(
        Cause::Refused,
        "refused",
        "nothing listens on the port: no tunnel, or no API server",
        "ss --tcp --listening --numeric --processes",
        "`ss` shows a listener on the port",
    ),
    row(
        Cause::Closed,
        "closed",
        "something takes the connection and closes it before a word, and it is no tunnel that is known",
        "openssl s_client -connect {address}",
        "openssl shows a certificate",
    ),
    row(
        Cause::TimedOut,
        "timed-out",
        "the address does not answer in time",
        "ping -c 3 {host}",
        "`openssl s_client -connect {address}` shows a certificate within a second",
    ),
    row(
        Cause::Unreachable,
        "unreachable",
        "the network says that there is no way to the address",
        "ip route get {host}",
        "`ping` has an answer",
    ),
    row(
        Cause::Unresolved,
        "unresolved",
        "the name of the API server has no address",
        "getent hosts {host}",
        "`getent` shows an address",
    ),
    row(
        Cause::Odd,
        "odd-answer",
        "something answers on the address that is no API server",
        "openssl s_client -connect {address}",
        "the answer has a gitVersion",
    ),
];

/// Instead of the next command of `certificate-expired`, where kubeadm renews nothing: of kubelet's own it prints a kubeconfig
/// for the place of `kubelet.conf`; an authority is made anew by a person, and so is what kubeadm does not know.
pub const NOT_RENEWED: [&str; 2] = [
    "kubeadm kubeconfig user --org system:nodes --client-name {certificate}",
    "kubeadm certs check-expiration {cert_dir}",
];

/// The command with its values, each of them some words; each word is quoted where a shell would read it otherwise.
pub(crate) fn fill(template: &str, values: &[(&str, &[&str])]) -> String {
    let mut text = template.to_owned();
    for (name, words) in values {
        if words.is_empty() {
            text = text.replace(&format!(" {{{name}}}"), "");
        }
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        text = text.replace(&format!("{{{name}}}"), &words.join(" "));
    }
    text
}

/// A word of a shell that stands for this text. Names in certificates are written by others.
fn quoted(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+=,[]".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    // The rank is the order of the declaration, and every cause has its row.
    #[test]
    fn each_cause_has_one_row_in_the_order_of_its_rank() {
        let causes: Vec<Cause> = ROWS.iter().map(|row| row.cause).collect();
        assert!(causes.is_sorted_by(|one, other| one < other));
        for row in ROWS {
            assert_eq!(row.cause.id(), row.id);
        }
        // The match knows every cause; one without a row would be told as the first.
        for row in ROWS {
            assert_eq!(Cause::row(row.cause).cause, row.cause);
        }
    }

    #[test]
    fn names_that_others_wrote_are_no_commands() {
        let filled = fill(
            "run {a} {b}",
            &[("a", &["x.example", "y"]), ("b", &["a'; rm -rf / #"])],
        );
        assert_eq!(filled, "run x.example y 'a'\\''; rm -rf / #'");
        assert_eq!(quoted(""), "''");
    }

    // B11: what is advised first looks, or writes a snapshot. What has ended is of no use any more, and renewed.
    #[test]
    fn no_next_step_takes_anything_away() {
        const HARM: &[&str] = &[
            "--apply",
            "defrag",
            "compact",
            "disarm",
            "rm ",
            "rmi",
            "restart",
            "stop ",
            "kill",
            "renew",
            "reset",
            "prune",
            "mkfs",
            "fsck",
            "delete",
            "> ",
            "insecure-skip",
        ];
        for next in NOT_RENEWED {
            assert!(!HARM.iter().any(|harm| next.contains(harm)), "{next}");
        }
        for row in ROWS {
            for harm in HARM {
                let is_renewal = *harm == "renew" && row.cause == Cause::CertificateExpired;
                assert!(
                    is_renewal || !row.next.contains(harm),
                    "{}: {}",
                    row.id,
                    row.next
                );
            }
        }
    }
}
