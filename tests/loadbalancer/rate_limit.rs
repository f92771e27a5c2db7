//! How often one client may ask.

use e2e::http::{Client, send};
use hyper::Method;
use tokio::net::TcpSocket;

use super::limits::metric;
use super::*;
use crate::loadbalancer::http::request;

const LIMITED: &str = "lb_local_replies_total{reason=\"rate_limited\",status=\"429\"}";

async fn limited(name: &str, text: &str, args: &[&str]) -> (Program, Balancer) {
    let (server, backend) = server("a").await;
    let config = e2e::program::scratch_dir().join(format!("rate-{name}.toml"));
    std::fs::write(&config, text).unwrap();
    let file = config.display().to_string();
    (server, Balancer::start(&[backend], &[&["--config", &file][..], args].concat()).await)
}

#[tokio::test]
async fn beyond_its_burst_a_client_is_answered_429_on_a_connection_that_goes_on() {
    let text = "[rate_limit]\nrequests = 3\nperiod = \"1m\"\n";
    let (_server, balancer) = limited("burst", text, &[]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.get("/").await.unwrap().status.as_u16(), 200);
    }
    let refused = client.get("/").await.unwrap();
    assert_eq!(refused.status.as_u16(), 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((15..=20).contains(&wait), "a request is earned every 20 s: {wait}");
    let text = refused.text();
    assert!(text.contains("too many requests from you") && text.contains("rate_limit.requests = 3 in 60s"), "{text}");
    assert_eq!(client.get("/").await.unwrap().status.as_u16(), 429, "the same connection");
    // Another connection, even to the other worker, is the same client.
    assert_eq!(balancer.get("/").await.status.as_u16(), 429);
    assert_eq!(metric(&balancer, LIMITED).await, 3);
    assert_eq!(metric(&balancer, "lb_rate_limit_clients").await, 1);
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = socket.connect(([127, 0, 0, 1], balancer.port()).into()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut other, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(e2e::raw::read_head(&mut other).await.starts_with("HTTP/1.1 200"), "another client");
    e2e::eventually("the event list says so", async || {
        let status = balancer.status().await;
        let said = |event: &Value| event["message"].as_str().is_some_and(|words| words.contains("ask too often"));
        status["events"].as_array().unwrap().iter().any(said).then_some(())
    })
    .await;
}

#[tokio::test]
async fn who_comes_back_after_retry_after_is_served() {
    let (_server, balancer) = limited("again", "[rate_limit]\nrequests = 1\n", &[]).await;
    assert_eq!(balancer.get("/").await.status.as_u16(), 200);
    let refused = balancer.get("/").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, Some("1")));
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(balancer.get("/").await.status.as_u16(), 200);
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_clients_and_nobody_else_does() {
    let text = "[rate_limit]\nrequests = 1\nperiod = \"1h\"\nheader = \"x-api-key\"\n";
    let (_server, trusting) = limited("trusted", text, &["--trusted-proxy", "127.0.0.0/8"]).await;
    let status = async |balancer: &Balancer, headers: &[(&str, &str)]| {
        send(balancer.port(), request(Method::GET, "/", headers, "")).await.status.as_u16()
    };
    for (headers, expected) in [
        ([("x-forwarded-for", "192.0.2.1")], 200),
        ([("x-forwarded-for", "192.0.2.2")], 200),
        ([("x-forwarded-for", "192.0.2.1")], 429),
        ([("x-forwarded-for", "2001:db8::1")], 200),
        ([("x-forwarded-for", "2001:db8::ffff:1")], 429),
        ([("x-api-key", "one")], 200),
        ([("x-api-key", "two")], 200),
        ([("x-api-key", "one")], 429),
        ([("x-other", "it speaks for itself")], 200),
        ([("x-other", "it speaks for itself")], 200),
    ] {
        assert_eq!(status(&trusting, &headers).await, expected, "{headers:?}");
    }
    let text = "[rate_limit]\nrequests = 1\nperiod = \"1h\"\nheader = \"x-api-key\"\n";
    let (_server, strict) = limited("strict", text, &["--trusted-proxy", "192.0.2.0/24"]).await;
    assert_eq!(status(&strict, &[("x-api-key", "one")]).await, 200);
    assert_eq!(status(&strict, &[("x-api-key", "two")]).await, 429, "a stranger's word is nothing");
    assert_eq!(status(&strict, &[("x-forwarded-for", "192.0.2.1")]).await, 429);
}

#[tokio::test]
async fn however_many_clients_come_only_so_many_are_remembered() {
    let text = "[rate_limit]\nrequests = 1\nperiod = \"1h\"\nclients = 1024\n";
    let (_server, balancer) = limited("many", text, &["--trusted-proxy", "127.0.0.0/8"]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    for number in 0..4000_u32 {
        let address = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string();
        let asked = request(Method::GET, "/", &[("x-forwarded-for", &address)], "");
        assert_eq!(client.send(asked).await.unwrap().status.as_u16(), 200);
    }
    assert_eq!(metric(&balancer, "lb_rate_limit_capacity").await, 1024);
    assert!(metric(&balancer, "lb_rate_limit_clients").await <= 1024);
    assert!(metric(&balancer, "lb_rate_limit_forgotten_total").await >= 4000 - 1024);
}
