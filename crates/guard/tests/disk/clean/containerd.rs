//! A real containerd on a disk of its own, and the calls by which kubelet uses it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nagi_cri::{CallError, Client, Container, Image, Ingest, Sandbox, field, wait};
use nagi_runtime::Deadline;
use rustix::process::{Pid, Signal};

use super::registry::{Layer, Registry};
use crate::machine::{Mounted, Type, cover};

/// On two busy cores it has been seen to take 10 s.
const UP_MAX: Duration = Duration::from_mins(2);
const CALL_MAX: Duration = Duration::from_mins(2);
const LOOK: Duration = Duration::from_millis(50);
const RUNTIME: &str = "runtime.v1.RuntimeService";
const IMAGES: &str = "runtime.v1.ImageService";
/// It sleeps until somebody ends it.
const PAUSE: &str = "#include <unistd.h>\nint main(void) { for (;;) pause(); }\n";

/// It ends with this value, with every pod in it.
pub(super) struct Containerd {
    child: Child,
    pub(super) client: Client,
    pub(super) registry: Registry,
    /// What an image needs to be started.
    pub(super) program: Layer,
    pub(super) root: PathBuf,
    pub(super) disk: Option<Mounted>,
    names: std::sync::atomic::AtomicU64,
}

/// There is a containerd, and what makes images for it.
pub(super) fn may_run() -> bool {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if has("containerd") && has("runc") && has("cc") {
        return true;
    }
    nagi_testkit::skipped("containerd, runc and cc must be on the path");
    false
}

// === impl Containerd ===

impl Containerd {
    /// Starts one on an ext4 of so many MiB, inside mounts of its own. Sandboxes are made of `pause`.
    pub(super) fn start(mebibytes: u64, pause: &str, slow: Duration) -> Self {
        // Sockets of shims lie there whatever the settings say.
        cover(Path::new("/run"));
        let disk = Type::Ext4.mounted(mebibytes, &[]);
        let root = disk.point.clone();
        std::fs::create_dir(root.join("run")).unwrap();
        cover(&root.join("run"));
        for directory in ["run/containerd", "var/lib/containerd", "etc", "tmp"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let registry = Registry::serve(slow);
        let program = root.join("tmp/pause");
        let source = root.join("tmp/pause.c");
        std::fs::write(&source, PAUSE).unwrap();
        let built = Command::new("cc")
            .args(["-static", "-Os", "-s", "-o"])
            .args([&program, &source])
            .output()
            .unwrap();
        assert!(built.status.success(), "{built:?}");
        let program = Layer {
            file: "pause",
            bytes: std::fs::read(&program).unwrap(),
        };
        registry.put(pause, std::slice::from_ref(&program));
        let socket = root.join("run/containerd/containerd.sock");
        let settings = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.internal.v1.opt\"]\n\
             [grpc]\naddress = {:?}\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {:?}\n\
             restrict_oom_score_adj = true\n",
            root.join("var/lib/containerd").display().to_string(),
            root.join("run/containerd").display().to_string(),
            socket.display().to_string(),
            registry.name(pause),
        );
        let file = root.join("etc/containerd.toml");
        std::fs::write(&file, settings).unwrap();
        let log = std::fs::File::create(root.join("tmp/log")).unwrap();
        let child = Command::new("containerd")
            .arg("--config")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let containerd = Self {
            child,
            client: Client::at(&socket),
            registry,
            program,
            root,
            disk: Some(disk),
            names: std::sync::atomic::AtomicU64::new(0),
        };
        let began = Instant::now();
        while containerd.images().is_err() {
            assert!(
                began.elapsed() < UP_MAX,
                "containerd does not come up: {}",
                containerd.log()
            );
            std::thread::sleep(LOOK);
        }
        containerd
    }

    pub(super) fn log(&self) -> String {
        std::fs::read_to_string(self.root.join("tmp/log")).unwrap_or_default()
    }

    pub(super) fn images(&self) -> Result<Vec<Image>, CallError> {
        wait(async { self.client.images(Deadline::in_(CALL_MAX)).await })
    }

    /// The names of all images, without that of the registry.
    pub(super) fn names(&self) -> Vec<String> {
        let images = self.images().unwrap();
        let mut names: Vec<String> = images
            .iter()
            .flat_map(|image| &image.tags)
            .map(|name| name.rsplit('/').next().unwrap().to_owned())
            .collect();
        names.sort();
        names
    }

    pub(super) fn containers(&self) -> Result<Vec<Container>, CallError> {
        wait(async { self.client.containers(Deadline::in_(CALL_MAX)).await })
    }

    pub(super) fn sandboxes(&self) -> Result<Vec<Sandbox>, CallError> {
        wait(async { self.client.sandboxes(Deadline::in_(CALL_MAX)).await })
    }

    pub(super) fn remove_image(&self, id: &str) -> Result<(), CallError> {
        wait(async { self.client.remove_image(id, Deadline::in_(CALL_MAX)).await })
    }

    /// It takes calls and answers none.
    pub(super) fn stand_still(&self) {
        self.signal(Signal::STOP);
    }

    pub(super) fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        rustix::process::kill_process(pid.unwrap(), signal).unwrap();
    }

    fn call(&self, service: &str, method: &str, message: &[u8]) -> Result<Bytes, CallError> {
        let method = format!("{service}/{method}");
        let answer = wait(async {
            self.client
                .call(&method, None, message, Deadline::in_(CALL_MAX))
                .await
        });
        answer.map(|messages| messages.into_iter().next().unwrap_or_default())
    }

    pub(super) fn pull(&self, name: &str) -> Result<(), CallError> {
        let image = field(1, self.registry.name(name).as_bytes());
        self.call(IMAGES, "PullImage", &field(1, &image)).map(drop)
    }

    /// As kubelet asks before it makes a container.
    pub(super) fn has(&self, name: &str) -> Result<bool, CallError> {
        let image = field(1, self.registry.name(name).as_bytes());
        let answer = self.call(IMAGES, "ImageStatus", &field(1, &image))?;
        Ok(!answer.is_empty())
    }

    /// Puts an archive of an image in, with a name by its digest too, which begins like this or as `ctr` makes it up: no
    /// registry is known to have it.
    pub(super) fn import(&self, name: &str, layers: &[Layer], begins: Option<&str>) {
        let base = begins.map(|begins| self.registry.name(begins));
        let file = self.root.join("tmp/archive.tar");
        std::fs::write(&file, self.registry.archive(name, layers)).unwrap();
        let mut words = vec!["images", "import", "--digests"];
        words.extend(base.iter().flat_map(|base| ["--base-name", base]));
        self.ctr(&[&words[..], &[file.to_str().unwrap()]].concat());
        std::fs::remove_file(&file).unwrap();
    }

    /// What no call of the CRI does.
    pub(super) fn ctr(&self, words: &[&str]) {
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.root.join("run/containerd/containerd.sock"))
            .args(["--namespace", "k8s.io"])
            .args(words)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Begins to write so many whole MiB, and is killed there.
    pub(super) fn ingest(&self, name: &str, bytes: usize) {
        let mut child = Command::new("ctr")
            .arg("--address")
            .arg(self.root.join("run/containerd/containerd.sock"))
            .args(["--namespace", "k8s.io", "content", "ingest", name])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input
            .write_all(&Layer::filled("-", 3, bytes).bytes)
            .unwrap();
        let whole = u64::try_from(bytes).unwrap();
        let is_there = |one: &Ingest| one.name == name && one.offset == whole;
        let began = Instant::now();
        while !self.statuses().iter().any(is_there) {
            assert!(began.elapsed() < UP_MAX, "{:?}", self.statuses());
            std::thread::sleep(LOOK);
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// As if somebody had written to it last at that moment.
    pub(super) fn age(&self, name: &str, at: std::time::SystemTime) {
        let content = "var/lib/containerd/io.containerd.content.v1.content/ingest";
        let text = jiff::Timestamp::try_from(at).unwrap().to_string();
        for one in std::fs::read_dir(self.root.join(content)).unwrap() {
            let one = one.unwrap().path();
            let whole = std::fs::read_to_string(one.join("ref")).unwrap();
            if whole.rsplit('/').next() == Some(name) {
                // By both of these containerd tells when somebody wrote last.
                std::fs::write(one.join("updatedat"), &text).unwrap();
                let data = std::fs::File::options().append(true).open(one.join("data"));
                data.unwrap().set_modified(at).unwrap();
            }
        }
    }

    /// What is being written, by name.
    pub(super) fn ingests(&self) -> Vec<String> {
        self.statuses().into_iter().map(|one| one.name).collect()
    }

    fn statuses(&self) -> Vec<Ingest> {
        wait(async { self.client.ingests(Deadline::in_(CALL_MAX)).await }).unwrap()
    }

    /// The keys of all unpacked layers, and of what lies upon them.
    pub(super) fn snapshots(&self) -> Vec<String> {
        let listed = wait(async {
            let deadline = Deadline::in_(CALL_MAX);
            self.client.snapshots("overlayfs", deadline).await
        });
        listed.unwrap().into_iter().map(|one| one.key).collect()
    }

    /// Begins a pod on the network of the machine. Its settings come with it.
    pub(super) fn sandbox(&self) -> Result<(String, Vec<u8>), CallError> {
        let number = self
            .names
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("pod-{number}");
        let metadata = [
            field(1, name.as_bytes()),
            field(2, format!("uid-{number}").as_bytes()),
            field(3, b"default"),
        ];
        // The namespaces of the node for network, processes and messages.
        let namespaces = field(1, &[1 << 3, 2, 2 << 3, 2, 3 << 3, 2]);
        let settings = [
            field(1, &metadata.concat()),
            labels(6, &name, number),
            field(8, &field(2, &namespaces)),
        ];
        let settings = settings.concat();
        let answer = self.call(RUNTIME, "RunPodSandbox", &field(1, &settings))?;
        Ok((text(&answer), settings))
    }

    /// Makes a container in it.
    pub(super) fn container(
        &self,
        (sandbox, settings): &(String, Vec<u8>),
        name: &str,
        (container, attempt): (&str, u8),
    ) -> Result<String, CallError> {
        let metadata = [field(1, container.as_bytes()), vec![2 << 3, attempt]];
        let image = self.registry.name(name);
        let config = [
            field(1, &metadata.concat()),
            field(2, &field(1, image.as_bytes())),
            field(3, b"/pause"),
        ];
        let question = [
            field(1, sandbox.as_bytes()),
            field(2, &config.concat()),
            field(3, settings),
        ];
        let answer = self.call(RUNTIME, "CreateContainer", &question.concat())?;
        Ok(text(&answer))
    }

    pub(super) fn start_container(&self, id: &str) -> Result<(), CallError> {
        let question = field(1, id.as_bytes());
        self.call(RUNTIME, "StartContainer", &question).map(drop)
    }

    /// At once.
    pub(super) fn stop_container(&self, id: &str) -> Result<(), CallError> {
        let question = field(1, id.as_bytes());
        self.call(RUNTIME, "StopContainer", &question).map(drop)
    }

    pub(super) fn remove_container(&self, id: &str) -> Result<(), CallError> {
        let question = field(1, id.as_bytes());
        self.call(RUNTIME, "RemoveContainer", &question).map(drop)
    }

    pub(super) fn stop_sandbox(&self, id: &str) -> Result<(), CallError> {
        let question = field(1, id.as_bytes());
        self.call(RUNTIME, "StopPodSandbox", &question).map(drop)
    }

    pub(super) fn remove_sandbox(&self, id: &str) -> Result<(), CallError> {
        self.stop_sandbox(id)?;
        let question = field(1, id.as_bytes());
        self.call(RUNTIME, "RemovePodSandbox", &question).map(drop)
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for sandbox in self.sandboxes().unwrap_or_default() {
            drop(self.remove_sandbox(&sandbox.id));
        }
        drop(self.child.kill());
        drop(self.child.wait());
        drop(self.disk.take());
    }
}

fn labels(number: u8, pod: &str, uid: u64) -> Vec<u8> {
    let label = |key: &str, value: &str| {
        let key = format!("io.kubernetes.pod.{key}");
        field(
            number,
            &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat(),
        )
    };
    [
        label("name", pod),
        label("namespace", "default"),
        label("uid", &format!("uid-{uid}")),
    ]
    .concat()
}

/// The id in field 1.
fn text(answer: &Bytes) -> String {
    let id = answer.get(2..).unwrap_or_default();
    String::from_utf8_lossy(id).into_owned()
}
