//! `/livez`, `/readyz` (also `/healthz`) and `/metrics`.
//!
//! Ready means: the page is served. The load balancer's absence does not make the dashboard unready, because that is
//! when people open it; `?verbose` and the metrics say how things stand.

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::CONTENT_TYPE;

use super::App;

const TEXT: &str = "text/plain; charset=utf-8";
/// The version of the exposition format, as Prometheus asks for it.
const METRICS_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) async fn live() -> Response {
    (StatusCode::OK, [(CONTENT_TYPE, TEXT)], "ok\n").into_response()
}

pub(super) async fn ready(State(app): State<App>, RawQuery(query): RawQuery) -> Response {
    let stopping = *app.stopping.borrow();
    let (status, word) = if stopping { (StatusCode::SERVICE_UNAVAILABLE, "stopping") } else { (StatusCode::OK, "ok") };
    let mut text = format!("{word}\n");
    if asks_for_details(query.as_deref()) {
        let balancer = app.feed.reachability();
        let url = app.feed.url();
        text = match (balancer.reachable, balancer.error) {
            (true, _) => format!("page: {word}\nload balancer: ok, {url}\n"),
            (false, Some(error)) => {
                format!("page: {word}\nload balancer: not reachable, {url}: {error} (does not make the page unready)\n")
            }
            (false, None) => format!("page: {word}\nload balancer: connecting, {url}\n"),
        };
    }
    (status, [(CONTENT_TYPE, TEXT)], text).into_response()
}

pub(super) async fn metrics(State(app): State<App>) -> Response {
    let text = app.feed.metrics.render(app.feed.reachability().reachable);
    (StatusCode::OK, [(CONTENT_TYPE, METRICS_TEXT)], text).into_response()
}

/// `?verbose`, as Kubernetes asks its own servers.
fn asks_for_details(query: Option<&str>) -> bool {
    query.is_some_and(|query| query.split('&').any(|pair| pair == "verbose" || pair.starts_with("verbose=")))
}
