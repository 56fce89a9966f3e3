//! The addresses of a role, all bound before anything runs.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nagi_runtime::Deadline;
use tokio::net::TcpListener;

use super::{Role, ServeError};
use crate::serve::settings::ServeConfig;

/// How long addresses that are taken are tried again, all together. A Nagi that was killed while it started a replica may
/// have left a child that still holds its sockets, until that runs its own program.
const TAKEN_WAIT: Duration = Duration::from_secs(1);
const TAKEN_PAUSE: Duration = Duration::from_millis(20);

/// An address that could not be bound.
#[derive(Debug)]
pub(crate) struct ClosedDoor {
    pub(super) face: &'static str,
    pub(super) flag: &'static str,
    pub(super) address: SocketAddr,
}

pub(super) fn named(doors: &[ClosedDoor]) -> String {
    let named = doors
        .iter()
        .map(|door| format!("{} for the {}", door.address, door.face));
    named.collect::<Vec<_>>().join(", ")
}

/// The addresses, bound: whoever finds a port taken learns it before anything runs.
pub(super) struct Doors {
    pub(super) api: Option<TcpListener>,
    pub(super) metrics: Option<TcpListener>,
    pub(super) gateway: Option<TcpListener>,
}

impl Doors {
    pub(super) async fn open(config: &ServeConfig, role: &Role) -> Result<Self, ServeError> {
        let (has_api, has_gateway) = match role {
            Role::All { .. } => (true, true),
            Role::Server { .. } => (true, false),
            Role::Gateway(_) => (false, true),
        };
        let api = has_api.then_some(config.listen);
        let gateway = has_gateway.then_some(config.gateway_listen);
        let addresses: Vec<SocketAddr> = [api, Some(config.metrics_listen), gateway]
            .into_iter()
            .flatten()
            .collect();
        for (n, address) in addresses.iter().enumerate() {
            if address.port() != 0 && addresses.iter().skip(n + 1).any(|other| other == address) {
                return Err(ServeError::SameAddress { address: *address });
            }
        }
        let mut closed = Vec::new();
        let deadline = Deadline::in_(TAKEN_WAIT);
        let mut api_door = None;
        if let Some(address) = api {
            api_door = bind(("API", "--listen"), address, deadline, &mut closed).await;
        }
        let metrics = ("metrics", "--metrics-listen");
        let metrics = bind(metrics, config.metrics_listen, deadline, &mut closed).await;
        let mut gateway_door = None;
        if let Some(address) = gateway {
            gateway_door = bind(
                ("gateway", "--gateway-listen"),
                address,
                deadline,
                &mut closed,
            )
            .await;
        }
        let doors = Self {
            api: api_door,
            metrics,
            gateway: gateway_door,
        };
        closed_alike(closed).map_or(Ok(doors), Err)
    }
}

/// Binds a door, or notes why not: a person who must choose other ports wants to know all of them at once.
async fn bind(
    (face, flag): (&'static str, &'static str),
    address: SocketAddr,
    deadline: Deadline,
    closed: &mut Vec<(ClosedDoor, io::Error)>,
) -> Option<TcpListener> {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return Some(listener),
            Err(taken) if taken.kind() == io::ErrorKind::AddrInUse && !deadline.has_passed() => {
                tokio::time::sleep(TAKEN_PAUSE).await;
            }
            Err(source) => {
                let door = ClosedDoor {
                    face,
                    flag,
                    address,
                };
                closed.push((door, source));
                return None;
            }
        }
    }
}

/// The first door that could not be opened, with those that failed alike: they are mended alike.
fn closed_alike(closed: Vec<(ClosedDoor, io::Error)>) -> Option<ServeError> {
    let mut closed = closed.into_iter();
    let (first, source) = closed.next()?;
    let mut doors = vec![first];
    let alike = closed.filter(|(_, other)| other.kind() == source.kind());
    doors.extend(alike.map(|(door, _)| door));
    Some(ServeError::Listen { doors, source })
}
