//! Faults on purpose: each kind as the client sees it, and the switch.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use e2e::http::{self, Answer, Client, request};
use e2e::program::Program;
use e2e::raw;
use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{metric, server};

async fn put(port: u16, faults: &str) -> Answer {
    http::send(port, request(Method::PUT, "/admin/faults", &[], faults.to_owned())).await
}

/// What arrives until the connection ends, and how it ends.
async fn received(port: u16, path: &str) -> (String, std::io::Result<()>) {
    let mut stream = raw::connect(port).await;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let end = tokio::time::timeout(e2e::PATIENCE, stream.read_to_end(&mut bytes)).await.expect("an end in time");
    (String::from_utf8_lossy(&bytes).into_owned(), end.map(|_| ()))
}

#[tokio::test]
async fn latency_delays_requests_but_not_liveness() {
    let (_program, port) = server(&["--faults", "latency=400ms,jitter=100ms"]).await;
    let began = Instant::now();
    assert_eq!(http::get(port, "/").await.status, 200);
    let took = began.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&took), "{took:?}");
    let began = Instant::now();
    for path in ["/livez", "/metrics", "/admin/faults"] {
        assert_eq!(http::get(port, path).await.status, 200);
    }
    assert!(began.elapsed() < Duration::from_millis(300), "{:?}", began.elapsed());
    assert_eq!(metric(port, "server_faults_total{kind=\"latency\"}").await, 1.0);
}

#[tokio::test]
async fn errors_say_that_they_are_injected() {
    let program = Program::start("server", &["--port=0", "--name=alpha"], &[("SERVER_FAULTS", "error=100%")]).await;
    let port = program.port("url");
    let mut client = Client::connect(port).await.unwrap();
    for (method, path) in [(Method::GET, "/"), (Method::POST, "/echo"), (Method::GET, "/readyz")] {
        let answer = client.send(request(method, path, &[], "body")).await.expect("the connection stays");
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (500, "alpha: injected fault: error\n"), "{path}");
        assert_eq!(answer.header("x-served-by"), Some("alpha"));
    }
    for path in ["/livez", "/metrics", "/admin/faults"] {
        assert_eq!(client.get(path).await.unwrap().status, 200, "{path} is spared");
    }
    assert_eq!(metric(port, "server_faults_total{kind=\"error\"}").await, 3.0);
}

#[tokio::test]
async fn a_hanging_request_is_never_answered_and_ends_with_its_connection() {
    let (_program, port) = server(&["--faults", "hang=100%"]).await;
    let mut stream = raw::connect(port).await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert_eq!(raw::read_to_close(&mut stream, Duration::from_millis(500)).await, None, "neither answered nor closed");
    assert_eq!(http::get(port, "/livez").await.status, 200);
    assert_eq!(metric(port, "server_requests_in_flight").await, 2.0);
    assert_eq!(metric(port, "server_faults_total{kind=\"hang\"}").await, 1.0);
    drop(stream);
    e2e::eventually("the request ends with its connection", async || {
        (metric(port, "server_requests_total{class=\"aborted\"}").await == 1.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn reset_before_sends_nothing_but_a_reset() {
    let (_program, port) = server(&["--faults", "reset-before=100%"]).await;
    let (bytes, end) = received(port, "/").await;
    assert_eq!((bytes.as_str(), end.unwrap_err().kind()), ("", ErrorKind::ConnectionReset));
    assert_eq!(metric(port, "server_faults_total{kind=\"reset_before\"}").await, 1.0);
    assert_eq!(http::get(port, "/livez").await.status, 200);
}

#[tokio::test]
async fn reset_mid_sends_the_head_and_a_part_of_the_body() {
    let (_program, port) = server(&["--name", "alpha", "--faults", "reset-mid=100%"]).await;
    for path in ["/", "/bytes/1000000", "/stream/3", "/echo"] {
        let (bytes, end) = received(port, path).await;
        assert_eq!(end.unwrap_err().kind(), ErrorKind::ConnectionReset, "{path}");
        let (head, body) = bytes.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: no head: {bytes:?}"));
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("x-served-by: alpha"), "{path}: {head}");
        assert!(!body.is_empty() && body.len() < 1_000_000, "{path}: {} bytes", body.len());
        if path == "/" {
            assert!(head.contains("content-length: 12") && body == "alpha ", "{bytes}");
        }
    }
    // Where there is no body there is no middle: the reset comes first.
    for path in ["/status/204", "/bytes/0"] {
        let (bytes, end) = received(port, path).await;
        assert_eq!((bytes.as_str(), end.unwrap_err().kind()), ("", ErrorKind::ConnectionReset), "{path}");
    }
    assert_eq!(metric(port, "server_faults_total{kind=\"reset_mid\"}").await, 6.0);
}

#[tokio::test]
async fn faults_are_shown_replaced_and_cleared_at_run_time() {
    let (_program, port) = server(&["--faults", "none"]).await;
    assert_eq!(http::get(port, "/admin/faults").await.json()["faults"], json!({}));
    assert_eq!(http::get(port, "/").await.status, 200);

    let shown = put(port, "error=100%,latency=1ms\n").await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json()["faults"], json!({"error": "100%", "latency": "1ms"}));
    assert_eq!(http::get(port, "/").await.status, 500);

    // All are replaced: the latency is gone. What is shown can be put back.
    let shown = put(port, r#"{"error": "100%"}"#).await.json();
    assert_eq!((&shown["faults"], &shown["text"]), (&json!({"error": "100%"}), &json!("error=100%")));
    assert_eq!(put(port, &shown["faults"].to_string()).await.status, 200);
    assert_eq!(http::get(port, "/").await.status, 500);
    assert_eq!(http::get(port, "/admin/faults").await.json()["injected"]["error"], json!(2));

    for wrong in ["error=1000%", "sloth=1s", "{\"error\": 1}", "{", "\u{0}", ""] {
        let answer = put(port, wrong).await;
        assert_eq!(answer.status, 400, "{wrong:?}");
        assert!(answer.text().contains("reset-before=RATE"), "{wrong:?}: the grammar is not in {}", answer.text());
    }
    assert_eq!(http::get(port, "/").await.status, 500, "a wrong set changes nothing");

    let cleared = http::send(port, request(Method::DELETE, "/admin/faults", &[], "")).await;
    assert_eq!(cleared.json()["text"], json!("none"));
    assert_eq!(http::get(port, "/").await.status, 200);
    let post = http::send(port, request(Method::POST, "/admin/faults", &[], "error=100%")).await;
    assert_eq!((post.status.as_u16(), post.header("allow")), (405, Some("GET, HEAD, PUT, DELETE")));
}

#[tokio::test]
async fn without_the_option_there_is_no_switch() {
    let (_program, port) = server(&[]).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = http::send(port, request(method, "/admin/faults", &[], "error=100%")).await;
        assert_eq!(answer.status, 403);
        assert!(answer.text().contains("--faults"), "{}", answer.text());
    }
    assert_eq!(http::get(port, "/").await.status, 200);
}
