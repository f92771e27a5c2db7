//! The chunked coding, both ways: what is valid is decoded and written afresh, anything else is an error and never
//! the end of a body.

use super::*;

const HEAD: &str = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";

/// RFC 9112 §7.1 (item 31)
#[tokio::test]
async fn a_chunked_request_is_decoded_however_it_is_cut_up() {
    let rig = Rig::start().await;
    for (body, text) in [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("0\r\n\r\n", ""),
        ("a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789"),
        ("0000000005\r\nhello\r\n000\r\n\r\n", "hello"),
        ("1\r\n\r\r\n1\r\n\n\r\n2\r\n0\r\r\n0\r\n\r\n", "\r\n0\r"),
    ] {
        let got = rig.forwarded(format!("{HEAD}{body}")).await;
        assert_eq!((got.text().as_str(), got.end), (text, End::Chunked), "{body:?}");
        assert_eq!(got.field("content-length"), None);
        // Byte by byte, and the connection is still in step behind it.
        let mut client = rig.connect().await;
        for byte in format!("{HEAD}{body}").bytes() {
            client.send([byte]).await.unwrap();
        }
        assert_eq!(client.message().await.unwrap().status(), 200, "{body:?}");
        client.send("GET /next HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(client.message().await.unwrap().status(), 200, "{body:?}");
        let got = rig.record.take();
        assert_eq!((got[0].text().as_str(), got[1].line()), (text, "GET /next HTTP/1.1"), "{body:?}");
    }
}

/// RFC 9112 §7.1 (item 31)
#[tokio::test]
async fn a_chunked_response_is_decoded_however_it_is_cut_up() {
    for (body, text) in [
        ("5\r\nhello\r\n0\r\n\r\n", "hello"),
        ("0\r\n\r\n", ""),
        ("a\r\n0123456789\r\nA;x=\"y\"\r\n0123456789\r\n00\r\n\r\n", "01234567890123456789"),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n{body}");
        let rig = Rig::answering(answer.as_bytes(), true).await;
        for _ in 0..3 {
            let got = rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!((got.text().as_str(), got.end), (text, End::Chunked), "{body:?}");
        }
        assert_eq!(rig.origin.connections(), 1, "not used again after {body:?}");
    }
}

/// RFC 9112 §7.1.1 (item 32)
#[tokio::test]
async fn chunk_extensions_are_ignored_and_do_not_go_on() {
    let rig = Rig::start().await;
    for extension in [";a", ";a=b", ";a=\"b c\"", ";a;b=c", " ; a = b", ";", &format!(";{}", "x".repeat(900))] {
        let mut client = rig.connect().await;
        client.send(format!("{HEAD}5{extension}\r\nhello\r\n0{extension}\r\n\r\n")).await.unwrap();
        assert_eq!(client.message().await.unwrap().status(), 200, "{extension}");
        // The recording backend takes a chunk size with anything behind it for an error.
        assert_eq!(rig.record.take()[0].text(), "hello", "{extension}");
    }
}

/// RFC 9112 §7.1.1 (item 32)
#[tokio::test]
async fn chunk_extensions_are_limited_per_chunk_and_in_all() {
    let rig = Rig::start().await;
    breaks(&rig, &format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(64 * 1024))).await;
    let many = format!("1;{}\r\na\r\n", "x".repeat(900)).repeat(100);
    breaks(&rig, &format!("{many}0\r\n\r\n")).await;
}

/// RFC 9112 §7.1, §7.1.1, §7.1.2, §2.2 (items 31, 32)
#[tokio::test]
async fn a_chunked_request_that_is_not_valid_is_400_and_never_ends_at_the_backend() {
    let rig = Rig::start().await;
    for body in [
        // Sizes that are not plain hexadecimal.
        "zz\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "0_5\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";a\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
        "5.\r\nhello\r\n0\r\n\r\n",
        "5h\r\nhello\r\n0\r\n\r\n",
        "\u{665}\r\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        // 2^64 + 5, also after zeros.
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "00000000000000000010000000000000005\r\nhello\r\n0\r\n\r\n",
        // Line ends that are not CRLF.
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\n\r\n",
        "5\r\nhello\r\n0\n\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello\r\n0\r\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        // More or less data than announced.
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n\r\n0\r\n\r\n",
        // Extensions with what could be a line end to somebody.
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5;a\0b\r\nhello\r\n0\r\n\r\n",
        "5;a\x01\r\nhello\r\n0\r\n\r\n",
        "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
        "5;\x7f\r\nhello\r\n0\r\n\r\n",
        // Trailer sections that are none.
        "5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        "5\r\nhello\r\n0\r\nx-a: b\n\r\n",
        "5\r\nhello\r\n0\r\nx-a : b\r\n\r\n",
        "5\r\nhello\r\n0\r\nx-a: b\r\n c\r\n\r\n",
        "5\r\nhello\r\n0\r\n: b\r\n\r\n",
        "5\r\nhello\r\n0\r\nx-a: b\0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx-a: b\rc\r\n\r\n",
    ] {
        breaks(&rig, body).await;
    }
}

/// RFC 9112 §7.1 (item 31)
#[tokio::test]
async fn a_chunk_size_of_16_digits_does_not_overflow() {
    let rig = Rig::start().await;
    for size in ["ffffffffffffffff", "8000000000000000", "7FFFFFFFFFFFFFFF"] {
        let mut client = rig.connect().await;
        let _ = client.send(format!("{HEAD}5\r\nhello\r\n{size}\r\nhello\r\n0\r\n\r\n{BEHIND}")).await;
        client.half_close().await;
        // Refused, or never complete: never the end of a body.
        if let Some(answer) = client.message().await {
            assert!([400, 413].contains(&answer.status()), "{size}: {}", answer.head);
        }
        assert!(client.until_closed().await.0.is_empty(), "{size}");
        e2e::eventually("nothing is in flight", async || {
            (rig.balancer.status().await["traffic"]["in_flight"] == 0).then_some(())
        })
        .await;
        assert!(rig.record.take().iter().all(|got| got.end == End::Cut), "{size}");
    }
}

/// RFC 9112 §7.1, §8 (items 27, 31, 35)
#[tokio::test]
async fn a_chunked_response_that_is_not_valid_never_looks_complete() {
    for body in [
        "zz\r\nok\r\n0\r\n\r\n",
        "0x2\r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        "2\nok\r\n0\r\n\r\n",
        "2\r\nok\n0\r\n\r\n",
        "2\r\nokX\r\n0\r\n\r\n",
        "2\r\nok0\r\n\r\n",
        "10000000000000002\r\nok\r\n0\r\n\r\n",
        "\r\nok\r\n0\r\n\r\n",
        "2;a\nb\r\nok\r\n0\r\n\r\n",
        "2;a\0\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\r\nx: y\n\r\n",
        "2\r\nok\r\n0\r\nno colon\r\n\r\n",
        "2\r\nok\r\n0\n\n",
        "2\r\nok\r\n-0\r\n\r\n",
        // Servers of old padded the size to a fixed width. The grammar has no room for it, and requests may not either.
        "2  \r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\t\r\n\r\n",
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        let rig = Rig::answering(answer.as_bytes(), true).await;
        for _ in 0..2 {
            let mut client = rig.connect().await;
            client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            // If it breaks before anything has left, there may be no answer at all, or a 502 instead.
            if let Some(got) = client.message().await {
                assert!(got.end == End::Cut || got.status() == 502, "{body:?}: {got:?}");
            }
        }
        assert_eq!(rig.origin.connections(), 2, "used again after {body:?}");
    }
}

/// RFC 9112 §7.1, §8 (items 27, 31)
#[tokio::test]
async fn a_chunked_request_that_goes_wrong_behind_the_answers_head_cuts_both_sides() {
    let (gone, mut left) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |seen, stream| {
        let gone = gone.clone();
        async move {
            let mut wire = Wire::resume(stream, seen.rest);
            wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nstart\r\n").await.ok()?;
            let _ = gone.send(wire.rest_of(seen.head, false).await);
            wire.send("3\r\nend\r\n0\r\n\r\n").await.ok()?;
            None
        }
    })
    .await;
    let balancer = before(&origin, &[]).await;
    for wrong in ["zz\r\n", "5\r\nhello\n", "+1\r\na\r\n0\r\n\r\n"] {
        let mut client = Wire::connect(balancer.port()).await;
        client.send(format!("{HEAD}5\r\nhello\r\n")).await.unwrap();
        let head = client.head().await.expect("the head comes before the request's end");
        client.send(format!("{wrong}{BEHIND}")).await.unwrap();
        let answer = client.rest_of(head, false).await;
        assert_eq!((answer.status(), answer.end), (200, End::Cut), "{wrong:?}: {}", answer.text());
        let (more, _) = client.until_closed().await;
        assert!(more.is_empty(), "{wrong:?}: an answer inside an answer: {:?}", String::from_utf8_lossy(&more));
        assert_eq!(left.recv().await.expect("the backend was left").end, End::Cut, "{wrong:?}");
    }
}

/// A chunked body that is not valid: 400 and a close, nothing behind it is looked at, and no backend sees its end.
async fn breaks(rig: &Rig, body: &str) {
    let mut client = rig.connect().await;
    let _ = client.send(format!("{HEAD}{body}{BEHIND}")).await;
    let answer =
        client.message().await.unwrap_or_else(|| panic!("closed without an answer: {}", shown(body.as_bytes())));
    assert_eq!(answer.status(), 400, "{}: {}", shown(body.as_bytes()), answer.head);
    assert_eq!(answer.field("connection"), Some("close"), "{}", shown(body.as_bytes()));
    let (more, clean) = client.until_closed().await;
    assert!(more.is_empty() && clean, "{}: {:?}", shown(body.as_bytes()), String::from_utf8_lossy(&more));
    e2e::eventually("nothing is in flight", async || {
        (rig.balancer.status().await["traffic"]["in_flight"] == 0).then_some(())
    })
    .await;
    for got in rig.record.take() {
        assert_eq!(got.end, End::Cut, "{}: {got:?}", shown(body.as_bytes()));
    }
}
