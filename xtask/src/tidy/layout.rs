//! Paths and sections that the founding documents, or other pages, count on are there (A-064, A-141, A-146, A-147,
//!
//!
//! A row is added with the change that brings its path, and stays: so a later clean-up cannot lose one silently.

use super::Finding;
use crate::checkout::TextFile;

const RULE: &str = "layout";

/// What must be there.
struct Row {
    path: &'static str,
    /// Words that it must hold; empty when only its being there counts.
    holds: &'static str,
    /// Who counts on it.
    reason: &'static str,
}

/// Every such path.
const ROWS: &[Row] = &[
    Row {
        path: "LICENSE",
        holds: "MIT License",
        reason: "A-147",
    },
    Row {
        path: "ARCHITECTURE.md",
        holds: "## Invariants",
        reason: "the map of the code",
    },
    Row {
        path: "CHANGELOG.md",
        holds: "",
        reason: "users read what changed",
    },
    Row {
        path: "CONTRIBUTING.md",
        holds: "## Rules that machines check",
        reason: "ARCHITECTURE.md sends readers there",
    },
    Row {
        path: "SECURITY.md",
        holds: "",
        reason: "where to report a weakness",
    },
    Row {
        path: ".ci/run",
        holds: "make test",
        reason: "CI calls it",
    },
    Row {
        path: ".github/workflows/ci.yml",
        holds: "make -C tests/unit ci",
        reason: "A-188",
    },
    Row {
        path: "tests/unit/Makefile",
        holds: "",
        reason: "A-185",
    },
    Row {
        path: "README.md",
        holds: "## Differences from the specification",
        reason: "A-146",
    },
    Row {
        path: "README.ja.md",
        holds: "",
        reason: "Japanese readers start there",
    },
    Row {
        path: "STYLE.md",
        holds: "",
        reason: "reviewers point to its rules",
    },
    Row {
        path: "docs/operations-guide.md",
        holds: "",
        reason: "A-064",
    },
    Row {
        path: "docs/troubleshooting.md",
        holds: "",
        reason: "A-064",
    },
    Row {
        path: "docs/plan.md",
        holds: "",
        reason: "A-064",
    },
    Row {
        path: "docs/api-reference.md",
        holds: "",
        reason: "A-064",
    },
    Row {
        path: "docs/cli.md",
        holds: "",
        reason: "the README sends readers there",
    },
    Row {
        path: "docs/configuration.md",
        holds: "",
        reason: "the README sends readers there",
    },
    Row {
        path: "docs/local-engine.md",
        holds: "",
        reason: "the README sends readers there",
    },
    Row {
        path: "docs/glossary.md",
        holds: "",
        reason: "it decides which word is used",
    },
    Row {
        path: "src/api/README.md",
        holds: "cargo run",
        reason: "A-142: a local run starts there",
    },
    Row {
        path: "src/api/Dockerfile",
        holds: "FROM scratch",
        reason: "A-166",
    },
    Row {
        path: "src/api/kustomization.yaml",
        holds: "manifests/deployment.yaml",
        reason: "A-169",
    },
    Row {
        path: "src/api/manifests/deployment.yaml",
        holds: "name: scale-api",
        reason: "A-015",
    },
    Row {
        path: "src/api/manifests/rbac.yaml",
        holds: "scale-api-role",
        reason: "A-019",
    },
    Row {
        path: "src/api/manifests/service.yaml",
        holds: "name: scale-api",
        reason: "A-014",
    },
    Row {
        path: "src/api/manifests/serviceaccount.yaml",
        holds: "scale-api-sa",
        reason: "A-019",
    },
    Row {
        path: "src/samples/app-a/manifests/deployment.yaml",
        holds: "sample-app-a",
        reason: "A-023",
    },
    Row {
        path: "src/samples/app-b/manifests/deployment.yaml",
        holds: "sample-app-b",
        reason: "A-084",
    },
    Row {
        path: "src/samples/app-b/models/resnet50/config.pbtxt",
        holds: "resnet50",
        reason: "A-173",
    },
    Row {
        path: "manifests/nvidia-plugin/nvidia-device-plugin-ds.yaml",
        holds: "nvidia-device-plugin-daemonset",
        reason: "A-115",
    },
    Row {
        path: "docs/install.md",
        holds: "",
        reason: "the other guides send readers there",
    },
];

/// Checks all paths; `texts` are the files whose text a row asks about.
pub(super) fn check(paths: &[String], texts: &[TextFile]) -> Vec<Finding> {
    compare(ROWS, paths, texts)
}

/// Whether a row asks for the text of a file.
pub(super) fn wants(path: &str) -> bool {
    ROWS.iter().any(|row| row.path == path)
}

fn compare(rows: &[Row], paths: &[String], texts: &[TextFile]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for row in rows {
        let mut found = |advice: String| {
            findings.push(Finding {
                path: row.path.to_owned(),
                line: 1,
                rule: RULE,
                advice,
            });
        };
        if !paths.iter().any(|path| path == row.path) {
            found(format!("bring it back: it is missing ({})", row.reason));
        } else if !texts
            .iter()
            .any(|file| file.path == row.path && file.text.contains(row.holds))
        {
            found(format!("must hold '{}' ({})", row.holds, row.reason));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &[Row] = &[Row {
        path: "LICENSE",
        holds: "MIT License",
        reason: "A-147",
    }];

    fn advice(files: &[(&str, &str)]) -> Vec<String> {
        let texts: Vec<TextFile> = files
            .iter()
            .map(|(path, text)| TextFile {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        let paths: Vec<String> = texts.iter().map(|file| file.path.clone()).collect();
        compare(ROWS, &paths, &texts)
            .into_iter()
            .map(|finding| finding.advice)
            .collect()
    }

    #[test]
    fn path_that_is_missing_or_says_something_else_is_found() {
        assert_eq!(advice(&[("LICENSE", "MIT License\n")]), [""; 0]);
        assert_eq!(advice(&[]), ["bring it back: it is missing (A-147)"]);
        assert_eq!(
            advice(&[("LICENSE", "GPL\n")]),
            ["must hold 'MIT License' (A-147)"]
        );
    }
}
