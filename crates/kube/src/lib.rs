//! The Kubernetes engine: workloads of a cluster, through its API server.
//!
//! It translates both ways and decides nothing. From the outside in:
//!
//! - `engine` serves the ports: reads from the cache while it can be believed, else live; writes with preconditions;
//! - `reflect` lists and watches into `store`, which holds compact rows;
//! - `journal`, `logs`, `nodes` and `accounts` serve the other ports, `record` writes Events;
//! - `leader` elects the one process that decides, `leading` is the engine as that one writes to it;
//! - `kind`, `pods`, `annotate` and `wire` know how things are said in the API;
//! - `survey` looks at a cluster without an engine on it;
//! - `api` calls the API server, `source` says how it is reached.
//!
//! The library `kube` knows configurations, credentials and TLS. Its watcher and reflector are not used: they keep whole
//! objects, hide how far a watch has come, and cannot be asked to begin anew.

mod accounts;
mod annotate;
mod api;
mod engine;
mod journal;
mod kind;
mod lanes;
mod leader;
mod leading;
mod logs;
mod names;
mod nodes;
mod pods;
mod record;
mod reflect;
mod sinks;
mod source;
mod store;
mod survey;
mod wire;
mod writers;

pub use engine::{KubeEngine, KubeSettings, Rights};
pub use leading::Leading;
pub use names::annotation;
pub use source::{Source, SourceError};
pub use survey::{
    CustomKind, Held, Home, Machine, Ready, Right, ServerVersion, Survey, Taint, User,
};
