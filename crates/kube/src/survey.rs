//! A look at a cluster without an engine on it: what it is, who may do what there, what of Nagi is installed.
//!
//! Every question is one call, and nothing is changed. An object that is not there is `None`; one that may not be read is
//! an error, [`PortError::Refused`], because not being allowed to look is not the same as seeing nothing.

use std::fmt;
use std::time::Duration;

use http::Method;
use jiff::Timestamp;
use nagi_ports::PortError;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::accounts::{AccessReview, broken};
use crate::api::{Agent, Api, Call, Content};
use crate::engine::kinds::{DEFINITIONS, Definition, kind_of_definition};
use crate::names::{LEASE, NAMESPACE};
use crate::reflect::encoded;
use crate::source::Source;

/// One call: a laptop may be far from the API server.
const CALL: Duration = Duration::from_secs(5);

/// Definitions of kinds on a page.
const DEFINITIONS_MAX: usize = 50;

/// A cluster to look at.
#[derive(Debug, Clone)]
pub struct Survey {
    api: Api,
}

/// The version of an API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerVersion {
    /// Major and minor number.
    pub number: (u32, u32),
    /// As it calls itself: `v1.36.0`.
    pub name: String,
}

/// A right to ask about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// `get`, `create`, …
    pub verb: String,
    /// The API group; empty for the core.
    pub group: String,
    /// The plural, with its subresource: `deployments/scale`.
    pub resource: String,
    /// The one object; `None` for all.
    pub name: Option<String>,
    /// The one namespace; `None` for all of them.
    pub namespace: Option<String>,
}

/// Who leads, by the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The holder; `None` when it was let go.
    pub holder: Option<String>,
    /// When it was renewed last.
    pub renewed: Option<Timestamp>,
}

/// How many of the pods of a Deployment are ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Wanted.
    pub wanted: u64,
    /// Ready.
    pub ready: u64,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    /// Its name.
    pub name: String,
    /// It is being deleted, and takes nothing new.
    pub terminating: bool,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// What keeps pods away that do not tolerate it. A node that is cordoned or not ready has one too.
    pub taints: Vec<Taint>,
}

/// A taint by which no pod is placed on a node, or none stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; often empty.
    #[serde(default)]
    pub value: String,
    /// `NoSchedule` or `NoExecute`.
    pub effect: String,
}

/// A kind that a cluster brings along, with a `scale` that Nagi can read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CustomKind {
    /// The API group.
    pub group: String,
    /// The plural.
    pub plural: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Definitions {
    items: Vec<Definition>,
    metadata: PageMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PageMetadata {
    r#continue: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct VersionAnswer {
    major: String,
    minor: String,
    git_version: String,
}

// === impl Taint ===

impl fmt::Display for Taint {
    /// As kubectl has it: `KEY=VALUE:EFFECT`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let equals = if self.value.is_empty() { "" } else { "=" };
        write!(f, "{}{equals}{}:{}", self.key, self.value, self.effect)
    }
}

// === impl Survey ===

impl Survey {
    /// Nothing is read before the first question.
    pub fn new(source: Source) -> Self {
        Self {
            api: Api::new(source, Agent::Survey),
        }
    }

    /// Which version it is.
    ///
    /// # Errors
    /// It cannot be asked, or says something that is no version.
    pub async fn version(&self) -> Result<ServerVersion, PortError> {
        let answer: VersionAnswer = self.get("/version").await?;
        // Clouds append to the minor number: `30+`.
        let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse();
        match (number(&answer.major), number(&answer.minor)) {
            (Ok(major), Ok(minor)) => Ok(ServerVersion {
                number: (major, minor),
                name: answer.git_version,
            }),
            _ => Err(PortError::Internal(format!(
                "{:?}.{:?} is no version of Kubernetes",
                answer.major, answer.minor
            ))),
        }
    }

    /// The name of the user that this configuration calls as.
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn caller(&self) -> Result<String, PortError> {
        let review =
            json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview" });
        let answer: Value = self
            .review("/apis/authentication.k8s.io/v1/selfsubjectreviews", &review)
            .await?;
        let name = answer.pointer("/status/userInfo/username");
        let name = name.and_then(Value::as_str).unwrap_or_default();
        Ok(name.to_owned())
    }

    /// Has the caller this right; with `user`, has that one?
    ///
    /// # Errors
    /// It cannot be asked, or the caller may not ask about others.
    pub async fn may(&self, user: Option<&User>, right: &Right) -> Result<bool, PortError> {
        let (plural, part) = right
            .resource
            .split_once('/')
            .unwrap_or((&right.resource, ""));
        let mut attributes = json!({
            "verb": right.verb, "group": right.group, "resource": plural, "subresource": part,
        });
        for (field, value) in [("name", &right.name), ("namespace", &right.namespace)] {
            if let Some(value) = value {
                attributes[field] = json!(value);
            }
        }
        let mut spec = json!({ "resourceAttributes": attributes });
        let (kind, path) = match user {
            None => ("SelfSubjectAccessReview", "selfsubjectaccessreviews"),
            Some(user) => {
                spec["user"] = json!(user.name);
                spec["groups"] = json!(user.groups);
                ("SubjectAccessReview", "subjectaccessreviews")
            }
        };
        let review = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec });
        let path = format!("/apis/authorization.k8s.io/v1/{path}");
        let answer: AccessReview = self.review(&path, &review).await?;
        answer.status.verdict()
    }

    /// Is this version of an API group served?
    ///
    /// # Errors
    /// It cannot be asked.
    pub async fn serves(&self, group_version: &str) -> Result<bool, PortError> {
        let found: Option<Value> = self.find(&format!("/apis/{group_version}")).await?;
        Ok(found.is_some())
    }

    /// Is the admission policy there, and bound?
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn has_admission_policy(&self, name: &str) -> Result<bool, PortError> {
        const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
        for collection in [
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
        ] {
            let found: Option<Value> = self.find(&format!("{GROUP}/{collection}/{name}")).await?;
            if found.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Is this account of Nagi there?
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn has_account(&self, name: &str) -> Result<bool, PortError> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}");
        let found: Option<Value> = self.find(&path).await?;
        Ok(found.is_some())
    }

    /// A Deployment of Nagi.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn deployment(&self, name: &str) -> Result<Option<Ready>, PortError> {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}");
        let found: Option<Value> = self.find(&path).await?;
        let count = |found: &Value, at: &str| found.pointer(at).and_then(Value::as_u64);
        Ok(found.map(|found| Ready {
            wanted: count(&found, "/spec/replicas").unwrap_or(1),
            ready: count(&found, "/status/readyReplicas").unwrap_or(0),
        }))
    }

    /// Who leads.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn lease(&self) -> Result<Option<Held>, PortError> {
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/{LEASE}");
        let found: Option<Value> = self.find(&path).await?;
        let text = |found: &Value, at: &str| {
            let text = found.pointer(at).and_then(Value::as_str);
            text.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        Ok(found.map(|found| Held {
            holder: text(&found, "/spec/holderIdentity"),
            renewed: text(&found, "/spec/renewTime").and_then(|time| time.parse().ok()),
        }))
    }

    /// The kinds of its own that this cluster can scale.
    ///
    /// # Errors
    /// Their definitions cannot be read.
    pub async fn custom_kinds(&self) -> Result<Vec<CustomKind>, PortError> {
        let mut kinds = Vec::new();
        let mut from = String::new();
        // A definition carries its whole schema; some clusters have hundreds of them.
        loop {
            let page: Definitions = self
                .get(&format!("{DEFINITIONS}?limit={DEFINITIONS_MAX}{from}"))
                .await?;
            let found = page.items.iter().filter_map(kind_of_definition);
            kinds.extend(found.map(|kind| CustomKind {
                group: kind.group.into(),
                plural: kind.plural.into(),
            }));
            if page.metadata.r#continue.is_empty() {
                kinds.sort();
                return Ok(kinds);
            }
            from = format!("&continue={}", encoded(&page.metadata.r#continue));
        }
    }

    /// All namespaces.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn namespaces(&self) -> Result<Vec<Home>, PortError> {
        let homes = self.items("/api/v1/namespaces").await?;
        let home = |item: &Value| {
            Some(Home {
                name: item["metadata"]["name"].as_str()?.to_owned(),
                terminating: item["status"]["phase"] == "Terminating",
            })
        };
        Ok(homes.iter().filter_map(home).collect())
    }

    /// The nodes with a label, `KEY=VALUE`.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn nodes_with(&self, label: &str) -> Result<Vec<Machine>, PortError> {
        let path = format!("/api/v1/nodes?labelSelector={label}");
        let machines = self.items(&path).await?;
        let machine = |item: &Value| {
            let taints = item["spec"]["taints"].as_array().cloned();
            let taints = taints.unwrap_or_default().into_iter();
            let taints = taints.filter_map(|taint| serde_json::from_value(taint).ok());
            Some(Machine {
                name: item["metadata"]["name"].as_str()?.to_owned(),
                taints: taints
                    .filter(|taint: &Taint| taint.effect != "PreferNoSchedule")
                    .collect(),
            })
        };
        Ok(machines.iter().filter_map(machine).collect())
    }

    async fn items(&self, path: &str) -> Result<Vec<Value>, PortError> {
        let mut list: Value = self.get(path).await?;
        Ok(list["items"]
            .as_array_mut()
            .map(std::mem::take)
            .unwrap_or_default())
    }

    async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, PortError> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(PortError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, PortError> {
        let answer = self.api.call(&Call::get(path), CALL).await?;
        serde_json::from_slice(&answer).map_err(|error| broken(&error))
    }

    async fn review<T: DeserializeOwned>(
        &self,
        path: &str,
        review: &Value,
    ) -> Result<T, PortError> {
        let call = Call::with(Method::POST, path, Content::Json, review);
        let answer = self.api.call(&call, CALL).await?;
        serde_json::from_slice(&answer).map_err(|error| broken(&error))
    }
}

/// Somebody whose rights are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its groups.
    pub groups: Vec<String>,
}

// === impl User ===

impl User {
    /// An account of Nagi's, as the authorizer knows it.
    pub fn account(name: &str) -> Self {
        Self {
            name: format!("system:serviceaccount:{NAMESPACE}:{name}"),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{NAMESPACE}"),
                "system:authenticated".to_owned(),
            ],
        }
    }
}
