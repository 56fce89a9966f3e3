//! Kinds that a cluster brings along, and what becomes of them when their definitions change.

use std::ops::ControlFlow;

use nagi_core::id::{Name, Namespace, Resource, WorkloadId};
use nagi_kube::{Rights, Source};
use nagi_kube_double::{Double, Effect, Fault, objects};
use nagi_ports::{Facts, Glance, PortError, Read, Selection, Workloads, each};
use nagi_testkit::listed;
use serde_json::{Value, json};

use crate::lab::{Lab, PATIENCE, eventually, sleep, wake};

// DESIGN §5: kinds other than the built-in ones
#[tokio::test]
async fn a_custom_kind_with_a_scale_subresource_is_a_workload_like_any_other() {
    let lab = Lab::new().await;
    let runner = runner();
    let refused = lab.engine.get(&runner, Read::Cached).await.unwrap_err();
    assert!(
        matches!(&refused, PortError::Refused(words) if words.contains("specReplicasPath")),
        "{refused}"
    );
    lab.double.put(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "runners.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "runners", "kind": "Runner" },
            "versions": [{ "name": "v1", "served": true, "subresources": { "scale": { "specReplicasPath": ".spec.workers", "statusReplicasPath": ".status.workers" } } }] },
    }));
    lab.double.put(json!({
        "apiVersion": "example.com/v1", "kind": "Runner", "metadata": { "namespace": "project-a", "name": "one" },
        "spec": { "workers": 3 }, "status": { "workers": 3 },
    }));
    let before = lab.engine.get(&runner, Read::Cached).await.unwrap();
    assert_eq!((before.desired.0, before.current.0), (3, 3));
    let asleep = lab.engine.write(&before, sleep(&before)).await.unwrap();
    assert_eq!(asleep.desired.0, 0);
    let object = lab
        .double
        .get("/apis/example.com/v1/namespaces/project-a/runners/one")
        .unwrap();
    assert_eq!(object["spec"], json!({ "workers": 0 }));
    assert_eq!(object["metadata"]["annotations"]["nagi.dev/replicas"], "3");
    eventually("it in lists", async || {
        listed(&lab.engine)
            .await
            .is_ok_and(|all| all.iter().any(|w| w.id == runner))
    })
    .await;
}

// DESIGN §5: a kind that cannot be read, as when the webhook that converts it is gone, takes no other with it
#[tokio::test]
async fn a_custom_kind_that_cannot_be_read_is_named_and_keeps_no_other_away() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.put(definition("v1", ".spec.workers"));
    double.put(object("v1"));
    let broken = double.inject(Fault::status(500).at("/runners"));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    let everything = async || {
        let mut seen = Vec::new();
        let see = &mut |glance: &dyn Glance| {
            seen.push(glance.id().clone());
            ControlFlow::Continue(())
        };
        let visited = lab.engine.visit(Selection::default(), see).await;
        visited.map(|visited| (seen, visited.unread))
    };
    let mut unread = Vec::new();
    eventually("a list without them that names them", async || {
        unread = everything()
            .await
            .map(|(_, unread)| unread)
            .unwrap_or_default();
        !unread.is_empty()
    })
    .await;
    assert_eq!(unread.len(), 1);
    assert_eq!(unread[0].facts, Facts::Kind(runner().resource));
    assert!(
        matches!(unread[0].problem, PortError::Internal(_)),
        "{unread:?}"
    );
    let (seen, _) = everything().await.unwrap();
    assert_eq!(seen, [crate::lab::id()]);
    // Who asks for them is not told that there are none.
    let resource = runner().resource;
    let only = Selection {
        resource: Some(&resource),
        ..Selection::default()
    };
    let asked = lab
        .engine
        .visit(only, &mut |_| ControlFlow::Continue(()))
        .await;
    assert!(matches!(asked, Err(PortError::Internal(_))), "{asked:?}");
    // One that nobody knows has none, whatever another one does.
    let unknown = of_kind("others.example.com").resource;
    let other = Selection {
        resource: Some(&unknown),
        ..Selection::default()
    };
    let nothing = lab
        .engine
        .visit(other, &mut |_| panic!("there is nothing"))
        .await
        .unwrap();
    assert!(nothing.unread.is_empty(), "{nothing:?}");
    lab.double.lift(broken);
    eventually("all of them", async || {
        everything()
            .await
            .is_ok_and(|(seen, unread)| seen.len() == 2 && unread.is_empty())
    })
    .await;
}

// The same of a built-in one, as when one object of it cannot be decoded; and of two namespaces what may be over soon counts.
#[tokio::test]
async fn a_built_in_kind_that_cannot_be_read_keeps_no_other_away() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.inject(Fault::status(403).at("/project-a/replicationcontrollers"));
    double.inject(Fault::status(500).at("/project-b/replicationcontrollers"));
    let source = Source::Url(double.url());
    let both = ["project-a", "project-b"].map(|name| Namespace::new(name).unwrap());
    let lab = Lab::within(double, source, Rights::Full, Some(both.to_vec()));
    lab.synced().await;
    let mut unread = Vec::new();
    eventually("what cannot be read", async || {
        unread = each(&lab.engine, |_| {}).await.unwrap_or_default();
        unread.first().is_some_and(|one| one.problem.is_retryable())
    })
    .await;
    assert_eq!(unread.len(), 1);
    assert_eq!(unread[0].facts.to_string(), "replicationcontrollers");
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 1);
}

// What was kept while a changed kind could not be read goes with its definition.
#[tokio::test]
async fn a_changed_kind_that_is_deleted_before_it_was_read_leaves_nothing() {
    let lab = Lab::new().await;
    let runner = runner();
    let everything = async || listed(&lab.engine).await.unwrap_or_default();
    lab.double.put(definition("v1", ".spec.workers"));
    lab.double.put(object("v1"));
    lab.engine.get(&runner, Read::Cached).await.unwrap();
    eventually("the workload", async || everything().await.len() == 2).await;
    lab.double.inject(Fault::status(500).at("/example.com/v2/"));
    lab.double.put(definition("v2", ".spec.workers"));
    look_again(&lab).await;
    eventually("what is known of it, and that it is old", async || {
        let unread = each(&lab.engine, |_| {}).await.unwrap_or_default();
        !unread.is_empty() && everything().await.len() == 2
    })
    .await;
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/runners.example.com";
    assert!(lab.double.delete(path));
    look_again(&lab).await;
    eventually("nothing of it", async || everything().await.len() == 1).await;
}

// The first list of a kind that was just defined may take long: nothing else waits for it.
#[tokio::test]
async fn a_kind_whose_first_list_takes_long_keeps_no_other_away() {
    let lab = Lab::new().await;
    lab.double
        .inject(Fault::always(Effect::Hang).at("/runners"));
    lab.double.put(definition("v1", ".spec.workers"));
    look_again(&lab).await;
    let mut unread = Vec::new();
    eventually("a list that names the kind", async || {
        let see = &mut |_: &dyn Glance| ControlFlow::Continue(());
        let visited = lab.engine.visit(Selection::default(), see).await;
        unread = visited.expect("no error").unread;
        !unread.is_empty()
    })
    .await;
    assert_eq!(unread[0].facts, Facts::Kind(runner().resource));
    assert!(unread[0].problem.is_retryable(), "{unread:?}");
}

// "0 workloads" is said of a kind only after a look at the definitions, which may be of a moment ago.
#[tokio::test]
async fn a_list_of_a_kind_by_name_looks_for_it_first() {
    let lab = Lab::new().await;
    let resource = runner().resource;
    let only = Selection {
        resource: Some(&resource),
        ..Selection::default()
    };
    let list = async || {
        let mut seen = Vec::new();
        let see = &mut |glance: &dyn Glance| {
            seen.push(glance.id().clone());
            ControlFlow::Continue(())
        };
        lab.engine.visit(only, see).await.map(|_| seen)
    };
    assert_eq!(list().await, Ok(Vec::new()));
    lab.double.put(definition("v1", ".spec.workers"));
    lab.double.put(object("v1"));
    assert_eq!(list().await, Ok(vec![runner()]));
}

// The same where nobody may look: that there are none is not known.
#[tokio::test]
async fn a_list_of_a_kind_that_nobody_may_look_for_says_so() {
    let double = Double::start().await;
    double.inject(Fault::status(403).at("/customresourcedefinitions"));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    let resource = runner().resource;
    let only = Selection {
        resource: Some(&resource),
        ..Selection::default()
    };
    let see = &mut |_: &dyn Glance| ControlFlow::Continue(());
    let asked = lab.engine.visit(only, see).await;
    assert!(
        matches!(&asked, Err(PortError::Refused(words)) if words.contains("CustomResourceDefinitions cannot be read")),
        "{asked:?}"
    );
}

// A page of large objects may be longer than what is taken of one answer.
#[tokio::test]
async fn objects_of_any_size_are_read_in_pages_that_fit() {
    let double = Double::start().await;
    for number in 0..90 {
        let mut large = objects::deployment("project-a", &format!("large-{number}"), 1);
        large["metadata"]["annotations"] = json!({ "others/notes": "x".repeat(400_000) });
        double.put(large);
    }
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 90);
}

fn definition(version: &str, path: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "runners.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "runners", "kind": "Runner" },
            "versions": [
                { "name": "v0", "served": false, "subresources": { "scale": { "specReplicasPath": ".spec.old", "statusReplicasPath": ".status.old" } } },
                { "name": version, "served": true, "subresources": { "scale": { "specReplicasPath": path, "statusReplicasPath": ".status.workers" } } },
            ] },
    })
}

fn object(version: &str) -> Value {
    json!({
        "apiVersion": format!("example.com/{version}"), "kind": "Runner",
        "metadata": { "namespace": "project-a", "name": "one" },
        "spec": { "workers": 3, "count": 5 }, "status": { "workers": 3 },
    })
}

fn runner() -> WorkloadId {
    of_kind("runners.example.com")
}

fn of_kind(resource: &str) -> WorkloadId {
    WorkloadId {
        resource: Resource::new(resource).unwrap(),
        namespace: Namespace::new("project-a").unwrap(),
        name: Name::new("one").unwrap(),
    }
}

/// Who asks for a kind that is not known makes the engine look at the definitions.
async fn look_again(lab: &Lab) {
    let other = of_kind("others.example.com");
    assert!(lab.engine.get(&other, Read::Cached).await.is_err());
}

// DESIGN §5, invariant 7: a count of another place is nobody's count.
#[tokio::test]
async fn a_definition_that_changes_is_followed() {
    let lab = Lab::new().await;
    let runner = runner();
    lab.double.put(definition("v1", ".spec.workers"));
    lab.double.put(object("v1"));
    let before = lab.engine.get(&runner, Read::Cached).await.unwrap();
    assert_eq!(before.desired.0, 3);
    // Its count lies elsewhere, and the object itself is what it was.
    lab.double.put(definition("v1", ".spec.count"));
    look_again(&lab).await;
    eventually("the count of the new place", async || {
        let now = lab.engine.get(&runner, Read::Cached).await;
        now.is_ok_and(|now| now.desired.0 == 5)
    })
    .await;
    // What was decided on the count of the old place is not written.
    let stale = lab.engine.write(&before, sleep(&before)).await;
    assert_eq!(stale, Err(PortError::Conflict));
    assert_eq!(lab.engine.let_go(&before).await, Err(PortError::Conflict));
    // Its version is served no more: what fails by that says so, and is over soon.
    lab.double.put(definition("v2", ".spec.count"));
    let now = lab.engine.get(&runner, Read::Cached).await.unwrap();
    let failures = [
        lab.engine.count_writer(&now).await.map(drop),
        lab.engine.let_go(&now).await,
        lab.engine.write(&now, sleep(&now)).await.map(drop),
    ];
    for failed in failures {
        assert!(
            matches!(&failed, Err(PortError::Internal(words)) if words.contains("no longer served as v1")),
            "{failed:?}"
        );
    }
    eventually("the new version", async || {
        let Ok(now) = lab.engine.get(&runner, Read::Live).await else {
            return false;
        };
        lab.engine.write(&now, sleep(&now)).await.is_ok()
    })
    .await;
    let path = "/apis/example.com/v2/namespaces/project-a/runners/one";
    assert_eq!(lab.double.get(path).unwrap()["spec"]["count"], 0);
}

// The same while the lists of the new definition fail, and only what was read in the old place is known.
#[tokio::test]
async fn nothing_is_written_on_facts_of_the_old_place() {
    let lab = Lab::new().await;
    lab.double.put(definition("v1", ".spec.workers"));
    let mut zero = object("v1");
    zero["spec"]["workers"] = json!(0);
    lab.double.put(zero);
    let before = lab.engine.get(&runner(), Read::Cached).await.unwrap();
    assert_eq!(before.desired.0, 0);
    lab.double
        .inject(Fault::status(500).at("/example.com/v1/runners?"));
    lab.double.put(definition("v1", ".spec.count"));
    look_again(&lab).await;
    let stale = lab.engine.write(&before, wake(&before, 1)).await;
    assert_eq!(stale, Err(PortError::Conflict));
    let path = "/apis/example.com/v1/namespaces/project-a/runners/one";
    assert_eq!(lab.double.get(path).unwrap()["spec"]["count"], 5);
}

// Issue 4 item 2: however many definitions a cluster has and however large they are, its kinds are known, and nothing is read
// twice while nothing changes.
#[tokio::test]
async fn hundreds_of_large_definitions_are_read_once() {
    let double = Double::start().await;
    let schema = "x".repeat(100_000);
    for n in 0..400 {
        let mut other = definition("v1", ".spec.workers");
        other["metadata"]["name"] = json!(format!("others{n}.example.com"));
        other["spec"]["names"] =
            json!({ "plural": format!("others{n}"), "kind": format!("Other{n}") });
        other["spec"]["versions"] = json!([{ "name": "v1", "served": true, "schema": schema }]);
        double.put(other);
    }
    double.put(definition("v1", ".spec.workers"));
    double.put(object("v1"));
    let lab = Lab::on(double, Rights::Full);
    let runner = runner();
    eventually("the workload", async || {
        let all = listed(&lab.engine).await;
        all.is_ok_and(|all| all.iter().any(|w| w.id == runner))
    })
    .await;
    assert!(lab.engine.kinds_problem().is_none());
    lab.double.forget_requests();
    look_again(&lab).await;
    let asked = lab.double.requests().into_iter();
    let of_kinds = asked.filter(|asked| asked.path.contains("/customresourcedefinitions"));
    let paths: Vec<String> = of_kinds.map(|asked| asked.path).collect();
    assert_eq!(paths.len(), 1, "only whether anything changed: {paths:?}");
}

// Issue 4 item 2: a definition that was deleted leaves nothing behind, and one that is made again is served again.
#[tokio::test]
async fn a_kind_whose_definition_is_deleted_is_no_kind_any_more() {
    let lab = Lab::new().await;
    let runner = runner();
    for _ in 0..2 {
        lab.double.put(definition("v1", ".spec.workers"));
        lab.double.put(object("v1"));
        look_again(&lab).await;
        eventually("the workload", async || {
            let all = listed(&lab.engine).await;
            all.is_ok_and(|all| all.iter().any(|w| w.id == runner))
        })
        .await;
        // As an API server does it: the objects go with their definition.
        assert!(
            lab.double
                .delete("/apis/example.com/v1/namespaces/project-a/runners/one")
        );
        assert!(
            lab.double.delete(
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/runners.example.com"
            )
        );
        look_again(&lab).await;
        eventually("a refusal that says why", async || {
            let asked = lab.engine.get(&runner, Read::Cached).await;
            matches!(&asked, Err(PortError::Refused(words)) if words.contains("no kind of this name"))
        })
        .await;
        let all = listed(&lab.engine).await.unwrap();
        assert!(all.iter().all(|w| w.id != runner), "{all:?}");
    }
}

// DESIGN §5, invariant 7: an answer may be on its way while the definition changes.
#[tokio::test]
async fn what_a_former_definition_read_is_not_kept() {
    let lab = Lab::new().await;
    let runner = runner();
    lab.double.put(definition("v1", ".spec.workers"));
    lab.double.put(object("v1"));
    let before = lab.engine.get(&runner, Read::Cached).await.unwrap();
    assert_eq!(before.desired.0, 3);
    let path = "/namespaces/project-a/runners/one";
    let held = lab.double.inject(Fault::always(Effect::Hold).at(path));
    lab.double.forget_requests();
    let (engine, wanted) = (lab.engine.clone(), runner.clone());
    let mut asking = tokio::task::JoinSet::new();
    asking.spawn(async move { engine.get(&wanted, Read::Live).await });
    eventually("the question", async || {
        let asked = lab.double.requests();
        asked.iter().any(|asked| asked.path.ends_with(path))
    })
    .await;
    lab.double.put(definition("v1", ".spec.count"));
    look_again(&lab).await;
    eventually("the count of the new place", async || {
        let now = listed(&lab.engine).await;
        now.is_ok_and(|all| all.iter().any(|w| w.id == runner && w.desired.0 == 5))
    })
    .await;
    // Newer than all that is known, and nobody else brings it.
    lab.double.watches_lag(PATIENCE);
    let url = format!("/apis/example.com/v1{path}");
    lab.double
        .edit(&url, |object| object["spec"]["other"] = json!(1));
    lab.double.lift(held);
    let late = asking.join_next().await.unwrap().unwrap().unwrap_err();
    assert!(
        matches!(&late, PortError::Internal(words) if words.contains("has changed meanwhile")),
        "{late}"
    );
    let now = lab.engine.get(&runner, Read::Cached).await.unwrap();
    assert_eq!(now.desired.0, 5);
}

/// What a pod and an autoscaler say of `Ox/one`; neither names a plural.
fn of_an_ox() -> [Value; 2] {
    let mut pod = objects::pod("project-a", "one", "x1");
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "example.com/v1", "kind": "Ox", "name": "one", "uid": "u", "controller": true,
    }]);
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "namespace": "project-a", "name": "herd" },
        "spec": {
            "minReplicas": 2, "maxReplicas": 9,
            "scaleTargetRef": { "apiVersion": "example.com/v1", "kind": "Ox", "name": "one" },
        },
    });
    [objects::running(pod, "10.0.0.7"), scaler]
}

// Issue 4: the plural of a kind is what its definition says, whether that is read before its pods or after them.
#[tokio::test]
async fn pods_and_autoscalers_of_a_kind_with_an_irregular_plural_are_found() {
    for pods_first in [true, false] {
        let lab = Lab::new().await;
        let put_others = || of_an_ox().map(|object| lab.double.put(object));
        if pods_first {
            put_others();
            // A later pod shows that the earlier ones were seen.
            let pod = objects::pod("project-a", "sample-app-a", "x1");
            lab.double.put(objects::running(pod, "10.0.0.8"));
            lab.sees("a later pod", |w| !w.replicas.is_empty()).await;
        }
        let mut definition = definition("v1", ".spec.workers");
        definition["metadata"]["name"] = json!("oxen.example.com");
        definition["spec"]["names"] = json!({ "plural": "oxen", "kind": "Ox" });
        lab.double.put(definition);
        lab.double.put(json!({
            "apiVersion": "example.com/v1", "kind": "Ox",
            "metadata": { "namespace": "project-a", "name": "one" },
            "spec": { "workers": 3 }, "status": { "workers": 1 },
        }));
        let ox = of_kind("oxen.example.com");
        assert!(lab.engine.get(&ox, Read::Cached).await.is_ok());
        if !pods_first {
            put_others();
        }
        eventually("its pod and its autoscaler", async || {
            let now = lab.engine.get(&ox, Read::Cached).await;
            now.is_ok_and(|now| {
                let minimum = now.autoscaler.as_ref().map(|scaler| scaler.minimum.0);
                now.replicas.len() == 1 && minimum == Some(2)
            })
        })
        .await;
        // Gone under the same name.
        let pod = of_an_ox()[0]["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        lab.double
            .delete(&format!("/api/v1/namespaces/project-a/pods/{pod}"));
        eventually("its pod gone", async || {
            let now = lab.engine.get(&ox, Read::Cached).await;
            now.is_ok_and(|now| now.replicas.is_empty())
        })
        .await;
    }
}
