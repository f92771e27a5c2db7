use std::time::Duration;

use e2e::http::Client;
use e2e::raw;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn a_request_in_flight_is_finished_and_idle_connections_close() {
    let (_server, backend) = server("a").await;
    let mut balancer = Balancer::start(&[backend], &[]).await;
    let mut idle = raw::connect(balancer.port()).await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    raw::read_head(&mut idle).await;
    let port = balancer.port();
    let slow = tokio::spawn(async move { http::get(port, "/delay/1500").await });
    e2e::eventually("the slow request is in flight", async || {
        (balancer.status().await["traffic"]["in_flight"] == 1).then_some(())
    })
    .await;
    balancer.program.signal("TERM");
    e2e::eventually("readiness goes", async || {
        (http::get(balancer.admin_port(), "/readyz").await.status.as_u16() == 503).then_some(())
    })
    .await;
    assert_eq!(http::get(balancer.admin_port(), "/livez").await.status.as_u16(), 200);
    e2e::eventually("accepting stops", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.err()).await;
    let closed = Instant::now();
    assert!(raw::read_to_close(&mut idle, Duration::from_secs(2)).await.is_some(), "the idle connection stayed open");
    assert!(closed.elapsed() < Duration::from_millis(1200));
    let answer = slow.await.unwrap();
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, Some("close")));
    assert_eq!(balancer.program.wait(Duration::from_secs(3)).await.code(), Some(0));
}

#[tokio::test]
async fn a_kept_connection_gets_one_more_answer_while_draining() {
    let (_server, backend) = server("a").await;
    let mut balancer = Balancer::start(&[backend], &[]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    client.get("/").await.unwrap();
    balancer.program.signal("TERM");
    e2e::eventually("readiness goes", async || {
        (http::get(balancer.admin_port(), "/readyz").await.status.as_u16() == 503).then_some(())
    })
    .await;
    // Longer than two sweeps: it is the linger that keeps the connection, not luck.
    tokio::time::sleep(Duration::from_millis(250)).await;
    let answer = client.get("/").await.expect("a request that comes just after the signal is answered");
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, Some("close")));
    assert_eq!(balancer.program.wait(Duration::from_secs(3)).await.code(), Some(0));
}

#[tokio::test]
async fn what_outlives_the_drain_time_is_cut_and_a_second_signal_cuts_at_once() {
    for (drain, second) in [("500ms", false), ("60s", true)] {
        let (_server, backend) = server("a").await;
        let mut balancer = Balancer::start(&[backend], &["--drain-timeout", drain]).await;
        let mut client = raw::connect(balancer.port()).await;
        client.write_all(b"GET /delay/50000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        e2e::eventually("the request is in flight", async || {
            (balancer.status().await["traffic"]["in_flight"] == 1).then_some(())
        })
        .await;
        balancer.program.signal("INT");
        let started = Instant::now();
        if second {
            e2e::eventually("the first signal is taken", async || {
                balancer.program.stderr().contains("shutting down").then_some(())
            })
            .await;
            balancer.program.signal("TERM");
        }
        let status = balancer.program.wait(Duration::from_secs(5)).await;
        assert_eq!(status.code(), Some(i32::from(second)), "drain {drain}");
        assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
        let cut = raw::read_to_close(&mut client, Duration::from_secs(1)).await.unwrap();
        assert_eq!(cut, "", "a request that was cut must not look answered");
    }
}

#[tokio::test]
async fn an_open_stream_of_the_admin_api_does_not_hold_the_end_up() {
    let (_server, backend) = server("a").await;
    let mut balancer = Balancer::start(&[backend], &[]).await;
    let mut stream = raw::connect(balancer.admin_port()).await;
    let request = format!("GET /v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    raw::read_head(&mut stream).await;
    balancer.program.signal("TERM");
    assert_eq!(balancer.program.wait(Duration::from_secs(2)).await.code(), Some(0));
}
