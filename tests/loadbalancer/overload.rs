//! Memory that is nearly used up ends in quick 503s, not in the process's death.

use std::time::Duration;

use e2e::origin::Origin;
use e2e::{PATIENCE, raw};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::limits::{ask, is_answered, metric};
use super::*;

/// What the server writes at once: more than any buffer takes.
const BODY: usize = 256 * 1024;

/// A client that never reads its response: it keeps a buffer full.
async fn never_read(port: u16) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(([127, 0, 0, 1], port).into()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    client
}

/// A server with more to say than anybody wants to hear.
async fn talker() -> Origin {
    Origin::start(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await.ok()?;
        let piece = vec![b'x'; BODY];
        while stream.write_all(&piece).await.is_ok() {}
        None
    })
    .await
}

async fn level(balancer: &Balancer) -> String {
    balancer.status().await["overload"]["level"].as_str().expect("a word").to_owned()
}

async fn wait_for_level(balancer: &Balancer, wanted: &str) {
    e2e::eventually(wanted, async || (level(balancer).await == wanted).then_some(())).await;
}

#[tokio::test]
async fn memory_that_is_nearly_used_up_ends_in_quick_503s_and_comes_back() {
    let server = talker().await;
    let balancer = Balancer::start(&[server.address()], &["--memory-limit", "48MiB"]).await;
    let idle = ask(balancer.port(), "/").await;
    assert!(is_answered(&idle, PATIENCE).await);
    drop(idle);
    assert_eq!(level(&balancer).await, "calm");
    let mut hogs = Vec::new();
    let mut kept = raw::connect(balancer.port()).await;
    while level(&balancer).await != "shed" {
        assert!(hogs.len() < 2000, "never too much: {}", balancer.status().await["overload"]);
        for _ in 0..20 {
            hogs.push(never_read(balancer.port()).await);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Both on a new connection, and on one that was there.
    let asked = tokio::time::Instant::now();
    let refused = raw::exchange(balancer.port(), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after: 2\r\n"), "{refused}");
    assert!(refused.contains("the load balancer has too much to do"), "{refused}");
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    if kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {
        // It may have been closed for being idle just now; else it is told.
        let told = raw::read_to_close(&mut kept, PATIENCE).await.unwrap_or_default();
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 503"), "{told}");
    }
    assert!(metric(&balancer, "lb_local_replies_total{reason=\"overloaded\",status=\"503\"}").await >= 1);
    assert_eq!(metric(&balancer, "lb_overload_level{level=\"shed\"}").await, 1);
    let status = balancer.status().await;
    assert!(status["overload"]["reason"].as_str().unwrap().contains("of 48 MiB used"), "{}", status["overload"]);
    assert_eq!(http::get(balancer.admin_port(), "/livez").await.status.as_u16(), 200, "the operator is answered");
    drop(hogs);
    wait_for_level(&balancer, "calm").await;
    let mut client = ask(balancer.port(), "/").await;
    assert!(raw::read_head(&mut client).await.starts_with("HTTP/1.1 200"));
    let events = balancer.status().await["events"].clone();
    let said = |words: &str| events.as_array().unwrap().iter().any(|e| e["message"].as_str().unwrap().contains(words));
    assert!(said("(overload.memory): new requests are answered 503") && said("(overload.memory): over"), "{events}");
}

#[tokio::test]
async fn scarce_memory_closes_what_is_idle_and_nothing_else() {
    let server = talker().await;
    let balancer = Balancer::start(&[server.address()], &["--memory-limit", "24MiB", "--workers", "1"]).await;
    let mut busy = Vec::new();
    let idle = raw::connect(balancer.port()).await;
    while level(&balancer).await == "calm" {
        assert!(busy.len() < 1000, "never scarce: {}", balancer.status().await["overload"]);
        for _ in 0..8 {
            busy.push(never_read(balancer.port()).await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let mut idle = idle;
    let closed = raw::read_to_close(&mut idle, PATIENCE).await.expect("an idle connection is closed");
    assert_eq!(closed, "");
    assert!(is_answered(&busy[0], PATIENCE).await, "a response under way goes on");
}

#[tokio::test]
async fn a_limit_is_found_without_being_told() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &[]).await;
    assert!(metric(&balancer, "lb_memory_limit_bytes").await > 64 << 20);
    assert!(metric(&balancer, "lb_memory_used_bytes").await > 1 << 20);
    let said = || balancer.program.stderr().contains("memory limit");
    e2e::eventually("the log says which", async || said().then_some(())).await;
}
