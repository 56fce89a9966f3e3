//! Looking at everything at once, each area for itself and none longer than the deadline.
//!
//! Nothing here judges, writes or repairs. An area that fails leaves its reason and holds no other up; what one area
//! needs of another (where etcd listens, which socket kubelet uses) is read from files first, which takes milliseconds.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nagi_runtime::{Blocking, Deadline};

use crate::certificates;
use crate::cri::{self, Socket};
use crate::endpoint::{self, Chosen};
use crate::etcd::{self, Member};
use crate::listeners;
use crate::logs;
use crate::manifests;
use crate::observed::{
    Area, Endpoint, Etcd, EtcdAnswer, Filesystem, Line, LineClass, Looked, Manifest, Observed,
    Runtime, Unit, Unseen,
};
use crate::root::Root;
use crate::units;

/// Beside the journals, what is written often enough to tell that a clock is slow.
const WRITTEN: &str = "/var/lib/etcd/member/wal";
/// Threads that read files at one time: so many looks there are, so one that hangs holds no other up.
const READERS: usize = 12;
/// Beyond the deadline: the lines that were read until then are found on their filesystems, which takes milliseconds.
const LOCATING: Duration = Duration::from_millis(300);

/// What is to be looked at.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the root of the node is seen: `/`, or `/host` in a pod.
    pub root: PathBuf,
    /// The node does not run: only its files are looked at.
    pub files_only: bool,
    /// The kubeconfigs to call the API server by, of this machine; of several, those that are not there are left out, as
    /// kubectl does.
    pub kubeconfigs: Vec<PathBuf>,
    /// The one to call it by where none is named, if it is there; else that of the node's administrator is.
    pub usual: Option<PathBuf>,
    /// Its context; none means the current one.
    pub context: Option<String>,
    /// Saved logs to read as well.
    pub logs: Vec<PathBuf>,
    /// How far back lines of logs count.
    pub window: Duration,
    /// How long a probe may take; they run at the same time.
    pub timeout: Duration,
    /// Wall time.
    pub now: Timestamp,
}

/// What is known of disks, from where that is known.
pub trait Disks: Send + Sync + 'static {
    /// Every filesystem with what lives on it.
    ///
    /// # Errors
    /// They cannot be seen.
    fn look(&self) -> Looked<Vec<Filesystem>>;

    /// The mount point of the filesystem that a path of the node lies on, or would lie on: the nearest directory of it that
    /// is there decides.
    fn point_of(&self, path: &Path) -> Option<PathBuf>;
}

/// The kubeconfigs of a node that an administrator has, in the order in which they are looked for.
const ADMIN: [&str; 3] = [
    "/etc/kubernetes/admin.conf",
    "/etc/kubernetes/super-admin.conf",
    "/etc/rancher/k3s/k3s.yaml",
];

/// What a node that runs is asked.
#[derive(Debug)]
struct Asked {
    endpoint: Looked<Endpoint>,
    units: Looked<Vec<Unit>>,
    containers: Looked<Runtime>,
    etcd: Looked<Etcd>,
    journal: Looked<logs::Journal>,
}

/// The files of the node, and the threads that may wait for them.
#[derive(Debug, Clone, Copy)]
struct NodeFiles<'a> {
    root: &'a Arc<Root>,
    files: &'a Blocking,
    deadline: Deadline,
}

/// Looks at everything.
///
/// # Errors
/// The root of the node cannot be opened.
pub async fn observe(request: &Request, disks: Arc<dyn Disks>) -> std::io::Result<Observed> {
    let deadline = Deadline::in_(request.timeout);
    let root = Arc::new(Root::open(&request.root)?);
    let files = Blocking::new("files of the node", READERS);
    let own = Arc::clone(&root);
    let first = files.run(move || {
        let kubelet = manifests::kubelet(&own);
        let manifests = manifests::look(&own, &kubelet);
        let socket = Socket::of(&own, &kubelet);
        (socket, manifests, newest_write(&own))
    });
    let (socket, manifests, newest_write) = match within(first, deadline).await {
        Ok(read) => read,
        Err(why) => (Socket::unseen(&root), Err(why), None),
    };
    let known = manifests.clone().unwrap_or_default();
    let mut partly_unseen = Vec::new();
    let since = logs::since(request.now, request.window);
    let own = Arc::clone(&root);
    let of_certificates = known.clone();
    let certificates = files.run(move || certificates::look(&own, &of_certificates));
    let own = Arc::clone(&root);
    let of_pods = known.clone();
    let pods = files.run(move || logs::pods(&own, &of_pods, since));
    let proc = if request.files_only {
        None
    } else {
        Some(request.root.join("proc"))
    };
    let listening = files.run(move || proc.map(|proc| listeners::look(&proc)));
    let of_disks = Arc::clone(&disks);
    let filesystems = files.run(move || of_disks.look());
    let logs = request.logs.clone();
    let named = files.run(move || named(&logs));
    let node = NodeFiles {
        root: &root,
        files: &files,
        deadline,
    };
    let asked = ask(request, node, socket, &manifests, since);
    let (certificates, pods, listening, filesystems, named, asked) = tokio::join!(
        within(certificates, deadline),
        within(pods, deadline),
        within(listening, deadline),
        within(filesystems, deadline),
        within(named, deadline),
        asked,
    );
    let listeners = match listening {
        Ok(Some(listeners)) => listeners,
        Ok(None) => Err(only_files()),
        Err(why) => Err(why),
    };
    let endpoint = asked.endpoint.map(|endpoint| match &listeners {
        Ok(listeners) => endpoint::with_listener(endpoint, listeners),
        Err(_) => endpoint,
    });
    let [pods, named] = [pods, named].map(|seen| seen.and_then(|lines| lines));
    let (journal, cut) = match asked.journal {
        Ok(read) => (Ok(read.lines), read.cut),
        Err(unseen) => (Err(unseen), None),
    };
    partly_unseen.extend(cut.map(|why| (Area::Logs, why)));
    let (lines, failed) = gathered([journal, pods, named]);
    partly_unseen.extend(failed.map(|why| (Area::Logs, Unseen::Failed(why))));
    let certificates = certificates.and_then(|seen| seen).map(|found| {
        let denied = found.denied.map(Unseen::Failed);
        partly_unseen.extend(denied.map(|why| (Area::Certificates, why)));
        found.files
    });
    let seen = filesystems
        .as_ref()
        .ok()
        .and_then(|seen| seen.as_deref().ok());
    partly_unseen.extend(space_unseen(seen.unwrap_or_default()));
    let places = Places {
        disks,
        files: &files,
    };
    let (lines, point, why) = places.of(lines, asked.etcd.as_ref().ok()).await;
    partly_unseen.extend(why.map(|why| (Area::Logs, why)));
    let etcd = asked.etcd.map(|etcd| Etcd { point, ..etcd });
    partly_unseen.extend(etcd_unseen(etcd.as_ref().ok()).map(|why| (Area::Etcd, why)));
    Ok(Observed {
        root: request.root.clone(),
        filesystems: holding(filesystems.and_then(|seen| seen), etcd.as_ref().ok()),
        endpoint,
        units: asked.units,
        listeners,
        containers: asked.containers,
        manifests,
        etcd,
        certificates,
        lines,
        newest_write,
        partly_unseen,
    })
}

async fn ask(
    request: &Request,
    node: NodeFiles<'_>,
    socket: Socket,
    manifests: &Looked<Vec<Manifest>>,
    since: Timestamp,
) -> Asked {
    let deadline = node.deadline;
    let is_readable = node.look(logs::readable);
    let journal = async {
        is_readable.await??;
        logs::journal(&request.root, (since, request.now), deadline).await
    };
    if request.files_only {
        return Asked {
            endpoint: Err(only_files()),
            units: Err(only_files()),
            containers: Err(only_files()),
            etcd: Err(only_files()),
            journal: journal.await,
        };
    }
    let (endpoint, units, containers, etcd, journal) = tokio::join!(
        endpoint_of(request, node),
        units_of(node.root, deadline),
        containers_of(socket, manifests, deadline),
        etcd_of(node, manifests),
        journal,
    );
    Asked {
        endpoint,
        units,
        containers,
        etcd,
        journal,
    }
}

fn only_files() -> Unseen {
    Unseen::NotHere("only files are looked at, as --files-only says".to_owned())
}

async fn endpoint_of(request: &Request, node: NodeFiles<'_>) -> Looked<Endpoint> {
    let named = request.clone();
    let chosen = node.look(move |root| chosen(&named, root)).await??;
    endpoint::probe(
        chosen,
        request.context.as_deref(),
        request.now,
        node.deadline,
    )
    .await
}

/// The kubeconfigs, read: those that are named, the usual one, or the administrator's on the node.
pub(crate) fn chosen(request: &Request, root: &Root) -> Looked<Chosen> {
    let context = request.context.as_deref();
    let named = &request.kubeconfigs;
    let mut paths: Vec<&PathBuf> = named.iter().collect();
    if named.len() > 1 {
        paths.retain(|path| path.exists());
    }
    if named.is_empty() {
        paths.extend(request.usual.iter().filter(|usual| usual.exists()));
    }
    if let Some(first) = paths.first() {
        let failed =
            |error: std::io::Error| Unseen::Failed(format!("{}: {error}", first.display()));
        let own = Root::open(Path::new("/")).map_err(failed)?;
        let paths: std::io::Result<Vec<PathBuf>> = paths.iter().map(std::path::absolute).collect();
        return Ok(Chosen::read(&own, &paths.map_err(failed)?, context));
    }
    for path in ADMIN.map(Path::new) {
        match root.file(path) {
            Ok(_) => return Ok(Chosen::read(root, &[path.to_owned()], context)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Unseen::Failed(format!("{}: {error}", path.display())));
            }
        }
    }
    Err(Unseen::NotHere(
        "no kubeconfig: neither --kubeconfig nor KUBECONFIG names one, and ~/.kube/config and /etc/kubernetes/admin.conf are not there".to_owned(),
    ))
}

/// The node has a kubeconfig of its own cluster's administrator; the usual one of a person may lead to another.
pub fn has_admin(root: &Path) -> bool {
    let [admin, ..] = ADMIN;
    Root::open(root).is_ok_and(|root| root.file(Path::new(admin)).is_ok())
}

async fn units_of(root: &Root, deadline: Deadline) -> Looked<Vec<Unit>> {
    if !root.is_own() {
        return Err(Unseen::NotHere(
            "systemd of this machine does not know the units of another root".to_owned(),
        ));
    }
    units::look(deadline).await
}

/// A machine without manifests, settings of kubelet and a socket has no reason to run a container runtime.
async fn containers_of(
    socket: Socket,
    manifests: &Looked<Vec<Manifest>>,
    deadline: Deadline,
) -> Looked<Runtime> {
    if has_none(manifests) && !socket.is_there {
        return Err(Unseen::NotHere(format!(
            "no static pods, and no container runtime at {}",
            socket.shown.display()
        )));
    }
    let manifests = manifests.as_deref().unwrap_or_default();
    let pods: Vec<_> = manifests
        .iter()
        .filter_map(|one| one.pod.as_ref().ok())
        .collect();
    cri::look(socket, &pods, deadline).await
}

/// There are no static pods. Where the manifests could not be read there may be.
fn has_none(manifests: &Looked<Vec<Manifest>>) -> bool {
    match manifests {
        Ok(manifests) => manifests.is_empty(),
        Err(Unseen::NotHere(_)) => true,
        Err(Unseen::Failed(_)) => false,
    }
}

async fn etcd_of(node: NodeFiles<'_>, manifests: &Looked<Vec<Manifest>>) -> Looked<Etcd> {
    if let Err(Unseen::Failed(_)) = manifests {
        return Err(Unseen::Failed(
            "where it is reached stands in its manifest, which could not be read".to_owned(),
        ));
    }
    let manifests = manifests.as_deref().unwrap_or_default();
    let pods = manifests.iter().filter_map(|one| one.pod.as_ref().ok());
    let Some(pod) = pods.into_iter().find(|pod| pod.name == "etcd") else {
        return Err(Unseen::NotHere(
            "there is no manifest of etcd on this machine".to_owned(),
        ));
    };
    let member = Member::of(pod);
    let known = member.clone();
    let files = node.look(move |root| etcd::files(root, &known)).await??;
    Ok(etcd::look(member, files, node.deadline).await)
}

/// What the node lives from, and does not say how full it is.
fn space_unseen(filesystems: &[Filesystem]) -> impl Iterator<Item = (Area, Unseen)> {
    let silent = filesystems
        .iter()
        .filter(|one| one.space.is_none() && !one.holds.is_empty());
    silent.map(|one| {
        let why = format!("{} did not say how full it is", one.point.display());
        (Area::Filesystems, Unseen::Failed(why))
    })
}

/// What etcd did not tell, though somebody answered.
fn etcd_unseen(etcd: Option<&Etcd>) -> Option<Unseen> {
    match &etcd?.answer {
        EtcdAnswer::Status(status) => status.alarms.as_ref().err().cloned(),
        EtcdAnswer::Odd(why) => Some(Unseen::Failed(why.clone())),
        EtcdAnswer::Refused | EtcdAnswer::Failed(_) => None,
    }
}

/// Filesystems of paths, which are found on a thread that may wait.
struct Places<'a> {
    disks: Arc<dyn Disks>,
    files: &'a Blocking,
}

// === impl Places ===

impl Places<'_> {
    /// Those of the lines, and that of the store's data; or the lines as they were, and why.
    async fn of(
        self,
        lines: Looked<Vec<Line>>,
        etcd: Option<&Etcd>,
    ) -> (Looked<Vec<Line>>, Option<PathBuf>, Option<Unseen>) {
        let plain = lines.clone();
        let placed = etcd.filter(|etcd| etcd.is_placed);
        let data_dir = placed.map(|etcd| etcd.data_dir.clone());
        let disks = self.disks;
        let found = self.files.run(move || {
            let point = data_dir.and_then(|data_dir| disks.point_of(&data_dir));
            (located(lines, disks.as_ref()), point)
        });
        if let Ok((lines, point)) = within(found, Deadline::in_(LOCATING)).await {
            return (lines, point, None);
        }
        let why = "on which filesystems their paths lie was not told in time";
        (plain, None, Some(Unseen::Failed(why.to_owned())))
    }
}

// === impl NodeFiles ===

impl NodeFiles<'_> {
    /// One look on a thread that may wait.
    fn look<T: Send + 'static>(
        self,
        look: impl FnOnce(&Root) -> T + Send + 'static,
    ) -> impl Future<Output = Looked<T>> {
        let root = Arc::clone(self.root);
        let files = self.files.clone();
        async move { within(files.run(move || look(&root)), self.deadline).await }
    }
}

/// A blocking look, no longer than the deadline: a disk that hangs holds its thread and nothing else.
async fn within<T>(
    work: impl Future<Output = Result<T, nagi_runtime::BlockingError>>,
    deadline: Deadline,
) -> Looked<T> {
    match deadline.timeout(work).await {
        Err(_) => Err(Unseen::Failed("no answer in time".to_owned())),
        Ok(Err(error)) => Err(Unseen::Failed(error.to_string())),
        Ok(Ok(seen)) => Ok(seen),
    }
}

fn named(files: &[PathBuf]) -> Looked<Vec<Line>> {
    let mut lines = Vec::new();
    for file in files {
        let read = logs::named(file);
        lines.extend(read.map_err(|why| Unseen::Failed(format!("{}: {why}", file.display())))?);
    }
    if files.is_empty() {
        return Err(Unseen::NotHere("no log is named".to_owned()));
    }
    Ok(lines)
}

/// All lines by their time. One source that is there and cannot be read makes the area unseen only where the others have
/// nothing: what was said counts, whoever else is silent. Then its reason is beside them.
fn gathered(sources: [Looked<Vec<Line>>; 3]) -> (Looked<Vec<Line>>, Option<String>) {
    let mut lines = Vec::new();
    let mut failed = None;
    let mut absent = Vec::new();
    let mut is_seen = false;
    for source in sources {
        match source {
            Ok(found) => {
                is_seen = true;
                lines.extend(found);
            }
            Err(Unseen::Failed(why)) => failed = failed.or(Some(why)),
            Err(Unseen::NotHere(why)) => absent.push(why),
        }
    }
    if !lines.is_empty() || (is_seen && failed.is_none()) {
        lines.sort_by_key(|line| line.at);
        return (Ok(lines), failed);
    }
    let why = match failed {
        Some(why) => Unseen::Failed(why),
        None => Unseen::NotHere(absent.join("; ")),
    };
    (Err(why), None)
}

/// Says on which filesystem the path of each line lies.
fn located(lines: Looked<Vec<Line>>, disks: &dyn Disks) -> Looked<Vec<Line>> {
    let mut lines = lines?;
    for line in &mut lines {
        if let LineClass::NoSpace(Some(path)) = &line.class {
            line.point = disks.point_of(path);
        }
    }
    Ok(lines)
}

/// The data of etcd may lie where nobody looks unless told.
fn holding(filesystems: Looked<Vec<Filesystem>>, etcd: Option<&Etcd>) -> Looked<Vec<Filesystem>> {
    let mut filesystems = filesystems?;
    if let Some(etcd) = etcd {
        let here = filesystems
            .iter_mut()
            .find(|one| Some(&one.point) == etcd.point.as_ref());
        if let Some(one) = here
            && !one.holds.contains(&etcd.data_dir)
        {
            one.holds.push(etcd.data_dir.clone());
        }
    }
    Ok(filesystems)
}

fn newest_write(root: &Root) -> Option<(PathBuf, Timestamp)> {
    let mut newest: Option<(PathBuf, Timestamp)> = None;
    let mut look = |directory: &Path| {
        for entry in root.list(directory).unwrap_or_default() {
            let Some(at) = entry.modified.and_then(|at| Timestamp::try_from(at).ok()) else {
                continue;
            };
            if !entry.is_directory() && newest.as_ref().is_none_or(|(_, known)| at > *known) {
                newest = Some((directory.join(entry.name), at));
            }
        }
    };
    for directory in logs::JOURNALS.into_iter().chain([WRITTEN]).map(Path::new) {
        look(directory);
        // Journals lie in a directory for each machine.
        for entry in root.list(directory).unwrap_or_default() {
            if entry.is_directory() {
                look(&directory.join(entry.name));
            }
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::observed::Writable;

    /// A volume behind a network that is gone: who asks for a path on it waits.
    struct Dead;

    impl Disks for Dead {
        fn look(&self) -> Looked<Vec<Filesystem>> {
            Ok(vec![Filesystem {
                point: "/volume".into(),
                fstype: "ext4".to_owned(),
                writable: Writable::Yes,
                space: None,
                holds: vec!["/var/lib/kubelet".into()],
                evicting: Vec::new(),
            }])
        }

        fn point_of(&self, _: &Path) -> Option<PathBuf> {
            loop {
                std::thread::park();
            }
        }
    }

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread that hangs, where the rule does not hold, is one that nobody can wait for"
    )]
    fn a_path_on_a_volume_that_hangs_holds_nobody_up() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("saved.log");
        std::fs::write(&log, "write /volume/a: no space left on device\n").unwrap();
        let request = Request {
            root: directory.path().to_owned(),
            files_only: true,
            kubeconfigs: Vec::new(),
            usual: None,
            context: None,
            logs: vec![log],
            window: Duration::from_mins(1),
            timeout: Duration::from_secs(10),
            now: "2026-01-31T12:00:00Z".parse().unwrap(),
        };
        let (tell, told) = mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            let observed = runtime.block_on(observe(&request, Arc::new(Dead))).unwrap();
            runtime.shutdown_background();
            tell.send(observed).unwrap();
        });
        let observed = told.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(observed.lines.unwrap().len(), 1);
        let unseen: Vec<Area> = observed.partly_unseen.iter().map(|one| one.0).collect();
        // Nor is it well that it does not say how full it is.
        assert_eq!(unseen, [Area::Filesystems, Area::Logs]);
    }
}
