//! Upgraded connections (WebSocket): bytes both ways until both ends are done, counted as one request all the while.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use crate::backend::Visit;
use crate::body::{Lease, ResponseBody};
use crate::headers::mark_passed;
use crate::shared::Shared;

/// Both sides have agreed; hyper only has to let go of the two connections.
const HAND_OVER: Duration = Duration::from_secs(10);

/// Passes a `101` on and joins the two connections. `None` when no more tunnels may be open.
pub(crate) fn open(
    shared: &Arc<Shared>,
    mut response: Response<Incoming>,
    lease: Lease,
    client: OnUpgrade,
    visit: Option<Visit>,
) -> Option<Response<ResponseBody>> {
    let replica = hyper::upgrade::on(&mut response);
    let task = async move {
        // They live until the tunnel ends, however it ends.
        let _counted = (visit, lease);
        let both = async { tokio::try_join!(client, replica) };
        let Ok(Ok((client, replica))) = tokio::time::timeout(HAND_OVER, both).await else {
            tracing::debug!("Upgrade did not come about");
            return;
        };
        let copied =
            tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(replica))
                .await;
        if let Err(error) = copied {
            tracing::debug!(error = %error, "Tunnel ended with an error");
        }
    };
    shared.tunnels.try_spawn(task).ok()?;
    let (mut head, _) = response.into_parts();
    // `Connection: upgrade` and `Upgrade` are what this answer is about, so nothing is taken off.
    mark_passed(&mut head.headers);
    head.version = Version::HTTP_11;
    head.extensions.clear();
    Some(Response::from_parts(head, ResponseBody::empty()))
}
