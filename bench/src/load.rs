//! A closed loop of callers on one core: each sends its next request when its last answer is complete.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::http::Connection;
use crate::nagi::runtime;
use crate::{clock, pin};

/// As the goals are stated: 64 connections.
const CONNECTIONS: u32 = 64;

/// Calls `port` for `time` and gives the answers per second. Any answer but a 200 is an error.
pub(crate) fn answers_per_second(port: u16, request: &[u8], time: Duration) -> anyhow::Result<f64> {
    let request: Arc<[u8]> = request.into();
    // A thread of its own, because it stays on its core.
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            pin::keep_on(pin::LOAD)?;
            runtime()?.block_on(callers(port, request, time))
        });
        load.join()
            .map_err(|_| anyhow::anyhow!("the load ended in a panic"))?
    })
}

async fn callers(port: u16, request: Arc<[u8]>, time: Duration) -> anyhow::Result<f64> {
    let mut callers = tokio::task::JoinSet::new();
    let began = clock::now();
    for _ in 0..CONNECTIONS {
        let request = Arc::clone(&request);
        callers.spawn(async move {
            let mut connection = Connection::open(port).await?;
            let mut answers = 0_u32;
            while clock::now().saturating_sub(began) < time {
                let answer = connection.call(&request).await?;
                ensure!(
                    answer.status == 200,
                    "{}",
                    String::from_utf8_lossy(&answer.body)
                );
                answers += 1;
            }
            anyhow::Ok(answers)
        });
    }
    let mut answers = 0;
    while let Some(ended) = callers.join_next().await {
        answers += ended.context("a caller ended in a panic")??;
    }
    Ok(f64::from(answers) / clock::now().saturating_sub(began).as_secs_f64())
}
