//! Bodies in and out: echoed, generated, paced, and never held as a whole.

use std::time::{Duration, Instant};

use e2e::http::{self, Client, request};
use e2e::program::Program;
use e2e::raw;
use hyper::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::server;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn echo_describes_the_request() {
    let (_program, port) = server(&["--name", "alpha"]).await;
    let headers = [("x-b", "2"), ("x-a", "1"), ("host", "example.org"), ("x-b", "3")];
    let answer = http::send(port, request(Method::PATCH, "/echo?q=%20a&b", &headers, "123456789")).await;
    let echo = answer.json();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    for (key, value) in [
        ("server", json!("alpha")),
        ("method", json!("PATCH")),
        ("target", json!("/echo?q=%20a&b")),
        ("version", json!("HTTP/1.1")),
        ("body", json!("123456789")),
        ("body_bytes", json!(9)),
        ("body_crc32", json!("cbf43926")),
    ] {
        assert_eq!(echo[key], value, "{key}");
    }
    assert!(echo["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{echo}");
    let echoed = echo["headers"].as_array().unwrap();
    let expected = [["x-b", "2"], ["x-b", "3"], ["x-a", "1"], ["host", "example.org"], ["content-length", "9"]];
    assert_eq!(echoed, &expected.map(|pair| json!(pair)), "in order, the values of one name together");
}

#[tokio::test]
async fn echo_takes_bytes_that_are_no_text_and_at_most_1_mib() {
    let (_program, port) = server(&[]).await;
    let echo = http::send(port, request(Method::POST, "/echo", &[], &b"a\xff"[..])).await.json();
    assert_eq!((&echo["body"], &echo["body_bytes"]), (&json!("a\u{fffd}"), &json!(2)));

    let most = http::send(port, request(Method::POST, "/echo", &[], vec![b'x'; MIB])).await;
    assert_eq!(most.json()["body_bytes"], json!(MIB));
    let more = http::send(port, request(Method::POST, "/echo", &[], vec![b'x'; MIB + 1])).await;
    assert_eq!(more.status, 413);
    assert!(more.text().contains("1048576"), "{}", more.text());

    // Without a length to refuse at once. The server answers before it has read all, and the client must still be
    // able to read that answer.
    let mut stream = raw::connect(port).await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [&b"10000\r\n"[..], &[b'x'; 65_536], b"\r\n"].concat();
    // 32 MiB: more than the buffers on the way take.
    for _ in 0..512 {
        stream.write_all(&chunk).await.expect("the server takes what is sent while it closes");
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let answer = raw::read_to_close(&mut stream, e2e::PATIENCE).await.expect("closed");
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer:?}");
}

#[tokio::test]
async fn echo_body_sends_back_what_came_before_the_rest_is_there() {
    let (_program, port) = server(&[]).await;
    let mut stream = raw::connect(port).await;
    let head = "PUT /echo/body HTTP/1.1\r\nhost: a\r\ncontent-type: image/x-test\r\ncontent-length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(b"first").await.unwrap();
    let mut answer = raw::read_head(&mut stream).await;
    while !answer.ends_with("first") {
        answer += &read_some(&mut stream).await;
    }
    assert!(answer.contains("content-type: image/x-test\r\n"), "{answer}");
    assert!(answer.contains("content-length: 10\r\n"), "{answer}");
    stream.write_all(b"after").await.unwrap();
    assert_eq!(read_some(&mut stream).await, "after");
}

#[tokio::test]
async fn bytes_are_a_pattern_of_the_announced_length() {
    let (_program, port) = server(&[]).await;
    for n in [0, 1, 250, 251, 64_255, 64_256, 64_257, 1_000_000] {
        let answer = http::get(port, &format!("/bytes/{n}")).await;
        assert_eq!(answer.header("content-length"), Some(n.to_string().as_str()));
        assert_eq!(answer.body.len(), n);
        assert!(answer.body.iter().enumerate().all(|(i, byte)| usize::from(*byte) == i % 251), "{n}");
    }
    let head = http::send(port, request(Method::HEAD, "/bytes/10737418240", &[], "")).await;
    assert_eq!(head.header("content-length"), Some("10737418240"));
}

#[tokio::test]
async fn nothing_holds_a_whole_body() {
    const LENGTH: usize = 256 * MIB;
    let (program, port) = server(&[]).await;
    let mut stream = raw::connect(port).await;
    stream.write_all(format!("GET /bytes/{LENGTH} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
    // Slow at first: a server that does not wait for its client would fill its memory now.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut buffer = vec![0; MIB];
    let mut left = LENGTH;
    while left > 0 {
        left = left.saturating_sub(stream.read(&mut buffer).await.expect("the body comes"));
    }
    let (mut reader, mut writer) = raw::connect(port).await.into_split();
    let upload = tokio::spawn(async move {
        let head = format!("POST /echo/body HTTP/1.1\r\nhost: a\r\ncontent-length: {LENGTH}\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        let piece = vec![7; MIB];
        for _ in 0..LENGTH / MIB {
            writer.write_all(&piece).await.unwrap();
        }
        writer
    });
    let mut left = LENGTH;
    while left > 0 {
        left = left.saturating_sub(reader.read(&mut buffer).await.expect("the echo comes"));
    }
    drop(upload.await.unwrap());
    let peak = peak_memory(&program);
    assert!(peak < 32 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test]
async fn chunks_come_with_pauses() {
    let (_program, port) = server(&["--name", "alpha"]).await;
    let mut stream = raw::connect(port).await;
    let began = Instant::now();
    stream.write_all(b"GET /stream/3?pause_ms=300 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = raw::read_head(&mut stream).await;
    while !answer.contains("alpha chunk 1 of 3\n") {
        answer += &read_some(&mut stream).await;
    }
    assert!(began.elapsed() < Duration::from_millis(300), "the first does not wait");
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    answer += &raw::read_to_close(&mut stream, e2e::PATIENCE).await.expect("closed");
    assert!(began.elapsed() >= Duration::from_millis(600), "two pauses");
    assert!(answer.ends_with("alpha chunk 3 of 3\n\r\n0\r\n\r\n"), "{answer}");

    let began = Instant::now();
    assert_eq!(http::get(port, "/stream/3").await.text().lines().count(), 3);
    assert!(began.elapsed() >= Duration::from_millis(200), "100 ms each unless told");
    assert_eq!(http::get(port, "/stream/0").await.text(), "");
    let many = http::get(port, "/stream/10000?pause_ms=0").await.text();
    assert_eq!(many.lines().last(), Some("alpha chunk 10000 of 10000"));
}

#[tokio::test]
async fn events_are_server_sent_events() {
    let (_program, port) = server(&[]).await;
    let answer = http::get(port, "/sse?n=2&pause_ms=1").await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.text(), "id: 1\nevent: tick\ndata: 1\n\nid: 2\nevent: tick\ndata: 2\n\n");
}

#[tokio::test]
async fn a_body_that_nobody_asked_for_does_not_cost_the_connection() {
    let (_program, port) = server(&["--name", "alpha"]).await;
    let mut client = Client::connect(port).await.unwrap();
    for path in ["/", "/bytes/5", "/status/404", "/livez", "/nothing"] {
        client
            .send(request(Method::POST, path, &[], vec![b'x'; 5 * MIB]))
            .await
            .unwrap_or_else(|e| panic!("{path}: {e}"));
    }
    assert_eq!(client.get("/").await.expect("still open").text(), "alpha GET /\n");
}

#[tokio::test]
async fn a_body_with_broken_framing_gets_400() {
    let (_program, port) = server(&[]).await;
    for path in ["/", "/echo"] {
        let request = format!("POST {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nnot a length\r\n");
        let answer = raw::exchange(port, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{path}: {answer:?}");
    }
}

async fn read_some(stream: &mut TcpStream) -> String {
    let mut buffer = [0; 4096];
    let read = tokio::time::timeout(e2e::PATIENCE, stream.read(&mut buffer)).await.expect("in time");
    let read = read.expect("the connection holds");
    assert!(read > 0, "closed");
    String::from_utf8_lossy(&buffer[..read]).into_owned()
}

fn peak_memory(program: &Program) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux");
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1024
}
