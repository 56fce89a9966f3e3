//! Manifests: every crate inherits the lints, takes the version of a dependency from the workspace table, and that
//! table pins exact versions.
//!
//! So there is one place to read what the product is built from, and an update is a line that somebody chose.
//! What cargo itself reports (unknown keys, missing fields) is not repeated here.

use super::Finding;
use crate::checkout::TextFile;

const RULE: &str = "manifest";

/// Checks one `Cargo.toml`.
pub(super) fn check(file: &TextFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |line: usize, advice: String| {
        findings.push(Finding {
            path: file.path.clone(),
            line,
            rule: RULE,
            advice,
        });
    };
    let mut section = "";
    let mut inherits_lints = false;
    let mut is_package = false;
    let is_workspace = file.text.lines().any(|line| line.trim() == "[workspace]");
    for (index, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            section = line;
            is_package |= section == "[package]";
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        inherits_lints |= section == "[lints]" && line == "workspace = true";
        let in_table = section == "[workspace.dependencies]";
        if in_table && !line.contains("\"=") && !line.contains("path = ") {
            found(
                index + 1,
                "pin the exact version, as in \"=1.2.3\"".to_owned(),
            );
        }
        let of_crate = section.ends_with("dependencies]") && !in_table;
        if of_crate && !line.contains("workspace = true") && !is_workspace {
            found(
                index + 1,
                "take it from the workspace table: `NAME.workspace = true`".to_owned(),
            );
        }
    }
    // A workspace of its own (the fuzz targets) has its own table, and no lints to inherit.
    if is_package && !is_workspace && !inherits_lints {
        found(
            1,
            "inherit the lints: add `[lints]` with `workspace = true`".to_owned(),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_found(text: &str) -> Vec<usize> {
        let file = TextFile {
            path: "crates/a/Cargo.toml".to_owned(),
            text: text.to_owned(),
        };
        check(&file)
            .into_iter()
            .map(|finding| finding.line)
            .collect()
    }

    #[test]
    fn crate_inherits_lints_and_versions() {
        let head = "[package]\n[lints]\nworkspace = true\n[dependencies]\n";
        assert_eq!(
            lines_found(&format!(
                "{head}a.workspace = true\nb = {{ workspace = true, features = [] }}\n"
            )),
            [0; 0]
        );
        assert_eq!(lines_found(&format!("{head}a = \"1\"\n")), [5]);
        assert_eq!(
            lines_found(&format!(
                "{head}[target.'cfg(unix)'.dev-dependencies]\na = \"1\"\n"
            )),
            [6]
        );
        assert_eq!(lines_found("[package]\n[dependencies]\n"), [1]);
    }

    #[test]
    fn table_pins_exact_versions() {
        let head = "[workspace]\n[workspace.dependencies]\n";
        assert_eq!(
            lines_found(&format!("{head}a = \"=1.2.3\"\nb = {{ path = \"b\" }}\n")),
            [0; 0]
        );
        assert_eq!(
            lines_found(&format!("{head}a = {{ version = \"1\" }}\n")),
            [3]
        );
    }
}
