//! How long a connection lives, on both sides: order, HTTP/1.0, `close`, and the end that loses nothing.

use std::time::Duration;

use super::*;

/// RFC 9112 §9.3.2 (item 37)
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    // The first is the slowest.
    let origin = Origin::start(|seen, stream| async move {
        let mut wire = Wire::resume(stream, seen.rest);
        let path = seen.head.split(' ').nth(1).unwrap_or_default().to_owned();
        wire.rest_of(seen.head, false).await;
        tokio::time::sleep(Duration::from_millis(if path == "/0" { 200 } else { 0 })).await;
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{path}", path.len());
        wire.send(head).await.ok()?;
        Some(wire.into_parts().0)
    })
    .await;
    let balancer = before(&origin, &[]).await;
    let mut client = Wire::connect(balancer.port()).await;
    let mut requests = String::new();
    for n in 0..20 {
        requests += &match n % 3 {
            0 => format!("GET /{n} HTTP/1.1\r\nhost: x\r\n\r\n"),
            1 => format!("POST /{n} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello"),
            _ => format!("PUT /{n} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        };
    }
    client.send(requests).await.unwrap();
    for n in 0..20 {
        assert_eq!(client.message().await.expect("an answer for each").text(), format!("/{n}"));
    }
}

/// RFC 9112 §9.3, §6.1 (items 19, 38)
#[tokio::test]
async fn an_http_1_0_client_gets_a_close_and_no_chunks() {
    for (answer, keep, end) in [
        (OK, true, End::Length),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", true, End::Close),
        (b"HTTP/1.1 200 OK\r\n\r\nok", false, End::Close),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true, End::Length),
    ] {
        let rig = Rig::answering(answer, keep).await;
        for fields in ["", "connection: keep-alive\r\n", "connection: Keep-Alive\r\nkeep-alive: timeout=5\r\n"] {
            let mut client = rig.connect().await;
            client.send(format!("GET / HTTP/1.0\r\nhost: x\r\n{fields}\r\n{BEHIND}")).await.unwrap();
            let got = client.message().await.expect("an answer");
            assert_eq!((got.status(), got.text().as_str(), got.end), (200, "ok", end), "{fields}: {}", got.head);
            assert_eq!(got.field("transfer-encoding"), None, "{fields}");
            assert_eq!(got.field("connection"), Some("close"), "{fields}");
            assert_eq!(client.until_closed().await, (Vec::new(), true), "{fields}");
            assert_eq!(rig.record.take().len(), 1, "{fields}: what stands behind it was forwarded");
        }
    }
}

/// RFC 9112 §9.3, RFC 9110 §15.2 (items 38, 60)
#[tokio::test]
async fn an_http_1_0_client_gets_no_interim_response() {
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\
        content-length: 2\r\n\r\nok";
    let rig = Rig::answering(answer, true).await;
    let request = "POST / HTTP/1.0\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\nhello";
    let got = rig.answer(request).await;
    assert_eq!((got.status(), got.text().as_str()), (200, "ok"));
}

/// RFC 9112 §9.3 (item 38)
#[tokio::test]
async fn a_connection_to_an_http_1_0_backend_is_not_used_again() {
    let rig = Rig::answering(b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", true).await;
    let mut client = rig.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(client.message().await.expect("kept open for the client").text(), "ok");
    }
    assert_eq!((rig.origin.requests(), rig.origin.connections()), (3, 3));
}

/// RFC 9112 §9.3, §9.6 (items 39, 41)
#[tokio::test]
async fn an_answer_before_the_body_was_read_ends_the_connection_in_order() {
    let forbidden = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
    let origin = Origin::answering(forbidden, true).await;
    let balancer = before(&origin, &[]).await;
    let mut client = Wire::connect(balancer.port()).await;
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\nstart").await.unwrap();
    let answer = client.message().await.expect("at once, though the body is not there");
    assert_eq!((answer.status(), answer.text().as_str()), (403, "no"));
    assert_eq!(answer.field("connection"), Some("close"), "{}", answer.head);
    // It goes on sending for a while, and something that could pass for a request.
    for _ in 0..20 {
        let _ = client.send(BEHIND.repeat(50)).await;
    }
    assert_eq!(client.until_closed().await, (Vec::new(), true), "neither a second answer nor a reset");
    assert_eq!(origin.requests(), 1);
}

/// RFC 9112 §9.6 (item 40)
#[tokio::test]
async fn close_is_honoured_and_nothing_behind_it_is_looked_at() {
    let rig = Rig::start().await;
    let lists = ["close", "Close", "CLOSE", "x-a, close", "close, keep-alive", " ,close,"];
    for close in lists.into_iter().chain(["x-a\r\nconnection: close", "close\r\nconnection: keep-alive"]) {
        let mut client = rig.connect().await;
        client.send(format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: {close}\r\n\r\n{BEHIND}")).await.unwrap();
        let answer = client.message().await.expect("an answer");
        assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")), "{close}");
        assert_eq!(client.until_closed().await, (Vec::new(), true), "{close}");
        let got = rig.record.take();
        assert_eq!((got.len(), got[0].field("connection")), (1, None), "{close}: {got:?}");
    }
    // A word that only contains it is another word.
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: x\r\nconnection: x-close, closed\r\n\r\n").await.unwrap();
        assert_eq!(client.message().await.expect("kept open").field("connection"), None);
    }
}

/// RFC 9112 §9.6 (item 40)
#[tokio::test]
async fn a_backend_that_says_close_is_not_asked_again_and_the_client_does_not_notice() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nconnection: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ] {
        // It says so and stays open: the word counts, not the deed.
        let rig = Rig::answering(answer, true).await;
        let mut client = rig.connect().await;
        for _ in 0..3 {
            client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let got = client.message().await.expect("kept open for the client");
            assert_eq!((got.text().as_str(), got.field("connection")), ("ok", None));
        }
        assert_eq!((rig.origin.requests(), rig.origin.connections()), (3, 3), "{}", shown(answer));
    }
}

/// RFC 9112 §9.6 (item 41)
#[tokio::test]
async fn a_refusal_is_not_lost_to_a_reset_though_the_client_goes_on_sending() {
    let rig = Rig::start().await;
    for head in [
        "GET / HTTP/1.1\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5, 5\r\n",
        "GET * HTTP/1.1\r\nhost: x\r\n",
    ] {
        let mut client = rig.connect().await;
        client.send(format!("{head}\r\n")).await.unwrap();
        for _ in 0..30 {
            let _ = client.send(vec![b'x'; 10_000]).await;
        }
        let answer = client.message().await.expect("the reply is there");
        assert_eq!((answer.status(), answer.end != End::Cut), (400, true), "{head:?}");
        assert_eq!(client.until_closed().await, (Vec::new(), true), "{head:?}");
    }
}

/// RFC 9112 §9.5, §9.8 (item 42)
#[tokio::test]
async fn a_slow_head_is_408_and_an_idle_connection_just_ends() {
    let args = ["--client-head-timeout", "300ms", "--keep-alive-timeout", "300ms"];
    let rig = Rig::with(OK, true, &args).await;
    let mut slow = rig.connect().await;
    slow.send("GET / HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let answer = slow.message().await.expect("said so");
    assert_eq!((answer.status(), answer.field("connection")), (408, Some("close")));
    assert_eq!(slow.until_closed().await, (Vec::new(), true));
    let mut idle = rig.connect().await;
    idle.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert_eq!(idle.message().await.expect("an answer").status(), 200);
    assert_eq!(idle.until_closed().await, (Vec::new(), true));
}

/// RFC 9112 §9.6 (item 40): half a close by the client only says that it sends no more.
#[tokio::test]
async fn a_client_that_has_ended_its_side_still_gets_its_answer() {
    let origin = Origin::start(|seen, mut stream| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, OK).await.ok()?;
        drop(seen);
        Some(stream)
    })
    .await;
    let balancer = before(&origin, &[]).await;
    for requests in ["GET / HTTP/1.1\r\nhost: x\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        let mut client = Wire::connect(balancer.port()).await;
        client.send(requests).await.unwrap();
        client.half_close().await;
        assert_eq!(client.message().await.expect("an answer all the same").text(), "ok", "{requests:?}");
        assert_eq!(client.until_closed().await, (Vec::new(), true));
    }
    let mut client = Wire::connect(balancer.port()).await;
    client.send("GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    client.half_close().await;
    for _ in 0..2 {
        assert_eq!(client.message().await.expect("both had come").text(), "ok");
    }
}
