//! Tests of the workload file: what is read, and what is refused with which place and words.

mod warnings;

use std::path::Path;

use super::*;

const GOOD: &str = r#"
pools:
  - name: cpu
    max_nodes: 3
  - name: gpu
    boot: 5s
    release_after: 10s
    price_per_hour: 3.06
    max_nodes: 2
    node: {cpu: 8, memory: 32GiB, gpu: 1}
workloads:
  - namespace: project-b
    name: sample-app-b
    command: [./serve.py, "--model", x]
    env: {MODEL: tiny}
    working_directory: apps
    port: 8000
    readiness: {http: {path: /v2/health/ready}}
    pool: gpu
    resources: {cpu: 0.5, memory: 1GiB, gpu: 1}
    replicas: 0
    awake_replicas: 1
    hosts: [B.example.com]
    idle_after: 30s
    labels: {project: b}
    stop_grace: 2s
  - namespace: project-a
    name: sample-app-a
    command: [python3, app.py]
    port: 8080
    pool: cpu
"#;

fn parse(text: &str) -> Result<WorkloadFile, Vec<Problem>> {
    WorkloadFile::parse(text.as_bytes(), Path::new("/srv"))
}

/// The only problem of `GOOD` with `from` replaced by `to`.
fn problem(from: &str, to: &str) -> Problem {
    assert_eq!(
        GOOD.matches(from).count(),
        1,
        "{from:?} must stand in the sample once"
    );
    let mut problems = parse(&GOOD.replace(from, to)).unwrap_err();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    problems.remove(0)
}

#[test]
fn a_full_file_reads_into_checked_values() {
    let file = parse(GOOD).unwrap();
    let gpu = &file.pools[&PoolName::new("gpu").unwrap()];
    assert_eq!(
        (gpu.boot, gpu.release_after),
        (Duration::from_secs(5), Duration::from_secs(10))
    );
    assert_eq!((gpu.price_per_hour_micro, gpu.nodes_max), (3_060_000, 2));
    let [b, a] = file.workloads.as_slice() else {
        panic!("two workloads")
    };
    assert_eq!(b.command, ["/srv/apps/./serve.py", "--model", "x"]);
    assert_eq!(b.working_directory, Path::new("/srv/apps"));
    assert_eq!(
        b.readiness,
        Readiness::Http {
            path: "/v2/health/ready".into()
        }
    );
    assert_eq!(
        b.resources,
        Resources {
            cpu_milli: 500,
            memory_bytes: 1 << 30,
            gpu: 1
        }
    );
    assert_eq!(
        (b.replicas, b.awake_replicas),
        (Replicas(0), WakeCount::new(1))
    );
    assert_eq!(b.hosts, [Host::new("b.example.com").unwrap()]);
    assert_eq!(
        a.hosts,
        [Host::new("sample-app-a.project-a.localhost").unwrap()]
    );
    assert_eq!(a.command, ["python3", "app.py"]);
    assert_eq!(
        (a.readiness.clone(), a.replicas),
        (Readiness::Tcp, Replicas(1))
    );
    assert_eq!(
        (a.idle_after, a.stop_grace),
        (None, Duration::from_secs(10))
    );
}

#[test]
fn without_pools_there_is_one_without_limits() {
    let file = parse("workloads: [{namespace: a, name: b, command: [sleep, '9']}]").unwrap();
    assert_eq!(
        file.pools.keys().map(PoolName::as_str).collect::<Vec<_>>(),
        [DEFAULT_POOL]
    );
    assert_eq!(file.workloads[0].pool.as_str(), DEFAULT_POOL);
    assert_eq!(file.workloads[0].readiness, Readiness::Running);
    assert_eq!(file.workloads[0].hosts, [], "no request can reach it");
}

/// What stands in the sample, what stands there instead, place and field of the problem, a part of its message.
type Row = (
    &'static str,
    &'static str,
    (u64, u64),
    &'static str,
    &'static str,
);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_wrong_value_says_line_column_field_and_what_is_allowed() {
    let rows: &[Row] = &[
        (
            "boot: 5s",
            "boot: 5",
            (6, 11),
            "pools[1].boot",
            "a duration with its unit",
        ),
        (
            "boot: 5s",
            "boot: 2h",
            (6, 11),
            "pools[1].boot",
            "allowed: 0s to 1h",
        ),
        (
            "boot: 5s",
            "bot: 5s",
            (6, 5),
            "pools[1].bot",
            "unknown field; allowed: name, boot, release_after",
        ),
        (
            "max_nodes: 3",
            "max_nodes: 3\n  - name: cpu",
            (5, 11),
            "pools[1].name",
            "a second pool cpu",
        ),
        (
            "price_per_hour: 3.06",
            "price_per_hour: -1",
            (8, 21),
            "pools[1].price_per_hour",
            "not negative",
        ),
        (
            "max_nodes: 2",
            "max_nodes: 0",
            (9, 16),
            "pools[1].max_nodes",
            "from 1 to 100",
        ),
        (
            "max_nodes: 2",
            "max_nodes: many",
            (9, 16),
            "pools[1].max_nodes",
            "a whole number from 1 to 100",
        ),
        (
            "name: sample-app-b",
            "name: Sample_B",
            (13, 11),
            "workloads[0].name",
            "lower-case",
        ),
        (
            "command: [./serve.py, \"--model\", x]",
            "command: []",
            (14, 14),
            "workloads[0].command",
            "1 to 256",
        ),
        (
            "env: {MODEL: tiny}",
            "env: {PORT: '1'}",
            (15, 17),
            "workloads[0].env.PORT",
            "set by Nagi",
        ),
        (
            "env: {MODEL: tiny}",
            "env: {9A: '1'}",
            (15, 15),
            "workloads[0].env.9A",
            "allowed: letters",
        ),
        (
            "port: 8000",
            "port: 70000",
            (17, 11),
            "workloads[0].port",
            "70000",
        ),
        (
            "port: 8000",
            "port: 0",
            (17, 11),
            "workloads[0].port",
            "a whole number from 1 to 65535",
        ),
        (
            "path: /v2/health/ready",
            "path: ready",
            (18, 30),
            "workloads[0].readiness.http.path",
            "a slash",
        ),
        (
            "pool: gpu",
            "pool: gpux",
            (19, 11),
            "workloads[0].pool",
            "allowed: cpu, gpu",
        ),
        (
            "    pool: cpu\n",
            "",
            (27, 5),
            "workloads[1].pool",
            "several pools; allowed: cpu, gpu",
        ),
        (
            "gpu: 1}\n    replicas",
            "gpu: 2}\n    replicas",
            (20, 16),
            "workloads[0].resources.gpu",
            "at most the 1 GPUs",
        ),
        (
            "replicas: 0\n",
            "replicas: 101\n",
            (21, 15),
            "workloads[0].replicas",
            "from 0 to 100",
        ),
        (
            "replicas: 0\n",
            "replicas: -1\n",
            (21, 15),
            "workloads[0].replicas",
            "-1",
        ),
        (
            "awake_replicas: 1",
            "awake_replicas: 0",
            (22, 21),
            "workloads[0].awake_replicas",
            "from 1 to 100",
        ),
        (
            "hosts: [B.example.com]",
            "hosts: ['a b']",
            (23, 13),
            "workloads[0].hosts[0]",
            "subdomain",
        ),
        (
            "idle_after: 30s",
            "idle_after: 10ms",
            (24, 17),
            "workloads[0].idle_after",
            "allowed: 1s to 720h",
        ),
        (
            "labels: {project: b}",
            "labels: {project: -b}",
            (25, 23),
            "workloads[0].labels.project",
            "not a label",
        ),
        (
            "stop_grace: 2s",
            "stop_grace: 1h",
            (26, 17),
            "workloads[0].stop_grace",
            "allowed: 0s to 10m",
        ),
        (
            "hosts: [B.example.com]",
            "hosts: [sample-app-a.project-a.localhost]",
            (28, 11),
            "workloads[1].name",
            "claimed by project-b/sample-app-b too",
        ),
    ];
    for (from, to, place, field, part) in rows {
        let found = problem(from, to);
        assert_eq!((found.line, found.column), *place, "{to}: {found}");
        assert_eq!(found.field, *field, "{to}: {found}");
        assert!(found.message.contains(part), "{to}: {found}");
    }
}

#[test]
fn messages_speak_to_people_who_write_the_file() {
    let said = |text: &str| parse(text).unwrap_err()[0].message.clone();
    assert_eq!(said(""), "the file is empty: it needs `workloads:`");
    assert_eq!(said("# only a comment\n"), said(""));
    assert_eq!(said("workloads: 1"), "must be a list: `- …`");
    assert_eq!(
        said("workloads:\n- {namespace: a, name: b, command: x}"),
        "must be a list: `- …`"
    );
    assert_eq!(
        said("workloads:\n- {namespace: a, name: b, name: c, command: [x]}"),
        "the key name stands twice"
    );
    assert_eq!(
        said("workloads:\n- {namespace: a, name: , command: [x]}"),
        "must not be empty"
    );
    let asks = "pools: [{name: p, node: {cpu: 1.5}}]\nworkloads:\n- {namespace: a, name: b, command: [x], resources: {cpu: 4}}";
    assert_eq!(
        said(asks),
        "asks for 4 processors; allowed: at most the 1.5 processors of a node of pool p"
    );
}

#[test]
fn what_needs_a_port_without_one_and_a_second_workload_of_one_name_are_refused() {
    let without = parse(&GOOD.replace("    port: 8000\n", "")).unwrap_err();
    let found = without
        .iter()
        .map(|problem| (&*problem.field, problem.line));
    let needing = ["readiness", "hosts", "idle_after"].map(|field| format!("workloads[0].{field}"));
    let expected = needing.iter().map(String::as_str).zip([17, 22, 23]);
    assert!(found.eq(expected), "{without:?}");
    let twice = "workloads:\n- {namespace: a, name: b, command: [x]}\n- {namespace: a, name: b, command: [x], hosts: []}\n";
    let problems = parse(twice).unwrap_err();
    assert_eq!(problems[0].field, "workloads[1].name");
    assert!(
        problems[0].message.contains("the first is at line 2"),
        "{}",
        problems[0]
    );
}

#[test]
fn all_problems_are_reported_in_the_order_of_the_file_and_not_more_than_a_screen() {
    let many = GOOD
        .replace("boot: 5s", "boot: x")
        .replace("stop_grace: 2s", "stop_grace: y");
    let problems = parse(&many.replace("port: 8000", "port: 0")).unwrap_err();
    let fields: Vec<_> = problems
        .iter()
        .map(|problem| problem.field.as_str())
        .collect();
    assert_eq!(
        fields,
        [
            "pools[1].boot",
            "workloads[0].port",
            "workloads[0].stop_grace"
        ]
    );
    let flood = format!(
        "workloads:\n{}",
        "- {namespace: A, name: b, command: [x]}\n".repeat(30)
    );
    assert_eq!(parse(&flood).unwrap_err().len(), PROBLEMS_MAX);
}

#[test]
fn text_that_is_no_yaml_of_ours_is_refused_with_its_place() {
    let rows: &[(&[u8], u64)] = &[
        (b"workloads: [", 1),
        (b"workloads: []\nworkloads: []\n", 2),
        (b"a\xffb", 1),
        (b"workloads: []\n\xff", 2),
        (b"- a\n- b\n", 1),
        (b"workloads: []\n---\nworkloads: []\n", 3),
        (b"workloads:\n\t- x", 2),
    ];
    for (content, line) in rows {
        let problems = WorkloadFile::parse(content, Path::new("/")).unwrap_err();
        assert_eq!(
            problems[0].line,
            *line,
            "{:?}: {}",
            String::from_utf8_lossy(content),
            problems[0]
        );
        assert!(problems[0].column > 0, "{}", problems[0]);
    }
    assert!(WorkloadFile::parse(b"", Path::new("/")).is_err());
    let deep = format!("workloads: {}", "[".repeat(100_000));
    assert!(parse(&deep).is_err());
    let bomb =
        "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nworkloads: [*b,*b,*b,*b]\n";
    assert!(parse(bomb).is_err());
}

#[test]
fn a_file_too_large_or_missing_is_refused_before_it_is_parsed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("nagi.yaml");
    assert!(matches!(
        WorkloadFile::read(&path),
        Err(FileError::Read { .. })
    ));
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(FILE_BYTES_MAX + 1).unwrap();
    assert!(matches!(
        WorkloadFile::read(&path),
        Err(FileError::TooLarge { .. })
    ));
    std::fs::write(&path, "workloads: [{}]").unwrap();
    let error = WorkloadFile::read(&path).unwrap_err().to_string();
    assert!(
        error.contains("line 1, column") && error.contains("namespace"),
        "{error}"
    );
}

// A file that an editor has saved by half.
#[test]
fn a_list_of_workloads_that_is_not_there_is_refused_with_its_place() {
    for text in [
        "pools: []\nworkloads:\n",
        "pools: []\nworkloads: ~\n",
        "pools: []\nworkloads: null\n",
    ] {
        let problems = parse(text).unwrap_err();
        let [problem] = problems.as_slice() else {
            panic!("{text}: {problems:?}")
        };
        assert_eq!(
            (problem.line, problem.field.as_str()),
            (2, "workloads"),
            "{text}: {problem}"
        );
        assert!(problem.message.contains("`[]`"), "{problem}");
    }
    assert_eq!(parse("workloads: []\n").unwrap().workloads, []);
}

#[test]
fn the_schema_accepts_what_the_check_accepts_and_nothing_less() {
    let schema = WorkloadFile::json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let file = |fields: &str| {
        format!("workloads:\n- {{namespace: a, name: b, command: [x], port: 1, {fields}}}\n")
    };
    let rows = [
        ("workloads: []\n".to_owned(), true),
        ("workloads:\n".to_owned(), false),
        ("pools:\nworkloads: []\n".to_owned(), true),
        ("pools: []\n".to_owned(), false),
        (
            "pools: [{name: a, max_nodes: '2', price_per_hour: '1.5'}]\nworkloads: []\n".to_owned(),
            true,
        ),
        (
            "pools: [{name: a, max_nodes: 0}]\nworkloads: []\n".to_owned(),
            false,
        ),
        (file("replicas: \"1\""), true),
        (file("replicas: 101"), false),
        (file("replicas: one"), false),
        (file("replicas: 1.5"), false),
        (file("replicas: ~"), true),
        (file("awake_replicas: 0"), false),
        (file("env: {A: 1, B: true, C: 1.5, D: x}"), true),
        (file("env: {A: [1]}"), false),
        (file("env: {A: ~}"), false),
        (file("env: ~"), true),
        (file("labels: {tier: 1}"), true),
        (file("labels: ~"), true),
        (file("hosts: ~"), true),
        (file("idle_after: 10"), false),
        (file("idle_after: 10m"), true),
        (
            file("resources: {cpu: '0.5', memory: 1048576, gpu: '0'}"),
            true,
        ),
        (file("readiness: ~"), true),
        (
            "workloads:\n- {namespace: a, name: b, command: [sleep, 1000]}\n".to_owned(),
            true,
        ),
        (
            "workloads:\n- {namespace: a, name: b, command: ~}\n".to_owned(),
            false,
        ),
        (
            "workloads:\n- {namespace: a, name: ~, command: [x]}\n".to_owned(),
            false,
        ),
        (
            "workloads:\n- {namespace: a, name: b, command: [x], port: '80'}\n".to_owned(),
            true,
        ),
        (
            "workloads:\n- {namespace: a, name: b, command: [x], port: 70000}\n".to_owned(),
            false,
        ),
    ];
    for (text, accepted) in rows {
        let value: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
        let checked = parse(&text);
        assert_eq!(checked.is_ok(), accepted, "check of {text}: {checked:?}");
        if accepted {
            let errors: Vec<_> = validator
                .iter_errors(&value)
                .map(|e| e.to_string())
                .collect();
            assert!(errors.is_empty(), "schema of {text}: {errors:?}");
        } else if !text.contains("idle_after: 10}") {
            // That a unit is missing, only the check sees.
            assert!(!validator.is_valid(&value), "schema of {text}");
        }
    }
}

#[test]
fn the_published_schema_accepts_the_sample_and_refuses_what_reading_refuses() {
    let schema = WorkloadFile::json_schema();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let sample: serde_json::Value = serde_saphyr::from_str(GOOD).unwrap();
    let errors: Vec<_> = validator
        .iter_errors(&sample)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
    let mut wrong = sample.clone();
    wrong["workloads"][0]["bogus"] = true.into();
    assert!(!validator.is_valid(&wrong));
    let mut wrong = sample;
    wrong["pools"][0]["max_nodes"] = 0.into();
    assert!(!validator.is_valid(&wrong));
}

proptest::proptest! {
    // Whatever stands in the file: an answer with a place, never a panic.
    #[test]
    fn no_text_makes_reading_panic(at in 0..GOOD.len(), cut in 0_usize..20, put in ".{0,8}") {
        let mut bytes = GOOD.as_bytes().to_vec();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put.into_bytes());
        if let Err(problems) = WorkloadFile::parse(&bytes, Path::new("/")) {
            proptest::prop_assert!(!problems.is_empty());
            proptest::prop_assert!(problems.iter().all(|problem| !problem.message.is_empty()));
        }
    }
}
