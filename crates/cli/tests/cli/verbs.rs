//! The commands against a real server.

use std::time::Duration;

use crate::server::Server;

/// What a workload does takes as long as its processes need.
const SETTLED_MAX: Duration = Duration::from_secs(20);

#[test]
fn names_that_do_not_exist_are_answered_with_near_ones() {
    let server = Server::of_two_projects();
    for (arguments, hint) in [
        (
            "status sampel-app-a",
            "did you mean project-a/sample-app-a?",
        ),
        (
            "status sample-app-a -n projct-a",
            "did you mean project-a/sample-app-a?",
        ),
        (
            "wake project-a/sample-app-b",
            "did you mean project-b/sample-app-b?",
        ),
        ("sleep nothing-like-it", "'nagi list' shows what there is"),
        (
            "scale project-a/sample-ap-a 2",
            "did you mean project-a/sample-app-a?",
        ),
        (
            "cancel sample-app-x",
            "did you mean project-a/sample-app-a?",
        ),
        (
            "logs sampel-app-a -n project-a",
            "did you mean project-a/sample-app-a?",
        ),
    ] {
        server
            .nagi(arguments)
            .run()
            .exits(3)
            .prints_nothing()
            .says(hint);
    }
    server
        .nagi("status twin")
        .run()
        .exits(2)
        .says("2 workloads are called twin")
        .says("hint: project-a/twin")
        .says("hint: project-b/twin");
    server
        .ok("list -n projct-a")
        .prints_nothing()
        .says("did you mean -n project-a?");
    server
        .nagi("cancel sample-app-a")
        .run()
        .exits(3)
        .says("nothing is scheduled");
}

#[test]
fn what_the_server_refuses_is_refused_with_field_and_limit() {
    let server = Server::of_two_projects();
    let long = "x".repeat(501);
    for (arguments, code, rule) in [
        (
            vec!["sleep", "sample-app-a", "--reason", long.as_str()],
            5,
            "expected 1 to 500 characters",
        ),
        (vec!["sleep", "sample-app-a", "--reason", "  "], 5, "reason"),
        (
            vec!["scale", "sample-app-a", "101"],
            5,
            "expected an integer from 1 to 100",
        ),
        (
            vec!["wake", "sample-app-b", "--replicas", "0"],
            5,
            "replicas",
        ),
        (
            vec!["sleep", "sample-app-a", "--wake-at", "2020-01-31T07:00:00Z"],
            5,
            "future",
        ),
        (
            vec!["sleep", "sample-app-a", "--wake-at", "+9000d"],
            5,
            "one year",
        ),
        (
            vec!["sleep", "sample-app-a", "-n", "kube-system"],
            4,
            "kube-system",
        ),
        (vec!["list", "--label", "=broken="], 5, "label"),
        (vec!["history", "--continue", "nonsense"], 5, "continue"),
    ] {
        server
            .call(&arguments)
            .run()
            .exits(code)
            .says(rule)
            .prints_nothing();
    }
    let status = server.ok("status sample-app-a --output json").json();
    assert_eq!(
        status["deployment"]["desired_replicas"], 1,
        "nothing changed"
    );
}

#[test]
fn a_list_is_a_table_for_people_and_the_body_of_the_api_for_programs() {
    let server = Server::of_two_projects();
    server.until(SETTLED_MAX, "list -n project-a --status active", |ran| {
        ran.stdout.contains("sample-app-a")
    });
    let table = server.ok("list").stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5, "{table}");
    assert!(lines[0].starts_with("NAMESPACE   NAME "), "{table}");
    assert!(
        lines[1].starts_with("project-a   sample-app-a   active     1/1"),
        "{table}"
    );
    assert!(
        lines[3].starts_with("project-b   sample-app-b   inactive   0/0"),
        "{table}"
    );
    server
        .ok("list --output wide")
        .prints("HOSTS")
        .prints("sample-app-a.project-a.localhost");

    let json = server.ok("list --output json").json();
    assert_eq!(json["status"], "success");
    assert_eq!(json["items"].as_array().unwrap().len(), 4);
    let yaml = server.ok("list -n project-b -o yaml").stdout;
    assert!(
        yaml.contains("status: success") && yaml.contains("name: sample-app-b"),
        "{yaml}"
    );

    let one = server.ok("list --limit 1 --output json").json();
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    assert!(one["continue"].is_string(), "more follow: {one}");
    server
        .ok("list --label app=sample-app-a")
        .prints("sample-app-a");
    server
        .ok("list --label app=other")
        .prints_nothing()
        .says("nothing to show");
    let quiet = server.ok("list --label app=other --quiet");
    assert_eq!(quiet.stderr, "");
}

#[test]
fn a_dry_run_changes_nothing() {
    let server = Server::of_two_projects();
    let version = || {
        server.ok("status sample-app-a -o json").json()["deployment"]["resource_version"].clone()
    };
    server.until(SETTLED_MAX, "status sample-app-a", |ran| {
        ran.stdout.contains("   active")
    });
    let before = version();
    server.ok("sleep sample-app-a --dry-run").prints(
        "project-a/sample-app-a: goes to sleep, had 1 replica (dry run: nothing was changed)",
    );
    server
        .ok("scale sample-app-a 2 --dry-run")
        .prints("scales from 1 to 2 replicas (dry run");
    // As people know it from kubectl.
    server
        .ok("scale sample-app-a --replicas=2 --dry-run")
        .prints("scales from 1 to 2 replicas (dry run");
    server
        .ok("wake sample-app-b --dry-run --wait")
        .prints("wakes to 1 replica (dry run");
    let json = server
        .ok("sleep sample-app-a --dry-run --output json")
        .json();
    assert_eq!(json["dry_run"], true);
    assert_eq!(version(), before);
    server.ok("history").prints_nothing().says("no changes");
}

#[test]
fn a_change_is_in_the_history_with_who_and_why() {
    let server = Server::of_two_projects();
    server
        .call(&["sleep", "sample-app-a", "--reason", "コスト最適化のため"])
        .run()
        .exits(0);
    server.ok("wake sample-app-a --wait");
    let table = server.ok("history --limit 5").stdout;
    assert!(
        table.contains("コスト最適化のため") && table.contains("by nagi wake"),
        "{table}"
    );
    let items = server
        .ok("history sample-app-a -n project-a --output json")
        .json()["items"]
        .clone();
    assert_eq!(items[0]["action"], "wake");
    assert_eq!(items[1]["action"], "scale-to-zero");
    assert_eq!((&items[1]["from"], &items[1]["to"]), (&1.into(), &0.into()));
    assert!(items[1]["request_id"].is_string());
    server.ok("history --limit 1").says("older ones follow");
    server.ok("history project-b/sample-app-b").prints_nothing();
    server
        .ok("history --since 1h --output wide")
        .prints("REQUEST");
    server
        .ok("history --since 2020-01-01T00:00:00+09:00")
        .prints("wake");
}

// F06
#[test]
fn a_scheduled_wake_is_set_listed_and_cancelled() {
    let server = Server::of_two_projects();
    server.ok("list --scheduled").prints_nothing();
    server
        .ok("sleep sample-app-a --wake-at +10m")
        .prints(", wakes in ");
    let listed = server.ok("list --scheduled").stdout;
    assert!(
        listed.contains("sample-app-a") && listed.contains("anonymous"),
        "{listed}"
    );
    server.ok("status sample-app-a").prints("wakes at");
    server.ok("cancel sample-app-a --dry-run").prints("dry run");
    server.ok("list --scheduled").prints("sample-app-a");
    server
        .ok("cancel sample-app-a")
        .prints("no longer wakes at");
    server.ok("list --scheduled").prints_nothing();
    // It sleeps already: only the wake is set, and it comes.
    server
        .ok("sleep sample-app-a --until +2s")
        .prints("asleep already, wakes");
    server.until(SETTLED_MAX, "status sample-app-a", |ran| {
        ran.stdout.contains("   active")
    });
    server
        .ok("history sample-app-a --limit 1")
        .prints("scheduled-wake");
}

#[test]
fn logs_and_pools_show_what_ran_and_what_it_cost() {
    let server = Server::of_two_projects();
    server.until(SETTLED_MAX, "status sample-app-a", |ran| {
        ran.stdout.contains("   active")
    });
    server.until(SETTLED_MAX, "logs sample-app-a --tail 1", |ran| {
        ran.stdout.starts_with("GET /health 200")
    });
    let json = server.ok("logs sample-app-a --tail 1 --output json").json();
    assert_eq!(json["items"].as_array().unwrap().len(), 1);
    server
        .ok("logs sample-app-b")
        .prints_nothing()
        .says("nothing was printed");
    let pools = server.ok("pools").stdout;
    assert!(pools.starts_with("POOL "), "{pools}");
    assert!(pools.contains("standard   1 of 2"), "{pools}");
    server
        .ok("pools --output wide")
        .prints("NODE")
        .prints("standard-0");
    let json = server.ok("pools --output json").json();
    assert_eq!(json["items"][0]["nodes_max"], 2);
}
