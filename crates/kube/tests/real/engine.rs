//! The engine on a real API server, over TLS and with real credentials: what the double proves holds there.

use std::sync::Arc;

use nagi_core::id::{Name, Namespace, WorkloadId};
use nagi_core::intent::CountWriter;
use nagi_kube::{KubeEngine, KubeSettings, Rights, Source};
use nagi_kube_double::objects;
use nagi_ports::{HistoryQuery, Journal, PortError, Read, SystemClock, Workloads};
use nagi_runtime::Supervisor;
use serde_json::{Value, json};

use crate::lab::{eventually, sleep, sleep_now, wake};

const NAMESPACE: &str = "nagi-engine";

/// As often as whoever writes for a person does (DESIGN §5).
const ATTEMPTS_MAX: u32 = 5;

fn source() -> Source {
    Source::Rules {
        kubeconfig: Some(crate::kubeconfig().into()),
        home: None,
        context: None,
    }
}

fn engine(source: &Source, rights: Rights, identity: &str) -> (KubeEngine, Supervisor) {
    let mut supervisor = Supervisor::new();
    let settings = KubeSettings {
        source: source.clone(),
        rights,
        namespaces: None,
        identity: identity.to_owned(),
    };
    let engine = KubeEngine::start(settings, Arc::new(SystemClock::new()), &mut supervisor);
    (engine, supervisor)
}

/// Puts what the test needs into the cluster.
async fn prepare(name: &str) {
    let client = crate::client().await;
    let ask = async |method: &str, path: String, body: Value| {
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(kube::client::Body::from(body.to_string().into_bytes()));
        client.send(request.unwrap()).await.unwrap();
    };
    for namespace in [NAMESPACE, "scale-system"] {
        let object =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": namespace } });
        ask("POST", "/api/v1/namespaces".to_owned(), object).await;
    }
    let collection = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments");
    ask("DELETE", format!("{collection}/{name}"), json!({})).await;
    let mut object = objects::deployment(NAMESPACE, name, 2);
    object.as_object_mut().unwrap().remove("status");
    ask("POST", collection, object).await;
}

/// As `kubectl scale` does.
async fn scale_to_zero(name: &str) {
    let path = format!(
        "/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{name}/scale?fieldManager=kubectl-scale"
    );
    let request = http::Request::builder()
        .method("PATCH")
        .uri(path)
        .header("content-type", "application/merge-patch+json")
        .body(kube::client::Body::from(
            br#"{"spec":{"replicas":0}}"#.to_vec(),
        ));
    let client = crate::client().await;
    let answer = client.send(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
}

// F12
#[tokio::test]
async fn sleep_wake_and_history_on_a_real_api_server() {
    let source = source();
    prepare("web").await;
    let id = WorkloadId::deployment(
        Namespace::new(NAMESPACE).unwrap(),
        Name::new("web").unwrap(),
    );
    let (server, mut owner) = engine(&source, Rights::Full, "real-1");
    let (gateway, _owner) = engine(&source, Rights::ScaleOnly, "real-2");
    let leading = server.lead(&mut owner);
    for engine in [&server, &gateway] {
        eventually("the first list", async || engine.reachable().await.is_ok()).await;
    }
    leading.leadership().gained().await;
    // The controllers write to the object as well; whoever meets that reads again and decides again.
    let mut attempts = 0;
    let (before, asleep) = loop {
        let before = server.get(&id, Read::Cached).await.unwrap();
        assert_eq!(before.desired.0, 2);
        match leading.write(&before, sleep_now(&before)).await {
            Ok(asleep) => break (before, asleep),
            Err(PortError::Conflict) if attempts < ATTEMPTS_MAX => attempts += 1,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(asleep.desired.0, 0);
    let stale = server.write(&before, sleep(&before)).await.unwrap_err();
    assert_eq!(stale, PortError::Conflict);
    let seen = gateway
        .get(&id, Read::AtLeast(asleep.version))
        .await
        .unwrap();
    assert_eq!(seen.intent, asleep.intent);
    for _ in 0..2 {
        let awake = gateway.write(&seen, wake(&seen, 2)).await.unwrap();
        assert_eq!(awake.desired.0, 2);
    }
    let awake = server
        .get(
            &id,
            Read::AtLeast(nagi_core::id::Version::new(asleep.version.number + 1)),
        )
        .await
        .unwrap();
    assert_eq!(awake.desired.0, 2);
    assert_eq!(
        server.count_writer(&awake).await.unwrap(),
        Some(CountWriter::Gateway)
    );
    // A zero that `kubectl scale` wrote belongs to nobody, and so does what is raised from there: the Event of a gateway tells.
    scale_to_zero("web").await;
    let zero = async |engine: &KubeEngine| {
        eventually("the zero", async || {
            let now = engine.get(&id, Read::Cached).await;
            now.is_ok_and(|now| now.desired.0 == 0)
        })
        .await;
        engine.get(&id, Read::Cached).await.unwrap()
    };
    let before = zero(&gateway).await;
    let woken = gateway.write(&before, wake(&before, 1)).await.unwrap();
    let seen = server.get(&id, Read::AtLeast(woken.version)).await.unwrap();
    assert_eq!(seen.desired.0, 1);
    assert_eq!(
        server.count_writer(&seen).await.unwrap(),
        Some(CountWriter::Gateway)
    );
    let query = HistoryQuery {
        namespace: Some(Namespace::new(NAMESPACE).unwrap()),
        limit: 10,
        ..HistoryQuery::default()
    };
    eventually("the change as an Event", async || {
        let page = server.history(&query).await.unwrap();
        page.entries.iter().any(|entry| entry.source == "journal")
    })
    .await;
    let nobody = WorkloadId::deployment(
        Namespace::new(NAMESPACE).unwrap(),
        Name::new("nobody").unwrap(),
    );
    assert_eq!(
        server.get(&nobody, Read::Cached).await.unwrap_err(),
        PortError::NotFound
    );
}
