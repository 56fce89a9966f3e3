//! What the shipped roles grant to the accounts of Nagi: read from the manifests themselves, so that there is one list.

use nagi_core::id::Namespace;
use nagi_kube::Right;
use serde::Deserialize;
use thiserror::Error;

/// The manifests that people apply.
const SCALE_API: &str = include_str!("../../../../../src/api/manifests/rbac.yaml");
const WAKE_GATEWAY: &str = include_str!("../../../../../manifests/gateway/rbac.yaml");
const PROJECT: &str = include_str!("../../../../../deploy/namespaced/project/rbac.yaml");

/// An account of Nagi, and where its rights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    ScaleApi,
    WakeGateway,
}

/// A right, and what it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Needed {
    pub(super) right: Right,
    pub(super) without: Without,
}

/// What becomes of Nagi without a right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    /// It does not work.
    Broken,
    /// One thing does not work.
    Lacks(&'static str),
}

/// The manifests cannot be read, which a test of this file would have told.
#[derive(Debug, Error)]
#[error("the roles that this program carries cannot be read")]
pub(super) struct Unreadable(#[from] serde_saphyr::Error);

#[derive(Debug, Deserialize)]
struct Object {
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default, rename = "roleRef")]
    role: Option<Reference>,
    #[serde(default)]
    subjects: Vec<Reference>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Reference {
    kind: String,
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// Where the rules of a role count.
#[derive(Debug, Clone, Copy)]
enum Scope<'a> {
    Everywhere,
    In(&'a str),
}

// === impl Account ===

impl Account {
    pub(super) const ALL: [Self; 2] = [Self::ScaleApi, Self::WakeGateway];

    /// The name of its `ServiceAccount`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::ScaleApi => "scale-api-sa",
            Self::WakeGateway => "wake-gateway-sa",
        }
    }

    /// The Deployment that runs as it.
    pub(super) const fn deployment(self) -> &'static str {
        match self {
            Self::ScaleApi => "scale-api",
            Self::WakeGateway => "wake-gateway",
        }
    }

    /// The directory that installs it; with rights in some namespaces only there is no gateway.
    pub(super) const fn directory(self, namespaces: Option<&[Namespace]>) -> Option<&'static str> {
        match (self, namespaces) {
            (Self::ScaleApi, Some(_)) => Some("deploy/namespaced"),
            (Self::ScaleApi, None) => Some("src/api"),
            (Self::WakeGateway, Some(_)) => None,
            (Self::WakeGateway, None) => Some("manifests/gateway"),
        }
    }

    /// The command that grants what it needs.
    pub(super) const fn grants(self, namespaces: Option<&[Namespace]>) -> &'static str {
        match (self, namespaces) {
            (Self::ScaleApi, Some(_)) => "kubectl apply -k deploy/namespaced",
            (Self::ScaleApi, None) => "kubectl apply -f src/api/manifests/rbac.yaml",
            (Self::WakeGateway, _) => "kubectl apply -f manifests/gateway/rbac.yaml",
        }
    }

    /// What it needs; with `namespaces`, in these only. A gateway looks at every namespace in any case.
    ///
    /// # Errors
    /// The manifests cannot be read.
    pub(super) fn needs(self, namespaces: Option<&[Namespace]>) -> Result<Vec<Needed>, Unreadable> {
        let manifests = match self {
            Self::ScaleApi => SCALE_API,
            Self::WakeGateway => WAKE_GATEWAY,
        };
        let objects: Vec<Object> = serde_saphyr::from_multiple(manifests)?;
        let mut needed = Vec::new();
        let some = namespaces.filter(|_| self == Self::ScaleApi);
        let Some(namespaces) = some else {
            for (rules, scope) in granted(&objects, self.name()) {
                needed.extend(rules.iter().flat_map(|rule| each(rule, scope)));
            }
            return Ok(needed);
        };
        let project: Vec<Object> = serde_saphyr::from_multiple(PROJECT)?;
        let in_each: Vec<&Rule> = project.iter().flat_map(|object| &object.rules).collect();
        for namespace in namespaces {
            let scope = Scope::In(namespace.as_str());
            needed.extend(in_each.iter().flat_map(|rule| each(rule, scope)));
        }
        for (rules, scope) in granted(&objects, self.name()) {
            // What lies in no namespace can only be granted everywhere, or not at all.
            let here = |rule: &&Rule| match scope {
                Scope::In(_) => true,
                Scope::Everywhere => !in_each
                    .iter()
                    .any(|known| known.resources == rule.resources),
            };
            needed.extend(rules.iter().filter(here).flat_map(|rule| each(rule, scope)));
        }
        Ok(needed)
    }
}

/// The rules that are bound to an account, and where.
fn granted<'o>(
    objects: &'o [Object],
    account: &str,
) -> impl Iterator<Item = (&'o [Rule], Scope<'o>)> {
    let bindings = objects.iter().filter(move |object| {
        let mut subjects = object.subjects.iter();
        subjects.any(|subject| subject.kind == "ServiceAccount" && subject.name == account)
    });
    bindings.filter_map(|binding| {
        let wanted = binding.role.as_ref()?;
        let role = objects
            .iter()
            .find(|object| object.kind == wanted.kind && object.metadata.name == wanted.name)?;
        let scope = match &binding.metadata.namespace {
            Some(namespace) => Scope::In(namespace),
            None => Scope::Everywhere,
        };
        Some((role.rules.as_slice(), scope))
    })
}

/// The rights of a rule, one by one.
fn each(rule: &Rule, scope: Scope<'_>) -> Vec<Needed> {
    let mut needed = Vec::new();
    let names: Vec<Option<&String>> = if rule.resource_names.is_empty() {
        vec![None]
    } else {
        rule.resource_names.iter().map(Some).collect()
    };
    for group in &rule.api_groups {
        for resource in &rule.resources {
            for verb in &rule.verbs {
                let Some(without) = without(group, resource, verb) else {
                    continue;
                };
                for name in &names {
                    let right = Right {
                        verb: verb.clone(),
                        group: group.clone(),
                        resource: resource.clone(),
                        name: name.cloned(),
                        namespace: match scope {
                            Scope::Everywhere => None,
                            Scope::In(namespace) => Some(namespace.to_owned()),
                        },
                    };
                    needed.push(Needed { right, without });
                }
            }
        }
    }
    needed
}

/// What becomes of Nagi without a right; `None` for one that it never uses.
fn without(group: &str, resource: &str, verb: &str) -> Option<Without> {
    match (group, resource, verb) {
        // People check for it, and that is all.
        ("apps", "deployments", "update") => None,
        ("", "replicationcontrollers" | "replicationcontrollers/scale", _) => {
            Some(Without::Lacks("ReplicationControllers are not served"))
        }
        ("", "nodes", _) => Some(Without::Lacks("pools of nodes are not shown")),
        ("", "pods/log", _) => Some(Without::Lacks("logs are not shown")),
        ("apiextensions.k8s.io", ..) => Some(Without::Lacks("only built-in kinds are served")),
        ("keda.sh", ..) => Some(Without::Lacks("the minimum of a ScaledObject is not known")),
        ("authentication.k8s.io" | "authorization.k8s.io", ..) => Some(Without::Lacks(
            "tokens of the cluster cannot be taken (NAGI_KUBERNETES_TOKENS)",
        )),
        _ => Some(Without::Broken),
    }
}

/// A right as people read it: `patch deployments.apps in namespace a`.
pub(super) fn words(right: &Right) -> String {
    let Right {
        verb,
        group,
        resource,
        name,
        namespace,
    } = right;
    let dot = if group.is_empty() { "" } else { "." };
    let (plural, part) = resource
        .split_once('/')
        .map_or((resource.as_str(), String::new()), |(plural, part)| {
            (plural, format!("/{part}"))
        });
    let name = name
        .as_ref()
        .map_or_else(String::new, |name| format!(" {name}"));
    let namespace = namespace
        .as_ref()
        .map_or_else(String::new, |namespace| format!(" in {namespace}"));
    format!("{verb} {plural}{dot}{group}{part}{name}{namespace}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(account: Account, namespaces: Option<&[Namespace]>) -> Vec<String> {
        let needed = account.needs(namespaces).unwrap();
        needed.iter().map(|one| words(&one.right)).collect()
    }

    // the list is that of the shipped roles, without the one right that is never used.
    #[test]
    fn what_is_needed_is_what_the_roles_grant() {
        let api = all(Account::ScaleApi, None);
        for right in [
            "patch deployments.apps",
            "list nodes",
            "get pods/log",
            "create subjectaccessreviews.authorization.k8s.io",
            "create leases.coordination.k8s.io in scale-system",
            "patch leases.coordination.k8s.io nagi-leader in scale-system",
        ] {
            assert!(api.iter().any(|known| known == right), "{right}: {api:?}");
        }
        assert!(!api.iter().any(|known| known == "update deployments.apps"));
        let gateway = all(Account::WakeGateway, None);
        let some = [Namespace::new("project-a").unwrap()];
        assert_eq!(
            all(Account::WakeGateway, Some(&some)),
            gateway,
            "there is only one kind of gateway"
        );
        assert!(
            gateway
                .iter()
                .any(|known| known == "patch deployments.apps/scale")
        );
        assert!(
            !gateway
                .iter()
                .any(|known| known == "patch deployments.apps")
        );
    }

    #[test]
    fn with_namespaces_rights_are_asked_for_in_these() {
        let namespaces = ["project-a", "project-b"].map(|name| Namespace::new(name).unwrap());
        let needed = Account::ScaleApi.needs(Some(&namespaces)).unwrap();
        let broken: Vec<String> = needed
            .iter()
            .filter(|one| one.without == Without::Broken)
            .map(|one| words(&one.right))
            .collect();
        for right in [
            "patch deployments.apps in project-a",
            "patch deployments.apps in project-b",
            "get leases.coordination.k8s.io nagi-leader in scale-system",
        ] {
            assert!(
                broken.iter().any(|known| known == right),
                "{right}: {broken:?}"
            );
        }
        assert!(
            broken.iter().all(|known| known.contains(" in ")),
            "nothing that breaks it is asked for everywhere: {broken:?}"
        );
        assert!(needed.iter().any(|one| one.right.resource == "nodes"));
    }
}
