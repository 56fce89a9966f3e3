//! The table of layers: what each crate of the workspace may depend on. ARCHITECTURE.md draws it.
//!
//! Only data. A change here is a change of the architecture: say in the commit what the new edge is needed for.

/// One row of the table.
pub(super) struct Layer {
    /// The crate, without the prefix `nagi-`.
    pub(super) name: &'static str,
    /// Crates of the workspace that it may depend on.
    pub(super) uses: &'static [&'static str],
    /// Further crates of the workspace that its tests, and only they, may depend on.
    pub(super) tests_use: &'static [&'static str],
    /// Crates from outside.
    pub(super) outside: Outside,
}

/// What a crate may use from outside the workspace.
pub(super) enum Outside {
    /// Only these (tests are free).
    Only(&'static [&'static str]),
    /// Nothing of these groups, neither directly nor through another crate of the workspace.
    Never(&'static [&'static [&'static str]]),
}

/// Clients of Kubernetes.
const KUBERNETES: &[&str] = &[
    "kube",
    "kube-client",
    "kube-core",
    "kube-runtime",
    "k8s-openapi",
    "kube-lease-manager",
];
/// The framework of the REST face.
const REST: &[&str] = &["axum", "utoipa"];
/// Bytes on a socket as HTTP.
const HTTP: &[&str] = &["hyper", "hyper-util", "reqwest"];
/// What is read or written as text: a promise to someone else, with types of its own.
const WIRE: &[&str] = &["serde", "serde_json", "serde-saphyr", "schemars"];
/// What only adapters talk to.
const SYSTEMS: &[&str] = &[
    "rustix",
    "nix",
    "libc",
    "rusqlite",
    "sqlx",
    "tokio-postgres",
];
/// The command line.
const COMMAND_LINE: &[&str] = &["clap", "clap_complete", "clap_mangen"];

/// The table, from the bottom up: a row names only crates of rows before it.
pub(super) const LAYERS: &[Layer] = &[
    Layer {
        name: "core",
        uses: &[],
        tests_use: &[],
        outside: Outside::Only(&["jiff", "thiserror"]),
    },
    Layer {
        name: "runtime",
        uses: &[],
        tests_use: &[],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, WIRE, SYSTEMS, COMMAND_LINE]),
    },
    // The commands of the founding documents, as data. It stands in second columns only, so it never ships.
    Layer {
        name: "seeds",
        uses: &[],
        tests_use: &[],
        outside: Outside::Only(&["serde", "serde-saphyr"]),
    },
    Layer {
        name: "telemetry",
        uses: &[],
        tests_use: &["seeds"],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, COMMAND_LINE]),
    },
    Layer {
        name: "ports",
        uses: &["core"],
        tests_use: &[],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, WIRE, SYSTEMS, COMMAND_LINE]),
    },
    // The socket of a container runtime, for the two faces that work on a node, and the settings of kubelet that name it: text,
    // which both have read to them by one reader.
    Layer {
        name: "cri",
        uses: &["runtime"],
        tests_use: &[],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, SYSTEMS, COMMAND_LINE]),
    },
    // Doubles of the ports. It stands in second columns only, so it never ships.
    Layer {
        name: "testkit",
        uses: &["core", "ports"],
        tests_use: &[],
        // It reads JSON: answers are checked against the document that describes them.
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, SYSTEMS, COMMAND_LINE]),
    },
    // A real Kubernetes for tests and for a person at a terminal: processes, no client.
    Layer {
        name: "e2e",
        uses: &[],
        tests_use: &["seeds"],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, COMMAND_LINE, &["tokio"]]),
    },
    Layer {
        name: "api",
        uses: &["core"],
        tests_use: &[],
        outside: Outside::Never(&[KUBERNETES, &["axum", "tokio"], HTTP, SYSTEMS, COMMAND_LINE]),
    },
    Layer {
        name: "local",
        uses: &["core", "ports", "runtime", "telemetry"],
        tests_use: &["testkit"],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, COMMAND_LINE]),
    },
    // An API server of its own, for tests and measurements of the adapter. It never ships.
    Layer {
        name: "kube-double",
        uses: &["runtime"],
        tests_use: &[],
        outside: Outside::Never(&[KUBERNETES, REST, SYSTEMS, COMMAND_LINE]),
    },
    Layer {
        name: "kube",
        uses: &["core", "ports", "runtime", "telemetry"],
        tests_use: &["e2e", "kube-double", "testkit"],
        outside: Outside::Never(&[REST, COMMAND_LINE]),
    },
    Layer {
        name: "wake",
        uses: &["core", "ports", "runtime", "telemetry"],
        tests_use: &["testkit"],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, COMMAND_LINE]),
    },
    Layer {
        name: "control",
        uses: &["core", "ports", "runtime", "telemetry", "wake"],
        tests_use: &["testkit"],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, COMMAND_LINE]),
    },
    // The one adapter that drives the loops: it is the world they run in.
    Layer {
        name: "sim",
        uses: &["core", "ports", "runtime", "telemetry", "wake", "control"],
        tests_use: &["testkit"],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, COMMAND_LINE]),
    },
    Layer {
        name: "server",
        uses: &["api", "core", "ports", "runtime", "telemetry", "wake"],
        tests_use: &["testkit"],
        outside: Outside::Never(&[KUBERNETES, COMMAND_LINE]),
    },
    Layer {
        name: "gateway",
        uses: &["core", "ports", "runtime", "telemetry", "wake"],
        tests_use: &["testkit"],
        outside: Outside::Never(&[KUBERNETES, REST, COMMAND_LINE]),
    },
    Layer {
        name: "guard",
        uses: &["core", "cri", "ports", "runtime", "telemetry"],
        tests_use: &["testkit"],
        outside: Outside::Never(&[KUBERNETES, REST, HTTP, COMMAND_LINE, &["rustls"]]),
    },
    Layer {
        name: "ops",
        uses: &["core", "cri", "ports", "runtime", "telemetry"],
        tests_use: &["testkit"],
        outside: Outside::Never(&[REST, COMMAND_LINE]),
    },
    Layer {
        name: "client",
        uses: &["api", "core"],
        tests_use: &[],
        outside: Outside::Never(&[KUBERNETES, &["axum"], COMMAND_LINE]),
    },
    // The only composition root. Its tests run the binary; of the test kit they use what tells a machine's limits.
    Layer {
        name: "cli",
        uses: &[
            "api",
            "client",
            "control",
            "core",
            "gateway",
            "guard",
            "kube",
            "local",
            "ops",
            "ports",
            "runtime",
            "server",
            "sim",
            "telemetry",
            "wake",
        ],
        tests_use: &["kube-double", "seeds", "testkit"],
        outside: Outside::Never(&[]),
    },
    // Measures the binary from outside; of ours it knows only the types of the wire, for its peer, and the two API servers
    // that it puts before the binary. The usual client of Kubernetes is its second peer and its second look at the cluster.
    Layer {
        name: "bench",
        uses: &["api", "e2e", "kube-double"],
        tests_use: &[],
        outside: Outside::Never(&[COMMAND_LINE]),
    },
    Layer {
        name: "xtask",
        uses: &["e2e"],
        tests_use: &[],
        outside: Outside::Never(&[&["tokio"], HTTP]),
    },
];

/// Crates that no manifest of ours names, and what does the same. Where others need them is their affair; those that
/// must not be there at all are in `deny.toml`.
pub(super) const NOWHERE: &[(&str, &str)] = &[
    ("lazy_static", "std::sync::LazyLock"),
    ("once_cell", "std::sync::OnceLock"),
    ("log", "tracing"),
    ("env_logger", "tracing-subscriber"),
    (
        "rand",
        "getrandom for secrets, a seed that is passed in for everything else",
    ),
    ("futures", "futures-util"),
    ("parking_lot", "std::sync"),
];
