//! The pools of nodes under the workloads.

use std::fmt::Debug;

use async_trait::async_trait;
use nagi_core::pool::Pool;

use crate::error::PortError;

/// The pools of nodes under the workloads.
#[async_trait]
pub trait Nodes: Debug + Send + Sync {
    /// Every pool, ordered by name.
    async fn pools(&self) -> Result<Vec<Pool>, PortError>;
}
