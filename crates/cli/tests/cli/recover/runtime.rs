//! A container runtime of some lines: real HTTP/2 on a real socket, and the containers that a test wants.

use std::path::Path;

use bytes::Bytes;

/// What a container does, as the CRI numbers it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Running = 1,
    Exited = 2,
}

/// Serves until the test process ends.
pub(crate) fn serve(socket: &Path, containers: &[(&str, State, u8)]) {
    let answer = Bytes::from(answer(containers));
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                drop(one(stream, answer.clone()).await);
            }
        });
    });
}

async fn one(stream: tokio::net::UnixStream, answer: Bytes) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(stream).await?;
    while let Some(call) = connection.accept().await {
        let (request, mut respond) = call?;
        let mut head = http::Response::builder().header("content-type", "application/grpc");
        let is_known = request.uri().path() == "/runtime.v1.RuntimeService/ListContainers";
        if !is_known {
            // "Unimplemented": it has no images.
            head = head.header("grpc-status", "12");
        }
        let mut stream = respond.send_response(head.body(()).unwrap(), !is_known)?;
        if !is_known {
            continue;
        }
        stream.send_data(answer.clone(), false)?;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
        stream.send_trailers(trailers)?;
    }
    Ok(())
}

fn answer(containers: &[(&str, State, u8)]) -> Vec<u8> {
    let mut message = Vec::new();
    for (name, state, attempt) in containers {
        let label = |key: &str, value: &str| {
            let key = format!("io.kubernetes.pod.{key}");
            field(
                8,
                &[field(1, key.as_bytes()), field(2, value.as_bytes())].concat(),
            )
        };
        // `NAMESPACE/POD/NAME`, or the name alone, as kubeadm has it.
        let mut words = name.rsplit('/');
        let name = words.next().unwrap();
        let pod = words.next().unwrap_or(name);
        let namespace = words.next().unwrap_or("kube-system");
        let metadata = [field(1, name.as_bytes()), vec![2 << 3, *attempt]].concat();
        let state = match state {
            State::Running => 1,
            State::Exited => 2,
        };
        let container = [
            field(1, b"0123456789abcdef"),
            field(3, &metadata),
            vec![6 << 3, state],
            label("namespace", namespace),
            label("name", &format!("{pod}-node-1")),
        ]
        .concat();
        message.extend(field(1, &container));
    }
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, &message].concat()
}

/// Shorter than 128 bytes, or its length takes two.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap();
    let mut field = vec![number << 3 | 2];
    if length < 128 {
        field.push(u8::try_from(length).unwrap());
    } else {
        field.extend([
            u8::try_from(length & 0x7f).unwrap() | 0x80,
            u8::try_from(length >> 7).unwrap(),
        ]);
    }
    field.extend_from_slice(bytes);
    field
}
