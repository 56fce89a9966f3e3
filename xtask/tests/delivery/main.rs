//! What is delivered to a cluster holds every value that the requirements name: manifests, samples, recipes.
//!
//! Files are parsed, not matched as text, and where kustomize stands between them and the cluster, kubectl renders them.
//! That a real API server takes them, and that pods run from them, is shown on the test cluster.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "these tests fail by panicking"
)]

mod api;
mod gateway;
mod guard;
mod objects;
mod recipes;
mod samples;
