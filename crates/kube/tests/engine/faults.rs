//! Faults of the API server: what is said meanwhile, and that everything comes back without a restart.

use std::ops::ControlFlow;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nagi_core::id::{Resource, Version};
use nagi_kube::{Rights, Source};
use nagi_kube_double::{Double, Effect, Fault, objects};
use nagi_ports::{Clock as _, Glance, PortError, Read, Selection, SystemClock, Workloads};
use nagi_testkit::listed;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::lab::{Lab, PATH, PATIENCE, event, eventually, id, is_unreachable, named, sleep, wake};

// A-016, F02
#[tokio::test]
async fn an_api_server_that_was_stopped_is_told_and_found_again() {
    let lab = Lab::new().await;
    lab.double.stop().await;
    let error = lab.engine.reachable().await.unwrap_err();
    assert!(matches!(&error, PortError::Unreachable(_)), "{error}");
    assert!(
        error.to_string().contains("connection"),
        "A-056: the word is in the log: {error}"
    );
    // The watch broke with it: nothing is answered from a cache that nobody feeds.
    eventually("reads to fail", async || {
        lab.engine
            .get(&id(), Read::Cached)
            .await
            .is_err_and(|error| is_unreachable(&error))
    })
    .await;
    assert!(is_unreachable(&listed(&lab.engine).await.unwrap_err()));
    // Unknown is not none, for no kind.
    for kind in ["deployments", "rollouts.argoproj.io"] {
        let selection = Selection {
            resource: Some(&Resource::new(kind).unwrap()),
            ..Selection::default()
        };
        let see = &mut |_: &dyn Glance| -> ControlFlow<()> { panic!("nothing is believed") };
        let error = lab.engine.visit(selection, see).await.unwrap_err();
        assert!(is_unreachable(&error), "{kind}: {error}");
    }
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(3));
    lab.double.resume().await;
    lab.sees("what changed meanwhile", |w| w.desired.0 == 3)
        .await;
    eventually("lists", async || listed(&lab.engine).await.is_ok()).await;
    lab.engine.reachable().await.unwrap();
}

// A-016, F02: within the probe's timeout whatever the API server does
#[tokio::test]
async fn an_api_server_that_hangs_is_told_in_time() {
    let lab = Lab::new().await;
    let hang = lab.double.inject(Fault::always(Effect::Hang));
    let begun = Instant::now();
    let error = lab.engine.reachable().await.unwrap_err();
    assert!(matches!(error, PortError::Timeout(_)), "{error}");
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    // The watch is open and silent; five seconds without any answer end the trust in it.
    eventually("reads to go live and fail", async || {
        lab.engine
            .get(&id(), Read::Cached)
            .await
            .is_err_and(|error| is_unreachable(&error))
    })
    .await;
    assert!(is_unreachable(&listed(&lab.engine).await.unwrap_err()));
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(4));
    lab.double.lift(hang);
    lab.sees("what changed meanwhile", |w| w.desired.0 == 4)
        .await;
}

#[tokio::test]
async fn rights_that_are_taken_away_are_told_and_work_again_when_they_are_back() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    let denied = double.inject(Fault::status(403));
    let lab = Lab::on(double, Rights::Full);
    let error = lab.engine.reachable().await.unwrap_err();
    assert!(
        matches!(&error, PortError::Refused(words) if words.contains("403")),
        "{error}"
    );
    let error = lab.engine.get(&id(), Read::Cached).await.unwrap_err();
    assert!(matches!(error, PortError::Refused(_)), "{error}");
    lab.double.lift(denied);
    lab.synced().await;
    assert_eq!(lab.get().await.desired.0, 2);
}

// DESIGN §5: what may not be read any more is not told as if it had just been seen, and not as if it were gone.
#[tokio::test]
async fn rights_that_are_taken_away_later_make_no_old_facts_new() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    let set = "/apis/apps/v1/namespaces/project-a/statefulsets/store";
    let mut store = objects::deployment("project-a", "store", 1);
    store["kind"] = json!("StatefulSet");
    double.put(store);
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    let clock = SystemClock::new();
    let list = async || {
        let mut counts = Vec::new();
        let see = &mut |glance: &dyn Glance| {
            counts.push(glance.counts().desired.0);
            ControlFlow::Continue(())
        };
        let visited = lab.engine.visit(Selection::default(), see).await;
        visited.map(|visited| (counts, visited.observed_at))
    };
    let holds = async |wanted: &[u32]| list().await.is_ok_and(|(counts, _)| counts == wanted);
    eventually("a list of both", async || holds(&[2, 1]).await).await;
    let denied = lab.double.inject(Fault::status(403).at("/statefulsets"));
    lab.double.cut_watches();
    lab.double
        .edit(set, |object| object["spec"]["replicas"] = json!(4));
    let since = clock.now();
    eventually("the time of the last look", async || {
        let list = list().await;
        let is_old = |at: Timestamp| clock.now().duration_since(at) > SignedDuration::from_secs(1);
        list.is_ok_and(|(counts, at)| counts == [2, 1] && is_old(at))
    })
    .await;
    let (_, observed_at) = list().await.unwrap();
    let moved = observed_at.duration_since(since);
    assert!(moved < SignedDuration::from_millis(900), "{moved:?}");
    lab.double.lift(denied);
    eventually("both, as they are now", async || {
        let list = list().await;
        list.is_ok_and(|(counts, at)| counts == [2, 4] && at > observed_at)
    })
    .await;
    let denied = lab.double.inject(Fault::status(403).at("/deployments"));
    lab.double.cut_watches();
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(5));
    eventually("an error instead of a list", async || {
        matches!(list().await, Err(PortError::Refused(_)))
    })
    .await;
    lab.double.lift(denied);
    eventually("the list again", async || holds(&[5, 4]).await).await;
}

#[tokio::test]
async fn a_kind_that_may_not_be_read_takes_no_other_with_it() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.inject(Fault::status(403).at("/statefulsets"));
    double.inject(Fault::status(404).at("/keda.sh/"));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    eventually("a list without them", async || {
        listed(&lab.engine).await.is_ok_and(|all| all.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn watches_that_are_cut_or_too_old_lose_nothing() {
    let lab = Lab::new().await;
    let mut events = lab.engine.subscribe();
    for round in 0..5 {
        let name = format!("app-{round}");
        lab.double.cut_watches();
        lab.double.put(objects::deployment("project-a", &name, 1));
        if round % 2 == 1 {
            lab.double.compact();
        }
        event(
            &mut events,
            |event| matches!(event, nagi_ports::WorkloadEvent::Changed(w) if w.id == named(&name)),
        )
        .await;
    }
    lab.double.delete(PATH);
    lab.double.compact();
    event(
        &mut events,
        |event| matches!(event, nagi_ports::WorkloadEvent::Deleted(gone) if *gone == id()),
    )
    .await;
}

// Versions of before a backup was restored are not newer than those after it.
#[tokio::test]
async fn an_api_server_that_goes_back_to_a_backup_is_read_anew() {
    let lab = Lab::new().await;
    let backup = lab.double.back_up();
    let before = lab.get().await;
    let asleep = lab.engine.write(&before, sleep(&before)).await.unwrap();
    for number in 0..20 {
        let name = format!("later-{number}");
        lab.double.put(objects::deployment("project-a", &name, 1));
    }
    lab.sees("the sleep", |w| w.version == asleep.version).await;
    let away = lab.double.inject(Fault::always(Effect::Hang));
    lab.double.restore(&backup);
    eventually("the outage", async || {
        lab.engine.get(&id(), Read::Cached).await.is_err()
    })
    .await;
    lab.double.lift(away);
    let restored = lab
        .sees("the count of the backup", |w| w.desired.0 == 2)
        .await;
    assert!(restored.version.number < asleep.version.number);
    assert!(
        restored.version > asleep.version,
        "it is newer all the same"
    );
    assert_eq!(listed(&lab.engine).await.unwrap().len(), 1);
    // And what is written now is taken.
    let again = lab.engine.write(&restored, sleep(&restored)).await.unwrap();
    assert_eq!(again.desired.0, 0);
    // A number that somebody brings along is waited for as before.
    lab.double.watches_lag(PATIENCE);
    let other = lab
        .double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(5));
    let version = other["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse();
    let at_least = Read::AtLeast(Version::new(version.unwrap()));
    let read = lab.engine.get(&id(), at_least).await.unwrap();
    assert_eq!(read.desired.0, 5);
}

// `etcdutl snapshot restore --bump-revision --mark-compacted`: versions go on behind all that was told, and objects keep theirs.
#[tokio::test]
async fn a_backup_behind_a_version_that_was_raised_is_taken() {
    let lab = Lab::new().await;
    let pod = objects::ready(objects::pod("project-a", "sample-app-a", "x1"), "127.0.0.1");
    lab.double.put(objects::running(pod.clone(), "127.0.0.1"));
    let backup = lab.double.back_up();
    let before = lab.get().await;
    let asleep = lab.engine.write(&before, sleep(&before)).await.unwrap();
    lab.double.put(pod);
    lab.sees("the sleep, and its replica", |w| {
        w.version == asleep.version && w.replicas.iter().any(|replica| replica.ready)
    })
    .await;
    lab.double.restore_behind(&backup, 1_000_000);
    let restored = lab
        .sees("the facts of the backup", |w| {
            w.desired.0 == 2 && w.replicas.iter().all(|replica| !replica.ready)
        })
        .await;
    assert!(
        restored.version > asleep.version,
        "it is newer all the same"
    );
    let again = lab.engine.write(&restored, sleep(&restored)).await.unwrap();
    assert_eq!(again.desired.0, 0);
}

// It is seen also where only pods, or another kind, had come further than the backup.
#[tokio::test]
async fn a_backup_from_before_a_pod_is_seen() {
    let lab = Lab::new().await;
    let backup = lab.double.back_up();
    for number in 0..5 {
        let pod = objects::pod("project-a", "sample-app-a", &format!("x{number}"));
        lab.double.put(objects::ready(pod, "127.0.0.1"));
    }
    lab.sees("its pods", |w| w.replicas.len() == 5).await;
    lab.double.restore(&backup);
    lab.sees("none of them", |w| w.replicas.is_empty()).await;
}

#[tokio::test]
async fn a_watch_that_begins_with_an_error_is_begun_again() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.inject(Fault::status(500).at("watch=true").times(6));
    double.inject(Fault::always(Effect::Cut).at("limit=").times(6));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    lab.sees("the workload", |w| w.desired.0 == 2).await;
}

// DESIGN §6: after the API server was away it is sent again within 1 s; here: 429 waits as asked, within the deadline
#[tokio::test]
async fn a_server_that_asks_to_wait_is_waited_for() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    let busy = Effect::Status {
        code: 429,
        retry_after: Some(1),
    };
    lab.double
        .inject(Fault::always(busy.clone()).on(http::Method::PATCH).times(1));
    let begun = Instant::now();
    let asleep = lab.engine.write(&before, sleep(&before)).await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
    // One that asks for longer than anybody waits is told to the caller instead.
    let long = Effect::Status {
        code: 429,
        retry_after: Some(60),
    };
    lab.double
        .inject(Fault::always(long).on(http::Method::PATCH).times(1));
    let error = lab
        .engine
        .write(&asleep, wake(&asleep, 2))
        .await
        .unwrap_err();
    let after = Some(Duration::from_mins(1));
    assert_eq!(error, PortError::Busy { retry_after: after });
    lab.engine.write(&asleep, wake(&asleep, 2)).await.unwrap();
}

/// A kubeconfig in this directory, for one cluster and this user of it.
fn source_of(directory: &std::path::Path, url: &str, user: &Value) -> Source {
    let file = directory.join("config");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "k", "cluster": { "server": url } }],
        "users": [{ "name": "u", "user": user }],
        "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
    });
    std::fs::write(&file, config.to_string()).unwrap();
    Source::Rules {
        kubeconfig: Some(file.into_os_string()),
        home: None,
        context: None,
    }
}

/// Another token lies in the file, and only that one is taken.
async fn works_with_a_second_token(lab: &Lab, token: &std::path::Path) {
    std::fs::write(token, "second").unwrap();
    lab.double.require_token("second");
    lab.double.cut_watches();
    let before = lab
        .sees("the workload under the new token", |w| w.desired.0 == 2)
        .await;
    eventually("a write under the new token", async || {
        lab.engine.write(&before, sleep(&before)).await.is_ok()
    })
    .await;
}

// A-019, A-164, F12
#[tokio::test]
async fn a_token_that_was_rotated_is_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.require_token("first");
    let user = json!({ "tokenFile": "token" });
    let source = source_of(directory.path(), &double.url(), &user);
    let lab = Lab::from_source(double, source, Rights::Full);
    lab.synced().await;
    works_with_a_second_token(&lab, &token).await;
}

/// A configuration whose user is what a program says, as the clouds' kubeconfigs have it.
fn source_with_plugin(directory: &std::path::Path, url: &str, script: &str) -> Source {
    let user = json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
        "env": [{ "name": "TOKENS", "value": directory }], "interactiveMode": "Never",
    } });
    source_of(directory, url, &user)
}

// Issue 4 item 2: exec plugins
#[tokio::test]
async fn a_plugin_is_asked_for_a_token_and_asked_again_when_that_runs_out() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "first").unwrap();
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.require_token("first");
    // It runs out at once, so that each call asks anew, also while the token is good.
    let script = r#"echo asked >> "$TOKENS/asked"; printf '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"%s","expirationTimestamp":"2020-01-01T00:00:00Z"}}' "$(cat "$TOKENS/token")""#;
    let source = source_with_plugin(directory.path(), &double.url(), script);
    let lab = Lab::from_source(double, source, Rights::Full);
    lab.synced().await;
    let asked = || {
        let text = std::fs::read_to_string(directory.path().join("asked")).unwrap();
        text.lines().count()
    };
    let before = asked();
    eventually("the plugin to be asked again", async || {
        // It may take longer than a look does, on a machine that others use.
        lab.engine.reachable().await.ok();
        asked() > before
    })
    .await;
    works_with_a_second_token(&lab, &token).await;
}

#[tokio::test]
async fn a_plugin_that_fails_is_named_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    double.require_token("first");
    let script = r#"test -e "$TOKENS/login" || { echo 'please log in' >&2; exit 7; }
        echo '{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"first"}}'"#;
    let source = source_with_plugin(directory.path(), &double.url(), script);
    let lab = Lab::from_source(double, source, Rights::Full);
    eventually("its own words", async || {
        let error = lab.engine.reachable().await.unwrap_err();
        matches!(&error, PortError::Unreachable(words) if words.contains("please log in"))
    })
    .await;
    std::fs::write(directory.path().join("login"), "").unwrap();
    lab.synced().await;
    assert_eq!(lab.get().await.desired.0, 2);
}

// A-163
#[tokio::test]
async fn a_configuration_that_comes_later_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    let source = Source::Rules {
        kubeconfig: None,
        home: Some(directory.path().to_owned()),
        context: None,
    };
    let lab = Lab::from_source(double, source, Rights::Full);
    let error = lab.engine.reachable().await.unwrap_err();
    assert!(
        matches!(&error, PortError::Unreachable(words) if words.contains(".kube/config")),
        "{error}"
    );
    let config = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{{name: k, cluster: {{server: \"{}\"}}}}]\n\
         contexts: [{{name: c, context: {{cluster: k, user: u}}}}]\n",
        lab.double.url()
    );
    std::fs::create_dir(directory.path().join(".kube")).unwrap();
    std::fs::write(directory.path().join(".kube/config"), config).unwrap();
    lab.synced().await;
    assert_eq!(lab.get().await.desired.0, 2);
}

#[tokio::test]
async fn a_lost_answer_is_a_timeout_and_the_next_read_tells_what_happened() {
    let lab = Lab::new().await;
    let before = lab.get().await;
    lab.double.inject(
        Fault::always(Effect::LoseAnswer)
            .on(http::Method::PATCH)
            .times(1),
    );
    let error = lab.engine.write(&before, sleep(&before)).await.unwrap_err();
    assert!(matches!(error, PortError::Timeout(_)), "{error}");
    let now = lab.get().await;
    assert_eq!(now.desired.0, 0);
    assert_eq!(
        now.intent.remembered.map(|count| count.replicas().0),
        Some(2)
    );
}

#[tokio::test]
async fn a_storm_of_refusals_for_load_is_sat_out() {
    let double = Double::start().await;
    double.put(objects::deployment("project-a", "sample-app-a", 2));
    let busy = Effect::Status {
        code: 429,
        retry_after: Some(1),
    };
    double.inject(Fault::always(busy).times(40));
    let lab = Lab::on(double, Rights::Full);
    lab.synced().await;
    let before = lab.sees("the workload", |w| w.desired.0 == 2).await;
    let conflicts = lab
        .double
        .inject(Fault::status(409).on(http::Method::PATCH));
    for _ in 0..20 {
        let stormed = lab.engine.write(&before, sleep(&before)).await;
        assert_eq!(stormed.unwrap_err(), PortError::Conflict);
    }
    lab.double.lift(conflicts);
    lab.engine.write(&before, sleep(&before)).await.unwrap();
}

// DESIGN §5: a watch that is too old means a live read until the list that follows is complete.
#[tokio::test]
async fn what_a_cache_held_before_its_watch_was_too_old_is_not_told() {
    let lab = Lab::new().await;
    // The change lies behind what the watch brings, and then its version is gone.
    lab.double.watches_lag(Duration::from_hours(1));
    lab.double
        .edit(PATH, |object| object["spec"]["replicas"] = json!(7));
    assert_eq!(lab.get().await.desired.0, 2, "nobody has heard of it");
    lab.double.compact();
    let slow = Effect::Latency(Duration::from_secs(2));
    lab.double.inject(Fault::always(slow).at("limit=500"));
    let lists = || {
        let requests = lab.double.requests().into_iter();
        let asked = requests.filter(|request| request.path.contains("/deployments?limit=500"));
        asked.count()
    };
    let before = lists();
    lab.double.cut_watches();
    eventually("another list", async || lists() > before).await;
    // While the list is under way, which takes two seconds.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(1) {
        assert_eq!(lab.get().await.desired.0, 7);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
