//! The PROXY protocol, from balancers in front and to servers behind; with HAProxy on both sides.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::origin::Origin;
use e2e::{PATIENCE, raw};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

const FROM_HERE: [&str; 2] = ["--proxy-protocol-from", "127.0.0.0/8"];

/// An origin that answers everything with the request's own head.
async fn mirror() -> Origin {
    Origin::start(|seen, mut stream| async move {
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", seen.head.len(), seen.head);
        stream.write_all(answer.as_bytes()).await.ok()?;
        Some(stream)
    })
    .await
}

/// Version 2 for a client 192.0.2.7:258 over TCP and IPv4, with `tlvs` behind.
fn second_version(tlvs: &[u8]) -> Vec<u8> {
    let length = (12 + tlvs.len() as u16).to_be_bytes();
    let addresses = [192, 0, 2, 7, 198, 51, 100, 2, 1, 2, 0, 80];
    [b"\r\n\r\n\0\r\nQUIT\n\x21\x11", &length[..], &addresses, tlvs].concat()
}

/// What the server behind saw of a request that came in `pieces`.
async fn seen(port: u16, pieces: &[&[u8]]) -> String {
    let mut client = raw::connect(port).await;
    client.set_nodelay(true).unwrap();
    for piece in pieces {
        client.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    read_two_heads(&mut client).await
}

/// The mirror's answer holds the head it was sent.
async fn read_two_heads(client: &mut TcpStream) -> String {
    let mut received = Vec::new();
    while String::from_utf8_lossy(&received).matches("\r\n\r\n").count() < 2 {
        let read = tokio::time::timeout(PATIENCE, client.read_buf(&mut received)).await.expect("an answer in time");
        assert!(read.unwrap() > 0, "closed after {:?}", String::from_utf8_lossy(&received));
    }
    String::from_utf8_lossy(&received).into_owned()
}

async fn rejected(balancer: &Balancer) -> u64 {
    let page = http::get(balancer.admin_port(), "/metrics").await.text();
    let name = "lb_rejected_total{reason=\"proxy_header\",status=\"400\"} ";
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

#[tokio::test]
async fn a_listed_peer_names_the_client_and_no_byte_of_the_request_is_lost() {
    let origin = mirror().await;
    let balancer = Balancer::start(&[origin.address()], &FROM_HERE).await;
    let port = balancer.port();
    let line: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.2 258 80\r\n";
    let tlvs = [&[4, 0, 200][..], &[7; 200]].concat();
    for header in [line, &second_version(b""), &second_version(&tlvs)] {
        let whole = [header, REQUEST].concat();
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        for pieces in [&[header, REQUEST][..], &[&whole], &bytes] {
            let answer = seen(port, pieces).await;
            assert!(answer.contains("GET / HTTP/1.1\r\n"), "{answer}");
            assert!(answer.contains("x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
        }
    }
    let v6 = seen(port, &[b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n", REQUEST]).await;
    assert!(v6.contains("x-forwarded-for: 2001:db8::7\r\n"), "{v6}");
    // Nobody is named: the connection's own address stands.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN what ever\r\n", local] {
        let answer = seen(port, &[header, REQUEST]).await;
        assert!(answer.contains("x-forwarded-for: 127.0.0.1\r\n"), "{answer}");
    }
    assert_eq!(rejected(&balancer).await, 0);
}

#[tokio::test]
async fn what_is_named_decides_about_trust() {
    let origin = mirror().await;
    let claim = b"GET / HTTP/1.1\r\nhost: x\r\nx-forwarded-for: 203.0.113.9\r\n\r\n";
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.2 258 80\r\n";
    let trusting = |network: &'static str| [&FROM_HERE[..], &["--trusted-proxy", network]].concat();
    let named = Balancer::start(&[origin.address()], &trusting("192.0.2.0/24")).await;
    let answer = seen(named.port(), &[header, claim]).await;
    assert!(answer.contains("x-forwarded-for: 203.0.113.9, 192.0.2.7\r\n"), "{answer}");
    // That the one who names is trusted to name does not make the named one trusted.
    let naming = Balancer::start(&[origin.address()], &trusting("127.0.0.0/8")).await;
    let answer = seen(naming.port(), &[header, claim]).await;
    assert!(answer.contains("x-forwarded-for: 192.0.2.7\r\n"), "{answer}");
}

#[tokio::test]
async fn a_listed_peer_without_a_valid_header_is_closed_and_counted() {
    let origin = mirror().await;
    let args = [&FROM_HERE[..], &["--client-head-timeout", "300ms"]].concat();
    let balancer = Balancer::start(&[origin.address()], &args).await;
    let wrong: [&[u8]; 5] = [
        REQUEST,
        b"PROXY TCP4 192.0.2.7 198.51.100.2 258\r\n",
        b"PROXY TCP4 192.0.2.7 198.51.100.2 258 80\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\x00\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x02\x19",
    ];
    for bytes in wrong {
        assert_eq!(raw::exchange(balancer.port(), bytes).await, "", "{}", String::from_utf8_lossy(bytes));
    }
    // Nothing at all, or not all of it, in time.
    for bytes in [&b""[..], b"PROXY TCP4 192.0.2.7 "] {
        assert_eq!(raw::exchange(balancer.port(), bytes).await, "");
    }
    assert_eq!((rejected(&balancer).await, origin.requests()), (7, 0));
}

#[tokio::test]
async fn from_anybody_else_it_is_not_http() {
    let origin = mirror().await;
    let balancer = Balancer::start(&[origin.address()], &["--proxy-protocol-from", "192.0.2.0/24"]).await;
    let line = [&b"PROXY TCP4 192.0.2.7 198.51.100.2 258 80\r\n"[..], REQUEST].concat();
    for bytes in [line, [&second_version(b"")[..], REQUEST].concat()] {
        let answer = raw::exchange(balancer.port(), &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn connections_are_counted_for_the_client_that_is_named() {
    let origin = mirror().await;
    let args = [&FROM_HERE[..], &["--max-connections-per-client", "1"]].concat();
    let balancer = Balancer::start(&[origin.address()], &args).await;
    let mut open = Vec::new();
    for last in 1..=5 {
        let mut client = raw::connect(balancer.port()).await;
        client.write_all(format!("PROXY TCP4 192.0.2.{last} 192.0.2.9 1 2\r\n").as_bytes()).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        assert!(raw::read_head(&mut client).await.starts_with("HTTP/1.1 200"));
        open.push(client);
    }
    let again = [&b"PROXY TCP4 192.0.2.3 192.0.2.9 7 2\r\n"[..], REQUEST].concat();
    assert!(raw::exchange(balancer.port(), &again).await.starts_with("HTTP/1.1 429"));
}

#[tokio::test]
async fn a_connection_to_a_server_is_for_one_client_only() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heads);
    let origin = Origin::start(move |seen, mut stream| {
        log.lock().unwrap().push((seen.on_connection, seen.head));
        async move { stream.write_all(OK).await.is_ok().then_some(stream) }
    })
    .await;
    let args = ["--workers", "1", "--upstream-proxy-protocol", "v1"];
    let balancer = Balancer::start(&[origin.address()], &args).await;
    let mut clients = [raw::connect(balancer.port()).await, raw::connect(balancer.port()).await];
    let mut expected = Vec::new();
    for turn in 0..3 {
        for client in &mut clients {
            client.write_all(REQUEST).await.unwrap();
            assert!(raw::read_head(client).await.starts_with("HTTP/1.1 200"));
            let (from, to) = (client.local_addr().unwrap(), balancer.port());
            let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {to}\r\n", from.port());
            expected.push((turn, if turn == 0 { line } else { String::new() }));
        }
    }
    let heads = heads.lock().unwrap();
    let beginnings: Vec<_> = heads
        .iter()
        .map(|(on_connection, head)| (*on_connection, head.split_once("GET / ").expect("a request").0.to_owned()))
        .collect();
    assert_eq!(beginnings, expected);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn checks_say_that_they_are_the_balancers_own() {
    for (version, greeting) in [("v1", &b"PROXY UNKNOWN\r\n"[..]), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let backend = listener.local_addr().unwrap().to_string();
        let balancer = Balancer::start(std::slice::from_ref(&backend), &["--upstream-proxy-protocol", version]).await;
        let (mut check, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.expect("a check").unwrap();
        let mut received = Vec::new();
        tokio::time::timeout(PATIENCE, check.read_to_end(&mut received)).await.expect("a close").unwrap();
        assert_eq!(received, greeting);
        assert_eq!(balancer.backend(&backend).await["state"], "ready");
    }
}

/// A server that wants a PROXY header, and answers with the address it was told.
fn haproxy_behind(port: u16) -> String {
    format!(
        "frontend behind\n  mode http\n  bind 127.0.0.1:{port} accept-proxy\n  \
         http-request return status 200 content-type text/plain lf-string \"%ci:%cp\"\n"
    )
}

/// A balancer that sends one.
fn haproxy_in_front(name: &str, port: u16, balancer: u16, sending: &str) -> String {
    format!("listen {name}\n  mode tcp\n  bind 127.0.0.1:{port}\n  server lb 127.0.0.1:{balancer} {sending}\n")
}

/// Runs HAProxy until the handle is dropped.
fn haproxy(name: &str, parts: &[String]) -> Child {
    let common = "defaults\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n";
    let file = e2e::program::scratch_dir().join(name);
    std::fs::write(&file, format!("{common}{}", parts.concat())).unwrap();
    let program = if std::path::Path::new("/usr/sbin/haproxy").exists() { "/usr/sbin/haproxy" } else { "haproxy" };
    let mut command = Command::new(program);
    command.arg("-db").arg("-f").arg(&file).kill_on_drop(true);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    command.spawn().expect("haproxy is installed; `cargo xtask test` sees to it")
}

async fn listening(port: u16) {
    let open = async || TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop);
    e2e::eventually(&format!("something listens on {port}"), open).await;
}

#[tokio::test]
async fn haproxy_in_front_and_behind_understand_and_are_understood() {
    let behind = free_port();
    let _behind = haproxy("behind.cfg", &[haproxy_behind(behind)]);
    listening(behind).await;
    for version in ["v1", "v2"] {
        let args = [&FROM_HERE[..], &["--upstream-proxy-protocol", version]].concat();
        let balancer = Balancer::start(&[format!("127.0.0.1:{behind}")], &args).await;
        let (first, second) = (free_port(), free_port());
        let parts = [
            haproxy_in_front("first", first, balancer.port(), "send-proxy"),
            haproxy_in_front("second", second, balancer.port(), "send-proxy-v2"),
        ];
        let _front = haproxy(&format!("front-{version}.cfg"), &parts);
        for port in [first, second] {
            listening(port).await;
            let mut client = raw::connect(port).await;
            for _ in 0..3 {
                client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
                let own = client.local_addr().unwrap().to_string();
                let mut answer = raw::read_head(&mut client).await.into_bytes();
                while !answer.ends_with(own.as_bytes()) {
                    let read = tokio::time::timeout(Duration::from_secs(5), client.read_buf(&mut answer)).await;
                    let more = read.is_ok_and(|read| read.is_ok_and(|read| read > 0));
                    assert!(more, "{version}, {port}: no {own} in {}", String::from_utf8_lossy(&answer));
                }
            }
        }
    }
}
