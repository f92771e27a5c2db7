//! The page's own server: which path does what. Who may ask at all is decided in [`security`], before any of it.

mod actions;
mod assets;
mod backend;
mod health;
mod security;
mod stream;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, StatusCode};
use lb_core::api::Problem;
use tokio::sync::watch;

use crate::balancer::{AdminClient, AdminError, Reply};
use crate::feed::Feed;
use crate::guard::HostPolicy;

/// The only body that is ever read is `{"state":"maintenance"}`.
const LARGEST_BODY: usize = 1024;

/// What every handler may use.
#[derive(Clone)]
pub(crate) struct App {
    client: Arc<AdminClient>,
    feed: Arc<Feed>,
    hosts: Arc<HostPolicy>,
    stopping: watch::Receiver<bool>,
}

impl App {
    pub(crate) fn new(
        client: Arc<AdminClient>,
        feed: Arc<Feed>,
        hosts: HostPolicy,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Self { client, feed, hosts: Arc::new(hosts), stopping }
    }
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/", get(assets::page))
        .route("/assets/{*path}", get(assets::asset))
        .route("/api/status", get(status))
        .route("/api/stream", get(stream::stream))
        .route("/api/pools/{pool}/backends/{name}/state", put(actions::change_state))
        .route("/api/pools/{pool}/backends/{name}/checks", get(backend::checks))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/healthz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(LARGEST_BODY))
        .layer(from_fn_with_state(app.clone(), security::guard))
        .with_state(app)
}

async fn status(State(app): State<App>) -> Response {
    match app.client.ask(Method::GET, "/v1/status", bytes::Bytes::new()).await {
        Ok(reply) => forward(reply),
        Err(error) => unreachable_balancer(&app, &error),
    }
}

async fn not_found() -> Response {
    problem(StatusCode::NOT_FOUND, "not-found", "No such page", "the dashboard is at /".to_owned())
}

/// The load balancer's answer, with nothing of its head but what a browser needs to read it.
fn forward(reply: Reply) -> Response {
    let content_type = reply.content_type.unwrap_or(HeaderValue::from_static("application/json"));
    (reply.status, [(CONTENT_TYPE, content_type), (CACHE_CONTROL, HeaderValue::from_static("no-store"))], reply.body)
        .into_response()
}

fn unreachable_balancer(app: &App, error: &AdminError) -> Response {
    let detail = format!("cannot reach the load balancer's admin API at {}: {error}", app.feed.url());
    problem(StatusCode::BAD_GATEWAY, "load-balancer-unreachable", "Load balancer not reachable", detail)
}

/// An RFC 9457 answer, in the same form as the admin API's own.
fn problem(status: StatusCode, kind: &str, title: &str, detail: String) -> Response {
    let body = Problem { kind: format!("/problems/{kind}"), title: title.to_owned(), status: status.as_u16(), detail };
    let headers = [(CONTENT_TYPE, "application/problem+json"), (CACHE_CONTROL, "no-store")];
    (status, headers, Json(body)).into_response()
}
