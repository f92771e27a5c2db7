//! Refusals, as RFC 9457 problems: a stable word for scripts, and what to do for people.

use axum::http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use lb_core::api::Problem;

const CONTENT: &str = "application/problem+json";

/// A refusal.
pub(super) fn refuse(status: StatusCode, kind: &str, detail: impl Into<String>) -> Response {
    let problem = Problem {
        kind: format!("/problems/{kind}"),
        title: status.canonical_reason().unwrap_or_default().to_owned(),
        status: status.as_u16(),
        detail: detail.into(),
    };
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let mut response = (status, [(CONTENT_TYPE, CONTENT)], body).into_response();
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

pub(super) fn ending() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "ending", "the load balancer is about to end")
}

pub(super) async fn no_such_path(uri: Uri) -> Response {
    let detail = format!(
        "there is no {}; there are /livez, /readyz, /startupz, /metrics, /v1/status, /v1/stream, /v1/tunnels and \
         /v1/pools/{{pool}}/backends/{{name}}/ with state, checks or drain",
        uri.path()
    );
    refuse(StatusCode::NOT_FOUND, "unknown-path", detail)
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Response {
    refuse(StatusCode::METHOD_NOT_ALLOWED, "unknown-method", format!("{} does not take {method}", uri.path()))
}
