//! The accounts of the engine: whose a token is, and what its holder may do by the rules of the engine.

use std::collections::BTreeMap;
use std::fmt::{self, Debug};

use async_trait::async_trait;
use nagi_core::id::{Namespace, Resource, UserName, WorkloadId};

use crate::error::PortError;

/// What a token must have been made for, so that one that was made for something else counts nothing here.
pub const AUDIENCE: &str = "scale-api";

/// Somebody whom the engine knows, as it told of them. Everything goes back to it with each question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name, for history and log.
    pub name: UserName,
    /// The engine's own id of it, where it has one.
    pub uid: Option<String>,
    /// Groups that it belongs to.
    pub groups: Vec<String>,
    /// What else authorizers may look at.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// Something that an account may or may not do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Deed {
    /// Read how many replicas one workload has: `get` on its `scale`.
    Read(WorkloadId),
    /// Change it: `update` on its `scale`.
    Change(WorkloadId),
    /// Read what its replicas print: `get` on `pods/log` in its namespace.
    ReadLogs(Namespace),
    /// Read every workload of a kind in a namespace; `None`: in all of them.
    ReadAll(Resource, Option<Namespace>),
    /// Read nodes: `list` on `nodes`.
    ReadNodes,
}

impl fmt::Display for Deed {
    /// As the engine's rules name it, for the person who must ask for the right.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(id) => write!(f, "get {}/scale in namespace {}", id.resource, id.namespace),
            Self::Change(id) => write!(
                f,
                "update {}/scale in namespace {}",
                id.resource, id.namespace
            ),
            Self::ReadLogs(namespace) => write!(f, "get pods/log in namespace {namespace}"),
            Self::ReadAll(resource, Some(namespace)) => {
                write!(f, "get {resource}/scale in namespace {namespace}")
            }
            Self::ReadAll(resource, None) => write!(f, "get {resource}/scale in all namespaces"),
            Self::ReadNodes => f.write_str("list nodes"),
        }
    }
}

/// The accounts of an engine. Cancel-safe: both calls only ask.
#[async_trait]
pub trait Accounts: Debug + Send + Sync {
    /// Whose token it is; `None` when nobody vouches for it, or when it was not made for [`AUDIENCE`].
    ///
    /// # Errors
    /// The engine could not be asked. That says nothing about the token.
    async fn identify(&self, token: &str) -> Result<Option<Account>, PortError>;

    /// May the account do this?
    ///
    /// # Errors
    /// The engine could not be asked, or could not tell. That is neither a yes nor a no.
    async fn may(&self, account: &Account, deed: &Deed) -> Result<bool, PortError>;
}
