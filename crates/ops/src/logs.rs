//! Lines of logs that mean something, from where each program of a node leaves them: the journal, the logs of the static
//! pods, and files that a person names.
//!
//! The journal is asked by `journalctl`, newest first, for the programs and words that matter and for the time that the
//! policy names; so a large journal does not hold the diagnosis up, and what is read until the deadline is the newest.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nagi_runtime::Deadline;
use serde::Deserialize;

use crate::ask::{AskError, Printed, ask};
use crate::classes::{WORDS, classify, joined};
use crate::observed::{Line, Looked, Manifest, StaticPod, Unseen};
use crate::root::Root;

/// Who writes to the journal, by the name that it gives itself.
const PROGRAMS: [&str; 7] = [
    "kubelet",
    "containerd",
    "etcd",
    "kernel",
    "k3s",
    "dockerd",
    "crio",
];
/// What goes on being wrong is said again within this time: kubelet syncs each pod every minute, and waits no longer than
/// five between two tries (`MaxContainerBackOff` of kubelet).
const TELLING: SignedDuration = SignedDuration::from_mins(5);
/// More lines say nothing new.
const LINES_MAX: usize = 2000;
/// Of a line so much is kept: the error stands at its end, and lines of kubelet have some kilobytes.
const LINE_MAX: usize = 2000;
/// Of the log of a container so much is read, from its end.
const TAIL: u64 = 128 << 10;
/// Of a file that a person names: the output of a tunnel has some lines, a saved log some thousand.
const NAMED_TAIL: u64 = 4 << 20;
/// Where journald keeps its files, in a directory for each machine.
pub(crate) const JOURNALS: [&str; 2] = ["/var/log/journal", "/run/log/journal"];
/// Directories of the logs of pods, as kubelet names them.
const POD_LOGS: &str = "/var/log/pods";

/// A line of `journalctl --output json`. A message that is no text comes as numbers.
#[derive(Debug, Deserialize)]
struct Entry {
    #[serde(rename = "MESSAGE", default)]
    message: Option<Message>,
    #[serde(rename = "SYSLOG_IDENTIFIER", default)]
    identifier: Option<String>,
    #[serde(rename = "__REALTIME_TIMESTAMP", default)]
    at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Message {
    Text(String),
    Bytes(Vec<u8>),
    Other(serde::de::IgnoredAny),
}

/// A line before it is understood.
#[derive(Debug, Clone)]
struct Raw {
    at: Option<Timestamp>,
    source: String,
    text: String,
}

/// What a journal had.
#[derive(Debug)]
pub(crate) struct Journal {
    /// The lines that mean something, oldest first.
    pub(crate) lines: Vec<Line>,
    /// Why older ones may be missing; none when all that was asked for was read, and of no consequence when what was read
    /// reaches back far enough ([`TELLING`]).
    pub(crate) cut: Option<Unseen>,
}

/// What the journal of the node has, since then; once it is known to be [`readable`].
///
/// # Errors
/// It cannot be read; in words.
pub(crate) async fn journal(
    path: &Path,
    (since, now): (Timestamp, Timestamp),
    deadline: Deadline,
) -> Looked<Journal> {
    let printed = ask("journalctl", &arguments(path, since), deadline)
        .await
        .map_err(|(AskError::NotThere(why) | AskError::Failed(why))| Unseen::Failed(why))?;
    if let Some(said) = printed.failed.as_deref().and_then(failure) {
        return Err(Unseen::Failed(format!("journalctl: {said}")));
    }
    of_printed(&printed, now)
}

fn of_printed(printed: &Printed, now: Timestamp) -> Looked<Journal> {
    let entries = entries(printed);
    let oldest = entries.first().and_then(|one| one.at);
    let lines = understood(entries);
    if lines.is_empty() && printed.is_cut {
        return Err(Unseen::Failed(
            "journalctl did not come to an end in time".to_owned(),
        ));
    }
    // It tells the newest first: what is missing is older than all that was read.
    let why = if printed.is_cut {
        Some("journalctl did not come to an end in time".to_owned())
    } else {
        let is_more = printed.text.lines().count() > LINES_MAX;
        is_more.then(|| format!("there are more than {LINES_MAX} lines of errors"))
    };
    let cut = why.map(|why| {
        let back = oldest.map_or_else(String::new, |at| format!(" only back to {at:.0}"));
        let told = format!("{why}: the journal was read{back}");
        let is_telling = oldest.is_some_and(|at| now.duration_since(at) >= TELLING);
        if is_telling && !printed.is_cut {
            Unseen::NotHere(format!("{told}; what is still wrong is in that, too"))
        } else {
            Unseen::Failed(told)
        }
    });
    Ok(Journal { lines, cut })
}

/// One journal can be opened. To who may not, journalctl shows nothing, as if nothing were written.
///
/// # Errors
/// There is none here, or none may be read; in words.
pub(crate) fn readable(root: &Root) -> Looked<()> {
    let mut denied = None;
    for directory in JOURNALS.map(Path::new) {
        for machine in root.list(directory).unwrap_or_default() {
            let below = directory.join(&machine.name);
            for file in root.list(&below).unwrap_or_default() {
                if !has_extension(&file.name, "journal") {
                    continue;
                }
                match root.file(&below.join(&file.name)) {
                    Ok(_) => return Ok(()),
                    Err(error) => denied = Some(format!("{}: {error}", below.display())),
                }
            }
        }
    }
    Err(match denied {
        Some(why) => Unseen::Failed(why),
        None => Unseen::NotHere("there is no journal".to_owned()),
    })
}

/// Why journalctl failed. That it found nothing is a failure without a word, or with none but of files that it passed over:
/// a crash leaves one that is damaged, which stays for years, and the others are read all the same.
fn failure(said: &str) -> Option<&str> {
    // Each has a line of its own, and one that this journalctl is too old for has a hint behind it.
    let is_passed_over =
        |line: &str| line.starts_with("Journal file ") || line.starts_with("Use SYSTEMD_LOG_LEVEL");
    said.lines()
        .find(|line| !line.trim().is_empty() && !is_passed_over(line))
}

fn arguments(root: &Path, since: Timestamp) -> Vec<String> {
    // An error that was split has its words in the second line, and its path in the first, which ends with a colon.
    let words = format!("{}|:\\s*$", WORDS.join("|"));
    let mut arguments = vec![
        "--quiet".to_owned(),
        "--no-pager".to_owned(),
        "--reverse".to_owned(),
        "--output=json".to_owned(),
        "--output-fields=MESSAGE,SYSLOG_IDENTIFIER".to_owned(),
        format!("--since=@{}", since.as_second()),
        // One more than is said, so that it is known whether there are more.
        format!("--lines={}", LINES_MAX + 1),
        "--case-sensitive=no".to_owned(),
        format!("--grep={words}"),
    ];
    if root != Path::new("/") {
        arguments.push(format!("--root={}", root.display()));
    }
    arguments.extend(
        PROGRAMS
            .iter()
            .map(|program| format!("--identifier={program}")),
    );
    arguments
}

/// The entries, oldest first.
fn entries(printed: &Printed) -> Vec<Raw> {
    let mut entries: Vec<Raw> = printed
        .text
        .lines()
        .filter_map(|line| serde_json::from_str::<Entry>(line).ok())
        .filter_map(|entry| {
            let micros: Option<i64> = entry.at.and_then(|at| at.parse().ok());
            Some(Raw {
                at: micros.and_then(|at| Timestamp::from_microsecond(at).ok()),
                source: entry.identifier.unwrap_or_default(),
                text: entry.message?.text(),
            })
        })
        .collect();
    entries.reverse();
    entries
}

/// The lines that mean something; what was split over two lines is put together first.
fn understood(raw: Vec<Raw>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut before: Option<Raw> = None;
    for one in raw {
        let whole = before
            .as_ref()
            .filter(|before| before.source == one.source)
            .and_then(|before| joined(&before.text, &one.text));
        let text = whole.unwrap_or_else(|| one.text.clone());
        if let Some(class) = classify(&one.source, &text) {
            lines.push(Line {
                at: one.at,
                source: one.source.clone(),
                class,
                text: shortened(&text),
                point: None,
            });
        }
        before = Some(one);
    }
    lines
}

/// On one line, and no longer than is kept; the end is what counts.
fn shortened(text: &str) -> String {
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let length = flat.chars().count();
    if length <= LINE_MAX {
        return flat;
    }
    let end: String = flat.chars().skip(length - LINE_MAX).collect();
    format!("…{end}")
}

/// What the pods of the control plane and the static pods of other namespaces wrote, since then: the newest log of each
/// container.
///
/// # Errors
/// The directory is there and cannot be read.
pub(crate) fn pods(root: &Root, manifests: &[Manifest], since: Timestamp) -> Looked<Vec<Line>> {
    let directory = Path::new(POD_LOGS);
    let entries = match root.list(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Unseen::NotHere(format!("{POD_LOGS} is not there")));
        }
        Err(error) => return Err(Unseen::Failed(format!("{POD_LOGS}: {error}"))),
    };
    let mut lines = Vec::new();
    let pods: Vec<&StaticPod> = manifests
        .iter()
        .filter_map(|one| one.pod.as_ref().ok())
        .collect();
    let is_ours = |name: &str| {
        name.starts_with("kube-system_") || pods.iter().any(|pod| is_log_of(pod, name))
    };
    for pod in entries.iter().filter(|one| is_ours(&one.name)) {
        let pod = directory.join(&pod.name);
        for container in root.list(&pod).unwrap_or_default() {
            let logs = pod.join(&container.name);
            let newest = root
                .list(&logs)
                .unwrap_or_default()
                .into_iter()
                .filter(|log| has_extension(&log.name, "log"))
                .max_by_key(|log| log.modified);
            let Some(newest) = newest else { continue };
            let Ok(text) = tail(root, &logs.join(newest.name), TAIL) else {
                continue;
            };
            let raw = text
                .lines()
                .filter_map(|line| of_container(&container.name, line));
            let recent = raw.filter(|one| one.at.is_none_or(|at| at >= since));
            lines.extend(understood(recent.collect()));
        }
    }
    Ok(lines)
}

/// `NAMESPACE_NAME-NODE_UID`: kubelet puts the name of the node behind that of the pod.
fn is_log_of(pod: &StaticPod, directory: &str) -> bool {
    let mut parts = directory.split('_');
    let name = |part: &str| {
        let rest = part.strip_prefix(pod.pod.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    parts.next() == Some(pod.namespace.as_str()) && parts.next().is_some_and(name)
}

/// `2026-01-01T00:00:00.000000000Z stderr F text`: the log format of the CRI.
fn of_container(source: &str, line: &str) -> Option<Raw> {
    let mut parts = line.splitn(4, ' ');
    let at: Timestamp = parts.next()?.parse().ok()?;
    let (_stream, _tag) = (parts.next()?, parts.next()?);
    Some(Raw {
        at: Some(at),
        source: source.to_owned(),
        text: parts.next()?.to_owned(),
    })
}

/// What a file says that a person named, without times.
///
/// # Errors
/// It cannot be read; in words.
pub(crate) fn named(path: &Path) -> Result<Vec<Line>, String> {
    let root = Root::open(Path::new("/")).map_err(|error| error.to_string())?;
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    let text = tail(&root, &path, NAMED_TAIL).map_err(|error| error.to_string())?;
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let raw = text.lines().map(|line| Raw {
        at: None,
        source: name.clone(),
        text: line.to_owned(),
    });
    Ok(understood(raw.collect()))
}

fn has_extension(name: &str, extension: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|one| one == extension)
}

/// The end of a file, from the first whole line.
fn tail(root: &Root, path: &Path, most: u64) -> std::io::Result<String> {
    let mut file = root.file(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if length <= most {
        return Ok(text);
    }
    let whole = text.split_once('\n').map(|(_, rest)| rest.to_owned());
    Ok(whole.unwrap_or(text))
}

/// The time from which lines count.
pub(crate) fn since(now: Timestamp, window: Duration) -> Timestamp {
    now.checked_sub(window).unwrap_or(Timestamp::MIN)
}

// === impl Message ===

impl Message {
    fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Bytes(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Self::Other(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::LineClass;

    // B-007, W-B14
    #[test]
    fn entries_of_a_journal_are_read_in_the_order_in_which_they_were_written() {
        let text = concat!(
            r#"{"__REALTIME_TIMESTAMP":"1767225602000000","SYSLOG_IDENTIFIER":"kubelet","MESSAGE":" no space left on device"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"1767225601000000","SYSLOG_IDENTIFIER":"kubelet","MESSAGE":"write /var/lib/kubelet/pods/a/etc-hosts:"}"#,
            "\nno json\n",
            r#"{"SYSLOG_IDENTIFIER":"etcd","MESSAGE":[111,107]}"#,
        );
        let printed = Printed {
            text: text.to_owned(),
            is_cut: false,
            failed: None,
        };
        let lines = understood(entries(&printed));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(
            lines[0].class,
            LineClass::NoSpace(Some("/var/lib/kubelet/pods/a/etc-hosts".into()))
        );
        assert_eq!(lines[0].at.unwrap().to_string(), "2026-01-01T00:00:02Z");
    }

    // What a deadline cut off is not known to be well.
    #[test]
    fn a_journal_that_was_cut_says_how_far_back_it_was_read() {
        let text = concat!(
            r#"{"__REALTIME_TIMESTAMP":"1767225602000000","SYSLOG_IDENTIFIER":"kubelet","MESSAGE":"write /a: no space left on device"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"1767225601000000","SYSLOG_IDENTIFIER":"kubelet","MESSAGE":"some"}"#,
            "\n",
            r#"{"__REALTIME_TIMESTAMP":"17672256"#,
        );
        let of = |text: &str, is_cut| {
            let printed = Printed {
                text: text.to_owned(),
                is_cut,
                failed: None,
            };
            of_printed(&printed, Timestamp::UNIX_EPOCH)
        };
        let cut = of(text, true).unwrap();
        assert_eq!(cut.lines.len(), 1);
        let Unseen::Failed(why) = cut.cut.unwrap() else {
            panic!("what is missing may be what is wrong");
        };
        assert!(why.ends_with("only back to 2026-01-01T00:00:01Z"), "{why}");
        assert_eq!(of(text, false).unwrap().cut, None);
        assert!(matches!(of("", true), Err(Unseen::Failed(_))));
        assert!(of("", false).unwrap().lines.is_empty());
    }

    // What is older than so many lines was not looked at, which is told like every other cut; as many and no more are all.
    #[test]
    fn a_journal_of_too_many_lines_says_how_far_back_it_was_read() {
        let printed = |lines: usize| {
            let line = |number: usize| {
                let at = 1_767_225_602_000_000 - u64::try_from(number).unwrap() * 1_000_000;
                format!(
                    r#"{{"__REALTIME_TIMESTAMP":"{at}","SYSLOG_IDENTIFIER":"kubelet","MESSAGE":"write /a: no space left on device"}}"#
                )
            };
            let text: Vec<String> = (0..lines).map(line).collect();
            Printed {
                text: text.join("\n"),
                is_cut: false,
                failed: None,
            }
        };
        let read_at = |lines: usize, now: &str| {
            let now = now.parse().unwrap();
            of_printed(&printed(lines), now).unwrap().cut
        };
        let soon = "2025-12-31T23:31:41Z";
        assert_eq!(read_at(LINES_MAX, soon), None);
        let told = "there are more than 2000 lines of errors: the journal was read only back to 2025-12-31T23:26:42Z";
        assert_eq!(
            read_at(LINES_MAX + 1, soon),
            Some(Unseen::Failed(told.to_owned()))
        );
        // What is still wrong would have been said again by then.
        let later = read_at(LINES_MAX + 1, "2025-12-31T23:31:42Z").unwrap();
        assert!(
            matches!(&later, Unseen::NotHere(why) if why.starts_with(told)),
            "{later:?}"
        );
        let arguments = arguments(Path::new("/"), Timestamp::UNIX_EPOCH);
        assert!(
            arguments.contains(&"--lines=2001".to_owned()),
            "{arguments:?}"
        );
    }

    // A static pod may be of any namespace; the pods of others are nobody's business here.
    #[test]
    fn logs_of_static_pods_are_read_in_every_namespace() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::open(directory.path()).unwrap();
        let log = "2026-01-01T00:00:00Z stderr F write /a: no space left on device\n";
        for pod in [
            "default_proxy-node-a_1",
            "default_proxyless_2",
            "other_proxy-node-a_3",
        ] {
            let container = directory
                .path()
                .join("var/log/pods")
                .join(pod)
                .join("haproxy");
            std::fs::create_dir_all(&container).unwrap();
            std::fs::write(container.join("0.log"), log).unwrap();
        }
        let manifest = Manifest {
            path: "/etc/kubernetes/manifests/proxy.yaml".into(),
            pod: Ok(StaticPod {
                name: "haproxy".to_owned(),
                namespace: "default".to_owned(),
                pod: "proxy".to_owned(),
                flags: Vec::new(),
                mounts: Vec::new(),
                missing: Vec::new(),
            }),
        };
        let read = |manifests: &[Manifest]| pods(&root, manifests, Timestamp::MIN).unwrap().len();
        assert_eq!(read(&[]), 0);
        assert_eq!(read(&[manifest]), 1);
    }

    #[test]
    fn a_damaged_journal_beside_good_ones_is_no_failure() {
        let damaged = "Journal file /var/log/journal/a/b.journal~ corrupted, ignoring file.";
        assert_eq!(failure(""), None);
        assert_eq!(failure(damaged), None);
        let said =
            format!("{damaged}\nNo journal files were opened due to insufficient permissions.");
        assert!(failure(&said).unwrap().starts_with("No journal files"));
    }

    #[test]
    fn logs_of_containers_have_their_time_in_front() {
        let line = "2026-01-01T00:00:00.5Z stderr F write /a: no space left on device";
        let raw = of_container("etcd", line).unwrap();
        assert_eq!(raw.text, "write /a: no space left on device");
        assert_eq!(raw.at.unwrap().to_string(), "2026-01-01T00:00:00.5Z");
        assert!(of_container("etcd", "no time here F x").is_none());
    }

    #[test]
    fn the_end_of_a_long_line_is_kept() {
        let long = format!("{}: no space left on device", "x".repeat(5000));
        let short = shortened(&long);
        assert!(short.ends_with("no space left on device"));
        assert_eq!(short.chars().count(), LINE_MAX + 1);
    }
}
