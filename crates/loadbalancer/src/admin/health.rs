//! `/livez`, `/readyz` (also `/healthz`) and `/startupz`, as Kubernetes asks them: 200 or 503, `ok` or why not;
//! `?verbose` lists every check.

use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::Admin;
use crate::control::{Command, readiness};
use crate::runtime::Phase;

/// For the control task to answer; it never waits for anything itself.
const CONTROL_PATIENCE: Duration = Duration::from_secs(1);

/// One check: name, whether it passed, what was found.
type Check = (&'static str, bool, String);

/// Whether the process works at all. Backends do not matter: a restart would not bring them back.
pub(super) async fn livez(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let asked = tokio::time::timeout(CONTROL_PATIENCE, admin.control.ask(Command::Ping)).await;
    let control = matches!(asked, Ok(Ok(_)));
    let found = if control { "answers" } else { "does not answer" };
    answer(query.as_deref(), &[("control", control, found.to_owned())])
}

/// Whether the balancer wants traffic.
pub(super) async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    let serving = *admin.phase.borrow() == Phase::Serving;
    let started = *admin.control.started.borrow();
    let snapshot = admin.shared.snapshot.load();
    let ready = readiness(!serving, started, &snapshot.pools);
    let mut checks =
        vec![("serving", serving, if serving { "accepting" } else { "shutting down" }.to_owned()), startup(started)];
    let pools = if started { ready.reason } else { "not known yet".to_owned() };
    checks.push(("pools", started && readiness(false, started, &snapshot.pools).ready, pools));
    answer(query.as_deref(), &checks)
}

/// Whether the first check of every backend is through.
pub(super) async fn startupz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    answer(query.as_deref(), &[startup(*admin.control.started.borrow())])
}

fn startup(started: bool) -> Check {
    let found = if started { "every backend has been checked" } else { "waiting for the first check of every backend" };
    ("startup", started, found.to_owned())
}

fn answer(query: Option<&str>, checks: &[Check]) -> Response {
    let passed = checks.iter().all(|(_, passed, _)| *passed);
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose =
        query.is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
    let text = if verbose {
        let line = |(name, passed, found): &Check| format!("[{}] {name}: {found}\n", if *passed { '+' } else { '-' });
        checks.iter().map(line).collect()
    } else if passed {
        "ok\n".to_owned()
    } else {
        let why: Vec<&str> =
            checks.iter().filter(|(_, passed, _)| !passed).map(|(_, _, found)| found.as_str()).collect();
        format!("{}\n", why.join("; "))
    };
    (status, text).into_response()
}
