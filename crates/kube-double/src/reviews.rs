//! Reviews: whose a token is, and what somebody may do. Questions that are answered and not kept.
//!
//! Rights are a plain list that a test makes; there are no roles. As in the real one, the group `system:masters` may
//! everything.

use http::Method;
use serde_json::{Value, json};

use crate::answer::Refusal;
use crate::resources::GroupVersion;

const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1/";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1/";
/// Whoever is in it may everything.
const MASTERS: &str = "system:masters";

/// Who is known, and what they may.
#[derive(Debug, Clone)]
pub(crate) struct Reviews {
    /// Who calls the double: its name and groups.
    pub(crate) caller: (String, Vec<String>),
    pub(crate) tokens: Vec<Token>,
    pub(crate) rights: Vec<Right>,
}

/// A token that the double vouches for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) user: String,
    pub(crate) audience: String,
}

/// Something that a user may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Right {
    pub(crate) user: String,
    pub(crate) verb: String,
    pub(crate) group: String,
    /// `deployments`, or `deployments/scale`.
    pub(crate) resource: String,
    /// `None`: in all of them.
    pub(crate) namespace: Option<String>,
}

// === impl Reviews ===

impl Reviews {
    pub(crate) fn new() -> Self {
        Self {
            caller: ("kubernetes-admin".to_owned(), vec![MASTERS.to_owned()]),
            tokens: Vec::new(),
            rights: Vec::new(),
        }
    }

    /// Plurals and kinds of the reviews that a version holds, for discovery.
    pub(crate) fn of_version(version: &GroupVersion) -> &'static [(&'static str, &'static str)] {
        match (version.group.as_str(), version.version.as_str()) {
            ("authentication.k8s.io", "v1") => &[
                ("tokenreviews", "TokenReview"),
                ("selfsubjectreviews", "SelfSubjectReview"),
            ],
            ("authorization.k8s.io", "v1") => &[
                ("subjectaccessreviews", "SubjectAccessReview"),
                ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
            ],
            _ => &[],
        }
    }

    /// The answer to a review; `None` for a path that is none.
    pub(crate) fn answer(
        &self,
        method: &Method,
        path: &str,
        body: &[u8],
    ) -> Option<Result<Value, Refusal>> {
        let of_token = path.strip_prefix(AUTHENTICATION);
        let of_access = path.strip_prefix(AUTHORIZATION);
        let review = match (of_token, of_access) {
            (Some("tokenreviews"), _) => Self::token,
            (Some("selfsubjectreviews"), _) => Self::caller,
            (_, Some("subjectaccessreviews")) => Self::access,
            (_, Some("selfsubjectaccessreviews")) => Self::own_access,
            _ => return None,
        };
        if method != Method::POST {
            return Some(Err(Refusal::new(405, "the method is not allowed")));
        }
        let asked = serde_json::from_slice::<Value>(body)
            .map_err(|error| Refusal::new(400, error.to_string()));
        Some(asked.and_then(|mut object| {
            object["status"] = review(self, &object["spec"])?;
            Ok(object)
        }))
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "one of several with the same shape"
    )]
    fn token(&self, spec: &Value) -> Result<Value, Refusal> {
        let wanted: Vec<&str> = spec["audiences"]
            .as_array()
            .map(|all| all.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let found = self
            .tokens
            .iter()
            .find(|token| spec["token"] == token.text.as_str());
        let good = found.filter(|token| wanted.contains(&token.audience.as_str()));
        Ok(good.map_or_else(
            || json!({ "user": {}, "error": "[invalid bearer token, token lookup failed]" }),
            |token| {
                json!({
                    "authenticated": true, "audiences": [token.audience],
                    "user": { "username": token.user, "uid": format!("uid-of-{}", token.user),
                        "groups": ["system:authenticated"],
                        "extra": { "authentication.kubernetes.io/credential-id": ["JTI=1"] } },
                })
            },
        ))
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "one of several with the same shape"
    )]
    fn caller(&self, _spec: &Value) -> Result<Value, Refusal> {
        let (user, groups) = &self.caller;
        Ok(json!({ "userInfo": { "username": user, "groups": groups } }))
    }

    fn access(&self, spec: &Value) -> Result<Value, Refusal> {
        let user = spec["user"].as_str().unwrap_or_default();
        let groups: Vec<&str> = spec["groups"]
            .as_array()
            .map(|all| all.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        if user.is_empty() && groups.is_empty() {
            return Err(Refusal::new(
                422,
                "spec.user: Required value: at least one of user or group must be specified",
            ));
        }
        self.judge(user, &groups, spec)
    }

    fn own_access(&self, spec: &Value) -> Result<Value, Refusal> {
        let (user, groups) = &self.caller;
        let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
        self.judge(user, &groups, spec)
    }

    fn judge(&self, user: &str, groups: &[&str], spec: &Value) -> Result<Value, Refusal> {
        let asked = &spec["resourceAttributes"];
        if !asked.is_object() && !spec["nonResourceAttributes"].is_object() {
            return Err(Refusal::new(
                422,
                "spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified",
            ));
        }
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let resource = match text("subresource") {
            "" => text("resource").to_owned(),
            part => format!("{}/{part}", text("resource")),
        };
        let granted = self.rights.iter().any(|right| {
            let here = right.namespace.as_deref();
            right.user == user
                && right.verb == text("verb")
                && right.group == text("group")
                && right.resource == resource
                && here.is_none_or(|here| here == text("namespace"))
        });
        let allowed = granted || groups.contains(&MASTERS);
        Ok(json!({ "allowed": allowed }))
    }
}
