//! Kinds that a cluster brings along: each `CustomResourceDefinition` with a `scale` subresource is a kind of workloads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nagi_core::id::{Resource, WorkloadId};
use nagi_ports::PortError;
use nagi_runtime::Shutdown;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::{LIVE, Shared, Watched, scopes};
use crate::api::Call;
use crate::kind::{Counts, Kind};
use crate::reflect::{Reflector, State};
use crate::sinks::WorkloadSink;
use crate::store::Within;

/// Definitions change seldom; who asks for a kind that is not known makes us look at once.
const LOOK: Duration = Duration::from_mins(1);
/// From one to the next at least, however many ask.
const LOOK_MIN: Duration = Duration::from_millis(500);
/// After a look that failed.
const RETRY: Duration = Duration::from_secs(5);
/// A page of definitions may take so long. Each carries its whole schema, up to a megabyte, so few are on one.
const PAGE_TIME: Duration = Duration::from_secs(5);
const PAGE: usize = 20;
pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A `CustomResourceDefinition`, as far as it tells what can be scaled.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Definition {
    spec: DefinitionSpec,
}

/// Definitions and their versions.
type Versions = BTreeMap<Box<str>, Box<str>>;

/// A definition without what it says.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    metadata: HeadMetadata,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct HeadMetadata {
    name: Box<str>,
    resource_version: Box<str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DefinitionSpec {
    group: String,
    scope: String,
    names: DefinitionNames,
    versions: Vec<DefinitionVersion>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DefinitionNames {
    plural: String,
    kind: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DefinitionVersion {
    name: String,
    served: bool,
    subresources: Subresources,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Subresources {
    scale: Option<ScalePaths>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ScalePaths {
    spec_replicas_path: String,
    status_replicas_path: String,
}

impl Shared {
    /// Looks for kinds until the process has drained.
    pub(super) async fn find_kinds(self: Arc<Self>, shutdown: Shutdown) {
        let mut told: Option<PortError> = None;
        let mut seen = Versions::new();
        loop {
            let begun = Instant::now();
            self.kinds_looked.send_modify(|looked| looked.begun += 1);
            let looked = self.look_for_kinds(&mut seen, &shutdown).await;
            let pause = match looked {
                Ok(()) => {
                    told = None;
                    LOOK
                }
                Err(error) => {
                    if told.as_ref() != Some(&error) {
                        tracing::info!(error = %error, "Custom kinds are not known, only built-in ones are served");
                    }
                    let refused = matches!(error, PortError::Refused(_));
                    told = Some(error);
                    if refused { LOOK } else { RETRY }
                }
            };
            let problem = told.clone();
            self.kinds_looked.send_modify(|looked| {
                looked.count = looked.begun;
                looked.problem = problem;
            });
            tokio::select! {
                // Cancel-safe: waiting on a watch channel loses nothing.
                () = shutdown.stopped() => return,
                // Cancel-safe: a permit is kept.
                () = self.kinds_wanted.notified() => tokio::time::sleep_until(begun + LOOK_MIN).await,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The kind of a workload, looked for anew when it is not known.
    pub(crate) async fn kind_of(&self, id: &WorkloadId) -> Result<Arc<Watched>, PortError> {
        // What is outside is not there for this process, whoever else may see it.
        if let Some(only) = &self.namespaces
            && !only.contains(&id.namespace)
        {
            return Err(PortError::NotFound);
        }
        if let Some(watched) = self.watched(id) {
            return Ok(watched);
        }
        let looked = self.look_again_for(&id.resource).await;
        if let Some(watched) = self.watched(id) {
            return Ok(watched);
        }
        looked?;
        Err(PortError::Refused(format!(
            "{} cannot be scaled: no kind of this name with a scale subresource and a readable specReplicasPath is served",
            id.resource
        )))
    }

    /// Has the definitions looked through for a kind that is not known and may have come since.
    ///
    /// # Errors
    /// They could not be read, or not soon enough.
    pub(super) async fn look_again_for(&self, resource: &Resource) -> Result<(), PortError> {
        if resource.is_built_in() {
            return Ok(());
        }
        let mut looked = self.kinds_looked.subscribe();
        // One that is on its way may have read the page already on which the kind is by now.
        let begun = looked.borrow().begun;
        self.kinds_wanted.notify_one();
        // Cancel-safe: a watch channel keeps its value.
        let anew = looked.wait_for(|looked| looked.count > begun);
        let is_in_time = timeout_at(Instant::now() + LIVE, anew).await.is_ok();
        let looked = self.kinds_looked.borrow();
        match &looked.problem {
            _ if looked.count == 0 => Err(not_read_yet()),
            Some(problem) if problem.is_retryable() => Err(problem.clone()),
            Some(problem) => Err(PortError::Refused(format!(
                "{resource} cannot be scaled: the CustomResourceDefinitions cannot be read: {problem}"
            ))),
            None if !is_in_time => Err(PortError::Timeout(format!(
                "the CustomResourceDefinitions were not read within {LIVE:?}"
            ))),
            None => Ok(()),
        }
    }

    /// Why kinds may be missing from what is known, when that may be over soon: a definition that may not be read is of no
    /// kind here. Waits for the first look.
    pub(super) async fn kinds_missed(&self, deadline: Instant) -> Option<PortError> {
        let mut looked = self.kinds_looked.subscribe();
        // Cancel-safe: a watch channel keeps its value.
        let first = looked.wait_for(|looked| looked.count > 0);
        drop(timeout_at(deadline, first).await);
        let looked = self.kinds_looked.borrow();
        if looked.count == 0 {
            return Some(not_read_yet());
        }
        looked.problem.clone().filter(PortError::is_retryable)
    }

    /// Reads the definitions if one of them is not as it was `seen`: on a large cluster all of them are a hundred megabytes.
    async fn look_for_kinds(
        self: &Arc<Self>,
        seen: &mut Versions,
        shutdown: &Shutdown,
    ) -> Result<(), PortError> {
        let heads = |more: &str| Call::heads(format!("{DEFINITIONS}?limit=500{more}"));
        let heads: Vec<Head> = self.list_pages(PAGE_TIME, heads).await?;
        let heads = heads.into_iter().map(|head| head.metadata);
        let now: Versions = heads
            .map(|head| (head.name, head.resource_version))
            .collect();
        if now == *seen {
            return Ok(());
        }
        let page = |more: &str| Call::get(format!("{DEFINITIONS}?limit={PAGE}{more}"));
        let definitions: Vec<Definition> = self.list_pages(PAGE_TIME, page).await?;
        let kinds: Vec<Kind> = definitions.iter().filter_map(kind_of_definition).collect();
        let is_gone = |known: &Resource| {
            !known.is_built_in() && !kinds.iter().any(|kind| kind.resource == *known)
        };
        let known = self.all_watched();
        let known = known.iter().map(|watched| &watched.kind.resource);
        let gone: Vec<Resource> = known.filter(|kind| is_gone(kind)).cloned().collect();
        for resource in gone {
            tracing::info!(%resource, "Definition of a custom kind is gone");
            self.forget_kind(&resource).await;
        }
        for kind in kinds {
            self.follow_kind(kind, shutdown).await;
        }
        *seen = now;
        Ok(())
    }

    /// Serves a kind no more, and forgets its workloads.
    async fn forget_kind(&self, resource: &Resource) {
        self.stop_kind(resource).await;
        self.store.forget(resource);
    }

    /// Ends the watches of a kind, when nobody reads by it any more.
    async fn stop_kind(&self, resource: &Resource) {
        let Some(known) = self.served(resource) else {
            return;
        };
        // First of all nobody reads by it any more: see `take`.
        self.drop_kind(resource);
        known.stop.send_replace(true);
        known.stop.closed().await;
    }

    /// Serves a kind; one that is served as it is now stays as it is. Of one whose definition says something else by now,
    /// what is known was read in the wrong places: it is listed anew. Until that list is complete its workloads are told as
    /// old, and are not gone: requests to them wait.
    async fn follow_kind(self: &Arc<Self>, kind: Kind, shutdown: &Shutdown) {
        if let Some(known) = self.served(&kind.resource) {
            if *known.kind == kind {
                return;
            }
            tracing::info!(resource = %kind.resource, version = %kind.version, "Definition of a custom kind has changed");
            self.stop_kind(&kind.resource).await;
            self.store
                .begin_timeline(&kind.resource, Within::Everywhere);
        }
        // Owners and autoscalers name kinds, not plurals.
        if let Some(usual) = kind.by_convention() {
            self.store.rename(usual, &kind.resource, self.clock.now());
        }
        let kind = Arc::new(kind);
        let stop = watch::Sender::new(false);
        let mut states = Vec::new();
        for namespace in scopes(self.namespaces.as_deref()) {
            let state = State::new(kind.path(namespace.as_ref()));
            let sink = WorkloadSink {
                kind: Arc::clone(&kind),
                store: Arc::clone(&self.store),
                clock: Arc::clone(&self.clock),
            };
            let reflector = Reflector::patient(
                self.api.clone(),
                sink,
                namespace.clone(),
                Arc::clone(&state),
            );
            let (mut stopped, shutdown) = (stop.subscribe(), shutdown.clone());
            let follow = async move {
                tokio::select! {
                    // Cancel-safe: a watch channel keeps its value.
                    _ = stopped.wait_for(|stopped| *stopped) => {}
                    () = reflector.run(shutdown) => {}
                }
            };
            if self.kind_tasks.try_spawn(follow).is_err() {
                tracing::warn!(resource = %kind.resource, "Too many kinds, this one is not served");
                stop.send_replace(true);
                stop.closed().await;
                self.store.forget(&kind.resource);
                return;
            }
            states.push((namespace, state));
        }
        tracing::info!(resource = %kind.resource, "Custom kind is served");
        self.add_kind(Watched { kind, states, stop });
    }
}

fn not_read_yet() -> PortError {
    PortError::Unreachable("the CustomResourceDefinitions are not read yet".to_owned())
}

/// The kind that a definition makes, if it can be scaled and lives in namespaces.
pub(crate) fn kind_of_definition(definition: &Definition) -> Option<Kind> {
    let spec = &definition.spec;
    if spec.scope != "Namespaced" {
        return None;
    }
    let mut versions = spec.versions.iter().filter(|version| version.served);
    let (version, paths) =
        versions.find_map(|version| Some((version, version.subresources.scale.as_ref()?)))?;
    Some(Kind {
        resource: Resource::new(format!("{}.{}", spec.names.plural, spec.group)).ok()?,
        group: spec.group.as_str().into(),
        version: version.name.as_str().into(),
        plural: spec.names.plural.as_str().into(),
        name: spec.names.kind.as_str().into(),
        counts: Counts::Paths {
            wanted: pointer(&paths.spec_replicas_path)?,
            observed: pointer(&paths.status_replicas_path)?,
        },
    })
}

/// `.spec.replicas` as a JSON pointer. The API server allows no arrays in it.
fn pointer(path: &str) -> Option<Box<str>> {
    let fits = path.starts_with('.') && path.len() > 1 && !path.contains(['/', '~', '[']);
    fits.then(|| path.replace('.', "/").into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(scope: &str, path: &str) -> Definition {
        serde_json::from_value(json!({ "spec": {
            "group": "example.com", "scope": scope, "names": { "plural": "runners", "kind": "Runner" },
            "versions": [
                { "name": "v1alpha1", "served": false, "subresources": { "scale": { "specReplicasPath": ".spec.old" } } },
                { "name": "v1", "served": true, "subresources": { "scale": {
                    "specReplicasPath": path, "statusReplicasPath": ".status.replicas" } } },
            ],
        } }))
        .unwrap()
    }

    // DESIGN §5
    #[test]
    fn a_definition_with_a_readable_path_is_a_kind() {
        let kind = kind_of_definition(&definition("Namespaced", ".spec.workers.count")).unwrap();
        assert_eq!(kind.resource.as_str(), "runners.example.com");
        assert_eq!(kind.path(None), "/apis/example.com/v1/runners");
        assert_eq!(
            kind.count_patch(3),
            json!({ "spec": { "workers": { "count": 3 } } })
        );
        let object = kind
            .parse(r#"{"metadata":{"name":"a","namespace":"p"},"spec":{"workers":{"count":2}},"status":{"replicas":1}}"#)
            .unwrap();
        assert_eq!(
            (object.spec.replicas, object.status.replicas),
            (Some(2), Some(1))
        );
    }

    #[test]
    fn a_definition_without_one_is_none() {
        assert_eq!(
            kind_of_definition(&definition("Cluster", ".spec.replicas")),
            None
        );
        for path in ["", ".", ".spec[0]", "spec.replicas"] {
            assert_eq!(
                kind_of_definition(&definition("Namespaced", path)),
                None,
                "{path}"
            );
        }
    }
}
