//! `/admin/…`: readiness and faults, switched while the server runs.

use std::sync::Arc;

use hyper::header::{HeaderMap, HeaderName};
use hyper::{Method, Request, StatusCode};
use serde_json::{Map, Value, json};
use tracing::info;

use crate::app::App;
use crate::conn::Peer;
use crate::faults::control::FaultControl;
use crate::faults::{Faults, GRAMMAR, from_json};
use crate::metrics::Injected;
use crate::notify;
use crate::reply::{self, Reply};
use crate::upload::Upload;

/// The longest text of faults is far below this.
const BODY_MAX: usize = 16 * 1024;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

pub(super) async fn answer(app: &Arc<App>, peer: &Peer, what: &str, request: Request<Upload>) -> Reply {
    let (head, upload) = request.into_parts();
    let body = match upload.collect(BODY_MAX).await {
        Ok(body) => body,
        Err(error) => return error.into_reply(),
    };
    if is_from_another_site(&head.headers) {
        return reply::text(StatusCode::FORBIDDEN, "not for the pages of other web sites\n");
    }
    match (what, &head.method) {
        ("ready", &Method::POST) => switch(app, peer, true),
        ("not-ready", &Method::POST) => switch(app, peer, false),
        ("ready" | "not-ready", _) => reply::method_not_allowed("POST"),
        ("faults", method) => match &app.faults {
            Some(control) => faults(app, peer, control, method, &body),
            None => reply::text(
                StatusCode::FORBIDDEN,
                "faults are off: start the server with --faults none (or with faults)\n",
            ),
        },
        _ => reply::text(StatusCode::NOT_FOUND, "here are: /admin/ready, /admin/not-ready, /admin/faults\n"),
    }
}

/// A browser says so by itself; a POST from a foreign page to localhost needs nobody's leave otherwise.
fn is_from_another_site(headers: &HeaderMap) -> bool {
    headers.get(SEC_FETCH_SITE).is_some_and(|site| site != "same-origin" && site != "none")
}

fn switch(app: &App, peer: &Peer, ready: bool) -> Reply {
    app.switch_ready(ready);
    info!(ready, peer = %peer.address, "readiness switched");
    notify::status(if ready { "serving, ready" } else { "serving, switched to not ready" });
    reply::text(StatusCode::OK, if ready { "ready\n" } else { "not ready\n" })
}

fn faults(app: &App, peer: &Peer, control: &FaultControl, method: &Method, body: &[u8]) -> Reply {
    let wanted = match *method {
        Method::GET | Method::HEAD => return show(app, control),
        Method::DELETE => Faults::default(),
        Method::PUT => match read(body) {
            Ok(faults) => faults,
            Err(why) => {
                return reply::bad_request(&format!("{why}\n\nexpected {GRAMMAR}\nor the same as a JSON object"));
            }
        },
        _ => return reply::method_not_allowed("GET, HEAD, PUT, DELETE"),
    };
    info!(faults = %wanted, peer = %peer.address, "faults switched");
    control.replace(wanted);
    show(app, control)
}

fn read(body: &[u8]) -> Result<Faults, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_owned())?;
    if text.trim_start().starts_with(['{', '[', '"']) {
        let value: Value = serde_json::from_str(text).map_err(|e| format!("the body is not JSON: {e}"))?;
        return from_json(&value).map_err(|e| e.to_string());
    }
    text.parse::<Faults>().map_err(|wrong| wrong.to_string())
}

fn show(app: &App, control: &FaultControl) -> Reply {
    let faults = control.current();
    let injected: Map<String, Value> = Injected::KINDS
        .iter()
        .enumerate()
        .map(|(kind, name)| ((*name).to_owned(), json!(app.metrics.injected_count(kind))))
        .collect();
    reply::json(&json!({
        "faults": faults.to_json(),
        "text": faults.to_string(),
        "refusing_ms": u64::try_from(control.refusing_for().as_millis()).unwrap_or(u64::MAX),
        "injected": injected,
    }))
}
