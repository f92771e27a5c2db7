//! The response head on its way to the client. The backend's fields about its own connection are gone already; ours
//! come here.

use std::rc::Rc;

use http::header::{CONNECTION, HeaderValue, VIA};
use http::{HeaderMap, StatusCode};
use hyper::Response;

use super::body::ProxyBody;
use super::record::Record;
use crate::conn::Client;
use crate::upstream::Exchange;

/// A backend's response, its body still to come.
pub(super) struct Reached {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub exchange: Exchange,
    pub record: Record,
}

/// The response for the client.
pub(super) fn forward(client: &Rc<Client>, reached: Reached) -> Response<ProxyBody> {
    let Reached { status, headers, exchange, mut record } = reached;
    record.answered(status);
    let mut response = Response::new(ProxyBody::streaming(exchange, record));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response.headers_mut().append(VIA, client.worker.shared.via.clone());
    close_when_draining(client, response.headers_mut());
    response
}

/// While the balancer shuts down each response is the last on its connection (RFC 9112 §9.6).
pub(super) fn close_when_draining(client: &Client, headers: &mut HeaderMap) {
    if client.worker.draining.get() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
