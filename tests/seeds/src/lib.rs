//! The commands of the founding documents, letter by letter, and what each must do: `commands.yaml`, read.
//!
//! One table for every test that runs them: the log pipelines in `crates/telemetry`, everything that one machine can run
//! in `crates/cli/tests/system`, the rest against a Kubernetes. The table says of itself how many lines it must hold; the
//! tests below see to that, because the documents themselves are not in this repository.
//!
//! It runs none of them: a test does, where the command's world is, and hands over what came of it ([`Expectation::differences`]).
//! A development dependency only.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command as Program, Stdio};

use serde::Deserialize;

const TABLE: &str = include_str!("../commands.yaml");

/// What curl's settings must hold so that the status of each call can be judged: it is told where no pipe reads it, and as
/// on a terminal there is no progress.
pub const CURL_SETTINGS: &str = r#"
no-progress-meter
max-time = 30
write-out = "%{stderr}\nstatus %{http_code}\n"
"#;
const STATUS: &str = "status ";

/// A founding document, as far as its commands go.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// Its number.
    pub document: String,
    /// What it is.
    pub title: String,
    /// How many of its lines call curl.
    pub curl_lines: usize,
    /// How many of its lines call kubectl.
    pub kubectl_lines: usize,
    /// How many commands these lines make up.
    pub count: usize,
    /// The commands, in the order of the document.
    pub commands: Vec<Command>,
}

/// A command of a founding document.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The line of the document at which it starts.
    pub line: usize,
    /// The requirements that it answers to.
    pub rows: Vec<String>,
    /// What it needs beside the Scale API.
    pub needs: Needs,
    /// Why the run on Kubernetes leaves it out: a conflict, or a feature that is still to come.
    #[serde(default)]
    pub exempt: Option<String>,
    /// Whether it ends only when somebody ends it.
    #[serde(default)]
    pub endless: bool,
    /// Shell text that runs in front of it.
    #[serde(default)]
    pub before: Option<String>,
    /// What stands for its placeholders.
    #[serde(default)]
    pub substitute: BTreeMap<String, String>,
    /// Its text, letter by letter.
    pub command: String,
    /// What it does, world by world.
    pub expect: Vec<Expectation>,
}

/// What a command needs beside the Scale API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Needs {
    /// Nothing.
    None,
    /// A Kubernetes.
    Kubernetes,
}

/// What a command does in one world. The head of `commands.yaml` describes the fields.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expectation {
    /// The world.
    #[serde(rename = "in")]
    pub world: World,
    /// How many replicas there are before.
    #[serde(default = "one")]
    pub replicas: u32,
    /// The exit code.
    #[serde(default)]
    pub exit: i32,
    /// The status that curl got, each time; 0 is none at all.
    #[serde(default)]
    pub http: Option<u16>,
    /// A jq filter that is true of the output.
    #[serde(default)]
    pub holds: Option<String>,
    /// Words in the output.
    #[serde(default)]
    pub prints: Option<String>,
    /// Words that are not in the output.
    #[serde(default)]
    pub lacks: Option<String>,
    /// How many replicas it comes to afterwards.
    #[serde(default)]
    pub settles: Option<u32>,
    /// A shell command that succeeds afterwards.
    #[serde(default)]
    pub after: Option<String>,
}

/// What stands around a command while it runs. The head of `commands.yaml` describes each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// The Scale API with the sample app and without a key.
    Open,
    /// The same, on one machine only.
    Local,
    /// The same, on Kubernetes only.
    Kubernetes,
    /// The same with a key.
    Keyed,
    /// The same without the sample app.
    Empty,
    /// Nothing listens.
    Down,
    /// The Kubernetes API cannot be reached.
    Away,
    /// The Kubernetes API refuses the write.
    Refused,
    /// The log of a process, in the place of what `kubectl logs` prints.
    Log,
}

fn one() -> u32 {
    1
}

/// The documents, each with its commands.
///
/// # Panics
/// Never: the table is part of this crate, and a test reads it.
pub fn documents() -> Vec<Document> {
    serde_saphyr::from_str(TABLE).expect("the table of this crate can be read")
}

/// The command that starts at `line` of `document`.
///
/// # Panics
/// When there is none: the caller names a line that the document does not have.
pub fn command(document: &str, line: usize) -> Command {
    let found = documents()
        .into_iter()
        .find(|one| one.document == document)
        .and_then(|one| {
            one.commands
                .into_iter()
                .find(|command| command.line == line)
        });
    found.expect("a command of the table starts at that line")
}

// === impl Command ===

impl Command {
    /// The command with its placeholders filled in, and nothing else changed.
    pub fn filled(&self) -> String {
        self.substitute
            .iter()
            .fold(self.command.clone(), |text, (placeholder, value)| {
                text.replace(placeholder, value)
            })
    }
}

// === impl Expectation ===

impl Expectation {
    /// What is not as expected of a command that ended with `code`; `after` is for the caller to run.
    pub fn differences(&self, code: Option<i32>, printed: &str, errors: &str) -> Vec<String> {
        let mut differences = Vec::new();
        if code != Some(self.exit) {
            let ended = code.map_or_else(
                || "no exit code".to_owned(),
                |code| format!("exit code {code}"),
            );
            differences.push(format!("{ended}, not {}", self.exit));
        }
        let statuses: Vec<Option<u16>> = errors
            .lines()
            .filter_map(|line| line.strip_prefix(STATUS))
            .map(|status| status.parse().ok())
            .collect();
        if let Some(http) = self.http
            && (statuses.is_empty() || statuses.iter().any(|status| *status != Some(http)))
        {
            differences.push(format!("status {statuses:?}, not {http}"));
        }
        if let Some(words) = &self.prints
            && !printed.contains(words)
        {
            differences.push(format!("does not print '{words}'"));
        }
        if let Some(words) = &self.lacks
            && printed.contains(words)
        {
            differences.push(format!("prints '{words}'"));
        }
        if let Some(filter) = &self.holds
            && !holds(filter, printed)
        {
            differences.push(format!("does not hold: {filter}"));
        }
        // A log that jq cannot read may still print something.
        if self.world == World::Log && !errors.is_empty() {
            differences.push("complains".to_owned());
        }
        if !differences.is_empty() {
            differences.push(format!("printed: {printed}"));
            differences.push(format!("complained: {errors}"));
        }
        differences
    }
}

/// Whether a jq filter is true of a text.
#[expect(
    clippy::disallowed_methods,
    reason = "for tests only: what commands print is judged by the program that the documents pipe it into"
)]
fn holds(filter: &str, text: &str) -> bool {
    let mut jq = Program::new("jq")
        .args(["-e", filter])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("jq is there");
    let mut input = jq.stdin.take().expect("its input is piped");
    // A filter that cannot be read ends it before it has read anything; how it ends tells.
    let _written = input.write_all(text.as_bytes());
    drop(input);
    jq.wait().expect("jq ends").success()
}

// === impl World ===

impl World {
    /// Whether one machine without a Kubernetes can run the command itself there.
    pub fn is_here(self) -> bool {
        match self {
            Self::Open | Self::Local | Self::Keyed | Self::Empty | Self::Down => true,
            Self::Kubernetes | Self::Away | Self::Refused | Self::Log => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const REQUIREMENTS: &str = include_str!("../../../xtask/requirements.txt");

    fn each(mut check: impl FnMut(&Document, &Command, &str)) {
        for document in documents() {
            for command in &document.commands {
                let place = format!("{} line {}", document.document, command.line);
                check(&document, command, &place);
            }
        }
    }

    /// The lines of a command that hold `word` outside remarks.
    fn lines_with(command: &Command, word: &str) -> usize {
        let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
        let lines = command
            .command
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        lines
            .filter(|line| {
                line.split(|letter| !is_part(letter))
                    .any(|part| part == word)
            })
            .count()
    }

    #[test]
    fn no_line_of_the_documents_was_lost() {
        for document in documents() {
            let count = |word| -> usize {
                let commands = document.commands.iter();
                commands.map(|command| lines_with(command, word)).sum()
            };
            assert_eq!(
                (count("curl"), count("kubectl"), document.commands.len()),
                (document.curl_lines, document.kubectl_lines, document.count),
                "{}",
                document.document
            );
        }
        let named: Vec<String> = documents().into_iter().map(|one| one.document).collect();
        assert_eq!(named, ["000", "001", "002"]);
    }

    #[test]
    fn commands_stand_in_the_order_of_the_document_and_call_curl_or_kubectl() {
        let mut last = BTreeMap::<String, usize>::new();
        each(|document, command, place| {
            let before = last.insert(document.document.clone(), command.line);
            assert!(before < Some(command.line), "{place}: out of order");
            let calls = lines_with(command, "curl") + lines_with(command, "kubectl");
            assert!(calls > 0, "{place}: calls neither");
        });
    }

    #[test]
    fn rows_and_exemptions_exist_and_a_feature_is_the_one_of_its_row() {
        let features: BTreeMap<&str, BTreeSet<&str>> = REQUIREMENTS
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                Some((words.next()?, words.collect()))
            })
            .collect();
        each(|_, command, place| {
            assert!(!command.rows.is_empty(), "{place}: no row");
            for row in &command.rows {
                assert!(features.contains_key(row.as_str()), "{place}: no row {row}");
            }
            let Some(exempt) = command.exempt.as_deref() else {
                return;
            };
            assert!(features.contains_key(exempt), "{place}: no {exempt}");
            let of_rows = command
                .rows
                .iter()
                .any(|row| features[row.as_str()].contains(exempt));
            assert!(
                exempt.starts_with("K-") || of_rows,
                "{place}: {exempt} is not the feature of its rows"
            );
        });
    }

    #[test]
    fn every_placeholder_has_its_substitute_and_no_substitute_is_idle() {
        each(|_, command, place| {
            for placeholder in command.substitute.keys() {
                let found = command.command.contains(placeholder);
                assert!(found, "{place}: no {placeholder} in it");
            }
            let filled = command.filled();
            let is_name = |text: &str| {
                let letters = |letter: char| letter.is_ascii_lowercase() || letter == '-';
                !text.is_empty() && text.chars().all(letters)
            };
            for opened in filled.split('<').skip(1) {
                let name = opened.split_once('>').map_or("", |(name, _)| name);
                assert!(!is_name(name), "{place}: <{name}> is not filled in");
            }
            assert!(!filled.contains("/path/to/"), "{place}: a path is missing");
        });
    }

    #[test]
    fn every_thing_that_is_not_as_expected_is_told() {
        let expect = Expectation {
            world: World::Open,
            replicas: 1,
            exit: 0,
            http: Some(200),
            holds: Some(".a == 1".to_owned()),
            prints: Some("{".to_owned()),
            lacks: Some("null".to_owned()),
            settles: None,
            after: None,
        };
        let none = expect.differences(Some(0), r#"{"a":1}"#, "\nstatus 200\n");
        assert!(none.is_empty(), "{none:?}");
        for (code, printed, errors, wrong) in [
            (Some(1), r#"{"a":1}"#, "status 200", "exit code 1, not 0"),
            (None, r#"{"a":1}"#, "status 200", "no exit code, not 0"),
            (Some(0), r#"{"a":1}"#, "", "status [], not 200"),
            (Some(0), r#"{"a":1}"#, "status 200\nstatus 503", "Some(503)"),
            (Some(0), r#"{"a":2}"#, "status 200", "does not hold"),
            (Some(0), "", "status 200", "does not print"),
            (
                Some(0),
                r#"{"a":1,"b":null}"#,
                "status 200",
                "prints 'null'",
            ),
        ] {
            let told = expect.differences(code, printed, errors).join("\n");
            assert!(told.contains(wrong), "{told}");
        }
    }

    // Most programs end with 0 whatever they were answered, curl above all.
    #[test]
    fn every_expectation_of_what_runs_can_fail() {
        each(|_, command, place| {
            for expect in command.expect.iter().filter(|_| command.exempt.is_none()) {
                let Expectation {
                    world: _,
                    replicas: _,
                    exit,
                    http,
                    holds,
                    prints,
                    lacks,
                    settles,
                    after,
                } = expect;
                let texts = [holds, prints, lacks, after];
                let can_fail = *exit != 0
                    || http.is_some()
                    || settles.is_some()
                    || texts.into_iter().any(Option::is_some);
                assert!(can_fail, "{place}: whatever it prints passes");
            }
        });
    }

    #[test]
    fn what_a_command_needs_is_what_its_worlds_say() {
        each(|_, command, place| {
            let here = command.expect.iter().any(|expect| expect.world.is_here());
            assert_eq!(here, command.needs == Needs::None, "{place}");
            let worlds: BTreeSet<World> = command.expect.iter().map(|one| one.world).collect();
            assert!(!worlds.is_empty(), "{place}: nothing is expected");
            assert_eq!(worlds.len(), command.expect.len(), "{place}: a world twice");
        });
    }
}
