//! The network of a cluster: one namespace per node, joined by one bridge, and addresses that nothing on this machine uses.
//!
//! A cluster has one range of 2048 addresses: the first 256 are its nodes' (node `n` is `.n`, the machine itself `.254`), the
//! next seven times 256 belong to the pods of node 1 to 7. In the machine's own network there are only the bridge and eight
//! routes to it. Everything else, with all rules of Services, lives in the nodes' namespaces and goes away with them.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::call::{Call, on_path};
use crate::files;
use crate::process::Place;

/// Node numbers begin at 1 and end here: what the address range holds.
pub(crate) const NODES_MAX: u8 = 7;

/// The number of the machine itself on the bridge.
const MACHINE: u8 = 254;

/// Two thirds of what a VPN or a company uses begin with 10, so the second choice is the range that is kept for benchmarks of
/// network devices.
const BASES: [[u8; 2]; 2] = [[10, 77], [198, 18]];

/// How many ranges of 2048 addresses a base holds.
const RANGES_IN_BASE: u8 = 32;

/// The addresses of one cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// Which range it is; names of links carry this number.
    pub(crate) index: u8,
}

/// The network of one cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Network {
    pub(crate) cluster: String,
    pub(crate) addresses: Addresses,
}

// === impl Addresses ===

impl Addresses {
    /// All ranges, in the order in which they are tried.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..RANGES_IN_BASE * 2).map(|index| Self { index })
    }

    fn part(self, third: u8, last: u8) -> Ipv4Addr {
        let [first, second] = BASES[usize::from(self.index / RANGES_IN_BASE)];
        let range = (self.index % RANGES_IN_BASE) * (NODES_MAX + 1);
        Ipv4Addr::new(first, second, range + third, last)
    }

    /// The address of a node.
    pub(crate) fn node(self, number: u8) -> Ipv4Addr {
        self.part(0, number)
    }

    /// The machine's own address on the bridge.
    pub(crate) fn machine(self) -> Ipv4Addr {
        self.part(0, MACHINE)
    }

    /// Where the pods of a node get theirs from.
    pub(crate) fn pods(self, number: u8) -> String {
        format!("{}/24", self.part(number, 0))
    }

    /// Everything of this cluster.
    pub(crate) fn range(self) -> String {
        format!("{}/21", self.part(0, 0))
    }

    /// Whether a route or an address of the machine lies in the range, or the other way round.
    fn overlaps(self, other: &str) -> bool {
        let (address, length) = other.split_once('/').unwrap_or((other, "32"));
        let (Ok(address), Ok(length)) = (address.parse::<Ipv4Addr>(), length.parse::<u32>()) else {
            return false;
        };
        let shorter = length.min(21);
        let mask = u32::MAX.checked_shl(32 - shorter).unwrap_or(0);
        address.to_bits() & mask == self.part(0, 0).to_bits() & mask
    }

    /// Whether nothing on this machine uses the range or the names of the links.
    pub(crate) fn is_free(self) -> anyhow::Result<bool> {
        if links()?.iter().any(|link| link.name == self.bridge()) {
            return Ok(false);
        }
        let mut used = Vec::new();
        let routes = Call::new("ip")
            .arguments(["-json", "-4", "route", "show", "table", "all"])
            .output()?;
        let routes: Value = serde_json::from_str(&routes).context("read the machine's routes")?;
        for route in routes.as_array().into_iter().flatten() {
            if let Some(to) = route.get("dst").and_then(Value::as_str)
                && to != "default"
            {
                used.push(to.to_owned());
            }
        }
        Ok(!used.iter().any(|other| self.overlaps(other)))
    }

    fn bridge(self) -> String {
        format!("nagi{}", self.index)
    }

    fn link(self, number: u8) -> String {
        format!("nagi{}-{number}", self.index)
    }
}

// === impl Network ===

impl Network {
    /// Makes the bridge and the routes to it.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        let bridge = self.addresses.bridge();
        let mut lines = vec![
            format!("link add {bridge} type bridge"),
            format!("link set {bridge} alias {}", alias(&self.cluster)),
            format!("address add {}/24 dev {bridge}", self.addresses.machine()),
            format!("link set {bridge} up"),
        ];
        for number in 1..=NODES_MAX {
            lines.push(format!(
                "route add {} via {} dev {bridge}",
                self.addresses.pods(number),
                self.addresses.node(number)
            ));
        }
        batch(Call::new("ip"), &lines).with_context(|| format!("make the bridge {bridge}"))
    }

    /// Makes the namespace of a node and joins it to the bridge.
    pub(crate) fn add_node(&self, name: &str, number: u8) -> anyhow::Result<()> {
        if !(1..=NODES_MAX).contains(&number) {
            bail!("a cluster has at most {NODES_MAX} nodes");
        }
        let namespace = self.namespace(name);
        let (bridge, link) = (self.addresses.bridge(), self.addresses.link(number));
        Call::new("ip")
            .arguments(["netns", "add", &namespace])
            .succeed()?;
        let lines = [
            format!("link add {link} type veth peer name eth0 netns {namespace}"),
            format!("link set {link} master {bridge}"),
            format!("link set {link} up"),
        ];
        batch(Call::new("ip"), &lines).with_context(|| format!("join {name} to {bridge}"))?;
        let mut lines = vec![
            "link set lo up".to_owned(),
            format!("address add {}/24 dev eth0", self.addresses.node(number)),
            "link set eth0 up".to_owned(),
            format!("route add default via {}", self.addresses.machine()),
        ];
        for other in (1..=NODES_MAX).filter(|&other| other != number) {
            lines.push(format!(
                "route add {} via {}",
                self.addresses.pods(other),
                self.addresses.node(other)
            ));
        }
        batch(Call::new("ip").arguments(["-netns", &namespace]), &lines)
            .with_context(|| format!("give {name} its addresses"))?;
        // Pods are reached through their node.
        self.place(name)
            .call("sh")
            .arguments(["-c", "echo 1 >/proc/sys/net/ipv4/ip_forward"])
            .succeed()
    }

    /// The namespace of a node.
    pub(crate) fn place(&self, name: &str) -> Place {
        Place {
            network: Some(namespace_file(&self.namespace(name))),
            ..Place::default()
        }
    }

    /// Takes a node's namespace and link away; what is gone already is no error.
    pub(crate) fn remove_node(&self, name: &str, number: u8) -> anyhow::Result<()> {
        remove_link(&self.addresses.link(number))?;
        remove_namespace(&self.namespace(name))
    }

    pub(crate) fn namespace(&self, node: &str) -> String {
        format!("{}{node}", prefix(&self.cluster))
    }
}

/// What the names of a cluster's namespaces and control groups begin with. Names of clusters and nodes hold no underscore, so no
/// cluster's prefix is the beginning of another's.
pub(crate) fn prefix(cluster: &str) -> String {
    format!("nagi_{cluster}_")
}

/// What the bridge of a cluster carries: its name says nothing, and may be another's by the time it is taken away.
fn alias(cluster: &str) -> String {
    format!("nagi-cluster-{cluster}")
}

/// Takes away all that a cluster of this name has in this process' network.
pub(crate) fn remove(cluster: &str) -> anyhow::Result<()> {
    if on_path("ip").is_none() {
        // What it would have been made with.
        return Ok(());
    }
    for namespace in namespaces(&prefix(cluster))? {
        remove_namespace(&namespace)?;
    }
    let links = links()?;
    let alias = alias(cluster);
    for bridge in links.iter().filter(|link| link.alias == alias) {
        let joined = format!("{}-", bridge.name);
        for link in links.iter().filter(|link| link.name.starts_with(&joined)) {
            remove_link(&link.name)?;
        }
        remove_link(&bridge.name)?;
    }
    Ok(())
}

/// The names of namespaces that begin so.
fn namespaces(prefix: &str) -> anyhow::Result<Vec<String>> {
    let entries = files::entries(Path::new(NAMESPACES))?;
    let names = entries.iter().filter_map(|path| files::name(path));
    Ok(names
        .filter(|name| name.starts_with(prefix))
        .map(str::to_owned)
        .collect())
}

/// Where `ip netns` keeps its names.
const NAMESPACES: &str = "/run/netns";

fn namespace_file(namespace: &str) -> PathBuf {
    Path::new(NAMESPACES).join(namespace)
}

fn batch(ip: Call, lines: &[String]) -> anyhow::Result<()> {
    ip.arguments(["-batch", "-"])
        .input(lines.join("\n") + "\n")
        .succeed()
}

/// A link of the network that this process is in; `/sys` may show another's.
#[derive(Debug, Deserialize)]
struct Link {
    #[serde(rename = "ifname")]
    name: String,
    #[serde(rename = "ifalias", default)]
    alias: String,
}

fn links() -> anyhow::Result<Vec<Link>> {
    let text = Call::new("ip")
        .arguments(["-json", "link", "show"])
        .output()?;
    serde_json::from_str(&text).context("read the machine's links")
}

/// A link that goes away meanwhile is removed as well: the kernel takes a pair along with its namespace, a moment later.
fn remove_link(link: &str) -> anyhow::Result<()> {
    let is_there =
        || -> anyhow::Result<bool> { Ok(links()?.iter().any(|found| found.name == link)) };
    if !is_there()? {
        return Ok(());
    }
    match Call::new("ip")
        .arguments(["link", "delete", link])
        .succeed()
    {
        Err(error) if is_there()? => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn remove_namespace(namespace: &str) -> anyhow::Result<()> {
    if !namespace_file(namespace).exists() {
        return Ok(());
    }
    Call::new("ip")
        .arguments(["netns", "delete", namespace])
        .succeed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_touch_each_other() {
        let all: Vec<Addresses> = Addresses::all().collect();
        assert_eq!(all.len(), 64);
        for (at, one) in all.iter().enumerate() {
            for other in all.iter().skip(at + 1) {
                assert!(!one.overlaps(&other.range()), "{one:?} {other:?}");
            }
        }
    }

    #[test]
    fn addresses_of_nodes_and_pods_lie_in_the_range() {
        let addresses = Addresses { index: 33 };
        assert_eq!(addresses.range(), "198.18.8.0/21");
        assert_eq!(addresses.node(1).to_string(), "198.18.8.1");
        assert_eq!(addresses.pods(7), "198.18.15.0/24");
    }

    #[test]
    fn range_overlaps_what_holds_it_and_what_it_holds() {
        let addresses = Addresses { index: 0 };
        for other in ["10.77.7.9", "10.77.0.0/16", "10.0.0.0/8", "10.77.4.0/24"] {
            assert!(addresses.overlaps(other), "{other}");
        }
        for other in ["10.77.8.0", "10.76.0.0/16", "192.168.0.0/16", "unreachable"] {
            assert!(!addresses.overlaps(other), "{other}");
        }
    }
}
