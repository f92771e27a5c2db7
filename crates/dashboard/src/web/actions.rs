//! The page's buttons: passed on to the admin API, with the token, after [`super::security`] let them in.

use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use hyper::header::CONTENT_TYPE;
use hyper::{Method, StatusCode};
use lb_core::api::{AdminState, StateChange};

use super::backend::target;
use super::{App, forward, problem, unreachable_balancer};
use crate::metrics::Metrics;

pub(super) async fn change_state(
    State(app): State<App>,
    Path((pool, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let change = match read(&headers, &body) {
        Ok(change) => change,
        Err(refusal) => return *refusal,
    };
    let state = change.state.as_str();
    let body = Bytes::from(format!("{{\"state\":\"{state}\"}}"));
    let outcome = app.client.ask(Method::PUT, &target(&pool, &name, "state"), body).await;
    let metrics = &app.feed.metrics;
    let done = outcome.as_ref().is_ok_and(|reply| reply.status.is_success());
    Metrics::add(if done { &metrics.actions_done } else { &metrics.actions_failed });
    match outcome {
        Ok(reply) => {
            tracing::info!(pool, backend = name, state, status = reply.status.as_u16(), "state change asked for");
            forward(reply)
        }
        Err(error) => {
            tracing::warn!(pool, backend = name, state, %error, "state change failed");
            unreachable_balancer(&app, &error)
        }
    }
}

fn read(headers: &HeaderMap, body: &Bytes) -> Result<StateChange, Box<Response>> {
    let words = AdminState::ALL.map(AdminState::as_str).join(", ");
    // Only a script can send this type, and a script of another site would have to ask first.
    let is_json = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(';').next().is_some_and(|kind| kind.trim() == "application/json"));
    if !is_json {
        let detail = "expected Content-Type: application/json".to_owned();
        return Err(Box::new(problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", "Not JSON", detail)));
    }
    serde_json::from_slice(body).map_err(|error| {
        let detail = format!("{error}; expected {{\"state\":\"…\"}} with one of {words}");
        Box::new(problem(StatusCode::BAD_REQUEST, "bad-state-change", "Not a state change", detail))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_state_change_in_json_is_read() {
        let json: HeaderMap =
            [(CONTENT_TYPE, "application/json; charset=utf-8".parse().unwrap())].into_iter().collect();
        let text: HeaderMap = [(CONTENT_TYPE, "text/plain".parse().unwrap())].into_iter().collect();
        let status = |headers: &HeaderMap, body: &'static str| {
            read(headers, &Bytes::from_static(body.as_bytes())).map_err(|refusal| refusal.status())
        };
        assert_eq!(status(&json, r#"{"state":"drain"}"#), Ok(StateChange { state: AdminState::Drain }));
        assert_eq!(status(&json, r#"{"state":"gone"}"#), Err(StatusCode::BAD_REQUEST));
        assert_eq!(status(&json, r#"{"state":"drain","force":true}"#), Err(StatusCode::BAD_REQUEST));
        assert_eq!(status(&text, r#"{"state":"drain"}"#), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
        assert_eq!(status(&HeaderMap::new(), r#"{"state":"drain"}"#), Err(StatusCode::UNSUPPORTED_MEDIA_TYPE));
    }
}
