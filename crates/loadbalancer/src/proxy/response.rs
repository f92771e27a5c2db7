//! The response head on its way to the client. The backend's fields about its own connection are gone already; ours
//! come here.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::time::SystemTime;

use http::header::{ALLOW, CONNECTION, HeaderValue, UPGRADE, VIA};
use http::{HeaderMap, StatusCode};
use hyper::Response;
use hyper::ext::ReasonPhrase;

use super::body::ProxyBody;
use super::record::Record;
use super::request::Outbound;
use crate::access::Entry;
use crate::conn::{Client, Tunnel};
use crate::tunnels::Facts;
use crate::upstream::{Answer, Exchange};

/// What this gateway lets pass (RFC 9110 §10.2.1); what a backend allows is its own business.
pub(super) const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";

/// Of a tunnel's path, this much is shown.
const MOST_PATH: usize = 100;

/// A backend's response, its body still to come.
pub(super) struct Reached {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The backend speaks HTTP/1.0.
    pub old: bool,
    pub exchange: Exchange,
    pub record: Record,
}

impl Reached {
    /// The answer goes to the client: the request is not sent again.
    pub(super) fn new(answer: Answer, mut exchange: Exchange, record: Record) -> Self {
        exchange.outgoing.body.forget();
        let Answer { status, headers, old, .. } = answer;
        Self { status, headers, old, exchange, record }
    }
}

/// The response for the client.
pub(super) fn forward(client: &Rc<Client>, request: &Outbound<'_>, reached: Reached) -> Response<ProxyBody> {
    let Reached { status, headers, old, mut exchange, mut record } = reached;
    record.answered(status);
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return switch(client, request, headers, exchange, record);
    }
    // RFC 9110 §10.1.1: the client waits for leave to send its body, or sends it anyway; either way the next thing on
    // the connection is not certain.
    let unasked = exchange.holds_body();
    // RFC 9112 §9.3: who refuses a request before its end will not read the rest of it.
    let refused = status.as_u16() >= 300 && !exchange.is_sent();
    if request.upgrade.is_some() {
        exchange.forget_connection();
    }
    let mut response = Response::new(ProxyBody::streaming(exchange, record, &headers));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if status.canonical_reason().is_none() {
        // hyper would say `<none>`. RFC 9112 §4: it may be empty, and clients ignore it.
        response.extensions_mut().insert(ReasonPhrase::from_static(b""));
    }
    let shared = &client.worker.shared;
    response.headers_mut().append(VIA, if old { shared.old_via.clone() } else { shared.via.clone() });
    say_attempts(client, response.headers_mut());
    // What the client sends behind a request to switch may be meant for the other protocol.
    let must_end = unasked || refused || request.upgrade.is_some() || request.ends_connection;
    say_if_last(client, must_end, response.headers_mut());
    response
}

/// RFC 9110 §7.8: the 101 goes out; behind it the connection belongs to a tunnel.
fn switch(
    client: &Rc<Client>,
    request: &Outbound<'_>,
    headers: HeaderMap,
    exchange: Exchange,
    record: Record,
) -> Response<ProxyBody> {
    // What follows is no response any more.
    client.time.lift();
    let protocol = request.upgrade.unwrap_or_default();
    let facts = Facts {
        id: client.worker.shared.tunnels.number(),
        pool: client.worker.shared.config.pool.name.clone(),
        backend: record.backend().backend.spec.name.clone(),
        client: SocketAddr::new(client.address, client.peer.client.port()),
        protocol: protocol.to_owned(),
        path: request.head.uri.path().chars().take(MOST_PATH).collect(),
        since: SystemTime::now(),
        to_backend: AtomicU64::new(0),
        to_client: AtomicU64::new(0),
    };
    *client.tunnel.borrow_mut() = Some(Tunnel::new(exchange.into_tunnel(), record, facts));
    let mut response = Response::new(ProxyBody::Done);
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = headers;
    let fields = response.headers_mut();
    fields.append(VIA, client.worker.shared.via.clone());
    say_attempts(client, fields);
    fields.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        fields.insert(UPGRADE, protocol);
    }
    response
}

/// RFC 9110 §7.6.2: an OPTIONS that may go no further is answered here.
pub(super) fn options_here(client: &Client, request: &Outbound<'_>, entry: Entry) -> Response<ProxyBody> {
    entry.reply(StatusCode::OK.as_u16(), "max_forwards", false, 0);
    let mut response = Response::new(ProxyBody::Done);
    let headers = response.headers_mut();
    headers.insert(ALLOW, HeaderValue::from_static(METHODS));
    if let Ok(id) = HeaderValue::from_bytes(request.request_id.as_bytes()) {
        headers.insert("x-request-id", id);
    }
    say_if_last(client, request.length_announced || request.ends_connection, headers);
    client.response_done();
    response
}

/// How many attempts there were at backends, if clients are to know.
pub(super) fn say_attempts(client: &Client, headers: &mut HeaderMap) {
    if client.worker.shared.config.attempts.shown {
        headers.insert("x-lb-attempts", HeaderValue::from(client.attempts.get()));
    }
}

/// Says whether the connection ends behind this response (RFC 9112 §9.6): if it must, if it has had as many requests as it
/// may, and while the balancer shuts down.
pub(super) fn say_if_last(client: &Client, must_end: bool, headers: &mut HeaderMap) {
    if must_end || client.is_last_request() || client.worker.draining.get() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        client.last_response();
    }
}
