//! What is mended only while the others carry the store, and a copy that takes nothing away.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use super::*;

// D-14
#[test]
fn a_snapshot_is_one_whose_checksum_is_at_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.db");
    let data = vec![7; 100_000];
    let whole = [&data[..], Sha256::digest(&data).as_slice()].concat();
    std::fs::write(&file, &whole).unwrap();
    assert!(is_snapshot(&file).unwrap());
    for broken in [&whole[..whole.len() - 1], &whole[1..], &[], &whole[..32]] {
        std::fs::write(&file, broken).unwrap();
        assert!(!is_snapshot(&file).unwrap(), "{}", broken.len());
    }
}

#[test]
fn a_message_is_data_or_an_error() {
    assert_eq!(blob(br#"{"result":{"blob":"AQI="}}"#).unwrap(), [1, 2]);
    assert!(blob(b"\n").unwrap().is_empty());
    for bad in [
        &br#"{"result":{"blob":"*"}}"#[..],
        br#"{"error":{"message":"no"}}"#,
        b"{}",
        b"{",
    ] {
        assert!(blob(bad).is_err());
    }
}

// D-14: the copy of a store that a full disk stops is kept elsewhere.
#[test]
fn a_snapshot_beside_its_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let why = has_room(&directory.path().join("a.db"), directory.path(), 1).unwrap_err();
    assert!(why.contains("the filesystem of the store itself"), "{why}");
}

/// The paths that a member was asked for.
type Asked = Arc<Mutex<Vec<String>>>;
/// A path, and what it answers.
type Answer = (&'static str, String);

/// A member that answers each path with the same.
#[expect(
    clippy::disallowed_methods,
    reason = "a server of a test ends with its process"
)]
fn member(answers: Vec<Answer>) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Asked::default();
    let kept = Arc::clone(&asked);
    std::thread::spawn(move || {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = vec![0; 4096];
            let length = stream.read(&mut head).unwrap();
            let head = String::from_utf8_lossy(&head[..length]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            let body = answers.iter().find(|(known, _)| *known == path);
            let body = body.map_or("{}", |(_, body)| body.as_str());
            kept.lock().unwrap().push(path);
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    (url, asked)
}

fn status(own: u64, leader: u64) -> Answer {
    let status = serde_json::json!({
        "header": { "member_id": own.to_string(), "revision": "5" }, "version": "3.5.21",
        "dbSize": "4096", "dbSizeInUse": "4096", "leader": leader.to_string()
    });
    ("/v3/maintenance/status", status.to_string())
}

fn mender(url: &str, data_dir: &Path) -> Mender {
    Mender {
        member: Member {
            url: url.to_owned(),
            data_dir: data_dir.to_owned(),
            is_placed: true,
            authority: None,
            certificate: None,
            key: None,
        },
        keys: Keys {
            authority: None,
            client: None,
        },
        data_dir: data_dir.to_owned(),
    }
}

/// Defragments member 1 of three with the leader 2; what member 3 says varies.
async fn defragmented(third: Vec<Answer>, urls: &[&str]) -> (Result<String, String>, bool) {
    let (second, _) = member(vec![status(2, 2)]);
    let (third, _) = member(third);
    let third: Vec<&str> = urls
        .iter()
        .map(|url| if url.is_empty() { third.as_str() } else { url })
        .collect();
    let listed = serde_json::json!({ "members": [
        { "ID": "1", "clientURLs": ["http://127.0.0.1:1"] },
        { "ID": "2", "clientURLs": [second] },
        { "ID": "3", "clientURLs": third },
    ] });
    let (url, asked) = member(vec![
        status(1, 2),
        ("/v3/cluster/member/list", listed.to_string()),
    ]);
    let ended = mender(&url, Path::new("/")).defrag().await;
    let was_asked = asked
        .lock()
        .unwrap()
        .iter()
        .any(|path| path.ends_with("/defragment"));
    (ended, was_asked)
}

// W-B15: members that are defragmented at once, or the last that makes the quorum, stop the cluster.
#[tokio::test]
async fn a_member_is_defragmented_only_while_all_others_answer() {
    let (ended, was_asked) = defragmented(vec![status(3, 2)], &[""]).await;
    assert!(ended.is_ok() && was_asked, "{ended:?}");
    // Another leader, none, one that is down, one that has not started.
    for (third, urls) in [
        (vec![status(3, 3)], &[""][..]),
        (vec![status(3, 0)], &[""]),
        (vec![status(3, 2)], &["http://127.0.0.1:1"]),
        (vec![status(3, 2)], &[]),
    ] {
        let (ended, was_asked) = defragmented(third, urls).await;
        let why = ended.unwrap_err();
        assert!(why.contains("member 3 must carry"), "{why}");
        assert!(!was_asked);
    }
}

#[tokio::test]
async fn a_member_that_leads_or_that_no_list_has_is_left_alone() {
    for (own, listed, says) in [
        (
            1,
            r#"{"members":[{"ID":"1"},{"ID":"2"}]}"#,
            "this member leads 2",
        ),
        (1, r#"{"members":[{"ID":"2"}]}"#, "does not list itself"),
        (1, "{}", "does not list itself"),
    ] {
        let answers = vec![
            status(own, 1),
            ("/v3/cluster/member/list", listed.to_owned()),
        ];
        let (url, asked) = member(answers);
        let why = mender(&url, Path::new("/")).defrag().await.unwrap_err();
        assert!(why.contains(says), "{why}");
        assert!(
            !asked
                .lock()
                .unwrap()
                .iter()
                .any(|path| path.ends_with("/defragment"))
        );
    }
}

// What others have is not written over, whatever it is.
#[tokio::test]
async fn a_snapshot_takes_no_name_that_something_has() {
    let data = [7; 1000];
    let whole = [&data[..], Sha256::digest(data).as_slice()].concat();
    let blob = serde_json::json!({ "result": { "blob": STANDARD.encode(&whole) } });
    let listed = r#"{"members":[{"ID":"1"}]}"#.to_owned();
    let answers = vec![
        status(1, 1),
        ("/v3/cluster/member/list", listed),
        ("/v3/maintenance/snapshot", blob.to_string()),
    ];
    let (url, _) = member(answers);
    let place = tempfile::tempdir_in("/dev/shm").unwrap();
    let data_dir = tempfile::tempdir().unwrap();
    let mender = mender(&url, data_dir.path());
    let file = place.path().join("a.db");
    let part = place.path().join("a.db.nagi-part");
    for taken in [&file, &part] {
        std::fs::write(taken, &whole).unwrap();
        let why = mender
            .snapshot(&Place::Named(file.clone()))
            .await
            .unwrap_err();
        assert!(why.contains(taken.to_str().unwrap()), "{why}");
        assert_eq!(std::fs::read(taken).unwrap(), whole);
        std::fs::rename(taken, place.path().join("away")).unwrap();
    }
    mender.snapshot(&Place::Named(file.clone())).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), whole);
    // Our own place: by the revision; what a killed run left of a copy goes, and a whole copy stays.
    let ours = Place::Ours(place.path().to_owned());
    let part = place.path().join("etcd-snapshot-5.db.nagi-part");
    std::fs::write(&part, "half").unwrap();
    let said = mender.snapshot(&ours).await.unwrap();
    assert!(
        said.contains("etcd-snapshot-5.db,") && !part.exists(),
        "{said}"
    );
    let said = mender.snapshot(&ours).await.unwrap();
    assert!(said.contains("was there"), "{said}");
}
