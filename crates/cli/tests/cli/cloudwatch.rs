//! What `deploy/cloudwatch` tells AWS: the metrics that its agent makes are those of the alarms, at the levels of the guard.

use std::fs;
use std::path::Path;

use nagi_guard::{Fill, Level, judge};
use serde_json::Value;

fn read(name: &str) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/cloudwatch");
    serde_json::from_slice(&fs::read(root.join(name)).unwrap()).unwrap()
}

fn words(value: &Value) -> Vec<&str> {
    let all = value.as_array().unwrap().iter();
    all.map(|one| one.as_str().unwrap()).collect()
}

/// Alarms of a resource, each with its name and what it says.
fn alarms<'a>(template: &'a Value, of: &str) -> Vec<(&'a str, &'a Value)> {
    let resources = template["Resources"].as_object().unwrap().iter();
    let alarms = resources.filter_map(|(name, one)| {
        assert_eq!(one["Type"], "AWS::CloudWatch::Alarm");
        Some((name.strip_prefix(of)?, &one["Properties"]))
    });
    alarms.collect()
}

/// Where it counts: below which share of ten thousand it rests.
fn is_on(alarm: &Value, share: u64) -> bool {
    let threshold = alarm["Threshold"].as_u64().unwrap() * 100;
    match alarm["ComparisonOperator"].as_str().unwrap() {
        "GreaterThanOrEqualToThreshold" => share >= threshold,
        "GreaterThanThreshold" => share > threshold,
        other => unreachable!("no such comparison: {other}"),
    }
}

// B-033, K-37: at each share of a disk those alarms are on that are at its level or below, for bytes and for inodes.
#[test]
fn alarms_are_on_at_the_levels_of_the_guard() {
    let template = read("disk-alarms.json");
    for of in ["Bytes", "Inodes"] {
        let alarms = alarms(&template, of);
        assert_eq!(alarms.len(), 4, "{of}");
        for share in [0, 7999, 8000, 8500, 8501, 8999, 9000, 9499, 9500, 10_000] {
            let fill = Fill {
                used: share,
                whole: 10_000,
            };
            let level = judge(fill, Level::Calm);
            for (name, alarm) in &alarms {
                let own = Level::named(&name.to_lowercase()).unwrap();
                let is_on = is_on(alarm, share);
                assert_eq!(is_on, level >= own, "{of}{name} at {share}");
            }
        }
    }
}

// B-033: an alarm for a metric that nobody makes never tells anything.
#[test]
fn the_agent_makes_the_metrics_of_the_alarms() {
    let agent = read("amazon-cloudwatch-agent.json");
    let template = read("disk-alarms.json");
    let metrics = &agent["metrics"];
    let disk = &metrics["metrics_collected"]["disk"];
    let made: Vec<String> = words(&disk["measurement"])
        .iter()
        .map(|one| format!("disk_{one}"))
        .collect();
    let dimensions = words(&metrics["aggregation_dimensions"][0]);
    let check = |metric: &Value| {
        assert_eq!(metric["Namespace"], metrics["namespace"]);
        let name = metric["MetricName"].as_str().unwrap();
        assert!(made.iter().any(|one| one == name), "{name}: {made:?}");
        let all = metric["Dimensions"].as_array().unwrap().iter();
        let named: Vec<&str> = all.map(|one| one["Name"].as_str().unwrap()).collect();
        assert_eq!(named, dimensions);
    };
    for (_, alarm) in alarms(&template, "Bytes") {
        check(alarm);
    }
    for (_, alarm) in alarms(&template, "Inodes") {
        for one in &alarm["Metrics"].as_array().unwrap()[1..] {
            check(&one["MetricStat"]["Metric"]);
        }
    }
    // What is watched unless somebody says otherwise.
    let path = template["Parameters"]["Path"]["Default"].as_str().unwrap();
    assert!(words(&disk["resources"]).contains(&path));
}
