//! What is told when part of it cannot be read: namespaces, pods, autoscalers.

use std::ops::ControlFlow;
use std::time::Duration;

use nagi_core::id::{Namespace, Resource};
use nagi_kube::{Rights, Source};
use nagi_kube_double::{Double, Fault, objects};
use nagi_ports::{
    Clock as _, Facts, Glance, PortError, Selection, SystemClock, Unread, Visited, Workloads, each,
};
use nagi_testkit::listed;
use serde_json::json;

use crate::lab::{Lab, eventually};

fn namespace(name: &str) -> Namespace {
    Namespace::new(name).unwrap()
}

/// An engine that looks at these namespaces only.
fn within(double: Double, names: &[&str]) -> Lab {
    let source = Source::Url(double.url());
    let names = names.iter().map(|name| namespace(name)).collect();
    Lab::within(double, source, Rights::Full, Some(names))
}

async fn visit(lab: &Lab, only: Option<&Namespace>) -> Result<Visited, PortError> {
    let selection = Selection {
        namespace: only,
        ..Selection::default()
    };
    let see = &mut |_: &dyn Glance| ControlFlow::Continue(());
    lab.engine.visit(selection, see).await
}

fn age(visited: &Visited) -> Duration {
    let age = SystemClock::new().now().duration_since(visited.observed_at);
    age.unsigned_abs()
}

fn names_deployments(unread: &[Unread]) -> bool {
    let deployments = Facts::Kind(Resource::deployments());
    unread.iter().any(|one| one.facts == deployments)
}

// A namespace that is gone takes the rights in it along, and nothing of the others.
#[tokio::test]
async fn a_namespace_that_may_not_be_read_keeps_no_other_away() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    for namespace in ["project-0", "project-b"] {
        double.inject(Fault::status(403).at(format!("/namespaces/{namespace}/")));
    }
    let lab = within(double, &["project-0", "project-a", "project-b"]);
    lab.synced().await;
    let unread = each(&lab.engine, |_| {}).await.unwrap();
    assert!(names_deployments(&unread), "{unread:?}");
    assert!(unread.iter().any(Unread::may_hide_workloads));
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 1);
    // Who asks for one namespace is told of that one.
    let own = visit(&lab, Some(&namespace("project-a"))).await.unwrap();
    assert_eq!(own.unread, []);
    let gone = visit(&lab, Some(&namespace("project-b"))).await;
    assert!(matches!(gone, Err(PortError::Refused(_))), "{gone:?}");
}

// One that goes later leaves nothing behind of which the others would look old.
#[tokio::test]
async fn a_namespace_that_goes_makes_no_other_old() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.put(objects::deployment("project-0", "sample-app-b", 2));
    let lab = within(double, &["project-0", "project-a"]);
    eventually("both", async || {
        listed(&lab.engine).await.is_ok_and(|all| all.len() == 2)
    })
    .await;
    let path = "/apis/apps/v1/namespaces/project-0/deployments/sample-app-b";
    assert!(lab.double.delete(path));
    eventually("one", async || {
        listed(&lab.engine).await.is_ok_and(|all| all.len() == 1)
    })
    .await;
    lab.double
        .inject(Fault::status(403).at("/namespaces/project-0/"));
    // Whether the API server answers is asked of another one, also before a watch has told.
    assert!(lab.engine.reachable().await.is_ok());
    lab.double.cut_watches();
    eventually("the other is told as unread", async || {
        let visited = visit(&lab, None).await.expect("no error");
        names_deployments(&visited.unread)
    })
    .await;
    let then = SystemClock::new().now();
    eventually("what is seen now is told as seen now", async || {
        let visited = visit(&lab, None).await.expect("no error");
        visited.observed_at > then
    })
    .await;
    lab.synced().await;
}

// The same of pods alone.
#[tokio::test]
async fn pods_of_an_empty_namespace_make_nothing_old() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    let lab = within(double, &["project-0", "project-a"]);
    lab.synced().await;
    eventually("all", async || {
        visit(&lab, None)
            .await
            .is_ok_and(|seen| seen.unread.is_empty())
    })
    .await;
    lab.double
        .inject(Fault::status(403).at("/namespaces/project-0/pods"));
    lab.double.cut_watches();
    eventually("pods are told as unread", async || {
        let visited = visit(&lab, None).await.expect("no error");
        visited
            .unread
            .iter()
            .any(|one| one.to_string() == "some pods")
    })
    .await;
    let then = SystemClock::new().now();
    eventually("what is seen now is told as seen now", async || {
        let visited = visit(&lab, None).await.expect("no error");
        visited.observed_at > then
    })
    .await;
}

// DESIGN §5: what the API server fails with in one place is no reason to tell nothing of another.
#[tokio::test]
async fn a_namespace_whose_lists_fail_keeps_no_other_away() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.inject(Fault::status(500).at("/namespaces/project-b/"));
    let lab = within(double, &["project-a", "project-b"]);
    let mut unread = Vec::new();
    eventually("a list", async || {
        let looked = each(&lab.engine, |_| {}).await;
        looked.is_ok_and(|all| {
            unread = all;
            names_deployments(&unread)
        })
    })
    .await;
    assert!(unread[0].problem.is_retryable(), "{unread:?}");
    assert_eq!(unread[0].to_string(), "some deployments");
    assert!(lab.engine.reachable().await.is_ok());
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 1);
}

// Where a workload serves is not told as if it had just been seen.
#[tokio::test]
async fn pods_that_may_not_be_read_any_more_are_told_as_old() {
    let lab = Lab::new().await;
    lab.double.put(objects::ready(
        objects::pod("project-a", "sample-app-a", "x1"),
        "10.0.0.7",
    ));
    lab.sees("a replica", |workload| !workload.replicas.is_empty())
        .await;
    let denied = lab.double.inject(Fault::status(403).at("/pods"));
    lab.double.cut_watches();
    // Longer than any silence between two questions.
    eventually("pods are told as unread and old", async || {
        let visited = visit(&lab, None).await.expect("no error");
        let told = visited.unread.iter().any(|one| one.facts == Facts::Pods);
        told && age(&visited) > Duration::from_secs(4)
    })
    .await;
    lab.double.lift(denied);
    eventually("they are read again", async || {
        let visited = visit(&lab, None).await.expect("no error");
        visited.unread.is_empty() && age(&visited) < Duration::from_secs(4)
    })
    .await;
}

// KEDA's definition allows any number, and a minimum below zero is none.
#[tokio::test]
async fn an_autoscaler_with_an_odd_minimum_hides_no_other() {
    let double = Double::start().await;
    let scaled = |name: &str, target: &str, minimum: i64| {
        json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": { "namespace": "project-a", "name": name },
            "spec": { "scaleTargetRef": { "name": target }, "minReplicaCount": minimum },
        })
    };
    double.put(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "scaledobjects.keda.sh" },
        "spec": { "group": "keda.sh", "scope": "Namespaced", "names": { "plural": "scaledobjects", "kind": "ScaledObject" },
            "versions": [{ "name": "v1alpha1", "served": true }] },
    }));
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.put(objects::deployment("project-a", "sample-app-b", 2));
    double.put(scaled("odd", "sample-app-b", -1));
    double.put(scaled("usual", "sample-app-a", 2));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    let workload = lab
        .sees("its autoscaler", |workload| workload.autoscaler.is_some())
        .await;
    let autoscaler = workload.autoscaler.as_ref().unwrap();
    assert_eq!(
        (autoscaler.name.as_str(), autoscaler.minimum.0),
        ("ScaledObject/usual", 2)
    );
}
