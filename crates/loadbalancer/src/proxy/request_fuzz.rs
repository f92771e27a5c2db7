//! A request from its bytes to what a backend gets, fed with anything: read back by the grammar alone and by hyper, it
//! is one request with exactly the fields it should have, worked out a second time here by the rules as they stand in
//! the RFCs, slowly and without looking at the code.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use http::uri::Uri;
use http::{HeaderName, Response};
use http_body_util::{BodyExt, Empty};
use lb_fuzz::{Fuzz, Seen as Came};

use super::*;
use crate::access::forwarded_for;
use crate::config::Limits;
use crate::door::{Body, Door, Pass, diagnose};
use crate::upstream::reference::hyper_serves;
use crate::upstream::{Forwarding, Framing, Via, write_head};

const LIMITS: Limits = Limits {
    head: 32 << 10,
    fields: 100,
    target: 8 << 10,
    body: u64::MAX,
    requests_per_connection: u64::MAX,
    min_body_rate: 0,
};

const OWN: &str = "lb";

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b" ",
    b"\t",
    b"\0",
    b"\x7f",
    b"\xff",
    b":",
    b": ",
    b",",
    b", ",
    b";",
    b"=",
    b"_",
    b"/",
    b"?",
    b"#",
    b"*",
    b"@",
    b"%",
    b"[::1]",
    b"a:80",
    b"http://",
    b"https://",
    b"GET ",
    b"POST ",
    b"HEAD ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"Host: a\r\n",
    b"host",
    b"Connection: ",
    b"close",
    b"keep-alive",
    b"TE: trailers\r\n",
    b"Connection: te\r\n",
    b"Upgrade: websocket\r\n",
    b"Connection: upgrade\r\n",
    b"h2c",
    b"Via: 1.1 lb\r\n",
    b"Via: 1.0 x\r\n",
    b"Expect: 100-continue\r\n",
    b"Max-Forwards: 1\r\n",
    b"X-Forwarded-For: 6.6.6.6\r\n",
    b"X_Forwarded_For: 6.6.6.6\r\n",
    b"X-Forwarded-Host: evil\r\n",
    b"X-Forwarded-Proto: https\r\n",
    b"X-Forwarded-Prefix: /evil\r\n",
    b"x-forwarded-a_b: evil\r\n",
    b"Forwarded: for=6.6.6.6\r\n",
    b"X-Real-IP: 6.6.6.6\r\n",
    b"X-Request-Id: 7\r\n",
    b"X-Request-Timeout-Ms: 100\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"content_length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer_encoding: chunked\r\n",
    b"Proxy-Connection: x\r\n",
    b"Proxy-Authorization: x\r\n",
    b"HTTP2-Settings: x\r\n",
    b"Keep-Alive: 5\r\n",
    b"Cookie: a=b\r\n",
    b"x-a: 1\r\n",
    b"X-A: 2\r\n",
    b"Connection: x-a\r\n",
    b"192.0.2.1",
    b"10.1.1.1",
    b"2001:db8::1",
];

/// Names and values, the values of a name in their order.
type Fields = BTreeMap<String, Vec<Vec<u8>>>;

#[test]
fn fuzz_request_head() {
    Fuzz::new(env!("CARGO_MANIFEST_DIR"), "request").words(WORDS).run(|bytes| {
        // Who sends it is an input too; the last byte is behind the head.
        let trusted = bytes.last().is_some_and(|byte| byte % 2 == 1);
        let mut door = Door::default();
        let passed = match door.pass_head(bytes, &LIMITS) {
            Err(why) => return Came::refused().of(&why.as_str()),
            Ok((Pass::On(length), Some(body))) => (length, body),
            Ok(_) => return Came::refused().of(&"waiting"),
        };
        let (on, body) = (&bytes[..passed.0], passed.1);
        let mut fields = [httparse::EMPTY_HEADER; 101];
        let mut parsed = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(_)) = parsed.parse(on) else {
            return Came::refused().of(&("parser", diagnose(on).as_str()));
        };
        let Some(head) = parts(&parsed) else { return Came::refused().of(&"types") };
        let upgrades = ["websocket".to_owned()];
        let has_body = body != Body::None;
        let asking = Asking { trusted, about_server: door.about_server, has_body, via: OWN, upgrades: &upgrades };
        match Outbound::read(&asking, &head, || 42) {
            Err(ProxyError::Rejected(why)) => Came::refused().of(&("read", why.as_str())),
            Err(other) => panic!("{other:?} is not the client's fault"),
            Ok((request, time_left)) => {
                times_and_addresses(&head, trusted, time_left);
                arrives(&asking, &request, body, time_left, &parsed)
            }
        }
    });
}

/// As hyper makes them of what the parser found.
fn parts(parsed: &httparse::Request<'_, '_>) -> Option<Parts> {
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    head.uri = Uri::try_from(parsed.path?).ok()?;
    head.version = if parsed.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 };
    for field in parsed.headers.iter() {
        head.headers
            .append(HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(head)
}

/// What a peer says of time and of clients is believed from whom it should be, and only where it is plain.
fn times_and_addresses(head: &Parts, trusted: bool, time_left: Option<Duration>) {
    let said = head.headers.get_all("x-request-timeout-ms").iter().filter_map(|value| {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse::<u32>().ok()
    });
    let expected = said.min().filter(|_| trusted).map(|ms| Duration::from_millis(ms.into()));
    assert_eq!(time_left, expected, "the least of the numbers, from who is trusted");
    let proxies = ["10.0.0.0/8".parse().unwrap()];
    if let Some(client) = forwarded_for(&head.headers, &proxies) {
        assert!(!proxies[0].contains(&client), "{client} is a proxy");
        let values = head.headers.get_all("x-forwarded-for").iter().map(|value| value.as_bytes().to_vec());
        let all = values.collect::<Vec<_>>().join(&b", "[..]);
        let mut one = http::HeaderMap::new();
        one.insert("x-forwarded-for", HeaderValue::from_bytes(&all).unwrap());
        assert_eq!(forwarded_for(&one, &proxies), Some(client), "one field or several");
    }
}

fn arrives(
    asking: &Asking<'_>,
    request: &Outbound<'_>,
    body: Body,
    time_left: Option<Duration>,
    parsed: &httparse::Request<'_, '_>,
) -> Came {
    let framing = match body {
        Body::None if request.length_announced => Framing::Length(0),
        Body::None => Framing::None,
        Body::Length(length) => Framing::Length(length.min(5)),
        Body::Chunked => Framing::Chunked,
    };
    let via = if parsed.version == Some(0) { "1.0 lb" } else { "1.1 lb" };
    let host = if request.host.is_empty() { &b"backend:80"[..] } else { request.host };
    let facts = Forwarding {
        host,
        host_named: !request.host.is_empty(),
        client: "192.0.2.7",
        trusted: asking.trusted,
        request_id: request.request_id.as_bytes(),
        via: &Via::new(via.to_owned()),
        framing,
        expects_continue: request.expects_continue,
        upgrade: request.upgrade,
        takes_trailers: request.takes_trailers,
        max_forwards: request.max_forwards.map(|hops| hops.saturating_sub(1)),
        time_left_ms: time_left.map(|left| left.as_millis().max(1) as u64),
    };
    assert_eq!(request.host, asked_for(parsed), "RFC 9112 §3.2.2: the target's authority, else Host");
    assert!(asking.trusted || matches!(request.request_id, RequestId::Made(_)), "a stranger names its request");
    let mut out = BytesMut::new();
    write_head(&mut out, request.head.method.as_str(), &request.target, &request.head.headers, &facts);
    let (line, fields) = read(&out);
    assert_eq!(line, format!("{} {} HTTP/1.1", parsed.method.unwrap(), request.target).into_bytes());
    assert!(request.target.starts_with('/') || *request.target == *"*", "{}", request.target);
    let expected = expected(&facts, parsed);
    assert_eq!(fields, expected, "{}", out.escape_ascii());
    hyper_agrees(&out, framing, &expected, parsed.method.unwrap());
    let named = [request.upgrade.is_some(), request.takes_trailers, request.expects_continue, asking.trusted];
    Came::taken().of(&(named, body == Body::None)).of(&fields.keys().map(String::as_str).fold(0, known))
}

/// Whom the client asked for.
fn asked_for<'a>(parsed: &httparse::Request<'_, 'a>) -> &'a [u8] {
    let target = parsed.path.unwrap_or_default();
    match target.split_once("://").filter(|_| !target.starts_with('/')) {
        Some((_, rest)) => &rest.as_bytes()[..rest.find(['/', '?']).unwrap_or(rest.len())],
        None => parsed.headers.iter().find(|f| f.name.eq_ignore_ascii_case("host")).map_or(b"", |field| field.value),
    }
}

/// Which of the fields that matter there are; others would make every request a new one.
fn known(seen: u32, name: &str) -> u32 {
    let all = ["via", "max-forwards", "x-request-timeout-ms", "x-forwarded-port", "forwarded", "x-forwarded-host"];
    seen | all.iter().position(|known| *known == name).map_or(0, |at| 1 << at)
}

/// RFC 9112 §3 and §5, and nothing more lenient: the request line, and the fields.
fn read(out: &[u8]) -> (Vec<u8>, Fields) {
    let text = out.strip_suffix(b"\r\n\r\n").expect("an empty line ends it");
    let text: Vec<u8> = text.to_vec();
    let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').collect();
    let (last, ended) = lines.split_last().unwrap();
    let ended = ended.iter().map(|line| line.strip_suffix(b"\r").expect("CR before LF"));
    let lines: Vec<&[u8]> = ended.chain([*last]).collect();
    let mut fields = Fields::new();
    for line in &lines[1..] {
        assert!(!line.contains(&b'\r'), "{}", line.escape_ascii());
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        let (name, value) = (&line[..colon], line[colon + 1..].strip_prefix(b" ").expect("a blank"));
        assert!(value.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f)), "{}", value.escape_ascii());
        let name = std::str::from_utf8(name).expect("a token").to_owned();
        assert!(HeaderName::from_bytes(name.as_bytes()).is_ok_and(|token| token == *name), "{name:?}");
        fields.entry(name).or_default().push(value.trim_ascii().to_vec());
    }
    (lines[0].to_vec(), fields)
}

/// Of the client's fields: what is about the connection (RFC 9110 §7.6.1), what we say ourselves, and what is taken for
/// one of these where `_` and `-` are the same (RFC 3875 §4.1.18).
const NEVER: [&str; 15] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "upgrade",
    "transfer-encoding",
    "content-length",
    "host",
    "expect",
    "x-request-id",
    "x-request-timeout-ms",
    "http2-settings",
    "via",
];
/// What says who the client is, and how it came: believed of those only whom we trust.
fn is_about_client(name: &str) -> bool {
    name.starts_with("x-forwarded-") || ["forwarded", "x-real-ip", "true-client-ip"].contains(&name)
}

/// What the backend must see.
fn expected(facts: &Forwarding<'_>, parsed: &httparse::Request<'_, '_>) -> Fields {
    let clients: Vec<(String, &[u8])> =
        parsed.headers.iter().map(|field| (field.name.to_ascii_lowercase(), field.value)).collect();
    let connection = clients.iter().filter(|(name, _)| name == "connection");
    let named: Vec<Vec<u8>> = connection
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .map(|word| word.trim_ascii().to_ascii_lowercase())
        .collect();
    let kept: Vec<&(String, &[u8])> =
        clients.iter().filter(|(name, _)| !named.iter().any(|word| word == name.as_bytes())).collect();
    let mut fields = Fields::new();
    for (name, value) in &kept {
        let dashed = name.replace('_', "-");
        let special = NEVER.contains(&&*dashed) || is_about_client(&dashed);
        if !special && (name != "max-forwards" || facts.max_forwards.is_none()) {
            fields.entry(name.clone()).or_default().push(value.to_vec());
        }
    }
    let sent =
        |wanted: &str| kept.iter().filter(|(name, _)| name == wanted).map(|(_, value)| *value).collect::<Vec<_>>();
    let listed = |wanted: &str, ours: &[u8]| {
        let elements = sent(wanted).into_iter().filter(|element| !element.is_empty());
        elements.chain([ours]).collect::<Vec<_>>().join(&b", "[..]).trim_ascii().to_vec()
    };
    let mut say =
        |name: &str, value: &[u8]| fields.entry(name.to_owned()).or_default().push(value.trim_ascii().to_vec());
    say("via", &listed("via", if parsed.version == Some(0) { b"1.0 lb" } else { b"1.1 lb" }));
    if facts.trusted {
        say("x-forwarded-for", &listed("x-forwarded-for", facts.client.as_bytes()));
        say("x-forwarded-proto", sent("x-forwarded-proto").first().unwrap_or(&&b"http"[..]));
        let first = sent("x-forwarded-host").first().copied();
        if let Some(host) = first.or_else(|| facts.host_named.then_some(facts.host)) {
            say("x-forwarded-host", host);
        }
        let written = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        let others = kept.iter().filter(|(name, _)| is_about_client(name) && !name.contains('_'));
        others.filter(|(name, _)| !written.contains(&&**name)).for_each(|(name, value)| say(name, value));
    } else {
        say("x-forwarded-for", facts.client.as_bytes());
        say("x-forwarded-proto", b"http");
        if facts.host_named {
            say("x-forwarded-host", facts.host);
        }
    }
    say("host", facts.host);
    say("x-request-id", facts.request_id);
    match facts.framing {
        Framing::None => {}
        Framing::Length(length) => say("content-length", length.to_string().as_bytes()),
        Framing::Chunked => say("transfer-encoding", b"chunked"),
    }
    let options = [facts.upgrade.map(|_| "upgrade"), facts.takes_trailers.then_some("te")];
    let options: Vec<&str> = options.into_iter().flatten().collect();
    let optional = [
        ("expect", facts.expects_continue.then(|| "100-continue".to_owned())),
        ("upgrade", facts.upgrade.map(str::to_owned)),
        ("te", facts.takes_trailers.then(|| "trailers".to_owned())),
        ("connection", (!options.is_empty()).then(|| options.join(", "))),
        ("max-forwards", facts.max_forwards.map(|hops| hops.to_string())),
        ("x-request-timeout-ms", facts.time_left_ms.map(|ms| ms.to_string())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            say(name, value.as_bytes());
        }
    }
    fields
}

/// hyper's server finds the same fields, the body that was announced, and behind it the next request.
fn hyper_agrees(out: &[u8], framing: Framing, expected: &Fields, method: &str) {
    let body: &[u8] = match framing {
        Framing::None => b"",
        Framing::Length(length) => &b"hello"[..length as usize],
        Framing::Chunked => b"5\r\nhello\r\n0\r\n\r\n",
    };
    let found = RefCell::new(Vec::new());
    let next = b"GET /next HTTP/1.1\r\nhost: next\r\n\r\n";
    hyper_serves(&[&[out, body, next].concat()], async |request| {
        let (head, body) = request.into_parts();
        let length = body.collect().await.expect("a whole body").to_bytes().len();
        found.borrow_mut().push((head, length));
        Response::new(Empty::<Bytes>::new().map_err(|never: Infallible| never))
    });
    let found = found.into_inner();
    let [(head, length), rest @ ..] = &found[..] else { panic!("hyper: {}", out.escape_ascii()) };
    let mut fields = Fields::new();
    for (name, value) in &head.headers {
        fields.entry(name.as_str().to_owned()).or_default().push(value.as_bytes().to_vec());
    }
    assert_eq!((head.method.as_str(), &fields), (method, expected));
    assert_eq!(
        *length,
        match framing {
            Framing::None => 0,
            Framing::Length(length) => length as usize,
            Framing::Chunked => 5,
        }
    );
    // Behind an upgrade the connection is no longer HTTP's.
    if !expected.contains_key("upgrade") {
        let [(next, _)] = rest else { panic!("{} more requests: {}", rest.len(), out.escape_ascii()) };
        assert_eq!(next.uri, "/next");
    }
}
