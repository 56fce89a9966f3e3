//! Who may do what where: roles, namespaces, expiry.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use thiserror::Error;

use crate::id::{KeyId, Namespace, Resource, UserName, WorkloadId};

/// What a key may do. Each role includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Read.
    Viewer,
    /// Read, sleep, wake, schedule.
    Operator,
    /// Everything, profiles included.
    Admin,
}

impl Role {
    /// Every role, weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The word in key files and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Reads what [`Role::as_str`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// Who holds a grant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Holder {
    /// Whoever calls, while authentication is off.
    Anybody,
    /// Whoever has the key with this id.
    Key(KeyId),
    /// A user of the cluster.
    User(UserName),
}

/// The namespaces that a key reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    All,
    /// These only.
    Only(BTreeSet<Namespace>),
}

/// The workloads that a caller sees in lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// All that are in reach of a key.
    Reach(Reach),
    /// Those of some kinds, where the rules of the cluster allow it.
    Kinds(BTreeMap<Resource, Places>),
}

/// Where workloads of one kind are seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Places {
    /// Everywhere.
    Everywhere,
    /// In these namespaces.
    In(BTreeSet<Namespace>),
}

impl Reach {
    /// Does it reach this namespace?
    pub fn covers(&self, namespace: &Namespace) -> bool {
        match self {
            Self::All => true,
            Self::Only(set) => set.contains(namespace),
        }
    }
}

impl Sight {
    /// Is this workload seen?
    pub fn covers(&self, id: &WorkloadId) -> bool {
        match self {
            Self::Reach(reach) => reach.covers(&id.namespace),
            Self::Kinds(kinds) => kinds
                .get(&id.resource)
                .is_some_and(|places| places.hold(&id.namespace)),
        }
    }

    /// Can anything be seen in this namespace?
    pub fn enters(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Reach(reach) => reach.covers(namespace),
            Self::Kinds(kinds) => kinds.values().any(|places| places.hold(namespace)),
        }
    }
}

impl Places {
    fn hold(&self, namespace: &Namespace) -> bool {
        match self {
            Self::Everywhere => true,
            Self::In(set) => set.contains(namespace),
        }
    }
}

/// What a proven caller is granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Whose it is.
    pub holder: Holder,
    /// Its role.
    pub role: Role,
    /// Where it reaches.
    pub reach: Reach,
    /// The first instant at which it no longer counts.
    pub expires: Option<Timestamp>,
}

impl Grant {
    /// The grant of a caller who needs to prove nothing, or who proved the single `API_KEY`.
    pub const fn everything(holder: Holder) -> Self {
        Self {
            holder,
            role: Role::Admin,
            reach: Reach::All,
            expires: None,
        }
    }

    /// False from the instant of expiry on.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// May the holder act as `role` in `namespace`?
    ///
    /// # Errors
    /// Which of the two is missing.
    pub fn check(&self, role: Role, namespace: &Namespace) -> Result<(), Denied> {
        if !self.reach.covers(namespace) {
            return Err(Denied::Namespace {
                namespace: namespace.clone(),
            });
        }
        self.check_role(role)
    }

    /// May the holder act as `role`, wherever it is?
    ///
    /// # Errors
    /// The role is too weak.
    pub fn check_role(&self, role: Role) -> Result<(), Denied> {
        if self.role < role {
            Err(Denied::Role {
                has: self.role,
                needs: role,
            })
        } else {
            Ok(())
        }
    }
}

/// Why a proven caller may not do a thing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Denied {
    /// The key does not reach the namespace.
    #[error("this key does not reach namespace {namespace}")]
    Namespace {
        /// The namespace.
        namespace: Namespace,
    },
    /// The role is too weak.
    #[error("this needs the role {}, the key has {}", needs.as_str(), has.as_str())]
    Role {
        /// What the key has.
        has: Role,
        /// What the action needs.
        needs: Role,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(role: Role, namespaces: &[&str]) -> Grant {
        let set = namespaces
            .iter()
            .map(|n| Namespace::new(*n).unwrap())
            .collect();
        Grant {
            holder: Holder::Key(KeyId::new("k").unwrap()),
            role,
            reach: Reach::Only(set),
            expires: None,
        }
    }

    #[test]
    fn a_key_reaches_its_namespaces_only_and_its_role_at_most() {
        let a = Namespace::new("project-a").unwrap();
        let b = Namespace::new("project-b").unwrap();
        let operator = grant(Role::Operator, &["project-a"]);
        assert_eq!(operator.check(Role::Operator, &a), Ok(()));
        assert_eq!(operator.check(Role::Viewer, &a), Ok(()));
        assert_eq!(
            operator.check(Role::Viewer, &b),
            Err(Denied::Namespace {
                namespace: b.clone()
            })
        );
        assert_eq!(
            operator.check(Role::Admin, &a),
            Err(Denied::Role {
                has: Role::Operator,
                needs: Role::Admin
            })
        );
        assert_eq!(
            Grant::everything(Holder::Anybody).check(Role::Admin, &b),
            Ok(())
        );
    }

    // A right to read Deployments shows no StatefulSets, and a right in one namespace nothing in another.
    #[test]
    fn a_sight_by_kinds_covers_a_kind_where_it_is_granted_and_nothing_else() {
        let namespace = |text: &str| Namespace::new(text).unwrap();
        let id = |resource: &str, at: &str| WorkloadId {
            resource: Resource::new(resource).unwrap(),
            namespace: namespace(at),
            name: crate::id::Name::new("x").unwrap(),
        };
        let sight = Sight::Kinds(BTreeMap::from([
            (
                Resource::deployments(),
                Places::In(BTreeSet::from([namespace("project-a")])),
            ),
            (Resource::new("statefulsets").unwrap(), Places::Everywhere),
        ]));
        for (resource, at, covered) in [
            ("deployments", "project-a", true),
            ("deployments", "project-b", false),
            ("statefulsets", "project-b", true),
            ("replicasets", "project-a", false),
        ] {
            assert_eq!(sight.covers(&id(resource, at)), covered, "{resource} {at}");
        }
        assert!(sight.enters(&namespace("project-b")));
        let nothing = Sight::Kinds(BTreeMap::new());
        assert!(!nothing.enters(&namespace("project-a")));
        let all = Sight::Reach(Reach::All);
        assert!(all.covers(&id("deployments", "project-a")));
    }

    #[test]
    fn a_key_ends_at_its_instant_of_expiry() {
        let at: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
        let mut g = grant(Role::Viewer, &[]);
        assert!(g.is_valid(at));
        g.expires = Some(at);
        assert!(!g.is_valid(at));
        assert!(g.is_valid("2029-12-31T23:59:59.999Z".parse().unwrap()));
    }
}
