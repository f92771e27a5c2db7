//! What can be asked about one backend: its last checks, and how far its drain is. Nothing here changes anything.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use lb_core::api::{AdminState, DrainReport};
use tokio::time::{Instant, timeout_at};

use super::{Admin, problem};
use crate::config::duration;
use crate::control::{Command, Gone, NotFound};

/// The longest wait of one request: below the minute after which proxies and clients in between give up.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(50);

/// Names in the path: pool and backend.
type Names = Path<(String, String)>;

/// `GET …/checks`.
pub(super) async fn checks(State(admin): State<Admin>, Path((pool, backend)): Names) -> Response {
    match admin.control.ask(|reply| Command::Checks { pool, backend, reply }).await {
        Ok(Ok(checks)) => Json(checks).into_response(),
        Ok(Err(not_found)) => unknown(not_found),
        Err(Gone) => problem::ending(),
    }
}

/// `GET …/drain[?wait=30s]`: at once, or when the backend is safe to stop, or nobody wants it to drain any more, or the
/// wait is over; always with how it stands then.
pub(super) async fn drain(State(admin): State<Admin>, Path(names): Names, RawQuery(query): RawQuery) -> Response {
    let wait = match wait(query.as_deref().unwrap_or_default()) {
        Ok(wait) => wait,
        Err(detail) => return problem::refuse(StatusCode::BAD_REQUEST, "query", detail),
    };
    let until = Instant::now() + wait;
    let mut news = admin.control.drains.clone();
    let _place = match Arc::clone(&admin.waits).try_acquire_owned() {
        Ok(place) => place,
        Err(_) if wait.is_zero() => return answer(report(&admin, &names).await),
        Err(_) => {
            let detail = "too many requests wait for a drain; ask without wait, or later";
            return problem::refuse(StatusCode::SERVICE_UNAVAILABLE, "too-many-waits", detail);
        }
    };
    loop {
        // Before it is looked at: what changes behind that is not missed.
        news.mark_unchanged();
        match report(&admin, &names).await {
            Ok(Ok(report)) if report.admin != AdminState::Ready && !report.safe_to_stop && Instant::now() < until => {}
            settled => return answer(settled),
        }
        // When the control task is gone the next question says so.
        let _ = timeout_at(until, news.changed()).await;
    }
}

async fn report(admin: &Admin, (pool, backend): &(String, String)) -> Result<Result<DrainReport, NotFound>, Gone> {
    let (pool, backend) = (pool.clone(), backend.clone());
    admin.control.ask(|reply| Command::DrainOf { pool, backend, reply }).await
}

fn answer(report: Result<Result<DrainReport, NotFound>, Gone>) -> Response {
    match report {
        Ok(Ok(report)) => Json(report).into_response(),
        Ok(Err(not_found)) => unknown(not_found),
        Err(Gone) => problem::ending(),
    }
}

fn unknown(not_found: NotFound) -> Response {
    problem::refuse(StatusCode::NOT_FOUND, "unknown-backend", not_found.0)
}

/// How long to wait, from the query.
pub(super) fn wait(query: &str) -> Result<Duration, String> {
    let mut wait = Duration::ZERO;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let given = part.strip_prefix("wait=").and_then(duration);
        wait = given.filter(|wait| *wait <= LONGEST_WAIT).ok_or_else(|| {
            format!("{part:?} is not understood; expected wait=DURATION, such as wait=30s, at most {LONGEST_WAIT:?}")
        })?;
    }
    Ok(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_bounded_and_nothing_else_is_understood() {
        assert_eq!((wait(""), wait("wait=1.5s")), (Ok(Duration::ZERO), Ok(Duration::from_millis(1500))));
        for query in ["wait", "wait=", "wait=5", "wait=51s", "wait=1h", "x=1", "wait=1s&x"] {
            assert!(wait(query).unwrap_err().contains("expected wait=DURATION"), "{query}");
        }
    }
}
