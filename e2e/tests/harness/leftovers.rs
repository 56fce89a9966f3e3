//! What of a cluster is on the machine, found without the harness' own records.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nagi_e2e::call::Call;

/// What carries the name of one cluster.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    namespaces: BTreeSet<String>,
    links: BTreeSet<String>,
    rules: BTreeSet<String>,
    mounts: BTreeSet<String>,
    groups: BTreeSet<String>,
    processes: BTreeSet<String>,
    files: BTreeSet<String>,
}

// === impl Leftovers ===

impl Leftovers {
    /// Looks for everything of the cluster `name`, whose files are in `directory`.
    pub(crate) fn of(name: &str, directory: &Path) -> anyhow::Result<Self> {
        let mark = format!("nagi_{name}_");
        let alias = format!("nagi-cluster-{name}");
        let mut found = Self {
            namespaces: lines_with(&Call::new("ip").argument("netns").output()?, &mark),
            ..Self::default()
        };
        let links = Call::new("ip")
            .arguments(["-oneline", "link", "show"])
            .output()?;
        // Links of nodes name the bridge as their master.
        if let Some(bridge) = links.lines().find(|line| line.contains(&alias)) {
            let bridge = bridge.split(':').nth(1).unwrap_or_default().trim();
            found.links = lines_with(&links, bridge);
        }
        // Nodes have their own rules; in the machine's own network there is never one of ours.
        let rules = Call::new("iptables-save").output()?;
        found.rules = lines_with(&rules, "KUBE-");
        found.rules.extend(lines_with(&rules, "CNI-"));
        let directory_text = directory.display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        found.mounts = lines_with(&mounts, &directory_text);
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")? {
            let hierarchy = hierarchy?.path();
            let Ok(groups) = std::fs::read_dir(&hierarchy) else {
                continue;
            };
            for group in groups {
                let path = group?.path().display().to_string();
                if path.contains(&mark) {
                    found.groups.insert(path);
                }
            }
        }
        for process in std::fs::read_dir("/proc")? {
            let process = process?.path();
            let holds = |file: &str, text: &str| {
                let bytes = std::fs::read(process.join(file)).unwrap_or_default();
                bytes
                    .windows(text.len())
                    .any(|window| window == text.as_bytes())
            };
            let own = std::process::id().to_string();
            let is_this = process
                .file_name()
                .is_some_and(|name| name.as_bytes() == own.as_bytes());
            // One that has ended waits for its parent, the machine's first process, to ask how.
            let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
            let has_ended = stat
                .rsplit_once(") ")
                .is_none_or(|(_, rest)| rest.starts_with('Z'));
            if !is_this
                && !has_ended
                && (holds("cmdline", &directory_text)
                    || holds("environ", &directory_text)
                    || holds("cgroup", &mark))
            {
                found.processes.insert(process.display().to_string());
            }
        }
        if directory.exists() {
            found.files.insert(directory_text);
        }
        Ok(found)
    }

    /// Whether nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
            && self.mounts.is_empty()
            && self.counts().iter().all(|&count| count == 0)
    }

    /// Whether any process of it runs.
    pub(crate) fn has_processes(&self) -> bool {
        !self.processes.is_empty()
    }

    /// Whether everything that a running cluster has was found, so that finding nothing later means something.
    pub(crate) fn is_complete(&self) -> bool {
        self.counts().iter().all(|&count| count > 0)
    }

    /// Mounts and rules are left out: a cluster that does everything right never has one in the machine's own view.
    fn counts(&self) -> [usize; 5] {
        [
            self.namespaces.len(),
            self.links.len(),
            self.groups.len(),
            self.processes.len(),
            self.files.len(),
        ]
    }
}

fn lines_with(text: &str, part: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| line.contains(part))
        .map(str::to_owned)
        .collect()
}
