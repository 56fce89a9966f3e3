//! Reads: the cache, misses, versions, pods and autoscalers.

use nagi_core::id::{Namespace, Version, WorkloadId};
use nagi_core::quantity::WakeCount;
use nagi_core::status::Status;
use nagi_core::wake::Stage;
use nagi_core::workload::{Pending, Readiness};
use nagi_kube::{Rights, Source, annotation};
use nagi_kube_double::{Double, Fault, objects};
use nagi_ports::{Clock as _, PortError, Read, SystemClock, WorkloadEvent, Workloads};
use nagi_testkit::{check_visits, listed};
use serde_json::json;

use crate::lab::{Lab, PATH, at, event, eventually, id, named, sleep, sleep_now, wake};

//
#[tokio::test]
async fn a_workload_is_read_from_the_cache_without_asking_the_api_server() {
    let lab = Lab::new().await;
    lab.double.forget_requests();
    let workload = lab.get().await;
    assert_eq!(
        (workload.desired.0, workload.current.0, workload.available.0),
        (2, 2, 2)
    );
    assert_eq!(workload.status(), Status::Active);
    assert_eq!(
        workload.hosts[0].as_str(),
        "sample-app-a.project-a.localhost"
    );
    assert_eq!(
        workload.labels.get("app").map(String::as_str),
        Some("sample-app-a")
    );
    let asked = lab.double.requests();
    assert!(
        asked.iter().all(|request| request.path == "/version"),
        "{asked:?}"
    );
}

// what must not be scaled is not put before the gateway unasked
#[tokio::test]
async fn a_protected_namespace_has_no_default_host() {
    let lab = Lab::new().await;
    lab.double
        .put(objects::deployment("kube-system", "coredns", 2));
    eventually("it in the list", async || {
        let all = listed(&lab.engine).await.unwrap();
        let found = all
            .iter()
            .find(|w| w.id.namespace.as_str() == "kube-system");
        found.is_some_and(|coredns| coredns.hosts.is_empty())
    })
    .await;
}

//
#[tokio::test]
async fn who_orders_waits_longer_for_a_slow_api_server_than_who_looks() {
    let lab = Lab::new().await;
    let slow = nagi_kube_double::Effect::Latency(std::time::Duration::from_secs(2));
    lab.double.inject(Fault::always(slow).at("/deployments/"));
    let (unknown, known) = (named("nobody"), id());
    let (looked, ordered) = tokio::join!(
        lab.engine.get(&unknown, Read::Cached),
        lab.engine.get(&known, Read::Live),
    );
    assert!(matches!(looked, Err(PortError::Timeout(_))), "{looked:?}");
    assert_eq!(ordered.unwrap().desired.0, 2);
}

//
#[tokio::test]
async fn a_miss_is_checked_live_before_it_is_not_found() {
    let lab = Lab::new().await;
    // The watch cannot bring it, and yet it is found.
    lab.double
        .inject(Fault::always(nagi_kube_double::Effect::Hang).at("watch=true"));
    lab.double.cut_watches();
    lab.double.put(objects::deployment("project-a", "new", 1));
    let found = lab.engine.get(&named("new"), Read::Cached).await.unwrap();
    assert_eq!(found.desired.0, 1);
    let gone = lab.engine.get(&named("nobody"), Read::Cached).await;
    assert_eq!(gone.unwrap_err(), PortError::NotFound);
}

//
#[tokio::test]
async fn changes_by_others_are_seen_and_told() {
    let lab = Lab::new().await;
    let mut events = lab.engine.subscribe();
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(5));
    let told = event(
        &mut events,
        |event| matches!(event, WorkloadEvent::Changed(w) if w.desired.0 == 5),
    )
    .await;
    let WorkloadEvent::Changed(told) = told else {
        unreachable!()
    };
    assert_eq!(told.id, id());
    lab.double.delete(PATH);
    event(
        &mut events,
        |event| matches!(event, WorkloadEvent::Deleted(gone) if *gone == id()),
    )
    .await;
    assert_eq!(
        lab.engine.get(&id(), Read::Cached).await.unwrap_err(),
        PortError::NotFound
    );
}

#[tokio::test]
async fn a_read_that_names_a_version_is_never_older() {
    let lab = Lab::new().await;
    lab.double
        .inject(Fault::always(nagi_kube_double::Effect::Hang).at("watch=true"));
    lab.double.cut_watches();
    let object = lab
        .double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(7));
    let version = object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let read = lab
        .engine
        .get(&id(), Read::AtLeast(Version::new(version)))
        .await
        .unwrap();
    assert_eq!((read.desired.0, read.version), (7, Version::new(version)));
}

// F17, item 7
#[tokio::test]
async fn replicas_have_address_readiness_and_stage_from_their_pods() {
    let lab = Lab::new().await;
    lab.double.edit(PATH, |object| {
        object["spec"]["replicas"] = json!(1);
        object["status"] = json!({});
        object["metadata"]["annotations"] = json!({ annotation::HOSTS: "a.example.com" });
    });
    let pod = objects::pod("project-a", "sample-app-a", "x1");
    lab.double.put(pod.clone());
    let waiting = lab.sees("the pod", |w| w.replicas.len() == 1).await;
    assert_eq!(waiting.replicas[0].stage, Stage::WaitingForNode);
    assert_eq!(waiting.hosts[0].as_str(), "a.example.com");
    lab.double.put(objects::running(pod.clone(), "10.0.0.7"));
    let starting = lab
        .sees("its address", |w| w.replicas[0].address.is_some())
        .await;
    assert_eq!(starting.replicas[0].stage, Stage::Starting);
    assert_eq!(
        starting.replicas[0].address.unwrap().to_string(),
        "10.0.0.7:8080"
    );
    assert_eq!(
        starting.replicas[0].readiness,
        Readiness::Http {
            path: "/ready".into()
        }
    );
    assert_eq!(starting.pending, Some(Pending::Starting));
    lab.double.put(objects::ready(pod, "10.0.0.7"));
    lab.sees("it serving", |w| w.replicas[0].ready).await;
    lab.double
        .delete("/api/v1/namespaces/project-a/pods/sample-app-a-5d4f8c7b6d-x1");
    lab.sees("it gone", |w| w.replicas.is_empty()).await;
}

//
#[tokio::test]
async fn what_the_scheduler_says_is_the_reason_of_a_pending_workload() {
    let lab = Lab::new().await;
    lab.double
        .edit(PATH, |object| object["status"] = json!({ "replicas": 2 }));
    let mut pod = objects::pod("project-a", "sample-app-a", "x1");
    pod["status"]["conditions"] = json!([{
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
    }]);
    lab.double.put(pod);
    let workload = lab.sees("the reason", |w| w.pending.is_some()).await;
    assert_eq!(workload.status(), Status::Scaling);
    let words = workload.pending.as_ref().unwrap().to_string();
    assert!(words.contains("Insufficient nvidia.com/gpu"), "{words}");
}

//
#[tokio::test]
async fn an_autoscaler_on_a_workload_is_shown_with_its_minimum() {
    let lab = Lab::new().await;
    let mut hpa = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": { "namespace": "project-a", "name": "web" },
        "spec": { "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "sample-app-a" }, "minReplicas": 2, "maxReplicas": 5 },
    });
    lab.double.put(hpa.clone());
    let workload = lab.sees("the autoscaler", |w| w.autoscaler.is_some()).await;
    let scaler = workload.autoscaler.as_ref().unwrap();
    assert_eq!(
        (scaler.name.as_str(), scaler.minimum.0),
        ("HorizontalPodAutoscaler/web", 2)
    );
    hpa["spec"]["scaleTargetRef"]["name"] = json!("other");
    lab.double.put(hpa);
    lab.sees("it aimed elsewhere", |w| w.autoscaler.is_none())
        .await;
}

#[tokio::test]
async fn lists_hold_every_kind_in_order_and_no_replica_set_of_a_deployment() {
    let lab = Lab::new().await;
    let mut of_deployment = objects::deployment("project-a", "sample-app-a-5d4f", 2);
    of_deployment["kind"] = json!("ReplicaSet");
    of_deployment["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps/v1", "kind": "Deployment", "name": "sample-app-a", "controller": true }]);
    lab.double.put(of_deployment);
    let mut of_others = objects::deployment("project-a", "a-1", 2);
    of_others["apiVersion"] = json!("v1");
    of_others["kind"] = json!("ReplicationController");
    of_others["metadata"]["ownerReferences"] = json!([{ "apiVersion": "apps.openshift.io/v1", "kind": "DeploymentConfig", "name": "a", "controller": true }]);
    lab.double.put(of_others);
    for (version, kind) in [
        ("apps/v1", "ReplicaSet"),
        ("v1", "ReplicationController"),
        ("apps/v1", "StatefulSet"),
    ] {
        let mut object = objects::deployment("project-b", "alone", 1);
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        lab.double.put(object);
    }
    let mut shown = Vec::new();
    eventually("four workloads", async || {
        let all = listed(&lab.engine).await.unwrap();
        shown = all
            .iter()
            .map(|w| format!("{} {}", w.id.resource, w.id))
            .collect();
        shown.len() == 4
    })
    .await;
    assert_eq!(
        shown,
        [
            "deployments project-a/sample-app-a",
            "replicasets project-b/alone",
            "replicationcontrollers project-b/alone",
            "statefulsets project-b/alone"
        ]
    );
    check_visits(&lab.engine).await;
}

// Issue 4 item 4: a namespaced overlay with Roles only
#[tokio::test]
async fn with_rights_in_some_namespaces_only_these_are_asked_for() {
    let double = Double::start().await;
    for namespace in ["project-a", "project-b", "project-c"] {
        double.put(objects::deployment(namespace, "sample-app-a", 1));
    }
    let namespaces = ["project-a", "project-b"].map(|name| Namespace::new(name).unwrap());
    let source = Source::Url(double.url());
    let lab = Lab::within(double, source, Rights::Full, Some(namespaces.to_vec()));
    lab.synced().await;
    eventually("both", async || {
        listed(&lab.engine).await.is_ok_and(|all| all.len() == 2)
    })
    .await;
    let outside = WorkloadId {
        namespace: Namespace::new("project-c").unwrap(),
        ..id()
    };
    let gone = lab.engine.get(&outside, Read::Cached).await;
    assert_eq!(gone.unwrap_err(), PortError::NotFound);
    let asked = lab.double.requests().into_iter();
    let mut everywhere = asked.filter(|request| {
        request.path.contains("/deployments?") && !request.path.contains("/namespaces/")
    });
    assert!(everywhere.next().is_none());
}

// A workload without any record that is raised from zero: whether a gateway did it is asked once.
#[tokio::test]
async fn a_raise_that_nobody_recorded_is_told_until_it_is_known_whose_it_is() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 0));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    let asleep = lab.sees("zero", |w| w.desired.0 == 0).await;
    assert_eq!(asleep.unrecorded, None);
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(2));
    let risen = lab.sees("two", |w| w.desired.0 == 2).await;
    assert_eq!(risen.unrecorded, Some(nagi_core::quantity::Replicas::ZERO));
    let writer = lab.engine.count_writer(&risen).await.unwrap();
    assert_eq!(
        writer,
        Some(nagi_core::intent::CountWriter::Other("kubectl".into()))
    );
    assert_eq!(lab.get().await.unrecorded, None, "it is a person's");
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(0));
    lab.sees("zero again", |w| w.desired.0 == 0 && w.unrecorded.is_none())
        .await;
    let gateway = lab.second(Rights::ScaleOnly);
    gateway.synced().await;
    let before = gateway.get().await;
    gateway
        .engine
        .write(&before, wake(&before, 1))
        .await
        .unwrap();
    let woken = lab.sees("the wake", |w| w.desired.0 == 1).await;
    let writer = lab.engine.count_writer(&woken).await.unwrap();
    assert_eq!(writer, Some(nagi_core::intent::CountWriter::Gateway));
    assert_eq!(
        lab.get().await.unrecorded,
        Some(nagi_core::quantity::Replicas::ZERO),
        "until it is recorded"
    );
}

// A person who scales to zero through `scale` leaves a count of nobody, and the wake behind it is noted nowhere but in an Event.
#[tokio::test]
async fn a_wake_of_what_belongs_to_nobody_is_told_by_its_event() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    let asleep = lab.engine.write(&before, sleep_now(&before)).await.unwrap();
    for count in [3, 0] {
        lab.double.scale(PATH, count);
    }
    let zero = lab
        .sees("zero", |w| w.desired.0 == 0 && w.version > asleep.version)
        .await;
    lab.double.scale(PATH, 2);
    let raised = lab.sees("two", |w| w.desired.0 == 2).await;
    // An hour before what is recorded of it a gateway woke it, and that says nothing of now.
    lab.double.put(json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "namespace": "project-a", "name": "old" },
        "regarding": { "uid": raised.uid.as_str() }, "reason": "Waking", "reportingController": "nagi.dev/scale-api",
        "eventTime": (SystemClock::new().now() - jiff::SignedDuration::from_hours(1)).to_string(),
    }));
    assert_eq!(lab.engine.count_writer(&raised).await.unwrap(), None);
    // Where Events cannot be read nobody tells, and that is no error.
    let broken = lab.double.inject(Fault::status(500).at("/events.k8s.io/"));
    assert_eq!(lab.engine.count_writer(&raised).await.unwrap(), None);
    lab.double.lift(broken);
    lab.double.scale(PATH, 0);
    lab.sees("zero again", |w| {
        w.desired.0 == 0 && w.version > zero.version
    })
    .await;
    let gateway = lab.second(Rights::ScaleOnly);
    gateway.synced().await;
    let before = gateway.get().await;
    let woken = wake(&before, 1);
    gateway.engine.write(&before, woken).await.unwrap();
    let woken = lab.sees("the wake", |w| w.desired.0 == 1).await;
    let writer = lab.engine.count_writer(&woken).await.unwrap();
    assert_eq!(writer, Some(nagi_core::intent::CountWriter::Gateway));
}

// The same facts seen twice are no news: that the count rose from zero is still known.
#[tokio::test]
async fn a_read_of_what_is_known_takes_nothing_back() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 0));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(2));
    let zero = Some(nagi_core::quantity::Replicas::ZERO);
    lab.sees("two", |w| w.unrecorded == zero).await;
    let live = lab.engine.get(&id(), Read::Live).await.unwrap();
    assert_eq!(live.unrecorded, zero);
    assert_eq!(lab.get().await.unrecorded, zero);
}

// What is being deleted, and held by a finalizer, has no pods any more, whatever its count says.
#[tokio::test]
async fn what_is_being_deleted_is_gone() {
    let lab = Lab::new().await;
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 1);
    let mut events = lab.engine.subscribe();
    lab.double.edit(PATH, |object| {
        object["metadata"]["finalizers"] = json!(["others/hold"]);
        object["metadata"]["deletionTimestamp"] = json!("2030-01-01T00:00:00Z");
    });
    event(
        &mut events,
        |event| matches!(event, nagi_ports::WorkloadEvent::Deleted(gone) if *gone == id()),
    )
    .await;
    for read in [Read::Cached, Read::Live] {
        let gone = lab.engine.get(&id(), read).await;
        assert_eq!(gone.unwrap_err(), PortError::NotFound);
    }
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 0);
}

#[tokio::test]
async fn a_list_of_many_pages_is_complete_also_when_its_pages_expire() {
    let double = Double::start().await;
    for n in 0..1_250 {
        double.put(objects::realistic_deployment(n));
    }
    // The second page of the first try is gone.
    double.inject(Fault::status(410).at("continue=").times(1));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 1_250);
}

// A-021; invariant 7: in order, and when a read was faster than the watch
#[tokio::test]
async fn a_count_that_others_wanted_for_a_moment_is_not_missed() {
    for read_is_faster in [false, true] {
        let lab = Lab::new().await;
        let before = lab.get().await;
        lab.engine.write(&before, sleep(&before)).await.unwrap();
        let set = |count: u32| {
            lab.double
                .edit(PATH, |object| object["spec"]["replicas"] = json!(count));
        };
        if read_is_faster {
            let watches = || {
                let requests = lab.double.requests().into_iter();
                let asked = requests.filter(|request| {
                    request.path.contains("/deployments?") && request.path.contains("watch=true")
                });
                asked.count()
            };
            let before = watches();
            let away = lab.double.inject(Fault::status(500).at("watch=true"));
            lab.double.cut_watches();
            // Refused once, so the one before is dead.
            eventually("another watch", async || watches() > before).await;
            set(6);
            set(0);
            let object = lab.double.get(PATH).unwrap();
            let version = object["metadata"]["resourceVersion"].as_str().unwrap();
            let version = Version::new(version.parse().unwrap());
            let read = lab.engine.get(&id(), Read::AtLeast(version)).await.unwrap();
            assert_eq!(read.unrecorded, None, "nobody can know it yet");
            lab.double.lift(away);
        } else {
            set(6);
            set(0);
        }
        let missed = lab
            .sees("the count in between", |w| {
                w.desired.0 == 0 && w.unrecorded == Some(nagi_core::quantity::Replicas(6))
            })
            .await;
        assert_eq!(missed.intent.remembered, WakeCount::new(6));
        let update = nagi_core::scale::outside_change(&missed, None, at("2030-01-01T00:00:00Z"));
        let recorded = lab.engine.write(&missed, update.unwrap()).await.unwrap();
        assert_eq!(recorded.unrecorded, None);
        let kept = &lab.double.get(PATH).unwrap()["metadata"]["annotations"]["nagi.dev/replicas"];
        assert_eq!(kept, "6");
        // What Nagi itself wakes and puts to sleep is recorded, and so is nobody's.
        let awake = lab
            .engine
            .write(&recorded, wake(&recorded, 3))
            .await
            .unwrap();
        let asleep = lab.engine.write(&awake, sleep(&awake)).await.unwrap();
        assert_eq!(
            (asleep.unrecorded, asleep.intent.remembered),
            (None, WakeCount::new(3))
        );
    }
}

// A workload that Nagi never changed is left alone
#[tokio::test]
async fn a_stranger_that_goes_to_zero_gets_no_record() {
    let lab = Lab::new().await;
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(0));
    let seen = lab.sees("zero", |w| w.desired.0 == 0).await;
    assert_eq!((seen.unrecorded, seen.intent.remembered), (None, None));
}
