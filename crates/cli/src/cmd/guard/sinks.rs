//! The ways on which an alert reaches people while a disk is full: none of them needs a byte of a disk of this node.
//!
//! Every alert goes to the log (stdout, which is a pipe to journald or to the container runtime), to the local syslog socket,
//! and, where they are set, as a datagram to a syslog server and as a POST to a webhook. The line of the founding document goes
//! to its file as well, which may fail on a full disk, and fails alone. Sockets are opened at the start, and again where they
//! fail: a network may come later than the guard.
//!
//! A webhook has a task and a bounded queue of its own, so that one that does not answer delays nobody. So has the file, in
//! [`scribe`]: its disk may be the one in trouble.

pub(super) mod scribe;

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use nagi_guard::{Alert, Cause};
use nagi_runtime::{Backoff, Deadline, Shutdown};
use nagi_telemetry::Metrics;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use self::scribe::Scribe;
use super::alert;
use super::words;

/// Where a syslog of the node listens, below its root; the second is journald's own, to which the first is often a link.
const LOCAL: [&str; 2] = ["dev/log", "run/systemd/journal/dev-log"];
/// Alerts that wait for the webhook, or for the file: a node that goes through every level on every disk has fewer.
const WAITING_MAX: usize = 64;
/// One POST, from the connection to the answer.
const POST_TIME: Duration = Duration::from_secs(5);
/// An alert that could not be handed over in so many attempts (about seven minutes) is given up; the next one begins anew.
const ATTEMPTS_MAX: u32 = 12;

/// Where alerts go, beside the log.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    pub(super) alert_log: Option<PathBuf>,
    pub(super) syslog: Option<SocketAddr>,
    pub(super) webhook: Option<Url>,
}

/// The address of a webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    authority: String,
    host: String,
    port: u16,
    path: String,
}

/// Every way, opened.
#[derive(Debug)]
pub(super) struct Sinks {
    node: String,
    alert_log: Option<mpsc::Sender<Vec<u8>>>,
    local: Option<UnixDatagram>,
    root: PathBuf,
    syslog: Option<Remote>,
    webhook: Option<mpsc::Sender<Vec<u8>>>,
    metrics: Metrics,
}

/// A syslog server.
#[derive(Debug)]
struct Remote {
    to: SocketAddr,
    /// None where there was no way to it yet.
    socket: Option<UdpSocket>,
}

/// What takes from the queues.
#[derive(Debug)]
pub(super) struct Takers {
    pub(super) postman: Option<Postman>,
    pub(super) scribe: Option<Scribe>,
}

/// The other end of the webhook's queue.
#[derive(Debug)]
pub(super) struct Postman {
    url: Url,
    waiting: mpsc::Receiver<Vec<u8>>,
    metrics: Metrics,
}

/// Why a POST was not taken.
#[derive(Debug, Error)]
enum PostError {
    #[error("it did not answer within 5 s")]
    Late,
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    #[error("the exchange failed")]
    Exchange(#[source] hyper::Error),
    #[error("no request can be made of its URL")]
    Request(#[source] hyper::http::Error),
    #[error("it answered {0}")]
    Refused(u16),
}

/// Reads the URL of a webhook. There is no TLS in this build, as in the client of the API.
pub(super) fn parse_url(text: &str) -> Result<Url, String> {
    let rule = || "must be like http://HOST:PORT/PATH; TLS is not in this build".to_owned();
    let uri: Uri = text.parse().map_err(|_| rule())?;
    let authority = uri.authority().ok_or_else(rule)?;
    let is_plain = uri.scheme_str() == Some("http") && !authority.as_str().contains('@');
    if !is_plain || authority.host().is_empty() {
        return Err(rule());
    }
    let port = match authority.port_u16() {
        Some(port) if port != 0 => port,
        // A number that is no port reads like none at all.
        None if authority.as_str() == authority.host() => 80,
        Some(_) | None => return Err(rule()),
    };
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    Ok(Url {
        host: host.to_owned(),
        port,
        authority: authority.to_string(),
        path: uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned(),
    })
}

// === impl PostError ===

impl PostError {
    /// The same alert may be taken later. Whoever refuses it as such does so again; 408, 425 and 429 ask for patience.
    const fn may_pass(&self) -> bool {
        match self {
            Self::Late | Self::Connect(_) | Self::Exchange(_) => true,
            Self::Request(_) => false,
            Self::Refused(code) => matches!(*code, 408 | 425 | 429) || *code >= 500,
        }
    }
}

// === impl Sinks ===

impl Sinks {
    /// Opens every way. One that cannot be opened is told in the log, and the others do without it.
    pub(super) fn open(ways: &Ways, root: &Path, metrics: Metrics) -> (Self, Takers) {
        let (webhook, postman) = match &ways.webhook {
            Some(url) => {
                let (sender, waiting) = mpsc::channel(WAITING_MAX);
                let postman = Postman {
                    url: url.clone(),
                    waiting,
                    metrics: metrics.clone(),
                };
                (Some(sender), Some(postman))
            }
            None => (None, None),
        };
        let (alert_log, scribe) = match &ways.alert_log {
            Some(path) => {
                let (sender, waiting) = mpsc::channel(WAITING_MAX);
                let below = path.strip_prefix("/").unwrap_or(path);
                let scribe = Scribe::new(root.join(below), waiting, metrics.clone());
                (Some(sender), Some(scribe))
            }
            None => (None, None),
        };
        let sinks = Self {
            node: node(),
            alert_log,
            local: open_local(root).ok(),
            root: root.to_owned(),
            syslog: ways.syslog.map(Remote::open),
            webhook,
            metrics,
        };
        (sinks, Takers { postman, scribe })
    }

    /// Hands an alert to every way, and waits for none.
    pub(super) fn tell(&mut self, alert: &Alert) {
        self.log(alert);
        self.local(alert);
        if let Some(syslog) = &mut self.syslog {
            let text = alert::syslog(alert, &self.node);
            let sent = syslog.send(text.as_bytes());
            self.count("syslog", sent);
        }
        if let Some(webhook) = &self.webhook
            && let Ok(body) = alert::json(alert, &self.node)
            && webhook.try_send(body).is_err()
        {
            // The oldest are at the head: what waits there says as much of the node.
            self.metrics.disk_alert("webhook", "dropped");
        }
        if let (Some(file), Some(line)) = (&self.alert_log, alert::line(alert))
            && file.try_send(format!("{line}\n").into_bytes()).is_err()
        {
            // Its disk does not answer, for as long as it takes to fill the queue: the other ways have it.
            self.metrics.disk_alert("alert-log", "dropped");
        }
    }

    fn log(&self, alert: &Alert) {
        let disk = alert.point.display().to_string();
        let (resource, fullness) = (alert.resource.name(), alert.level.name());
        let (cause, message) = (alert::cause(alert.cause), alert::sentence(alert));
        let line = alert::line(alert);
        if alert.level >= nagi_guard::Level::Serious || alert.cause == Cause::Silent {
            tracing::error!(
                disk,
                resource,
                fullness,
                cause,
                line,
                alert = message,
                "Disk alert"
            );
        } else {
            tracing::warn!(
                disk,
                resource,
                fullness,
                cause,
                line,
                alert = message,
                "Disk alert"
            );
        }
        self.metrics.disk_alert("log", "taken");
    }

    /// The local syslog may be restarted: then its socket is another one.
    fn local(&mut self, alert: &Alert) {
        let text = alert::local_syslog(alert, &self.node);
        let hand_over = |socket: &UnixDatagram| socket.send(text.as_bytes()).map(drop);
        let mut sent = self.local.as_ref().map(hand_over);
        if !matches!(sent, Some(Ok(()))) {
            self.local = open_local(&self.root).ok();
            sent = self.local.as_ref().map(hand_over).or(sent);
        }
        // A machine without a syslog has lost nothing.
        if let Some(sent) = sent {
            self.count("local-syslog", sent);
        }
    }

    fn count(&self, sink: &'static str, sent: io::Result<()>) {
        count(&self.metrics, sink, sent);
    }
}

/// Says whether a way took an alert.
fn count(metrics: &Metrics, sink: &'static str, sent: io::Result<()>) {
    match sent {
        Ok(()) => metrics.disk_alert(sink, "taken"),
        Err(error) => {
            metrics.disk_alert(sink, "failed");
            tracing::warn!(sink, error = %error, "Alert was not taken");
        }
    }
}

// === impl Remote ===

impl Remote {
    fn open(to: SocketAddr) -> Self {
        let socket = opened_or_told("syslog", open_syslog(to));
        Self { to, socket }
    }

    /// A server that was away answers the datagram before with an error, which this one would get in place of being sent.
    fn send(&mut self, text: &[u8]) -> io::Result<()> {
        let sent = self.socket.take().and_then(|socket| {
            socket.send(text).ok()?;
            Some(socket)
        });
        if sent.is_none() {
            let socket = open_syslog(self.to)?;
            socket.send(text)?;
            self.socket = Some(socket);
        } else {
            self.socket = sent;
        }
        Ok(())
    }
}

// === impl Postman ===

impl Postman {
    /// Posts what waits, until the process drains.
    pub(super) async fn run(mut self, shutdown: Shutdown) {
        loop {
            let body = tokio::select! {
                // Cancel-safe: a message that was not taken is kept.
                body = self.waiting.recv() => body,
                // Cancel-safe: a state, not an event.
                () = shutdown.draining() => None,
            };
            let Some(body) = body else {
                // Nobody tells any more: this ends with the process and not before.
                shutdown.draining().await;
                break;
            };
            tokio::select! {
                // Cancel-safe: what was not handed over is given up with the process.
                () = self.deliver(&body) => {}
                // Cancel-safe: a state, not an event.
                () = shutdown.draining() => break,
            }
        }
    }

    async fn deliver(&self, body: &[u8]) {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_mins(1), 1);
        loop {
            let posted = Deadline::in_(POST_TIME)
                .timeout(post(&self.url, body))
                .await;
            let error = match posted {
                Ok(Ok(())) => {
                    self.metrics.disk_alert("webhook", "taken");
                    return;
                }
                Ok(Err(error)) => error,
                Err(_passed) => PostError::Late,
            };
            tracing::warn!(sink = "webhook", error = %words(&error), "Alert was not taken");
            if !error.may_pass() || backoff.attempts() >= ATTEMPTS_MAX {
                self.metrics.disk_alert("webhook", "failed");
                return;
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

/// One POST over a connection of its own.
async fn post(url: &Url, body: &[u8]) -> Result<(), PostError> {
    let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
    let stream = TokioIo::new(stream.map_err(PostError::Connect)?);
    let (mut sender, connection) = http1::handshake(stream)
        .await
        .map_err(PostError::Exchange)?;
    let request = Request::post(&url.path)
        .header(HOST, &url.authority)
        .header(CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_vec()));
    let request = request.map_err(PostError::Request)?;
    let answered = async {
        let answer = sender.send_request(request).await;
        answer.map_err(PostError::Exchange)
    };
    tokio::pin!(answered);
    let answer = tokio::select! {
        // Cancel-safe: pinned and polled again below.
        answer = answered.as_mut() => answer?,
        // Cancel-safe: once it has ended it has handed over whatever came.
        ended = connection => {
            ended.map_err(PostError::Exchange)?;
            answered.await?
        }
    };
    if answer.status().is_success() {
        Ok(())
    } else {
        Err(PostError::Refused(answer.status().as_u16()))
    }
}

fn opened_or_told<T>(sink: &'static str, opened: io::Result<T>) -> Option<T> {
    match opened {
        Ok(opened) => Some(opened),
        Err(error) => {
            tracing::warn!(sink, error = %error, "Alerts do not go there yet");
            None
        }
    }
}

/// Hands one line to the syslog of the node, which works on a full disk. A machine without one has lost nothing.
pub(super) fn tell_local(root: &Path, text: &str) {
    let sent = open_local(root).and_then(|socket| socket.send(text.as_bytes()));
    drop(sent);
}

fn open_local(root: &Path) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    let mut tried = LOCAL.iter().map(|path| socket.connect(root.join(path)));
    tried
        .find(Result::is_ok)
        .unwrap_or(Err(io::ErrorKind::NotFound.into()))?;
    Ok(socket)
}

fn open_syslog(to: SocketAddr) -> io::Result<UdpSocket> {
    let own: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(own)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}

/// The name of this machine; a `DaemonSet` says that of the node in `NAGI_NODE`.
#[expect(
    clippy::disallowed_methods,
    reason = "the composition root reads the environment"
)]
fn node() -> String {
    let named = std::env::var("NAGI_NODE")
        .ok()
        .filter(|name| !name.trim().is_empty());
    let host = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = named.unwrap_or_else(host);
    // What no syslog header may hold.
    name.chars().filter(char::is_ascii_graphic).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // What the network was at the start, or a server at the last alert, is no reason to say nothing now.
    #[test]
    fn a_syslog_server_that_was_away_gets_the_next_alert() {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = server.local_addr().unwrap();
        drop(server);
        let mut remote = Remote::open(to);
        drop(remote.send(b"nobody hears it"));
        let server = UdpSocket::bind(to).unwrap();
        server
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut datagram = [0; 64];
        remote.send(b"second").unwrap();
        let length = server.recv(&mut datagram).unwrap();
        assert_eq!(&datagram[..length], b"second");
        // There was no way to it when it was opened.
        remote.socket = None;
        remote.send(b"third").unwrap();
        let length = server.recv(&mut datagram).unwrap();
        assert_eq!(&datagram[..length], b"third");
    }

    // A webhook that refuses an alert as such is not asked again, and holds up no other: it has one attempt.
    #[tokio::test]
    async fn a_webhook_that_refuses_is_not_asked_again() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

        let server = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let url = parse_url(&format!("http://{}/", server.local_addr().unwrap())).unwrap();
        let (_sender, waiting) = mpsc::channel(1);
        let log = nagi_telemetry::Log::start(
            nagi_telemetry::LevelFilter::default(),
            nagi_telemetry::Sink::Writer(Box::new(io::sink())),
        )
        .unwrap();
        let postman = Postman {
            url,
            waiting,
            metrics: Metrics::new("0", log.lines_dropped()),
        };
        for (answers, asked) in [
            (&["404"][..], 1),
            (&["400"], 1),
            (&["503", "429", "204"], 3),
        ] {
            let serve = async {
                for code in answers {
                    let (mut stream, _) = server.accept().await.unwrap();
                    let mut request = vec![0; 4096];
                    assert!(stream.read(&mut request).await.unwrap() > 0);
                    let answer = format!(
                        "HTTP/1.1 {code} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                    );
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                answers.len()
            };
            let both = async { tokio::join!(serve, postman.deliver(b"{}")) };
            // One that asks again does so for minutes.
            let ended = tokio::time::timeout(Duration::from_secs(30), both).await;
            let (count, ()) = ended.unwrap();
            assert_eq!(count, asked, "{answers:?}");
        }
    }

    #[test]
    fn a_webhook_is_reached_by_plain_http() {
        let url = parse_url("http://[::1]:8080/a?b=c").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.path.as_str()),
            ("::1", 8080, "/a?b=c")
        );
        assert_eq!(url.authority, "[::1]:8080");
        let plain = parse_url("http://alerts").unwrap();
        assert_eq!((plain.port, plain.path.as_str()), (80, "/"));
        for wrong in [
            "https://a",
            "alerts:80",
            "http://u:p@a/",
            "ftp://a",
            "http://a:99999/",
            "http://a:0",
            "http://[::1]:65536",
            "",
            "/a",
        ] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
    }
}
