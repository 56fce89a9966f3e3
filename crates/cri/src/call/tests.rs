//! Calls of a server of some lines behind a real socket: what counts as an answer, and what never does.

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;

const METHOD: &str = "runtime.v1.RuntimeService/ListContainers";
/// Longer than any test; clocks of those that wait for it are paused.
const ANSWER: Duration = Duration::from_secs(10);

/// What the server does with a call.
#[derive(Debug, Clone, Copy)]
enum Manner {
    /// Headers with these, and messages unless the stream ends there.
    Head {
        status: u16,
        grpc: Option<&'static str>,
        ends: bool,
    },
    /// Good headers, the messages, and these trailers.
    Trailers(&'static [(&'static str, &'static str)]),
    /// Good headers, the messages, and the stream is broken off.
    Reset,
}

/// A directory with a socket, and who listens there.
fn socket() -> (TempDir, Client, UnixListener) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("runtime.sock");
    let listener = UnixListener::bind(&path).unwrap();
    (directory, Client::at(&path), listener)
}

/// Answers one call.
async fn serve(listener: UnixListener, body: Bytes, manner: Manner) {
    let (stream, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    let (_question, mut respond) = connection.accept().await.unwrap().unwrap();
    let mut head = http::Response::builder();
    let mut ends = false;
    if let Manner::Head {
        status,
        grpc,
        ends: at_once,
    } = manner
    {
        head = head.status(status);
        head = grpc
            .into_iter()
            .fold(head, |head, grpc| head.header("grpc-status", grpc));
        ends = at_once;
    }
    let mut stream = respond.send_response(head.body(()).unwrap(), ends).unwrap();
    if !ends {
        let is_last = matches!(manner, Manner::Head { .. });
        stream.send_data(body, is_last).unwrap();
    }
    match manner {
        Manner::Head { .. } => {}
        Manner::Trailers(trailers) => {
            let mut map = http::HeaderMap::new();
            for (name, value) in trailers {
                map.insert(*name, http::HeaderValue::from_static(value));
            }
            stream.send_trailers(map).unwrap();
        }
        Manner::Reset => stream.send_reset(h2::Reason::NO_ERROR),
    }
    // Until the client has hung up.
    while connection.accept().await.is_some() {}
}

async fn answered(body: &[u8], manner: Manner) -> Result<Vec<Bytes>, CallError> {
    let (_directory, client, listener) = socket();
    let call = client.call(METHOD, None, b"", Deadline::in_(ANSWER));
    let (answer, ()) = tokio::join!(call, serve(listener, Bytes::copy_from_slice(body), manner));
    answer
}

/// Two messages, as they lie in a body.
fn two() -> Vec<u8> {
    [framed(b"one").unwrap(), framed(b"two").unwrap()].concat()
}

const GOOD: Manner = Manner::Trailers(&[("grpc-status", "0")]);

#[tokio::test]
async fn an_answer_with_a_good_end_is_one() {
    let answer = answered(&two(), GOOD).await;
    assert_eq!(answer.unwrap(), [&b"one"[..], b"two"]);
    assert_eq!(answered(b"", GOOD).await, Ok(Vec::new()));
    // "Trailers-Only": nothing comes behind the headers.
    let at_once = Manner::Head {
        status: 200,
        grpc: Some("0"),
        ends: true,
    };
    assert_eq!(answered(b"", at_once).await, Ok(Vec::new()));
}

// A list that has no end may be a part of one, and an empty one may be no list at all: who believes it removes what is in use.
#[tokio::test]
async fn an_answer_without_an_end_is_none() {
    let head = |status, grpc, ends| Manner::Head { status, grpc, ends };
    let no_end = CallError::Failed("the answer has no end".to_owned());
    for manner in [
        head(200, None, true),
        head(200, None, false),
        // It was said before the messages, and they may have been cut off.
        head(200, Some("0"), false),
        Manner::Trailers(&[]),
        Manner::Trailers(&[("grpc-message", "fine")]),
    ] {
        for body in [&two()[..], b""] {
            assert_eq!(
                answered(body, manner).await,
                Err(no_end.clone()),
                "{manner:?}"
            );
        }
    }
    let reset = answered(&two(), Manner::Reset).await;
    assert!(matches!(reset, Err(CallError::Failed(_))), "{reset:?}");
}

// A proxy on the way that has no server behind it.
#[tokio::test]
async fn an_answer_of_http_alone_is_none() {
    for (status, grpc, ends) in [
        (502, None, true),
        (502, None, false),
        (404, Some("0"), true),
        (204, None, true),
    ] {
        let manner = Manner::Head { status, grpc, ends };
        let answer = answered(b"", manner).await;
        let Err(CallError::Failed(why)) = &answer else {
            panic!("{manner:?}: {answer:?}");
        };
        assert!(why.contains(&status.to_string()), "{why}");
    }
}

#[tokio::test]
async fn a_refusal_is_one_wherever_it_is_said() {
    let at_once = Manner::Head {
        status: 200,
        grpc: Some("12"),
        ends: true,
    };
    let unknown = answered(b"", at_once).await.unwrap_err();
    assert!(unknown.is_unknown_method(), "{unknown}");
    let behind = Manner::Trailers(&[("grpc-status", "5"), ("grpc-message", "no such thing")]);
    let gone = answered(&two(), behind).await.unwrap_err();
    assert!(gone.is_not_found());
    assert_eq!(gone.to_string(), "gRPC status 5: no such thing");
    let odd = answered(&two(), Manner::Trailers(&[("grpc-status", "fine")])).await;
    assert!(matches!(odd, Err(CallError::Refused { .. })), "{odd:?}");
}

/// What a server sends, byte by byte: its settings, headers, two messages in one frame each, and trailers.
fn sent() -> Vec<u8> {
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // A header that stands in no table, with its name and its value.
    let status = [&[0, 11][..], b"grpc-status", &[1], b"0"].concat();
    [
        frame(4, 0, 0, b""),
        // The eighth of the table that everybody has: `:status: 200`.
        frame(1, 4, 1, &[0x88]),
        frame(0, 0, 1, &framed(b"one").unwrap()),
        frame(0, 0, 1, &framed(b"two").unwrap()),
        frame(1, 5, 1, &status),
    ]
    .concat()
}

// A runtime that is killed while it answers, at every byte: never a shorter list.
#[tokio::test]
async fn an_answer_that_is_cut_off_anywhere_is_none() {
    let whole = sent();
    for length in 0..=whole.len() {
        let (_directory, client, listener) = socket();
        let bytes = &whole[..length];
        let serving = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream.shutdown().await.unwrap();
            // What the client says is taken until it hangs up.
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        };
        let call = client.call(METHOD, None, b"", Deadline::in_(ANSWER));
        let (answer, ()) = tokio::join!(call, serving);
        if length == whole.len() {
            assert_eq!(answer.unwrap(), [&b"one"[..], b"two"]);
        } else {
            assert!(
                matches!(answer, Err(CallError::Failed(_))),
                "{length}: {answer:?}"
            );
        }
    }
}

// What was not told is no empty list: neither without an end, nor without the one message that a list has. A list in several
// messages may have none.
#[tokio::test]
async fn a_list_that_was_not_told_is_not_empty() {
    let cut = Manner::Head {
        status: 200,
        grpc: None,
        ends: true,
    };
    for manner in [cut, GOOD] {
        let deadline = Deadline::in_(ANSWER);
        let (_directory, client, listener) = socket();
        let serving = serve(listener, Bytes::new(), manner);
        let (records, ()) = tokio::join!(client.records(deadline), serving);
        assert!(records.is_err(), "{manner:?}");
        let (_directory, client, listener) = socket();
        let serving = serve(listener, Bytes::new(), manner);
        let (leases, ()) = tokio::join!(client.leases(deadline), serving);
        assert!(leases.is_err(), "{manner:?}");
        let (_directory, client, listener) = socket();
        let serving = serve(listener, Bytes::new(), manner);
        let (blobs, ()) = tokio::join!(client.blobs(deadline), serving);
        let is_told = matches!(manner, Manner::Trailers(_));
        assert_eq!(
            blobs.is_ok_and(|blobs| blobs.is_empty()),
            is_told,
            "{manner:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_and_silence_are_told_apart() {
    let (directory, client, listener) = socket();
    let silent = client.call(METHOD, None, b"", Deadline::in_(ANSWER)).await;
    assert_eq!(silent, Err(CallError::Silent(ANSWER)));
    drop(listener);
    let down = client.call(METHOD, None, b"", Deadline::in_(ANSWER)).await;
    assert!(matches!(down, Err(CallError::Down(_))), "{down:?}");
    drop(directory);
}
