//! Interim responses and `Expect: 100-continue`, which is the backend's to answer.

use std::time::{Duration, Instant};

use super::*;

const EXPECTING: &str = "POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";

/// A backend that sends `interim`, reads the body, and answers 200 with it.
async fn asking(interim: &'static [u8], wait: Duration) -> (Origin, Record) {
    let record = Record::default();
    let noted = record.clone();
    let origin = Origin::start(move |seen, stream| {
        let noted = noted.clone();
        async move {
            let mut wire = Wire::resume(stream, seen.rest);
            tokio::time::sleep(wait).await;
            wire.send(interim).await.ok()?;
            let message = wire.rest_of(seen.head, false).await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", message.body.len());
            wire.send([head.as_bytes(), &message.body].concat()).await.ok()?;
            noted.note(message);
            Some(wire.into_parts().0)
        }
    })
    .await;
    (origin, record)
}

/// RFC 9110 §10.1.1 (items 57, 59)
#[tokio::test]
async fn the_client_gets_100_when_the_backend_sends_it_and_not_before() {
    let wait = Duration::from_millis(400);
    let (origin, record) = asking(b"HTTP/1.1 100 Continue\r\n\r\n", wait).await;
    let balancer = before(&origin, &[]).await;
    let mut client = Wire::connect(balancer.port()).await;
    for framing in ["content-length: 5\r\n\r\n", "transfer-encoding: chunked\r\n\r\n"] {
        client.send(format!("POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-Continue\r\n{framing}")).await.unwrap();
        let sent = Instant::now();
        let interim = client.message().await.expect("the backend's 100");
        assert_eq!(interim.status(), 100, "{}", interim.head);
        assert!(sent.elapsed() >= wait - Duration::from_millis(20), "not the backend's: after {:?}", sent.elapsed());
        assert!(sent.elapsed() < Duration::from_millis(900), "only when nobody answered: {:?}", sent.elapsed());
        let body = if framing.starts_with('c') { "hello" } else { "5\r\nhello\r\n0\r\n\r\n" };
        client.send(body).await.unwrap();
        let answer = client.message().await.expect("the final answer");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
        let got = record.take();
        assert_eq!(got[0].field("expect").map(str::to_ascii_lowercase).as_deref(), Some("100-continue"));
    }
    assert_eq!(origin.connections(), 1, "an expectation that was met does not spoil a connection");
}

/// RFC 9110 §10.1.1 (item 57): how long a backend may take to ask is not how long the client may take to send.
#[tokio::test]
async fn a_body_that_was_asked_for_has_as_much_time_as_any() {
    let (origin, record) = asking(b"HTTP/1.1 100 Continue\r\n\r\n", Duration::ZERO).await;
    let balancer = before(&origin, &[]).await;
    let mut client = Wire::connect(balancer.port()).await;
    let sent = Instant::now();
    client.send(EXPECTING).await.unwrap();
    assert_eq!(client.message().await.expect("the backend's 100").status(), 100);
    assert!(sent.elapsed() < Duration::from_millis(900), "not the backend's: after {:?}", sent.elapsed());
    // Past the second that the backend would have had, and some looks at deadlines.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    client.send("he").await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    client.send("llo").await.unwrap();
    let answer = client.message().await.expect("the final answer");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    assert_eq!(record.take()[0].text(), "hello");
}

/// RFC 9110 §10.1.1 (item 57)
#[tokio::test]
async fn a_final_status_instead_of_100_comes_at_once_and_ends_both_connections() {
    let origin = Origin::answering(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno", true).await;
    let balancer = before(&origin, &[]).await;
    for _ in 0..2 {
        let mut client = Wire::connect(balancer.port()).await;
        let sent = Instant::now();
        client.send(EXPECTING).await.unwrap();
        let answer = client.message().await.expect("the backend's refusal");
        assert_eq!((answer.status(), answer.text().as_str()), (413, "no"));
        assert!(sent.elapsed() < Duration::from_millis(500), "{:?}", sent.elapsed());
        // Whether the body will come is not known: nothing more is read as a request.
        assert_eq!(answer.field("connection"), Some("close"));
        let _ = client.send(format!("hello{BEHIND}")).await;
        assert_eq!(client.until_closed().await, (Vec::new(), true));
    }
    assert_eq!((origin.requests(), origin.connections()), (2, 2));
}

/// RFC 9110 §10.1.1 (item 57): a backend that knows nothing of it would wait for ever.
#[tokio::test]
async fn a_backend_that_says_nothing_gets_the_body_after_a_while() {
    let (origin, record) = asking(b"", Duration::ZERO).await;
    let config = file("expect", "[timeouts]\nexpect_continue = \"300ms\"\n");
    let balancer = before(&origin, &["--config", &config]).await;
    let mut client = Wire::connect(balancer.port()).await;
    client.send(EXPECTING).await.unwrap();
    let sent = Instant::now();
    assert_eq!(client.message().await.expect("asked for the body").status(), 100);
    assert!((280..1500).contains(&sent.elapsed().as_millis()), "{:?}", sent.elapsed());
    client.send("hello").await.unwrap();
    assert_eq!(client.message().await.expect("the final answer").text(), "hello");
    assert_eq!(record.take()[0].text(), "hello");
}

/// RFC 9110 §10.1.1 (item 57)
#[tokio::test]
async fn a_client_that_does_not_wait_for_100_is_served_all_the_same() {
    let (origin, _record) = asking(b"HTTP/1.1 100 Continue\r\n\r\n", Duration::ZERO).await;
    let balancer = before(&origin, &[]).await;
    let mut client = Wire::connect(balancer.port()).await;
    for _ in 0..3 {
        client.send(format!("{EXPECTING}hello")).await.unwrap();
        let mut answer = client.message().await.expect("an answer");
        if answer.status() == 100 {
            answer = client.message().await.expect("a final answer");
        }
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
    }
}

/// RFC 9110 §10.1.1 (item 57)
#[tokio::test]
async fn an_unknown_expectation_is_417() {
    let rig = Rig::start().await;
    for expectation in ["miracles", "100-continue, miracles", "100-continue=x", "200-ok", "100-continue;q=1", ""] {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\nexpect: {expectation}\r\ncontent-length: 5\r\n\r\nhello");
        let answer = rig.answer(request).await;
        assert_eq!(answer.status(), 417, "{expectation}");
    }
    let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nexpect: miracles\r\n\r\n").await;
    assert_eq!(answer.status(), 417);
    assert_eq!(rig.origin.requests(), 0);
}

/// RFC 9110 §10.1.1 (item 57)
#[tokio::test]
async fn an_expectation_of_an_http_1_0_client_is_ignored() {
    let rig = Rig::start().await;
    for expectation in ["100-continue", "miracles"] {
        let request = format!("POST / HTTP/1.0\r\nhost: x\r\nexpect: {expectation}\r\ncontent-length: 5\r\n\r\nhello");
        let got = rig.forwarded(request).await;
        assert_eq!((got.field("expect"), got.text().as_str()), (None, "hello"), "{expectation}");
    }
}

/// RFC 9110 §10.1.1 (item 57): without a body there is nothing to wait for.
#[tokio::test]
async fn an_expectation_without_a_body_is_not_waited_for() {
    let rig = Rig::start().await;
    let sent = Instant::now();
    let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\r\n").await;
    assert_eq!(answer.status(), 200);
    assert!(sent.elapsed() < Duration::from_millis(500), "{:?}", sent.elapsed());
}

/// RFC 9110 §10.1.1 (item 58)
#[tokio::test]
async fn a_backend_known_to_speak_http_1_0_gets_no_expectation() {
    let rig = Rig::answering(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
    rig.forwarded("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut client = rig.connect().await;
    client.send(EXPECTING).await.unwrap();
    assert_eq!(client.message().await.expect("asked for the body by us").status(), 100);
    client.send("hello").await.unwrap();
    assert_eq!(client.message().await.expect("an answer").status(), 200);
    let got = rig.record.take();
    assert_eq!((got.len(), got[0].field("expect"), got[0].text().as_str()), (1, None, "hello"));
}

/// RFC 9110 §15.2, RFC 9112 §6.3 (items 25, 59): hyper's server sends no 1xx but 100, so the others end here. They may
/// never be mistaken for the answer.
#[tokio::test]
async fn interim_responses_are_not_the_answer() {
    let answer = b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\ncontent-length: 5\r\n\r\n\
        HTTP/1.1 199 Odd\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let rig = Rig::answering(answer, true).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let got = client.message().await.expect("the final answer");
        assert_eq!((got.status(), got.text().as_str(), got.field("link")), (200, "ok", None));
    }
    assert_eq!(rig.origin.connections(), 1);
}

/// RFC 9110 §15.2 (item 59)
#[tokio::test]
async fn interim_responses_without_end_are_502() {
    let many = |count: usize| ["HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count).as_bytes(), OK].concat();
    let rig = Rig::answering(&many(8), true).await;
    assert_eq!(rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status(), 200);
    for count in [9, 1000] {
        let rig = Rig::answering(&many(count), true).await;
        assert_eq!(rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status(), 502, "{count}");
    }
}
