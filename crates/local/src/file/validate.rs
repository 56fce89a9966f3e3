//! What the values of the workload file may be, and how its parts fit together.
//!
//! Every rule that is broken becomes a [`Problem`] with place, field and what is allowed; checking goes on, so that
//! one run shows them all. A file with a problem yields no [`WorkloadFile`] at all: half a file would stop
//! workloads that somebody misspelled.

mod fields;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use nagi_core::guardrail::Guardrails;
use nagi_core::id::{Host, Name, NameError, Namespace, PoolName, WorkloadId};
use nagi_core::quantity::{Replicas, WakeCount};
use serde_saphyr::{Location, Spanned};

use super::{
    DEFAULT_POOL, PROBLEMS_MAX, PoolSpec, Problem, Resources, WorkloadFile, WorkloadSpec, quantity,
    schema,
};

/// Pools at most; a machine has few kinds of capacity to pretend.
const POOLS_MAX: usize = 100;
/// Workloads at most; each may be a process with a supervisor of its own.
const WORKLOADS_MAX: usize = 1_000;
/// Nodes of one pool at most.
const NODES: RangeInclusive<u32> = 1..=100;
/// Replicas of one workload at most, the default replica ceiling of the API (R06).
const REPLICAS_MAX: u32 = 100;
/// GPUs of one node at most; a bound against typing errors.
const GPUS_MAX: u32 = 1_024;
/// Processors at most, in thousandths: ten thousand; a bound against typing errors.
const CPU_MILLI_MAX: u64 = 10_000_000;
/// Price of a node for an hour at most, in millionths: ten thousand; a bound against typing errors.
const PRICE_MICRO_MAX: u64 = 10_000_000_000;
/// A boot longer than this is a typing error; real GPU nodes take up to ten minutes.
const BOOT_MAX: Duration = Duration::from_hours(1);
/// An empty node kept longer than a day is a node kept for ever.
const RELEASE_MAX: Duration = Duration::from_hours(24);
/// Thirty days.
const IDLE_MAX: Duration = Duration::from_hours(720);
/// Shorter than a second, a page that loads its parts one by one would be put to sleep between two of them.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// Waiting longer for one process to end would hold up a replacement for ever.
const GRACE_MAX: Duration = Duration::from_mins(10);
/// As in Kubernetes a short time, but long enough to finish a request.
const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// Collects problems while the file is walked.
struct Checker<'a> {
    directory: &'a Path,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

/// Turns the document into the file it describes.
///
/// # Errors
/// Every problem found, at most [`PROBLEMS_MAX`], in the order of the file.
pub(super) fn file(
    document: schema::Document,
    directory: &Path,
) -> Result<WorkloadFile, Vec<Problem>> {
    let mut checker = Checker {
        directory,
        problems: Vec::new(),
        warnings: Vec::new(),
    };
    if document.pools.len() > POOLS_MAX {
        checker.limit(document.pools.get(POOLS_MAX), "pools", POOLS_MAX);
    }
    let workloads_at = document.workloads.referenced;
    let workloads = document.workloads.value.unwrap_or_else(|| {
        // As an editor leaves it that is in the middle of saving: never taken for a wish to end everything.
        let message = "nothing stands here; allowed: a list, `- …`, or `[]` for no workload";
        checker.report(workloads_at, "workloads", message);
        Vec::new()
    });
    if workloads.len() > WORKLOADS_MAX {
        checker.limit(workloads.get(WORKLOADS_MAX), "workloads", WORKLOADS_MAX);
    }
    let pools = checker.pools(document.pools);
    let workloads = checker.workloads(workloads, &pools);
    if checker.problems.is_empty() {
        return Ok(WorkloadFile {
            pools,
            workloads,
            warnings: in_order(checker.warnings),
        });
    }
    Err(in_order(checker.problems))
}

fn in_order(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort_by_key(|problem| (problem.line, problem.column));
    problems.truncate(PROBLEMS_MAX);
    problems
}

fn problem(at: Location, field: impl Into<String>, message: impl Into<String>) -> Problem {
    Problem {
        line: at.line(),
        column: at.column(),
        field: field.into(),
        message: message.into(),
    }
}

// === impl Checker ===

impl Checker<'_> {
    fn report(&mut self, at: Location, field: impl Into<String>, message: impl Into<String>) {
        self.problems.push(problem(at, field, message));
    }

    /// Nobody knows to how many replicas it wakes before its first scale-up (DESIGN §5); that is seldom meant.
    fn warn_of_no_wake_count(&mut self, at: Location, path: &str, idle_after: Option<Duration>) {
        let today = if idle_after.is_some() {
            "a request wakes it to 1, but a schedule and `nagi wake` do not wake it"
        } else {
            "neither a request nor a schedule nor `nagi wake` wakes it"
        };
        let message = format!(
            "0 without awake_replicas: {today} before a scale-up has named a count; \
             next step: add `awake_replicas: 1`, or as many as it needs"
        );
        self.warnings
            .push(problem(at, format!("{path}.replicas"), message));
    }

    fn limit<T>(&mut self, first_too_many: Option<&Spanned<T>>, field: &str, max: usize) {
        let at = first_too_many.map_or(Location::UNKNOWN, |item| item.referenced);
        self.report(
            at,
            field,
            format!("too many entries; allowed: at most {max}"),
        );
    }

    fn pools(&mut self, pools: Vec<Spanned<schema::Pool>>) -> BTreeMap<PoolName, PoolSpec> {
        let mut checked = BTreeMap::new();
        if pools.is_empty()
            && let Ok(name) = PoolName::new(DEFAULT_POOL)
        {
            let pool = PoolSpec {
                name: name.clone(),
                boot: Duration::ZERO,
                release_after: Duration::ZERO,
                price_per_hour_micro: 0,
                nodes_max: *NODES.start(),
                capacity: unlimited(),
            };
            checked.insert(name, pool);
        }
        for (index, pool) in pools.into_iter().enumerate() {
            let at = pool.value.name.referenced;
            let Some(pool) = self.pool(pool.value, &format!("pools[{index}]")) else {
                continue;
            };
            match checked.entry(pool.name.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(pool);
                }
                Entry::Occupied(_) => {
                    let message = format!("a second pool {}; allowed: each name once", pool.name);
                    self.report(at, format!("pools[{index}].name"), message);
                }
            }
        }
        checked
    }

    fn pool(&mut self, pool: schema::Pool, path: &str) -> Option<PoolSpec> {
        let name = self.name(&pool.name, format!("{path}.name"), |text| {
            PoolName::new(text)
        });
        let boot = self.duration(
            pool.boot.as_ref(),
            format!("{path}.boot"),
            Duration::ZERO..=BOOT_MAX,
        );
        let release_after = self.duration(
            pool.release_after.as_ref(),
            format!("{path}.release_after"),
            Duration::ZERO..=RELEASE_MAX,
        );
        let price = self.quantity(
            pool.price_per_hour.as_ref(),
            format!("{path}.price_per_hour"),
            quantity::money_micro,
            (PRICE_MICRO_MAX, "at most 10000"),
        );
        let nodes_max = self.count(
            pool.max_nodes.as_ref(),
            format!("{path}.max_nodes"),
            NODES,
            *NODES.start(),
        );
        let capacity = pool.node.map_or_else(unlimited, |node| {
            self.resources(&node.value, &format!("{path}.node"), unlimited())
        });
        Some(PoolSpec {
            name: name?,
            boot: boot.unwrap_or_default(),
            release_after: release_after.unwrap_or_default(),
            price_per_hour_micro: price.unwrap_or(0),
            nodes_max,
            capacity,
        })
    }

    fn resources(&mut self, given: &schema::Resources, path: &str, absent: Resources) -> Resources {
        let cpu_milli = self.quantity(
            given.cpu.as_ref(),
            format!("{path}.cpu"),
            quantity::cpu_milli,
            (CPU_MILLI_MAX, "at most 10000"),
        );
        let memory_bytes = self.quantity(
            given.memory.as_ref(),
            format!("{path}.memory"),
            quantity::memory,
            (u64::MAX, "at most 16 EiB"),
        );
        let gpu = self.count(
            given.gpu.as_ref(),
            format!("{path}.gpu"),
            0..=GPUS_MAX,
            absent.gpu,
        );
        Resources {
            cpu_milli: cpu_milli.unwrap_or(absent.cpu_milli),
            memory_bytes: memory_bytes.unwrap_or(absent.memory_bytes),
            gpu,
        }
    }

    fn workloads(
        &mut self,
        workloads: Vec<Spanned<schema::Workload>>,
        pools: &BTreeMap<PoolName, PoolSpec>,
    ) -> Vec<WorkloadSpec> {
        let mut seen: BTreeMap<WorkloadId, u64> = BTreeMap::new();
        let mut hosts: BTreeMap<Host, WorkloadId> = BTreeMap::new();
        let mut checked = Vec::with_capacity(workloads.len());
        for (index, workload) in workloads.into_iter().enumerate() {
            let path = format!("workloads[{index}]");
            let at = workload.value.name.referenced;
            let host_places: Vec<Location> = (workload.value.hosts.as_ref())
                .map(|hosts| hosts.iter().map(|host| host.referenced).collect())
                .unwrap_or_default();
            let Some(spec) = self.workload(workload, &path, pools) else {
                continue;
            };
            if let Some(line) = seen.insert(spec.id.clone(), at.line()) {
                let message = format!(
                    "a second workload {} (the first is at line {line}); allowed: each name once in a namespace",
                    spec.id
                );
                self.report(at, format!("{path}.name"), message);
            }
            for (number, host) in spec.hosts.iter().enumerate() {
                if let Some(other) = hosts.insert(host.clone(), spec.id.clone()) {
                    let (at, field) = host_places.get(number).map_or_else(
                        || (at, format!("{path}.name")),
                        |place| (*place, format!("{path}.hosts[{number}]")),
                    );
                    let message = format!(
                        "host {host} is claimed by {other} too; allowed: each host for one workload"
                    );
                    self.report(at, field, message);
                }
            }
            checked.push(spec);
        }
        checked
    }

    fn workload(
        &mut self,
        workload: Spanned<schema::Workload>,
        path: &str,
        pools: &BTreeMap<PoolName, PoolSpec>,
    ) -> Option<WorkloadSpec> {
        let at = workload.referenced;
        let given = workload.value;
        let before = self.problems.len();
        let namespace = self.name(&given.namespace, format!("{path}.namespace"), |text| {
            Namespace::new(text)
        });
        if let Some(Err(forbidden)) =
            (namespace.as_ref()).map(|namespace| Guardrails::default().check(namespace))
        {
            let message =
                format!("{forbidden}: it stays as it is here; next step: name another namespace");
            let at = given.namespace.referenced;
            self.warnings
                .push(problem(at, format!("{path}.namespace"), message));
        }
        let name = self.name(&given.name, format!("{path}.name"), |text| {
            // A label, not only a subdomain: replicas are named after it.
            Namespace::new(text).and_then(|_| Name::new(text))
        });
        let working_directory = self.directory(given.working_directory.as_ref(), path);
        let command = self.command(&given.command, path, &working_directory);
        let env = self.environment(given.env, path, at);
        let labels = self.labels(given.labels, path, at);
        let port = self.port(given.port.as_ref(), path);
        let readiness = self.readiness(given.readiness.as_ref(), path, port);
        let resources = given
            .resources
            .as_ref()
            .map(|given| {
                self.resources(
                    &given.value,
                    &format!("{path}.resources"),
                    Resources::default(),
                )
            })
            .unwrap_or_default();
        let pool = self.pool_of(given.pool.as_ref(), path, at, pools);
        let resources_at = given.resources.map_or(at, |resources| resources.referenced);
        if let Some(pool) = pool.as_ref().and_then(|pool| pools.get(pool)) {
            self.fits(resources, pool, path, resources_at);
        }
        let replicas = self.count(
            given.replicas.as_ref(),
            format!("{path}.replicas"),
            0..=REPLICAS_MAX,
            1,
        );
        let awake = given.awake_replicas.as_ref();
        let awake_replicas =
            self.count(awake, format!("{path}.awake_replicas"), 1..=REPLICAS_MAX, 0);
        let idle_after = self.duration(
            given.idle_after.as_ref(),
            format!("{path}.idle_after"),
            IDLE_MIN..=IDLE_MAX,
        );
        if let Some(given) = &given.idle_after
            && port.is_none()
        {
            let message = "no request can reach it, so nothing tells that it is in use; allowed: only together with port";
            self.report(given.referenced, format!("{path}.idle_after"), message);
        }
        if let Some(declared) = &given.replicas
            && replicas == 0
            && given.awake_replicas.is_none()
        {
            self.warn_of_no_wake_count(declared.referenced, path, idle_after);
        }
        let stop_grace = self
            .duration(
                given.stop_grace.as_ref(),
                format!("{path}.stop_grace"),
                Duration::ZERO..=GRACE_MAX,
            )
            .unwrap_or(GRACE_DEFAULT);
        let id = WorkloadId::deployment(namespace?, name?);
        let hosts = self.hosts(given.hosts, path, (&id, port), at);
        if self.problems.len() > before {
            return None;
        }
        Some(WorkloadSpec {
            id,
            command,
            env,
            working_directory,
            port,
            readiness,
            pool: pool?,
            resources,
            replicas: Replicas(replicas),
            awake_replicas: WakeCount::new(awake_replicas),
            hosts,
            idle_after,
            labels,
            stop_grace,
        })
    }

    fn name<T>(
        &mut self,
        given: &schema::Text,
        field: String,
        read: impl Fn(&str) -> Result<T, NameError>,
    ) -> Option<T> {
        match read(&given.value) {
            Ok(name) => Some(name),
            Err(error) => {
                self.report(
                    given.referenced,
                    field,
                    format!("{:?} {error}", given.value),
                );
                None
            }
        }
    }

    fn duration(
        &mut self,
        given: Option<&schema::Text>,
        field: String,
        allowed: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let given = given?;
        match quantity::duration(&given.value) {
            Ok(read) if allowed.contains(&read) => Some(read),
            Ok(_) => {
                let message = format!(
                    "{:?} is out of range; allowed: {} to {}",
                    given.value,
                    quantity::in_words(*allowed.start()),
                    quantity::in_words(*allowed.end())
                );
                self.report(given.referenced, field, message);
                None
            }
            Err(error) => {
                self.not_a_quantity(given, field, error);
                None
            }
        }
    }

    fn quantity<E: Display>(
        &mut self,
        given: Option<&schema::Text>,
        field: String,
        read: impl Fn(&str) -> Result<u64, E>,
        (max, max_in_words): (u64, &str),
    ) -> Option<u64> {
        let given = given?;
        match read(&given.value) {
            Ok(read) if read <= max => Some(read),
            Ok(_) => {
                let message = format!("{:?} is out of range; allowed: {max_in_words}", given.value);
                self.report(given.referenced, field, message);
                None
            }
            Err(error) => {
                self.not_a_quantity(given, field, error);
                None
            }
        }
    }

    fn not_a_quantity(&mut self, given: &schema::Text, field: String, error: impl Display) {
        let message = format!("{:?}; allowed: {error}", given.value);
        self.report(given.referenced, field, message);
    }

    /// A whole number in a range; `absent` when it is not given or not usable.
    fn count(
        &mut self,
        given: Option<&schema::Text>,
        field: String,
        allowed: RangeInclusive<u32>,
        absent: u32,
    ) -> u32 {
        let Some(given) = given else { return absent };
        match given.value.parse() {
            Ok(count) if allowed.contains(&count) => count,
            Ok(_) | Err(_) => {
                let (low, high) = (allowed.start(), allowed.end());
                let message = format!(
                    "{:?}; allowed: a whole number from {low} to {high}",
                    given.value
                );
                self.report(given.referenced, field, message);
                absent
            }
        }
    }
}

/// A node without stated capacity: anything fits, but nobody promised a GPU.
const fn unlimited() -> Resources {
    Resources {
        cpu_milli: u64::MAX,
        memory_bytes: u64::MAX,
        gpu: 0,
    }
}
