//! `cargo xtask image`: the container image of Nagi, without a container engine.

#[expect(
    unused_imports,
    reason = "the task comes with the next change; the harness writes images already"
)]
pub(crate) use nagi_e2e::oci;
