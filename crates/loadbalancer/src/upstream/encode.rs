//! The request head as a backend gets it: written afresh from parsed parts in one pass over the fields, never copied
//! through. What must not pass is left out here; what we add is written last, so a client's `Connection` field cannot
//! remove it.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, MAX_FORWARDS};

/// What the head says besides the client's own fields.
#[derive(Debug)]
pub(crate) struct Forwarding<'a> {
    /// `Host`; replaces the client's.
    pub host: &'a [u8],
    /// Whether the client named it; else it is the backend's own, and nothing to tell a backend.
    pub host_named: bool,
    /// The client's address, as text.
    pub client: &'a str,
    /// Whether the peer's own forwarding fields are believed and extended.
    pub trusted: bool,
    pub request_id: &'a [u8],
    /// `1.1 pseudonym`, for `Via`.
    pub via: &'a str,
    pub framing: Framing,
    /// `Expect: 100-continue` goes on.
    pub expects_continue: bool,
    /// The protocol that is offered to switch to.
    pub upgrade: Option<&'a str>,
    /// `TE: trailers` goes on.
    pub takes_trailers: bool,
    /// `Max-Forwards`, counted down.
    pub max_forwards: Option<u64>,
}

/// How the request body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none, and none is announced.
    None,
    /// So many bytes (`Content-Length`).
    Length(u64),
    Chunked,
}

/// Whether a field is only about one connection (RFC 9110 §7.6.1) and never forwarded.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
    )
}

/// What we write ourselves, whatever the client sent.
pub(super) fn is_ours(name: &str) -> bool {
    matches!(name, "host" | "content-length" | "via" | "expect" | "x-request-id" | "http2-settings")
}

/// What tells a backend about the client; only a trusted peer's is believed.
pub(super) fn is_forwarding(name: &str) -> bool {
    matches!(
        name,
        "x-forwarded-for"
            | "x-forwarded-proto"
            | "x-forwarded-host"
            | "x-forwarded-port"
            | "forwarded"
            | "x-real-ip"
            | "true-client-ip"
    )
}

/// A name that a CGI or WSGI backend cannot tell from one of ours: `X_Forwarded_For` (RFC 3875 §4.1.18 maps `-` to
/// `_`). Dropped whoever sends it.
pub(super) fn is_alias(name: &str) -> bool {
    if !name.contains('_') {
        return false;
    }
    let name = name.replace('_', "-");
    is_ours(&name) || is_forwarding(&name) || is_hop_by_hop(&name)
}

/// Fields named by `Connection`, beyond those that never pass anyway (RFC 9110 §7.6.1).
pub(super) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for word in value.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii) {
            // The two words that nearly every client sends must not cost a search.
            if word.eq_ignore_ascii_case(b"keep-alive") || word.eq_ignore_ascii_case(b"close") {
                continue;
            }
            if let Ok(name) = HeaderName::from_bytes(word)
                && !is_hop_by_hop(name.as_str())
            {
                named.push(name);
            }
        }
    }
    named
}

/// Writes request line and fields.
pub(crate) fn write_head(out: &mut BytesMut, method: &str, target: &str, headers: &HeaderMap, facts: &Forwarding<'_>) {
    let named = if headers.contains_key(CONNECTION) { named_by_connection(headers) } else { Vec::new() };
    out.reserve(512);
    for part in [method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\nhost: ", facts.host, b"\r\n"] {
        out.put_slice(part);
    }
    for (name, value) in headers {
        let word = name.as_str();
        if is_hop_by_hop(word) || is_ours(word) || is_forwarding(word) || is_alias(word) || named.contains(name) {
            continue;
        }
        if facts.max_forwards.is_some() && name == MAX_FORWARDS {
            continue;
        }
        put_field(out, word, value.as_bytes());
    }
    put_forwarding(out, headers, &named, facts);
    match facts.framing {
        Framing::None => {}
        Framing::Length(length) => {
            out.put_slice(b"content-length: ");
            put_number(out, length);
            out.put_slice(b"\r\n");
        }
        Framing::Chunked => out.put_slice(b"transfer-encoding: chunked\r\n"),
    }
    if facts.expects_continue {
        out.put_slice(b"expect: 100-continue\r\n");
    }
    if let Some(hops) = facts.max_forwards {
        out.put_slice(b"max-forwards: ");
        put_number(out, hops);
        out.put_slice(b"\r\n");
    }
    put_connection(out, facts);
    out.put_slice(b"\r\n");
}

/// What is about this connection to the backend (RFC 9110 §7.6.1 wants such fields named by `Connection`).
fn put_connection(out: &mut BytesMut, facts: &Forwarding<'_>) {
    if let Some(protocol) = facts.upgrade {
        put_field(out, "upgrade", protocol.as_bytes());
    }
    if facts.takes_trailers {
        put_field(out, "te", b"trailers");
    }
    match (facts.upgrade, facts.takes_trailers) {
        (Some(_), true) => put_field(out, "connection", b"upgrade, te"),
        (Some(_), false) => put_field(out, "connection", b"upgrade"),
        (None, true) => put_field(out, "connection", b"te"),
        (None, false) => {}
    }
}

/// `X-Forwarded-*`, `Forwarded`, `Via` and `X-Request-Id`.
/// Of what the client sent, only what its own `Connection` does not name.
fn put_forwarding(out: &mut BytesMut, headers: &HeaderMap, named: &[HeaderName], facts: &Forwarding<'_>) {
    let kept;
    let headers = if named.is_empty() {
        headers
    } else {
        let passes = |name: &HeaderName| !named.contains(name);
        kept = headers.iter().filter(|(name, _)| passes(name)).map(|(name, value)| (name.clone(), value.clone())).fold(
            HeaderMap::new(),
            |mut kept, (name, value)| {
                kept.append(name, value);
                kept
            },
        );
        &kept
    };
    // RFC 9110 §7.6.3: appended to what earlier proxies wrote.
    put_list(out, "via", headers, facts.via.as_bytes());
    if facts.trusted {
        put_list(out, "x-forwarded-for", headers, facts.client.as_bytes());
        put_kept(out, "x-forwarded-proto", headers, b"http");
        if facts.host_named || headers.contains_key("x-forwarded-host") {
            put_kept(out, "x-forwarded-host", headers, facts.host);
        }
        for name in ["x-forwarded-port", "forwarded", "x-real-ip", "true-client-ip"] {
            for value in headers.get_all(name) {
                put_field(out, name, value.as_bytes());
            }
        }
    } else {
        put_field(out, "x-forwarded-for", facts.client.as_bytes());
        put_field(out, "x-forwarded-proto", b"http");
        if facts.host_named {
            put_field(out, "x-forwarded-host", facts.host);
        }
    }
    put_field(out, "x-request-id", facts.request_id);
}

fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

/// What is there already, one value after the other, and ours at the end.
fn put_list(out: &mut BytesMut, name: &str, headers: &HeaderMap, ours: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    for value in headers.get_all(name) {
        out.put_slice(value.as_bytes());
        out.put_slice(b", ");
    }
    out.put_slice(ours);
    out.put_slice(b"\r\n");
}

/// What is there already, else ours.
fn put_kept(out: &mut BytesMut, name: &str, headers: &HeaderMap, ours: &[u8]) {
    put_field(out, name, headers.get(name).map_or(ours, HeaderValue::as_bytes));
}

pub(super) fn put_number(out: &mut BytesMut, number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&'static str, &'static str)], trusted: bool, framing: Framing) -> String {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let facts = Forwarding {
            host: b"example.org",
            host_named: true,
            client: "192.0.2.7",
            trusted,
            request_id: b"42",
            via: "1.1 lb",
            framing,
            expects_continue: false,
            upgrade: None,
            takes_trailers: false,
            max_forwards: None,
        };
        let mut out = BytesMut::new();
        write_head(&mut out, "GET", "/a?b", &headers, &facts);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn hop_by_hop_fields_and_those_named_by_connection_stay_here() {
        let text = head(
            &[
                ("connection", "close, X-Secret, via, x-forwarded-for, host"),
                ("x-secret", "1"),
                ("te", "trailers"),
                ("keep-alive", "5"),
                ("upgrade", "h2c"),
                ("proxy-authorization", "Basic x"),
                ("accept", "*/*"),
                ("transfer-encoding", "chunked"),
            ],
            false,
            Framing::None,
        );
        assert_eq!(
            text,
            "GET /a?b HTTP/1.1\r\nhost: example.org\r\naccept: */*\r\nvia: 1.1 lb\r\nx-forwarded-for: 192.0.2.7\r\n\
             x-forwarded-proto: http\r\nx-forwarded-host: example.org\r\nx-request-id: 42\r\n\r\n"
        );
    }

    #[test]
    fn a_stranger_cannot_choose_its_address() {
        let lies = [("x_forwarded_for", "6.6.6.6"), ("x-real-ip", "6.6.6.6"), ("x_request-id", "6.6.6.6")];
        assert!(!head(&lies, false, Framing::None).contains("6.6.6.6"));
        let fields = [("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("via", "1.0 old")];
        let text = head(&fields, false, Framing::Chunked);
        assert!(!text.contains("6.6.6.6"), "{text}");
        assert!(text.contains("via: 1.0 old, 1.1 lb\r\n"));
        let text = head(&fields, true, Framing::Length(1_234_567_890));
        assert!(
            text.contains("x-forwarded-for: 6.6.6.6, 192.0.2.7\r\n") && text.contains("forwarded: for=6.6.6.6\r\n")
        );
        assert!(text.contains("content-length: 1234567890\r\n"));
    }

    #[test]
    fn fields_keep_their_order_and_repetition() {
        let text = head(&[("x-a", "1"), ("cookie", "b"), ("x-a", "2")], false, Framing::None);
        assert!(text.contains("x-a: 1\r\nx-a: 2\r\ncookie: b\r\n"), "{text}");
    }
}
