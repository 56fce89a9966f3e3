//! sample-app-a: a small page at `/` and `/health` for the probe.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::time::Instant;

struct Seen {
    since: Instant,
    pages: AtomicU64,
}

/// The routes of the app.
pub(super) fn router() -> Router {
    let seen = Seen {
        since: Instant::now(),
        pages: AtomicU64::new(0),
    };
    Router::new()
        .route("/", get(page))
        .route("/health", get(async || "healthy"))
        .with_state(Arc::new(seen))
}

async fn page(State(seen): State<Arc<Seen>>) -> impl IntoResponse {
    let pages = seen.pages.fetch_add(1, Ordering::Relaxed).saturating_add(1);
    let awake = seen.since.elapsed().as_secs_f64();
    let process = std::process::id();
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>sample-app-a</title></head>\n\
         <body><h1>sample-app-a is awake</h1>\n\
         <p>Process {process} has been up for {awake:.1} s and has served {pages} pages since it woke.</p></body></html>\n"
    );
    (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            // Every visit must reach the app: that is what keeps it awake.
            (header::CACHE_CONTROL, "no-store"),
        ],
        html,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::serve::tests::call;

    //
    #[tokio::test]
    async fn health_answers_healthy_and_the_page_counts_visits() {
        let app = router();
        let (status, body) = call(&app, "GET", "/health", "").await;
        assert_eq!((status, body.as_str()), (200, "healthy"));
        let (_, first) = call(&app, "GET", "/", "").await;
        let (status, second) = call(&app, "GET", "/", "").await;
        assert_eq!(status, 200);
        assert!(first.contains("served 1 pages"), "{first}");
        assert!(second.contains("served 2 pages"), "{second}");
        assert_eq!(call(&app, "GET", "/nothing", "").await.0, 404);
        assert_eq!(call(&app, "POST", "/health", "").await.0, 405);
    }
}
