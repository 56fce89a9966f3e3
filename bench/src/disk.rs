//! G18 and the bars of the survey: how long `nagi disk` takes beside `du -s`, and how much memory it needs.
//!
//! Both walk the same tree in turns, so that whatever else the machine does slows both. The tree lies on the disk that
//! people build on and is in the cache of the kernel: what is compared is how the question is asked, not the disk.
//! `pdu` is built by a full run, and walks in turns with them; other programs of the kind (gdu, dua) are not built here.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nagi_e2e::wait;

use crate::report::{Report, Row, Sense, Weight};
use crate::statistics::{largest, median};
use crate::{Options, clock};

/// As many directories in a directory, three levels deep; with 19 files in each at the bottom it is a tree of 400,000 files
/// in 22,000 directories, the shape of a node's image layers.
const WIDE: [usize; 2] = [35, 29];
const FILES: usize = 19;
/// The memory of a process is asked this often. It only grows, so the last answer misses little.
const LOOK: Duration = Duration::from_millis(2);
const MEBIBYTE: f64 = 1_048_576.0;
/// Nothing takes longer unless it hangs.
const ENDED_MAX: Duration = Duration::from_mins(2);

/// One walk by one program.
#[derive(Debug, Clone, Copy)]
struct Walk {
    seconds: f64,
    /// The most memory that it had, in MiB.
    memory: f64,
}

/// Measures walks in turns.
pub(crate) fn measure(options: &Options, report: &mut Report) -> anyhow::Result<()> {
    let beside = options
        .nagi
        .parent()
        .context("the binary lies in a directory")?;
    let directory = tempfile::Builder::new()
        .prefix("bench-disk-")
        .tempdir_in(beside)
        .context("make a directory")?;
    let files = plant(directory.path(), options.pick(21, 3))?;
    let tree = directory.path();
    let du = || walk(program(Path::new("du")).arg("-s").arg(tree));
    let total = || walk(nagi(options).arg("--total").arg(tree));
    let whole = || walk(nagi(options).args(["--output", "json"]).arg(tree));
    // The first of each fills the caches.
    du()?;
    total()?;
    whole()?;
    let pdu = |program: &Path| {
        // What it counts by default are apparent sizes, and files with several names once for each.
        let how = ["--quantity", "block-size", "--deduplicate-hardlinks"];
        walk(self::program(program).args(how).arg(tree))
    };
    let (mut plain, mut sums, mut owned) = (Vec::new(), Vec::new(), Vec::new());
    let mut of_pdu = Vec::new();
    for _ in 0..options.pick(15, 5) {
        plain.push(du()?);
        sums.push(total()?);
        owned.push(whole()?);
        if let Some(program) = &options.pdu {
            of_pdu.push(pdu(program)?);
        }
    }
    let ratio = |walks: &[Walk]| over(walks, &plain);
    let middle = |walks: &[Walk]| median(&seconds(walks));
    let peer = |walks: &[Walk]| format!("{:.2} s, du -s {:.2} s", middle(walks), middle(&plain));
    let tree = format!("{files} files");
    report.row(Row {
        id: "B1",
        what: format!("`nagi disk` of {tree}, with owners, over `du -s`"),
        unit: "x",
        sense: Sense::AtMost,
        goal: 1.0,
        seen: ratio(&owned),
        peer: peer(&owned),
        weight: Weight::Gated {
            slack_when_quick: 2.0,
        },
    });
    report.row(Row {
        id: "G18",
        what: format!("`nagi disk --total` of {tree} over `du -s`"),
        unit: "x",
        sense: Sense::AtMost,
        goal: 0.45,
        seen: ratio(&sums),
        peer: peer(&sums),
        // It needs both cores for itself: a machine that does something else besides cannot decide it.
        weight: Weight::Printed,
    });
    beside_pdu(&owned, &of_pdu, &tree, report);
    let memory: Vec<f64> = owned.iter().map(|walk| walk.memory).collect();
    let peers: Vec<f64> = plain.iter().map(|walk| walk.memory).collect();
    report.row(Row {
        id: "B2",
        what: format!("`nagi disk` of {tree}, with owners: most memory"),
        unit: "MiB",
        sense: Sense::AtMost,
        goal: 12.0,
        seen: largest(&memory),
        peer: format!("du {:.1} MiB", largest(&peers)),
        weight: Weight::Gated {
            slack_when_quick: 1.0,
        },
    });
    report.rounds("du_seconds", &seconds(&plain));
    report.rounds("disk_total_seconds", &seconds(&sums));
    report.rounds("disk_owners_seconds", &seconds(&owned));
    report.skip(
        "disk at 5 million files",
        "the tree alone would take minutes: `cargo xtask soak` walks ten million",
    );
    Ok(())
}

fn beside_pdu(owned: &[Walk], of_pdu: &[Walk], tree: &str, report: &mut Report) {
    if of_pdu.is_empty() {
        report.skip("disk beside pdu", "a quick run does not build it");
        return;
    }
    let middle = |walks: &[Walk]| median(&seconds(walks));
    report.row(Row {
        id: "B1",
        what: format!("`nagi disk` of {tree}, with owners, over `pdu`"),
        unit: "x",
        sense: Sense::AtMost,
        goal: 1.25,
        seen: over(owned, of_pdu),
        peer: format!("{:.2} s, pdu {:.2} s", middle(owned), middle(of_pdu)),
        // Both use every core: a machine that does something else besides cannot decide it.
        weight: Weight::Printed,
    });
    report.rounds("pdu_seconds", &seconds(of_pdu));
}

fn seconds(walks: &[Walk]) -> Vec<f64> {
    walks.iter().map(|walk| walk.seconds).collect()
}

/// The median over the rounds of what one took in terms of the other.
fn over(walks: &[Walk], others: &[Walk]) -> f64 {
    let pairs = walks.iter().zip(others);
    let ratios: Vec<f64> = pairs
        .map(|(own, other)| own.seconds / other.seconds)
        .collect();
    median(&ratios)
}

fn nagi(options: &Options) -> Command {
    let mut command = program(&options.nagi);
    command.arg("disk");
    command
}

#[expect(
    clippy::disallowed_methods,
    reason = "it starts what it measures, and what it compares it with"
)]
fn program(path: &Path) -> Command {
    Command::new(path)
}

/// Makes the tree; gives how many files it has.
fn plant(root: &Path, trunks: usize) -> anyhow::Result<usize> {
    let mut files = 0;
    for trunk in 0..trunks {
        for branch in 0..WIDE[0] {
            wait::check_interrupted()?;
            for twig in 0..WIDE[1] {
                let directory = root.join(format!("{trunk}/{branch}/{twig}"));
                std::fs::create_dir_all(&directory).context("make a directory")?;
                for file in 0..FILES {
                    let path = directory.join(format!("file-{file}.txt"));
                    // Every tenth takes a block.
                    let content: &[u8] = if file % 10 == 0 { b"nagi" } else { b"" };
                    std::fs::write(path, content).context("write a file")?;
                    files += 1;
                }
            }
        }
    }
    Ok(files)
}

/// Runs one walk to its end.
fn walk(command: &mut Command) -> anyhow::Result<Walk> {
    let began = clock::now();
    let mut child = command
        .stdout(Stdio::null())
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("start {command:?}"))?;
    let mut memory = 0.0;
    loop {
        if let Some(status) = child.try_wait().context("wait for it")? {
            let seconds = clock::now().saturating_sub(began).as_secs_f64();
            ensure!(status.success(), "{command:?} ended with {status}");
            return Ok(Walk { seconds, memory });
        }
        if let Some(most) = most_memory(&child) {
            memory = most;
        }
        if clock::now().saturating_sub(began) > ENDED_MAX {
            child.kill().context("end it")?;
            child.wait().context("wait for it")?;
            bail!("{command:?} hangs");
        }
        clock::pause(LOOK);
    }
}

/// `VmHWM` in MiB; none when it has ended.
fn most_memory(child: &Child) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u32 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(f64::from(kibibytes) * 1024.0 / MEBIBYTE)
}
