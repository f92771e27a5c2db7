//! What a client is told when there is no response of a backend to give: one error type, one total mapping to a
//! status, one reply that says what was tried, why it failed, and what to do.

use std::fmt::Write as _;
use std::rc::Rc;
use std::time::Duration;

use http::Method;
use http::header::{ALLOW, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, TRANSFER_ENCODING};
use http::request::Parts;
use hyper::{Response, StatusCode};
use lb_core::metrics::{LocalReply, Rejected};

use super::admit::Refused;
use super::body::ProxyBody;
use super::request::{Outbound, describe};
use super::response::{METHODS, say_attempts, say_if_last};
use crate::access::Entry;
use crate::conn::Client;

/// Why a request has no response of a backend. Whose fault it is stands beside each.
#[derive(Debug)]
pub(super) enum ProxyError {
    /// Client: not a request that can be forwarded.
    Rejected(Rejected),
    /// Client: it went away in the middle of its body; nobody is there to be told.
    ClientGone,
    /// Ours: no pool for it.
    NoRoute,
    /// Ours: no backend in the pool may take it; says which there are and why each is out.
    NoBackend(String),
    /// Ours: it may not come in, or has no place; says what was tried before.
    Refused(Refused, String),
    /// Ours: no descriptor, port or memory is left to reach a backend; says what was tried.
    OutOfMeans(String),
    /// Backend: no connection could be made; says what was tried.
    ConnectFailed { tried: String, timed_out: bool },
    /// Backend: closed before the response head; says what was tried.
    UpstreamClosed(String),
    /// Backend: no response head in time; says what was tried.
    HeadTimeout(String),
    /// Nobody: the time for the whole request passed; says what was tried.
    Overdue(String),
    /// Backend: not a response that can be forwarded; says what was tried.
    BadResponse(String),
}

impl ProxyError {
    /// The total mapping: what it is counted as, which fixes the status and the words too.
    fn kind(&self) -> Kind {
        Kind::Local(match self {
            Self::Rejected(reason) => return Kind::Rejected(*reason),
            Self::ClientGone => LocalReply::ClientGone,
            Self::Refused(why, _) => why.reply(),
            Self::OutOfMeans(_) => LocalReply::OutOfMeans,
            Self::NoRoute => LocalReply::NoRoute,
            Self::NoBackend(_) => LocalReply::NoBackend,
            Self::ConnectFailed { timed_out: false, .. } => LocalReply::ConnectFailed,
            Self::ConnectFailed { timed_out: true, .. } => LocalReply::ConnectTimeout,
            Self::UpstreamClosed(_) => LocalReply::UpstreamClosed,
            Self::HeadTimeout(_) => LocalReply::HeadTimeout,
            Self::BadResponse(_) => LocalReply::BadResponse,
            Self::Overdue(_) => LocalReply::Deadline,
        })
    }

    /// What was tried and why it failed, for the engineer on call.
    fn detail(&self) -> &str {
        match self {
            Self::NoBackend(detail)
            | Self::OutOfMeans(detail)
            | Self::Refused(_, detail)
            | Self::ConnectFailed { tried: detail, .. }
            | Self::UpstreamClosed(detail)
            | Self::HeadTimeout(detail)
            | Self::Overdue(detail)
            | Self::BadResponse(detail) => detail,
            Self::Rejected(_) | Self::ClientGone | Self::NoRoute => "",
        }
    }
}

/// What it is counted as.
#[derive(Clone, Copy)]
enum Kind {
    Rejected(Rejected),
    Local(LocalReply),
}

impl Kind {
    /// As it is counted and logged.
    fn status(self) -> u16 {
        match self {
            Self::Rejected(reason) => reason.status(),
            Self::Local(reply) => reply.status(),
        }
    }

    /// As it is sent: 499 is a word among logs, and whoever ended its request too early may still be listening.
    fn sent_status(self) -> StatusCode {
        match self {
            Self::Local(LocalReply::ClientGone) => StatusCode::BAD_REQUEST,
            kind => StatusCode::from_u16(kind.status()).expect("the fixed sets have valid statuses only"),
        }
    }

    /// As it is counted and logged.
    fn label(self) -> &'static str {
        match self {
            Self::Rejected(reason) => reason.as_str(),
            Self::Local(reply) => reply.as_str(),
        }
    }

    /// What is wrong, for anybody.
    fn words(self) -> &'static str {
        match self {
            Self::Rejected(reason) => reason.words(),
            Self::Local(LocalReply::ClientGone) => "the request broke off before its end",
            Self::Local(LocalReply::OutOfMeans) => "the load balancer has run out of connections to servers",
            Self::Local(LocalReply::QueueFull | LocalReply::QueueTimeout) => {
                "the servers have as much to do as they may"
            }
            Self::Local(LocalReply::ConnectionLimit) => "the servers have as many connections as they may",
            Self::Local(LocalReply::QueueDeadline) => "the servers have too much to do to answer this in time",
            Self::Local(LocalReply::Overloaded) => "the load balancer has too much to do",
            Self::Local(LocalReply::RateLimited) => "too many requests from you in too short a time",
            Self::Local(LocalReply::NoRoute) => "there is nothing configured for this request",
            Self::Local(LocalReply::NoBackend) => "no server is ready to take this request",
            Self::Local(LocalReply::ConnectFailed | LocalReply::ConnectTimeout) => "no server could be reached",
            Self::Local(LocalReply::UpstreamClosed) => "the server closed the connection before it answered",
            Self::Local(LocalReply::HeadTimeout) => "the server did not answer in time",
            Self::Local(LocalReply::Deadline) => "the time for this request has passed",
            Self::Local(LocalReply::BadResponse) => "the server's answer was not valid HTTP",
        }
    }
}

/// The reply for `error`.
pub(super) fn reply(
    client: &Rc<Client>,
    head: &Parts,
    request: Option<&Outbound<'_>>,
    error: &ProxyError,
    entry: Entry,
) -> Response<ProxyBody> {
    let (worker, kind) = (&client.worker, error.kind());
    match kind {
        Kind::Rejected(reason) => client.reject(reason),
        Kind::Local(reply) => worker.count_local(reply),
    }
    client.response_done();
    let config = &worker.shared.config;
    let status = kind.sent_status();
    let mut text = format!("{} {}: {}\n", status.as_u16(), status.canonical_reason().unwrap_or(""), kind.words());
    let id = request.map(|request| request.request_id.as_bytes());
    if config.explain_errors {
        let _ = writeln!(text, "\nrequest: {}", describe(head));
        text.push_str(error.detail());
        if let ProxyError::Refused(why, _) = error {
            text.push_str(&why.story(worker));
        }
    }
    if let Some(id) = id {
        let _ = writeln!(text, "\nrequest id: {}", String::from_utf8_lossy(id));
    }
    // RFC 9110 §9.3.2: the reply to HEAD has no body.
    let body_bytes = if head.method == Method::HEAD { 0 } else { text.len() as u64 };
    entry.reply(kind.status(), kind.label(), matches!(kind, Kind::Local(LocalReply::ClientGone)), body_bytes);
    let mut response = Response::new(ProxyBody::text(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    say_attempts(client, headers);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if let Some(id) = id.and_then(|id| HeaderValue::from_bytes(id).ok()) {
        headers.insert("x-request-id", id);
    }
    match error {
        ProxyError::Refused(why, _) => {
            headers.insert(RETRY_AFTER, HeaderValue::from(why.retry_after_s(worker)));
        }
        _ if status == StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(RETRY_AFTER, HeaderValue::from(retry_after(config.health.fast_interval)));
        }
        _ => {}
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        // RFC 9110 §15.5.6 wants the list.
        headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    }
    // What is left of a body nobody wanted must not be taken for the next request (RFC 9112 §9.3).
    let must_end = head.headers.contains_key(TRANSFER_ENCODING)
        || head.headers.contains_key(CONTENT_LENGTH)
        || matches!(kind, Kind::Rejected(_) | Kind::Local(LocalReply::Overloaded))
        // What the client sends behind a request to switch may be meant for the other protocol.
        || request.is_some_and(|request| request.ends_connection || request.upgrade.is_some());
    say_if_last(client, must_end, headers);
    response
}

/// A backend that comes back is seen within a check or two, and checks are fast while something changes.
fn retry_after(fast_interval: Duration) -> u64 {
    fast_interval.as_secs().max(1)
}
