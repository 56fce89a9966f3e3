//! The part that is an API server full of Deployments: `double COUNT` prints its URL once it holds them, and serves until it
//! is killed.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use nagi_kube_double::{Double, objects};

use crate::nagi::wide_runtime;

/// Serves until it is killed.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [count] = arguments else {
        bail!("usage: double COUNT")
    };
    let count: u32 = count.parse().context("read a count")?;
    wide_runtime()?.block_on(async {
        let double = Double::start().await;
        for number in 0..count {
            double.put(objects::realistic_deployment(number));
        }
        writeln!(std::io::stdout(), "{}", double.url()).context("say where it is")?;
        std::future::pending().await
    })
}
