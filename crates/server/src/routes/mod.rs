//! Which path means what. Every path without a meaning answers like `/`: through a balancer people ask for any.

mod admin;
mod bounded;
mod echo;
mod health;
mod paced;

use std::ops::RangeInclusive;
use std::sync::Arc;

use hyper::header::HeaderValue;
use hyper::{Method, Request, StatusCode};

use crate::app::App;
use crate::body::Body;
use crate::conn::Peer;
use crate::metrics::render::Facts;
use crate::reply::{self, Reply};
use crate::upload::Upload;

/// The routes, for `--help`. No braces: clap reads `{n}` as a line break.
pub(crate) const ROUTES: &str = "\
/                     and every path that is not listed: 200 with the server's name, the method and the path
/livez                200 ok while the process lives
/readyz               200 ok, or 503 with the reason while switched off or stopping; ?verbose lists the checks
/healthz, /health     the same as /readyz
/metrics              Prometheus text
/echo                 the request as JSON: method, target, headers, body (at most 1 MiB)
/echo/body            the request's body, streamed back
/bytes/N              N bytes, at most 10737418240 (10 GiB); byte i is i mod 251
/delay/MS             answers after that many milliseconds, at most 60000
/status/CODE          answers with that status, 200 to 599
/stream/N             N chunks, at most 10000, a pause between them: ?pause_ms=100, at most 10000
/sse                  server-sent events: ?n=10000 and ?pause_ms=1000, at most 10000 each
/admin/ready          POST: /readyz answers 200 again
/admin/not-ready      POST: /readyz answers 503 from now on
/admin/faults         GET, PUT, DELETE: show, replace and clear the faults (only with --faults)
There is no login: this is a server for tests, keep it away from networks that you do not trust.";

/// The longest default answer in bytes, with its line feed; a longer path is cut.
const PLAIN_MAX: usize = 200;

/// Faults befall these; the rest must stay reachable to see and to clear them.
pub(crate) fn is_ordinary(path: &str) -> bool {
    path != "/livez" && path != "/metrics" && path != "/admin" && !path.starts_with("/admin/")
}

pub(crate) async fn answer(app: &Arc<App>, peer: &Peer, request: Request<Upload>) -> Reply {
    if request.method() == Method::CONNECT {
        // A 2xx would promise a tunnel (RFC 9110 §9.3.6).
        return reply::method_not_allowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
    }
    match split(request.uri().path()).0 {
        "livez" | "readyz" | "healthz" | "health" | "metrics" | "admin" | "echo" | "bytes" | "delay" | "status"
        | "stream" | "sse" => Box::pin(special(app, peer, request)).await,
        // Not boxed: this is the answer under load.
        _ => plain(app, request).await,
    }
}

/// Paths whose first part has a meaning; the rest may still have none.
async fn special(app: &Arc<App>, peer: &Peer, request: Request<Upload>) -> Reply {
    let path = request.uri().path().to_owned();
    let (first, rest) = split(&path);
    match (first, rest) {
        ("echo", None) => return echo::describe(app, peer, request).await,
        ("echo", Some("body")) => return echo::send_back(request),
        ("admin", _) => return admin::answer(app, peer, rest.unwrap_or_default(), request).await,
        _ => {}
    }
    let (head, upload) = request.into_parts();
    if let Err(error) = upload.discard().await {
        return error.into_reply();
    }
    let query = Query(head.uri.query().unwrap_or_default());
    let is_get = head.method == Method::GET || head.method == Method::HEAD;
    let reply = match (first, rest) {
        ("livez" | "readyz" | "healthz" | "health" | "metrics", None) if !is_get => {
            Ok(reply::method_not_allowed("GET, HEAD"))
        }
        ("livez", None) => Ok(health::live(query)),
        ("readyz" | "healthz" | "health", None) => Ok(health::ready(app, query)),
        ("metrics", None) => Ok(metrics(app)),
        ("bytes", n) => bounded::bytes(n),
        ("status", code) => bounded::status(app, code),
        ("delay", ms) => paced::delay(app, ms).await,
        ("stream", n) => paced::stream(app, n, query),
        ("sse", None) => paced::events(query),
        _ => Ok(say_name(app, &head.method, &path)),
    };
    reply.unwrap_or_else(|why: String| reply::bad_request(&why))
}

async fn plain(app: &Arc<App>, request: Request<Upload>) -> Reply {
    let (head, upload) = request.into_parts();
    match upload.discard().await {
        Ok(()) => say_name(app, &head.method, head.uri.path()),
        Err(error) => error.into_reply(),
    }
}

fn say_name(app: &App, method: &Method, path: &str) -> Reply {
    let mut line = String::with_capacity(PLAIN_MAX);
    for part in [app.name(), " ", method.as_str(), " ", path] {
        line.push_str(part);
    }
    if line.len() >= PLAIN_MAX {
        let mut end = PLAIN_MAX - 1;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
    }
    line.push('\n');
    reply::with_body(StatusCode::OK, reply::TEXT, Body::once(line))
}

fn metrics(app: &App) -> Reply {
    const PROMETHEUS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    let page = app.metrics.render(&Facts { name: app.name(), ready: app.is_ready() });
    reply::with_body(StatusCode::OK, PROMETHEUS, Body::once(page))
}

/// The first part of a path, and what follows the slash after it.
fn split(path: &str) -> (&str, Option<&str>) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)))
}

/// A query string. Nothing that is looked for needs percent-decoding.
#[derive(Clone, Copy)]
struct Query<'a>(&'a str);

impl<'a> Query<'a> {
    /// The value of the first `key=value`; empty for a bare `key`.
    fn value(self, key: &str) -> Option<&'a str> {
        self.0.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (name == key).then_some(value)
        })
    }
}

/// Reads a number with bounds.
///
/// # Errors
/// A sentence that names `what`, the value and the bounds.
fn number(what: &str, text: &str, bounds: RangeInclusive<u64>) -> Result<u64, String> {
    // `parse` alone would take a plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits && bounds.contains(&number) => Ok(number),
        _ => {
            let (least, most) = bounds.into_inner();
            Err(format!("{what}={text}: expected a whole number from {least} to {most}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_the_first_inner_slash() {
        for (path, parts) in [
            ("/", ("", None)),
            ("/echo", ("echo", None)),
            ("/echo/", ("echo", Some(""))),
            ("/echo/body", ("echo", Some("body"))),
            ("/bytes/5/6", ("bytes", Some("5/6"))),
            ("*", ("*", None)),
        ] {
            assert_eq!(split(path), parts, "{path}");
        }
    }

    #[test]
    fn what_shows_and_clears_faults_meets_none() {
        for path in ["/livez", "/metrics", "/admin", "/admin/faults", "/admin/ready"] {
            assert!(!is_ordinary(path), "{path}");
        }
        for path in ["/", "/readyz", "/healthz", "/echo", "/administrator", "/livez/x"] {
            assert!(is_ordinary(path), "{path}");
        }
    }

    #[test]
    fn query_values_are_found() {
        let query = Query("verbose&pause_ms=5&pause_ms=6&n=");
        assert_eq!(query.value("verbose"), Some(""));
        assert_eq!(query.value("pause_ms"), Some("5"));
        assert_eq!(query.value("n"), Some(""));
        assert_eq!(query.value("pause"), None);
        assert_eq!(Query("").value("n"), None);
    }

    #[test]
    fn numbers_are_whole_and_in_bounds() {
        assert_eq!(number("n", "10", 0..=10).ok(), Some(10));
        for text in ["", "11", "-1", "+1", "1.0", "1e3", "0x1", "99999999999999999999"] {
            assert!(number("n", text, 0..=10).is_err(), "{text:?}");
        }
    }
}
