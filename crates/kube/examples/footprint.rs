//! What a large cluster costs in memory and CPU: the engine's rows, or the full objects that a reflector would keep.
//!
//! `footprint URL rows|objects` reads every Deployment of the API server at URL (`nagi-kube-double 100000` prints one), and
//! prints one line of JSON: how many, how long it took, resident memory, CPU time. Each mode is a process of its own, so
//! that neither pays for the other.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement prints what it measured, and stops at what it did not expect"
)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::ListParams;
use kube::{Api, Client, Config};
use nagi_kube::{KubeEngine, KubeSettings, Rights, Source};
use nagi_ports::{Glance, Selection, SystemClock, Workloads};
use nagi_runtime::Supervisor;
use serde_json::json;
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().expect("URL of the API server");
    let mode = arguments.next().expect("rows or objects");
    let begun = Instant::now();
    let count = match mode.as_str() {
        "rows" => rows(url, begun).await,
        "objects" => objects(url, begun).await,
        other => panic!("{other}: rows or objects"),
    };
    assert!(count > 0, "nothing was read");
}

async fn rows(url: String, begun: Instant) -> usize {
    let mut supervisor = Supervisor::new();
    let settings = KubeSettings {
        source: Source::Url(url),
        rights: Rights::Full,
        namespaces: None,
        identity: "footprint".to_owned(),
    };
    let engine = KubeEngine::start(settings, Arc::new(SystemClock::new()), &mut supervisor);
    while engine.reachable().await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    report("rows", begun);
    let mut count = 0;
    let see = &mut |_: &dyn Glance| {
        count += 1;
        ControlFlow::Continue(())
    };
    let seen = engine.visit(Selection::default(), see).await;
    seen.expect("a synced engine shows its workloads");
    report("rows after a visit", begun);
    count
}

async fn objects(url: String, begun: Instant) -> usize {
    let config = Config::new(url.parse().expect("a URL"));
    let client = Client::try_from(config).expect("a client");
    let api: Api<Deployment> = Api::all(client);
    let mut kept = Vec::new();
    let mut params = ListParams::default().limit(500);
    loop {
        let page = api.list(&params).await.expect("a page");
        kept.extend(page.items.into_iter().map(Arc::new));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    report("objects", begun);
    kept.len()
}

fn report(what: &str, begun: Instant) {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process has a status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse().ok())
        .expect("VmRSS in kB");
    let stat = std::fs::read_to_string("/proc/self/stat").expect("a process has a stat");
    let fields: Vec<&str> = stat
        .rsplit(") ")
        .next()
        .expect("fields")
        .split(' ')
        .collect();
    let ticks: u64 = [11, 12]
        .iter()
        .filter_map(|at| fields.get(*at)?.parse::<u64>().ok())
        .sum();
    let line = json!({
        "what": what, "rss_mib": kib / 1024, "elapsed_ms": begun.elapsed().as_millis().to_string(), "cpu_ms": ticks * 10,
    });
    println!("{line}");
}
