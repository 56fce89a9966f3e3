//! The containers of the control plane and of static pods, asked of the container runtime over its socket.
//!
//! [`nagi_cri`] makes the call; here its answer becomes what a diagnosis looks at.

use std::path::PathBuf;

use nagi_cri::kubelet::Kubelet;
use nagi_cri::{CallError, Client};
use nagi_runtime::Deadline;

use crate::observed::{
    Container, ContainerState, Looked, Runtime, RuntimeAnswer, StaticPod, Unseen,
};
use crate::root::Root;

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
    /// The one that kubelet is told to use.
    pub(crate) fn of(root: &Root, kubelet: &Kubelet) -> Self {
        let shown = kubelet.socket();
        Self {
            real: root.real(&shown),
            is_there: root.has(&shown),
            shown,
        }
    }

    /// Where it is could not be read: the usual one, without a question to a disk.
    pub(crate) fn unseen(root: &Root) -> Self {
        let shown = Kubelet::default().socket();
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
    let answer = match Client::at(&real).containers(deadline).await {
        Ok(all) => {
            let mut all: Vec<Container> = all.into_iter().map(told).collect();
            let is_static = |one: &Container| pods.iter().any(|pod| pod.has(one));
            all.retain(|one| one.namespace == NAMESPACE || is_static(one));
            RuntimeAnswer::Containers(all)
        }
        Err(CallError::Denied(why)) => {
            return Err(Unseen::Failed(format!("{}: {why}", shown.display())));
        }
        Err(CallError::Silent(after)) => RuntimeAnswer::Silent(after),
        Err(CallError::Down(why)) => RuntimeAnswer::Down(why),
        Err(error @ (CallError::Refused { .. } | CallError::Failed(_))) => {
            RuntimeAnswer::Failed(error.to_string())
        }
    };
    Ok(Runtime {
        socket: shown,
        answer,
    })
}

fn told(container: nagi_cri::Container) -> Container {
    Container {
        id: container.id,
        namespace: container.namespace,
        pod: container.pod,
        name: container.name,
        state: match container.state {
            nagi_cri::ContainerState::Created => ContainerState::Created,
            nagi_cri::ContainerState::Running => ContainerState::Running,
            nagi_cri::ContainerState::Exited => ContainerState::Exited,
            nagi_cri::ContainerState::Unknown => ContainerState::Unknown,
        },
        attempt: container.attempt,
    }
}
