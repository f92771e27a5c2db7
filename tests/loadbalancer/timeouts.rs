use std::time::Duration;

use e2e::origin::Origin;
use e2e::raw;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::*;

/// Later than a deadline by the sweep's tenth of a second, and what a slow machine adds.
const LATE: Duration = Duration::from_millis(600);

/// How long until the other side closes, and what it said.
async fn until_closed(stream: &mut tokio::net::TcpStream) -> (Duration, String) {
    let started = Instant::now();
    let text = raw::read_to_close(stream, e2e::PATIENCE).await.expect("the other side closes");
    (started.elapsed(), text)
}

#[tokio::test]
async fn a_head_must_be_complete_in_its_time_however_its_bytes_trickle() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--client-head-timeout", "500ms"]).await;
    let mut silent = raw::connect(balancer.port()).await;
    let (after, text) = until_closed(&mut silent).await;
    assert!(after < Duration::from_millis(500) + LATE && text.is_empty(), "{after:?} {text}");
    let stream = raw::connect(balancer.port()).await;
    let (mut read, mut write) = stream.into_split();
    let trickle = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nhost: localhost\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa".iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let started = Instant::now();
    let mut text = String::new();
    let _ = tokio::time::timeout(e2e::PATIENCE, read.read_to_string(&mut text)).await.expect("closed");
    trickle.abort();
    assert!(started.elapsed() < Duration::from_millis(500) + LATE, "{:?}", started.elapsed());
    assert!(text.starts_with("HTTP/1.1 408 "), "{text}");
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_its_time_and_then_closed_quietly() {
    let (_server, backend) = server("a").await;
    let args = ["--keep-alive-timeout", "800ms", "--client-head-timeout", "200ms"];
    let balancer = Balancer::start(&[backend], &args).await;
    let mut client = raw::connect(balancer.port()).await;
    for _ in 0..3 {
        client.write_all(b"GET /bytes/10 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        raw::read_head(&mut client).await;
        // Idle for longer than a head may take: the two are not the same thing.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let (after, _) = until_closed(&mut client).await;
    assert!(after < Duration::from_millis(800) + LATE, "{after:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_504() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--response-head-timeout", "400ms"]).await;
    let started = Instant::now();
    let answer = balancer.get("/delay/10000").await;
    assert_eq!(answer.status.as_u16(), 504);
    assert!(started.elapsed() < Duration::from_millis(400) + LATE, "{:?}", started.elapsed());
    assert!(answer.text().contains("tried a: no response head in time"), "{}", answer.text());
    // The connection is not used again: its late answer must not reach anybody.
    assert_eq!(balancer.get("/bytes/3").await.body.len(), 3);
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_in_time_moves_on() {
    // A listener whose queue is full drops what else comes in: the nearest thing to a host that is gone.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let hole = socket.listen(1).unwrap();
    let address = hole.local_addr().unwrap();
    let (_server, backend) = server("a").await;
    // Checks connect too; with these they find it up at the start and do not come back.
    let args = ["--connect-timeout", "300ms", "--check-interval", "60s", "--check-fast-interval", "60s"];
    let balancer = Balancer::start(&[backend, format!("{address},name=hole")], &args).await;
    let mut queue = Vec::new();
    for _ in 0..8 {
        let connecting = tokio::time::timeout(Duration::from_millis(100), tokio::net::TcpStream::connect(address));
        queue.push(connecting.await);
    }
    let started = Instant::now();
    for _ in 0..2 {
        assert_eq!(balancer.get("/").await.header("x-served-by"), Some("a"));
    }
    assert!(started.elapsed() >= Duration::from_millis(250), "nobody was sent to the hole");
    assert!(started.elapsed() < Duration::from_millis(300) + LATE, "{:?}", started.elapsed());
    drop(queue);
}

#[tokio::test]
async fn a_body_may_take_for_ever_as_long_as_it_moves_and_is_cut_when_it_does_not() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--body-stall-timeout", "500ms"]).await;
    // 10 pieces, 200 ms apart: two seconds in all, never half a second without one.
    let answer = balancer.get("/stream/10?pause_ms=200").await;
    assert_eq!(answer.status.as_u16(), 200);
    // A piece that takes two seconds: cut, and visibly so.
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"GET /stream/3?pause_ms=2000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (after, text) = until_closed(&mut client).await;
    assert!(after < Duration::from_millis(500) + LATE, "{after:?}");
    assert!(!text.ends_with("0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_gets_408_and_one_that_does_not_read_is_cut() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--body-stall-timeout", "500ms"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\npart").await.unwrap();
    let (after, text) = until_closed(&mut client).await;
    assert!(after < Duration::from_millis(500) + LATE && text.starts_with("HTTP/1.1 408 "), "{after:?} {text}");
    let mut deaf = raw::connect(balancer.port()).await;
    deaf.write_all(b"GET /bytes/1000000000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    raw::read_head(&mut deaf).await;
    e2e::eventually("the deaf client's request is given up", async || {
        (balancer.status().await["traffic"]["in_flight"] == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_in_the_middle_of_taking_a_body_does_not_hold_the_client_for_ever() {
    let origin = Origin::start(|_, stream| async move {
        tokio::time::sleep(Duration::from_secs(30)).await;
        Some(stream)
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--body-stall-timeout", "500ms"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n").await.unwrap();
    let (read, mut write) = client.into_split();
    let upload = tokio::spawn(async move { while write.write_all(&[b'x'; 65536]).await.is_ok() {} });
    let mut client = read;
    let mut buffer = vec![0; 20];
    let first = tokio::time::timeout(e2e::PATIENCE, client.read_exact(&mut buffer)).await.expect("an answer in time");
    upload.abort();
    assert!(first.is_ok() && buffer.starts_with(b"HTTP/1.1 504"), "{}", String::from_utf8_lossy(&buffer));
}

#[tokio::test]
async fn a_client_that_stops_sending_behind_an_early_answer_is_not_held_against_the_server() {
    // Answers as the request comes in, as an echo does: then both wait for the rest of it.
    let early = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart";
    let origin = Origin::start(move |_, mut stream| async move {
        stream.write_all(early).await.ok()?;
        let mut scratch = [0; 4096];
        while matches!(stream.read(&mut scratch).await, Ok(1..)) {}
        None
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--body-stall-timeout", "400ms"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\npart").await.unwrap();
    let (_, text) = until_closed(&mut client).await;
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("part"), "{text}");
    let cut = "lb_responses_cut_by_client_total 1\n";
    let metrics = async || http::get(balancer.admin_port(), "/metrics").await.text();
    e2e::eventually("the client is named", async || metrics().await.contains(cut).then_some(())).await;
    let row = balancer.backend(&origin.address()).await;
    assert_eq!(row["traffic"]["failures_total"], 0, "{row}");
    // What stands still on the server's side is still the server's.
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\n\r\npart").await.unwrap();
    until_closed(&mut client).await;
    let failed = async || (balancer.backend(&origin.address()).await["traffic"]["failures_total"] == 1).then_some(());
    e2e::eventually("the server is named", failed).await;
}
