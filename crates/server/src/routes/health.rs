//! `/livez` and `/readyz` by the conventions of Kubernetes: `ok`, or 503 with the reason; `?verbose` lists checks.

use std::fmt::Write;

use hyper::StatusCode;

use super::Query;
use crate::app::{App, Check};
use crate::reply::{self, Reply};

/// That this runs at all is the only check.
pub(super) fn live(query: Query<'_>) -> Reply {
    report("livez", &[Check { name: "ping", failure: None }], query)
}

pub(super) fn ready(app: &App, query: Query<'_>) -> Reply {
    report("readyz", &app.readiness(), query)
}

fn report(name: &str, checks: &[Check], query: Query<'_>) -> Reply {
    let failures: Vec<&str> = checks.iter().filter_map(|check| check.failure).collect();
    let status = if failures.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if query.value("verbose").is_some() {
        return reply::text(status, verbose(name, checks));
    }
    if failures.is_empty() {
        return reply::text(status, "ok\n");
    }
    reply::text(status, format!("not ready: {}\n", failures.join("; ")))
}

fn verbose(name: &str, checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        match check.failure {
            None => writeln!(text, "[+]{} ok", check.name),
            Some(why) => writeln!(text, "[-]{} failed: {why}", check.name),
        }
        .expect("a String takes every write");
    }
    let passed = checks.iter().all(|check| check.failure.is_none());
    text + name + if passed { " check passed\n" } else { " check failed\n" }
}
