//! Wires the serving roles: log, listeners, engine, loops, faces, and an orderly end.
//!
//! Everything that can fail at the start fails before anything is started, with the next step in its message; the
//! listeners are bound before the state directory is locked and the engine before the faces answer. The end goes the
//! other way round: faces drain first, the engine last.

pub(crate) mod settings;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nagi_control::Controller;
use nagi_gateway::Gateway;
use nagi_local::LocalEngine;
use nagi_ports::{Clock, Journal, Logs, Nodes, SystemClock, Traffic, Workloads};
use nagi_runtime::{Reload, SignalError, Supervisor, SupervisorError, Termination};
use nagi_server::Server;
use nagi_telemetry::{Log, LogError, Metrics, Sink};
use nagi_wake::Wakes;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::serve::settings::{ConfigError, ServeConfig};

/// What running requests get at the end.
const GRACE: Duration = Duration::from_secs(30);
