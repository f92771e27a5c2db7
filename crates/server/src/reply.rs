//! Answers in the few shapes that the routes use.

use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::Value;

use crate::body::Body;

pub(crate) type Reply = Response<Body>;

pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) fn with_body(status: StatusCode, content_type: HeaderValue, body: Body) -> Reply {
    let mut reply = Response::new(body);
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Reply {
    with_body(status, TEXT, Body::once(text.into()))
}

/// Indented, for the person who runs curl.
pub(crate) fn json(value: &Value) -> Reply {
    with_body(StatusCode::OK, JSON, Body::once(format!("{value:#}\n")))
}

pub(crate) fn bad_request(why: &str) -> Reply {
    text(StatusCode::BAD_REQUEST, format!("{why}\n"))
}

/// RFC 9110 §15.5.6: `allow` lists what would be answered.
pub(crate) fn method_not_allowed(allow: &'static str) -> Reply {
    let mut reply = text(StatusCode::METHOD_NOT_ALLOWED, format!("method not allowed here, use {allow}\n"));
    reply.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    reply
}
