//! Writes: what is on the wire, preconditions, and the rights of the gateway.

use nagi_core::quantity::WakeCount;
use nagi_kube::{Rights, annotation};
use nagi_kube_double::Fault;
use nagi_ports::{PortError, Read, Workloads};
use serde_json::{Value, json};

use crate::lab::{Lab, PATH, id, sleep, wake};

// A-122, invariant 7
#[tokio::test]
async fn sleep_is_one_merge_patch_with_count_memory_and_version() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    let after = lab.engine.write(&before, sleep(&before)).await.unwrap();
    assert_eq!(after.desired.0, 0);
    assert_eq!(after.intent.remembered, WakeCount::new(2));
    let patches = lab.patches();
    let [patch] = patches.as_slice() else {
        panic!("{patches:?}")
    };
    assert_eq!(patch.path, format!("{PATH}?fieldManager=nagi"));
    assert_eq!(
        patch.content_type.as_deref(),
        Some("application/merge-patch+json")
    );
    let body: Value = serde_json::from_slice(&patch.body).unwrap();
    assert_eq!(body["spec"], json!({ "replicas": 0 }));
    assert_eq!(
        body["metadata"]["resourceVersion"],
        before.version.to_string()
    );
    let annotations = &body["metadata"]["annotations"];
    assert_eq!(annotations[annotation::REPLICAS], "2");
    assert_eq!(annotations[annotation::ASLEEP_BY], "api");
    assert_eq!(annotations[annotation::REASON], "コスト最適化のため");
    assert_eq!(annotations[annotation::ACTOR], "key/ops");
    assert_eq!(annotations[annotation::FORMAT], "1");
    // What is there afterwards reads back as it was written, by another process too.
    let other = lab.second(Rights::Full);
    other.synced().await;
    assert_eq!(other.get().await.intent, after.intent);
}

// A-099, W-A01
#[tokio::test]
async fn a_wake_removes_what_only_a_sleeper_has() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    let asleep = lab.engine.write(&before, sleep(&before)).await.unwrap();
    let awake = lab.engine.write(&asleep, wake(&asleep, 2)).await.unwrap();
    assert_eq!((awake.desired.0, awake.intent.asleep.clone()), (2, None));
    let object = lab.double.get(PATH).unwrap();
    assert!(
        object["metadata"]["annotations"]
            .get(annotation::ASLEEP_SINCE)
            .is_none()
    );
    assert_eq!(object["metadata"]["annotations"][annotation::REPLICAS], "2");
}

//
#[tokio::test]
async fn a_write_on_an_old_observation_is_a_conflict_and_writes_nothing() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(5));
    let refused = lab.engine.write(&before, sleep(&before)).await;
    assert_eq!(refused.unwrap_err(), PortError::Conflict);
    assert_eq!(lab.double.get(PATH).unwrap()["spec"]["replicas"], 5);
    // Whoever decides again sees what was in the way, at once.
    let again = lab.get().await;
    assert_eq!(again.desired.0, 5);
    let asleep = lab.engine.write(&again, sleep(&again)).await.unwrap();
    assert_eq!(asleep.intent.remembered, WakeCount::new(5));
}

#[tokio::test]
async fn a_workload_that_was_made_again_is_not_written_on_the_word_of_the_old_one() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    lab.double.delete(PATH);
    lab.double.put(nagi_kube_double::objects::deployment(
        "project-a",
        "sample-app-a",
        1,
    ));
    let refused = lab.engine.write(&before, sleep(&before)).await;
    assert_eq!(refused.unwrap_err(), PortError::Conflict);
    let now = lab.engine.get(&id(), Read::Cached).await.unwrap();
    assert_ne!(now.uid, before.uid);
    assert_eq!(now.desired.0, 1);
}

//
#[tokio::test]
async fn a_write_that_may_not_be_is_refused_with_the_words_of_the_api_server() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    for code in [403, 422] {
        lab.double
            .inject(Fault::status(code).on(http::Method::PATCH).times(1));
        let refused = lab.engine.write(&before, sleep(&before)).await.unwrap_err();
        assert!(
            matches!(&refused, PortError::Refused(words) if words.contains(&code.to_string())),
            "{refused}"
        );
    }
    lab.double
        .inject(Fault::status(500).on(http::Method::PATCH).times(1));
    let failed = lab.engine.write(&before, sleep(&before)).await.unwrap_err();
    assert!(matches!(failed, PortError::Internal(_)), "{failed}");
    assert_eq!(lab.double.get(PATH).unwrap()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn what_a_newer_release_wrote_is_not_overwritten() {
    let lab = Lab::new().await;
    lab.double.edit(PATH, |object| {
        object["metadata"]["annotations"] =
            json!({ annotation::FORMAT: "2", annotation::REPLICAS: "4" });
    });
    let before = lab
        .sees("the annotation", |w| w.intent.remembered.is_some())
        .await;
    let refused = lab.engine.write(&before, sleep(&before)).await.unwrap_err();
    assert!(matches!(refused, PortError::Refused(_)), "{refused}");
    assert_eq!(lab.patches().len(), 0);
}

#[tokio::test]
async fn many_gateways_wake_through_scale_and_one_takes_effect() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    lab.engine.write(&before, sleep(&before)).await.unwrap();
    let gateways = [lab.second(Rights::ScaleOnly), lab.second(Rights::ScaleOnly)];
    let mut observed = Vec::new();
    for gateway in &gateways {
        gateway.synced().await;
        observed.push(gateway.get().await);
    }
    lab.double.forget_requests();
    for (gateway, asleep) in gateways.iter().zip(&observed) {
        let awake = gateway.engine.write(asleep, wake(asleep, 2)).await.unwrap();
        assert_eq!(awake.desired.0, 2);
        assert!(awake.version > asleep.version);
    }
    let patches = lab.patches();
    assert_eq!(patches.len(), 2);
    for patch in &patches {
        assert_eq!(
            patch.path,
            format!("{PATH}/scale?fieldManager=nagi-gateway")
        );
        assert_eq!(
            patch.content_type.as_deref(),
            Some("application/json-patch+json")
        );
        let body: Value = serde_json::from_slice(&patch.body).unwrap();
        assert_eq!(
            body,
            json!([
                { "op": "test", "path": "/spec", "value": {} },
                { "op": "add", "path": "/spec/replicas", "value": 2 },
            ])
        );
    }
    // The second changed nothing: the count was set once, and what is remembered is untouched.
    let object = lab.double.get(PATH).unwrap();
    assert_eq!(object["spec"]["replicas"], 2);
    assert_eq!(object["metadata"]["annotations"][annotation::REPLICAS], "2");
}

#[tokio::test]
async fn a_gateway_may_wake_and_write_nothing_else() {
    let lab = Lab::with(Rights::ScaleOnly).await;
    let before = lab.get().await;
    let refused = lab.engine.write(&before, sleep(&before)).await.unwrap_err();
    assert!(matches!(refused, PortError::Refused(_)), "{refused}");
    assert_eq!(lab.patches().len(), 0);
}

// Issue 4 item 2: priority for wakes over sleeps over status
#[tokio::test]
async fn a_wake_waits_for_no_sleep_however_many_hang() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    let asleep = lab.engine.write(&before, sleep(&before)).await.unwrap();
    for n in 0..40 {
        let name = format!("app-{n}");
        lab.double
            .put(nagi_kube_double::objects::deployment("project-a", &name, 1));
    }
    let hang = Fault::always(nagi_kube_double::Effect::Hang).on(http::Method::PATCH);
    lab.double.inject(hang.at("/deployments/app-"));
    lab.double.forget_requests();
    let mut sleeps = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (engine, id) = (lab.engine.clone(), crate::lab::named(&format!("app-{n}")));
        sleeps.spawn(async move {
            let before = engine.get(&id, Read::Cached).await.unwrap();
            engine.write(&before, sleep(&before)).await
        });
    }
    crate::lab::eventually("sleeps under way", async || lab.patches().len() == 24).await;
    let awake = lab.engine.write(&asleep, wake(&asleep, 2)).await.unwrap();
    assert_eq!(awake.desired.0, 2);
    // The others wait for their turn and are told so; none was sent in between.
    let ended = sleeps.join_all().await;
    assert!(
        ended
            .iter()
            .all(|end| end.as_ref().is_err_and(PortError::is_retryable)),
        "{ended:?}"
    );
}
