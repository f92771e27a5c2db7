//! From what a client sent to what a backend may get: validated, and with the facts that are forwarded.

use std::borrow::Cow;
use std::fmt::Write as _;

use http::header::{CONTENT_LENGTH, EXPECT, HOST, HeaderValue, TRANSFER_ENCODING};
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
    pub target: Cow<'a, str>,
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
        if let Some(expected) = head.headers.get(EXPECT)
            && !expected.as_bytes().eq_ignore_ascii_case(b"100-continue")
        {
            return Err(ProxyError::Expectation);
        }
        // hyper frames any list that ends in chunked as chunked; the codings before it would be lost here.
        let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
        if codings.next().is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
            || codings.next().is_some()
        {
            return Err(ProxyError::UnsupportedCoding);
        }
        let target = target(head)?;
        let request_id = match head.headers.get(REQUEST_ID).map(HeaderValue::as_bytes) {
            Some(id) if client.trusted && !id.is_empty() && id.len() <= MOST_REQUEST_ID => RequestId::Kept(id),
            _ => RequestId::made(client.worker.random()),
        };
        let length_announced = head.headers.contains_key(CONTENT_LENGTH);
        Ok(Self { head, target, host: host(head)?, request_id, length_announced })
    }
}

/// RFC 9112 §3.2: origin form, taken from an absolute one.
fn target(head: &Parts) -> Result<Cow<'_, str>, ProxyError> {
    if head.uri.authority().is_some() && head.uri.scheme().is_none() {
        // §3.2.3: the authority form is for CONNECT only.
        return Err(bad("the target is neither a path nor a URL"));
    }
    match head.uri.path_and_query().map(|target| target.as_str()) {
        // §3.2.4: only OPTIONS may ask about the server as a whole.
        Some("*") if head.method != Method::OPTIONS => Err(bad("the target * is for OPTIONS only")),
        // §3.2.4: an absolute target without path and query stands for `*` with OPTIONS.
        None | Some("" | "/") if head.method == Method::OPTIONS && is_bare(head) => Ok(Cow::Borrowed("*")),
        Some(target) if target.starts_with('?') => Ok(Cow::Owned(format!("/{target}"))),
        Some(target) if !target.is_empty() => Ok(Cow::Borrowed(target)),
        _ => Ok(Cow::Borrowed("/")),
    }
}

/// Whether the target is `http://host` with nothing behind it.
fn is_bare(head: &Parts) -> bool {
    head.uri.authority().is_some_and(|authority| head.uri.to_string().ends_with(authority.as_str()))
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
