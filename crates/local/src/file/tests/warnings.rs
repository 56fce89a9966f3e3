//! What is read, and hardly meant.

use super::*;

// DESIGN §5, "wake to how many": warned where nobody knows, and nowhere else.
#[test]
fn a_workload_that_nobody_knows_how_to_wake_is_read_with_a_warning() {
    let (none, all) = ("before a scale-up", "neither a request");
    let rows = [
        ("replicas: 0", Some(all)),
        (
            "replicas: 0, idle_after: 5m",
            Some("a request wakes it to 1"),
        ),
        ("replicas: 0, awake_replicas: 2", None),
        ("replicas: 1", None),
        ("idle_after: 5m", None),
    ];
    for (given, part) in rows {
        let text =
            format!("workloads:\n- {{namespace: a, name: b, command: [x], port: 1, {given}}}\n");
        let file = parse(&text).unwrap();
        let Some(part) = part else {
            assert_eq!(file.warnings, [], "{given}");
            continue;
        };
        let [warning] = file.warnings.as_slice() else {
            panic!("{given}: {:?}", file.warnings)
        };
        assert_eq!((warning.line, warning.column), (2, 60), "{warning}");
        assert_eq!(warning.field, "workloads[0].replicas");
        for part in [part, none, "awake_replicas: 1"] {
            assert!(warning.message.contains(part), "{warning}");
        }
    }
}

// A-159, W-A09
#[test]
fn a_workload_in_a_namespace_that_nobody_may_change_is_read_with_a_warning() {
    let text = "workloads:\n- {namespace: kube-system, name: b, command: [x]}\n";
    let file = parse(text).unwrap();
    let [warning] = file.warnings.as_slice() else {
        panic!("{:?}", file.warnings)
    };
    assert_eq!((warning.line, warning.column), (2, 15), "{warning}");
    assert_eq!(warning.field, "workloads[0].namespace");
    assert!(
        warning.message.contains("kube-system is protected"),
        "{warning}"
    );
}
