//! `Upgrade`: nothing is a tunnel before the backend's 101, and only what was asked for is.

use super::*;

const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// A backend that answers with `answer` and then sends back what it gets, until there is no more; it notes the head.
async fn echoing(answer: &'static [u8]) -> (Origin, Record) {
    let record = Record::default();
    let noted = record.clone();
    let origin = Origin::start(move |seen, stream| {
        let noted = noted.clone();
        async move {
            let early = String::from_utf8_lossy(&seen.rest).into_owned();
            noted.note(Message { head: seen.head, body: seen.rest, trailers: early, end: End::None });
            let mut wire = Wire::resume(stream, Vec::new());
            wire.send(answer).await.ok()?;
            let (mut stream, _) = wire.into_parts();
            let (mut read, mut write) = stream.split();
            let _ = tokio::io::copy(&mut read, &mut write).await;
            None
        }
    })
    .await;
    (origin, record)
}

/// RFC 9110 §7.8, §15.2.2 (items 51, 61)
#[tokio::test]
async fn an_upgrade_becomes_a_tunnel_with_the_101() {
    let (origin, record) = echoing(SWITCHING).await;
    let balancer = before(&origin, &[]).await;
    let mut client = Wire::connect(balancer.port()).await;
    client.send(format!("{HANDSHAKE}\r\n")).await.unwrap();
    let answer = client.message().await.expect("the 101");
    assert_eq!(answer.status(), 101, "{}", answer.head);
    assert_eq!(answer.field("upgrade"), Some("websocket"));
    assert_eq!(answer.field("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(answer.field("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!((answer.field("content-length"), answer.field("transfer-encoding")), (None, None));
    for message in ["hello", "\0\r\n\r\nGET / HTTP/1.1\r\n\r\n", "0\r\n\r\n"] {
        client.send(message).await.unwrap();
        assert_eq!(client.exactly(message.len()).await.unwrap(), message.as_bytes());
    }
    let got = record.take().remove(0);
    assert_eq!(got.field("connection").map(str::to_ascii_lowercase).as_deref(), Some("upgrade"));
    assert_eq!(got.field("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"));
    assert_eq!(got.field("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(got.field("via").is_some() && got.field("x-forwarded-for") == Some("127.0.0.1"), "{}", got.head);
    // Half a close goes through, and what is still on its way comes.
    client.send("last").await.unwrap();
    client.half_close().await;
    assert_eq!(client.until_closed().await, (b"last".to_vec(), true));
}

/// RFC 9110 §7.8 (item 51)
#[tokio::test]
async fn what_the_client_sends_before_the_101_waits_for_it() {
    let (go_on, gate) = tokio::sync::watch::channel(false);
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |seen, stream| {
        let (mut gate, tell) = (gate.clone(), tell.clone());
        async move {
            let mut wire = Wire::resume(stream, seen.rest);
            gate.wait_for(|open| *open).await.ok()?;
            // What is here without waiting, before the 101 was sent.
            let (stream, mut early) = wire.into_parts();
            let _ = stream.try_read_buf(&mut early);
            let _ = tell.send(early);
            wire = Wire::resume(stream, Vec::new());
            wire.send(SWITCHING).await.ok()?;
            let _ = tell.send(wire.exactly(5).await.ok()?);
            None
        }
    })
    .await;
    let balancer = before(&origin, &[]).await;
    let mut client = Wire::connect(balancer.port()).await;
    client.send(format!("{HANDSHAKE}\r\nearly")).await.unwrap();
    e2e::eventually("the handshake is at the backend", async || (origin.requests() == 1).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    go_on.send_replace(true);
    assert_eq!(told.recv().await.unwrap(), b"", "before the 101");
    assert_eq!(client.message().await.expect("the 101").status(), 101);
    assert_eq!(told.recv().await.unwrap(), b"early", "behind it");
}

/// RFC 9110 §7.8 (item 51)
#[tokio::test]
async fn an_answer_other_than_101_is_an_ordinary_answer() {
    for (answer, keep) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"[..], true),
        (b"HTTP/1.1 403 Forbidden\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", true),
        (b"HTTP/1.1 426 Upgrade Required\r\nupgrade: websocket\r\nconnection: upgrade\r\ncontent-length: 2\r\n\r\nok", true),
    ] {
        let rig = Rig::answering(answer, keep).await;
        let mut client = rig.connect().await;
        client.send(format!("{HANDSHAKE}\r\n")).await.unwrap();
        let got = client.message().await.expect("an answer");
        assert_eq!((got.status().to_string().as_bytes(), got.text().as_str()), (&answer[9..12], "ok"));
        // Bytes behind it are a request, if anything; never something for the backend as they are.
        let _ = client.send(format!("\u{1}\u{2}{BEHIND}")).await;
        let _ = client.until_closed().await;
        assert_eq!(rig.record.take().len(), 1);
    }
}

/// RFC 9110 §7.8 (item 51)
#[tokio::test]
async fn bytes_behind_a_refused_upgrade_never_reach_the_backend() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    client.send(format!("{HANDSHAKE}\r\n{BEHIND}")).await.unwrap();
    assert_eq!(client.message().await.expect("an answer").status(), 200);
    // Either the connection ends here, or what follows is a request of its own: never both in one.
    if let Some(second) = client.message().await {
        assert_eq!(second.status(), 200);
    }
    let got = rig.record.take();
    assert!(got.iter().all(|message| message.body.is_empty()), "{got:?}");
    assert!(got.iter().skip(1).all(|message| message.line() == "GET /behind HTTP/1.1"), "{got:?}");
}

/// RFC 9110 §7.8 (item 51)
#[tokio::test]
async fn only_a_whole_offer_of_what_is_allowed_goes_on() {
    let rig = Rig::start().await;
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive\r\nupgrade: websocket\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n\r\n",
        "GET / HTTP/1.0\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\ncontent-length: 2\r\n\r\nok",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: TLS/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocketx\r\n\r\n",
    ] {
        let got = rig.forwarded(request).await;
        assert_eq!((got.field("upgrade"), got.field("connection")), (None, None), "{request:?}");
        assert_eq!(got.field("http2-settings"), None, "{request:?}");
    }
}

/// RFC 9110 §7.8 (item 51)
#[tokio::test]
async fn an_allowed_protocol_among_others_goes_on_alone() {
    let (origin, record) = echoing(SWITCHING).await;
    let balancer = before(&origin, &[]).await;
    for offer in ["WebSocket", "h2c, websocket", "websocket, h2c"] {
        let mut client = Wire::connect(balancer.port()).await;
        let head = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: keep-alive, upgrade\r\nupgrade: {offer}\r\n\r\n");
        client.send(head).await.unwrap();
        assert_eq!(client.message().await.expect("an answer").status(), 101, "{offer}");
        let got = record.take().remove(0);
        assert_eq!(got.field("upgrade").map(str::to_ascii_lowercase).as_deref(), Some("websocket"), "{offer}");
    }
}

/// RFC 9110 §7.8, §15.2.2 (items 52, 61)
#[tokio::test]
async fn a_101_that_nobody_asked_for_is_502() {
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), SWITCHING),
        ("GET / HTTP/1.0\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(), SWITCHING),
        (
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n".to_owned(),
            &b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n"[..],
        ),
        (
            format!("{HANDSHAKE}\r\n"),
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
        ),
        (format!("{HANDSHAKE}\r\n"), b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\r\n"),
        (
            format!("{HANDSHAKE}\r\n"),
            b"HTTP/1.0 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        ),
    ] {
        let rig = Rig::answering(answer, true).await;
        for _ in 0..2 {
            let got = rig.answer(&request).await;
            assert_eq!(got.status(), 502, "{request:?} {}: {}", shown(answer), got.head);
            assert_ne!(got.field("upgrade"), Some("websocket"));
            // What stands behind an offer that was not taken up may be meant for the other protocol.
            let offered = request.starts_with(HANDSHAKE);
            assert!(!offered || got.field("connection") == Some("close"), "{}", got.head);
        }
        assert_eq!(rig.origin.connections(), 2, "used again after {}", shown(answer));
    }
}
