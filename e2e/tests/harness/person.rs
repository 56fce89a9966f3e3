//! `cargo xtask cluster` as a person types it: by another process, which is asked, looked at and interrupted.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use nagi_e2e::call::Call;
use nagi_e2e::wait::{self, Look};

use crate::leftovers::Leftovers;
use crate::{LIMIT, World};

/// With this in front the program is not a test but that command; its own helpers start it so too.
pub(crate) const CLUSTER: &str = "cluster";
const NAME: &str = "harness-person";
const CUT: &str = "harness-cut";
const NOBODY: u32 = 65_534;

// Issue 4 item 1: the commands, and "the two lines that give a person a working kubectl"
pub(crate) fn commands(_world: &mut World) -> anyhow::Result<()> {
    let lines = cluster(&["up", "--name", NAME])?.output()?;
    let directory = directory(NAME)?;
    let ran = while_up(&lines);
    let gone = cluster(&["down", "--name", NAME])?.end()?;
    ran?;
    ensure!(gone.errors.contains("is gone"), "{}", gone.errors);
    let left = Leftovers::of(NAME, &directory)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn while_up(lines: &str) -> anyhow::Result<()> {
    ensure!(
        lines.lines().count() == 2 && lines.lines().all(|line| line.starts_with("export ")),
        "what a shell reads is all that is printed: {lines}"
    );
    let nodes = in_a_shell(lines, "kubectl get nodes --output=name")?;
    for node in ["node/projecta", "node/projectb", "node/system"] {
        ensure!(nodes.contains(node), "{nodes}");
    }
    // Twice is once, and prints the same.
    let again = cluster(&["up", "--name", NAME])?.output()?;
    ensure!(again == lines, "{again}");
    let status = cluster(&["status", "--name", NAME])?.output()?;
    for part in ["harness-person: up", "kube-apiserver", "kubelet@projecta"] {
        ensure!(status.contains(part), "no {part} in {status}");
    }
    let names = cluster(&["logs", "--name", NAME])?.output()?;
    ensure!(names.contains("kube-scheduler"), "{names}");
    let log = cluster(&["logs", "kubelet@system", "--name", NAME])?.output()?;
    ensure!(log.contains("kubelet"), "{log}");
    let wrong = cluster(&["load-image", "/nonexistent.tar", "--name", NAME])?.end()?;
    ensure!(!wrong.status.success(), "{wrong:?}");
    Ok(())
}

// Issue 4 item 1: "cleaned up on … failure, Ctrl-C"
pub(crate) fn interrupted(_world: &mut World) -> anyhow::Result<()> {
    let directory = directory(CUT)?;
    // In the middle: the API server is begun, the nodes are not there yet.
    let mut begun = begin(&["up", "--name", CUT])?;
    wait::until("the middle of a start", LIMIT, || {
        ensure!(is_running(&mut begun)?, "it ended by itself");
        let half = Leftovers::of(CUT, &directory)?;
        Ok(if half.has_processes() {
            Look::There(())
        } else {
            Look::NotYet(format!("{half:?}"))
        })
    })?;
    Call::new("kill")
        .arguments(["-INT", &begun.0.id().to_string()])
        .succeed()?;
    let ended = begun.0.wait()?;
    ensure!(!ended.success(), "an interrupted start is none: {ended}");
    let left = Leftovers::of(CUT, &directory)?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

// Issue 4 item 1: "Without root the control plane alone runs, on free loopback ports, and the tests that need pods are counted
// as skipped in one line with the reason"
pub(crate) fn nobody(_world: &mut World) -> anyhow::Result<()> {
    let place = tempfile::tempdir().context("make a directory")?;
    open_to_all(place.path())?;
    let program = place.path().join("harness");
    std::fs::copy(std::env::current_exe()?, &program).context("copy this program")?;
    let cache = nagi_e2e::cache::directory()?;
    // The built programs as they are, and a place for what a cluster writes, in mounts that end with the shell. Where this
    // checkout lies nobody may be shut out, so the right to read everything is left.
    let script = format!(
        "set -e; cd {0}; mkdir cache up work home; mount -t overlay overlay -o lowerdir={1},upperdir=up,workdir=work cache; \
         find cache -maxdepth 2 -type d -exec chmod 777 {{}} +; find cache -name '*.lock' -exec chmod 666 {{}} +; \
         rm -rf cache/clusters; chown {NOBODY} home; export HOME={0}/home NAGI_CACHE={0}/cache TMPDIR={0}/home; \
         nobody() {{ setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups \
         --inh-caps=+dac_read_search --ambient-caps=+dac_read_search \"$@\"; }}; \
         nobody ./harness {CLUSTER} up --name nobody > lines; . ./lines; \
         nobody kubectl get --raw /readyz; echo; \
         nobody ./harness {CLUSTER} down --name nobody; \
         nobody ./harness every_standard_node",
        place.path().display(),
        cache.display(),
    );
    let ended = Call::new("unshare")
        .arguments(["--mount", "--propagation", "private", "bash", "-c"])
        .argument(script)
        .limit(LIMIT)
        .end()?;
    let said = format!("{}{}", ended.output, ended.errors);
    ensure!(ended.status.success(), "{said}");
    for part in [
        "without root there are no nodes",
        "ok",
        "'nobody' is gone",
        "only root may make namespaces",
        "0 passed; 0 failed; 1 ignored",
    ] {
        ensure!(said.contains(part), "no {part:?} in {said}");
    }
    Ok(())
}

fn open_to_all(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777))
        .context("open a directory")
}

/// The command, by a process of its own.
fn cluster(words: &[&str]) -> anyhow::Result<Call> {
    let program = std::env::current_exe()?;
    let program = program.to_str().context("a path that is text")?;
    let call = Call::new(program).argument(CLUSTER).arguments(words);
    Ok(call.limit(Duration::from_mins(4)))
}

fn in_a_shell(lines: &str, command: &str) -> anyhow::Result<String> {
    Call::new("bash")
        .arguments(["--noprofile", "--norc", "-c"])
        .argument(format!("{lines}\n{command}"))
        .output()
}

fn directory(name: &str) -> anyhow::Result<PathBuf> {
    Ok(nagi_e2e::cache::directory()?.join("clusters").join(name))
}

/// A child that does not outlive a failed test.
struct Begun(Child);

impl Drop for Begun {
    fn drop(&mut self) {
        // One that has ended already is gone.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a person's command, to be interrupted"
)]
fn begin(words: &[&str]) -> anyhow::Result<Begun> {
    let child = Command::new(std::env::current_exe()?)
        .arg(CLUSTER)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    Ok(Begun(child))
}

fn is_running(begun: &mut Begun) -> anyhow::Result<bool> {
    Ok(begun.0.try_wait()?.is_none())
}
