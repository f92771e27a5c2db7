//! `refuse`: the listening socket is closed for a time, and comes back on the same port.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use e2e::http::{self, Client, request};
use hyper::Method;
use serde_json::json;
use tokio::net::TcpStream;

use super::{metric, server};

async fn refused(port: u16) -> bool {
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
            true
        }
    }
}

async fn put(client: &mut Client, faults: &str) -> serde_json::Value {
    let answer = client.send(request(Method::PUT, "/admin/faults", &[], faults.to_owned())).await;
    answer.expect("open connections go on").json()
}

#[tokio::test]
async fn connects_are_refused_for_the_time_given_while_open_connections_go_on() {
    let (_program, port) = server(&["--faults"]).await;
    let mut client = Client::connect(port).await.unwrap();
    let shown = put(&mut client, "refuse=1s").await;
    let began = Instant::now();
    assert!((1..=1000).contains(&shown["refusing_ms"].as_u64().unwrap()), "{shown}");
    e2e::eventually("connects are refused", async || refused(port).await.then_some(())).await;
    assert_eq!(client.get("/").await.expect("open connections go on").status, 200);
    e2e::eventually("connects are taken again", async || (!refused(port).await).then_some(())).await;
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(client.get("/admin/faults").await.unwrap().json()["faults"], json!({}), "it is over");
    assert_eq!(metric(port, "server_faults_total{kind=\"refuse\"}").await, 1.0);
}

#[tokio::test]
async fn a_refusal_can_be_ended_early_and_lengthened_and_keeps_the_port() {
    let (_program, port) = server(&["--faults", "error=100%"]).await;
    let mut client = Client::connect(port).await.unwrap();
    for round in 0..3 {
        put(&mut client, "refuse=1h").await;
        e2e::eventually("connects are refused", async || refused(port).await.then_some(())).await;
        if round == 0 {
            let shown = put(&mut client, "refuse").await;
            assert!((5_000..=10_000).contains(&shown["refusing_ms"].as_u64().unwrap()), "10 s by default: {shown}");
            assert!(refused(port).await);
        }
        let clear = request(Method::DELETE, "/admin/faults", &[], "");
        assert_eq!(client.send(clear).await.unwrap().json()["refusing_ms"], json!(0));
        e2e::eventually("connects are taken again", async || (!refused(port).await).then_some(())).await;
        assert_eq!(http::get(port, "/").await.status, 200);
    }
}

#[tokio::test]
async fn it_can_start_that_way() {
    let (_program, port) = server(&["--faults", "refuse=2s"]).await;
    e2e::eventually("connects are refused", async || refused(port).await.then_some(())).await;
    e2e::eventually("connects are taken again", async || (!refused(port).await).then_some(())).await;
}

#[tokio::test]
async fn a_stop_does_not_wait_for_its_end() {
    let (mut program, port) = server(&["--faults", "refuse=1h"]).await;
    e2e::eventually("connects are refused", async || refused(port).await.then_some(())).await;
    program.signal("TERM");
    assert_eq!(program.wait(Duration::from_secs(5)).await.code(), Some(0));
}
