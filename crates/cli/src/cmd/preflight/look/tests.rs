//! Findings of what an API server says of itself and of its nodes.

use super::super::Finding;
use super::*;

fn version(major: u32, minor: u32) -> ServerVersion {
    ServerVersion {
        number: (major, minor),
        name: format!("v{major}.{minor}.0"),
    }
}

#[test]
fn a_version_is_judged_at_both_edges() {
    for (minor, result) in [
        (29, Finding::Missing),
        (30, Finding::Ok),
        (36, Finding::Ok),
        (37, Finding::Note),
    ] {
        assert_eq!(of_version(&version(1, minor)).result, result, "1.{minor}");
    }
    assert_eq!(of_version(&version(2, 0)).result, Finding::Note);
}

#[test]
fn missing_rights_are_named_and_those_that_one_can_do_without_are_told_apart() {
    let all = Account::ScaleApi.needs(None).unwrap();
    let of = |missing: &[&Needed]| of_rights(Account::ScaleApi, None, all.len(), missing);
    let none = of(&[]);
    assert_eq!((none.len(), none[0].result), (1, Finding::Ok));
    let nodes: Vec<&Needed> = all
        .iter()
        .filter(|one| one.right.resource == "nodes")
        .collect();
    let lacking = of(&nodes);
    assert_eq!(
        (lacking[0].result, lacking[1].result),
        (Finding::Ok, Finding::Note)
    );
    assert!(lacking[1].detail.contains("pools"), "{lacking:?}");
    let every: Vec<&Needed> = all.iter().collect();
    let nothing = of(&every);
    assert_eq!(nothing[0].result, Finding::Missing);
    assert!(
        nothing[0]
            .detail
            .starts_with("scale-api-sa may not get deployments.apps, "),
        "{nothing:?}"
    );
    assert!(nothing[0].detail.contains(" more"), "{nothing:?}");
    assert_eq!(
        nothing[0].fix.as_deref(),
        Some("kubectl apply -f src/api/manifests/rbac.yaml")
    );
}

#[test]
fn what_may_not_be_looked_at_is_neither_there_nor_missing() {
    for check in [
        of_deployment(Account::ScaleApi, &Seen::Hidden, None),
        of_policy(&POLICIES[0], None, None),
        of_lease(&Seen::Hidden, Timestamp::UNIX_EPOCH),
        of_nodes(None, Nagi::Runs),
    ] {
        assert_eq!(check.result, Finding::Note, "{check:?}");
    }
    assert_eq!(unasked(Account::ScaleApi).result, Finding::Unknown);
}

// Issue 4 item 4: the command that mends it is that of the installation that is asked about.
#[test]
fn with_rights_in_some_namespaces_the_overlay_is_what_installs() {
    let only = [Namespace::new("project-a").unwrap()];
    let fix = |account, namespaces| of_deployment(account, &Seen::Absent, namespaces).fix;
    let said = |directory: &str| Some(format!("kubectl apply -k {directory}"));
    assert_eq!(fix(Account::ScaleApi, None), said("src/api"));
    assert_eq!(fix(Account::WakeGateway, None), said("manifests/gateway"));
    assert_eq!(
        fix(Account::ScaleApi, Some(&only)),
        said("deploy/namespaced")
    );
    assert_eq!(fix(Account::WakeGateway, Some(&only)), None);
}

#[test]
fn a_leader_that_does_not_renew_is_told() {
    let renewed: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let held = || Held {
        holder: Some("scale-api-1".to_owned()),
        renewed: Some(renewed),
    };
    let after = |seconds: i64| renewed + jiff::SignedDuration::from_secs(seconds);
    assert_eq!(
        of_lease(&Seen::There(held()), after(15)).result,
        Finding::Ok
    );
    let late = of_lease(&Seen::There(held()), after(16));
    assert_eq!(late.result, Finding::Note);
    assert!(late.detail.contains("16 s"), "{late:?}");
    // A clock that is behind makes nobody late.
    assert_eq!(
        of_lease(&Seen::There(held()), after(-60)).result,
        Finding::Ok
    );
    let free = Held {
        holder: None,
        renewed: None,
    };
    assert_eq!(of_lease(&Seen::There(free), renewed).result, Finding::Note);
}

fn home(name: &str) -> Home {
    Home {
        name: name.to_owned(),
        terminating: false,
    }
}

fn going(name: &str) -> Home {
    Home {
        terminating: true,
        ..home(name)
    }
}

#[test]
fn a_namespace_that_is_not_there_or_goes_away_is_missing() {
    let result = |there: &[Home]| of_home(Some(there)).unwrap().result;
    assert_eq!(result(&[home("scale-system")]), Finding::Ok);
    assert_eq!(result(&[home("default")]), Finding::Missing);
    assert_eq!(result(&[going("scale-system")]), Finding::Missing);
    assert_eq!(of_home(None), None);
    let chosen = [Namespace::new("project-a").unwrap()];
    let check = of_namespaces(Some(&chosen), Some(&[home("x"), going("project-a")]));
    assert_eq!(check.result, Finding::Missing);
    assert!(
        check.detail.contains("project-a is being deleted"),
        "{check:?}"
    );
    // Whoever chose none is not concerned.
    assert_eq!(
        of_namespaces(None, Some(&[going("project-a")])).result,
        Finding::Ok
    );
}

#[test]
fn a_node_that_takes_no_pod_of_nagi_is_no_room_for_it() {
    let node = |name: &str, taint: Option<(&str, &str)>| Machine {
        name: name.to_owned(),
        taints: Vec::from_iter(taint.map(|(key, value)| Taint {
            key: key.to_owned(),
            value: value.to_owned(),
            effect: "NoSchedule".to_owned(),
        })),
    };
    let free = node("n1", None);
    let addons = node("n2", Some(("CriticalAddonsOnly", "true")));
    let gpu = node("n3", Some(("sku", "gpu")));
    let cordoned = node("n4", Some(("node.kubernetes.io/unschedulable", "")));
    let of = |nodes: &[Machine]| of_nodes(Some(nodes), Nagi::RunsNowhere);
    assert_eq!(of(&[]).result, Finding::Missing);
    assert_eq!(
        of(&[free.clone(), addons]).detail,
        "2 with agentpool=system, for Nagi itself"
    );
    let closed = of(std::slice::from_ref(&gpu));
    assert_eq!(closed.result, Finding::Missing);
    assert_eq!(
        closed.fix.unwrap(),
        "kubectl taint node n3 sku=gpu:NoSchedule-"
    );
    assert_eq!(of(&[cordoned]).fix.unwrap(), "kubectl uncordon n4");
    let mixed = of(&[free, gpu.clone()]);
    assert_eq!(mixed.result, Finding::Ok);
    assert!(
        mixed.detail.contains("n3 has sku=gpu:NoSchedule"),
        "{mixed:?}"
    );
    // Its tolerations can be chosen, and then a pod of it is there.
    assert_eq!(of_nodes(Some(&[gpu]), Nagi::Runs).result, Finding::Note);
}

// W-A09
#[test]
fn protected_namespaces_are_named_and_none_may_be_chosen() {
    let there = ["default", "kube-system", "project-a", "scale-system"].map(home);
    let check = of_namespaces(None, Some(&there));
    assert_eq!(
        check.detail,
        "protected, and never scaled: kube-system, scale-system"
    );
    let chosen = |name: &str| [Namespace::new(name).unwrap()];
    assert_eq!(
        of_namespaces(Some(&chosen("project-a")), Some(&there)).result,
        Finding::Ok
    );
    let absent = of_namespaces(Some(&chosen("project-x")), Some(&there));
    assert_eq!(
        absent.fix.as_deref(),
        Some("kubectl create namespace project-x")
    );
    let protected = of_namespaces(Some(&chosen("kube-system")), None);
    assert_eq!(protected.result, Finding::Missing);
}
