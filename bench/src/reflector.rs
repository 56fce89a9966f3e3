//! The part that is the peer of the cluster's cache: the reflector of kube-rs, with full objects, as a program of its own.
//!
//! `reflector URL` prints how many Deployments it holds once it holds all that the API server at URL has, and follows them until
//! it is killed.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use futures_util::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Config};

use crate::nagi::wide_runtime;

/// 100,000 Deployments take half a minute on a busy machine.
const READY_MAX: Duration = Duration::from_mins(3);

/// Follows until it is killed.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [url] = arguments else {
        bail!("usage: reflector URL")
    };
    let config = Config::new(url.parse().context("read a URL")?);
    wide_runtime()?.block_on(async {
        let client = Client::try_from(config).context("make a client")?;
        let api: Api<Deployment> = Api::all(client);
        let (held, writer) = reflector::store();
        let watched = watcher(api, watcher::Config::default()).default_backoff();
        let mut following = reflector(writer, watched).boxed();
        let ready = async {
            held.wait_until_ready().await.context("read all objects")?;
            writeln!(std::io::stdout(), "{}", held.len()).context("say how many there are")
        };
        let followed = async { while following.next().await.is_some() {} };
        tokio::select! {
            () = followed => bail!("the reflector ended"),
            ended = async {
                tokio::time::timeout(READY_MAX, ready).await.context("read all objects in time")??;
                std::future::pending().await
            } => ended,
        }
    })
}
