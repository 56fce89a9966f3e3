//! The containers of the control plane and of static pods, asked of the container runtime over its socket.
//!
//! The CRI is gRPC: HTTP/2 frames, which `h2` moves, around messages of some fields, which [`wire`] reads. One call of
//! `ListContainers` is all that is needed, so no stack of generated code is.

mod wire;

use std::path::PathBuf;
use std::time::Duration;

use ::http::{Request, header};
use bytes::{Bytes, BytesMut};
use nagi_runtime::Deadline;
use tokio::net::UnixStream;

use crate::observed::{Container, Looked, Runtime, RuntimeAnswer, StaticPod, Unseen};
use crate::root::Root;

/// What kubelet uses unless it is told otherwise.
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";
/// A node has at most some hundred containers of one kilobyte.
const ANSWER_MAX: usize = 8 << 20;
const NAMESPACE: &str = "kube-system";

/// The socket of a container runtime.
#[derive(Debug)]
pub(crate) struct Socket {
    /// As the node calls it.
    pub(crate) shown: PathBuf,
    /// Where this process finds it.
    real: PathBuf,
    pub(crate) is_there: bool,
}

// === impl Socket ===

impl Socket {
    /// That of a `containerRuntimeEndpoint`.
    pub(crate) fn of(root: &Root, endpoint: Option<&str>) -> Self {
        let named = endpoint.map(|one| one.trim_start_matches("unix://"));
        let shown = PathBuf::from(named.filter(|one| !one.is_empty()).unwrap_or(SOCKET));
        Self {
            real: root.real(&shown),
            is_there: root.has(&shown),
            shown,
        }
    }

    /// Where it is could not be read: the usual one, without a question to a disk.
    pub(crate) fn unseen(root: &Root) -> Self {
        let shown = PathBuf::from(SOCKET);
        Self {
            real: root.outside(&shown),
            is_there: false,
            shown,
        }
    }
}

/// Asks the runtime behind a socket for the containers of these static pods, and of the control plane.
///
/// # Errors
/// This process may not connect to it.
pub(crate) async fn look(
    socket: Socket,
    pods: &[&StaticPod],
    deadline: Deadline,
) -> Looked<Runtime> {
    let Socket { shown, real, .. } = socket;
    let whole = deadline.remaining();
    let answer = match deadline.timeout(UnixStream::connect(real)).await {
        Err(_) => RuntimeAnswer::Silent(whole),
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Err(Unseen::Failed(format!("{}: {error}", shown.display())));
        }
        Ok(Err(error)) => RuntimeAnswer::Down(error.to_string()),
        Ok(Ok(stream)) => match asked(stream, whole, deadline).await {
            RuntimeAnswer::Containers(mut all) => {
                let is_static = |one: &Container| pods.iter().any(|pod| pod.has(one));
                all.retain(|one| one.namespace == NAMESPACE || is_static(one));
                RuntimeAnswer::Containers(all)
            }
            answer @ (RuntimeAnswer::Down(_)
            | RuntimeAnswer::Silent(_)
            | RuntimeAnswer::Failed(_)) => answer,
        },
    };
    Ok(Runtime {
        socket: shown,
        answer,
    })
}

async fn asked(stream: UnixStream, whole: Duration, deadline: Deadline) -> RuntimeAnswer {
    match deadline.timeout(list(stream)).await {
        Err(_) => RuntimeAnswer::Silent(whole),
        Ok(Err(why)) => RuntimeAnswer::Failed(why),
        Ok(Ok(containers)) => RuntimeAnswer::Containers(containers),
    }
}

async fn list(stream: UnixStream) -> Result<Vec<Container>, String> {
    let failed = |error: h2::Error| error.to_string();
    let (client, connection) = h2::client::handshake(stream).await.map_err(failed)?;
    let call = async {
        let mut client = client.ready().await.map_err(failed)?;
        let request = Request::post("http://localhost/runtime.v1.RuntimeService/ListContainers")
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let (answer, mut send) = client.send_request(request, false).map_err(failed)?;
        // No filter: a frame of gRPC without content.
        send.send_data(Bytes::from_static(&[0; 5]), true)
            .map_err(failed)?;
        let answer = answer.await.map_err(failed)?;
        said(answer.headers())?;
        let mut body = answer.into_body();
        let mut bytes = BytesMut::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(failed)?;
            body.flow_control()
                .release_capacity(piece.len())
                .map_err(failed)?;
            bytes.extend_from_slice(&piece);
            if bytes.len() > ANSWER_MAX {
                return Err("the answer is too long".to_owned());
            }
        }
        if let Some(trailers) = body.trailers().await.map_err(failed)? {
            said(&trailers)?;
        }
        wire::containers(&bytes).ok_or_else(|| "the answer cannot be understood".to_owned())
    };
    let driven = async {
        drop(connection.await);
        std::future::pending::<()>().await;
    };
    tokio::select! {
        // Cancel-safe: whichever is left ends with the connection, which nobody uses again.
        answer = call => answer,
        () = driven => Err("the connection was closed".to_owned()),
    }
}

/// The status of a gRPC call stands in its headers or trailers; 0 is good.
fn said(headers: &::http::HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status") {
        None | Some("0") => Ok(()),
        Some(status) => Err(format!(
            "gRPC status {status}: {}",
            text("grpc-message").unwrap_or("-")
        )),
    }
}
