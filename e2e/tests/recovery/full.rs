//! The incident of the founding documents: the disk is full, and the API server is dead.

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::decoys::Decoys;
use crate::fill::KEPT;
use crate::node::{OTHERS, Recovery, World, say};

/// What is freed is announced to a hundredth, or to a mebibyte.
const MEBIBYTE: u64 = 1 << 20;

// B-001, B-003, B-004, B-005, B-007, B-015, B-016, B-017, B-021, B-027, B-040, B-041; D-04, D-12, D-16, D-20
pub(crate) fn disk(world: &mut World) -> anyhow::Result<()> {
    let node = world.node()?;
    node.write_volume_file()?;
    node.fill()?;
    let decoys = Decoys::of(node)?;
    let others = node.running(OTHERS)?;
    let images = node.images()?;
    node.take_the_last_bytes()?;
    node.lose_the_api_server()?;
    ensure!(node.free()?.available == 0, "{:?}", node.free()?);
    let kept = node.root().join(KEPT).metadata()?.len();
    ensure!(node.cause()? == "disk-full", "{}", node.cause()?);

    let recovery = node.recover(&["--lossy", "--yes"])?;
    recovery.is_back()?;
    ensure!(
        recovery.answer["cause"]["id"] == "disk-full",
        "{recovery:?}"
    );
    let steps: Vec<&str> = recovery.steps().collect();
    ensure!(steps == ["free", "restart-kubelet"], "{steps:?}");
    frees_what_it_announced(&recovery)?;
    decoys.check(node)?;
    ensure!(node.root().join(KEPT).metadata()?.len() == kept);
    let now = node.running(OTHERS)?;
    ensure!(now == others, "{now:?} was {others:?}");
    let left = node.images()?;
    for image in images.iter().filter(|image| !image.contains("unused")) {
        ensure!(left.contains(image), "{image} is gone");
    }
    node.wait_until_healthy()
}

fn frees_what_it_announced(recovery: &Recovery) -> anyhow::Result<()> {
    let announced = recovery.answer["plan"]["expected_bytes"].as_u64();
    let announced = announced.context("it says what it will free")?;
    let done = recovery.answer["done"].as_array();
    let freed: i64 = done
        .into_iter()
        .flatten()
        .filter_map(|step| step["measured_bytes"].as_i64())
        .sum();
    let freed = u64::try_from(freed).context("space came back")?;
    say(&format!("{announced} bytes announced, {freed} came back"));
    ensure!(
        freed.abs_diff(announced) <= (announced / 100).max(MEBIBYTE),
        "{announced} bytes were announced, and {freed} came back: {recovery:?}"
    );
    let free = |when: &str| {
        recovery.answer[when]["disks"]
            .pointer("/0/free")
            .and_then(Value::as_u64)
    };
    let (before, after) = (free("before"), free("after"));
    say(&format!("free before {before:?}, after {after:?}"));
    ensure!(before < after, "{recovery:?}");
    Ok(())
}
