//! `/v1`: the status as JSON, the stream of it, the open tunnels, what is known of one backend, and the one thing that
//! can be changed.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use lb_core::api::{AdminState, StateChange, TUNNELS_LISTED, Tunnels};
use serde_json::{Value, json};

use super::{Admin, auth, backend, problem, stream};
use crate::control::Command;

/// A body of a few bytes is expected.
const MOST_BODY: usize = 4096;

pub(super) fn router(admin: Admin) -> Router<Admin> {
    Router::new()
        .route("/status", get(status))
        .route("/stream", get(stream::stream))
        .route("/tunnels", get(tunnels))
        .route("/pools/{pool}/backends/{backend}/state", put(set_state))
        .route("/pools/{pool}/backends/{backend}/checks", get(backend::checks))
        .route("/pools/{pool}/backends/{backend}/drain", get(backend::drain))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(axum::extract::DefaultBodyLimit::max(MOST_BODY))
        .layer(middleware::from_fn_with_state(admin, auth::require_token))
}

async fn status(State(admin): State<Admin>) -> Response {
    match admin.control.ask(Command::Status).await {
        Ok(status) => Json(status).into_response(),
        Err(_) => problem::ending(),
    }
}

/// Read straight from the workers' list: its lock is held for as long as it takes to copy pointers.
async fn tunnels(State(admin): State<Admin>) -> Json<Tunnels> {
    let open = &admin.shared.tunnels;
    Json(Tunnels { open: open.count() as u64, tunnels: open.oldest(TUNNELS_LISTED).iter().map(|t| t.wire()).collect() })
}

async fn set_state(
    State(admin): State<Admin>,
    Path((pool, backend)): Path<(String, String)>,
    body: axum::body::Bytes,
) -> Response {
    let Some(state) = asked_state(&body) else {
        let words = AdminState::ALL.map(AdminState::as_str).join(", ");
        let detail = format!("the body must be {{\"state\":\"…\"}} with one of {words}");
        return problem::refuse(StatusCode::UNPROCESSABLE_ENTITY, "body", detail);
    };
    let command = |reply| Command::SetAdmin { pool, backend, state, reply };
    match admin.control.ask(command).await {
        Ok(Ok(backend)) => Json(backend).into_response(),
        Ok(Err(not_found)) => problem::refuse(StatusCode::NOT_FOUND, "unknown-backend", not_found.0),
        Err(_) => problem::ending(),
    }
}

/// The state that a body asks for.
pub(super) fn asked_state(body: &[u8]) -> Option<AdminState> {
    let StateChange { state } = serde_json::from_slice(body).ok()?;
    // serde also takes `["drain"]` and `{"state":{"drain":null}}` for it, which nobody was promised.
    let plain = serde_json::from_slice::<Value>(body).ok()? == json!({ "state": state });
    plain.then_some(state)
}
