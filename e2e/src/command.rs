//! `cargo xtask cluster`: what a person types.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};

use crate::autoscaler;
use crate::clean;
use crate::cluster::{self, Cluster, ClusterOptions};
use crate::control_plane::{ControlPlane, Kubectl, Options, Where, kubeconfig};
use crate::directory::{self, Directory, Lifetime, Record};
use crate::fake::{Delays, gpu_pool};
use crate::node::{NodeRecord, Surroundings};
use crate::process::Recorded;
use crate::tools;
use crate::wait;

/// The name of a cluster for which nobody chose one.
const NAME: &str = "nagi";

/// A person who looks at an empty node wants to have seen it.
const EMPTY_FOR: Duration = Duration::from_mins(2);

/// How often `logs --follow` looks for more.
const FOLLOW_EVERY: Duration = Duration::from_millis(100);

const USAGE: &str = "\
usage: cargo xtask cluster COMMAND [--name NAME]

  up [--empty-for SECONDS] [--no-autoscaler] [--control-plane]
                        start it, with nodes when run as root; prints what a shell needs
  up --with kwok[,karpenter] [--delays join=S,driver=S,pull=S,start=S]
                        a control plane with a node that kwok plays, and a GPU pool that Karpenter brings
                        and takes away; how many seconds a node, its driver, an image and a start take
  down                  end it and take everything away
  status                what runs, since when
  logs [COMPONENT] [--follow]
                        the log of kube-apiserver, kubelet@projecta, …; without a component, their names
  load-image ARCHIVE    put an OCI archive on every node
  build [TOOL…]         build the programs, or those named, without starting anything
  setup                 install what the programs are built with and nodes are made of";

/// A command, read.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    command: String,
    name: Option<String>,
    words: Vec<String>,
    empty_for: Option<u64>,
    no_autoscaler: bool,
    control_plane: bool,
    with: Vec<Player>,
    delays: Option<Delays>,
    follow: bool,
}

/// Who plays nodes that are not real.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Player {
    Kwok,
    Karpenter,
}

/// Whether the command needs things that may have to be installed first.
pub fn needs_set_up(arguments: &[String]) -> bool {
    arguments
        .first()
        .is_some_and(|command| matches!(command.as_str(), "up" | "build" | "setup"))
}

/// Runs a command.
pub fn run(arguments: &[String]) -> anyhow::Result<()> {
    let request = Request::read(arguments)?;
    let name = request.name.as_deref().unwrap_or(NAME);
    wait::heed_signals()?;
    match request.command.as_str() {
        "up" => up(name, &request),
        "down" => down(name),
        "status" => status(request.name.as_deref()),
        "logs" => logs(name, request.words.first(), request.follow),
        "load-image" => load_image(name, &request.words),
        "build" => build(&request.words),
        "setup" => Ok(()),
        "autoscale" => autoscale(name, request.empty_for),
        _ => print(USAGE),
    }
}

// === impl Request ===

impl Request {
    fn read(arguments: &[String]) -> anyhow::Result<Self> {
        let mut request = Self::default();
        let mut rest = arguments.iter();
        request.command = rest.next().cloned().unwrap_or_else(|| "help".to_owned());
        let commands = [
            "up",
            "down",
            "status",
            "logs",
            "load-image",
            "build",
            "setup",
            "autoscale",
            "help",
            "--help",
        ];
        if !commands.contains(&request.command.as_str()) {
            bail!(
                "cluster knows no '{}'\nhint: 'cargo xtask cluster help' lists its commands",
                request.command
            );
        }
        while let Some(argument) = rest.next() {
            let (option, attached) = match argument.split_once('=') {
                Some((option, value)) if option.starts_with("--") => (option, Some(value)),
                Some(_) | None => (argument.as_str(), None),
            };
            let mut value = || -> anyhow::Result<String> {
                attached
                    .map(str::to_owned)
                    .or_else(|| rest.next().cloned())
                    .with_context(|| format!("{option} needs a value"))
            };
            match option {
                "--name" => request.name = Some(value()?),
                "--empty-for" => {
                    let seconds = value()?;
                    request.empty_for = Some(seconds.parse().with_context(|| {
                        format!("--empty-for takes a number of seconds, not '{seconds}'")
                    })?);
                }
                "--no-autoscaler" => request.no_autoscaler = true,
                "--control-plane" => request.control_plane = true,
                "--with" => request.with = players(&value()?)?,
                "--delays" => request.delays = Some(Delays::read(&value()?)?),
                "--follow" | "-f" => request.follow = true,
                "--help" | "-h" => "help".clone_into(&mut request.command),
                option if option.starts_with('-') => {
                    bail!(
                        "cluster knows no '{option}'\nhint: 'cargo xtask cluster help' lists what it knows"
                    )
                }
                _ => request.words.push(argument.clone()),
            }
        }
        if let Some(name) = &request.name {
            directory::check_name(name)?;
        }
        if request.delays.is_some() && request.with.is_empty() {
            bail!("--delays is for what --with plays; real nodes take their time");
        }
        let words_max = match request.command.as_str() {
            "logs" | "load-image" => 1,
            "build" => usize::MAX,
            _ => 0,
        };
        if let Some(word) = request.words.get(words_max) {
            bail!("'{}' takes no '{word}'", request.command);
        }
        Ok(request)
    }
}

fn players(names: &str) -> anyhow::Result<Vec<Player>> {
    names
        .split(',')
        .map(|name| match name {
            "kwok" => Ok(Player::Kwok),
            "karpenter" => Ok(Player::Karpenter),
            _ => bail!("--with takes kwok, or kwok,karpenter, not '{name}'"),
        })
        .collect()
}

fn up(name: &str, request: &Request) -> anyhow::Result<()> {
    let begun = wait::now();
    let place = Where::best();
    if let Some(record) = intact(name)? {
        crate::say(&format!("'{}' is up already", record.name));
        return print_shell_lines(name);
    }
    let options = Options {
        place,
        ..Options::default()
    };
    if place == Where::Loopback || request.control_plane || !request.with.is_empty() {
        if place == Where::Loopback && request.with.is_empty() {
            crate::say(
                "without root there are no nodes: only the API works, and pods stay Pending",
            );
        }
        ControlPlane::start_alone(name, &options, Lifetime::Person, |control_plane| {
            play(
                control_plane,
                &request.with,
                request.delays.unwrap_or_default(),
            )
        })?;
    } else {
        let autoscaler = (!request.no_autoscaler)
            .then(|| request.empty_for.map_or(EMPTY_FOR, Duration::from_secs));
        let options = ClusterOptions {
            control_plane: options,
            ..ClusterOptions::default()
        };
        Cluster::start_as(name, &options, Lifetime::Person, autoscaler)?;
        if let Some(empty_for) = autoscaler {
            crate::say(&format!(
                "nodes projecta and projectb go when they have been empty for {} s, and come back for a pod that needs them",
                empty_for.as_secs()
            ));
        }
    }
    crate::say(&format!("up after {:.1} s", begun.elapsed().as_secs_f64()));
    print_shell_lines(name)
}

/// Starts what plays nodes instead of real ones.
fn play(control_plane: &mut ControlPlane, with: &[Player], delays: Delays) -> anyhow::Result<()> {
    if with.is_empty() {
        return Ok(());
    }
    control_plane.start_kwok(delays)?;
    control_plane.add_fake_nodes(1)?;
    if with.contains(&Player::Karpenter) {
        let (machine, pool) = gpu_pool(EMPTY_FOR)?;
        control_plane.start_karpenter(&[machine], &[pool])?;
    }
    Ok(())
}

/// The record of a cluster all of whose components run.
fn intact(name: &str) -> anyhow::Result<Option<Record>> {
    let path = directory::root()?.join(name);
    let Some(record) = Record::load(&path)?.filter(|record| record.is_up) else {
        return Ok(None);
    };
    let is_whole = components(&path, &record)?
        .iter()
        .all(|(_, recorded)| recorded.process.is_running());
    Ok(is_whole.then_some(record))
}

/// A directory of its own: the one with the built programs holds more than a person asked for.
fn print_shell_lines(name: &str) -> anyhow::Result<()> {
    let path = directory::root()?.join(name);
    let programs = path.join("bin");
    std::fs::create_dir_all(&programs).with_context(|| format!("create {}", programs.display()))?;
    let link = programs.join("kubectl");
    if !link.exists() {
        let kubectl = tools::KUBERNETES.build()?.program("kubectl");
        std::os::unix::fs::symlink(kubectl, &link)
            .with_context(|| format!("link {}", link.display()))?;
    }
    print(&format!(
        "export KUBECONFIG={}\nexport PATH={}:\"$PATH\"",
        kubeconfig(&path).display(),
        programs.display()
    ))
}

fn down(name: &str) -> anyhow::Result<()> {
    let owned = Directory::own(name)?;
    if !owned.path.exists() {
        crate::say(&format!("there is no cluster '{name}'"));
        return Ok(());
    }
    clean::remove(&owned)?;
    crate::say(&format!("'{name}' is gone"));
    Ok(())
}

fn status(only: Option<&str>) -> anyhow::Result<()> {
    let root = directory::root()?;
    let mut lines = Vec::new();
    for name in directory::names()? {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let path = root.join(&name);
        let Some(record) = Record::load(&path)? else {
            lines.push(format!("{name}: rubbish; the next start takes it away"));
            continue;
        };
        let state = if record.is_up { "up" } else { "not up" };
        lines.push(format!("{name}: {state}, {}", record.server));
        for (label, recorded) in components(&path, &record)? {
            let process = recorded.process;
            let age = process.age().filter(|_| process.is_running());
            let age = age.map_or_else(|| "ended".to_owned(), human);
            lines.push(format!("  {label:<28} {:>8} {age:>8}", process.id));
        }
        // The programs that this cluster runs; the working copy may have others by now.
        let api_server = record
            .components
            .iter()
            .find(|recorded| recorded.component.name == "kube-apiserver");
        let Some(api_server) = api_server.filter(|_| record.is_up) else {
            continue;
        };
        let kubectl = Kubectl::beside(&api_server.component.program, &path);
        for question in [["version"].as_slice(), &["get", "nodes", "--output=wide"]] {
            let ended = kubectl
                .call()
                .arguments(question)
                .argument("--request-timeout=5s")
                .end()?;
            let said = format!("{}{}", ended.output, ended.errors);
            lines.extend(said.lines().map(|line| format!("  {line}")));
        }
    }
    if lines.is_empty() {
        if let Some(only) = only {
            bail!("there is no cluster {only}\nhint: 'cargo xtask cluster status' shows all");
        }
        lines.push("there is no cluster".to_owned());
    }
    print(&lines.join("\n"))
}

/// The components of a cluster under the names that `logs` takes.
fn components(path: &Path, record: &Record) -> anyhow::Result<Vec<(String, Recorded)>> {
    let mut found: Vec<(String, Recorded)> = record
        .components
        .iter()
        .map(|recorded| (recorded.component.name.clone(), recorded.clone()))
        .collect();
    for node in NodeRecord::all(path)? {
        for recorded in node.components {
            let label = format!("{}@{}", recorded.component.name, node.kind.name);
            found.push((label, recorded));
        }
    }
    Ok(found)
}

fn human(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

fn logs(name: &str, component: Option<&String>, follow: bool) -> anyhow::Result<()> {
    let path = directory::root()?.join(name);
    let record = Record::load(&path)?.with_context(|| {
        format!("there is no cluster '{name}'\nhint: 'cargo xtask cluster status' lists them")
    })?;
    let components = components(&path, &record)?;
    let names: Vec<&str> = components.iter().map(|(label, _)| label.as_str()).collect();
    let Some(wanted) = component else {
        return print(&names.join("\n"));
    };
    let found = components.iter().find(|(label, _)| label == wanted);
    let Some((_, recorded)) = found else {
        bail!(
            "'{name}' has no '{wanted}'\nhint: it has {}",
            names.join(", ")
        );
    };
    show(&recorded.component.log, follow)
}

fn show(log: &Path, follow: bool) -> anyhow::Result<()> {
    let file = std::fs::File::open(log).with_context(|| format!("open {}", log.display()))?;
    let mut output = std::io::stdout().lock();
    loop {
        let mut reader = BufReader::new(&file);
        loop {
            let chunk = reader
                .fill_buf()
                .with_context(|| format!("read {}", log.display()))?;
            if chunk.is_empty() {
                break;
            }
            output.write_all(chunk).context("print the log")?;
            let length = chunk.len();
            reader.consume(length);
        }
        output.flush().context("print the log")?;
        if !follow || wait::is_interrupted() {
            return Ok(());
        }
        wait::pause(FOLLOW_EVERY);
    }
}

fn load_image(name: &str, words: &[String]) -> anyhow::Result<()> {
    const HINT: &str = "hint: 'cargo xtask image' writes one";
    let [archive] = words else {
        bail!("load-image needs an archive\n{HINT}");
    };
    let archive = PathBuf::from(archive);
    ensure!(
        archive.is_file(),
        "there is no archive {}\n{HINT}",
        archive.display()
    );
    let path = directory::root()?.join(name);
    cluster::running(&path)?;
    cluster::load_image(&path, &archive)
}

fn build(names: &[String]) -> anyhow::Result<()> {
    let tools = if names.is_empty() {
        tools::ALL.to_vec()
    } else {
        names
            .iter()
            .map(|name| tools::named(name).copied())
            .collect::<anyhow::Result<Vec<_>>>()?
    };
    let mut lines = Vec::new();
    for tool in tools {
        let built = tool.build()?;
        lines.push(format!(
            "{} {} {}",
            tool.name,
            built.version(),
            built.directory().display()
        ));
    }
    print(&lines.join("\n"))
}

/// The body of the process that `up` leaves behind.
fn autoscale(name: &str, empty_for: Option<u64>) -> anyhow::Result<()> {
    let path = directory::root()?.join(name);
    // It starts before the cluster is recorded as up, so that a failure to start it is a failure of `up`.
    let surroundings = Surroundings::of(&path)?;
    let empty_for = empty_for.map_or(EMPTY_FOR, Duration::from_secs);
    autoscaler::run(&surroundings, empty_for, &|| false);
    Ok(())
}

fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{text}").context("print the answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> anyhow::Result<Request> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Request::read(&words)
    }

    #[test]
    fn options_stand_anywhere_behind_the_command() {
        let request = read("logs -f kubelet@projecta --name other").expect("a good line");
        assert_eq!(request.name.as_deref(), Some("other"));
        assert_eq!(request.words, ["kubelet@projecta"]);
        assert!(request.follow);
        assert_eq!(read("up --empty-for=5").expect("good").empty_for, Some(5));
    }

    #[test]
    fn what_is_not_understood_is_refused_before_anything_happens() {
        for line in [
            "ip",
            "up --nam a",
            "up more",
            "up --name A",
            "up --empty-for soon",
            "down --name",
            "up --with magic",
            "up --delays driver=3",
            "up --with kwok --delays drivers=3",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn ages_are_short() {
        let ages = [5, 119, 120, 7199, 7200].map(|seconds| human(Duration::from_secs(seconds)));
        assert_eq!(ages, ["5s", "119s", "2m", "119m", "2h"]);
    }
}
