//! The faults that Nagi is put through, what was seen, and the pages made of both.
//!
//! [`CASES`] is the list: what breaks, what must hold meanwhile and afterwards, and which test proves it. Most run on a real
//! control plane (`e2e/tests/faults`); what a real one will not do, a double does in tests of the crates. A run on the real one
//! that is asked to writes down what it saw, in [`RECORD`], and [`pages`] puts the two together for people.

mod cases;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::files;

pub use cases::CASES;

/// What was seen, from the root of the working copy.
pub const RECORD: &str = "e2e/faults.json";

/// The English page and its twin.
const PAGES: [(&str, Language); 2] = [
    ("docs/faults.md", Language::English),
    ("docs/ja/faults.md", Language::Japanese),
];

/// The same in both languages of the documents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words<Text = String> {
    /// In English.
    pub english: Text,
    /// In Japanese.
    pub japanese: Text,
}

/// A fault, and what Nagi owes when it happens.
#[derive(Debug)]
pub struct Case {
    /// What breaks.
    pub fault: Words<&'static str>,
    /// What must hold.
    pub holds: Words<&'static str>,
    /// Which test proves it.
    pub proof: Proof,
}

/// Where a case is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// On a real control plane, by the test of this name.
    Real(&'static str),
    /// The same, and it takes longer than a minute: not in every run.
    Long(&'static str),
    /// Before a double, by these tests of a file; they run with all other tests.
    Double {
        /// From the root of the working copy.
        file: &'static str,
        /// Names of its functions.
        tests: &'static [&'static str],
    },
}

/// What one run of a case saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// The day, as `YYYY-MM-DD` in UTC.
    pub day: String,
    /// How long it took, in seconds.
    pub seconds: u64,
    /// What was seen.
    pub seen: Words,
}

/// What was seen, by the name of the test.
pub type Sights = BTreeMap<String, Sight>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Language {
    English,
    Japanese,
}

/// The real case that a test proves.
pub fn case_of(test: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.proof.real() == Some(test))
}

/// Writes down what a test saw, in the record below `root`.
///
/// # Errors
/// There is no case of this name, or the record cannot be read or written.
pub fn record(root: &Path, test: &str, took: Duration, seen: Words) -> anyhow::Result<()> {
    ensure!(
        case_of(test).is_some(),
        "no case of e2e/src/faults/cases.rs is proven by '{test}'"
    );
    let path = root.join(RECORD);
    let mut sights: Sights = files::load(&path)?.unwrap_or_default();
    let sight = Sight {
        day: today().strftime("%Y-%m-%d").to_string(),
        seconds: took.as_secs(),
        seen,
    };
    sights.insert(test.to_owned(), sight);
    let all = serde_json::to_string_pretty(&sights).context("write what was seen")?;
    // It is committed, so everyone may read it.
    std::fs::write(&path, format!("{all}\n")).with_context(|| format!("write {}", path.display()))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the day on which a developer ran a test"
)]
fn today() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The generated pages: each path from the root of the working copy, and its text.
///
/// # Errors
/// The record cannot be read, or holds a test that proves nothing.
pub fn pages(root: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let sights = read(root)?;
    Ok(PAGES
        .iter()
        .map(|&(path, language)| (path, language.page(CASES, &sights)))
        .collect())
}

fn read(root: &Path) -> anyhow::Result<Sights> {
    let sights: Sights = files::load(&root.join(RECORD))?.unwrap_or_default();
    if let Some(name) = sights.keys().find(|name| case_of(name).is_none()) {
        bail!("{RECORD} tells of '{name}', which proves no case: delete it there");
    }
    Ok(sights)
}

/// The file of a double's test, and the name of a function that it must have.
pub fn doubles() -> impl Iterator<Item = (PathBuf, &'static str)> {
    CASES.iter().flat_map(|case| {
        let (file, tests): (&str, &[&str]) = match case.proof {
            Proof::Double { file, tests } => (file, tests),
            Proof::Real(_) | Proof::Long(_) => ("", &[]),
        };
        tests.iter().map(move |&test| (PathBuf::from(file), test))
    })
}

// === impl Proof ===

impl Proof {
    /// The test on a real control plane.
    pub const fn real(self) -> Option<&'static str> {
        match self {
            Self::Real(test) | Self::Long(test) => Some(test),
            Self::Double { .. } => None,
        }
    }
}

// === impl Words ===

impl Words {
    /// Two texts that say the same.
    pub fn new(english: impl Into<String>, japanese: impl Into<String>) -> Self {
        Self {
            english: english.into(),
            japanese: japanese.into(),
        }
    }
}

impl<Text: AsRef<str>> Words<Text> {
    fn of(&self, language: Language) -> &str {
        match language {
            Language::English => self.english.as_ref(),
            Language::Japanese => self.japanese.as_ref(),
        }
    }
}

// === impl Language ===

impl Language {
    fn page(self, cases: &[Case], sights: &Sights) -> String {
        let mut lines = vec![self.opening().to_owned()];
        for case in cases {
            let (seen, last, place) = self.proven(case.proof, sights);
            let cells = [
                case.fault.of(self),
                case.holds.of(self),
                &seen,
                &last,
                &place,
            ]
            .map(|cell| cell.replace('|', "\\|"));
            lines.push(format!("| {} |", cells.join(" | ")));
        }
        lines.join("\n")
    }

    /// What was seen, when, and where.
    fn proven(self, proof: Proof, sights: &Sights) -> (String, String, String) {
        let pick = |english: &str, japanese: &str| {
            match self {
                Self::English => english,
                Self::Japanese => japanese,
            }
            .to_owned()
        };
        let (test, place) = match proof {
            Proof::Double { file, tests } => {
                let tests: Vec<String> = tests.iter().map(|test| format!("`{test}`")).collect();
                let file = format!("[{}](", file.rsplit('/').next().unwrap_or(file))
                    + match self {
                        Self::English => "../",
                        Self::Japanese => "../../",
                    }
                    + file
                    + ")";
                return (
                    format!("{} ({file})", tests.join(", ")),
                    pick("with every `make test`", "`make test` のたび"),
                    pick("double", "代役"),
                );
            }
            Proof::Real(test) => (test, pick("real", "実物")),
            Proof::Long(test) => (test, pick("real, `make soak`", "実物(`make soak`)")),
        };
        let Some(sight) = sights.get(test) else {
            return (
                pick("not yet run", "まだ実行していません"),
                "-".to_owned(),
                place,
            );
        };
        let last = match self {
            Self::English => format!("{}, {} s", sight.day, sight.seconds),
            Self::Japanese => format!("{}、{} 秒", sight.day, sight.seconds),
        };
        (sight.seen.of(self).to_owned(), last, place)
    }

    const fn opening(self) -> &'static str {
        match self {
            Self::English => ENGLISH,
            Self::Japanese => JAPANESE,
        }
    }
}

const ENGLISH: &str = "\
# Faults

What Nagi was put through on a Kubernetes, what must hold, and what was seen.

In every row three things must hold beside its own: nothing that was promised is lost, nothing runs twice, and every answer says
what is true.
Two replicas of `nagi server` take part, with the rights that `src/api` gives them, before a real API server, etcd, controllers
and scheduler; the nodes and their pods are played unless the row says otherwise.
The writes are counted in the API server's audit log.

`make test-cluster` runs the rows that take less than a minute, `make soak` runs all and writes this page anew.
Rows that say \"double\" are what a real API server will not do when asked: they run before a double of it, with all other tests.

| Fault | What must hold | What was seen | Last run | On |
|---|---|---|---|---|";

const JAPANESE: &str = "\
# 障害試験

Kubernetes 上で Nagi に起こした障害と、そのとき守るべきこと、そして実際に観測した結果の一覧です。

どの行でも、行ごとの条件に加えて次の三つを確かめます。約束したことが失われないこと、二重に実行されないこと、そして応答が事実だけを述べることです。
`src/api` の権限だけを持つ `nagi server` を二つ動かし、本物の API サーバー、etcd、コントローラー、スケジューラーにつなぎます。
断りのない限り、ノードとその上の Pod は模擬したものです。
書き込みの回数は API サーバーの監査ログで数えます。

`make test-cluster` は一分以内に終わる行を実行し、`make soak` はすべてを実行してこのページを書き直します。
「代役」とある行は、頼んでも本物の API サーバーが起こしてくれない障害です。API サーバーの代役を相手に、ほかのテストと一緒に実行します。

| 障害 | 守るべきこと | 観測結果 | 最終実行 | 対象 |
|---|---|---|---|---|";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn every_case_before_a_double_names_tests_that_exist() {
        for (file, test) in doubles() {
            let text = std::fs::read_to_string(root().join(&file)).expect("the file is there");
            assert!(
                text.contains(&format!("fn {test}(")),
                "{} has no {test}",
                file.display()
            );
        }
    }

    #[test]
    fn every_case_on_a_real_control_plane_has_a_test_of_its_own_and_was_seen() {
        let sights = read(&root()).expect("the record is true");
        let mut names = BTreeSet::new();
        for test in CASES.iter().filter_map(|case| case.proof.real()) {
            assert!(names.insert(test), "{test} proves two cases");
            assert!(
                sights.contains_key(test),
                "{test} was never seen: make soak"
            );
        }
    }

    #[test]
    fn a_page_shows_what_was_seen_in_its_language_and_keeps_its_columns() {
        let case = |proof| Case {
            fault: Words {
                english: "a | b",
                japanese: "障害",
            },
            holds: Words {
                english: "all",
                japanese: "全部",
            },
            proof,
        };
        let double = Proof::Double {
            file: "crates/kube/tests/engine/faults.rs",
            tests: &["one"],
        };
        let cases = [case(Proof::Real("x")), case(Proof::Long("y")), case(double)];
        let sight = Sight {
            day: "2026-01-02".to_owned(),
            seconds: 7,
            seen: Words::new("it held", "守られた"),
        };
        let sights = Sights::from([("x".to_owned(), sight)]);
        let english = Language::English.page(&cases, &sights);
        assert!(
            english.contains("| a \\| b | all | it held | 2026-01-02, 7 s | real |\n"),
            "{english}"
        );
        assert!(
            english.contains("| not yet run | - | real, `make soak` |"),
            "{english}"
        );
        assert!(
            english.ends_with(
                "`one` ([faults.rs](../crates/kube/tests/engine/faults.rs)) | with every `make test` | double |"
            ),
            "{english}"
        );
        let japanese = Language::Japanese.page(&cases, &sights);
        assert!(
            japanese.contains("| 障害 | 全部 | 守られた | 2026-01-02、7 秒 | 実物 |\n"),
            "{japanese}"
        );
    }

    #[test]
    fn what_was_seen_is_kept_and_replaced_and_a_stranger_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("e2e")).expect("a directory in it");
        let test = CASES
            .iter()
            .find_map(|case| case.proof.real())
            .expect("there is one");
        for text in ["first", "second"] {
            let seen = Words::new(text, text);
            record(directory.path(), test, Duration::from_secs(3), seen).expect("it is written");
        }
        let sights = read(directory.path()).expect("it is read");
        assert_eq!(sights.len(), 1);
        assert_eq!(sights[test].seen.english, "second");
        let seen = Words::new("", "");
        assert!(record(directory.path(), "nobody", Duration::ZERO, seen).is_err());
    }
}
