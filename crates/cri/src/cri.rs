//! The CRI (`runtime.v1`), as far as it is needed: api.proto of `k8s.io/cri-api`.

use nagi_runtime::Deadline;

use crate::wire::{self, Value, fields, text, with};
use crate::{CallError, Client};

const RUNTIME: &str = "runtime.v1.RuntimeService";
const IMAGES: &str = "runtime.v1.ImageService";

/// Labels that kubelet gives each container.
const POD_LABEL: &str = "io.kubernetes.pod.name";
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
const UID_LABEL: &str = "io.kubernetes.pod.uid";

/// What a container does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// It is made and was not started.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Exited,
    /// The runtime does not know.
    Unknown,
}

/// A container, alive or dead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// By which the runtime knows it.
    pub id: String,
    /// The sandbox of its pod.
    pub sandbox: String,
    /// Namespace, name and uid of its pod, as kubelet labelled it; empty where it did not.
    pub namespace: String,
    /// See `namespace`.
    pub pod: String,
    /// See `namespace`.
    pub uid: String,
    /// Its own name in the pod.
    pub name: String,
    /// How often it was made anew.
    pub attempt: u32,
    /// What it does.
    pub state: ContainerState,
    /// Every name under which its image stands here.
    pub images: Vec<String>,
    /// When it was made, in nanoseconds since 1970.
    pub created: i128,
}

/// The sandbox of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// By which the runtime knows it.
    pub id: String,
    /// Its pod runs, or may.
    pub is_ready: bool,
    /// When it was made, in nanoseconds since 1970.
    pub created: i128,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: String,
    /// Its names with a tag.
    pub tags: Vec<String>,
    /// Its names with the digest that a registry knows.
    pub digests: Vec<String>,
    /// What the runtime says it takes. Layers that others share are in it, and what is kept packed may be or not.
    pub size: u64,
    /// The runtime keeps it.
    pub is_pinned: bool,
}

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// When, in nanoseconds since 1970; 0 where it runs.
    pub at: i128,
    /// With which code.
    pub code: i32,
}

// === impl Client ===

impl Client {
    /// Every container, alive and dead.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub async fn containers(&self, deadline: Deadline) -> Result<Vec<Container>, CallError> {
        let answer = self.cri(RUNTIME, "ListContainers", &[], deadline).await?;
        wire::all(&answer, 1, container).ok_or_else(CallError::not_understood)
    }

    /// The sandboxes of all pods.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub async fn sandboxes(&self, deadline: Deadline) -> Result<Vec<Sandbox>, CallError> {
        let answer = self.cri(RUNTIME, "ListPodSandbox", &[], deadline).await?;
        wire::all(&answer, 1, sandbox).ok_or_else(CallError::not_understood)
    }

    /// All images.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub async fn images(&self, deadline: Deadline) -> Result<Vec<Image>, CallError> {
        let answer = self.cri(IMAGES, "ListImages", &[], deadline).await?;
        wire::all(&answer, 1, image).ok_or_else(CallError::not_understood)
    }

    /// The directories in which images lie, as the runtime sees them.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub async fn image_directories(&self, deadline: Deadline) -> Result<Vec<String>, CallError> {
        let answer = self.cri(IMAGES, "ImageFsInfo", &[], deadline).await?;
        let point = |usage: &[u8]| wire::all(usage, 2, |id| wire::all(id, 1, |at| Some(text(at))));
        let found = wire::all(&answer, 1, point).ok_or_else(CallError::not_understood)?;
        Ok(found.into_iter().flatten().flatten().collect())
    }

    /// What the runtime says of its own settings, as text by name. containerd has `config`, which is JSON.
    ///
    /// # Errors
    /// The runtime does not answer.
    pub async fn settings(&self, deadline: Deadline) -> Result<Vec<(String, String)>, CallError> {
        let verbose = [1 << 3, 1];
        let answer = self.cri(RUNTIME, "Status", &verbose, deadline).await?;
        wire::all(&answer, 2, wire::entry).ok_or_else(CallError::not_understood)
    }

    /// How a container ended.
    ///
    /// # Errors
    /// The runtime does not answer, or the container is gone.
    pub async fn ended(&self, container: &str, deadline: Deadline) -> Result<Ended, CallError> {
        let question = with(1, container.as_bytes());
        let answer = self
            .cri(RUNTIME, "ContainerStatus", &question, deadline)
            .await?;
        let found = wire::all(&answer, 1, ended).ok_or_else(CallError::not_understood)?;
        found.first().copied().ok_or_else(CallError::not_understood)
    }

    /// Has the runtime remove an image with all its names. One that is not there is no error.
    ///
    /// # Errors
    /// The runtime does not answer, or refuses.
    pub async fn remove_image(&self, id: &str, deadline: Deadline) -> Result<(), CallError> {
        let question = with(1, &with(1, id.as_bytes()));
        self.cri(IMAGES, "RemoveImage", &question, deadline)
            .await
            .map(drop)
    }

    /// Has the runtime remove a container. One that is not there is no error.
    ///
    /// # Errors
    /// The runtime does not answer, or refuses.
    pub async fn remove_container(&self, id: &str, deadline: Deadline) -> Result<(), CallError> {
        let question = with(1, id.as_bytes());
        self.cri(RUNTIME, "RemoveContainer", &question, deadline)
            .await
            .map(drop)
    }

    async fn cri(
        &self,
        service: &str,
        method: &str,
        question: &[u8],
        deadline: Deadline,
    ) -> Result<bytes::Bytes, CallError> {
        let method = format!("{service}/{method}");
        let answer = self.call(&method, None, question, deadline).await?;
        answer
            .into_iter()
            .next()
            .ok_or_else(CallError::not_understood)
    }
}

/// `Container`: id 1, sandbox 2, metadata 3, image 4, image ref 5, state 6, created 7, labels 8, image id 10.
fn container(message: &[u8]) -> Option<Container> {
    let mut listed = Container {
        id: String::new(),
        sandbox: String::new(),
        namespace: String::new(),
        pod: String::new(),
        uid: String::new(),
        name: String::new(),
        attempt: 0,
        // Proto3 leaves zero out.
        state: ContainerState::Created,
        images: Vec::new(),
        created: 0,
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => listed.id = text(id),
            (2, Value::Bytes(id)) => listed.sandbox = text(id),
            (3, Value::Bytes(metadata)) => {
                for field in fields(metadata) {
                    match field? {
                        (1, Value::Bytes(name)) => listed.name = text(name),
                        (2, Value::Number(attempt)) => {
                            listed.attempt = u32::try_from(attempt).unwrap_or(u32::MAX);
                        }
                        _ => {}
                    }
                }
            }
            (4, Value::Bytes(spec)) => {
                listed
                    .images
                    .extend(wire::all(spec, 1, |name| Some(text(name)))?);
            }
            (5 | 10, Value::Bytes(name)) => listed.images.push(text(name)),
            (6, Value::Number(state)) => listed.state = state_of(state),
            (7, Value::Number(created)) => listed.created = created.cast_signed().into(),
            (8, Value::Bytes(label)) => {
                let (key, value) = wire::entry(label)?;
                match key.as_str() {
                    NAMESPACE_LABEL => listed.namespace = value,
                    POD_LABEL => listed.pod = value,
                    UID_LABEL => listed.uid = value,
                    _ => {}
                }
            }
            _ => {}
        }
    }
    Some(listed)
}

const fn state_of(number: u64) -> ContainerState {
    match number {
        0 => ContainerState::Created,
        1 => ContainerState::Running,
        2 => ContainerState::Exited,
        _ => ContainerState::Unknown,
    }
}

/// `PodSandbox`: id 1, state 3 (0 is ready), created 4.
fn sandbox(message: &[u8]) -> Option<Sandbox> {
    let mut listed = Sandbox {
        id: String::new(),
        is_ready: true,
        created: 0,
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => listed.id = text(id),
            (3, Value::Number(state)) => listed.is_ready = state == 0,
            (4, Value::Number(created)) => listed.created = created.cast_signed().into(),
            _ => {}
        }
    }
    Some(listed)
}

/// `Image`: id 1, tags 2, digests 3, size 4, pinned 8.
fn image(message: &[u8]) -> Option<Image> {
    let mut listed = Image {
        id: String::new(),
        tags: Vec::new(),
        digests: Vec::new(),
        size: 0,
        is_pinned: false,
    };
    for field in fields(message) {
        match field? {
            (1, Value::Bytes(id)) => listed.id = text(id),
            (2, Value::Bytes(tag)) => listed.tags.push(text(tag)),
            (3, Value::Bytes(digest)) => listed.digests.push(text(digest)),
            (4, Value::Number(size)) => listed.size = size,
            (8, Value::Number(pinned)) => listed.is_pinned = pinned != 0,
            _ => {}
        }
    }
    Some(listed)
}

/// `ContainerStatus`: finished 6, exit code 7.
fn ended(message: &[u8]) -> Option<Ended> {
    let mut told = Ended { at: 0, code: 0 };
    for field in fields(message) {
        match field? {
            (6, Value::Number(at)) => told.at = at.cast_signed().into(),
            // A negative code has ten bytes of which the lowest four count.
            (7, Value::Number(code)) => {
                told.code = i32::try_from(code.cast_signed()).unwrap_or(i32::MIN);
            }
            _ => {}
        }
    }
    Some(told)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::call::messages;

    fn message() -> Vec<u8> {
        let label = |key: &str, value| [with(1, key.as_bytes()), with(2, value)].concat();
        let metadata = [with(1, b"etcd"), vec![2 << 3, 3]].concat();
        let container = [
            with(1, b"0123"),
            with(2, b"box"),
            with(3, &metadata),
            with(4, &with(1, b"r.k8s.io/etcd:3")),
            with(5, b"sha256:aa"),
            vec![6 << 3, 2],
            vec![7 << 3, 0xff, 0xff, 0x01],
            with(8, &label(NAMESPACE_LABEL, b"kube-system")),
            with(8, &label(POD_LABEL, b"etcd-a")),
            with(8, &label(UID_LABEL, b"77")),
        ]
        .concat();
        with(1, &container)
    }

    // D-02
    #[test]
    fn a_container_is_read_with_its_pod_and_image() {
        let listed = wire::all(&message(), 1, container).unwrap();
        let expected = Container {
            id: "0123".to_owned(),
            sandbox: "box".to_owned(),
            namespace: "kube-system".to_owned(),
            pod: "etcd-a".to_owned(),
            uid: "77".to_owned(),
            name: "etcd".to_owned(),
            attempt: 3,
            state: ContainerState::Exited,
            images: vec!["r.k8s.io/etcd:3".to_owned(), "sha256:aa".to_owned()],
            created: 32767,
        };
        assert_eq!(listed, [expected]);
        assert_eq!(wire::all(&[], 1, container), Some(Vec::new()));
    }

    #[test]
    fn an_image_and_a_sandbox_are_read() {
        let bytes = [
            with(1, b"sha256:aa"),
            with(2, b"a:1"),
            with(3, b"a@sha256:bb"),
            vec![4 << 3, 0x80, 0x01, 8 << 3, 1],
        ];
        let expected = Image {
            id: "sha256:aa".to_owned(),
            tags: vec!["a:1".to_owned()],
            digests: vec!["a@sha256:bb".to_owned()],
            size: 128,
            is_pinned: true,
        };
        assert_eq!(image(&bytes.concat()), Some(expected));
        let read = sandbox(&[with(1, b"box"), vec![3 << 3, 1, 4 << 3, 9]].concat()).unwrap();
        assert_eq!((read.is_ready, read.created), (false, 9));
        assert!(sandbox(&[]).unwrap().is_ready, "proto3 leaves zero out");
        let told = ended(&[6 << 3, 5, 7 << 3, 3]).unwrap();
        assert_eq!((told.at, told.code), (5, 3));
    }

    #[test]
    fn what_is_cut_off_is_nothing() {
        let whole = message();
        let framed = |bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
            [&[0][..], &length, bytes].concat()
        };
        let body = [framed(&whole), framed(b"")].concat();
        let read = messages(Bytes::from(body.clone())).unwrap();
        assert_eq!((&read[0][..], read.len()), (&whole[..], 2));
        for length in 1..body.len() - 5 {
            let read = messages(Bytes::copy_from_slice(&body[..length]));
            assert!(read.is_none_or(|all| all.len() == 1 && length == whole.len() + 5));
        }
        let mut packed = body;
        packed[0] = 1;
        assert_eq!(messages(Bytes::from(packed)), None);
        for length in 1..whole.len() {
            assert_eq!(wire::all(&whole[..length], 1, container), None, "{length}");
            let mut broken = whole.clone();
            broken[length] = 0xff;
            // Whatever comes of it, it does not panic.
            drop(wire::all(&broken, 1, container));
        }
    }
}
