//! Modules, files and crates are named for what they hold: no `util`, `common`, `helpers`, `manager`, `misc`, and
//! no `mod.rs`.
//!
//! A drawer with a vague name collects code whose right place nobody looked for.

use super::Finding;
use crate::checkout::{TextFile, extension};

const RULE: &str = "module-name";

/// Names that say nothing about what is inside.
const VAGUE: &[&str] = &[
    "util",
    "utils",
    "utility",
    "utilities",
    "common",
    "helper",
    "helpers",
    "manager",
    "managers",
    "misc",
];

/// Checks the paths of all files and the modules that `sources` declare.
pub(super) fn check(paths: &[String], sources: &[TextFile]) -> Vec<Finding> {
    let in_paths = paths
        .iter()
        .filter(|path| extension(path) == Some("rs"))
        .filter_map(|path| of_path(path));
    let in_sources = sources.iter().flat_map(of_modules);
    in_paths.chain(in_sources).collect()
}

fn of_path(path: &str) -> Option<Finding> {
    let finding = |advice: String| Finding {
        path: path.to_owned(),
        line: 1,
        rule: RULE,
        advice,
    };
    if path.ends_with("/mod.rs") {
        return Some(finding(
            "name the file after the module, beside its directory: 'foo.rs' and 'foo/'".to_owned(),
        ));
    }
    let vague = path
        .trim_end_matches(".rs")
        .split('/')
        .find(|part| is_vague(part))?;
    Some(finding(advice(vague)))
}

fn of_modules(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(at) = words.iter().position(|word| *word == "mod") else {
            continue;
        };
        let declares = words
            .iter()
            .take(at)
            .all(|word| word.starts_with("pub") || *word == "crate)");
        let name = words
            .get(at + 1)
            .map(|word| word.trim_end_matches([';', '{', '}']));
        if let Some(name) = name.filter(|name| declares && is_vague(name)) {
            let advice = advice(name);
            findings.push(Finding {
                path: file.path.clone(),
                line: index + 1,
                rule: RULE,
                advice,
            });
        }
    }
    findings
}

fn is_vague(name: &str) -> bool {
    name.split(['-', '_']).any(|word| VAGUE.contains(&word))
}

fn advice(name: &str) -> String {
    format!("'{name}' says nothing about what is inside: name it for what it holds")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_found(path: &str, text: &str) -> Vec<usize> {
        let file = TextFile {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        check(&[path.to_owned()], &[file])
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn vague_file_and_directory_names_are_found() {
        for path in [
            "crates/core/src/util.rs",
            "crates/common/src/lib.rs",
            "crates/a/src/pool_manager.rs",
        ] {
            assert_eq!(lines_found(path, ""), [1], "{path}");
        }
        assert_eq!(lines_found("crates/a/src/pools.rs", ""), [0; 0]);
    }

    #[test]
    fn module_in_the_old_layout_is_found() {
        assert_eq!(lines_found("crates/a/src/pools/mod.rs", ""), [1]);
    }

    #[test]
    fn vague_module_in_a_file_is_found_on_its_line() {
        assert_eq!(
            lines_found(
                "a.rs",
                "mod pools;\npub(crate) mod helpers;\nmod misc {\n}\n"
            ),
            [2, 3]
        );
        assert_eq!(lines_found("a.rs", "// a mod common to all\n"), [0; 0]);
    }
}
