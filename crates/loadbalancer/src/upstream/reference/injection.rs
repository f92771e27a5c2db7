//! Nothing a client sends gets out of its place in the head that a backend reads.

use bytes::BytesMut;
use http::Method;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use proptest::prelude::*;

use super::loopback::facts;
use crate::upstream::{Forwarding, Framing, write_head};

/// Any bytes, with those that delimit a head and the fields that frame a message much more often than by chance.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..6),
        2 => prop::sample::select(vec![&b"\r"[..], b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"\0", b":", b",", b"\x0b", b"\x85"])
            .prop_map(<[u8]>::to_vec),
        1 => prop::sample::select(vec![
            &b"Content-Length: 9"[..], b"Transfer-Encoding: chunked", b"Host: evil", b" HTTP/1.1", b"GET /x HTTP/1.1\r\n\r\n",
        ]).prop_map(<[u8]>::to_vec),
    ];
    prop::collection::vec(word, 0..6).prop_map(|words| words.concat())
}

/// Names a client may pick, those that are about framing and the connection among them.
fn name() -> impl Strategy<Value = Vec<u8>> {
    let known = vec![
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "te",
        "upgrade",
        "expect",
        "via",
        "x-request-id",
        "x-forwarded-for",
        "x_forwarded_for",
        "content_length",
        "transfer_encoding",
        "forwarded",
        "cookie",
        "accept",
    ];
    prop_oneof![prop::sample::select(known).prop_map(|name| name.as_bytes().to_vec()), hostile(),]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn the_head_holds_one_request_with_our_framing_whatever_a_client_sends(
        method in hostile(),
        target in hostile().prop_map(|rest| [&b"/"[..], &rest].concat()),
        fields in prop::collection::vec((name(), hostile()), 0..12),
        trusted in any::<bool>(),
        framing in prop::sample::select(vec![Framing::None, Framing::Length(5), Framing::Chunked]),
        upgrade in prop::sample::select(vec![None, Some("websocket")]),
        (expects_continue, takes_trailers) in any::<(bool, bool)>(),
        max_forwards in prop::sample::select(vec![None, Some(3)]),
    ) {
        // hyper's types are the gate: what they refuse is never written.
        let method = Method::from_bytes(&method).unwrap_or(Method::GET);
        let target = PathAndQuery::try_from(&target[..]).unwrap_or_else(|_| PathAndQuery::from_static("/"));
        let headers: HeaderMap = fields.iter().filter_map(|(name, value)| {
            Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
        }).collect();
        let mut out = BytesMut::new();
        let facts =
            Forwarding { trusted, expects_continue, takes_trailers, upgrade, max_forwards, ..facts(framing) };
        write_head(&mut out, method.as_str(), target.as_str(), &headers, &facts);

        // Read with nothing but the grammar of RFC 9112 §3 and §5, so that no parser's leniency hides anything.
        let text = out.strip_suffix(b"\r\n\r\n").expect("an empty line ends it");
        let lines: Vec<&[u8]> = lines(text).expect("CR and LF only as line ends");
        let words: Vec<&[u8]> = lines[0].split(|b| *b == b' ').collect();
        prop_assert_eq!(words, [method.as_str().as_bytes(), target.as_str().as_bytes(), b"HTTP/1.1"]);
        let mut ours = Vec::new();
        for line in &lines[1..] {
            let colon = line.iter().position(|b| *b == b':').expect("a colon");
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            prop_assert!(!name.is_empty() && HeaderName::from_bytes(name).is_ok(), "{}", name.escape_ascii());
            prop_assert!(value.first() == Some(&b' '), "{}", line.escape_ascii());
            prop_assert!(value.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f)), "{}", value.escape_ascii());
            let plain = String::from_utf8_lossy(name).replace('_', "-");
            // What is about the message or the connection is ours alone, by any spelling of its name.
            if OURS.contains(&&*plain) || (plain == "x-forwarded-for" && !trusted) {
                ours.push(String::from_utf8_lossy(line).into_owned());
            }
            prop_assert!(!NEVER.contains(&&*plain), "{}", plain);
        }
        ours.sort();
        let connection = match (upgrade, takes_trailers) {
            (Some(_), true) => Some("connection: upgrade, te"),
            (Some(_), false) => Some("connection: upgrade"),
            (None, true) => Some("connection: te"),
            (None, false) => None,
        };
        let expected = [
            connection,
            (framing == Framing::Length(5)).then_some("content-length: 5"),
            expects_continue.then_some("expect: 100-continue"),
            Some("host: example.org"),
            takes_trailers.then_some("te: trailers"),
            (framing == Framing::Chunked).then_some("transfer-encoding: chunked"),
            upgrade.map(|_| "upgrade: websocket"),
            (!trusted).then_some("x-forwarded-for: 192.0.2.7"),
            Some("x-request-id: 42"),
        ];
        prop_assert_eq!(ours, expected.into_iter().flatten().collect::<Vec<_>>());
    }
}

/// Fields of which the head has exactly what we write.
const OURS: [&str; 8] =
    ["connection", "content-length", "expect", "host", "te", "transfer-encoding", "upgrade", "x-request-id"];

/// Fields that end here.
const NEVER: [&str; 4] = ["keep-alive", "proxy-connection", "proxy-authorization", "http2-settings"];

/// `text` at each CRLF; `None` when a CR or LF stands alone.
fn lines(text: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    lines.iter().all(|line| !line.contains(&b'\r') && !line.contains(&b'\n')).then_some(lines)
}
