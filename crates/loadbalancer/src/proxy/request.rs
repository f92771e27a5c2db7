//! From what a client sent to what a backend may get: validated, and with the facts that are forwarded.

use std::fmt::Write as _;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Version};

use super::error::ProxyError;
use crate::conn::Client;

const REQUEST_ID: &str = "x-request-id";

/// The longest request id taken over from a trusted peer.
const MOST_REQUEST_ID: usize = 128;

/// A request that may be forwarded.
pub(super) struct Outbound<'a> {
    pub head: &'a Parts,
    /// Path and query, or `*`; in origin form whatever form the client chose (RFC 9112 §3.2).
    pub target: &'a str,
    /// `Host`, from the target if it names one (RFC 9112 §3.2.2); empty from an HTTP/1.0 client without one.
    pub host: &'a [u8],
    pub request_id: RequestId<'a>,
    /// Whether a body, even an empty one, was announced by `Content-Length`.
    pub length_announced: bool,
}

/// An id for logs on all sides.
pub(super) enum RequestId<'a> {
    Kept(&'a [u8]),
    Made([u8; 32]),
}

impl RequestId<'_> {
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Kept(id) => id,
            Self::Made(id) => id,
        }
    }

    fn made(number: u128) -> Self {
        let mut id = [0; 32];
        for (at, digit) in id.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (4 * at)) as usize & 0xf];
        }
        Self::Made(id)
    }
}

impl<'a> Outbound<'a> {
    /// Validates a request head.
    ///
    /// # Errors
    /// Why it cannot be forwarded; the client's fault.
    pub(super) fn new(client: &Client, head: &'a Parts) -> Result<Self, ProxyError> {
        if head.method == Method::CONNECT {
            // RFC 9110 §9.3.6: a gateway is not a tunnel to wherever a client likes.
            return Err(ProxyError::MethodNotAllowed);
        }
        let target = match head.uri.path_and_query().map(|target| target.as_str()) {
            // RFC 9112 §3.2.4: only OPTIONS may ask about the server as a whole.
            Some("*") if head.method != Method::OPTIONS => return Err(bad("the target * is for OPTIONS only")),
            Some(target) if !target.is_empty() => target,
            _ => "/",
        };
        let request_id = match head.headers.get(REQUEST_ID).map(HeaderValue::as_bytes) {
            Some(id) if client.trusted && !id.is_empty() && id.len() <= MOST_REQUEST_ID => RequestId::Kept(id),
            _ => RequestId::made(client.worker.random()),
        };
        let length_announced = head.headers.contains_key(CONTENT_LENGTH);
        Ok(Self { head, target, host: host(head)?, request_id, length_announced })
    }
}

/// RFC 9112 §3.2: exactly one valid Host in HTTP/1.1; the authority of an absolute target replaces it (§3.2.2).
fn host(head: &Parts) -> Result<&[u8], ProxyError> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(host.as_bytes()),
        (None, _) if head.version == Version::HTTP_10 => None,
        (None, _) => return Err(bad("there is no Host field")),
        (Some(_), Some(_)) => return Err(bad("there is more than one Host field")),
    };
    // RFC 9110 §7.2: uri-host [ ":" port ]; no user information, path, list or white space. Empty is valid syntax,
    // but names nobody.
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:[]%".contains(b);
    if host.is_some_and(|host| host.is_empty() || !host.iter().all(fits)) {
        return Err(bad("the Host field is not a host name"));
    }
    match head.uri.authority() {
        Some(authority) if authority.as_str().contains('@') => Err(bad("the target has user information")),
        Some(authority) => Ok(authority.as_str().as_bytes()),
        None => Ok(host.unwrap_or_default()),
    }
}

fn bad(why: &'static str) -> ProxyError {
    ProxyError::BadRequest(why)
}

/// For people: `GET /a` without the query, which may hold secrets, and not too long.
pub(super) fn describe(head: &Parts) -> String {
    let mut words = String::new();
    let path: String = head.uri.path().chars().take(100).collect();
    let _ = write!(words, "{} {path}", head.method);
    words
}
