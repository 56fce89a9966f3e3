//! `cargo xtask image`: the container image of Nagi, without a container engine.

pub(crate) mod oci;
