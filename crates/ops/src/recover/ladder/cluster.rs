//! The rungs that the API server tells of: itself, its nodes, their pressure; and a day's growth.

use std::path::PathBuf;
use std::time::Duration;

use super::{Held, Look, Outcome, Rules, Rung, result, unknown};
use crate::decide::bytes;
use crate::observed::Looked;
use crate::recover::api::Pressure;

pub(super) fn api(last: &Look) -> Held {
    let facts = match &last.api {
        Ok(facts) => facts,
        Err(unseen) => return unknown(Rung::Api, unseen),
    };
    let part = |path: &str, checks: &Looked<Vec<String>>| match checks {
        Ok(failed) if failed.is_empty() => (Outcome::Passed, format!("/{path} says ok")),
        Ok(failed) => (
            Outcome::Failed,
            format!("/{path} says that these fail: {}", failed.join(", ")),
        ),
        // An API server that does not answer is not up.
        Err(unseen) => (Outcome::Failed, unseen.why().to_owned()),
    };
    result(
        Rung::Api,
        vec![part("livez", &facts.livez), part("readyz", &facts.readyz)],
    )
}

/// kubelet renews its lease every 10 s, and the controller calls a node lost after 40: until then *Ready* may be of before.
const LEASE_MAX: i64 = 40;

/// The API server is that of this node's cluster: it lists the node.
pub(in crate::recover) fn is_own(look: &Look) -> bool {
    own(look).0 == Outcome::Passed
}

fn own(last: &Look) -> (Outcome, String) {
    let name = match &last.name {
        Ok(name) => name,
        Err(unseen) => {
            let why = format!("how this node is called is not known: {}", unseen.why());
            return (Outcome::Unknown, why);
        }
    };
    match last.api.as_ref().map(|api| &api.nodes) {
        Ok(Ok(nodes)) if nodes.iter().any(|node| node.name == *name) => (
            Outcome::Passed,
            format!("this node, {name}, is one of them"),
        ),
        Ok(Ok(_)) => (
            Outcome::Failed,
            format!("this node, {name}, is none of them: the kubeconfig leads to another cluster"),
        ),
        Ok(Err(unseen)) | Err(unseen) => (Outcome::Unknown, unseen.why().to_owned()),
    }
}

/// Whether kubelet of a node lives, which *Ready* tells only later.
fn lives(node: &super::super::api::NodeState, restarted: Option<Duration>) -> (Outcome, String) {
    let name = &node.name;
    let age = match &node.lease_age {
        Ok(age) => *age,
        Err(unseen) => {
            let why = format!(
                "whether kubelet of {name} lives is not known: {}",
                unseen.why()
            );
            return (Outcome::Unknown, why);
        }
    };
    let text = format!("{name} renewed its lease {age} s ago");
    if age >= LEASE_MAX {
        return (Outcome::Failed, format!("{text}, so its kubelet is lost"));
    }
    if age <= -LEASE_MAX {
        let why = format!(
            "{name} renewed its lease {} s from now: its clock is wrong",
            -age
        );
        return (Outcome::Failed, why);
    }
    let is_before =
        restarted.is_some_and(|ago| u64::try_from(age).is_ok_and(|age| age > ago.as_secs()));
    if is_before {
        return (
            Outcome::Failed,
            format!("{text}, which was before the restart"),
        );
    }
    (Outcome::Passed, text)
}

/// B-021: recovered is only what has all its nodes.
pub(super) fn nodes(rules: &Rules, last: &Look) -> Held {
    let nodes = match last.api.as_ref().map(|api| &api.nodes) {
        Ok(Ok(nodes)) => nodes,
        Ok(Err(unseen)) | Err(unseen) => return unknown(Rung::Nodes, unseen),
    };
    let ready = nodes.iter().filter(|node| node.ready.is_ok()).count();
    let expected = rules.nodes.unwrap_or(nodes.len());
    let text = format!("{ready} of {expected} nodes are Ready");
    let is_met = ready >= expected && ready == nodes.len() && ready > 0;
    let outcome = if is_met {
        Outcome::Passed
    } else {
        Outcome::Failed
    };
    let mut parts = vec![(outcome, text)];
    for node in nodes {
        if let Err(why) = &node.ready {
            parts.push((Outcome::Failed, format!("{}: {why}", node.name)));
        } else {
            let lives = lives(node, last.restarted);
            if lives.0 != Outcome::Passed {
                parts.push(lives);
            }
        }
    }
    parts.push(own(last));
    result(Rung::Nodes, parts)
}

pub(super) fn pressure(rules: &Rules, last: &Look) -> Held {
    let nodes = match last.api.as_ref().map(|api| &api.nodes) {
        Ok(Ok(nodes)) => nodes,
        Ok(Err(unseen)) | Err(unseen) => return unknown(Rung::Pressure, unseen),
    };
    let part = |node: &super::super::api::NodeState| match &node.pressure {
        Pressure::Yes => (Outcome::Failed, format!("{} has DiskPressure", node.name)),
        Pressure::Unknown => (
            Outcome::Unknown,
            format!("{} does not tell of DiskPressure", node.name),
        ),
        Pressure::No(None) => (
            Outcome::Unknown,
            format!(
                "{} does not tell since when it has no DiskPressure",
                node.name
            ),
        ),
        Pressure::No(Some(since)) => {
            let held = Duration::try_from(last.now.duration_since(*since)).unwrap_or_default();
            let outcome = if held >= rules.transition {
                Outcome::Passed
            } else {
                Outcome::Failed
            };
            let held = Duration::from_secs(held.as_secs());
            (
                outcome,
                format!("{} has had no DiskPressure for {held:?}", node.name),
            )
        }
    };
    result(Rung::Pressure, nodes.iter().map(part).collect())
}

pub(super) fn growth(last: &Look) -> Held {
    let filesystems = last.observed.filesystems.as_deref().unwrap_or_default();
    let part = |(point, growth): &(PathBuf, Looked<i64>)| {
        let shown = point.display();
        let space = filesystems.iter().find(|one| one.point == *point);
        let space = space.and_then(|one| one.space);
        match (growth, space) {
            (Err(unseen), _) => (
                Outcome::Unknown,
                format!("how {shown} grows is not known: {}", unseen.why()),
            ),
            (Ok(_), None) => (
                Outcome::Unknown,
                format!("{shown} did not say how full it is"),
            ),
            (Ok(grows), Some(space)) => {
                let fits = u64::try_from(*grows).unwrap_or(0) <= space.bytes_available;
                let outcome = if fits {
                    Outcome::Passed
                } else {
                    Outcome::Failed
                };
                let sign = if *grows < 0 { "-" } else { "" };
                (
                    outcome,
                    format!(
                        "{shown} grows by {sign}{} a day, and {} are available",
                        bytes(grows.unsigned_abs()),
                        bytes(space.bytes_available)
                    ),
                )
            }
        }
    };
    result(Rung::Growth, last.growth.iter().map(part).collect())
}
