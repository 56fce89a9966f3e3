//! Names that the outside relies on: annotations, labels, field managers. Each is defined once.

/// Prefix of every annotation of ours.
pub(crate) const PREFIX: &str = "nagi.dev/";

/// Annotations on a workload. Those up to [`LEARNED`](annotation::LEARNED) are written by us, the others by people.
pub mod annotation {
    /// Version of the format of these annotations.
    pub const FORMAT: &str = "nagi.dev/format";
    /// The count to restore.
    pub const REPLICAS: &str = "nagi.dev/replicas";
    /// Since when it sleeps, RFC 3339.
    pub const ASLEEP_SINCE: &str = "nagi.dev/asleep-since";
    /// Who put it to sleep: `api`, `schedule`, `policy/NAMESPACE/NAME`.
    pub const ASLEEP_BY: &str = "nagi.dev/asleep-by";
    /// Why it was last changed. For people; the record itself is in `changes`.
    pub const REASON: &str = "nagi.dev/reason";
    /// By whom it was last changed. For people.
    pub const ACTOR: &str = "nagi.dev/actor";
    /// When the wanted count last changed, RFC 3339.
    pub const LAST_SCALE_TIME: &str = "nagi.dev/last-scale-time";
    /// A one-off wake: its instant (RFC 3339), and after blanks who asked for it and in which request.
    pub const SCHEDULED_SCALE_UP: &str = "nagi.dev/scheduled-scale-up";
    /// No automatic sleep before this instant, RFC 3339.
    pub const KEEP_AWAKE_UNTIL: &str = "nagi.dev/keep-awake-until";
    /// Term of the leader that wrote last.
    pub const EPOCH: &str = "nagi.dev/epoch";
    /// The last changes, JSON.
    pub const CHANGES: &str = "nagi.dev/changes";
    /// Learned durations of the stages of a wake, JSON: milliseconds until ready.
    pub const LEARNED: &str = "nagi.dev/learned";
    /// From people: the count to wake to.
    pub const AWAKE_REPLICAS: &str = "nagi.dev/awake-replicas";
    /// From people: host names for the gateway, separated by commas.
    pub const HOSTS: &str = "nagi.dev/hosts";
}

/// What is written by us. The others are made by people, and stay when we go.
pub(crate) const WRITTEN_BY_US: [&str; 12] = [
    annotation::FORMAT,
    annotation::REPLICAS,
    annotation::ASLEEP_SINCE,
    annotation::ASLEEP_BY,
    annotation::REASON,
    annotation::ACTOR,
    annotation::LAST_SCALE_TIME,
    annotation::SCHEDULED_SCALE_UP,
    annotation::KEEP_AWAKE_UNTIL,
    annotation::EPOCH,
    annotation::CHANGES,
    annotation::LEARNED,
];

/// The format that we write, and the newest that we read.
pub(crate) const FORMAT: &str = "1";

/// Field manager of the API and the controller.
pub(crate) const FIELD_MANAGER: &str = "nagi";
/// Field manager of the gateway, whose writes carry no record of their own: by it the controller tells a wake on request
/// from a change by somebody else.
pub(crate) const FIELD_MANAGER_GATEWAY: &str = "nagi-gateway";

/// The Lease by which one process leads.
pub(crate) const LEASE: &str = "nagi-leader";
/// The namespace that Nagi lives in, also for a process outside the cluster.
pub(crate) const NAMESPACE: &str = "scale-system";

/// `reportingController` of our Events.
pub(crate) const REPORTER: &str = "nagi.dev/scale-api";

/// The port that the gateway goes to, by its name.
pub(crate) const PORT: &str = "http";

/// Labels of nodes that name their pool, the first that is there counts.
pub(crate) const POOL_LABELS: [&str; 6] = [
    "agentpool",
    "project",
    "karpenter.sh/nodepool",
    "cloud.google.com/gke-nodepool",
    "eks.amazonaws.com/nodegroup",
    "node.kubernetes.io/pool",
];
/// Label of pods that names the part of a `ReplicaSet`'s name after that of its Deployment.
pub(crate) const POD_TEMPLATE_HASH: &str = "pod-template-hash";
