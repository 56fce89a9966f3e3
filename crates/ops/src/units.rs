//! What systemd says of the services of a node.

use std::time::Duration;

use nagi_runtime::Deadline;

use crate::ask::{AskError, ask};
use crate::observed::{Looked, Unit, Unseen};

/// What runs a node. The API server is among them only to say that it is none (B-005).
const UNITS: [&str; 6] = [
    "kubelet.service",
    "containerd.service",
    "crio.service",
    "etcd.service",
    "kube-apiserver.service",
    "k3s.service",
];

const PROPERTIES: &str =
    "--property=Id,LoadState,ActiveState,SubState,NRestarts,Result,ActiveEnterTimestampMonotonic";

/// Asks systemd.
///
/// # Errors
/// It does not run here, or does not answer.
pub(crate) async fn look(deadline: Deadline) -> Looked<Vec<Unit>> {
    let mut arguments = vec![
        "show".to_owned(),
        "--no-pager".to_owned(),
        PROPERTIES.to_owned(),
    ];
    arguments.extend(UNITS.map(str::to_owned));
    let printed = ask("systemctl", &arguments, deadline).await;
    let printed = printed.map_err(|error| match error {
        AskError::NotThere(why) => Unseen::NotHere(why),
        AskError::Failed(why) => Unseen::Failed(why),
    })?;
    if printed.is_cut {
        return Err(Unseen::Failed(
            "systemctl did not answer in time".to_owned(),
        ));
    }
    match printed.failed {
        None => {}
        // In a pod, in a rescue system, under another init: there are no units.
        Some(said) if said.contains("not been booted with systemd") => {
            return Err(Unseen::NotHere("systemd does not run here".to_owned()));
        }
        Some(said) => return Err(Unseen::Failed(format!("systemctl: {said}"))),
    }
    Ok(parse(&printed.text, uptime()))
}

/// How long this machine has run. It counts time asleep, which systemd does not: then a unit seems to be older than it is,
/// and a loop may be missed rather than imagined.
fn uptime() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split(' ').next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Blocks of `Name=value`, parted by empty lines.
fn parse(text: &str, uptime: Option<Duration>) -> Vec<Unit> {
    let of = |block: &str| {
        let value = |name: &str| {
            let mut lines = block.lines().filter_map(|line| line.split_once('='));
            let found = lines.find(|(known, _)| *known == name);
            found.map(|(_, value)| value.to_owned())
        };
        let is_active = value("ActiveState").is_some_and(|state| state == "active");
        // Microseconds since the start of the machine; 0 when it never was.
        let since = value("ActiveEnterTimestampMonotonic")
            .and_then(|at| at.parse().ok())
            .filter(|at| is_active && *at > 0)
            .map(Duration::from_micros);
        Some(Unit {
            active_for: uptime.zip(since).map(|(now, at)| now.saturating_sub(at)),
            name: value("Id")?,
            is_known: value("LoadState").is_some_and(|state| state != "not-found"),
            state: value("ActiveState").unwrap_or_default(),
            substate: value("SubState").unwrap_or_default(),
            restarts: value("NRestarts")
                .and_then(|count| count.parse().ok())
                .unwrap_or(0),
            result: value("Result").unwrap_or_default(),
        })
    };
    text.split("\n\n").filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // B-005
    #[test]
    fn a_unit_that_systemd_does_not_know_is_told_from_one_that_failed() {
        let text = "\
NRestarts=7
Result=exit-code
Id=kubelet.service
LoadState=loaded
ActiveState=activating
SubState=auto-restart

Id=kube-apiserver.service
LoadState=not-found
ActiveState=inactive
SubState=dead
";
        let units = parse(text, Some(Duration::from_secs(100)));
        assert_eq!(units.len(), 2);
        assert_eq!((units[0].restarts, units[0].is_known), (7, true));
        assert_eq!(units[0].result, "exit-code");
        assert!(!units[1].is_known);
        assert_eq!(units[0].active_for, None, "it is not active");
        let text = "Id=a\nActiveState=active\nActiveEnterTimestampMonotonic=70000000\n";
        let units = parse(text, Some(Duration::from_secs(100)));
        assert_eq!(units[0].active_for, Some(Duration::from_secs(30)));
    }
}
