//! The hands and eyes of a recovery on a real node.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nagi_ports::Clock;
use nagi_runtime::{Blocking, Deadline};

use super::api;
use super::apply::{Did, Hands, World};
use super::climb::Eyes;
use super::freeing::Freeing;
use super::ladder::Look;
use super::plan::{KUBELET, Step, unit_of};
use super::remedy::port;
use crate::ask::{AskError, ask};
use crate::certificate::read_pem;
use crate::decide::{floors, inodes_used_percent};
use crate::etcd::{Mender, Place};
use crate::kubeconfig::{self, Choice};
use crate::listeners;
use crate::observe::{Disks, Request, chosen, observe};
use crate::observed::{Filesystem, Looked, Observed, Space, Unseen, Writable};
use crate::policy::Policy;
use crate::root::Root;

/// The default of systemd for a unit that starts is 90 s.
const SYSTEMD_WITHIN: Duration = Duration::from_mins(2);
/// Between two looks for a port or a socket.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A write through the API server waits for one write of etcd; on a disk that was full until now it may take long.
const WRITE_WITHIN: Duration = Duration::from_secs(15);
/// Where the store is copied to unless another place is named: in memory, beside our lock.
const OURS: &str = "/run/nagi";
/// A disk with millions of files is walked in less, unless it hangs.
const PLAN_WITHIN: Duration = Duration::from_mins(5);
/// Files that are removed one by one, each after it is written down.
const FREE_WITHIN: Duration = Duration::from_mins(30);
/// The largest store that etcd advises, 8 GiB, at the slowest that a disk may be.
const SNAPSHOT_WITHIN: Duration = Duration::from_mins(30);
/// Who kubelet says that it is.
const KUBELET_CONF: &str = "/etc/kubernetes/kubelet.conf";

/// What gives space back, from where that is known.
pub trait Room: Send + Sync + 'static {
    /// The disks as they are now.
    fn disks(&self) -> Arc<dyn Disks>;

    /// Plans what may go; it waits for files.
    ///
    /// # Errors
    /// It is not known.
    fn plan(&self) -> Looked<Freeing>;

    /// Carries out the plan that was made last, if it has this digest; it waits for files.
    ///
    /// # Errors
    /// It was not carried out, or not wholly; in words.
    fn free(&self, digest: &str) -> Result<Did, String>;

    /// How many bytes a day a disk grows.
    ///
    /// # Errors
    /// It is not known.
    fn growth(&self, point: &Path) -> Looked<i64>;
}

/// What the hands need.
#[derive(Debug, Clone)]
pub struct HandsRequest {
    /// What is looked at.
    pub observe: Request,
    /// Where the store is copied to; none means memory.
    pub snapshot: Option<PathBuf>,
    /// How long it is waited for that the API server listens again.
    pub comes_back: Duration,
    /// A run that was killed is gone on with.
    pub is_resumed: bool,
}

/// Hands on a node.
#[expect(
    missing_debug_implementations,
    reason = "what gives space back is behind a trait of the binary"
)]
pub struct NodeHands {
    request: HandsRequest,
    room: Arc<dyn Room>,
    clock: Arc<dyn Clock>,
    files: Blocking,
    /// What may go, as it was planned on disks that were so full.
    planned: Option<(Freeing, Vec<Fullness>)>,
    /// When kubelet was started again.
    restarted: Option<tokio::time::Instant>,
}

// === impl NodeHands ===

impl NodeHands {
    /// Hands for this node.
    pub fn new(request: HandsRequest, room: Arc<dyn Room>, clock: Arc<dyn Clock>) -> Self {
        Self {
            request,
            room,
            clock,
            // One plan at a time, and one that hangs holds no look at the growth up.
            files: Blocking::new("disks of the node", 2),
            planned: None,
            restarted: None,
        }
    }

    /// What may go. A plan walks over the disks, so it holds until one of them is fuller or emptier by a percent; what it
    /// names is compared again before it goes.
    async fn freeing(&mut self) -> Looked<Freeing> {
        let disks = self.room.disks();
        let looked = self.waited(self.request.observe.timeout, move || disks.look());
        let now = looked.await.ok().and_then(Result::ok);
        let now = now.map(|all| all.iter().map(Fullness::of).collect::<Vec<_>>());
        if let (Some((freeing, then)), Some(now)) = (&self.planned, &now)
            && then == now
        {
            return Ok(freeing.clone());
        }
        let room = Arc::clone(&self.room);
        let planned = self.waited(PLAN_WITHIN, move || room.plan()).await;
        let freeing = planned.unwrap_or_else(|why| Err(Unseen::Failed(why)));
        self.planned = freeing.clone().ok().zip(now);
        freeing
    }

    async fn observed(&self) -> Result<Observed, String> {
        let request = Request {
            now: self.clock.now(),
            ..self.request.observe.clone()
        };
        Box::pin(observe(&request, self.room.disks()))
            .await
            .map_err(|error| format!("{}: {error}", request.root.display()))
    }

    fn root(&self) -> Result<Root, String> {
        let path = &self.request.observe.root;
        Root::open(path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn mender(&self, world: &World) -> Result<Mender, String> {
        let manifests = world.observed.manifests.as_deref();
        let manifests = manifests.map_err(|unseen| unseen.why().to_owned())?;
        Mender::of(&self.root()?, manifests)
    }

    async fn free(&mut self, world: &World) -> Result<Did, String> {
        // Whatever comes of it, the disks are others now.
        self.planned = None;
        let freeing = world.freeing.as_ref();
        let digest = freeing
            .map_err(|unseen| unseen.why().to_owned())?
            .digest
            .clone();
        let room = Arc::clone(&self.room);
        self.waited(FREE_WITHIN, move || room.free(&digest)).await?
    }

    /// On a thread that may wait for files, for no longer than this.
    async fn waited<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        match tokio::time::timeout(within, self.files.run(work)).await {
            Err(_) => Err(format!("the disks did not answer within {within:?}")),
            Ok(ended) => ended.map_err(|error| error.to_string()),
        }
    }

    async fn start_runtime(&self, world: &World) -> Result<Did, String> {
        let socket = match &world.observed.containers {
            Ok(runtime) => runtime.socket.clone(),
            Err(unseen) => return Err(unseen.why().to_owned()),
        };
        let unit = unit_of(&socket);
        let unit = unit.ok_or_else(|| format!("no unit is known for {}", socket.display()))?;
        systemctl("start", unit).await?;
        let real = self.root()?.real(&socket);
        let waited = Wait::new(self.request.comes_back);
        loop {
            let connected = tokio::net::UnixStream::connect(&real).await;
            match connected {
                Ok(_) => return Ok(waited.did(&format!("{} answers", socket.display()))),
                Err(error) if waited.is_over() => {
                    return Err(format!(
                        "{}: {error}, {:?} after it was started",
                        socket.display(),
                        self.request.comes_back
                    ));
                }
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// B-016, B-017: the port is looked for instead of a time being slept.
    async fn restart_kubelet(&mut self, world: &World) -> Result<Did, String> {
        self.restarted = Some(tokio::time::Instant::now());
        systemctl("restart", KUBELET).await?;
        let Some(port) = port(&world.observed) else {
            return Ok(Did {
                evidence: vec!["there is no API server on this node to wait for".to_owned()],
                ..Did::default()
            });
        };
        let proc = self.request.observe.root.join("proc");
        let waited = Wait::new(self.request.comes_back);
        loop {
            let proc = proc.clone();
            let looked = self.waited(self.request.observe.timeout, move || listeners::look(&proc));
            let looked = looked.await?;
            let listeners = looked.map_err(|unseen| unseen.why().to_owned())?;
            if listeners.iter().any(|one| one.port == port) {
                return Ok(waited.did(&format!("port {port} listens")));
            }
            if waited.is_over() {
                // The ladder says what is missing.
                return Ok(waited.did(&format!("nothing listens on port {port}")));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Hands for NodeHands {
    async fn look(&mut self) -> Result<World, String> {
        // A walk over the disks takes longest: what a gate asks is looked at behind it.
        let freeing = self.freeing().await;
        let observed = self.observed().await?;
        Ok(World {
            is_resumed: self.request.is_resumed,
            observed,
            freeing,
            now: self.clock.now(),
        })
    }

    async fn act(&mut self, step: Step, world: &World) -> Result<Did, String> {
        let said = |evidence: String| Did {
            evidence: vec![evidence],
            ..Did::default()
        };
        match step {
            Step::Free => self.free(world).await,
            Step::Snapshot => {
                let place = match &self.request.snapshot {
                    Some(file) => Place::Named(file.clone()),
                    None => Place::Ours(self.root()?.real(Path::new(OURS))),
                };
                let mender = self.mender(world)?;
                // It writes and reads files all the time: on a thread that may wait for a disk.
                let runtime = tokio::runtime::Handle::current();
                let copy = move || runtime.block_on(mender.snapshot(&place));
                self.waited(SNAPSHOT_WITHIN, copy).await?.map(said)
            }
            Step::Compact => self.mender(world)?.compact().await.map(said),
            Step::Defrag => self.mender(world)?.defrag().await.map(said),
            Step::Disarm => self.mender(world)?.disarm().await.map(said),
            Step::StartRuntime => self.start_runtime(world).await,
            Step::RestartKubelet => self.restart_kubelet(world).await,
        }
    }
}

impl Eyes for NodeHands {
    async fn look(&mut self) -> Look {
        let observed = self.observed().await;
        let observed = observed.unwrap_or_else(|why| blind(&self.request.observe.root, &why));
        let within = self.request.observe.timeout;
        let chosen = self.chosen();
        let api = match &chosen {
            Ok(chosen) => Ok(Box::pin(api::facts(chosen, within)).await),
            Err(unseen) => Err(unseen.clone()),
        };
        let points = disks(&observed);
        let room = Arc::clone(&self.room);
        let restarted = self.restarted.map(|at| at.elapsed());
        let asked = self.waited(self.request.observe.timeout, move || {
            points
                .into_iter()
                .map(|point| {
                    let growth = room.growth(&point);
                    (point, growth)
                })
                .collect()
        });
        Look {
            observed,
            api,
            // Without an answer nothing is known of growth, which is said of the rung.
            growth: asked.await.unwrap_or_default(),
            now: self.clock.now(),
            name: self.node_name().await,
            restarted,
        }
    }

    async fn write(&mut self, mut look: Look) -> Look {
        if let Ok(facts) = &mut look.api
            && let Ok(chosen) = self.chosen()
        {
            facts.write = Some(Box::pin(api::write(&chosen, Deadline::in_(WRITE_WITHIN))).await);
        }
        look
    }
}

impl NodeHands {
    /// How the API server calls this node.
    async fn node_name(&self) -> Looked<String> {
        let root = self.root().map_err(Unseen::Failed)?;
        let read = self.waited(self.request.observe.timeout, move || node_name(&root));
        read.await.map_err(Unseen::Failed)?
    }

    fn chosen(&self) -> Looked<crate::endpoint::Chosen> {
        let root = self.root().map_err(Unseen::Failed)?;
        chosen(&self.request.observe, &root)
    }
}

/// How full a disk is, as far as a plan depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fullness {
    point: PathBuf,
    writable: Writable,
    used_percent: Option<u64>,
    inodes_used_percent: Option<u64>,
    /// The last percent is a whole one of a large disk, and decides.
    is_exhausted: bool,
}

// === impl Fullness ===

impl Fullness {
    fn of(one: &Filesystem) -> Self {
        let space = one.space.as_ref();
        Self {
            point: one.point.clone(),
            writable: one.writable,
            used_percent: space.and_then(Space::used_percent),
            inodes_used_percent: inodes_used_percent(one),
            is_exhausted: space.is_some_and(|space| space.bytes_available == 0),
        }
    }
}

/// A wait for something that comes.
#[derive(Debug, Clone, Copy)]
struct Wait {
    began: tokio::time::Instant,
    within: Duration,
}

// === impl Wait ===

impl Wait {
    fn new(within: Duration) -> Self {
        Self {
            began: tokio::time::Instant::now(),
            within,
        }
    }

    fn is_over(self) -> bool {
        self.began.elapsed() >= self.within
    }

    fn did(self, what: &str) -> Did {
        let seconds = self.began.elapsed().as_secs_f32();
        Did {
            evidence: vec![format!("{what} after {seconds:.1} s")],
            ..Did::default()
        }
    }
}

async fn systemctl(verb: &str, unit: &str) -> Result<(), String> {
    let arguments = ["--no-ask-password", verb, unit].map(str::to_owned);
    let printed = ask("systemctl", &arguments, Deadline::in_(SYSTEMD_WITHIN)).await;
    let printed = printed.map_err(|error| match error {
        AskError::NotThere(why) | AskError::Failed(why) => why,
    })?;
    if printed.is_cut {
        return Err(format!(
            "systemctl {verb} {unit} did not end within {SYSTEMD_WITHIN:?}"
        ));
    }
    match printed.failed {
        None => Ok(()),
        Some(said) if said.is_empty() => Err(format!("systemctl {verb} {unit} failed")),
        Some(said) => Err(format!("systemctl {verb} {unit}: {said}")),
    }
}

/// As whom kubelet signs in, or the name of the machine, as which it does unless it is told otherwise.
fn node_name(root: &Root) -> Looked<String> {
    let context = Choice::Context(None);
    let config = kubeconfig::read(root, &[PathBuf::from(KUBELET_CONF)], context);
    let signed = config
        .ok()
        .and_then(|config| config.credentials.certificate);
    let certificate = signed.and_then(|(certificate, _)| read_pem(&certificate).ok());
    let subject = certificate
        .and_then(|all| all.into_iter().next())
        .map(|one| one.subject);
    if let Some(name) = subject.as_deref().and_then(named) {
        return Ok(name.to_owned());
    }
    let place = if root.is_own() {
        "/proc/sys/kernel/hostname"
    } else {
        "/etc/hostname"
    };
    let text = root.read(Path::new(place));
    let text = text.map_err(|error| Unseen::Failed(format!("{place}: {error}")))?;
    let name = String::from_utf8_lossy(&text).trim().to_lowercase();
    if name.is_empty() {
        return Err(Unseen::Failed(format!("{place} is empty")));
    }
    Ok(name)
}

/// `O=system:nodes, CN=system:node:NAME`
fn named(subject: &str) -> Option<&str> {
    let (_, name) = subject.split_once("CN=system:node:")?;
    name.split([',', '+'])
        .next()
        .map(str::trim)
        .filter(|name| !name.is_empty())
}

/// Where what lies there outlives a boot.
fn disks(observed: &Observed) -> Vec<PathBuf> {
    let floors = floors(&Policy::default(), observed).unwrap_or_default();
    let filesystems = observed.filesystems.as_deref().unwrap_or_default();
    let is_memory = |point: &Path| {
        let found = filesystems.iter().find(|one| one.point == point);
        found.is_some_and(Filesystem::is_memory)
    };
    let points = floors.into_iter().map(|floor| floor.point);
    points.filter(|point| !is_memory(point)).collect()
}

/// Nothing was seen, for one reason.
fn blind(root: &Path, why: &str) -> Observed {
    let unseen = || Unseen::Failed(why.to_owned());
    Observed {
        root: root.to_owned(),
        endpoint: Err(unseen()),
        filesystems: Err(unseen()),
        units: Err(unseen()),
        listeners: Err(unseen()),
        containers: Err(unseen()),
        manifests: Err(unseen()),
        etcd: Err(unseen()),
        certificates: Err(unseen()),
        lines: Err(unseen()),
        newest_write: None,
        partly_unseen: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

    use nagi_ports::SystemClock;

    use super::*;

    /// One disk of a thousand bytes, and how often a walk over it was made.
    #[derive(Default)]
    struct Counted {
        available: Arc<AtomicU64>,
        plans: Arc<AtomicUsize>,
    }

    struct OneDisk(u64);

    impl Disks for OneDisk {
        fn look(&self) -> Looked<Vec<Filesystem>> {
            Ok(vec![Filesystem {
                point: "/".into(),
                fstype: "ext4".to_owned(),
                writable: Writable::Yes,
                space: Some(Space {
                    bytes: 1000,
                    bytes_free: self.0,
                    bytes_available: self.0,
                    inodes: 0,
                    inodes_free: 0,
                }),
                holds: Vec::new(),
                evicting: Vec::new(),
            }])
        }

        fn point_of(&self, _: &Path) -> Option<PathBuf> {
            None
        }
    }

    impl Room for Counted {
        fn disks(&self) -> Arc<dyn Disks> {
            Arc::new(OneDisk(self.available.load(Ordering::SeqCst)))
        }

        fn plan(&self) -> Looked<Freeing> {
            self.plans.fetch_add(1, Ordering::SeqCst);
            Ok(Freeing::default())
        }

        fn free(&self, _: &str) -> Result<Did, String> {
            Ok(Did::default())
        }

        fn growth(&self, _: &Path) -> Looked<i64> {
            Ok(0)
        }
    }

    // A walk over millions of files is made once, and not before each step.
    #[tokio::test]
    async fn what_may_go_is_planned_anew_only_when_the_disks_changed() {
        let directory = tempfile::tempdir().unwrap();
        let room = Arc::new(Counted::default());
        let (available, plans) = (Arc::clone(&room.available), Arc::clone(&room.plans));
        available.store(100, Ordering::SeqCst);
        let request = HandsRequest {
            observe: Request {
                root: directory.path().to_owned(),
                files_only: true,
                kubeconfigs: Vec::new(),
                usual: None,
                context: None,
                logs: Vec::new(),
                window: Duration::from_mins(1),
                timeout: Duration::from_secs(20),
                now: "2026-01-31T12:00:00Z".parse().unwrap(),
            },
            snapshot: None,
            comes_back: Duration::ZERO,
            is_resumed: false,
        };
        let mut hands = NodeHands::new(request, room, Arc::new(SystemClock::new()));
        let count = || plans.load(Ordering::SeqCst);
        let world = Hands::look(&mut hands).await.unwrap();
        Hands::look(&mut hands).await.unwrap();
        assert_eq!(count(), 1);
        // Less than a percent.
        available.store(101, Ordering::SeqCst);
        Hands::look(&mut hands).await.unwrap();
        assert_eq!(count(), 1);
        available.store(90, Ordering::SeqCst);
        Hands::look(&mut hands).await.unwrap();
        assert_eq!(count(), 2);
        hands.act(Step::Free, &world).await.unwrap();
        Hands::look(&mut hands).await.unwrap();
        Hands::look(&mut hands).await.unwrap();
        assert_eq!(count(), 3);
    }

    #[test]
    fn a_node_is_called_as_its_kubelet_signs_in() {
        let subject = "O=system:nodes, CN=system:node:ip-172-31-37-254.ec2.internal";
        assert_eq!(named(subject), Some("ip-172-31-37-254.ec2.internal"));
        assert_eq!(named("CN=system:node:a, O=system:nodes"), Some("a"));
        assert_eq!(named("CN=kubernetes-admin"), None);
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        assert!(node_name(&root).is_err());
        std::fs::create_dir(directory.path().join("etc")).unwrap();
        std::fs::write(directory.path().join("etc/hostname"), "Node-A\n").unwrap();
        assert_eq!(node_name(&root), Ok("node-a".to_owned()));
        let own = node_name(&Root::open(Path::new("/")).unwrap());
        assert!(own.is_ok_and(|name| !name.is_empty()));
    }
}
