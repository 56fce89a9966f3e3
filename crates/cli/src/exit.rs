//! What the exit code of `nagi` means: one table, from which the help, the reference page and the tests are made.

use std::fmt::Write as _;
use std::process::ExitCode;

/// Why a command ended as it did. The numbers are an interface: scripts depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done.
    Done,
    /// Something failed that has no number of its own.
    Failed,
    /// The command line is wrong; nothing was sent.
    Usage,
    /// What was named does not exist.
    NotFound,
    /// No key, a wrong key, or a key that may not do this.
    Denied,
    /// The server understood and refused the request as it stands; or a plan was edited, or is too old.
    Refused,
    /// The server cannot be reached, or cannot answer for now.
    Unreachable,
    /// `--timeout` ran out while waiting. What was asked for goes on.
    TimedOut,
    /// Somebody else changed it meanwhile, or is at work on it.
    Conflict,
    /// Too many requests; come again later.
    Limited,
    /// The wake was given up.
    WakeFailed,
    /// `nagi preflight` found that something is missing.
    Missing,
    /// `nagi disk clean` did its plan, and a disk is fuller than its target all the same.
    AboveTarget,
    /// `nagi recover diagnose` found what is wrong.
    CauseFound,
    /// `nagi recover diagnose` saw nothing wrong, and could not look at everything.
    Unclear,
    /// `nagi recover run` brought the cluster back, and did not show that it stays so.
    NotStable,
    /// `nagi recover run` did not bring the cluster back.
    NotRecovered,
}

impl Exit {
    /// Every ending, in the order of its number.
    pub(crate) const ALL: [Self; 17] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::NotFound,
        Self::Denied,
        Self::Refused,
        Self::Unreachable,
        Self::TimedOut,
        Self::Conflict,
        Self::Limited,
        Self::WakeFailed,
        Self::Missing,
        Self::AboveTarget,
        Self::CauseFound,
        Self::Unclear,
        Self::NotStable,
        Self::NotRecovered,
    ];

    /// The exit code.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Denied => 4,
            Self::Refused => 5,
            Self::Unreachable => 6,
            Self::TimedOut => 7,
            Self::Conflict => 8,
            Self::Limited => 9,
            Self::WakeFailed => 10,
            Self::Missing => 11,
            Self::AboveTarget => 12,
            Self::CauseFound => 13,
            Self::Unclear => 14,
            Self::NotStable => 15,
            Self::NotRecovered => 16,
        }
    }

    /// What it means, for people.
    pub(crate) const fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed: an error inside the server or this program",
            Self::Usage => "wrong command line; nothing was sent",
            Self::NotFound => "no such workload, namespace, schedule or key",
            Self::Denied => "no key, a wrong key, or a key that may not do this",
            Self::Refused => {
                "refused as it stands: by the server, a plan that was edited or is too old, or what a person has to mend"
            }
            Self::Unreachable => "the server cannot be reached, or cannot answer for now",
            Self::TimedOut => "--timeout ran out while waiting; what was asked for goes on",
            Self::Conflict => "somebody else changed it meanwhile, or is at work on it",
            Self::Limited => "too many requests; come again later",
            Self::WakeFailed => "the wake was given up",
            Self::Missing => "preflight: something that Nagi needs is missing, or cannot be told",
            Self::AboveTarget => "disk clean: all was done, and a disk is still above its target",
            Self::CauseFound => "recover diagnose: something is wrong; the answer names it",
            Self::Unclear => {
                "recover diagnose: nothing wrong was seen, and not everything could be looked at"
            }
            Self::NotStable => "recover run: the cluster is up; that it stays so is not shown",
            Self::NotRecovered => "recover run: the cluster is not back; the answer names the rung",
        }
    }

    /// The table as text for the help.
    pub(crate) fn table() -> String {
        let mut text = String::from("Exit codes:\n");
        for exit in Self::ALL {
            // Writing to a string cannot fail.
            let _written = writeln!(text, "  {:>2}  {}", exit.code(), exit.meaning());
        }
        text
    }

    /// The ending that an HTTP status comes to.
    pub(crate) const fn of_status(status: u16) -> Self {
        match status {
            401 | 403 => Self::Denied,
            404 | 410 => Self::NotFound,
            409 | 412 => Self::Conflict,
            429 => Self::Limited,
            400..=499 => Self::Refused,
            502..=504 => Self::Unreachable,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_ending_has_a_number_of_its_own_in_order() {
        let codes: Vec<u8> = Exit::ALL.into_iter().map(Exit::code).collect();
        assert_eq!(codes, (0..=16).collect::<Vec<u8>>());
        let table = Exit::table();
        for exit in Exit::ALL {
            assert!(table.contains(&format!("{:>2}  {}\n", exit.code(), exit.meaning())));
        }
    }

    //
    #[test]
    fn statuses_of_the_api_map_to_stable_codes() {
        let rows = [
            (400, 5),
            (401, 4),
            (403, 4),
            (404, 3),
            (405, 5),
            (409, 8),
            (410, 3),
            (413, 5),
            (429, 9),
            (500, 1),
            (503, 6),
        ];
        for (status, code) in rows {
            assert_eq!(Exit::of_status(status).code(), code, "{status}");
        }
    }
}
