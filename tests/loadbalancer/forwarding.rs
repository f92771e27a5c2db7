use bytes::Bytes;
use e2e::http::{Client, request};
use tokio::io::AsyncWriteExt;

use super::*;

/// The echo's view of a field; all values joined.
fn field(echo: &Value, name: &str) -> Option<String> {
    let fields = echo["headers"].as_array().expect("a list of fields");
    let values: Vec<&str> =
        fields.iter().filter(|pair| pair[0] == name).map(|pair| pair[1].as_str().unwrap()).collect();
    (!values.is_empty()).then(|| values.join("|"))
}

async fn one() -> (Program, Balancer) {
    one_with(&[]).await
}

async fn one_with(args: &[&str]) -> (Program, Balancer) {
    let (server, backend) = server("a").await;
    (server, Balancer::start(&[backend], args).await)
}

#[tokio::test]
async fn method_target_fields_and_body_arrive() {
    let (_server, balancer) = one().await;
    for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::from_bytes(b"PURGE").unwrap()] {
        let sent = request(method.clone(), "/echo?q=%20x&y", &[("x-custom", "1"), ("cookie", "a=b")], "hello");
        let echo = http::send(balancer.port(), sent).await.json();
        assert_eq!(echo["method"], method.as_str());
        assert_eq!(echo["target"], "/echo?q=%20x&y");
        assert_eq!(echo["body"], "hello");
        assert_eq!(field(&echo, "x-custom").as_deref(), Some("1"));
        assert_eq!(field(&echo, "content-length").as_deref(), Some("5"));
    }
}

#[tokio::test]
async fn a_stranger_is_told_about_truthfully() {
    let (_server, balancer) = one().await;
    let lies = [
        ("x-forwarded-for", "6.6.6.6"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-prefix", "/evil"),
        ("forwarded", "for=6.6.6.6"),
        ("x-request-id", "mine"),
        ("host", "shop.example"),
    ];
    let echo = http::send(balancer.port(), request(Method::GET, "/echo", &lies, "")).await.json();
    assert_eq!(field(&echo, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert_eq!(field(&echo, "x-forwarded-proto").as_deref(), Some("http"));
    assert_eq!(field(&echo, "x-forwarded-host").as_deref(), Some("shop.example"));
    assert_eq!((field(&echo, "forwarded"), field(&echo, "x-forwarded-prefix")), (None, None));
    assert_eq!(field(&echo, "host").as_deref(), Some("shop.example"));
    assert!(field(&echo, "via").is_some_and(|via| via.starts_with("1.1 loadbalancer-")), "{echo}");
    let id = field(&echo, "x-request-id").unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_extended() {
    let (_server, balancer) = one_with(&["--trusted-proxy", "10.0.0.0/8,127.0.0.1"]).await;
    let told = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.example"),
        ("x-forwarded-prefix", "/shop"),
        ("x-request-id", "abc-123"),
        ("via", "1.0 edge"),
    ];
    let echo = http::send(balancer.port(), request(Method::GET, "/echo", &told, "")).await.json();
    assert_eq!(field(&echo, "x-forwarded-for").as_deref(), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(field(&echo, "x-forwarded-proto").as_deref(), Some("https"));
    assert_eq!(field(&echo, "x-forwarded-host").as_deref(), Some("shop.example"));
    assert_eq!(field(&echo, "x-forwarded-prefix").as_deref(), Some("/shop"));
    assert_eq!(field(&echo, "x-request-id").as_deref(), Some("abc-123"));
    assert!(field(&echo, "via").is_some_and(|via| via.starts_with("1.0 edge, 1.1 loadbalancer-")), "{echo}");
}

#[tokio::test]
async fn hop_by_hop_fields_are_removed_both_ways() {
    let (_server, balancer) = one().await;
    let sent = [
        ("connection", "keep-alive, x-private, x-forwarded-for"),
        ("x-private", "1"),
        ("keep-alive", "timeout=9"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic eA=="),
        ("proxy-connection", "keep-alive"),
    ];
    let answer = http::send(balancer.port(), request(Method::GET, "/echo", &sent, "")).await;
    let echo = answer.json();
    for name in ["connection", "x-private", "keep-alive", "te", "upgrade", "proxy-authorization", "proxy-connection"] {
        assert_eq!(field(&echo, name), None, "{name}");
    }
    assert_eq!(field(&echo, "x-forwarded-for").as_deref(), Some("127.0.0.1"));
    assert!(answer.header("via").is_some_and(|via| via.starts_with("1.1 loadbalancer-")));
}

#[tokio::test]
async fn statuses_and_bodiless_answers_pass_as_they_are() {
    let (_server, balancer) = one().await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    for status in [200, 201, 204, 304, 400, 404, 418, 500, 503, 599] {
        assert_eq!(client.get(&format!("/status/{status}")).await.unwrap().status.as_u16(), status);
    }
    // The connection survived all of them, also HEAD, whose length is that of the GET.
    let head = client.send(request(Method::HEAD, "/bytes/1000", &[], "")).await.unwrap();
    assert_eq!((head.header("content-length"), head.body.len()), (Some("1000"), 0));
    assert_eq!(client.get("/bytes/1000").await.unwrap().body.len(), 1000);
    // None of them was thought to have a body that the client did not stay for.
    let metrics = http::get(balancer.admin_port(), "/metrics").await.text();
    assert!(metrics.contains("lb_responses_cut_by_client_total 0\n"), "{metrics}");
}

#[tokio::test]
async fn large_bodies_stream_both_ways_in_little_memory() {
    let (_server, balancer) = one().await;
    let before = resident_kib(&balancer.program);
    let body: Bytes =
        (0..40_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<u8>>().into();
    let answer = http::send(balancer.port(), request(Method::POST, "/echo/body", &[], body.clone())).await;
    assert!(answer.body == body, "{} of {} bytes came back as they were", answer.body.len(), body.len());
    let grown = resident_kib(&balancer.program).saturating_sub(before);
    assert!(grown < 8 * 1024, "40 MB through one connection grew resident memory by {grown} KiB");
}

#[tokio::test]
async fn pieces_arrive_as_they_are_sent() {
    let (_server, balancer) = one().await;
    let mut stream = e2e::raw::connect(balancer.port()).await;
    stream.write_all(b"GET /stream/5?pause_ms=300 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let started = tokio::time::Instant::now();
    let head = e2e::raw::read_head(&mut stream).await.to_ascii_lowercase();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let early = started.elapsed();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let rest = e2e::raw::read_to_close(&mut stream, e2e::PATIENCE).await.unwrap();
    assert!(rest.contains("\r\n0\r\n\r\nHTTP/1.1 200"), "pipelined request not answered in order: {rest}");
    assert!(started.elapsed() > early + std::time::Duration::from_millis(800), "the body was held back");
}

#[tokio::test]
async fn connections_to_backends_are_used_again() {
    let origin = e2e::origin::Origin::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true).await;
    let balancer = Balancer::start(&[origin.address()], &["--workers", "1"]).await;
    for _ in 0..50 {
        assert_eq!(balancer.get("/").await.text(), "ok");
    }
    assert_eq!((origin.requests(), origin.connections()), (50, 1));
}

fn resident_kib(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
