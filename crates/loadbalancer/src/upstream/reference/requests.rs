//! What we write, hyper's server reads: the same method, target, fields, body and trailers, wherever it is cut.

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use proptest::prelude::*;

use super::loopback::{Backend, arrived, block_on, send, with_request};
use super::{hyper_serves, split};

/// A request, as generated and as understood.
#[derive(Clone, Debug, PartialEq)]
struct Asked {
    method: String,
    target: String,
    fields: HeaderMap,
    body: Vec<u8>,
    trailers: HeaderMap,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Length(Vec<u8>),
    Chunked(Vec<Vec<u8>>, Vec<(String, Vec<u8>)>),
}

fn fields(prefix: &'static str, most: usize) -> impl Strategy<Value = Vec<(String, Vec<u8>)>> {
    let name = "[a-z0-9!#$%&'*+.^`|~-]{0,12}".prop_map(move |rest| format!("{prefix}{rest}"));
    // RFC 9110 §5.5: visible characters and obs-text, blanks only inside.
    let visible = prop_oneof![8 => 0x21_u8..=0x7e, 1 => 0x80_u8..=0xff];
    let inside = prop_oneof![8 => 0x21_u8..=0x7e, 1 => Just(b' '), 1 => Just(b'\t'), 1 => 0x80_u8..=0xff];
    let value = (prop::collection::vec(inside, 0..30), visible.clone(), visible)
        .prop_map(|(inside, first, last)| [vec![first], inside, vec![last]].concat());
    prop::collection::vec((name, prop_oneof![9 => value, 1 => Just(Vec::new())]), 0..most)
}

fn body() -> impl Strategy<Value = Body> {
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let chunks = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..6);
    prop_oneof![
        Just(Body::None),
        bytes.prop_map(Body::Length),
        (chunks, fields("x-t", 4)).prop_map(|(chunks, trailers)| Body::Chunked(chunks, trailers)),
    ]
}

fn put(raw: &mut Vec<u8>, fields: &[(String, Vec<u8>)]) {
    for (name, value) in fields {
        raw.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
}

/// The request as a client sends it.
fn raw(method: &str, target: &str, fields: &[(String, Vec<u8>)], body: &Body) -> Vec<u8> {
    let mut raw = format!("{method} {target} HTTP/1.1\r\nhost: client\r\nconnection: x-named, TE\r\nx-named: here\r\n")
        .into_bytes();
    put(&mut raw, fields);
    match body {
        Body::None => raw.extend_from_slice(b"\r\n"),
        Body::Length(bytes) => {
            raw.extend_from_slice(format!("content-length: {}\r\n\r\n", bytes.len()).as_bytes());
            raw.extend_from_slice(bytes);
        }
        Body::Chunked(chunks, trailers) => {
            raw.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
            for chunk in chunks {
                raw.extend_from_slice(format!("{:X};ignored\r\n", chunk.len()).as_bytes());
                raw.extend_from_slice(&[chunk, &b"\r\n"[..]].concat());
            }
            raw.extend_from_slice(b"0\r\n");
            // None of these may stand here (RFC 9110 §6.5.1, and §7.6.1 for the last): they must not reach the backend.
            raw.extend_from_slice(
                b"content-length: 7\r\nHost: evil\r\nx-forwarded-for: 6.6.6.6\r\nx_real_ip: 6.6.6.6\r\nx-named: there\r\n",
            );
            put(&mut raw, trailers);
            raw.extend_from_slice(b"\r\n");
        }
    }
    raw
}

fn map(fields: &[(String, Vec<u8>)]) -> HeaderMap {
    let typed = |(name, value): &(String, Vec<u8>)| {
        (HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value).unwrap())
    };
    fields.iter().map(typed).collect()
}

/// What the backend must see.
fn expected(method: &str, target: &str, fields: &[(String, Vec<u8>)], body: &Body) -> Asked {
    let mut fields = map(fields);
    let ours = [
        ("host", "example.org"),
        ("via", "1.1 lb"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "example.org"),
        ("x-request-id", "42"),
    ];
    fields.extend(ours.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))));
    let (bytes, trailers) = match body {
        Body::None => (Vec::new(), HeaderMap::new()),
        Body::Length(bytes) => {
            fields.insert("content-length", bytes.len().into());
            (bytes.clone(), HeaderMap::new())
        }
        Body::Chunked(chunks, trailers) => {
            fields.insert("transfer-encoding", HeaderValue::from_static("chunked"));
            (chunks.concat(), map(trailers))
        }
    };
    Asked { method: method.to_owned(), target: target.to_owned(), fields, body: bytes, trailers }
}

/// Which requests hyper's server finds in `pieces`.
fn understood(pieces: &[&[u8]]) -> Vec<Asked> {
    let found = RefCell::new(Vec::new());
    hyper_serves(pieces, async |request| {
        let (head, body) = request.into_parts();
        let collected = body.collect().await.expect("a complete body");
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let (method, target) = (head.method.to_string(), head.uri.to_string());
        let body = collected.to_bytes().to_vec();
        found.borrow_mut().push(Asked { method, target, fields: head.headers, body, trailers });
        let mut response = Response::new(Empty::<Bytes>::new().map_err(|never: Infallible| never));
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    });
    found.into_inner()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_request_arrives_as_it_was_meant(
        method in prop_oneof![
            Just("GET".to_owned()), Just("POST".to_owned()), Just("DELETE".to_owned()), "[A-Z!#$%&'*+.^_`|~0-9-]{1,12}",
        ].prop_filter("not a tunnel", |method| method != "CONNECT"),
        target in r"/[a-zA-Z0-9._~!$&'()*+,;=:@%/{}|-]{0,40}(\?[a-zA-Z0-9=&/?%{}-]{0,20})?",
        fields in fields("x-f", 8),
        body in body(),
    ) {
        let raw = raw(&method, &target, &fields, &body);
        let sent = block_on(async {
            let (connection, mut peer) = Backend::start().await.pair().await;
            with_request(&raw, async |request| {
                let mut exchange = send(request, connection).await;
                arrived(&mut exchange, &mut peer).await
            }).await
        });
        let expected = expected(&method, &target, &fields, &body);
        for cut in 0..sent.len() {
            prop_assert_eq!(&understood(&split(&sent, &[cut])), std::slice::from_ref(&expected), "cut at {}", cut);
        }
        let twice = [&sent[..], &sent[..]].concat();
        prop_assert_eq!(understood(&[&twice]).len(), 2, "the next request begins where this one ends");
    }
}
