//! The store, asked through its own gateway for JSON, which every etcd since 3.4 has on the port of its clients.
//!
//! A member tells its status by itself, and its alarms only with a leader: the status is asked for first, and counts alone.
//! Where it listens, with which certificates, and where its data are, its manifest says. Nothing here writes but [`mend`].

mod mend;

use std::path::{Path, PathBuf};

use ::http::Method;
use nagi_runtime::Deadline;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::endpoint::{Call, CallError, Handshake, HandshakeError, Trust, call, handshake};
use crate::observed::{Etcd, EtcdAnswer, EtcdStatus, Looked, StaticPod, Unseen};
use crate::root::Root;
pub(crate) use mend::{Mender, Place};

const DATA_DIR: &str = "/var/lib/etcd";
/// Where etcd listens unless its flags say otherwise.
const CLIENT_URL: &str = "http://127.0.0.1:2379";
/// The metric with the quota.
/// The alarm of a member above its quota.
const NO_SPACE: &str = "NOSPACE";
const QUOTA: &str = "etcd_server_quota_backend_bytes ";

/// Where and how a member is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) url: String,
    /// As the node calls it; as its container does where that is not known.
    pub(crate) data_dir: PathBuf,
    pub(crate) is_placed: bool,
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct Status {
    header: Header,
    #[serde(default)]
    version: String,
    #[serde(default, rename = "dbSize")]
    db_size: Number,
    #[serde(default, rename = "dbSizeInUse")]
    db_size_in_use: Number,
    #[serde(default)]
    leader: Number,
}

#[derive(Debug, Deserialize)]
struct Header {
    #[serde(default)]
    member_id: Number,
    #[serde(default)]
    revision: Number,
}

#[derive(Debug, Deserialize)]
struct Alarms {
    #[serde(default)]
    alarms: Vec<Alarm>,
}

#[derive(Debug, Deserialize)]
struct Alarm {
    #[serde(default)]
    alarm: String,
    #[serde(default, rename = "memberID")]
    member: Number,
}

/// A number of 64 bits, which JSON of gRPC writes as text; absent when it is zero. What is no number is no answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
struct Number(u64);

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Plain(u64),
}

/// What keeps a member from answering.
enum Silence {
    Refused,
    Failed(String),
    /// Somebody is there.
    Odd(String),
}

// === impl Member ===

impl Member {
    /// Out of the manifest.
    pub(crate) fn of(pod: &StaticPod) -> Self {
        let path = |flag: &str| {
            let value = pod.flag(flag).filter(|value| !value.is_empty());
            value.map(PathBuf::from)
        };
        // Its flags name paths of its container.
        let file = |flag: &str| path(flag).map(|path| pod.on_the_node(&path).unwrap_or(path));
        let inside = path("data-dir").unwrap_or_else(|| DATA_DIR.into());
        let data_dir = pod.on_the_node(&inside);
        let urls = pod.flag("listen-client-urls").unwrap_or(CLIENT_URL);
        let is_own = |url: &&str| url.contains("//127.0.0.1:") || url.contains("//localhost:");
        let url = urls
            .split(',')
            .find(is_own)
            .or_else(|| urls.split(',').next())
            .unwrap_or(CLIENT_URL);
        // What listens on every address listens on this one.
        let url = url.replace("//0.0.0.0:", "//127.0.0.1:");
        Self {
            url: url.trim_end_matches('/').to_owned(),
            is_placed: data_dir.is_some(),
            data_dir: data_dir.unwrap_or(inside),
            authority: file("trusted-ca-file"),
            certificate: file("cert-file"),
            key: file("key-file"),
        }
    }
}

/// What there is of a member in files.
pub(crate) struct Files {
    broken: Vec<PathBuf>,
    keys: Keys,
}

/// Reads what it takes to ask a member.
///
/// # Errors
/// It cannot be read, which says nothing about the member.
pub(crate) fn files(root: &Root, member: &Member) -> Looked<Files> {
    Ok(Files {
        broken: broken(root, &member.data_dir),
        keys: Keys::read(root, member).map_err(Unseen::Failed)?,
    })
}

/// Asks a member.
pub(crate) async fn look(member: Member, files: Files, deadline: Deadline) -> Etcd {
    let Files { broken, keys } = files;
    let ask = Ask {
        member: &member,
        keys: &keys,
        deadline,
    };
    let answer = match Box::pin(ask.everything()).await {
        Ok(status) => EtcdAnswer::Status(status),
        Err(Silence::Refused) => EtcdAnswer::Refused,
        Err(Silence::Failed(why)) => EtcdAnswer::Failed(why),
        Err(Silence::Odd(why)) => EtcdAnswer::Odd(why),
    };
    Etcd {
        endpoint: member.url,
        data_dir: member.data_dir,
        is_placed: member.is_placed,
        point: None,
        answer,
        broken,
    }
}

/// The quota is a gauge that Prometheus writes as a number with an exponent: `2.147483648e+09`.
fn quota(metrics: &str) -> Option<u64> {
    let line = metrics.lines().find_map(|line| line.strip_prefix(QUOTA))?;
    let value: f64 = line.trim().parse().ok()?;
    (value > 0.0)
        .then(|| format!("{value:.0}").parse().ok())
        .flatten()
}

/// Files of a store that an etcd which met a full disk could not finish, and has not run with since: it renames them when it
/// starts, which their change of state has, and writes its data when it runs.
fn broken(root: &Root, data_dir: &Path) -> Vec<PathBuf> {
    let directory = data_dir.join("member/snap");
    let entries = root.list(&directory).unwrap_or_default();
    let data = entries.iter().find(|entry| entry.name == "db");
    let last_write = data.and_then(|data| data.modified);
    entries
        .iter()
        .filter(|entry| entry.name.ends_with(".snap.broken"))
        .filter(|entry| last_write.is_none() || entry.changed > last_write)
        .map(|entry| directory.join(&entry.name))
        .collect()
}

/// The certificates of a member.
struct Keys {
    authority: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Keys {
    fn read(root: &Root, member: &Member) -> Result<Self, String> {
        let read = |path: &Option<PathBuf>| {
            let Some(path) = path else {
                return Ok(None);
            };
            match root.read(path) {
                Ok(bytes) => Ok(Some(bytes)),
                // That it is not there is said of the manifest that names it.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        };
        Ok(Self {
            authority: read(&member.authority)?,
            client: read(&member.certificate)?.zip(read(&member.key)?),
        })
    }
}

/// A connection to a member.
enum Opened {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

fn silent(error: &CallError, path: &str) -> Silence {
    Silence::Failed(match error {
        CallError::TimedOut => format!("no answer to {path} in time"),
        CallError::Closed => format!("the connection was closed at {path}"),
        CallError::Failed(why) => why.clone(),
    })
}

/// One member, with what it takes to ask it.
#[derive(Clone, Copy)]
struct Ask<'a> {
    member: &'a Member,
    keys: &'a Keys,
    deadline: Deadline,
}

impl Ask<'_> {
    async fn everything(&self) -> Result<EtcdStatus, Silence> {
        let (status, metrics) = tokio::join!(
            self.json::<Status>("/v3/maintenance/status", "{}"),
            self.text(Method::GET, "/metrics", None),
        );
        let status = status?;
        let leader = status.leader.value();
        let own = status.header.member_id.value();
        let alarms = self.alarms(leader != 0).await;
        let is_own = |one: &Alarm| one.alarm == NO_SPACE && one.member.value() == own && own != 0;
        let is_alarm_own = alarms
            .as_deref()
            .is_ok_and(|alarms| alarms.iter().any(is_own));
        let alarms = alarms.map(|alarms| alarms.into_iter().map(|one| one.alarm).collect());
        Ok(EtcdStatus {
            version: status.version,
            db_size: status.db_size.value(),
            db_size_in_use: status.db_size_in_use.value(),
            quota: metrics.ok().as_deref().and_then(quota),
            has_leader: leader != 0,
            is_leader: leader != 0 && leader == own,
            is_alarm_own,
            alarms,
        })
    }

    /// The alarms go through raft: they are asked for once a leader is known, and that they do not come says nothing of the
    /// rest.
    async fn alarms(&self, has_leader: bool) -> Looked<Vec<Alarm>> {
        if !has_leader {
            return Err(Unseen::Failed(
                "etcd tells its alarms only with a leader".to_owned(),
            ));
        }
        let told = self
            .json::<Alarms>("/v3/maintenance/alarm", r#"{"action":"GET"}"#)
            .await;
        match told {
            Ok(told) => Ok(told.alarms),
            Err(Silence::Refused) => Err(Unseen::Failed(
                "etcd ended before it told its alarms".to_owned(),
            )),
            Err(Silence::Failed(why) | Silence::Odd(why)) => {
                Err(Unseen::Failed(format!("its alarms: {why}")))
            }
        }
    }

    async fn json<T: DeserializeOwned>(&self, path: &str, body: &str) -> Result<T, Silence> {
        let text = self.text(Method::POST, path, Some(body.to_owned())).await?;
        serde_json::from_str(&text)
            .map_err(|error| Silence::Odd(format!("{path} answers as no etcd does: {error}")))
    }

    async fn text(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
    ) -> Result<String, Silence> {
        let request = self.request(method, path, body)?;
        let answer = match self.open().await? {
            Opened::Plain(stream) => call(stream, &request, self.deadline).await,
            Opened::Tls(stream) => call(*stream, &request, self.deadline).await,
        };
        let answer = answer.map_err(|error| silent(&error, path))?;
        if answer.status != 200 {
            let head: String = answer.text.chars().take(200).collect();
            return Err(Silence::Odd(format!(
                "{path} answers {}: {head}",
                answer.status
            )));
        }
        Ok(answer.text)
    }

    fn request(&self, method: Method, path: &str, body: Option<String>) -> Result<Call, Silence> {
        Ok(Call {
            method,
            host: self.address()?.1.to_owned(),
            path: path.to_owned(),
            token: None,
            body,
        })
    }

    fn address(&self) -> Result<(&str, &str), Silence> {
        let url = &self.member.url;
        url.split_once("://")
            .ok_or_else(|| Silence::Failed(format!("{url} is no URL")))
    }

    /// A connection, over TLS where the member has it.
    async fn open(&self) -> Result<Opened, Silence> {
        let failed = Silence::Failed;
        let (scheme, address) = self.address()?;
        let connecting = self.deadline.timeout(TcpStream::connect(address)).await;
        let stream = match connecting {
            Err(_) => return Err(failed("no connection in time".to_owned())),
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                return Err(Silence::Refused);
            }
            Ok(Err(error)) => return Err(failed(error.to_string())),
        };
        if scheme != "https" {
            return Ok(Opened::Plain(stream));
        }
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let trust = Trust {
            authority: self.keys.authority.as_deref(),
            name: host,
            client: self.keys.client.as_ref(),
        };
        let Handshake { stream, .. } = handshake(stream, &trust, self.deadline).await;
        let stream = stream.map_err(|error| match error {
            HandshakeError::TimedOut => failed("no handshake in time".to_owned()),
            HandshakeError::Closed => failed("the connection was closed".to_owned()),
            // It has a certificate, or says that it does not accept ours.
            HandshakeError::Name
            | HandshakeError::Expired
            | HandshakeError::NotYetValid
            | HandshakeError::UnknownAuthority
            | HandshakeError::Unusable(_)
            | HandshakeError::Failed(_) => Silence::Odd(format!("TLS: {error:?}")),
        })?;
        Ok(Opened::Tls(Box::new(stream)))
    }
}

// === impl Number ===

impl Number {
    const fn value(self) -> u64 {
        self.0
    }
}

impl TryFrom<Written> for Number {
    type Error = std::num::ParseIntError;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Text(text) => text.parse().map(Self),
            Written::Plain(number) => Ok(Self(number)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // D-09
    #[test]
    fn a_member_is_found_by_its_flags() {
        let pod = |flags: &[(&str, &str)]| StaticPod {
            name: "etcd".to_owned(),
            namespace: "kube-system".to_owned(),
            pod: "etcd".to_owned(),
            flags: flags
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            mounts: vec![
                ("/data".into(), Some("/mnt/disk".into())),
                ("/data/memory".into(), None),
            ],
            missing: Vec::new(),
        };
        let member = Member::of(&pod(&[
            (
                "listen-client-urls",
                "https://10.0.0.5:2379,https://127.0.0.1:2379",
            ),
            ("data-dir", "/data/etcd"),
        ]));
        assert_eq!(member.url, "https://127.0.0.1:2379");
        // Flags name paths of the container: another filesystem may be meant than that of this path on the node.
        assert_eq!(member.data_dir, Path::new("/mnt/disk/etcd"));
        assert!(member.is_placed);
        let member = Member::of(&pod(&[
            ("data-dir", "/data/memory/etcd"),
            ("key-file", "/data/key"),
        ]));
        assert!(!member.is_placed);
        assert_eq!(member.key, Some("/mnt/disk/key".into()));
        let member = Member::of(&pod(&[("listen-client-urls", "http://0.0.0.0:2379/")]));
        assert_eq!(member.url, "http://127.0.0.1:2379");
        assert_eq!(Member::of(&pod(&[])).data_dir, Path::new(DATA_DIR));
        assert!(!Member::of(&pod(&[])).is_placed);
    }

    // etcd renames a snapshot that it cannot read and goes on: what is older than its data took nothing down.
    #[test]
    fn a_broken_snapshot_counts_until_etcd_writes_again() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let snap = directory.path().join("var/lib/etcd/member/snap");
        std::fs::create_dir_all(&snap).unwrap();
        std::fs::write(snap.join("1.snap.broken"), "x").unwrap();
        let found = || broken(&root, Path::new("/var/lib/etcd")).len();
        assert_eq!(found(), 1, "there is no db at all");
        let db = std::fs::File::create(snap.join("db")).unwrap();
        let now = db.metadata().unwrap().modified().unwrap();
        let hour = std::time::Duration::from_hours(1);
        db.set_modified(now + hour).unwrap();
        assert_eq!(found(), 0);
        db.set_modified(now - hour).unwrap();
        assert_eq!(found(), 1);
    }

    #[test]
    fn numbers_of_etcd_are_text_and_its_zeros_are_absent() {
        let text =
            r#"{"header":{"member_id":"12"},"version":"3.5.17","dbSize":"4096","leader":"12"}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.db_size.value(), 4096);
        assert_eq!(status.db_size_in_use.value(), 0);
        assert_eq!(status.leader, status.header.member_id);
        assert_eq!(
            quota("# HELP\netcd_server_quota_backend_bytes 6.7108864e+07\n"),
            Some(64 << 20)
        );
        assert_eq!(quota(""), None);
        // Unknown is not zero.
        for bad in [
            r#"{"header":{},"dbSizeInUse":"many"}"#,
            r#"{"header":{"member_id":""}}"#,
        ] {
            assert!(serde_json::from_str::<Status>(bad).is_err(), "{bad}");
        }
    }
}
