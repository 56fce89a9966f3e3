//! `GET /api/v1/pools`: nodes, what they cost, what sleeping saved.
//!
//! Pools belong to no namespace: every key may see them, and a user of the cluster who may list its nodes.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use nagi_api::problem::Succeeded;
use nagi_api::{PoolItem, PoolsAnswer, Time, routes};

use crate::answer::{counted, json};
use crate::app::App;
use crate::call::NodeReader;
use crate::problem::{Doing, Problem};

/// Every pool of nodes.
///
/// How many nodes run, what they cost, and what sleeping saved.
#[utoipa::path(
    get, path = routes::POOLS, tag = "pools", operation_id = "list_pools",
    responses(
        (status = 200, description = "All pools", body = PoolsAnswer),
        crate::openapi::PlainErrors,
    )
)]
pub(crate) async fn pools(State(app): State<App>, call: NodeReader) -> Result<Response, Problem> {
    call.query.only(&[])?;
    let pools = call.exchange.upstream(app.nodes.pools()).await;
    let pools = pools.map_err(|error| Problem::port(&error, Doing::Read("pools"), None))?;
    let answer = PoolsAnswer {
        status: Succeeded::Success,
        message: counted(pools.len(), "pool"),
        items: pools.iter().map(PoolItem::from).collect(),
        observed_at: Time::in_millis(app.clock.now()),
    };
    Ok(json(StatusCode::OK, &answer))
}
