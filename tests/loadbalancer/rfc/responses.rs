//! Responses: where they end, what may never look whole, what is the backend's fault, what passes as it is.

use std::time::Duration;

use super::*;

const GET: &str = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";

/// RFC 9110 §8.6, RFC 9112 §6.1 (item 20)
#[tokio::test]
async fn a_204_has_neither_length_nor_coding() {
    let rig = Rig::answering(b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\nx-a: b\r\n\r\n", true).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send(GET).await.unwrap();
        let got = client.message().await.expect("kept open");
        assert_eq!((got.status(), got.field("x-a")), (204, Some("b")));
        assert_eq!((got.field("content-length"), got.field("transfer-encoding")), (None, None));
    }
    let rig = Rig::answering(b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", true).await;
    let got = rig.answer(GET).await;
    assert_eq!((got.status(), got.field("transfer-encoding")), (204, None));
}

/// RFC 9112 §6.1, §6.3, RFC 9110 §8.6 (items 24, 28, 29)
#[tokio::test]
async fn a_response_framed_in_doubt_is_502_and_its_connection_is_closed() {
    for fields in [
        "content-length: 2\r\ncontent-length: 2\r\n",
        "content-length: 2\r\ncontent-length: 3\r\n",
        "content-length: 2,2\r\n",
        "content-length: +2\r\n",
        "content-length: -2\r\n",
        "content-length: 0x2\r\n",
        "content-length: 2a\r\n",
        "content-length:\r\n",
        "content-length: 2 2\r\n",
        "content-length: 18446744073709551618\r\n",
        "content-length: \"2\"\r\n",
        "content-length: 2\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 2\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding:\r\n",
        "transfer-encoding: \"chunked\"\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\n{fields}\r\nok");
        let rig = Rig::answering(answer.as_bytes(), true).await;
        let mut client = rig.connect().await;
        for _ in 0..2 {
            client.send(GET).await.unwrap();
            let got = client.message().await.expect("kept open for the client");
            assert_eq!(got.status(), 502, "{fields:?}: {}", got.head);
            assert!(!got.text().starts_with("ok"), "{fields:?}");
        }
        assert_eq!((rig.origin.requests(), rig.origin.connections()), (2, 2), "used again after {fields:?}");
    }
}

/// RFC 9112 §6.3, RFC 9110 §9.3.2, §15.4.5 (items 25, 54)
#[tokio::test]
async fn answers_without_a_body_have_none_whatever_they_announce() {
    for (method, answer, status) in [
        ("HEAD", &b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"[..], 200),
        ("HEAD", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n", 200),
        ("HEAD", b"HTTP/1.1 404 Not Found\r\ncontent-length: 9\r\n\r\n", 404),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\netag: \"a\"\r\n\r\n", 304),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    ] {
        let rig = Rig::answering(answer, true).await;
        let mut client = rig.connect().await;
        for _ in 0..2 {
            client.send(format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n")).await.unwrap();
            let got = client.message_to_head().await.expect("kept open");
            assert_eq!(got.status(), status);
            // RFC 9110 §8.6: that of the GET, or none.
            assert!(got.field("content-length").is_none_or(|length| shown(answer).contains(length)), "{}", got.head);
        }
    }
}

/// RFC 9110 §9.3.2 (item 54)
#[tokio::test]
async fn head_gets_the_fields_of_get() {
    let rig =
        Rig::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\ncontent-type: a/b\r\nx-a: 1\r\nx-a: 2\r\n\r\n", true)
            .await;
    let head = rig.answer("HEAD /x HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(rig.record.take()[0].line(), "HEAD /x HTTP/1.1");
    assert_eq!((head.field("content-length"), head.field("content-type")), (Some("7"), Some("a/b")));
    assert_eq!((head.fields("x-a"), head.end), (vec!["1", "2"], End::None));
}

/// RFC 9112 §6.3 (item 25)
#[tokio::test]
async fn a_body_where_none_may_be_reaches_nobody() {
    for (method, answer) in [
        ("HEAD", &b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"[..]),
        ("GET", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 4\r\n\r\nevil"),
        ("GET", b"HTTP/1.1 204 No Content\r\ncontent-length: 4\r\n\r\nevil"),
        ("GET", b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"),
    ] {
        let rig = Rig::answering(answer, true).await;
        let mut client = rig.connect().await;
        for _ in 0..3 {
            client.send(format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n")).await.unwrap();
            let got = client.message_to_head().await.expect("kept open");
            assert!(got.status() < 400 && !got.head.contains("evil"), "{}: {}", shown(answer), got.head);
        }
        assert_eq!(rig.origin.connections(), 3, "used again after {}", shown(answer));
        let (stream, rest) = client.into_parts();
        drop(stream);
        assert!(rest.is_empty(), "{}: {:?}", shown(answer), String::from_utf8_lossy(&rest));
    }
}

/// RFC 9112 §6.3 (item 26)
#[tokio::test]
async fn an_answer_without_framing_ends_with_its_connection() {
    for answer in [&b"HTTP/1.1 200 OK\r\n\r\nuntil the end"[..], b"HTTP/1.0 200 OK\r\n\r\nuntil the end"] {
        let rig = Rig::answering(answer, false).await;
        let mut client = rig.connect().await;
        for _ in 0..2 {
            client.send(GET).await.unwrap();
            // The client's connection goes on: there are chunks for that.
            let got = client.message().await.expect("kept open for the client");
            assert_eq!((got.text().as_str(), got.end), ("until the end", End::Chunked));
        }
    }
}

/// A backend that sends `start`, waits until the client has had some of it, sends `rest`, and closes or resets.
async fn breaking(
    start: &'static [u8],
    rest: &'static [u8],
    reset: bool,
) -> (Origin, tokio::sync::watch::Sender<bool>) {
    let (go_on, gate) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |_, mut stream| {
        let mut gate = gate.clone();
        async move {
            tokio::io::AsyncWriteExt::write_all(&mut stream, start).await.ok()?;
            gate.wait_for(|open| *open).await.ok()?;
            tokio::io::AsyncWriteExt::write_all(&mut stream, rest).await.ok()?;
            if reset {
                e2e::raw::reset(stream);
            }
            None
        }
    })
    .await;
    (origin, go_on)
}

/// RFC 9112 §6.3, §8 (items 27, 28, 35)
#[tokio::test]
async fn an_answer_that_breaks_off_never_looks_whole() {
    for (start, rest, reset) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart"[..], &b""[..], false),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\npart", b"", true),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n", b"", false),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n", b"", true),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n", b"0\r\n", false),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n", b"0\r\nx-sum: 1\r\n", false),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n", b"5\r\nmore", false),
        (b"HTTP/1.1 200 OK\r\n\r\npart", b"", true),
        (b"HTTP/1.0 200 OK\r\n\r\npart", b"", true),
    ] {
        for version in ["1.1", "1.0"] {
            let (origin, go_on) = breaking(start, rest, reset).await;
            let balancer = before(&origin, &[]).await;
            let mut client = Wire::connect(balancer.port()).await;
            client.send(format!("GET / HTTP/{version}\r\nhost: x\r\n\r\n{BEHIND}")).await.unwrap();
            let head = client.head().await.expect("a head");
            go_on.send_replace(true);
            let got = client.rest_of(head, false).await;
            assert_eq!(got.end, End::Cut, "{} {version}: {got:?}", shown(start));
            assert!(b"partmore".starts_with(&got.body), "{got:?}");
            assert!(client.until_closed().await.0.is_empty(), "the connection went on");
        }
    }
}

/// RFC 9112 §6.3, §9.3 (item 30)
#[tokio::test]
async fn bytes_behind_an_answer_are_no_answer() {
    for framing in [
        "content-length: 2\r\n\r\nok",
        "transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "content-length: 0\r\n\r\n",
    ] {
        for extra in ["\r\n", "x", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil"] {
            let rig = Rig::answering(format!("HTTP/1.1 200 OK\r\n{framing}{extra}").as_bytes(), true).await;
            let mut client = rig.connect().await;
            for _ in 0..3 {
                client.send(GET).await.unwrap();
                let got = client.message().await.expect("kept open for the client");
                assert!(got.status() == 200 && got.text() != "evil", "{framing:?} {extra:?}: {got:?}");
            }
            assert_eq!(rig.origin.connections(), 3, "used again after {framing:?} {extra:?}");
        }
    }
}

/// RFC 9110 §6.6.1 (item 62)
#[tokio::test]
async fn date_is_added_where_it_is_missing_and_never_replaced() {
    let rig = Rig::start().await;
    let got = rig.answer(GET).await;
    let date = got.field("date").expect("a Date of ours");
    assert!(date.len() == 29 && date.ends_with(" GMT"), "{date}");
    for theirs in ["Tue, 15 Nov 1994 08:12:31 GMT", "not a date at all"] {
        let answer = format!("HTTP/1.1 200 OK\r\nDate: {theirs}\r\ncontent-length: 0\r\n\r\n");
        let rig = Rig::answering(answer.as_bytes(), true).await;
        assert_eq!(rig.answer(GET).await.fields("date"), [theirs]);
    }
}

/// RFC 9110 §15.6.3, §15.6.5 (item 63)
#[tokio::test]
async fn no_answer_is_502_and_a_late_one_504() {
    for start in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-le"] {
        let rig = Rig::answering(start, false).await;
        assert_eq!(rig.answer("POST / HTTP/1.1\r\nhost: x\r\n\r\n").await.status(), 502, "{}", shown(start));
    }
    for start in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n"] {
        let rig = Rig::with(start, true, &["--response-head-timeout", "300ms"]).await;
        let began = std::time::Instant::now();
        assert_eq!(rig.answer("POST / HTTP/1.1\r\nhost: x\r\n\r\n").await.status(), 504, "{}", shown(start));
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

/// RFC 9110 §15 (item 65)
#[tokio::test]
async fn statuses_nobody_knows_pass_and_what_is_no_status_is_502() {
    for line in [
        "299 Odd",
        "399",
        "499 ",
        "599 \"x\"",
        "699 Beyond",
        "799 x",
        "999 x",
        "200 ",
        "200",
        "418 I'm a teapot \u{e9}",
    ] {
        let answer = format!("HTTP/1.1 {line}\r\ncontent-length: 2\r\n\r\nok");
        let rig = Rig::answering(answer.as_bytes(), true).await;
        let got = rig.answer(GET).await;
        assert_eq!((got.status().to_string().as_str(), got.text().as_str()), (&line[..3], "ok"), "{line:?}");
        // RFC 9112 §4: the phrase may be missing, and the space before it may not.
        let known = matches!(got.status(), 200 | 418);
        assert!(known || got.line() == format!("HTTP/1.1 {} ", &line[..3]), "{:?}", got.line());
    }
    for line in [
        "HTTP/1.1 099 x",
        "HTTP/1.1 000 x",
        "HTTP/1.1 1000 x",
        "HTTP/1.1 20 x",
        "HTTP/1.1 2x0 x",
        "HTTP/1.1 -20 x",
        "HTTP/1.1",
        "HTTP/2.0 200 OK",
        "HTTP/1.1  200 OK",
        "ICY 200 OK",
        "HTTP/1.2 200 OK",
    ] {
        let answer = format!("{line}\r\ncontent-length: 2\r\n\r\nok");
        let rig = Rig::answering(answer.as_bytes(), true).await;
        for _ in 0..2 {
            assert_eq!(rig.answer(GET).await.status(), 502, "{line:?}");
        }
        assert_eq!(rig.origin.connections(), 2, "used again after {line:?}");
    }
}

/// RFC 9110 §14.2, §14.4, §15.3.7, §13.1.5 (item 68)
#[tokio::test]
async fn ranges_and_conditions_pass_unchanged() {
    let head =
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-4/10\r\naccept-ranges: bytes\r\netag: W/\"a\"\r\n";
    let rig = Rig::answering(format!("{head}content-length: 3\r\n\r\n234").as_bytes(), true).await;
    let fields = "range: bytes=2-4, -1\r\nif-range: W/\"a\"\r\nif-none-match: \"b\", W/\"c\"\r\nif-modified-since: Tue, 15 Nov 1994 08:12:31 GMT\r\n";
    let got = rig.answer(format!("GET / HTTP/1.1\r\nhost: x\r\n{fields}\r\n")).await;
    assert_eq!((got.status(), got.text().as_str(), got.end), (206, "234", End::Length));
    assert_eq!((got.field("content-range"), got.field("etag")), (Some("bytes 2-4/10"), Some("W/\"a\"")));
    let seen = rig.record.take().remove(0);
    for line in fields.lines() {
        assert!(seen.head.contains(&format!("\r\n{line}\r\n")), "{line}: {}", seen.head);
    }
    let rig = Rig::answering(
        b"HTTP/1.1 416 Range Not Satisfiable\r\ncontent-range: bytes */10\r\ncontent-length: 0\r\n\r\n",
        true,
    )
    .await;
    let got = rig.answer("GET / HTTP/1.1\r\nhost: x\r\nrange: bytes=99-\r\n\r\n").await;
    assert_eq!((got.status(), got.field("content-range")), (416, Some("bytes */10")));
}
