//! Which workload a command means, and what to say when there is none of that name.

use std::collections::BTreeSet;

use clap::Args;
use nagi_api::WorkloadItem;
use nagi_client::{Client, ClientError, ListFilter};
use nagi_core::id::{Name, Namespace, Resource, WorkloadId};

use crate::exit::Exit;
use crate::failure::Failure;

/// Items of a page while all are wanted: the most that the API gives.
const PAGE: usize = 500;
/// Pages that are followed at most: fifty thousand workloads, more than any list for people.
const PAGES_MAX: usize = 100;
/// Names that are this alike or more (Jaro-Winkler, 0 to 1) are worth suggesting.
const ALIKE: f64 = 0.8;
/// Suggestions at most.
const SUGGESTIONS_MAX: usize = 3;
/// Candidates that are listed at most when a name is not unique.
const CANDIDATES_MAX: usize = 10;

/// A workload on the command line.
#[derive(Debug, Clone, Args)]
pub(crate) struct TargetArgs {
    /// Name of the workload: NAME, NAMESPACE/NAME, or KIND/NAMESPACE/NAME where it is no Deployment
    #[arg(value_name = "NAME")]
    pub(crate) workload: String,

    /// Its namespace; may be left out while the name is unique
    #[arg(short, long, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// What the arguments say, before the server is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Whole(WorkloadId),
    NameOnly(Name),
}

impl TargetArgs {
    fn named(&self) -> Result<Named, Failure> {
        let parts: Vec<&str> = self.workload.split('/').collect();
        let (resource, namespace, name) = match parts.as_slice() {
            [name] => (None, None, *name),
            [namespace, name] => (None, Some(*namespace), *name),
            [resource, namespace, name] => (Some(*resource), Some(*namespace), *name),
            _ => {
                return Err(Failure::usage(format!(
                    "{:?} is no workload: write NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME",
                    self.workload
                )));
            }
        };
        let name = Name::new(name)
            .map_err(|rule| Failure::usage(format!("the name {name:?} of a workload {rule}")))?;
        let namespace = match (namespace, self.namespace.as_deref()) {
            (Some(one), Some(other)) if one != other => {
                let failure = Failure::usage(format!(
                    "{} is in namespace {one}, and --namespace says {other}",
                    self.workload
                ));
                let Some(kind) = kind_of(one) else {
                    return Err(failure);
                };
                return Err(failure.hint(format!(
                    "a kind stands before the namespace: {kind}/{other}/{name}"
                )));
            }
            (one, other) => one.or(other),
        };
        let Some(namespace) = namespace else {
            return Ok(Named::NameOnly(name));
        };
        let namespace = parse_namespace(namespace)?;
        let resource = match resource {
            None => Resource::deployments(),
            Some(text) => parse_kind(text)?,
        };
        Ok(Named::Whole(WorkloadId {
            resource,
            namespace,
            name,
        }))
    }

    /// The workload that is meant, among those that there are.
    ///
    /// # Errors
    /// It is no name, there is none, or more than one.
    pub(crate) fn among(&self, ids: &[WorkloadId]) -> Result<WorkloadId, Failure> {
        match self.named()? {
            Named::NameOnly(name) => choose(&name, ids),
            Named::Whole(id) if ids.contains(&id) => Ok(id),
            Named::Whole(id) => {
                let message = format!("there is no {} {id}", id.resource);
                let mut failure = Failure::new(Exit::NotFound, message);
                failure.hints = suggest(&id, ids);
                Err(failure)
            }
        }
    }

    /// The workload that is meant. A name without namespace is looked up.
    ///
    /// # Errors
    /// It is no name, there is none, or more than one.
    pub(crate) async fn resolve(&self, client: &Client) -> Result<WorkloadId, Failure> {
        let name = match self.named()? {
            Named::Whole(id) => return Ok(id),
            Named::NameOnly(name) => name,
        };
        let items = all(client, &ListFilter::default()).await?;
        let ids: Vec<WorkloadId> = items.iter().filter_map(id_of).collect();
        choose(&name, &ids)
    }
}

/// The built-in kind that kubectl knows by this word.
fn kind_of(word: &str) -> Option<&'static str> {
    let short = match word {
        "deploy" => "deployments",
        "sts" => "statefulsets",
        "rs" => "replicasets",
        "rc" => "replicationcontrollers",
        other => other,
    };
    let is_it = |kind: &&str| *kind == short || kind.strip_suffix('s') == Some(short);
    Resource::BUILT_IN.into_iter().find(is_it)
}

/// Reads the kind in front of a workload: one of Kubernetes' own, or one with its group.
fn parse_kind(text: &str) -> Result<Resource, Failure> {
    let kind =
        Resource::new(text).map_err(|rule| Failure::usage(format!("the kind {text:?} {rule}")))?;
    if text.contains('.') || Resource::BUILT_IN.contains(&text) {
        return Ok(kind);
    }
    let failure = Failure::usage(format!("there is no kind {text:?} of workloads"));
    let near = nearest(text, Resource::BUILT_IN).into_iter().next();
    let failure = near.into_iter().fold(failure, |failure, kind| {
        failure.hint(format!("did you mean {kind}?"))
    });
    Err(failure.hint(format!(
        "write NAME, NAMESPACE/NAME or KIND/NAMESPACE/NAME, with {} or PLURAL.GROUP as the kind",
        Resource::BUILT_IN.join(", ")
    )))
}

/// Checks the value of `--namespace`.
pub(crate) fn parse_namespace(text: &str) -> Result<Namespace, Failure> {
    Namespace::new(text).map_err(|rule| Failure::usage(format!("the namespace {text:?} {rule}")))
}

/// All workloads of a filter, over all pages.
pub(crate) async fn all(
    client: &Client,
    filter: &ListFilter,
) -> Result<Vec<WorkloadItem>, ClientError> {
    let mut filter = ListFilter {
        limit: Some(PAGE),
        ..filter.clone()
    };
    let mut items = Vec::new();
    for _page in 0..PAGES_MAX {
        let page = client.list(&filter).await?.body;
        items.extend(page.items);
        filter.after = page.continue_token;
        if filter.after.is_none() {
            break;
        }
    }
    Ok(items)
}

/// A failed call about one workload: when the server knows no such workload, with what it knows instead.
pub(crate) async fn explain(client: &Client, id: &WorkloadId, error: ClientError) -> Failure {
    let unknown = error.refusal().is_some_and(|refusal| refusal.status == 404);
    let mut failure = Failure::from(error);
    // A missing schedule is a 404 too, of a workload that exists.
    if unknown && let Ok(items) = all(client, &ListFilter::default()).await {
        let ids: Vec<WorkloadId> = items.iter().filter_map(id_of).collect();
        if !ids.contains(id) {
            failure.hints = suggest(id, &ids);
        }
    }
    failure
}

fn choose(name: &Name, ids: &[WorkloadId]) -> Result<WorkloadId, Failure> {
    let same: Vec<&WorkloadId> = ids.iter().filter(|id| &id.name == name).collect();
    match same.as_slice() {
        [id] => Ok((*id).clone()),
        [] => {
            let mut failure = Failure::new(Exit::NotFound, format!("no workload is called {name}"));
            let names: BTreeSet<&str> = ids.iter().map(|id| id.name.as_str()).collect();
            let near = nearest(name.as_str(), names);
            let near = ids.iter().filter(|id| near.contains(&id.name.as_str()));
            failure.hints = did_you_mean(near.map(written).collect(), ids);
            Err(failure)
        }
        several => {
            let failure = Failure::usage(format!(
                "{} workloads are called {name}: say which",
                several.len()
            ));
            let shown = several.iter().take(CANDIDATES_MAX);
            Err(shown.fold(failure, |failure, id| failure.hint(written(id))))
        }
    }
}

/// As it can be written on the command line, where a workload without a kind is a Deployment.
fn written(id: &WorkloadId) -> String {
    if id.resource == Resource::deployments() {
        id.to_string()
    } else {
        format!("{}/{id}", id.resource)
    }
}

fn suggest(wanted: &WorkloadId, ids: &[WorkloadId]) -> Vec<String> {
    let mut elsewhere: Vec<&WorkloadId> = ids.iter().filter(|id| id.name == wanted.name).collect();
    // One of another kind in the namespace that was named is most likely meant.
    elsewhere.sort_by_key(|id| id.namespace != wanted.namespace);
    if !elsewhere.is_empty() {
        return did_you_mean(elsewhere.into_iter().map(written).collect(), ids);
    }
    let names: BTreeSet<&str> = ids.iter().map(|id| id.name.as_str()).collect();
    let near = nearest(wanted.name.as_str(), names);
    let mut near: Vec<&WorkloadId> = ids
        .iter()
        .filter(|id| near.contains(&id.name.as_str()))
        .collect();
    near.sort_by_key(|id| id.namespace != wanted.namespace);
    did_you_mean(near.into_iter().map(written).collect(), ids)
}

fn did_you_mean(near: Vec<String>, ids: &[WorkloadId]) -> Vec<String> {
    if ids.is_empty() {
        return vec!["there are no workloads, or none that your key reaches".to_owned()];
    }
    if near.is_empty() {
        return vec!["'nagi list' shows what there is".to_owned()];
    }
    near.into_iter()
        .take(SUGGESTIONS_MAX)
        .map(|name| format!("did you mean {name}?"))
        .collect()
}

/// The names that are most like `wanted`, best first: those a few slips of the keyboard away, and those that begin alike.
pub(crate) fn nearest<'n>(wanted: &str, names: impl IntoIterator<Item = &'n str>) -> Vec<&'n str> {
    let mut scored: Vec<(f64, &str)> = names
        .into_iter()
        .map(|name| (likeness(wanted, name), name))
        .filter(|(score, _)| *score >= ALIKE)
        .collect();
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    scored
        .into_iter()
        .take(SUGGESTIONS_MAX)
        .map(|(_, name)| name)
        .collect()
}

/// From 0 to 1. One slip in four characters (one left out, added, wrong, or two swapped) is as good as the same.
fn likeness(wanted: &str, name: &str) -> f64 {
    let slips = strsim::osa_distance(wanted, name);
    if slips <= wanted.len().div_ceil(4) && slips < wanted.len() {
        return 1.0;
    }
    strsim::jaro_winkler(wanted, name)
}

fn id_of(item: &WorkloadItem) -> Option<WorkloadId> {
    Some(WorkloadId {
        resource: Resource::new(item.resource.as_str()).ok()?,
        namespace: Namespace::new(item.namespace.as_str()).ok()?,
        name: Name::new(item.name.as_str()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(namespace: &str, name: &str) -> WorkloadId {
        WorkloadId::deployment(Namespace::new(namespace).unwrap(), Name::new(name).unwrap())
    }

    fn args(workload: &str, namespace: Option<&str>) -> TargetArgs {
        TargetArgs {
            workload: workload.into(),
            namespace: namespace.map(Into::into),
        }
    }

    #[test]
    fn what_is_no_name_is_refused_before_anything_is_sent() {
        for (workload, namespace) in [
            ("", None),
            ("UPPER", None),
            ("a/b/c/d", None),
            ("/a", None),
            ("a/", None),
            ("a", Some("")),
            ("a", Some("../b")),
            ("ns/a", Some("other")),
            ("a/b/c", None),
            ("deployment/b/c", None),
            ("a b", None),
        ] {
            let failure = args(workload, namespace).named().unwrap_err();
            assert_eq!(failure.exit, Exit::Usage, "{workload:?} {namespace:?}");
        }
    }

    #[test]
    fn a_workload_is_named_in_three_ways() {
        let whole = Named::Whole(id("project-a", "web"));
        assert_eq!(args("web", Some("project-a")).named().unwrap(), whole);
        assert_eq!(args("project-a/web", None).named().unwrap(), whole);
        assert_eq!(
            args("project-a/web", Some("project-a")).named().unwrap(),
            whole
        );
        assert_eq!(
            args("deployments/project-a/web", None).named().unwrap(),
            whole
        );
        let Named::Whole(other) = args("runs.batch.example/project-a/web", None)
            .named()
            .unwrap()
        else {
            panic!("it is whole")
        };
        assert_eq!(other.resource.as_str(), "runs.batch.example");
        let near = args("deployment/a/b", None).named().unwrap_err();
        assert_eq!(near.hints[0], "did you mean deployments?");
        assert_eq!(
            args("web", None).named().unwrap(),
            Named::NameOnly(Name::new("web").unwrap())
        );
    }

    #[test]
    fn a_hint_leads_to_workloads_of_every_kind() {
        let set = WorkloadId {
            resource: Resource::new("statefulsets").unwrap(),
            ..id("a", "web")
        };
        assert_eq!(
            suggest(&id("a", "web"), std::slice::from_ref(&set)),
            ["did you mean statefulsets/a/web?"]
        );
        // The one in the namespace that was named comes first, however many there are elsewhere.
        let others = ["0", "1", "2"].map(|namespace| id(namespace, "web"));
        let hints = suggest(
            &id("a", "web"),
            &[others.as_slice(), std::slice::from_ref(&set)].concat(),
        );
        assert_eq!(hints[0], "did you mean statefulsets/a/web?");
        let twice = choose(&Name::new("web").unwrap(), &[id("a", "web"), set.clone()]);
        assert_eq!(twice.unwrap_err().hints, ["a/web", "statefulsets/a/web"]);
        let named = args("statefulsets/a/web", None).named().unwrap();
        assert_eq!(named, Named::Whole(set));
    }

    #[test]
    fn a_kind_as_kubectl_has_it_is_answered_with_how_it_is_written_here() {
        for (word, kind) in [
            ("deployment", Some("deployments")),
            ("deploy", Some("deployments")),
            ("statefulsets", Some("statefulsets")),
            ("sts", Some("statefulsets")),
            ("project-b", None),
        ] {
            let failure = args(&format!("{word}/web"), Some("project-a")).named();
            let hints = failure.unwrap_err().hints;
            let expected = kind
                .map(|kind| format!("a kind stands before the namespace: {kind}/project-a/web"));
            assert_eq!(hints, Vec::from_iter(expected), "{word}");
        }
    }

    #[test]
    fn a_name_alone_is_found_while_it_is_unique() {
        let ids = [id("a", "web"), id("a", "model"), id("b", "web")];
        let name = |text| Name::new(text).unwrap();
        assert_eq!(choose(&name("model"), &ids).unwrap(), id("a", "model"));
        let twice = choose(&name("web"), &ids).unwrap_err();
        assert_eq!(twice.exit, Exit::Usage);
        assert_eq!(twice.hints, ["a/web", "b/web"]);
        let near = choose(&name("modle"), &ids).unwrap_err();
        assert_eq!(near.exit, Exit::NotFound);
        assert_eq!(near.hints, ["did you mean a/model?"]);
        let far = choose(&name("zzz"), &ids).unwrap_err();
        assert_eq!(far.hints, ["'nagi list' shows what there is"]);
        let nothing = choose(&name("zzz"), &[]).unwrap_err();
        assert!(nothing.hints[0].contains("no workloads"));
    }

    #[test]
    fn a_wrong_namespace_or_name_is_answered_with_the_near_one() {
        let ids = [
            id("project-a", "sample-app-a"),
            id("project-b", "sample-app-b"),
        ];
        assert_eq!(
            suggest(&id("projct-a", "sample-app-a"), &ids),
            ["did you mean project-a/sample-app-a?"]
        );
        assert_eq!(
            suggest(&id("project-b", "sampel-app-b"), &ids)[0],
            "did you mean project-b/sample-app-b?"
        );
        assert_eq!(
            suggest(&id("x", "y"), &ids),
            ["'nagi list' shows what there is"]
        );
    }
}
