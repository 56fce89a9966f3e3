//! The jobs, as lines of a crontab and as units of systemd, and the script that one of them runs.
//!
//! The first three are those of the founding document (B-022 to B-025), to the minute.

use std::path::Path;

use super::{MARK, MARK_SCRIPT};
use crate::caps::seal::sealed;
use crate::clean::Reclaimer;

/// The script that the founding document names and never defines (K-41).
pub const SCRIPT: &str = "/usr/local/bin/disk-cleanup-check.sh";
/// The founding document's file of alerts.
const ALERTS: &str = "/var/log/disk-alert.log";
/// The script's own log.
const LOG: &str = "/var/log/disk-cleanup-check.log";

/// One job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its name; its unit has `nagi-disk-` before it.
    pub name: &'static str,
    /// What it is for.
    pub what: &'static str,
    /// When, as a crontab says it.
    pub when: &'static str,
    /// What is run.
    pub command: String,
    /// When, as systemd says it.
    calendar: &'static str,
    /// It prints a report, which cron would send by mail each time.
    reports: bool,
}

/// Every job, for a `nagi` that lies there.
pub(super) fn all(nagi: &Path) -> Vec<Job> {
    let nagi = nagi.display();
    let job = |name, what, when, calendar, command| Job {
        name,
        what,
        when,
        command,
        calendar,
        reports: name == "alert",
    };
    vec![
        job(
            "journal",
            "remove journals of more than two days",
            "0 5 * * *",
            "*-*-* 05:00:00",
            "/usr/bin/journalctl --vacuum-time=2d".to_owned(),
        ),
        job(
            "alert",
            "write the alert line while 90 % or more are used",
            "0 * * * *",
            "*-*-* *:00:00",
            format!("{nagi} guard check --alert-log {ALERTS}"),
        ),
        job(
            "cleanup",
            "clean disks that are above 80 %",
            "0 3 * * *",
            "*-*-* 03:00:00",
            SCRIPT.to_owned(),
        ),
        job(
            "weekly",
            "remove what can be downloaded again, images too, however full the disks are",
            "30 3 * * 0",
            "Sun *-*-* 03:30:00",
            format!("{SCRIPT} 0"),
        ),
    ]
}

/// The script: `nagi disk clean` does nothing on a disk that is at the limit or below, and its code tells how it ended. Above a
/// limit it leaves images to kubelet, which collects them by itself; without one, once a week, it has the runtime remove those
/// that nothing uses and that can be pulled again (B-035). The rules of `nagi disk clean` keep what is being pulled or was just
/// begun (N-4): while the runtime is at work it waits.
pub(super) fn script(nagi: &Path) -> String {
    let nagi = nagi.display();
    let files = Reclaimer::FILES.map(Reclaimer::name).join(",");
    let images = [Reclaimer::Pulls, Reclaimer::Images].map(Reclaimer::name);
    let images = images.join(",");
    let rest = format!(
        "
# Cleans disks that are fuller than a limit in percent (80 unless it is given), with what can be downloaded again, and
# writes down how that ended. Ends with the code of nagi disk clean: 0 done or nothing to do, 12 still above the limit.
limit=${{1:-80}}
kinds={files}
# Without a limit also the images that nothing uses.
test \"$limit\" != 0 || kinds=$kinds,{images}
for wait in 20 40 60 100 140 0; do
  said=$({nagi} disk clean --apply --yes --quiet --only \"$kinds\" --target \"$limit\" 2>&1)
  code=$?
  # 8: the container runtime, or another cleaner, is at work.
  if test \"$code\" != 8 || test \"$wait\" = 0; then break; fi
  sleep \"$wait\"
done
log() {{ printf '%s limit=%s code=%s\\n%s\\n' \"$(date)\" \"$limit\" \"$code\" \"$said\"; }}
# On a full disk the log may take nothing; then cron and the journal have it.
log >> {LOG} || log
exit \"$code\"
"
    );
    sealed(MARK_SCRIPT, &rest)
}

// === impl Job ===

impl Job {
    /// Its line in a crontab.
    pub fn line(&self) -> String {
        let rest = if self.reports { " > /dev/null" } else { "" };
        format!("{} {}{rest}", self.when, self.command)
    }

    /// The name of its timer.
    pub fn timer(&self) -> String {
        format!("nagi-disk-{}.timer", self.name)
    }

    /// Its units: what is run, and when.
    pub(super) fn units(&self) -> [(String, String); 2] {
        let Self {
            name,
            what,
            calendar,
            command,
            ..
        } = self;
        let service = format!(
            "\n[Unit]\nDescription=Nagi: {what}\n\n[Service]\nType=oneshot\nExecStart={command}\n"
        );
        let timer = format!(
            "\n[Unit]\nDescription=Nagi: {what}\n\n[Timer]\nOnCalendar={calendar}\n# After a night without power too.\nPersistent=true\n\n\
             [Install]\nWantedBy=timers.target\n"
        );
        [
            (format!("nagi-disk-{name}.service"), sealed(MARK, &service)),
            (self.timer(), sealed(MARK, &timer)),
        ]
    }
}
