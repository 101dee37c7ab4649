//! `/healthz`, `/readyz` and `/metrics`.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use jiff::Timestamp;

use crate::context::Caches;
use crate::metrics::Metrics;
use crate::telemetry::chain;

/// Whether this replica can do its work, and if not, why.
#[derive(Debug, Default)]
pub struct Readiness(Mutex<Vec<&'static str>>);

impl Readiness {
    /// A replica that has begun nothing yet.
    pub fn new() -> Self {
        Self(Mutex::new(vec!["starting"]))
    }

    /// Says what is missing; nothing is ready.
    pub fn missing(&self, reasons: Vec<&'static str>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = reasons;
    }

    fn reasons(&self) -> Vec<&'static str> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// What the web server shows.
#[derive(Clone)]
pub struct Shown {
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
    /// The jobs whose series are served.
    pub caches: Caches,
    /// Whether the replica is ready.
    pub readiness: Arc<Readiness>,
}

/// The web server's routes.
pub fn router(shown: Shown) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shown)
}

async fn readyz(State(shown): State<Shown>) -> Response {
    let reasons = shown.readiness.reasons();
    if reasons.is_empty() {
        return "ok\n".into_response();
    }
    let text = format!("not ready: {}\n", reasons.join("; "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let jobs = shown.caches.readable_jobs();
    let readable = jobs.iter().filter_map(|job| job.0.as_ref().ok());
    match shown.metrics.text(readable, Timestamp::now()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => {
            tracing::error!(error = %chain(&error), "the metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
