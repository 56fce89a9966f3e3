//! The peer of the REST measurements: axum with nothing around it, over the same data and the same types.
//!
//! `peer FILE` prints its port: FILE holds a page of the list as Nagi answered it. `…/status` looks one item up and serialises
//! it; the list serialises all items at every request, which is what Nagi saves itself.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use nagi_api::ListAnswer;
use nagi_api::workload::WorkloadItem;

use crate::nagi::wide_runtime;

struct Data {
    page: ListAnswer,
    by_id: HashMap<(String, String), WorkloadItem>,
}

/// Serves until it is killed.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<ExitCode> {
    let [file] = arguments else {
        bail!("usage: peer FILE")
    };
    let text = std::fs::read(file).with_context(|| format!("read {file}"))?;
    let page: ListAnswer = serde_json::from_slice(&text).with_context(|| format!("read {file}"))?;
    let by_id = page
        .items
        .iter()
        .map(|item| ((item.namespace.clone(), item.name.clone()), item.clone()));
    let data = Data {
        by_id: by_id.collect(),
        page,
    };
    let router = Router::new()
        .route("/api/v1/deployments/{namespace}/{name}/status", get(one))
        .route("/api/v1/deployments", get(list))
        .with_state(Arc::new(data));
    // The same kind of runtime as Nagi's.
    wide_runtime()?.block_on(async {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("open a port")?;
        let address = listener.local_addr().context("ask for the port")?;
        writeln!(std::io::stdout(), "{}", address.port()).context("say where it is")?;
        axum::serve(listener, router).await.context("serve")
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn one(State(data): State<Arc<Data>>, Path(id): Path<(String, String)>) -> Response {
    match data.by_id.get(&id) {
        Some(item) => Json(item).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn list(State(data): State<Arc<Data>>) -> Response {
    Json(&data.page).into_response()
}
