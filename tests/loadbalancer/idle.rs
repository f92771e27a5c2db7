//! What a balancer learns of when its servers close idle connections, and what it does not risk then.

use std::time::Duration;

use e2e::http::{Client, request};
use e2e::origin::{Origin, Seen};
use e2e::wire::Wire;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers and closes a connection on which nothing comes for so long.
async fn closing_after(idle: Duration) -> Origin {
    Origin::start(move |seen: Seen, stream: TcpStream| async move {
        let mut wire = Wire::resume(stream, seen.rest);
        wire.rest_of(seen.head, false).await;
        wire.send(OK).await.ok()?;
        let (stream, _) = wire.into_parts();
        let mut byte = [0];
        tokio::time::timeout(idle, stream.peek(&mut byte)).await.is_ok().then_some(stream)
    })
    .await
}

async fn learned(balancer: &Balancer, origin: &Origin) -> Option<u64> {
    balancer.backend(&origin.address()).await["learned_idle_ms"].as_u64()
}

#[tokio::test]
async fn a_servers_own_idle_time_is_learned_and_what_cannot_be_sent_twice_keeps_away_from_it() {
    let origin = closing_after(Duration::from_millis(1000)).await;
    let balancer = Balancer::start(&[origin.address()], &["--workers", "1"]).await;
    assert_eq!(learned(&balancer, &origin).await, None, "nobody has told yet");
    let mut client = Client::connect(balancer.port()).await.unwrap();
    assert_eq!(client.get("/").await.unwrap().text(), "ok");
    let taught = e2e::eventually("it is learned", async || learned(&balancer, &origin).await).await;
    assert!((500..=1000).contains(&taught), "{taught}");
    assert_eq!(origin.connections(), 1);
    // Younger than half of that: used again.
    let mut opened = 1;
    for _ in 0..10 {
        for method in [Method::GET, Method::POST] {
            let answer = client.send(request(method, "/", &[], "x")).await.unwrap();
            assert_eq!(answer.text(), "ok");
        }
    }
    opened += 1;
    assert_eq!(origin.connections(), opened, "a young connection is used whatever the method");
    // Old, but not closed yet: for what can be sent twice only.
    tokio::time::sleep(Duration::from_millis(taught * 2 / 3)).await;
    assert_eq!(client.send(request(Method::POST, "/", &[], "x")).await.unwrap().text(), "ok");
    assert_eq!(origin.connections(), opened + 1, "a new one for what cannot");
    let metrics = http::get(balancer.admin_port(), "/metrics").await.text();
    assert!(metrics.contains("lb_backend_learned_idle_seconds{"), "{metrics}");
}

#[tokio::test]
async fn what_a_server_announces_is_believed() {
    let origin =
        Origin::answering(b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=1, max=100\r\ncontent-length: 2\r\n\r\nok", true)
            .await;
    let balancer = Balancer::start(&[origin.address()], &["--workers", "1"]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    let answer = client.get("/").await.unwrap();
    assert_eq!(answer.header("keep-alive"), None);
    assert_eq!(e2e::eventually("it is learned", async || learned(&balancer, &origin).await).await, 1000);
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(client.get("/").await.unwrap().text(), "ok");
    assert_eq!(origin.connections(), 1, "a GET can be sent twice");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(client.send(request(Method::POST, "/", &[], "x")).await.unwrap().text(), "ok");
    assert_eq!(origin.connections(), 2, "a POST gets a new one");
}

#[tokio::test]
async fn no_post_is_lost_at_a_server_that_closes_whenever_it_likes() {
    // Between 0 and 20 ms after its answer, so that many requests meet the close.
    let origin = Origin::start(move |seen: Seen, mut stream: TcpStream| async move {
        stream.write_all(OK).await.ok()?;
        let idle = Duration::from_micros((seen.number as u64).wrapping_mul(2_654_435_761) % 20_000);
        let mut byte = [0];
        tokio::time::timeout(idle, stream.peek(&mut byte)).await.is_ok().then_some(stream)
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--workers", "1"]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    let mut sent = 0;
    for number in 0..600_u64 {
        tokio::time::sleep(Duration::from_micros(number.wrapping_mul(40_503) % 20_000)).await;
        let method = if number % 2 == 0 { Method::GET } else { Method::POST };
        let answer = client.send(request(method.clone(), "/", &[], "")).await.unwrap();
        assert_eq!(answer.status.as_u16(), 200, "{method} {number}: {}", answer.text());
        sent += 1;
    }
    assert!(origin.requests() >= sent);
}
