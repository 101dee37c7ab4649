//! `/metrics` for Prometheus, `/progress` for the operator, `/healthz` for the kubelet.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tracing::{error, info};

use crate::error_chain;
use crate::shared::Shared;

/// Opens the port on all addresses; port 0 takes a free one.
pub async fn bind(port: u16) -> io::Result<TcpListener> {
    let listener = everywhere(port).await?;
    info!(
        port = listener.local_addr()?.port(),
        "serving /metrics, /progress and /healthz"
    );
    Ok(listener)
}

/// Listens on all addresses of this pod, of both kinds where there are both.
pub async fn everywhere(port: u16) -> io::Result<TcpListener> {
    let all = [
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
    ];
    // The first of them takes both.
    TcpListener::bind(&all[..]).await
}

/// Answers requests until the task is aborted.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/progress", get(progress))
        .with_state(shared);
    if let Err(error) = axum::serve(listener, router).await {
        error!("the HTTP server ended: {}", error_chain(&error));
    }
}

async fn healthz(State(shared): State<Arc<Shared>>) -> (StatusCode, String) {
    let (alive, all) = shared.board().alive();
    let status = if alive > 0 {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, format!("{alive} of {all} ranks alive\n"))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    respond(shared.metrics().render(), prometheus::TEXT_FORMAT)
}

async fn progress(State(shared): State<Arc<Shared>>) -> Response {
    let progress = shared.board().progress(shared.now());
    respond(serde_json::to_string(&progress), "application/json")
}

fn respond<E: std::error::Error>(body: Result<String, E>, content_type: &'static str) -> Response {
    const NAME: HeaderName = CONTENT_TYPE;
    match body {
        Ok(text) => ([(NAME, content_type)], text).into_response(),
        Err(error) => {
            let text = error_chain(&error);
            error!("a page could not be written: {text}");
            (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
        }
    }
}
