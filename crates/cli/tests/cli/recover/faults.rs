//! The faults that are injected, each with the cause that must be named first.

use std::fs::File;
use std::time::{Duration, SystemTime};

use super::loops;
use super::node::{API_SERVER, ETCD, Node, SOCKET, kubeconfig};
use super::runtime::State;
use super::servers::{self, Authority, ENDED, GOOD, TO_COME, http, status};
use super::tunnel;

/// One fault.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    /// The cause that must be first.
    pub(crate) cause: &'static str,
    pub(crate) inject: fn() -> Injected,
}

/// A node that was broken, and how it is asked. What it holds goes in this order: nothing lies below a mount any more when
/// its directory is removed.
pub(crate) struct Injected {
    _mounted: Option<loops::Mounted>,
    _tunnel: Option<tunnel::Tunnel>,
    pub(crate) node: Node,
    pub(crate) arguments: Vec<String>,
}

impl From<Node> for Injected {
    fn from(node: Node) -> Self {
        Self {
            node,
            arguments: Vec::new(),
            _mounted: None,
            _tunnel: None,
        }
    }
}

const fn fault(name: &'static str, cause: &'static str, inject: fn() -> Injected) -> Fault {
    Fault {
        name,
        cause,
        inject,
    }
}

/// The API server, as a client sees it. The first eight are those of D-01.
pub(crate) const ENDPOINTS: &[Fault] = &[
    fault("nothing listens", "refused", || Node::refused().into()),
    fault("a tunnel with nothing behind it", "tunnel-refused", || {
        let node = Node::new();
        let tunnel = tunnel::Tunnel::start(&node.root);
        node.reached_at(tunnel.port);
        Injected {
            _tunnel: Some(tunnel),
            ..node.into()
        }
    }),
    fault("no answer", "timed-out", || {
        impatient(reached(servers::silent()))
    }),
    fault("another name", "tls-name", || {
        presenting(&["ip-172-31-37-254", "kubernetes"], GOOD)
    }),
    fault("a certificate that ended", "certificate-expired", || {
        presenting(&["127.0.0.1"], ENDED)
    }),
    fault("another authority", "tls-unknown-authority", || {
        let node = Node::new();
        let other = Authority::new("other").pair("kube-apiserver", &["127.0.0.1"], GOOD);
        node.reached_at(servers::tls(&other, servers::ready()));
        node.into()
    }),
    fault("401", "unauthorized", || {
        answering(status(401, "Unauthorized", "Unauthorized"))
    }),
    fault("not ready", "not-ready", || {
        answering(http(
            "500 Internal Server Error",
            "[+]ping ok\n[-]etcd failed: reason withheld\nreadyz check failed\n",
        ))
    }),
    fault("403", "forbidden", || {
        answering(status(403, "Forbidden", "forbidden"))
    }),
    fault(
        "an address that the certificate has not",
        "tls-name",
        || presenting(&["10.0.0.1", "localhost"], GOOD),
    ),
    fault(
        "a certificate that has not begun",
        "certificate-not-yet-valid",
        || presenting(&["127.0.0.1"], TO_COME),
    ),
    fault(
        "an authority of the same name and another key",
        "tls-unknown-authority",
        || {
            let node = Node::new();
            let other = Authority::new("kubernetes").pair("kube-apiserver", &["127.0.0.1"], GOOD);
            node.reached_at(servers::tls(&other, servers::ready()));
            node.into()
        },
    ),
    fault("closed before a word", "closed", || {
        reached(servers::closing())
    }),
    fault("closed, and ssh said why", "tunnel-refused", || {
        let node = Node::new();
        node.reached_at(servers::closing());
        let log = node.root.join("tunnel.log");
        std::fs::write(
            &log,
            "channel 2: open failed: connect failed: Connection refused\r\n",
        )
        .unwrap();
        Injected {
            arguments: vec!["--log".to_owned(), log.display().to_string()],
            ..node.into()
        }
    }),
    fault("no TLS", "tls-failed", || {
        reached(servers::plain(|_| http("400 Bad Request", "no")))
    }),
    fault("a web server", "odd-answer", || {
        answering(http("200 OK", "<html>hello</html>"))
    }),
    fault("a clock that is ahead", "clock-wrong", || {
        answering(servers::ready().replacen(
            "\r\n",
            "\r\nDate: Thu, 01 Jan 2099 00:00:00 GMT\r\n",
            1,
        ))
    }),
    fault(
        "a kubeconfig that is cut off",
        "kubeconfig-unusable",
        || {
            let node = Node::new();
            node.write("etc/kubernetes/admin.conf", "apiVersion: v1\nclusters: [");
            node.into()
        },
    ),
    fault("a context that is not there", "kubeconfig-unusable", || {
        Injected {
            arguments: vec!["--context".to_owned(), "nowhere".to_owned()],
            ..Node::new().into()
        }
    }),
];

/// Somebody never answers: that is waited for, and not for long.
fn impatient(injected: Injected) -> Injected {
    Injected {
        arguments: ["--timeout", "3s"].map(str::to_owned).to_vec(),
        ..injected
    }
}

fn reached(port: u16) -> Injected {
    let node = Node::new();
    node.reached_at(port);
    node.into()
}

fn presenting(names: &[&str], years: servers::Years) -> Injected {
    let node = Node::new();
    let pair = node.authority.pair("kube-apiserver", names, years);
    node.reached_at(servers::tls(&pair, servers::ready()));
    node.into()
}

fn answering(answer: String) -> Injected {
    let node = Node::new();
    node.reached_at(servers::tls(&node.pair(&["127.0.0.1"]), answer));
    node.into()
}

/// What is wrong on the node, in its files.
pub(crate) const FILES: &[Fault] = &[
    fault(
        "the manifest of the API server is gone",
        "manifest-missing",
        || {
            let node = Node::refused();
            node.remove(API_SERVER);
            node.into()
        },
    ),
    fault("the manifest of etcd is gone", "manifest-missing", || {
        let node = Node::refused();
        node.remove(ETCD);
        node.into()
    }),
    fault(
        "a manifest that a full disk left empty",
        "manifest-unreadable",
        || {
            let node = Node::refused();
            node.write(API_SERVER, "");
            node.into()
        },
    ),
    fault("a manifest with an error", "manifest-unreadable", || {
        let node = Node::refused();
        node.write(API_SERVER, "kind: Pod\nmetadata: [");
        node.into()
    }),
    fault(
        "a key that a pod needs is gone",
        "manifest-file-missing",
        || {
            let node = Node::refused();
            node.remove("etc/kubernetes/pki/apiserver.key");
            node.into()
        },
    ),
    fault(
        "the certificate of the API server ended",
        "certificate-expired",
        || {
            let node = Node::refused();
            let pair = node
                .authority
                .pair("kube-apiserver", &["kubernetes"], ENDED);
            node.write("etc/kubernetes/pki/apiserver.crt", pair.certificate);
            node.into()
        },
    ),
    fault(
        "the certificate of etcd ended",
        "certificate-expired",
        || {
            let node = Node::refused();
            node.write_etcd_pair(&["127.0.0.1"], ENDED);
            node.into()
        },
    ),
    fault("kubelet's certificate ended", "certificate-expired", || {
        let node = Node::refused();
        let pair = node.authority.pair("system:node:a", &[], ENDED);
        node.write(
            "var/lib/kubelet/pki/kubelet-client-current.pem",
            pair.certificate + &pair.key,
        );
        node.into()
    }),
    fault(
        "the administrator's certificate ended",
        "certificate-expired",
        || {
            let node = Node::new();
            let pair = node.authority.pair("kubernetes-admin", &[], ENDED);
            node.write("etc/kubernetes/admin.crt", &pair.certificate);
            node.write("etc/kubernetes/admin.key", &pair.key);
            let server = servers::tls(
                &node.pair(&["127.0.0.1"]),
                status(401, "Unauthorized", "Unauthorized"),
            );
            let user = "client-certificate: admin.crt, client-key: admin.key";
            node.write_kubeconfig(
                &format!("https://127.0.0.1:{server}"),
                &node.authority.pem,
                user,
            );
            node.into()
        },
    ),
    fault(
        "a kubeconfig that was copied, and its certificate ended since",
        "certificate-expired",
        || {
            let node = Node::new();
            let pair = node.authority.pair("kubernetes-admin", &[], ENDED);
            node.write("home/admin.crt", &pair.certificate);
            node.write("home/admin.key", &pair.key);
            let refusal = status(401, "Unauthorized", "Unauthorized");
            let port = servers::tls(&node.pair(&["127.0.0.1"]), refusal);
            let user = "client-certificate: admin.crt, client-key: admin.key";
            let server = format!("https://127.0.0.1:{port}");
            node.write(
                "home/config",
                kubeconfig(&server, &node.authority.pem, user),
            );
            let file = node.root.join("home/config").display().to_string();
            Injected {
                arguments: vec!["--kubeconfig".to_owned(), file],
                ..node.into()
            }
        },
    ),
    fault(
        "a certificate that begins later",
        "certificate-not-yet-valid",
        || {
            let node = Node::refused();
            let pair = node
                .authority
                .pair("kube-apiserver", &["kubernetes"], TO_COME);
            node.write("etc/kubernetes/pki/apiserver.crt", pair.certificate);
            node.into()
        },
    ),
    fault(
        "a certificate of another authority",
        "certificate-wrong-authority",
        || {
            let node = Node::refused();
            let pair = Authority::new("other").pair("kube-apiserver", &["kubernetes"], GOOD);
            node.write("etc/kubernetes/pki/apiserver.crt", pair.certificate);
            node.into()
        },
    ),
    fault(
        "a certificate that is cut off",
        "certificate-unreadable",
        || {
            let node = Node::refused();
            node.write(
                "etc/kubernetes/pki/apiserver.crt",
                "-----BEGIN CERTIFICATE-----\nMIIB",
            );
            node.into()
        },
    ),
    fault("a journal of tomorrow", "clock-wrong", || {
        let node = Node::refused();
        node.write("var/lib/etcd/member/wal/0.wal", "x");
        let file = File::options()
            .append(true)
            .open(node.root.join("var/lib/etcd/member/wal/0.wal"));
        file.unwrap()
            .set_modified(SystemTime::now() + Duration::from_hours(24))
            .unwrap();
        node.into()
    }),
];

/// What runs on the node, and does not.
pub(crate) const PROGRAMS: &[Fault] = &[
    fault("the socket of the runtime is gone", "runtime-down", || {
        let node = Node::refused();
        node.remove(SOCKET);
        node.into()
    }),
    fault("the runtime hangs", "runtime-silent", || {
        let node = Node::refused();
        node.remove(SOCKET);
        let listener = std::os::unix::net::UnixListener::bind(node.root.join(SOCKET)).unwrap();
        std::thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok(taken) = listener.accept() {
                kept.push(taken);
            }
        });
        impatient(node.into())
    }),
    fault(
        "the API server ends again and again",
        "static-pod-down",
        || {
            let node = Node::refused();
            node.run_containers(&[
                ("kube-apiserver", State::Exited, 7),
                ("etcd", State::Running, 0),
            ]);
            node.into()
        },
    ),
    fault("no container at all", "static-pod-down", || {
        let node = Node::refused();
        node.run_containers(&[]);
        node.into()
    }),
    fault("another program has the port", "port-taken", || {
        let node = Node::refused();
        node.write_manifests(servers::silent(), Node::etcd_port(&[], true));
        node.into()
    }),
    fault("etcd does not listen", "etcd-down", || {
        let node = Node::refused();
        node.write_manifests(1, servers::closed());
        node.into()
    }),
    fault("etcd hangs", "etcd-down", || {
        let node = Node::refused();
        node.write_manifests(1, servers::silent());
        impatient(node.into())
    }),
    fault("etcd has no leader", "etcd-no-leader", || {
        let node = Node::refused();
        node.write_manifests(1, Node::etcd_port(&[], false));
        node.into()
    }),
    fault("etcd has the alarm CORRUPT", "etcd-corrupt", || {
        let node = Node::refused();
        node.write_manifests(1, Node::etcd_port(&["CORRUPT"], true));
        node.into()
    }),
    fault("etcd left a broken snapshot", "etcd-damaged", || {
        let node = Node::refused();
        node.write_manifests(1, servers::closed());
        node.write(
            "var/lib/etcd/member/snap/0000000000000001-00000000000000ff.snap.broken",
            "x",
        );
        node.into()
    }),
    fault(
        "etcd said that it is above its quota, and ended",
        "etcd-quota",
        || {
            let node = Node::refused();
            node.write_manifests(1, servers::closed());
            node.container_log("etcd", "etcdserver: mvcc: database space exceeded");
            node.into()
        },
    ),
];

const NO_SPACE: &str = "write /var/lib/kubelet/pods/5f/etc-hosts: no space left on device";

/// What journals say, and what only sounds like a full disk.
pub(crate) const LOGS: &[Fault] = &[
    fault(
        "ENOSPC of a disk that has room",
        "no-space-unexplained",
        || logging(&[("kubelet", 60, NO_SPACE)]),
    ),
    fault("ENOSPC in two lines", "no-space-unexplained", || {
        logging(&[
            (
                "kubelet",
                61,
                "CreateContainerConfigError: write /var/lib/kubelet/pods/5f/etc-hosts:",
            ),
            ("kubelet", 60, "no space left on device"),
        ])
    }),
    fault("ENOSPC that is long past", "refused", || {
        logging(&[("kubelet", 7200, NO_SPACE)])
    }),
    fault("ENOSPC of somebody else", "refused", || {
        logging(&[("some-app", 60, NO_SPACE)])
    }),
    fault("no watches", "inotify-limit", || {
        logging(&[(
            "kubelet",
            60,
            "inotify_add_watch /sys/fs/cgroup/cpu: no space left on device",
        )])
    }),
    fault("a control group", "kernel-limit", || {
        logging(&[(
            "kubelet",
            60,
            "mkdir /sys/fs/cgroup/memory/kubepods/pod1: no space left on device",
        )])
    }),
    fault("a quota", "quota-exceeded", || {
        logging(&[(
            "kubelet",
            60,
            "write /var/lib/kubelet/pods/a/b: disk quota exceeded",
        )])
    }),
    fault("out of memory", "out-of-memory", || {
        logging(&[(
            "kernel",
            60,
            "Out of memory: Killed process 812 (kube-apiserver) total-vm:1",
        )])
    }),
    fault("an image that is gone", "image-missing", || {
        logging(&[(
            "kubelet",
            60,
            "Error syncing pod kube-system/kube-apiserver-a: ImagePullBackOff",
        )])
    }),
];

fn logging(lines: &[(&str, u64, &str)]) -> Injected {
    let node = Node::refused();
    node.log(lines);
    node.into()
}

/// Real filesystems. On a node with a full disk all the rest is down too.
pub(crate) const DISKS: &[Fault] = &[
    fault("ext4 without a byte under kubelet", "disk-full", || {
        full("ext4", "var/lib/kubelet")
    }),
    fault("ext4 without a byte under etcd", "disk-full", || {
        full("ext4", "var/lib/etcd")
    }),
    fault("ext4 without a byte under the logs", "disk-full", || {
        full("ext4", "var/log")
    }),
    fault("XFS without a byte", "disk-full", || {
        full("xfs", "var/lib/kubelet")
    }),
    fault("btrfs without a byte", "disk-full", || {
        full("btrfs", "var/lib/kubelet")
    }),
    fault("ext4 without an inode", "inodes-exhausted", || {
        let injected = mounted("ext4", "var/lib/kubelet", 64, &["-N", "1024"]);
        loops::take_inodes(&injected.node.root.join("var/lib/kubelet"));
        injected
    }),
    fault(
        "ext4 that the kernel withdrew",
        "filesystem-read-only",
        || {
            let injected = mounted("ext4", "var/lib/kubelet", 64, &[]);
            loops::withdraw(&injected.node.root.join("var/lib/kubelet"));
            injected
        },
    ),
    fault("less than kubelet's threshold", "disk-pressure", || {
        let injected = mounted("ext4", "var/lib/kubelet", 400, &["-m", "0"]);
        loops::fill_to(&injected.node.root.join("var/lib/kubelet"), 93);
        injected
    }),
    fault(
        "a full disk, and all that it brings down",
        "disk-full",
        || {
            let injected = full("ext4", "var/lib/kubelet");
            let node = &injected.node;
            node.log(&[
                ("kubelet", 60, NO_SPACE),
                (
                    "kubelet",
                    50,
                    "inotify_add_watch /a: no space left on device",
                ),
            ]);
            node.write_manifests(1, servers::closed());
            node.remove(SOCKET);
            node.reached_at(servers::closing());
            injected
        },
    ),
    fault(
        "a full disk beside the one that the log names",
        "disk-full",
        || {
            let injected = full("ext4", "var/lib/etcd");
            injected.node.log(&[("kubelet", 60, NO_SPACE)]);
            injected
        },
    ),
];

/// The node's own root is a small part of this machine's disk: what a test mounts is all that can be full.
fn mounted(fstype: &str, point: &str, mebibytes: u64, options: &[&str]) -> Injected {
    let node = Node::refused();
    let mounted = loops::mount(&node.root.join(point), fstype, mebibytes, options);
    Injected {
        _mounted: Some(mounted),
        ..node.into()
    }
}

pub(crate) fn full(fstype: &str, point: &str) -> Injected {
    // XFS is made from 300 MiB up.
    let injected = mounted(fstype, point, if fstype == "xfs" { 320 } else { 128 }, &[]);
    loops::fill(&injected.node.root.join(point));
    injected
}
