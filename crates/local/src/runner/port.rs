//! A free loopback port for each replica.
//!
//! Ports lie below the range from which Linux takes ports for outgoing connections (32768 and up unless changed), so that
//! between the choice and the moment the command listens nobody gets the port by chance; a command may take minutes to
//! get there. What remains is a program that asks for just this port: the command then fails, and its next start gets
//! another one.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;

/// Where ports are taken from: unprivileged, below the ephemeral range, away from well-known services.
const PORTS: RangeInclusive<u16> = 20_000..=29_999;

/// A port that nobody uses or was promised; `random` spreads the choice. `None` when there is none at all.
pub(super) fn free(promised: &BTreeSet<u16>, random: u64) -> Option<u16> {
    let size = u64::from(PORTS.end() - PORTS.start()) + 1;
    let begin = random % size;
    let inside = (0..size)
        .filter_map(|step| u16::try_from((begin + step) % size).ok())
        .map(|offset| PORTS.start() + offset)
        .find(|port| !promised.contains(port) && is_free(*port));
    inside.or_else(any)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Whatever the system gives: the range above is full.
fn any() -> Option<u16> {
    Some(
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .ok()?
            .local_addr()
            .ok()?
            .port(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_or_promised_is_not_given() {
        // Other programs of this machine may take ports meanwhile: the first port that is still free is used.
        let (first, _taken) = (0..100)
            .map(|step| u64::from(std::process::id()) * 7 + step)
            .filter_map(|random| free(&BTreeSet::new(), random))
            .find_map(|port| Some((port, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?)))
            .unwrap();
        assert!(PORTS.contains(&first));
        let random = u64::from(first - PORTS.start());
        let second = free(&BTreeSet::new(), random).unwrap();
        assert_ne!(second, first);
        let third = free(&BTreeSet::from([second]), random).unwrap();
        assert!(third != first && third != second);
    }
}
