//! An API server behind a proxy, whose name only the proxy knows.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use nagi_kube::{Rights, Source};
use nagi_kube_double::{Double, objects};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::lab::Lab;

const CONFIG: &str = "\
apiVersion: v1
kind: Config
current-context: c
clusters: [{ name: c, cluster: { server: 'http://api.cluster.invalid:6443', proxy-url: 'PROXY' } }]
users: [{ name: u, user: { token: t } }]
contexts: [{ name: c, context: { cluster: c, user: u } }]
";

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy)]
enum Speech {
    Http,
    Socks5,
}

/// A proxy that carries bytes to `target`, whatever it was asked for, while `tasks` lives; and what it was asked.
async fn proxy(
    speech: Speech,
    target: SocketAddr,
    tasks: &mut JoinSet<()>,
) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let noted = Arc::clone(&noted);
            connections.spawn(async move {
                let words = match speech {
                    Speech::Http => greet_http(&mut client).await,
                    Speech::Socks5 => greet_socks5(&mut client).await,
                };
                noted.lock().unwrap().push(words);
                let mut server = TcpStream::connect(target).await.unwrap();
                // Either side may end it in its own way.
                copy_bidirectional(&mut client, &mut server).await.ok();
            });
        }
    });
    (address, asked)
}

/// CONNECT (RFC 9110, 9.3.6); gives its head.
async fn greet_http(client: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    String::from_utf8(head).unwrap()
}

/// SOCKS 5 (RFC 1928) with a password (RFC 1929); gives user, password and the name that is asked for.
async fn greet_socks5(client: &mut TcpStream) -> String {
    async fn counted(client: &mut TcpStream) -> String {
        let mut bytes = vec![0; client.read_u8().await.unwrap().into()];
        client.read_exact(&mut bytes).await.unwrap();
        String::from_utf8(bytes).unwrap()
    }
    assert_eq!(client.read_u8().await.unwrap(), 5);
    let methods = counted(client).await;
    assert!(methods.contains('\u{2}'), "a password is offered");
    client.write_all(&[5, 2]).await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), 1);
    let user = counted(client).await;
    let password = counted(client).await;
    client.write_all(&[1, 0]).await.unwrap();
    let mut request = [0; 4];
    client.read_exact(&mut request).await.unwrap();
    assert_eq!(request, [5, 1, 0, 3], "connect to a name");
    let name = counted(client).await;
    let port = client.read_u16().await.unwrap();
    client
        .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
        .await
        .unwrap();
    format!("{user} {password} {name}:{port}")
}

// Issue 4, item 2: full kubeconfig rules.
#[tokio::test]
async fn the_proxy_of_a_kubeconfig_leads_to_the_api_server() {
    for (speech, scheme, expected) in [
        (
            Speech::Http,
            "http",
            &["CONNECT api.cluster.invalid:6443 ", "Basic bWU6c0BjcmV0"][..],
        ),
        (
            Speech::Socks5,
            "socks5",
            &["me s@cret api.cluster.invalid:6443"][..],
        ),
    ] {
        let double = Double::start().await;
        double.put(objects::deployment("project-a", "sample-app-a", 2));
        let mut tasks = JoinSet::new();
        let (address, asked) = proxy(speech, double.address(), &mut tasks).await;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        let proxy = format!("{scheme}://me:s%40cret@{address}");
        std::fs::write(&path, CONFIG.replace("PROXY", &proxy)).unwrap();
        let source = Source::Rules {
            kubeconfig: Some(path.into()),
            home: None,
            context: None,
        };
        let lab = Lab::from_source(double, source, Rights::Full);
        lab.synced().await;
        lab.sees("the Deployment", |workload| workload.desired.0 == 2)
            .await;
        let asked = asked.lock().unwrap().join("\n");
        for words in expected {
            assert!(asked.contains(words), "no {words:?} in {asked}");
        }
    }
}
