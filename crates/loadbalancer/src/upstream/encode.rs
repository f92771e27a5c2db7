//! The request head as a backend gets it: written afresh from parsed parts in one pass over the fields, never copied
//! through. What must not pass is left out here; what we add is written last, so a client's `Connection` field cannot
//! remove it.

use bytes::{BufMut, BytesMut};
use http::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue};

use super::fields::{Class, class, is_hop_by_hop};

/// How long the request may still take, in milliseconds. gRPC's `grpc-timeout` for any HTTP; what Envoy says in
/// `X-Envoy-Expected-Rq-Timeout-Ms`.
pub(crate) const TIME_LEFT: &str = "x-request-timeout-ms";

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
    pub via: &'a Via,
    pub framing: Framing,
    /// `Expect: 100-continue` goes on.
    pub expects_continue: bool,
    /// The protocol that is offered to switch to.
    pub upgrade: Option<&'a str>,
    /// `TE: trailers` goes on.
    pub takes_trailers: bool,
    /// `Max-Forwards`, counted down.
    pub max_forwards: Option<u64>,
    /// `X-Request-Timeout-Ms`: what is left of the request's time, if it has an end.
    pub time_left_ms: Option<u64>,
}

/// What requests say of us.
#[derive(Debug)]
pub(crate) struct Via {
    /// `1.1 pseudonym`.
    text: String,
    /// All of what a request gets that brings nothing of the kind along, up to where the client's address follows.
    introduction: Vec<u8>,
}

impl Via {
    /// Joins it once for all requests.
    pub(crate) fn new(text: String) -> Self {
        let introduction = format!("\r\nvia: {text}\r\nx-forwarded-proto: http\r\nx-forwarded-for: ").into_bytes();
        Self { text, introduction }
    }
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

/// Fields named by `Connection`, beyond those that never pass anyway (RFC 9110 §7.6.1).
pub(super) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let mut named = Vec::new();
    for value in headers.get_all(CONNECTION) {
        add_named(value.as_bytes(), &mut named);
    }
    named
}

/// The same for one value of `Connection`.
pub(super) fn add_named(connection: &[u8], named: &mut Vec<HeaderName>) {
    for word in words(connection).filter(|word| names_a_field(word)) {
        if let Ok(name) = HeaderName::from_bytes(word)
            && !is_hop_by_hop(name.as_str())
        {
            named.push(name);
        }
    }
}

/// The members of a list (RFC 9110 §5.6.1).
pub(crate) fn words(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Whether a word in `Connection` is anything but the two that nearly every sender uses.
fn names_a_field(word: &[u8]) -> bool {
    !word.is_empty() && !word.eq_ignore_ascii_case(b"keep-alive") && !word.eq_ignore_ascii_case(b"close")
}

/// Writes request line and fields.
// Not inlined, so that its cost can be counted (`cargo xtask test --only gates`); a call is nothing beside the work.
#[inline(never)]
pub(crate) fn write_head(out: &mut BytesMut, method: &str, target: &str, headers: &HeaderMap, facts: &Forwarding<'_>) {
    out.reserve(512 + target.len());
    for part in [method.as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\nhost: ", facts.host] {
        out.put_slice(part);
    }
    // From here on each field begins with the end of the line before it: one piece less for each.
    let mark = out.len();
    let seen = put_fields(out, headers, facts);
    if seen.names {
        // Hardly a client does that, and what it names may stand before it. Of what the client sent, only what its own
        // `Connection` does not name.
        out.truncate(mark);
        let headers = without_named(headers);
        put_fields(out, &headers, facts);
        put_extended(out, &headers, facts);
    } else if seen.via || facts.trusted {
        put_extended(out, headers, facts);
    } else {
        out.put_slice(&facts.via.introduction);
        out.put_slice(facts.client.as_bytes());
        if facts.host_named {
            put_field(out, "x-forwarded-host", facts.host);
        }
    }
    out.put_slice(b"\r\nx-request-id: ");
    out.put_slice(facts.request_id);
    match facts.framing {
        Framing::None => {}
        Framing::Length(length) => {
            put_field(out, "content-length", b"");
            put_number(out, length);
        }
        Framing::Chunked => put_field(out, "transfer-encoding", b"chunked"),
    }
    if facts.expects_continue {
        put_field(out, "expect", b"100-continue");
    }
    if let Some(hops) = facts.max_forwards {
        put_field(out, "max-forwards", b"");
        put_number(out, hops);
    }
    if let Some(time_left_ms) = facts.time_left_ms {
        put_field(out, TIME_LEFT, b"");
        put_number(out, time_left_ms);
    }
    put_connection(out, facts);
    out.put_slice(b"\r\n\r\n");
}

/// What the client's fields ask for beyond being copied.
#[derive(Default)]
struct Seen {
    /// There are values to which ours is appended.
    via: bool,
    /// `Connection` names fields that must not pass.
    names: bool,
}

/// The client's own fields, without those that must not pass.
fn put_fields(out: &mut BytesMut, headers: &HeaderMap, facts: &Forwarding<'_>) -> Seen {
    let mut seen = Seen::default();
    for (name, value) in headers {
        match class(name.as_str().as_bytes()) {
            Class::Ordinary => put_field(out, name.as_str(), value.as_bytes()),
            Class::MaxForwards if facts.max_forwards.is_none() => put_field(out, name.as_str(), value.as_bytes()),
            Class::Via => seen.via = true,
            Class::Connection => seen.names |= words(value.as_bytes()).any(names_a_field),
            _ => {}
        }
    }
    seen
}

fn without_named(headers: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(headers);
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter().filter(|(name, _)| !named.contains(name)) {
        kept.append(name.clone(), value.clone());
    }
    kept
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

/// `Via`, `X-Forwarded-*` and `Forwarded`, where there may be values to be kept or extended.
#[cold]
fn put_extended(out: &mut BytesMut, headers: &HeaderMap, facts: &Forwarding<'_>) {
    // RFC 9110 §7.6.3: appended to what earlier proxies wrote.
    put_list(out, "via", headers, facts.via.text.as_bytes());
    if facts.trusted {
        put_kept(out, "x-forwarded-proto", headers, b"http");
        put_list(out, "x-forwarded-for", headers, facts.client.as_bytes());
        if facts.host_named || headers.contains_key("x-forwarded-host") {
            put_kept(out, "x-forwarded-host", headers, facts.host);
        }
        for (name, value) in headers {
            let name = name.as_str();
            let is_done = matches!(name, "x-forwarded-proto" | "x-forwarded-for" | "x-forwarded-host");
            if class(name.as_bytes()) == Class::Forwarding && !is_done {
                put_field(out, name, value.as_bytes());
            }
        }
    } else {
        put_field(out, "x-forwarded-proto", b"http");
        put_field(out, "x-forwarded-for", facts.client.as_bytes());
        if facts.host_named {
            put_field(out, "x-forwarded-host", facts.host);
        }
    }
}

/// A field behind another line, whose end it writes; its own is written by what follows.
fn put_field(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(b"\r\n");
    out.put_slice(name.as_bytes());
    out.put_slice(b": ");
    out.put_slice(value);
}

/// What is there already, one value after the other, and ours at the end. RFC 9110 §5.6.1.1: no empty elements.
fn put_list(out: &mut BytesMut, name: &str, headers: &HeaderMap, ours: &[u8]) {
    put_field(out, name, b"");
    for value in headers.get_all(name).into_iter().filter(|value| !value.is_empty()) {
        out.put_slice(value.as_bytes());
        out.put_slice(b", ");
    }
    out.put_slice(ours);
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
            via: &Via::new("1.1 lb".to_owned()),
            framing,
            expects_continue: false,
            upgrade: None,
            takes_trailers: false,
            max_forwards: None,
            time_left_ms: None,
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
            "GET /a?b HTTP/1.1\r\nhost: example.org\r\naccept: */*\r\nvia: 1.1 lb\r\nx-forwarded-proto: http\r\n\
             x-forwarded-for: 192.0.2.7\r\nx-forwarded-host: example.org\r\nx-request-id: 42\r\n\r\n"
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
