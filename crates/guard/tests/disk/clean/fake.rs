//! A runtime of some lines: what it has is written down, and what it was asked in which order.

use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use nagi_cri::field;
use tokio::net::{UnixListener, UnixStream};

/// gRPC's number for a method that a server does not have.
const UNIMPLEMENTED: &str = "12";
/// The id of its one image.
const IMAGE: &str = "sha256:aa";

/// What a runtime answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answers {
    /// One idle image that was pulled, and a pod whose container crashes.
    All,
    /// The same with more dead containers than anybody asks about, behind which the one of the pod has just ended well.
    Crowd,
    /// The CRI alone, as other runtimes than containerd.
    Cri,
    /// The first with settings that nobody can read.
    Garbled,
    /// The first with three dead containers of one name, of which it never says what the first wrote.
    Heavy,
    /// That it does not know what it is asked, as a containerd whose CRI is switched off.
    Nothing,
}

#[derive(Debug, Clone)]
pub(super) struct Fake {
    answers: Answers,
    /// Where its images lie.
    directory: String,
    calls: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    /// Serves until the test process ends.
    pub(super) fn serve(root: &Path, socket: &str, answers: Answers) -> Self {
        let socket = root.join(socket);
        std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let directory = root.join("var/lib/containerd");
        std::fs::create_dir_all(&directory).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let fake = Self {
            answers,
            directory: directory.to_str().unwrap().to_owned(),
            calls: Arc::default(),
        };
        let server = fake.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_io()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(server.clone().connected(stream));
                }
            });
        });
        fake
    }

    /// The methods that it was asked, without their services' versions, since this was asked last.
    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    async fn connected(self, stream: UnixStream) {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        // Whoever has an answer hangs up.
        while let Some(Ok((request, respond))) = connection.accept().await {
            tokio::spawn(self.clone().called(request, respond));
        }
    }

    async fn called(self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let method = request.uri().path().trim_start_matches('/').to_owned();
        let mut body = request.into_body();
        let mut question = Vec::new();
        while let Some(piece) = body.data().await {
            question.extend_from_slice(&piece.unwrap());
        }
        self.calls.lock().unwrap().push(method.clone());
        let is_walk = method.ends_with("Snapshots/Usage") && question.ends_with(b"key-0");
        if self.answers == Answers::Heavy && is_walk {
            std::future::pending::<()>().await;
        }
        let head = Response::builder().header("content-type", "application/grpc");
        let Some(message) = self.answer(&method, &question) else {
            let head = head.header("grpc-status", UNIMPLEMENTED);
            respond.send_response(head.body(()).unwrap(), true).unwrap();
            return;
        };
        let mut send = respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).unwrap());
        body.extend_from_slice(&message);
        send.send_data(Bytes::from(body), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        send.send_trailers(trailers).unwrap();
    }

    fn answer(&self, method: &str, question: &[u8]) -> Option<Vec<u8>> {
        let is_cri = method.starts_with("runtime.v1.");
        match self.answers {
            Answers::All | Answers::Crowd | Answers::Garbled | Answers::Heavy => {}
            Answers::Cri if is_cri => {}
            Answers::Cri | Answers::Nothing => return None,
        }
        let was_removed = {
            let calls = self.calls.lock().unwrap();
            calls.iter().any(|call| call.ends_with("RemoveImage"))
        };
        let is_heavy = self.answers == Answers::Heavy;
        let names = ["r.example/idle:1", "r.example/idle@sha256:bb"];
        let record = |name: &str| {
            let target = field(3, &field(2, b"sha256:bb"));
            field(1, &[field(1, name.as_bytes()), target].concat())
        };
        let answer = match method.rsplit_once('.')?.1 {
            "ImageService/ListImages" if was_removed => Vec::new(),
            "ImageService/ListImages" => {
                let [tag, digest] = names;
                let image = [
                    field(1, IMAGE.as_bytes()),
                    field(2, tag.as_bytes()),
                    field(3, digest.as_bytes()),
                ];
                field(1, &image.concat())
            }
            "ImageService/ImageFsInfo" => field(1, &field(2, &field(1, self.directory.as_bytes()))),
            "Containers/List" if is_heavy => {
                let heavy = (0..3).map(|attempt| {
                    let record = [
                        field(1, format!("heavy-{attempt}").as_bytes()),
                        field(6, b"overlayfs"),
                        field(7, format!("key-{attempt}").as_bytes()),
                    ];
                    field(1, &record.concat())
                });
                heavy.flatten().collect()
            }
            "Snapshots/Usage" => vec![1 << 3, 100],
            "RuntimeService/ContainerStatus" if is_heavy => field(1, &[6 << 3, 1, 7 << 3, 1]),
            "RuntimeService/ListPodSandbox" | "Containers/List" => field(1, &field(1, b"box")),
            "RuntimeService/ListContainers" => {
                let dead = |id: &str, sandbox: &[u8]| {
                    let container = [field(1, id.as_bytes()), field(2, sandbox), vec![6 << 3, 2]];
                    field(1, &container.concat())
                };
                let crowd = match self.answers {
                    Answers::Crowd => 1100,
                    Answers::All
                    | Answers::Garbled
                    | Answers::Heavy
                    | Answers::Cri
                    | Answers::Nothing => 0,
                };
                let others = (0..crowd).map(|number| dead(&number.to_string(), b"gone"));
                let attempts: u8 = if is_heavy { 3 } else { 0 };
                let heavy = (0..attempts).map(|attempt| {
                    let container = [
                        field(1, format!("heavy-{attempt}").as_bytes()),
                        field(2, b"gone"),
                        field(3, &[2 << 3, attempt]),
                        vec![6 << 3, 2],
                    ];
                    field(1, &container.concat())
                });
                let others = others.chain(heavy);
                others.chain([dead("c", b"box")]).flatten().collect()
            }
            "RuntimeService/ContainerStatus"
                if self.answers == Answers::Crowd && question.ends_with(&field(1, b"c")) =>
            {
                let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
                let at = [vec![6 << 3], varint(u64::try_from(now.as_nanos()).unwrap())];
                field(1, &at.concat())
            }
            "RuntimeService/ContainerStatus" => field(1, &[7 << 3, 1]),
            "RuntimeService/Status" if self.answers == Answers::Garbled => {
                let config = b"{\"sandboxImage\": [";
                field(2, &[field(1, b"config"), field(2, config)].concat())
            }
            "Images/List" => [record(names[0]), record(names[1]), record(IMAGE)].concat(),
            "Content/List" => {
                let label =
                    |key: &[u8], value: &[u8]| field(5, &[field(1, key), field(2, value)].concat());
                let manifest = [
                    field(1, b"sha256:bb"),
                    label(b"containerd.io/distribution.source.r.example", b"idle"),
                    label(b"containerd.io/gc.ref.content.config", IMAGE.as_bytes()),
                ];
                let configuration = field(1, &field(1, IMAGE.as_bytes()));
                [field(1, &manifest.concat()), configuration].concat()
            }
            // Lists of nothing, and what has nothing to say.
            _ => Vec::new(),
        };
        Some(answer)
    }
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(0x80 | u8::try_from(number & 0x7f).unwrap());
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}
