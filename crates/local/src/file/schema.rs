//! The workload file as it is written: one struct per mapping, every value with its place in the text.
//!
//! These types are a promise to the people who write the file. Their doc comments become the published JSON
//! schema, so they speak to a reader of the file and state unit, range and default. They check names of fields
//! and kinds of values only; what values are allowed is the business of `validate`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde_saphyr::Spanned;

/// A number or a text with a unit; both spellings of YAML arrive as text.
pub(super) type Text = Spanned<String>;

/// Workloads that run on this machine, and the pools of nodes they run on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    /// Pools of nodes. Left out: one pool `default`, a single node without boot time, price or limits.
    #[serde(default)]
    #[schemars(with = "Option<Vec<Pool>>", length(max = 100))]
    pub(super) pools: Vec<Spanned<Pool>>,
    /// The workloads, each a command with its replicas.
    #[schemars(with = "Vec<Workload>", length(max = 1000))]
    pub(super) workloads: Spanned<Option<Vec<Spanned<Workload>>>>,
}

/// A group of equal nodes that boot when a replica needs one and are released when empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pool {
    /// Name, a DNS label, unique in the file.
    #[schemars(
        with = "String",
        regex(pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    )]
    pub(super) name: Text,
    /// Time from the decision to boot a node until replicas can start on it: 0s to 1h. Default 0s.
    #[schemars(with = "Option<String>")]
    pub(super) boot: Option<Text>,
    /// How long a node stays after its last replica has gone: 0s to 24h. Default 0s.
    #[schemars(with = "Option<String>")]
    pub(super) release_after: Option<Text>,
    /// Price of one node for one hour, 0 to 10000, in the currency of your choice. Default 0.
    #[schemars(with = "Option<Number>")]
    pub(super) price_per_hour: Option<Text>,
    /// Nodes at most at one time: 1 to 100. Default 1.
    #[schemars(with = "Option<Whole>", range(min = 1, max = 100))]
    pub(super) max_nodes: Option<Text>,
    /// What one node offers. Left out: processors and memory without limit, no GPU.
    #[schemars(with = "Option<Resources>")]
    pub(super) node: Option<Spanned<Resources>>,
}

/// An amount of processors, memory and GPUs: what a node offers or one replica asks for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Resources {
    /// Processors in steps of 0.001, 0 to 10000.
    #[schemars(with = "Option<Number>")]
    pub(super) cpu: Option<Text>,
    /// Memory: `512MiB`, `32GiB` or a whole number of bytes.
    #[schemars(with = "Option<Number>")]
    pub(super) memory: Option<Text>,
    /// GPUs, 0 to 1024. Default 0.
    #[schemars(with = "Option<Whole>", range(max = 1024))]
    pub(super) gpu: Option<Text>,
}

/// A command that runs as one or more replicas.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Workload {
    /// The project it belongs to, a DNS label.
    #[schemars(
        with = "String",
        regex(pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    )]
    pub(super) namespace: Text,
    /// Name, a DNS label, unique in its namespace.
    #[schemars(
        with = "String",
        regex(pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    )]
    pub(super) name: Text,
    /// Program and arguments, run without a shell. A program with a slash is relative to `working_directory`.
    #[schemars(with = "Vec<Word>", length(min = 1, max = 256))]
    pub(super) command: Spanned<Vec<Text>>,
    /// Environment beside `PATH`, `HOME`, locale and the like. `PORT` and `NAGI_…` are set by Nagi.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, Word>>")]
    pub(super) env: BTreeMap<String, Text>,
    /// Directory the command starts in, relative to the directory of this file. Default: that directory.
    #[schemars(with = "Option<String>")]
    pub(super) working_directory: Option<Text>,
    /// The port people know the workload by. Each replica listens on its own, given in `PORT`.
    #[schemars(with = "Option<Whole>", range(min = 1, max = 65535))]
    pub(super) port: Option<Text>,
    /// When a replica is ready. Default: its port accepts connections; without a port: it has run for 1 s.
    #[schemars(with = "Option<Readiness>")]
    pub(super) readiness: Option<Spanned<Readiness>>,
    /// Name of the pool it runs on. May be left out while there is only one.
    #[schemars(with = "Option<String>")]
    pub(super) pool: Option<Text>,
    /// What one replica takes of a node. Default: nothing.
    #[schemars(with = "Option<Resources>")]
    pub(super) resources: Option<Spanned<Resources>>,
    /// Replicas when the workload is seen for the first time: 0 to 100. Default 1. With 0, give `awake_replicas` too: it says
    /// to how many a wake goes before anybody has named a count.
    #[schemars(with = "Option<Whole>", range(max = 100))]
    pub(super) replicas: Option<Text>,
    /// Replicas after a wake that names no other count: 1 to 100. Default: the remembered count.
    #[schemars(with = "Option<Whole>", range(min = 1, max = 100))]
    pub(super) awake_replicas: Option<Text>,
    /// Host names the gateway serves it under; they need a `port`. Default: `NAME.NAMESPACE.localhost`, and none without a port.
    #[schemars(with = "Option<Vec<String>>", length(max = 32))]
    pub(super) hosts: Option<Vec<Text>>,
    /// Time without traffic after which it goes to sleep by itself: 1s to 30 days (720h); needs a `port`. Default: never.
    #[schemars(with = "Option<String>")]
    pub(super) idle_after: Option<Text>,
    /// Labels for filters; keys and values as in Kubernetes.
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, Word>>")]
    pub(super) labels: BTreeMap<String, Text>,
    /// Time between SIGTERM and SIGKILL: 0s to 10m. Default 10s.
    #[schemars(with = "Option<String>")]
    pub(super) stop_grace: Option<Text>,
}

/// How to tell that a replica can serve.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
pub(super) enum Readiness {
    /// A GET answers with a status from 200 to 399.
    Http {
        /// Path of the request, starting with a slash.
        #[schemars(with = "String", regex(pattern = "^/"))]
        path: Text,
    },
    /// The port accepts a connection.
    Tcp {},
}

/// Stands in the published schema for a text: what YAML takes for a number or a truth value is taken as it is written.
enum Word {}

/// Stands there for a whole number, which may be in quotes.
enum Whole {}

/// Stands there for a value that may be a number or a text with a unit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used; values are read as text")]
enum Number {
    /// A plain number.
    Plain(f64),
    /// A number with its unit.
    WithUnit(String),
}

// === impl Word ===

impl JsonSchema for Word {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Word".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["string", "number", "boolean"] })
    }
}

// === impl Whole ===

impl JsonSchema for Whole {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Whole".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": ["integer", "string"], "pattern": r"^\+?[0-9]+$" })
    }
}
