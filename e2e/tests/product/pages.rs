//! The commands of the pages for a cluster, as a reader of them types them.
//!
//! `cargo xtask docs` leaves out the blocks that are marked with [`MARK`]; here they run, page by page in their order, each as
//! one script that must succeed. A block that changes the installation is followed by what brings it back, because the page
//! shows ways to choose from. Those with `helm` come last: they are the other way to install.

use anyhow::{Context, ensure};
use nagi_e2e::tools;

use crate::World;
use crate::commands::{NEW_IMAGE, Tour, UNTIL_OUTPUT};
use crate::installed::TEST_POD;

/// What stands before a block that runs here.
const MARK: &str = "<!-- not-run: the tests run it on a cluster -->";
const PAGES: [(&str, &str); 3] = [
    ("docs/install.md", include_str!("../../../docs/install.md")),
    (
        "docs/operations-guide.md",
        include_str!("../../../docs/operations-guide.md"),
    ),
    (
        "docs/troubleshooting.md",
        include_str!("../../../docs/troubleshooting.md"),
    ),
];
/// What the pages call an image of somebody's registry, now and after an upgrade.
const IMAGES: [&str; 2] = [
    "registry.example.com/team/nagi:0.1.0",
    "registry.example.com/team/nagi:0.2.0",
];

/// A reader types the next line when a port-forward stands; it ends with the block.
const SHELL: &str = r#"
set -e
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
forwarded() {
  for ((look = 0; look < 300; look++)); do
    curl --disable --silent --max-time 5 --output /dev/null "http://localhost:$1" && return 0
    sleep 0.1
  done
  echo "nothing listens on $1" >&2
  return 1
}
"#;

/// A block of a page.
struct Block {
    page: &'static str,
    /// Of its opening fence, counted from 1.
    line: usize,
    text: String,
}

/// The blocks of the pages that are marked, in their order.
fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for (page, text) in PAGES {
        let mut is_marked = false;
        let mut open: Option<Block> = None;
        for (number, line) in (1..).zip(text.lines()) {
            match &mut open {
                Some(_) if line == "```" => blocks.extend(open.take()),
                Some(block) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                None if is_marked && line.starts_with("```") => {
                    open = Some(Block {
                        page,
                        line: number,
                        text: String::new(),
                    });
                }
                None => {}
            }
            is_marked = line == MARK;
        }
    }
    blocks
}

// A-064, A-090, A-103, issue 4 item 8: "commands tested"
#[expect(
    clippy::print_stdout,
    reason = "for the person who reads the report of the tests"
)]
pub(crate) fn all(world: &mut World) -> anyhow::Result<()> {
    let mut tour = Tour::new(world.installed()?)?;
    let tour_settings = "fail-with-body\n";
    tour.add_settings(tour_settings)?;
    let image = tour.installed.output(
        "kubectl get deployment scale-api -n scale-system -o 'jsonpath={.spec.template.spec.containers[0].image}'",
    )?;
    let helm = tools::HELM.build()?.directory().to_owned();
    let (by_chart, others): (Vec<Block>, Vec<Block>) = blocks()
        .into_iter()
        .partition(|block| block.text.contains("helm "));
    ensure!(
        others.len() > 20 && by_chart.len() == 3,
        "{} blocks and {} with helm are marked",
        others.len(),
        by_chart.len()
    );
    let mut failures = Vec::new();
    let mut one = |tour: &mut Tour<'_>, block: &Block| -> anyhow::Result<()> {
        let text = filled(tour, &block.text, image.trim())?;
        prepare(tour, &text)?;
        let call = if text.contains(" -f |") {
            tour.installed
                .bash(UNTIL_OUTPUT)?
                .environment("ENDLESS", &text)
        } else {
            tour.installed.bash(&script(&text))?
        };
        let path = nagi_e2e::call::search_path()?;
        let programs = [tools::KUBERNETES.build()?.directory(), &helm, &nagi()]
            .map(|directory| directory.display().to_string())
            .join(":");
        let ended = tour
            .with_home(call)
            .environment("PATH", format!("{programs}:{path}"))
            .end()?;
        if !ended.status.success() {
            failures.push(format!(
                "{}:{} {}\n{text}{}{}",
                block.page, block.line, ended.status, ended.output, ended.errors
            ));
        }
        undo(tour, &text)
    };
    for block in &others {
        one(&mut tour, block).with_context(|| format!("run {}:{}", block.page, block.line))?;
    }
    tour.installed.succeed(
        "kubectl delete -k manifests/gateway && kubectl delete -k src/api && \
         kubectl wait --for=delete namespace/scale-system --timeout=120s",
    )?;
    for block in &by_chart {
        one(&mut tour, block).with_context(|| format!("run {}:{}", block.page, block.line))?;
    }
    // The namespace is Helm's only to make.
    tour.installed
        .succeed("kubectl delete namespace scale-system --ignore-not-found")?;
    tour.installed.apply()?;
    ensure!(
        failures.is_empty(),
        "{} blocks do not work as written:\n{}",
        failures.len(),
        failures.join("\n")
    );
    println!(
        "product: {} blocks of {} pages ran as written",
        others.len() + by_chart.len(),
        PAGES.len()
    );
    Ok(())
}

/// Where the binary of the image lies.
fn nagi() -> std::path::PathBuf {
    let target = format!(
        "../target/{}-unknown-linux-musl/release",
        std::env::consts::ARCH
    );
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(target)
}

/// The block with what its words in capitals and its example registry stand for.
fn filled(tour: &Tour<'_>, text: &str, image: &str) -> anyhow::Result<String> {
    let mut text = text
        .replace(IMAGES[0], image)
        .replace(IMAGES[1], NEW_IMAGE)
        .replace("exec -it POD ", &format!("exec -it {TEST_POD} "));
    if text.contains("NODE") {
        let node = tour.installed.output(
            "kubectl get nodes -l agentpool=system -o 'jsonpath={.items[0].metadata.name}'",
        )?;
        text = text.replace("NODE", node.trim());
    }
    if text.contains(" POD ") {
        tour.api_settled()?;
        let pod = tour.installed.output(
            "kubectl get pods -n scale-system -l app.kubernetes.io/name=scale-api -o 'jsonpath={.items[0].metadata.name}'",
        )?;
        text = text.replace(" POD ", &format!(" {} ", pod.trim()));
    }
    Ok(text)
}

/// What the reader of the page has before this block.
fn prepare(tour: &Tour<'_>, text: &str) -> anyhow::Result<()> {
    let holds = |word: &str| text.contains(word);
    if holds("helm ") {
        return tour.stop_forwards();
    }
    if holds("sample-app") || holds("project") {
        tour.sample(1)?;
    }
    tour.api_settled()?;
    if holds("grep") && holds("logs") {
        tour.keyed()?;
        tour.fill_logs()?;
    }
    if holds("--previous") {
        tour.restart_containers()?;
    }
    if holds("kubectl top") {
        tour.figures()?;
    }
    let asks = holds("http://localhost:8080") || holds("nagi status");
    if asks && !holds("port-forward") && !holds("exec") {
        tour.forwards()
    } else {
        tour.stop_forwards()
    }
}

/// The block, with a wait behind each port-forward.
fn script(text: &str) -> String {
    let mut script = SHELL.to_owned();
    for line in text.lines() {
        script.push_str(line);
        script.push('\n');
        if line.contains("port-forward")
            && let Some(ports) = line.split_whitespace().find(|word| word.contains(":80"))
            && let Some((port, _)) = ports.split_once(':')
        {
            script.push_str("forwarded ");
            script.push_str(port);
            script.push('\n');
        }
    }
    script
}

/// Brings the installation back to what the next block begins with.
fn undo(tour: &Tour<'_>, text: &str) -> anyhow::Result<()> {
    let holds = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if holds(&["helm "]) {
        return Ok(());
    }
    if holds(&["delete -k", "delete -f"]) {
        tour.installed.apply()?;
    }
    if holds(&["create token"]) {
        tour.installed
            .succeed("kubectl delete rolebinding/jane-edits serviceaccount/jane -n project-a")?;
    }
    let is_changed = holds(&[
        "create secret",
        "LOG_LEVEL",
        "create token",
        "set image",
        "patch deployment scale-api",
        "scale deployment scale-api",
        "grep",
    ]);
    if is_changed {
        tour.clean_up()?;
    }
    Ok(())
}
