//! Debian packages: installed when root, otherwise named in the exact command to run.

use anyhow::{Context, bail};

use crate::command::{Run, on_path};

/// A package, and a program that is there once it is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Package<'a> {
    pub(super) program: &'a str,
    pub(super) name: &'a str,
}

/// What the tests run beside our own binary.
pub(super) const FOR_TESTS: &[Package<'static>] = &[
    Package {
        program: "git",
        name: "git",
    },
    Package {
        program: "cc",
        name: "gcc",
    },
    Package {
        program: "cc",
        name: "libc6-dev",
    },
    // The founding documents ask their questions with curl, jq and grep.
    Package {
        program: "curl",
        name: "curl",
    },
    Package {
        program: "jq",
        name: "jq",
    },
    // Tests and the blocks of pages run in a network of their own.
    Package {
        program: "ip",
        name: "iproute2",
    },
    // schemathesis is a Python program in an environment of its own.
    Package {
        program: "python3",
        name: "python3",
    },
];

/// What root's tests run besides: surveys and cleaning of real filesystems on loop devices. Nobody else can mount them.
pub(super) const FOR_TESTS_OF_ROOT: &[Package<'static>] = &[
    Package {
        program: "/usr/sbin/mkfs.ext4",
        name: "e2fsprogs",
    },
    Package {
        program: "/usr/sbin/mkfs.xfs",
        name: "xfsprogs",
    },
    Package {
        program: "/usr/bin/btrfs",
        name: "btrfs-progs",
    },
    Package {
        program: "/usr/sbin/losetup",
        name: "mount",
    },
    Package {
        program: "/usr/bin/setpriv",
        name: "util-linux",
    },
    // Jobs are installed into a real crontab.
    Package {
        program: "/usr/bin/crontab",
        name: "cron",
    },
    // Journals: cleaned by systemd's own program for comparison, and written by it.
    Package {
        program: "/usr/bin/journalctl",
        name: "systemd",
    },
    Package {
        program: "/lib/systemd/systemd-journal-remote",
        name: "systemd-journal-remote",
    },
    // Images are pulled from it, used and removed through it while others do the same.
    Package {
        program: "/usr/bin/containerd",
        name: "containerd",
    },
    Package {
        program: "/usr/sbin/runc",
        name: "runc",
    },
    // What tunnels and commands on other machines are tested against, on loopback with a configuration of the test.
    Package {
        program: "/usr/sbin/sshd",
        name: "openssh-server",
    },
    Package {
        program: "/usr/bin/ssh",
        name: "openssh-client",
    },
];

/// What the container image is built with beside Rust.
pub(super) const FOR_IMAGE: &[Package<'static>] = &[
    Package {
        program: "cc",
        name: "gcc",
    },
    Package {
        program: "musl-gcc",
        name: "musl-tools",
    },
];

/// What builds a Dockerfile.
pub(super) const FOR_RECIPE: &[Package<'static>] = &[Package {
    program: "buildah",
    name: "buildah",
}];

/// What the nodes of a test cluster are made of.
pub(super) const FOR_CLUSTERS: &[Package<'static>] = &[
    Package {
        program: "containerd",
        name: "containerd",
    },
    Package {
        program: "runc",
        name: "runc",
    },
    // Its programs are not on the path.
    Package {
        program: "/usr/lib/cni/ptp",
        name: "containernetworking-plugins",
    },
    Package {
        program: "iptables",
        name: "iptables",
    },
    Package {
        program: "conntrack",
        name: "conntrack",
    },
    Package {
        program: "ip",
        name: "iproute2",
    },
    Package {
        program: "nsenter",
        name: "util-linux",
    },
    Package {
        program: "mount",
        name: "mount",
    },
    // For a pod that asks for names.
    Package {
        program: "/bin/busybox",
        name: "busybox-static",
    },
    // Tests set the clock of one process with it.
    Package {
        program: "faketime",
        name: "faketime",
    },
    // A node that is a whole machine has a disk of its own and journals, and a certificate that has ended.
    Package {
        program: "/usr/sbin/mkfs.ext4",
        name: "e2fsprogs",
    },
    Package {
        program: "/lib/systemd/systemd-journald",
        name: "systemd",
    },
    Package {
        program: "/lib/systemd/systemd-journal-remote",
        name: "systemd-journal-remote",
    },
    Package {
        program: "openssl",
        name: "openssl",
    },
    Package {
        program: "pkill",
        name: "procps",
    },
];

/// Installs the packages whose program is not on the path.
pub(super) fn install_missing(packages: &[Package<'_>]) -> anyhow::Result<()> {
    let names = missing(packages, |program| on_path(program).is_some());
    install(&names)
}

/// Installs packages by name; does nothing when there are none.
pub(super) fn install(names: &[&str]) -> anyhow::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let list = names.join(" ");
    if on_path("apt-get").is_none() {
        bail!("missing: {list}\nhint: install what your distribution calls these Debian packages");
    }
    if !is_root()? {
        bail!(
            "missing: {list}\n\
             hint: run 'sudo apt-get update && sudo apt-get install --yes --no-remove --no-install-recommends {list}'"
        );
    }
    eprintln!("setup: installing {list}");
    Run::new("apt-get")
        .arguments(["update", "--quiet=2"])
        .aside()
        .finish()?;
    Run::new("apt-get")
        .arguments([
            "install",
            "--yes",
            "--quiet=2",
            "--no-install-recommends",
            // Nothing of the machine gives way to what the tests need.
            "--no-remove",
        ])
        .arguments(names)
        .environment("DEBIAN_FRONTEND", "noninteractive")
        .aside()
        .finish()
        .with_context(|| format!("install {list}"))
}

fn missing<'a>(packages: &[Package<'a>], present: impl Fn(&str) -> bool) -> Vec<&'a str> {
    packages
        .iter()
        .filter(|package| !present(package.program))
        .map(|package| package.name)
        .collect()
}

pub(super) fn is_root() -> anyhow::Result<bool> {
    Ok(Run::new("id").argument("-u").output()?.trim() == "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_whose_program_is_missing_are_installed() {
        assert_eq!(missing(FOR_TESTS, |_| true), [""; 0]);
        assert_eq!(missing(FOR_TESTS, |program| program != "jq"), ["jq"]);
        assert_eq!(
            missing(FOR_TESTS, |program| program != "cc"),
            ["gcc", "libc6-dev"]
        );
    }
}
