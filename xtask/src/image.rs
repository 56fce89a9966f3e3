//! `cargo xtask image`: the container image of Nagi, without a container engine.

pub(crate) use nagi_e2e::oci;
