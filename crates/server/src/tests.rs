//! The API as callers see it, on doubles of the ports.
//!
//! [`world`] builds an API in this process and speaks to it without sockets; every answer it returns was checked against the
//! OpenAPI document. The other files hold the rules, one theme each.

mod access;
mod contract;
mod faults;
mod limits;
mod lists;
mod logging;
mod parsing;
mod scaling;
mod sockets;
mod unattended;
mod visitors;
pub(crate) mod world;
