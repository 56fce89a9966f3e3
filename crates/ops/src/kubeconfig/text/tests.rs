//! Edits of kubeconfigs as kubeadm, clouds and people write them.

use super::*;

const NODE: &str = "ip-172-31-37-254";
const LITERAL: &str = "https://ip-172-31-37-254:6443";
const LOCAL: &str = "https://127.0.0.1:6443";

fn to<'a>(server: &'a str, name: Option<&'a str>) -> Wanted<'a> {
    Wanted {
        cluster: "lab",
        server,
        tls_server_name: name,
    }
}

/// What an edit takes away and adds, line by line.
fn difference(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let only = |one: &str, other: &str| {
        let known: Vec<&str> = other.split('\n').collect();
        let lines = one.split('\n').filter(|line| !known.contains(line));
        lines.map(str::to_owned).collect()
    };
    (only(old, new), only(new, old))
}

const TWO: &str = "\
# of the team, do not reformat
apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority-data: TFMw
    server: https://172.31.37.254:6443   # by the tunnel
  name: lab
- cluster: {server: \"https://172.31.37.254:6443\", certificate-authority-data: TFMw}
  name: other
contexts: [{ name: a, context: { cluster: lab, user: a } }]
current-context:   a
users:
- name: a
  user:
    token: 't'
";

// B-020: only that entry, only that value; every other byte stays.
#[test]
fn the_server_of_one_cluster_changes_and_nothing_else() {
    let new = edited(TWO, to(LITERAL, None)).unwrap();
    let expected = TWO.replacen(
        "https://172.31.37.254:6443   #",
        &format!("{LITERAL}   #"),
        1,
    );
    assert_eq!(new, expected);
    assert_eq!(
        edited(&new, to(LITERAL, None)).unwrap(),
        new,
        "twice is once"
    );
}

// D-19, K-40: both in one edit.
#[test]
fn server_and_name_are_written_in_one_edit() {
    let new = edited(TWO, to(LOCAL, Some(NODE))).unwrap();
    let (gone, added) = difference(TWO, &new);
    assert_eq!(
        gone,
        ["    server: https://172.31.37.254:6443   # by the tunnel"]
    );
    assert_eq!(
        added,
        [
            "    server: https://127.0.0.1:6443   # by the tunnel",
            "    tls-server-name: ip-172-31-37-254"
        ]
    );
    assert_eq!(
        edited(&new, to(LOCAL, Some(NODE))).unwrap(),
        new,
        "twice is once"
    );
    let other = edited(&new, to(LOCAL, Some("kubernetes"))).unwrap();
    assert_eq!(other, new.replace(NODE, "kubernetes"));
}

#[test]
fn every_layout_keeps_its_style() {
    let other = |server: &str| format!("clusters: [{{name: lab, cluster: {server}}}]");
    let rows: &[(&str, &str)] = &[
        (
            "clusters:\n- name: lab\n  cluster:\n    server: 'https://a'",
            "clusters:\n- name: lab\n  cluster:\n    server: 'https://127.0.0.1:6443'\n    tls-server-name: 'ip-172-31-37-254'",
        ),
        (
            "clusters:\r\n- name: lab\r\n  cluster:\r\n    server: https://a\r\n",
            "clusters:\r\n- name: lab\r\n  cluster:\r\n    server: https://127.0.0.1:6443\r\n    tls-server-name: ip-172-31-37-254\r\n",
        ),
        (
            &other("{server: https://a, certificate-authority: b}"),
            &other(
                "{server: https://127.0.0.1:6443, tls-server-name: ip-172-31-37-254, certificate-authority: b}",
            ),
        ),
        (
            &other("{certificate-authority: b, \"server\": \"https://a\"}"),
            &other(
                "{certificate-authority: b, \"server\": \"https://127.0.0.1:6443\", \"tls-server-name\": \"ip-172-31-37-254\"}",
            ),
        ),
        (
            "{\n  \"clusters\": [\n    {\n      \"name\": \"lab\",\n      \"cluster\": {\n        \"server\": \"https://a\"\n      }\n    }\n  ]\n}\n",
            "{\n  \"clusters\": [\n    {\n      \"name\": \"lab\",\n      \"cluster\": {\n        \"server\": \"https://127.0.0.1:6443\",\n        \"tls-server-name\": \"ip-172-31-37-254\"\n      }\n    }\n  ]\n}\n",
        ),
        (
            "clusters:\n- name: lab # ö\n  cluster:\n    server:   https://a\n    tls-server-name: \"b\"\n",
            "clusters:\n- name: lab # ö\n  cluster:\n    server:   https://127.0.0.1:6443\n    tls-server-name: \"ip-172-31-37-254\"\n",
        ),
    ];
    for (old, new) in rows {
        assert_eq!(
            edited(old, to(LOCAL, Some(NODE))).as_deref(),
            Ok(*new),
            "{old}"
        );
    }
    let six = edited(
        "clusters:\n- name: lab\n  cluster: { server: https://a }\n",
        to("https://[::1]:6443", None),
    );
    let text = six.unwrap();
    assert_eq!(has(&text, "lab").unwrap().server, "https://[::1]:6443");
}

// What the edit would change beside the one entry is seen by reading it again.
#[test]
fn a_text_in_which_the_edit_would_mean_more_is_refused() {
    let rows = [
        (
            "clusters:\n- name: a\n  cluster: &one\n    server: https://a\n- name: lab\n  cluster: *one\n",
            "without changing more",
        ),
        (
            "clusters:\n- name: lab\n  cluster: { server: https://a }\n- name: lab\n  cluster: { server: https://b }\n",
            "two clusters 'lab'",
        ),
        (
            "clusters:\n- name: lab\n  cluster:\n    server: https://a\n    server: https://b\n",
            "duplicate",
        ),
        (
            "clusters:\n- name: lab\n  cluster: { server: https://a, insecure-skip-tls-verify: true }\n",
            "insecure-skip-tls-verify",
        ),
        ("clusters: []\n", "no cluster 'lab'"),
        ("", ""),
        ("clusters: [\n", ""),
    ];
    for (text, why) in rows {
        let error = edited(text, to(LOCAL, Some(NODE))).unwrap_err();
        assert!(error.contains(why), "{text}: {error}");
    }
}
