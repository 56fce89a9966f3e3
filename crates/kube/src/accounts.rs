//! The accounts of the cluster: `TokenReview` says whose a token is, `SubjectAccessReview` what they may do.
//!
//! Both are questions that the API server answers and does not keep. Nothing is remembered here: how long an answer
//! counts is the business of whoever asks.

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::Method;
use nagi_core::id::{Namespace, Resource, UserName};
use nagi_ports::{AUDIENCE, Account, Accounts, Deed, PortError};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Call, Content};
use crate::engine::{KubeEngine, LIVE};
use crate::kind::group_and_plural;

const TOKEN_REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenReview {
    status: TokenStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct TokenStatus {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct User {
    username: String,
    uid: Option<String>,
    groups: Vec<String>,
    extra: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AccessReview {
    pub(crate) status: AccessStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct AccessStatus {
    pub(crate) allowed: bool,
    denied: bool,
    evaluation_error: Option<String>,
}

#[async_trait]
impl Accounts for KubeEngine {
    async fn identify(&self, token: &str) -> Result<Option<Account>, PortError> {
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": { "token": token, "audiences": [AUDIENCE] },
        });
        let call = Call::with(Method::POST, TOKEN_REVIEWS, Content::Json, &body);
        let answer = self.ask(&call).await?;
        let review: TokenReview =
            serde_json::from_slice(&answer).map_err(|error| broken(&error))?;
        account(review.status)
    }

    async fn may(&self, account: &Account, deed: &Deed) -> Result<bool, PortError> {
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {
                "user": account.name.as_str(), "uid": account.uid, "groups": account.groups,
                "extra": account.extra, "resourceAttributes": attributes(deed),
            },
        });
        let call = Call::with(Method::POST, ACCESS_REVIEWS, Content::Json, &body);
        let answer = self.ask(&call).await?;
        let review: AccessReview =
            serde_json::from_slice(&answer).map_err(|error| broken(&error))?;
        review.status.verdict()
    }
}

impl KubeEngine {
    /// A question. That nobody answers such questions is a fault of the cluster, and says nothing about what was asked.
    async fn ask(&self, call: &Call) -> Result<bytes::Bytes, PortError> {
        let answer = self.shared.api.call(call, LIVE).await;
        answer.map_err(|error| {
            let error = PortError::from(error);
            if error == PortError::NotFound {
                return PortError::Internal(format!("the API server does not serve {}", call.path));
            }
            error
        })
    }
}

/// Whose token it was. One that is good for the API server itself, and not for us, is nobody's: whoever holds it may have
/// got it from a client that only wanted to call the API server.
fn account(status: TokenStatus) -> Result<Option<Account>, PortError> {
    let for_us = status.audiences.iter().any(|audience| audience == AUDIENCE);
    if !status.authenticated || !for_us {
        return Ok(None);
    }
    let User {
        username,
        uid,
        groups,
        extra,
    } = status.user;
    let name = UserName::new(username).map_err(|rule| {
        PortError::Internal(format!("the name of the user of this token {rule}"))
    })?;
    Ok(Some(Account {
        name,
        uid,
        groups,
        extra,
    }))
}

impl AccessStatus {
    /// Yes or no; a "no" that comes only of an authorizer that failed is neither.
    pub(crate) fn verdict(self) -> Result<bool, PortError> {
        match self.evaluation_error {
            Some(error) if !self.allowed && !self.denied && !error.is_empty() => Err(
                PortError::Unreachable(format!("the rights cannot be told now: {error}")),
            ),
            Some(_) | None => Ok(self.allowed && !self.denied),
        }
    }
}

/// The deed in the terms of the authorizer.
fn attributes(deed: &Deed) -> Value {
    let scale = |verb: &str, resource: &Resource| {
        let (group, plural) = group_and_plural(resource);
        json!({ "verb": verb, "group": group, "resource": plural, "subresource": "scale" })
    };
    let mut attributes = match deed {
        Deed::Read(id) => scale("get", &id.resource),
        Deed::Change(id) => scale("update", &id.resource),
        Deed::ReadAll(resource, _) => scale("get", resource),
        Deed::ReadLogs(_) => {
            json!({ "verb": "get", "group": "", "resource": "pods", "subresource": "log" })
        }
        Deed::ReadNodes => json!({ "verb": "list", "group": "", "resource": "nodes" }),
    };
    let namespace: Option<&Namespace> = match deed {
        Deed::Read(id) | Deed::Change(id) => {
            attributes["name"] = json!(id.name.as_str());
            Some(&id.namespace)
        }
        Deed::ReadLogs(namespace) => Some(namespace),
        Deed::ReadAll(_, namespace) => namespace.as_ref(),
        Deed::ReadNodes => None,
    };
    if let Some(namespace) = namespace {
        attributes["namespace"] = json!(namespace.as_str());
    }
    attributes
}

pub(crate) fn broken(error: &serde_json::Error) -> PortError {
    PortError::Internal(format!("the answer cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: Value) -> TokenStatus {
        serde_json::from_value(json).unwrap()
    }

    // Issue 4, item 4: the API server vouches for a token of its own audience too; that one is not for us.
    #[test]
    fn a_token_that_was_not_made_for_us_is_nobodys() {
        let user = json!({ "username": "jane", "uid": "1", "groups": ["dev"] });
        let good = json!({ "authenticated": true, "user": user, "audiences": [AUDIENCE] });
        let jane = account(status(good)).unwrap().unwrap();
        assert_eq!((jane.name.as_str(), &*jane.groups[0]), ("jane", "dev"));
        for bad in [
            json!({ "authenticated": true, "user": user }),
            json!({ "authenticated": true, "user": user, "audiences": ["https://kubernetes.default.svc"] }),
            json!({ "authenticated": false, "user": user, "audiences": [AUDIENCE] }),
            json!({ "error": "expired" }),
            json!({}),
        ] {
            assert_eq!(account(status(bad.clone())), Ok(None), "{bad}");
        }
        let nameless = json!({ "authenticated": true, "user": {}, "audiences": [AUDIENCE] });
        assert!(account(status(nameless)).is_err());
    }

    #[test]
    fn an_authorizer_that_failed_has_said_neither_yes_nor_no() {
        let verdict = |json: Value| {
            serde_json::from_value::<AccessReview>(json!({ "status": json }))
                .unwrap()
                .status
                .verdict()
        };
        assert_eq!(verdict(json!({ "allowed": true })), Ok(true));
        assert_eq!(
            verdict(json!({ "allowed": false, "reason": "no role" })),
            Ok(false)
        );
        assert_eq!(
            verdict(json!({ "allowed": true, "denied": true })),
            Ok(false)
        );
        assert_eq!(
            verdict(json!({ "allowed": false, "denied": true, "evaluationError": "x" })),
            Ok(false)
        );
        assert_eq!(
            verdict(json!({ "allowed": true, "evaluationError": "one of two failed" })),
            Ok(true)
        );
        assert!(
            verdict(json!({ "allowed": false, "evaluationError": "a webhook timed out" })).is_err()
        );
        assert_eq!(verdict(json!({})), Ok(false));
    }

    #[test]
    fn deeds_are_asked_in_the_terms_of_roles() {
        let id = nagi_testkit::id("project-a/sample-app-a");
        assert_eq!(
            attributes(&Deed::Change(id.clone())),
            json!({ "verb": "update", "group": "apps", "resource": "deployments", "subresource": "scale",
                "namespace": "project-a", "name": "sample-app-a" })
        );
        assert_eq!(attributes(&Deed::Read(id))["verb"], "get");
        let rollouts = Resource::new("rollouts.argoproj.io").unwrap();
        assert_eq!(
            attributes(&Deed::ReadAll(rollouts, None)),
            json!({ "verb": "get", "group": "argoproj.io", "resource": "rollouts", "subresource": "scale" })
        );
        assert_eq!(
            attributes(&Deed::ReadLogs(Namespace::new("project-a").unwrap())),
            json!({ "verb": "get", "group": "", "resource": "pods", "subresource": "log", "namespace": "project-a" })
        );
        assert_eq!(
            attributes(&Deed::ReadNodes),
            json!({ "verb": "list", "group": "", "resource": "nodes" })
        );
    }
}
