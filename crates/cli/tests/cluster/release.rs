//! `nagi release` on a cluster: what Nagi put to sleep wakes, serves and is let go; nothing is lost whenever it is killed
//! (issue 4, item 4; invariant 7).

use std::time::Duration;

use nagi_kube_double::{Double, Effect, Fault, objects};
use serde_json::{Value, json};

use crate::command::{run, start};
use crate::process::{PATIENCE, Process};

const PATH: &str = "/apis/apps/v1/namespaces/project-a/deployments/sample-app-a";
const OTHER: &str = "/apis/apps/v1/namespaces/project-b/deployments/sample-app-b";
const BASE: &str = "/api/v1/deployments/project-a/sample-app-a";

/// A cluster with one Deployment of two replicas that Nagi put to sleep, one that it has woken, and one that it never saw.
async fn cluster() -> Double {
    let double = Double::start().await;
    let mut app = objects::deployment("project-a", "sample-app-a", 2);
    app["metadata"]["annotations"] = json!({ "nagi.dev/hosts": "a.example.com", "other/x": "y" });
    double.put(app);
    double.put(objects::deployment("project-b", "sample-app-b", 1));
    double.put(objects::deployment("project-b", "stranger", 1));
    let server = Process::server(&double);
    server.ready().await;
    let post = async |path: String, body: &str| {
        let answer = server.post(&path, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    let tomorrow = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24);
    let body = json!({ "reason": "night", "scheduled_scale_up": tomorrow.to_string() });
    post(format!("{BASE}/scale-to-zero"), &body.to_string()).await;
    post(
        "/api/v1/deployments/project-b/sample-app-b/scale-up".to_owned(),
        r#"{"replicas": 3, "reason": "day"}"#,
    )
    .await;
    drop(server);
    settle(&double, PATH);
    settle(&double, OTHER);
    double
}

/// Plays the controllers and kubelets for one workload.
fn settle(double: &Double, path: &str) {
    double.edit(path, |object| {
        let count = object["spec"]["replicas"].clone();
        object["status"] =
            json!({ "replicas": count, "readyReplicas": count, "availableReplicas": count });
    });
}

/// The same again and again.
async fn controllers(double: Double) {
    loop {
        for path in [PATH, OTHER] {
            let object = double.get(path).unwrap();
            if object["spec"]["replicas"] != object["status"]["availableReplicas"] {
                settle(&double, path);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn annotations(double: &Double, path: &str) -> Vec<String> {
    let object = double.get(path).unwrap();
    let names = object["metadata"]["annotations"].as_object();
    let names = names.map(|names| names.keys().cloned().collect::<Vec<_>>());
    names.unwrap_or_default()
}

fn replicas(double: &Double, path: &str) -> Value {
    double.get(path).unwrap()["spec"]["replicas"].clone()
}

fn writes(double: &Double) -> usize {
    let requests = double.requests();
    requests
        .iter()
        .filter(|asked| asked.method == "PATCH" && asked.path.contains("/apps/"))
        .count()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "{what}");
}

#[tokio::test]
async fn wrong_command_lines_change_nothing() {
    let double = cluster().await;
    let before = double.get(PATH);
    double.forget_requests();
    for words in [
        "release",
        "release --all sample-app-a",
        "release --all --namespace project-a",
        "release UPPER",
        "release project-a/sample-app-a --namespace project-b",
        "release --all --timeout never",
        "release --all --namespaces No_Namespace",
    ] {
        let ended = run(&double, words).await;
        assert_eq!(ended.code, Some(2), "{words}: {ended:?}");
        assert!(ended.output.is_empty(), "{words}: {ended:?}");
    }
    let missing = run(&double, "release sample-app-x -n project-a").await;
    assert_eq!(missing.code, Some(3), "{missing:?}");
    assert!(
        missing
            .errors
            .contains("did you mean project-a/sample-app-a?"),
        "{missing:?}"
    );
    let typo = run(&double, "release --all --namespaces project-x").await;
    assert_eq!(typo.code, Some(3), "{typo:?}");
    assert!(
        typo.errors.contains("there is no namespace project-x"),
        "{typo:?}"
    );
    assert_eq!((writes(&double), double.get(PATH)), (0, before));
    double.stop().await;
    let away = run(&double, "release --all --timeout 1s").await;
    assert_eq!(away.code, Some(6), "{away:?}");
}

#[tokio::test]
async fn everything_is_woken_and_let_go_and_another_run_finds_nothing() {
    let double = cluster().await;
    let rehearsed = run(&double, "release --all --dry-run --output json").await;
    assert_eq!(rehearsed.code, Some(0), "{rehearsed:?}");
    let plan = rehearsed.json();
    assert_eq!(plan["items"].as_array().unwrap().len(), 2, "{plan}");
    assert_eq!(
        (&plan["items"][0]["name"], &plan["items"][0]["woken_to"]),
        (&json!("sample-app-a"), &json!(2))
    );
    assert_eq!(replicas(&double, PATH), 0, "a rehearsal changes nothing");
    double.forget_requests();
    let playing = tokio::spawn(controllers(double.clone()));
    let done = run(&double, "release --all --output json").await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let answer = done.json();
    assert_eq!(answer["status"], "success");
    assert_eq!(answer["items"][0]["result"], "released", "{answer}");
    assert_eq!(answer["items"][1]["woken_to"], json!(null), "{answer}");
    assert_eq!(
        (replicas(&double, PATH), replicas(&double, OTHER)),
        (json!(2), json!(3))
    );
    // What people wrote is theirs.
    assert_eq!(annotations(&double, PATH), ["nagi.dev/hosts", "other/x"]);
    assert!(annotations(&double, OTHER).is_empty());
    assert_eq!(writes(&double), 3, "one wake, and one letting go of each");
    let events = double.requests().into_iter();
    let told = events.filter(|asked| asked.method == "POST" && asked.path.contains("/events"));
    assert_eq!(told.count(), 1, "the wake is told on the workload");
    double.forget_requests();
    let again = run(&double, "release --all").await;
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.errors.contains("nothing to release"), "{again:?}");
    assert_eq!(writes(&double), 0);
    playing.abort();
}

#[tokio::test]
async fn one_workload_is_let_go_and_the_others_stay() {
    let double = cluster().await;
    let playing = tokio::spawn(controllers(double.clone()));
    let done = run(&double, "release sample-app-b").await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(annotations(&double, OTHER).is_empty());
    assert_eq!(replicas(&double, PATH), 0);
    assert!(annotations(&double, PATH).contains(&"nagi.dev/replicas".to_owned()));
    playing.abort();
}

// Invariant 7: before and after each write, and the write whose answer is lost.
#[tokio::test]
async fn whoever_kills_it_loses_nothing_and_another_run_goes_on() {
    for (nth, effect) in [
        (0, Effect::Hang),
        (0, Effect::LoseAnswer),
        (1, Effect::Hang),
        (1, Effect::LoseAnswer),
    ] {
        let double = cluster().await;
        let playing = tokio::spawn(controllers(double.clone()));
        double.forget_requests();
        let fault = Fault::always(effect.clone())
            .at("sample-app-a")
            .on(http::Method::PATCH);
        if nth == 0 {
            double.inject(fault.clone());
        }
        let mut running = start(&double, "release sample-app-a");
        if nth == 1 {
            // The first write passes, the next does not.
            eventually("the wake", || replicas(&double, PATH) == 2).await;
            double.inject(fault);
        }
        eventually("the write", || writes(&double) > nth).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        running.child.start_kill().unwrap();
        running.child.wait().await.unwrap();
        double.lift_all();
        // Either it still sleeps with its count on it, or it is awake with that count.
        let object = double.get(PATH).unwrap();
        let count = &object["spec"]["replicas"];
        let remembered = &object["metadata"]["annotations"]["nagi.dev/replicas"];
        assert!(
            *count == 2 || (*count == 0 && *remembered == "2"),
            "{nth} {effect:?}: {object}"
        );
        let done = run(&double, "release --all").await;
        assert_eq!(done.code, Some(0), "{nth} {effect:?}: {done:?}");
        assert_eq!(replicas(&double, PATH), 2, "{nth} {effect:?}");
        assert_eq!(annotations(&double, PATH), ["nagi.dev/hosts", "other/x"]);
        playing.abort();
    }
}

#[tokio::test]
async fn what_does_not_serve_in_time_keeps_its_marks_and_says_so() {
    let double = cluster().await;
    let late = run(&double, "release sample-app-a --timeout 2s --output json").await;
    assert_eq!(late.code, Some(7), "{late:?}");
    let answer = late.json();
    assert_eq!(
        (&answer["status"], &answer["items"][0]["result"]),
        (&json!("error"), &json!("waiting"))
    );
    assert!(late.errors.contains("--no-wait"), "{late:?}");
    assert_eq!(replicas(&double, PATH), 2);
    assert!(annotations(&double, PATH).contains(&"nagi.dev/replicas".to_owned()));
    let done = run(&double, "release sample-app-a --no-wait").await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(annotations(&double, PATH), ["nagi.dev/hosts", "other/x"]);
}

#[tokio::test]
async fn what_only_a_person_can_decide_is_left_and_the_rest_goes_on() {
    let double = cluster().await;
    double.edit(PATH, |object| {
        object["metadata"]["annotations"]
            .as_object_mut()
            .unwrap()
            .remove("nagi.dev/replicas");
    });
    let playing = tokio::spawn(controllers(double.clone()));
    let ended = run(&double, "release --all").await;
    assert_eq!(ended.code, Some(5), "{ended:?}");
    assert!(
        ended
            .errors
            .contains("kubectl scale deployments/sample-app-a -n project-a --replicas=N"),
        "{ended:?}"
    );
    assert_eq!(replicas(&double, PATH), 0);
    assert!(
        annotations(&double, OTHER).is_empty(),
        "the other is released"
    );
    // The same where the cluster refuses the write.
    double.edit(PATH, |object| {
        object["metadata"]["annotations"]["nagi.dev/replicas"] = json!("2");
    });
    let fault = Fault::status(403).on(http::Method::PATCH);
    double.inject(fault);
    let refused = run(&double, "release --all --output json").await;
    assert_eq!(refused.code, Some(5), "{refused:?}");
    assert_eq!(refused.json()["items"][0]["result"], "refused");
    playing.abort();
}

// The API server comes and goes: it is waited for.
#[tokio::test]
async fn an_api_server_that_fails_for_a_while_is_asked_again() {
    let double = cluster().await;
    let playing = tokio::spawn(controllers(double.clone()));
    double.inject(Fault::status(503).on(http::Method::PATCH).times(2));
    double.inject(Fault::status(409).on(http::Method::PATCH).times(2));
    let done = run(&double, "release --all").await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(replicas(&double, PATH), 2);
    assert!(annotations(&double, OTHER).is_empty());
    playing.abort();
}

// Issue 4 item 4: Kubernetes begins the next try 10 s after the last one ended, then 20, 40, … (docs: Job, "Pod backoff failure
// policy"). An API server that is away for a minute, and a pod that takes half of one to start, must not use them up.
#[test]
fn the_job_of_an_uninstallation_outlives_an_api_server_that_is_away_for_a_minute() {
    let job = include_str!("../../../../deploy/helm/nagi/templates/release.yaml");
    let mut lines = job.lines().map(str::trim);
    let limit = lines.find_map(|line| line.strip_prefix("backoffLimit: "));
    let limit: u32 = limit.unwrap().parse().unwrap();
    let seconds: u32 = (0..limit).map(|failed| 10 << failed).sum();
    assert!(seconds >= 90, "{limit} retries in {seconds} s");
    // What waiting does not mend is told while the person who uninstalls still looks.
    assert!(seconds <= 180, "{limit} retries in {seconds} s");
}

/// A kind that a cluster brought along, and how it answers.
fn runners(double: &Double) {
    double.put(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": { "name": "runners.example.com" },
        "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": "runners", "kind": "Runner" },
            "versions": [{ "name": "v1", "served": true, "subresources": { "scale": { "specReplicasPath": ".spec.workers", "statusReplicasPath": ".status.workers" } } }] },
    }));
}

// What could not be looked at is not told as let go; the rest goes on.
#[tokio::test]
async fn kinds_that_cannot_be_read_are_named_and_the_others_are_let_go() {
    for (path, code, exit, words) in [
        ("/runners", 500, 1, "kubectl delete crd runners.example.com"),
        ("/statefulsets", 403, 1, "nagi preflight"),
        // Most likely it was never granted.
        ("/runners", 403, 0, "runners.example.com are not looked at"),
    ] {
        let double = cluster().await;
        runners(&double);
        double.inject(Fault::status(code).at(path));
        let playing = tokio::spawn(controllers(double.clone()));
        let done = run(&double, "release --all --timeout 5s").await;
        assert_eq!(done.code, Some(exit), "{path} {code}: {done:?}");
        assert!(done.errors.contains(words), "{path} {code}: {done:?}");
        assert_eq!(replicas(&double, PATH), 2, "the others are let go");
        assert!(annotations(&double, OTHER).is_empty());
        playing.abort();
    }
}
