//! The bearer token on everything under `/v1`.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;

use super::{Admin, problem};

/// Lets a request through if it carries the token.
pub(super) async fn require_token(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.as_bytes().split_first_chunk::<7>());
    match given {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer ") && admin.token.is(token) => {
            next.run(request).await
        }
        _ => {
            let detail = format!(
                "this needs the header `Authorization: Bearer TOKEN`; the token is {}",
                admin.token.whereabouts()
            );
            problem::refuse(StatusCode::UNAUTHORIZED, "token", detail)
        }
    }
}
