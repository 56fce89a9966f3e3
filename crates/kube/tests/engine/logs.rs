//! What pods printed: of every pod and container once, page after page.

use nagi_kube_double::objects;
use nagi_ports::{LogQuery, Logs, PortError};
use serde_json::json;

use crate::lab::{Lab, id};

#[tokio::test]
async fn logs_come_from_the_pods_and_go_on_where_they_ended() {
    let lab = Lab::new().await;
    let pod = objects::running(objects::pod("project-a", "sample-app-a", "x1"), "10.0.0.7");
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    lab.double.put(pod);
    lab.sees("the pod", |w| !w.replicas.is_empty()).await;
    let first = ("2030-01-01T00:00:00.100000000Z", "one");
    let second = ("2030-01-01T00:00:00.900000000Z", "two");
    lab.double.log("project-a", &name, &[first, second]);
    let page = lab
        .engine
        .read(
            &id(),
            &LogQuery {
                tail: 1,
                after: None,
            },
        )
        .await
        .unwrap();
    let texts = |page: &nagi_ports::LogPage| {
        page.lines
            .iter()
            .map(|line| line.text.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(texts(&page), ["two"]);
    lab.double.log(
        "project-a",
        &name,
        &[first, second, ("2030-01-01T00:00:00.950000000Z", "three")],
    );
    let next = lab
        .engine
        .read(
            &id(),
            &LogQuery {
                tail: 1,
                after: Some(page.cursor),
            },
        )
        .await
        .unwrap();
    assert_eq!(
        texts(&next),
        ["three"],
        "the same second, but nothing twice"
    );
    let broken = lab
        .engine
        .read(
            &id(),
            &LogQuery {
                tail: 1,
                after: Some("x".into()),
            },
        )
        .await;
    assert!(matches!(broken.unwrap_err(), PortError::Refused(_)));
}

// A pod with a sidecar has two logs, and the API server wants to hear which.
#[tokio::test]
async fn logs_of_a_pod_with_several_containers_are_those_of_each_or_of_its_default() {
    for (default, expected) in [
        (None, vec!["of web", "of side"]),
        (Some("side"), vec!["of side"]),
    ] {
        let lab = Lab::new().await;
        let pod = objects::pod("project-a", "sample-app-a", "x1");
        let mut pod = objects::running(pod, "10.0.0.7");
        let side = json!({ "name": "side", "image": "example/side:1" });
        pod["spec"]["containers"].as_array_mut().unwrap().push(side);
        if let Some(default) = default {
            pod["metadata"]["annotations"] =
                json!({ "kubectl.kubernetes.io/default-container": default });
        }
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        lab.double.put(pod);
        lab.sees("the pod", |w| !w.replicas.is_empty()).await;
        let time = "2030-01-01T00:00:00.100000000Z";
        for container in ["web", "side"] {
            let text = format!("of {container}");
            lab.double.log(
                "project-a",
                &format!("{name}/{container}"),
                &[(time, &text)],
            );
        }
        let query = LogQuery {
            tail: 10,
            after: None,
        };
        let page = lab.engine.read(&id(), &query).await.unwrap();
        let texts: Vec<String> = page.lines.into_iter().map(|line| line.text).collect();
        assert_eq!(texts, expected);
        // The page as a whole is bounded.
        let asked = lab.double.requests().into_iter();
        let shares: Vec<String> = asked
            .filter(|asked| asked.path.contains("&container="))
            .map(|asked| asked.path)
            .collect();
        let share = format!("limitBytes={}", 1024 * 1024 / expected.len());
        assert_eq!(shares.len(), expected.len());
        assert!(
            shares.iter().all(|path| path.contains(&share)),
            "{shares:?}"
        );
    }
}

/// Pods that run, and what each of them printed.
async fn running(lab: &Lab, suffixes: &[&str]) -> Vec<String> {
    let mut names = Vec::new();
    for suffix in suffixes {
        let pod = objects::pod("project-a", "sample-app-a", suffix);
        names.push(pod["metadata"]["name"].as_str().unwrap().to_owned());
        lab.double.put(objects::running(pod, "10.0.0.7"));
    }
    let count = suffixes.len();
    lab.sees("the pods", |w| w.replicas.len() >= count).await;
    names
}

async fn page(lab: &Lab, tail: usize, after: Option<String>) -> (Vec<String>, String) {
    let query = LogQuery { tail, after };
    let page = lab.engine.read(&id(), &query).await.unwrap();
    let texts = page.lines.into_iter().map(|line| line.text).collect();
    (texts, page.cursor)
}

// Issue 4: clocks of nodes differ, and a pod may print while another one is asked.
#[tokio::test]
async fn what_one_pod_printed_hides_nothing_of_another() {
    let lab = Lab::new().await;
    let names = running(&lab, &["x1", "x2"]).await;
    let early = ("2030-01-01T00:00:01.000000000Z", "early");
    let late = ("2030-01-01T00:05:00.000000000Z", "late");
    lab.double.log("project-a", &names[0], &[early]);
    lab.double.log("project-a", &names[1], &[late]);
    let (texts, cursor) = page(&lab, 10, None).await;
    assert_eq!(texts, ["early", "late"]);
    let next = ("2030-01-01T00:00:02.000000000Z", "next");
    lab.double.log("project-a", &names[0], &[early, next]);
    let (texts, cursor) = page(&lab, 10, Some(cursor)).await;
    assert_eq!(texts, ["next"]);
    // Of one that is new everything is news, and one that says nothing keeps its place.
    let third = running(&lab, &["x3"]).await.remove(0);
    lab.sees("the third", |w| w.replicas.len() == 3).await;
    let first = ("2029-01-01T00:00:00.000000000Z", "first");
    lab.double.log("project-a", &third, &[first]);
    let (texts, cursor) = page(&lab, 10, Some(cursor)).await;
    assert_eq!(texts, ["first"]);
    assert_eq!(page(&lab, 10, Some(cursor)).await.0, [""; 0]);
}

// Who wants no old line goes on behind them all the same.
#[tokio::test]
async fn a_page_of_no_lines_tells_where_the_next_one_begins() {
    let lab = Lab::new().await;
    let names = running(&lab, &["x1"]).await;
    let old = ("2030-01-01T00:00:01.000000000Z", "old");
    lab.double.log("project-a", &names[0], &[old]);
    let (texts, cursor) = page(&lab, 0, None).await;
    assert_eq!(texts, [""; 0]);
    let new = ("2030-01-01T00:00:02.000000000Z", "new");
    lab.double.log("project-a", &names[0], &[old, new]);
    assert_eq!(page(&lab, 0, Some(cursor)).await.0, ["new"]);
}

// A pod that prints more than a page holds, in one second and over several.
#[tokio::test]
async fn page_after_page_every_line_comes_once_and_whole() {
    for is_spread in [false, true] {
        let second = |number: usize| if is_spread { number } else { 1 };
        let lab = Lab::new().await;
        let names = running(&lab, &["x1", "x2"]).await;
        let first = ("2030-01-01T00:00:00.000000000Z", "first");
        lab.double.log("project-a", &names[0], &[first]);
        let (_, mut cursor) = page(&lab, 1, None).await;
        // 30 lines of 100 kB, of which a page holds five.
        let printed: Vec<(String, String)> = (1..=30)
            .map(|number| {
                let stamp = format!("2030-01-01T00:00:{:02}.{number:09}Z", second(number));
                (stamp, format!("{number:02}{}", "x".repeat(100_000)))
            })
            .collect();
        let mut all = vec![first];
        all.extend(
            printed
                .iter()
                .map(|(at, text)| (at.as_str(), text.as_str())),
        );
        lab.double.log("project-a", &names[0], &all);
        let mut seen = Vec::new();
        for _ in 0..10 {
            let (texts, next) = page(&lab, 1, Some(cursor)).await;
            let bytes: usize = texts.iter().map(String::len).sum();
            assert!(bytes <= 1024 * 1024, "{bytes}");
            seen.extend(texts);
            cursor = next;
        }
        let wanted: Vec<String> = printed.into_iter().map(|(_, text)| text).collect();
        assert!(seen == wanted, "{} of {} lines", seen.len(), wanted.len());
    }
}
