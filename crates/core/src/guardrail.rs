//! What nobody may do, whatever key he holds, and Nagi does not do by itself (A-159, W-A09, W-A11, R15).

use thiserror::Error;

use crate::id::Namespace;
use crate::quantity::Replicas;

/// Ceiling for a replica count when nothing else is configured (R06).
pub const REPLICAS_MAX_DEFAULT: u32 = 100;

/// The limits that hold for every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Guardrails {
    /// Most replicas that a call may ask for.
    pub replicas_max: Replicas,
    /// When present, only these namespaces may be changed.
    pub allowed: Option<Vec<Namespace>>,
}

impl Default for Guardrails {
    fn default() -> Self {
        Self {
            replicas_max: Replicas(REPLICAS_MAX_DEFAULT),
            allowed: None,
        }
    }
}

/// Why a namespace may not be changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Forbidden {
    /// The cluster or Nagi itself lives there.
    #[error("namespace {0} is protected: workloads in kube-* and scale-system are never scaled")]
    Protected(Namespace),
    /// An allow list is set and does not name it.
    #[error("namespace {0} is not in the list of allowed namespaces")]
    NotAllowed(Namespace),
}

impl Guardrails {
    /// May workloads of this namespace be changed?
    ///
    /// # Errors
    /// Protected, or missing from the allow list. The allow list cannot open a protected namespace.
    pub fn check(&self, namespace: &Namespace) -> Result<(), Forbidden> {
        let name = namespace.as_str();
        if name.starts_with("kube-") || name == "scale-system" {
            return Err(Forbidden::Protected(namespace.clone()));
        }
        match &self.allowed {
            Some(allowed) if !allowed.contains(namespace) => {
                Err(Forbidden::NotAllowed(namespace.clone()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ns(text: &str) -> Namespace {
        Namespace::new(text).unwrap()
    }

    // A-159, W-A09, K-30
    #[test]
    fn the_cluster_and_nagi_itself_are_out_of_reach() {
        let open = Guardrails::default();
        for name in ["kube-system", "kube-public", "kube-x", "scale-system"] {
            assert!(open.check(&ns(name)).is_err(), "{name}");
        }
        for name in ["project-a", "kube", "my-kube-system"] {
            assert!(open.check(&ns(name)).is_ok(), "{name}");
        }
    }

    #[test]
    fn an_allow_list_closes_the_rest_but_never_opens_a_protected_namespace() {
        let rails = Guardrails {
            allowed: Some(vec![ns("project-a"), ns("kube-system")]),
            ..Guardrails::default()
        };
        assert!(rails.check(&ns("project-a")).is_ok());
        assert_eq!(
            rails.check(&ns("project-b")),
            Err(Forbidden::NotAllowed(ns("project-b")))
        );
        assert_eq!(
            rails.check(&ns("kube-system")),
            Err(Forbidden::Protected(ns("kube-system")))
        );
    }
}
