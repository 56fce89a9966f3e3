//! Users of the cluster: who comes in with a token, what they may do, how long an answer counts, and what an engine that is
//! away means (issue 4, item 4; DESIGN §5 and §7).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use http_body_util::BodyExt as _;
use nagi_core::id::{Namespace, Resource, UserName, WorkloadId};
use nagi_core::intent::Actor;
use nagi_core::workload::Workload;
use nagi_ports::{Account, Accounts, Deed, PortError};
use nagi_testkit::{id, workload};

use super::world::{APP_A, BASE, Setup, World, app_a};
use crate::keys::KeySources;

const ZERO: &str = "/api/v1/deployments/project-a/sample-app-a/scale-to-zero";
const STATUS: &str = "/api/v1/deployments/project-a/sample-app-a/status";
const REASON: &str = r#"{"reason":"x"}"#;
const APP_B: &str = "project-b/sample-app-b";

/// Accounts that a test sets.
#[derive(Debug, Default)]
struct MemoryAccounts {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    tokens: BTreeMap<String, String>,
    rights: Vec<(String, Deed)>,
    fault: Option<PortError>,
    tokens_asked: Vec<String>,
    deeds_asked: Vec<Deed>,
}

impl MemoryAccounts {
    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap())
    }

    fn vouch(&self, token: &str, user: &str) {
        self.with(|state| state.tokens.insert(token.to_owned(), user.to_owned()));
    }

    fn grant(&self, user: &str, deed: Deed) {
        self.with(|state| state.rights.push((user.to_owned(), deed)));
    }

    fn revoke_all(&self) {
        self.with(|state| state.rights.clear());
    }

    fn fail(&self, fault: Option<PortError>) {
        self.with(|state| state.fault = fault);
    }

    fn asked(&self) -> (usize, usize) {
        self.with(|state| (state.tokens_asked.len(), state.deeds_asked.len()))
    }
}

#[async_trait]
impl Accounts for MemoryAccounts {
    async fn identify(&self, token: &str) -> Result<Option<Account>, PortError> {
        self.with(|state| {
            state.tokens_asked.push(token.to_owned());
            if let Some(fault) = &state.fault {
                return Err(fault.clone());
            }
            Ok(state.tokens.get(token).map(|user| Account {
                name: UserName::new(user).unwrap(),
                uid: None,
                groups: vec![],
                extra: BTreeMap::new(),
            }))
        })
    }

    async fn may(&self, account: &Account, deed: &Deed) -> Result<bool, PortError> {
        self.with(|state| {
            state.deeds_asked.push(deed.clone());
            if let Some(fault) = &state.fault {
                return Err(fault.clone());
            }
            let user = account.name.as_str();
            Ok(state
                .rights
                .iter()
                .any(|(of, right)| of == user && right == deed))
        })
    }
}

/// A world on Kubernetes that takes tokens; `jane` comes with the token `t-jane` and may do nothing yet.
fn with_tokens(keys: KeySources, workloads: Vec<Workload>) -> (World, Arc<MemoryAccounts>) {
    let accounts = Arc::new(MemoryAccounts::default());
    accounts.vouch("t-jane", "jane");
    let setup = Setup {
        keys: KeySources {
            tokens: true,
            ..keys
        },
        kubernetes: true,
        workloads: Some(workloads),
        ..Setup::default()
    };
    let given = Arc::clone(&accounts);
    let world = setup.world_with(|ports| ports.accounts = Some(given));
    (world, accounts)
}

fn both() -> Vec<Workload> {
    vec![workload(APP_A, 1, 1, 1), workload(APP_B, 1, 1, 1)]
}

fn visited() -> (World, Arc<MemoryAccounts>) {
    with_tokens(KeySources::default(), both())
}

fn all_in(namespace: &str) -> Deed {
    Deed::ReadAll(
        Resource::deployments(),
        Some(Namespace::new(namespace).unwrap()),
    )
}

// Wrong inputs first: nobody comes in by anything but a token that the cluster vouches for.
#[tokio::test(start_paused = true)]
async fn only_a_token_that_the_cluster_vouches_for_comes_in() {
    let (w, accounts) = visited();
    accounts.grant("jane", Deed::Read(app_a()));
    let missing = w.get(STATUS).send().await.expect(401);
    assert_eq!(missing.at("/error"), "Authorization header required");
    assert!(
        missing
            .at("/hint")
            .as_str()
            .unwrap()
            .contains("--audience scale-api"),
        "{missing:?}"
    );
    for token in ["t-other", "nagi_ops_0", "t-jane.x"] {
        let refused = w.get(STATUS).key(token).send().await.expect(401);
        assert_eq!(refused.at("/message"), "Unauthorized");
        assert_eq!(
            refused.header("www-authenticate"),
            "Bearer realm=\"scale-api\""
        );
    }
    // What looks like one of our own keys is shown to nobody.
    let asked = accounts.with(|state| state.tokens_asked.clone());
    assert_eq!(asked, ["t-other", "t-jane.x"]);
    w.get(STATUS).key("t-jane").send().await.expect(200);
    // A no is not remembered: the same token counts as soon as the cluster knows it.
    accounts.vouch("t-other", "jane");
    w.get(STATUS).key("t-other").send().await.expect(200);
}

#[tokio::test(start_paused = true)]
async fn a_user_may_read_and_change_what_the_cluster_says_and_nothing_else() {
    let (w, accounts) = visited();
    let refused = w.get(STATUS).key("t-jane").send().await.expect(403);
    assert_eq!(refused.at("/message"), "Forbidden");
    assert_eq!(
        refused.at("/error"),
        "user jane may not get deployments/scale in namespace project-a"
    );
    accounts.grant("jane", Deed::Read(app_a()));
    w.get(STATUS).key("t-jane").send().await.expect(200);
    let refused = w.post(ZERO, REASON).key("t-jane").send().await.expect(403);
    assert_eq!(
        refused.at("/error"),
        "user jane may not update deployments/scale in namespace project-a"
    );
    let hint = refused.at("/hint");
    assert!(
        hint.as_str()
            .unwrap()
            .contains("--clusterrole=edit --user='jane'"),
        "{hint}"
    );
    assert!(w.workloads.writes().is_empty(), "a refusal changes nothing");
    accounts.grant("jane", Deed::Change(app_a()));
    w.post(ZERO, REASON).key("t-jane").send().await.expect(200);
    let change = w.app_a().intent.changes.last().cloned().unwrap();
    assert_eq!(change.actor, Actor::User(UserName::new("jane").unwrap()));
    let path = format!("/api/v1/deployments/{APP_B}/scale-to-zero");
    w.post(&path, REASON).key("t-jane").send().await.expect(403);
    let lines = w.log_lines();
    let told = lines.iter().find(|line| line["actor"] == "user/jane");
    assert_eq!(told.unwrap()["user"], "jane");
    assert!(
        lines
            .iter()
            .all(|line| !line.to_string().contains("t-jane")),
        "no token is in the log"
    );
}

// 401 says that a token is bad, 503 that nobody can tell.
#[tokio::test(start_paused = true)]
async fn an_engine_that_is_away_is_503_and_never_401_or_403() {
    let (w, accounts) = visited();
    for (fault, status) in [
        (PortError::Unreachable("refused".to_owned()), 503),
        (PortError::Timeout("1.5 s".to_owned()), 503),
        (PortError::Busy { retry_after: None }, 503),
        // The Scale API itself lacks the right to ask.
        (PortError::Refused("403".to_owned()), 500),
        (PortError::Internal("broken".to_owned()), 500),
    ] {
        accounts.fail(Some(fault.clone()));
        let answer = w.get(STATUS).key("t-jane").send().await.expect(status);
        assert_eq!(
            answer.at("/message"),
            "Failed to read the owner of the token"
        );
        if status == 503 {
            assert_ne!(answer.header("retry-after"), "", "{fault:?}");
        }
        accounts.fail(None);
        w.get(STATUS).key("t-jane").send().await.expect(403);
        accounts.fail(Some(fault));
        let answer = w.get(STATUS).key("t-jane").send().await.expect(status);
        assert_eq!(
            answer.at("/message"),
            "Failed to read the rights of this user"
        );
        tokio::time::advance(Duration::from_secs(11)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_yes_counts_for_ten_seconds_and_a_no_for_none() {
    let (w, accounts) = visited();
    w.get(STATUS).key("t-jane").send().await.expect(403);
    accounts.grant("jane", Deed::Read(app_a()));
    // At once: the refusal a moment ago is forgotten.
    w.get(STATUS).key("t-jane").send().await.expect(200);
    let asked = accounts.asked();
    assert_eq!(asked, (1, 2));
    accounts.revoke_all();
    tokio::time::advance(Duration::from_millis(9_900)).await;
    w.get(STATUS).key("t-jane").send().await.expect(200);
    assert_eq!(accounts.asked(), asked, "both answers still count");
    tokio::time::advance(Duration::from_millis(100)).await;
    w.get(STATUS).key("t-jane").send().await.expect(403);
    assert_eq!(accounts.asked(), (2, 3));
    // And a token that the cluster no longer vouches for.
    accounts.with(|state| state.tokens.clear());
    w.get(STATUS).key("t-jane").send().await.expect(403);
    tokio::time::advance(Duration::from_secs(10)).await;
    w.get(STATUS).key("t-jane").send().await.expect(401);
}

// A right to see one workload is none to see another, whoever asks.
#[tokio::test(start_paused = true)]
async fn an_answer_counts_for_one_token_and_one_thing() {
    let (w, accounts) = visited();
    accounts.grant("jane", Deed::Read(app_a()));
    accounts.vouch("t-joe", "joe");
    w.get(STATUS).key("t-jane").send().await.expect(200);
    w.get(STATUS).key("t-joe").send().await.expect(403);
    let other = format!("/api/v1/deployments/{APP_B}/status");
    w.get(&other).key("t-jane").send().await.expect(403);
    // Nothing is asked about a name that is none.
    let before = accounts.asked();
    w.get("/api/v1/deployments/Project_A/x/status")
        .key("t-jane")
        .send()
        .await
        .expect(400);
    assert_eq!(accounts.asked(), before);
}

#[tokio::test(start_paused = true)]
async fn lists_show_what_the_user_may_read_and_no_more() {
    let mut workloads = both();
    let mut stateful = workload("project-a/db", 1, 1, 1);
    stateful.id.resource = Resource::new("statefulsets").unwrap();
    workloads.push(stateful);
    let (w, accounts) = with_tokens(KeySources::default(), workloads);
    let names = async |path: &str| {
        let answer = w.get(path).key("t-jane").send().await.expect(200).json();
        let items = answer["items"].as_array().unwrap().clone();
        let name = |item: &serde_json::Value| item["name"].as_str().unwrap().to_owned();
        items.iter().map(name).collect::<Vec<_>>()
    };
    assert!(names("/api/v1/workloads").await.is_empty());
    accounts.grant("jane", all_in("project-a"));
    // A no is kept for a moment here.
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(names("/api/v1/workloads").await, ["sample-app-a"]);
    assert_eq!(
        names("/api/v1/workloads?namespace=project-a").await,
        ["sample-app-a"]
    );
    let refused = w
        .get("/api/v1/workloads?namespace=project-b")
        .key("t-jane")
        .send()
        .await
        .expect(403);
    assert_eq!(
        refused.at("/error"),
        "user jane may not get deployments/scale in namespace project-b"
    );
    // Without another question for each.
    let before = accounts.asked().1;
    names("/api/v1/workloads").await;
    assert_eq!(accounts.asked().1, before);
    accounts.grant("jane", Deed::ReadAll(Resource::deployments(), None));
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(
        names("/api/v1/workloads").await,
        ["sample-app-a", "sample-app-b"]
    );
    accounts.grant(
        "jane",
        Deed::ReadAll(Resource::new("statefulsets").unwrap(), None),
    );
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(names("/api/v1/workloads").await.len(), 3);
    accounts.fail(Some(PortError::Unreachable("refused".to_owned())));
    tokio::time::advance(Duration::from_secs(9)).await;
    w.get("/api/v1/workloads")
        .key("t-jane")
        .send()
        .await
        .expect(200);
    tokio::time::advance(Duration::from_secs(2)).await;
    w.get("/api/v1/workloads")
        .key("t-jane")
        .send()
        .await
        .expect(503);
}

#[tokio::test(start_paused = true)]
async fn history_and_schedules_are_lists_too() {
    let (w, accounts) = visited();
    accounts.grant("jane", all_in("project-b"));
    for path in ["/api/v1/history", "/api/v1/scheduled-scale-ups"] {
        w.get(path).key("t-jane").send().await.expect(200);
        let of_a = format!("{path}?namespace=project-a");
        w.get(&of_a).key("t-jane").send().await.expect(403);
        let of_b = format!("{path}?namespace=project-b");
        w.get(&of_b).key("t-jane").send().await.expect(200);
    }
}

// What cannot be asked for one by one is refused with the way out.
#[tokio::test(start_paused = true)]
async fn a_list_over_very_many_namespaces_asks_for_one() {
    let workloads = (0..101).map(|n| workload(&format!("n{n}/app"), 1, 1, 1));
    let (w, accounts) = with_tokens(KeySources::default(), workloads.collect());
    let refused = w.get("/api/v1/workloads").key("t-jane").send().await;
    let refused = refused.expect(400);
    assert_eq!(refused.at("/field"), "namespace");
    assert_eq!(accounts.asked().1, 1, "only whether all may be read");
    accounts.grant("jane", all_in("n7"));
    let one = w
        .get("/api/v1/workloads?namespace=n7")
        .key("t-jane")
        .send()
        .await;
    assert_eq!(one.expect(200).at("/items/0/namespace"), "n7");
    accounts.grant("jane", Deed::ReadAll(Resource::deployments(), None));
    tokio::time::advance(Duration::from_secs(2)).await;
    let all = w
        .get("/api/v1/workloads?limit=500")
        .key("t-jane")
        .send()
        .await;
    assert_eq!(all.expect(200).at("/items").as_array().unwrap().len(), 101);
}

// Nagi's own account may read more than most people: it lends that to nobody.
#[tokio::test(start_paused = true)]
async fn logs_and_nodes_need_the_rights_for_logs_and_nodes() {
    let (w, accounts) = visited();
    accounts.grant("jane", Deed::Read(app_a()));
    let logs = format!("{BASE}/logs");
    let refused = w.get(&logs).key("t-jane").send().await.expect(403);
    assert_eq!(
        refused.at("/error"),
        "user jane may not get pods/log in namespace project-a"
    );
    accounts.grant("jane", Deed::ReadLogs(app_a().namespace));
    w.get(&logs).key("t-jane").send().await.expect(200);
    w.get("/api/v1/pools")
        .key("t-jane")
        .send()
        .await
        .expect(403);
    accounts.grant("jane", Deed::ReadNodes);
    w.get("/api/v1/pools")
        .key("t-jane")
        .send()
        .await
        .expect(200);
    w.get("/debug/pprof/goroutine")
        .key("t-jane")
        .send()
        .await
        .expect(403);
}

// K-14, A-034: what was open stays open, and what is set to protect is not undone by an empty key.
#[tokio::test(start_paused = true)]
async fn tokens_leave_keys_as_they_were() {
    let accounts = || Arc::new(MemoryAccounts::default());
    let key = |text: &str| KeySources {
        api_key: Some(text.to_owned()),
        ..KeySources::default()
    };
    // Not switched on: open without a key, whoever could be asked.
    let open = Setup {
        kubernetes: true,
        ..Setup::default()
    };
    let open = open.world_with(|ports| ports.accounts = Some(accounts()));
    open.get(STATUS).send().await.expect(200);
    open.get(STATUS).key("whatever").send().await.expect(200);
    // Switched on: never open.
    for keys in [KeySources::default(), key("")] {
        let (w, accounts) = with_tokens(keys, both());
        accounts.grant("jane", Deed::Read(app_a()));
        w.get(STATUS).send().await.expect(401);
        w.get(STATUS).key("t-jane").send().await.expect(200);
    }
    // Beside a key: both ways lead in, and a key is asked of nobody.
    let (w, accounts) = with_tokens(key("secret"), both());
    accounts.fail(Some(PortError::Unreachable("refused".to_owned())));
    w.post(ZERO, REASON).key("secret").send().await.expect(200);
    assert_eq!(accounts.asked(), (0, 0));
    w.get(STATUS).key("not-secret").send().await.expect(503);
}

// A-030, DESIGN §6: rails and rates hold for users as for keys.
#[tokio::test(start_paused = true)]
async fn protected_namespaces_and_rates_hold_for_users() {
    let system: WorkloadId = id("kube-system/coredns");
    let workloads = vec![
        workload(APP_A, 1, 1, 1),
        workload("kube-system/coredns", 1, 1, 1),
    ];
    let (w, accounts) = with_tokens(KeySources::default(), workloads);
    accounts.grant("jane", Deed::Change(system));
    accounts.grant("jane", Deed::Change(app_a()));
    let path = "/api/v1/deployments/kube-system/coredns/scale-to-zero";
    let refused = w.post(path, REASON).key("t-jane").send().await.expect(403);
    assert!(
        refused
            .at("/error")
            .as_str()
            .unwrap()
            .contains("kube-system")
    );
    for _ in 0..50 {
        w.post(ZERO, REASON).key("t-jane").send().await.expect(200);
    }
    w.post(ZERO, REASON).key("t-jane").send().await.expect(429);
}

// Each guess costs the cluster a look, so an address gets some and no more; users who are known go on.
#[tokio::test(start_paused = true)]
async fn guesses_from_one_address_end_and_users_go_on() {
    let (w, accounts) = visited();
    accounts.grant("jane", Deed::Read(app_a()));
    w.get(STATUS).key("t-jane").send().await.expect(200);
    for n in 0..50 {
        let guess = format!("guess-{n}");
        w.get(STATUS).key(&guess).send().await.expect(401);
    }
    let asked = accounts.asked().0;
    let refused = w.get(STATUS).key("guess").send().await.expect(429);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(accounts.asked().0, asked, "the cluster is not asked");
    w.get(STATUS).key("t-jane").send().await.expect(200);
    w.get(STATUS)
        .key("guess")
        .from("198.51.100.7")
        .send()
        .await
        .expect(401);
    // Those who are vouched for are not counted, however many come from one address.
    for n in 0..200 {
        let token = format!("good-{n}");
        accounts.vouch(&token, "jane");
        let good = w.get(STATUS).key(&token).from("198.51.100.9");
        good.send().await.expect(200);
    }
}

// R19: a stream lasts as long as the answers on which it rests.
#[tokio::test(start_paused = true)]
async fn a_stream_of_a_user_ends_when_its_rights_must_be_asked_anew() {
    let (w, accounts) = visited();
    accounts.grant("jane", all_in("project-a"));
    let response = w.get("/api/v1/events").key("t-jane").response().await;
    assert_eq!(response.status(), 200);
    let begun = tokio::time::Instant::now();
    let whole = tokio::time::timeout(Duration::from_mins(1), response.into_body().collect());
    assert!(whole.await.is_ok(), "it ends by itself");
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    w.get("/api/v1/events?namespace=project-b")
        .key("t-jane")
        .send()
        .await
        .expect(403);
}
