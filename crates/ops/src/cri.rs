//! The containers of the control plane and of static pods, asked of the container runtime over its socket.
//!
//! [`nagi_cri`] makes the call; here its answer becomes what a diagnosis looks at.

use std::path::{Path, PathBuf};

use nagi_cri::{CallError, Client};
use nagi_runtime::Deadline;

use crate::observed::{
    Container, ContainerState, Looked, Runtime, RuntimeAnswer, StaticPod, Unseen,
};

pub(crate) use nagi_cri::socket;

const NAMESPACE: &str = "kube-system";

/// Asks the runtime behind a socket for the containers of these static pods, and of the control plane. `shown` is how the node
/// calls it, `socket` where it is seen.
///
/// # Errors
/// This process may not connect to it.
pub(crate) async fn look(
    shown: PathBuf,
    socket: &Path,
    pods: &[&StaticPod],
    deadline: Deadline,
) -> Looked<Runtime> {
    let answer = match Client::at(socket).containers(deadline).await {
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
