//! Lists, history, pools, logs.

use std::time::Duration;

use jiff::SignedDuration;
use nagi_core::id::{NodeName, PoolName, ReplicaName, RequestId};
use nagi_core::intent::{Action, Actor, Change};
use nagi_core::pool::{Cost, Money, Node, NodePhase, Pool};
use nagi_core::quantity::Replicas;
use nagi_core::text::ReasonText;
use nagi_core::workload::Pending;
use nagi_ports::{HistoryEntry, LogLine};
use nagi_testkit::{epoch, id, workload};
use serde_json::{Value, json};

use super::world::{APP_A, BASE, Setup, World, world};
use crate::keys::{KeyEntry, KeySources, file};
use crate::page::Page;
use crate::query::Query;

fn crowd() -> World {
    let facts = (0..7).map(|n| {
        let mut w = workload(&format!("project-{}/app-{n}", ["a", "b"][n % 2]), 1, 1, 1);
        w.labels.insert("n".to_owned(), n.to_string());
        if n >= 4 {
            w.labels.insert("tier".to_owned(), "web".to_owned());
            w.available = Replicas::ZERO;
        }
        w
    });
    let mut facts: Vec<_> = facts.collect();
    let mut db = workload("project-a/db", 0, 0, 0);
    db.id.resource = nagi_core::id::Resource::new("statefulsets").unwrap();
    facts.push(db);
    let setup = Setup {
        workloads: Some(facts),
        ..Setup::default()
    };
    setup.world()
}

async fn names(w: &World, query: &str) -> Vec<String> {
    let answer = w.get(&format!("/api/v1/{query}")).send().await.expect(200);
    let items = answer.at("/items");
    items
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect()
}

// R18
#[tokio::test(start_paused = true)]
async fn lists_are_filtered_by_namespace_status_label_and_kind() {
    let w = crowd();
    assert_eq!(names(&w, "workloads").await.len(), 8);
    assert_eq!(names(&w, "deployments").await.len(), 7);
    assert_eq!(names(&w, "statefulsets").await, ["db"]);
    assert_eq!(names(&w, "rollouts.argoproj.io").await.len(), 0);
    assert_eq!(
        names(&w, "workloads?namespace=project-b").await,
        ["app-1", "app-3", "app-5"]
    );
    assert_eq!(
        names(&w, "workloads?status=scaling").await,
        ["app-4", "app-6", "app-5"]
    );
    assert_eq!(names(&w, "workloads?status=inactive").await, ["db"]);
    assert_eq!(names(&w, "workloads?label=tier").await.len(), 3);
    assert_eq!(
        names(&w, "workloads?label=tier%3Dweb&label=n=5").await,
        ["app-5"]
    );
    assert_eq!(names(&w, "workloads?label=tier=web,n=4").await, ["app-4"]);
    assert_eq!(names(&w, "workloads?label=tier=db").await.len(), 0);
    for bad in [
        "limit=0",
        "limit=501",
        "limit=x",
        "status=asleep",
        "namespace=UPPER",
        "label==x",
        "continue=junk",
        "limit=1&limit=2",
    ] {
        let answer = w
            .get(&format!("/api/v1/workloads?{bad}"))
            .send()
            .await
            .expect(400);
        assert_eq!(answer.at("/message"), "Invalid query parameter", "{bad}");
        assert!(answer.at("/field").is_string() && answer.at("/limit").is_string());
    }
}

// R18: every item once, in a stable order, whatever the size of a page.
#[tokio::test(start_paused = true)]
async fn pages_hold_every_item_once() {
    let w = crowd();
    let whole = names(&w, "workloads").await;
    for limit in 1..9 {
        let mut all = Vec::new();
        let mut next = String::new();
        loop {
            let path = format!("/api/v1/workloads?limit={limit}{next}");
            let answer = w.get(&path).send().await.expect(200);
            assert!(answer.at("/observed_at").is_string());
            let items = answer.at("/items");
            assert!(items.as_array().unwrap().len() <= limit);
            all.extend(
                items
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|i| i["name"].as_str().unwrap().to_owned()),
            );
            let Value::String(token) = answer.at("/continue") else {
                break;
            };
            next = format!("&continue={token}");
        }
        assert_eq!(all, whole, "{limit}");
    }
    // A token belongs to its filters, and ends.
    let first = w.get("/api/v1/workloads?limit=2").send().await;
    let token = first.at("/continue").as_str().unwrap().to_owned();
    w.get(&format!(
        "/api/v1/workloads?limit=2&status=active&continue={token}"
    ))
    .send()
    .await
    .expect(400);
    w.get(&format!("/api/v1/deployments?limit=2&continue={token}"))
        .send()
        .await
        .expect(400);
    tokio::time::sleep(Duration::from_mins(15) + Duration::from_secs(1)).await;
    let late = w
        .get(&format!("/api/v1/workloads?continue={token}"))
        .send()
        .await
        .expect(410);
    assert!(late.at("/hint").as_str().unwrap().contains("start again"));
}

// G17: items are made once for each revision, and nobody can tell.
#[tokio::test(start_paused = true)]
async fn an_item_that_was_made_before_is_the_same_and_follows_every_change() {
    let w = crowd();
    let path = "/api/v1/workloads?limit=3";
    let bytes = async || w.get(path).send().await.expect(200).bytes;
    let first = bytes().await;
    let page: nagi_api::ListAnswer = serde_json::from_slice(&first).unwrap();
    assert_eq!(first, serde_json::to_vec(&page).unwrap());
    let at = |name: &str| id(&format!("project-a/{name}"));
    let revision = |name: &str| nagi_ports::Revision(w.workloads.peek(&at(name)).version.number);
    assert!(w.app.items.get(revision("app-0")).is_some());
    assert_eq!(bytes().await, first);
    // Every change shows at once.
    w.workloads.change(&at("app-2"), |facts| {
        facts.labels.insert("new".to_owned(), "label".to_owned());
    });
    assert!(w.app.items.get(revision("app-2")).is_none());
    let changed = w.get(path).send().await.expect(200);
    assert_eq!(changed.at("/items/1/labels/new"), "label");
    // A time that runs out is told anew for each answer.
    w.workloads.change(&at("app-2"), |facts| {
        facts.available = Replicas::ZERO;
        facts.pending = Some(Pending::NodeBooting {
            pool: PoolName::new("gpu").unwrap(),
            ready_in: Some(Duration::from_millis(3_200)),
        });
    });
    let booting = w.get(path).send().await.expect(200);
    let reason = booting.at("/items/1/reason");
    assert!(reason.as_str().unwrap().ends_with("expected in 3.2 s"));
    assert!(w.app.items.get(revision("app-2")).is_none());
}

// G17, R12: a wake under way shows, and no answer after its end shows it.
#[tokio::test(start_paused = true)]
async fn a_wake_under_way_is_in_the_list_while_it_lasts() {
    let w = Setup {
        workloads: Some(vec![workload(APP_A, 0, 0, 0)]),
        ..Setup::default()
    }
    .world();
    let wake = async || w.get("/api/v1/workloads").send().await.at("/items/0/wake");
    assert_eq!(wake().await, Value::Null);
    w.post(&format!("{BASE}/wake"), r#"{"replicas":1}"#)
        .send()
        .await
        .expect(202);
    let shown = wake().await;
    assert!(shown["stage"].is_string(), "{shown}");
    // It is given up while no fact changes.
    let before = w.app_a().version;
    tokio::time::sleep(Duration::from_mins(61)).await;
    assert_eq!(w.app_a().version, before);
    assert_eq!(wake().await, Value::Null);
}

// R18: a token of ours names a workload, whether it is still there or not.
#[tokio::test(start_paused = true)]
async fn a_place_that_is_none_is_refused() {
    let w = crowd();
    let query = Query::of(&"/x".parse().unwrap()).unwrap();
    let scope = "workloads Filters { resource: None, namespace: None, status: None, labels: [] }";
    let page = Page::of(&query, scope.to_owned(), w.app.clock.now()).unwrap();
    let ask = async |position: &str| {
        let token = page.token(position, w.app.clock.now());
        let path = format!("/api/v1/workloads?continue={token}");
        w.get(&path).send().await.status.as_u16()
    };
    assert_eq!(ask("deployments\u{1}project-a\u{1}gone").await, 200);
    for bad in [
        "",
        "deployments",
        "deployments\u{1}A\u{1}b",
        "a\u{1}b\u{1}c\u{1}d",
    ] {
        assert_eq!(ask(bad).await, 400, "{bad:?}");
    }
}

fn change(n: i64) -> Change {
    Change {
        time: epoch() + SignedDuration::from_secs(n),
        action: Action::ScaleUp,
        actor: Actor::Gateway,
        reason: ReasonText::new(format!("change {n}")).unwrap(),
        request_id: RequestId::accept("r"),
        from: Replicas(0),
        to: Replicas(1),
    }
}

fn record(w: &World, n: u64, name: &str) {
    w.journal.entries.lock().unwrap().push(HistoryEntry {
        id: n,
        workload: id(name),
        change: change(i64::try_from(n).unwrap()),
        source: "journal",
    });
}

async fn history(w: &World, query: &str) -> Vec<u64> {
    let answer = w
        .get(&format!("/api/v1/history?{query}"))
        .send()
        .await
        .expect(200);
    let items = answer.at("/items");
    items
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_u64().unwrap())
        .collect()
}

// R20
#[tokio::test(start_paused = true)]
async fn history_is_newest_first_filtered_and_paged() {
    let w = world();
    let empty = w.get("/api/v1/history").send().await.expect(200);
    assert_eq!(empty.at("/reaches_back_to"), Value::Null);
    for n in 1..=6 {
        record(&w, n, if n % 2 == 0 { "project-b/b" } else { APP_A });
    }
    assert_eq!(history(&w, "").await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(history(&w, "namespace=project-b").await, [6, 4, 2]);
    assert_eq!(history(&w, "name=sample-app-a").await, [5, 3, 1]);
    let since = (epoch() + SignedDuration::from_secs(4)).to_string();
    assert_eq!(history(&w, &format!("since={since}")).await, [6, 5, 4]);
    assert_eq!(
        history(&w, "since=2030-03-18T02:46:44%2B09:00").await,
        [6, 5, 4]
    );
    assert_eq!(
        history(&w, "since=2030-03-18T02:46:44+09:00").await,
        [6, 5, 4]
    );
    let first = w.get("/api/v1/history?limit=4").send().await.expect(200);
    let token = first.at("/continue").as_str().unwrap().to_owned();
    assert_eq!(
        history(&w, &format!("limit=4&continue={token}")).await,
        [2, 1]
    );
    assert_eq!(first.at("/reaches_back_to"), "2030-03-17T17:46:41.000Z");
    assert_eq!(
        first.at("/items/0"),
        json!({
            "id": 6, "time": "2030-03-17T17:46:46.000Z", "resource": "deployments", "namespace": "project-b", "name": "b",
            "action": "scale-up", "actor": "gateway", "reason": "change 6", "request_id": "r", "from": 0, "to": 1,
            "source": "journal",
        })
    );
    for bad in [
        "since=yesterday",
        "since=2030-01-01",
        "name=UPPER",
        "namespace=a.b",
    ] {
        w.get(&format!("/api/v1/history?{bad}"))
            .send()
            .await
            .expect(400);
    }
}

// R20, F10: a key that sees little gets short pages that lead on, and never what it must not see.
#[tokio::test(start_paused = true)]
async fn history_shows_only_what_the_key_reaches() {
    use nagi_core::access::{Reach, Role};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.yaml");
    let names = ["project-a", "project-c"].map(str::to_owned);
    let entry = KeyEntry {
        id: nagi_core::id::KeyId::new("see").unwrap(),
        role: Role::Viewer,
        reach: file::reach(&names).unwrap(),
        created: epoch(),
        expires: None,
    };
    assert!(matches!(entry.reach, Reach::Only(_)));
    let key = file::create(&path, &entry).unwrap();
    let setup = Setup {
        keys: KeySources {
            keys_file: Some(path),
            ..KeySources::default()
        },
        ..Setup::default()
    };
    let w = setup.world();
    for n in 1..=200 {
        record(&w, n, if n % 50 == 0 { APP_A } else { "project-b/b" });
    }
    let mut seen = Vec::new();
    let mut next = String::new();
    for _ in 0..100 {
        let path = format!("/api/v1/history?limit=2{next}");
        let answer = w.get(&path).key(&key).send().await.expect(200);
        for item in answer.at("/items").as_array().unwrap() {
            assert_eq!(item["namespace"], "project-a");
            seen.push(item["id"].as_u64().unwrap());
        }
        let Value::String(token) = answer.at("/continue") else {
            break;
        };
        next = format!("&continue={token}");
    }
    assert_eq!(seen, [200, 150, 100, 50]);
}

// F28 on the local engine: nodes and money.
#[tokio::test(start_paused = true)]
async fn pools_show_nodes_and_money() {
    let w = world();
    let node = |name: &str, phase| Node {
        name: NodeName::new(name).unwrap(),
        phase,
        replicas: 1,
    };
    w.nodes.pools.lock().unwrap().push(Pool {
        name: PoolName::new("gpu").unwrap(),
        nodes: vec![
            node(
                "gpu-0",
                NodePhase::Booting {
                    ready_in: Some(Duration::from_millis(1500)),
                },
            ),
            node(
                "gpu-1",
                NodePhase::Ready {
                    released_in: Some(Duration::from_secs(2)),
                },
            ),
        ],
        nodes_max: Some(2),
        cost: Some(Cost {
            price_per_hour: Money { micros: 3_500_000 },
            spent: Money { micros: 1 },
            saved: Money { micros: 12_345_678 },
        }),
    });
    let answer = w.get("/api/v1/pools").send().await.expect(200);
    assert_eq!(
        answer.at("/items"),
        json!([{
            "name": "gpu",
            "nodes": [
                {"name": "gpu-0", "phase": "booting", "replicas": 1, "ready_in_seconds": 1.5},
                {"name": "gpu-1", "phase": "ready", "replicas": 1, "released_in_seconds": 2.0},
            ],
            "nodes_max": 2,
            "price_per_hour": 3.5,
            "spent": 0.000_001,
            "saved": 12.345_678,
        }])
    );
}

#[tokio::test(start_paused = true)]
async fn logs_are_paged_by_cursor() {
    let w = world();
    for n in 0..5 {
        w.logs.lines.lock().unwrap().push(LogLine {
            replica: ReplicaName::new("sample-app-a-0").unwrap(),
            text: format!("line {n}"),
        });
    }
    let path = format!("{BASE}/logs");
    let first = w.get(&format!("{path}?tail=2")).send().await.expect(200);
    assert_eq!(
        first.at("/items"),
        json!([{"replica": "sample-app-a-0", "text": "line 3"}, {"replica": "sample-app-a-0", "text": "line 4"}])
    );
    let cursor = first.at("/cursor").as_str().unwrap().to_owned();
    let next = w
        .get(&format!("{path}?after={cursor}"))
        .send()
        .await
        .expect(200);
    assert_eq!(next.at("/items"), json!([]));
    for bad in ["tail=-1", "tail=10001", "after=", "after=junk"] {
        w.get(&format!("{path}?{bad}")).send().await.expect(400);
    }
    w.get(&path.replace("sample-app-a", "none"))
        .send()
        .await
        .expect(404);
}

// DESIGN §5
#[tokio::test(start_paused = true)]
async fn a_read_may_ask_for_a_version() {
    let w = world();
    let zero = w
        .post(&format!("{BASE}/scale-to-zero"), r#"{"reason":"x"}"#)
        .send()
        .await
        .expect(200);
    let version = zero
        .at("/deployment/resource_version")
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("{BASE}/status?min_resource_version={version}");
    let status = w.get(&path).send().await.expect(200);
    assert_eq!(status.at("/deployment/resource_version"), version);
    // One that no answer about it ever had: said, and not taken for what is there.
    let next = (version.parse::<u64>().unwrap() + 1).to_string();
    for never in [next.as_str(), "9223372036854775807"] {
        let refused = w
            .get(&format!("{BASE}/status?min_resource_version={never}"))
            .send()
            .await
            .expect(400);
        assert_eq!(refused.at("/field"), "min_resource_version");
        let error = refused.at("/error");
        let error = error.as_str().unwrap();
        assert!(error.contains(never) && error.contains(&version), "{error}");
    }
    for bad in ["", "x", "-1", "1.0", "9223372036854775808"] {
        w.get(&format!("{BASE}/status?min_resource_version={bad}"))
            .send()
            .await
            .expect(400);
    }
}

// R18, issue 3: a misspelled filter shows everything to whoever believes in it.
#[tokio::test(start_paused = true)]
async fn a_filter_that_is_not_known_is_refused_by_every_read() {
    let w = world();
    for path in [
        "/api/v1/workloads".to_owned(),
        "/api/v1/deployments".to_owned(),
        "/api/v1/scheduled-scale-ups".to_owned(),
        "/api/v1/history".to_owned(),
        "/api/v1/events".to_owned(),
        "/api/v1/pools".to_owned(),
        format!("{BASE}/status"),
        format!("{BASE}/logs"),
    ] {
        let answer = w
            .get(&format!("{path}?stauts=active"))
            .send()
            .await
            .expect(400);
        assert_eq!(answer.at("/field"), "stauts", "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_label_that_can_be_none_is_refused() {
    let w = world();
    let long = "a".repeat(64);
    for good in [
        "team",
        "team=",
        "team=a_B.c-1",
        "team==a",
        "app.kubernetes.io/name=x",
        &"a".repeat(63),
        "a,b=c",
    ] {
        let path = format!("/api/v1/workloads?label={good}");
        w.get(&path).send().await.expect(200);
    }
    for bad in [
        "",
        "=x",
        "!!",
        "a/b/c",
        "a%00b",
        "/a",
        "A.io/a",
        "-a",
        "a=b/c",
        "a=b=c",
        "a!=b",
        "a,,b",
        &long,
        &format!("a={long}"),
    ] {
        let path = format!("/api/v1/workloads?label={bad}");
        let answer = w.get(&path).send().await.expect(400);
        assert_eq!(answer.at("/field"), "label", "{bad}");
    }
}
