//! The nagi binary.
fn main() {}
