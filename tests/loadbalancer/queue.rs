//! Limits of what is under way: who is passed over, who waits, in which order, and what becomes of those that cannot.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::PATIENCE;
use e2e::http::Client;
use e2e::origin::Origin;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::limits::{ask, is_answered, metric};
use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A server that answers a request for each permit it is given, and notes what it was asked, in order.
struct Held {
    origin: Origin,
    permits: Arc<Semaphore>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Held {
    async fn start() -> Self {
        let (permits, seen) = (Arc::new(Semaphore::new(0)), Arc::<Mutex<Vec<String>>>::default());
        let (held, noted) = (Arc::clone(&permits), Arc::clone(&seen));
        let origin = Origin::start(move |request, mut stream| {
            let path = request.head.split(' ').nth(1).unwrap_or_default().to_owned();
            noted.lock().unwrap().push(path);
            let held = Arc::clone(&held);
            async move {
                held.acquire().await.ok()?.forget();
                stream.write_all(OK).await.ok()?;
                Some(stream)
            }
        })
        .await;
        Self { origin, permits, seen }
    }

    fn let_go(&self) {
        self.permits.add_permits(1);
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    async fn wait_for(&self, requests: usize) {
        e2e::eventually("the server has been asked", async || (self.seen().len() == requests).then_some(())).await;
    }
}

/// A balancer with this file.
async fn limited(name: &str, backends: &[String], text: &str, args: &[&str]) -> Balancer {
    let config = e2e::program::scratch_dir().join(format!("queue-{name}.toml"));
    std::fs::write(&config, text).unwrap();
    let file = config.display().to_string();
    Balancer::start(backends, &[&["--config", &file][..], args].concat()).await
}

async fn queue(balancer: &Balancer) -> Value {
    balancer.status().await["pools"][0]["queue"].clone()
}

async fn wait_until_waiting(balancer: &Balancer, count: u64) {
    e2e::eventually(&format!("{count} wait"), async || (queue(balancer).await["waiting"] == count).then_some(())).await;
}

/// A whole answer to `client`: head, and a body as long as it says.
async fn reply(client: &mut TcpStream) -> String {
    let read = async {
        let mut text = String::new();
        let mut byte = [0];
        loop {
            client.read_exact(&mut byte).await.expect("the answer goes on");
            text.push(char::from(byte[0]));
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length =
                head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer comes")
}

fn in_flight(status: &Value) -> u64 {
    status["pools"][0]["traffic"]["in_flight"].as_u64().expect("a number")
}

async fn local_replies(balancer: &Balancer, reason: &str, status: u16) -> u64 {
    metric(balancer, &format!("lb_local_replies_total{{reason=\"{reason}\",status=\"{status}\"}}")).await
}

#[tokio::test]
async fn a_freed_place_serves_whoever_has_waited_longest() {
    let server = Held::start().await;
    let args = ["--max-requests-per-backend", "1"];
    let text = "[queue]\ntimeout = \"60s\"\n";
    let balancer = limited("order", &[server.origin.address()], text, &args).await;
    let mut clients = vec![ask(balancer.port(), "/0").await];
    server.wait_for(1).await;
    for number in 1..=6 {
        clients.push(ask(balancer.port(), &format!("/{number}")).await);
        wait_until_waiting(&balancer, number).await;
    }
    let shown = queue(&balancer).await;
    assert_eq!((&shown["max_requests_per_backend"], &shown["queued_total"]), (&1.into(), &6.into()), "{shown}");
    assert_eq!(metric(&balancer, "lb_queue_waiting{pool=\"default\"}").await, 6);
    e2e::eventually("the first has waited", async || {
        (queue(&balancer).await["longest_wait_ms"].as_u64().unwrap() >= 200).then_some(())
    })
    .await;
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(server.seen().len(), number + 1, "one at a time");
        server.let_go();
        assert!(reply(client).await.ends_with("ok"));
        if number < 6 {
            server.wait_for(number + 2).await;
        }
    }
    assert_eq!(server.seen(), ["/0", "/1", "/2", "/3", "/4", "/5", "/6"]);
    let status = balancer.status().await;
    assert_eq!((in_flight(&status), &queue(&balancer).await["waiting"]), (0, &0.into()));
    assert_eq!(metric(&balancer, "lb_queue_wait_seconds_count").await, 6);
}

#[tokio::test]
async fn a_full_server_is_passed_over() {
    let (slow, quick) = (Held::start().await, Origin::answering(OK, true).await);
    let args = ["--max-requests-per-backend", "1"];
    let balancer = Balancer::start(&[slow.origin.address(), quick.address()], &args).await;
    let mut stuck = ask(balancer.port(), "/stuck").await;
    slow.wait_for(1).await;
    for _ in 0..50 {
        assert_eq!(balancer.get("/").await.status.as_u16(), 200);
    }
    assert_eq!((slow.seen().len(), quick.requests()), (1, 50));
    slow.let_go();
    assert!(reply(&mut stuck).await.ends_with("ok"));
}

#[tokio::test]
async fn beyond_the_queue_the_answer_is_503_at_once_and_after_its_timeout_too() {
    let server = Held::start().await;
    let text = "[queue]\nlength = 1\ntimeout = \"1500ms\"\n[[pool]]\nmax_requests = 1\n";
    let balancer = limited("full", &[server.origin.address()], text, &[]).await;
    let mut first = ask(balancer.port(), "/0").await;
    server.wait_for(1).await;
    let begun = tokio::time::Instant::now();
    let mut second = ask(balancer.port(), "/1").await;
    wait_until_waiting(&balancer, 1).await;
    let refused = balancer.get("/2").await;
    assert!(begun.elapsed() < Duration::from_millis(1400), "at once");
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("2")));
    let text = refused.text();
    assert!(text.contains("the servers have as much to do as they may") && text.contains("queue.length = 1"), "{text}");
    let late = reply(&mut second).await;
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert!(late.starts_with("HTTP/1.1 503") && late.contains("queue.timeout = 1.5s"), "{late}");
    assert!(late.to_ascii_lowercase().contains("retry-after: 2\r\n"), "{late}");
    assert_eq!(local_replies(&balancer, "queue_full", 503).await, 1);
    assert_eq!(local_replies(&balancer, "queue_timeout", 503).await, 1);
    // Their connections go on.
    second.write_all(b"GET /3 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    wait_until_waiting(&balancer, 1).await;
    server.let_go();
    server.let_go();
    assert!(reply(&mut first).await.ends_with("ok") && reply(&mut second).await.ends_with("ok"));
    e2e::eventually("the event list says so", async || {
        let status = balancer.status().await;
        let said = |event: &Value| event["message"].as_str().is_some_and(|words| words.contains("the pool is full"));
        status["events"].as_array().unwrap().iter().any(said).then_some(())
    })
    .await;
    assert_eq!(queue(&balancer).await["refused_total"], 2);
}

#[tokio::test]
async fn clients_that_left_are_dropped_from_the_queue() {
    let server = Held::start().await;
    let args = ["--max-requests", "1", "--abort-on-close", "true"];
    let text = "[queue]\ntimeout = \"60s\"\n";
    let balancer = limited("left", &[server.origin.address()], text, &args).await;
    let mut first = ask(balancer.port(), "/first").await;
    server.wait_for(1).await;
    let reset = ask(balancer.port(), "/reset").await;
    wait_until_waiting(&balancer, 1).await;
    let closed = ask(balancer.port(), "/closed").await;
    wait_until_waiting(&balancer, 2).await;
    let mut last = ask(balancer.port(), "/last").await;
    wait_until_waiting(&balancer, 3).await;
    socket2::SockRef::from(&reset).set_linger(Some(Duration::ZERO)).unwrap();
    drop((reset, closed));
    wait_until_waiting(&balancer, 1).await;
    server.let_go();
    assert!(reply(&mut first).await.ends_with("ok"));
    server.let_go();
    assert!(reply(&mut last).await.ends_with("ok"));
    assert_eq!(server.seen(), ["/first", "/last"]);
    assert_eq!(in_flight(&balancer.status().await), 0);
}

#[tokio::test]
async fn who_waits_for_servers_that_go_down_is_told_at_once_and_who_waits_when_one_comes_is_served() {
    let (port, server) = (free_port(), Held::start().await);
    let backends = [format!("{},name=held", server.origin.address()), format!("127.0.0.1:{port},name=late")];
    let text = "[queue]\ntimeout = \"60s\"\n";
    let balancer = limited("down", &backends, text, &["--max-requests-per-backend", "1"]).await;
    balancer.wait_for_state("late", "down").await;
    let _stuck = ask(balancer.port(), "/stuck").await;
    server.wait_for(1).await;
    let mut waiting = ask(balancer.port(), "/").await;
    wait_until_waiting(&balancer, 1).await;
    let (late, _) = server_on("late", port).await;
    assert!(reply(&mut waiting).await.starts_with("HTTP/1.1 200"), "the new server has room");
    let _busy = ask(balancer.port(), "/delay/30000").await;
    e2e::eventually("both are full", async || (in_flight(&balancer.status().await) == 2).then_some(())).await;
    let mut waiting = ask(balancer.port(), "/").await;
    wait_until_waiting(&balancer, 1).await;
    balancer.set_state("held", "maintenance").await;
    assert!(!is_answered(&waiting, Duration::from_millis(300)).await);
    balancer.set_state("late", "drain").await;
    let told = reply(&mut waiting).await;
    assert!(told.starts_with("HTTP/1.1 503") && told.contains("none of 2 backends is ready"), "{told}");
    drop(late);
}

#[tokio::test]
async fn under_load_no_server_has_more_than_it_may_and_everybody_is_served() {
    let (mut origins, mut most) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (now, peak) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        most.push(Arc::clone(&peak));
        let origin = Origin::start(move |_, mut stream| {
            let (now, peak) = (Arc::clone(&now), Arc::clone(&peak));
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                stream.write_all(OK).await.ok()?;
                Some(stream)
            }
        });
        origins.push(origin.await);
    }
    let backends: Vec<_> = origins.iter().map(Origin::address).collect();
    let text = "[queue]\ntimeout = \"60s\"\n";
    let balancer = limited("load", &backends, text, &["--max-requests-per-backend", "2", "--max-requests", "5"]).await;
    let port = balancer.port();
    let clients: Vec<_> = (0..32)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(port).await.unwrap();
                for _ in 0..40 {
                    assert_eq!(client.get("/").await.unwrap().status.as_u16(), 200);
                }
            })
        })
        .collect();
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await.expect("nobody waits for ever").unwrap();
    }
    let peaks: Vec<_> = most.iter().map(|peak| peak.load(Ordering::SeqCst)).collect();
    assert!(peaks.iter().all(|peak| *peak <= 2), "{peaks:?}");
    assert_eq!(origins.iter().map(Origin::requests).sum::<usize>(), 32 * 40);
    assert_eq!((in_flight(&balancer.status().await), &queue(&balancer).await["waiting"]), (0, &0.into()));
    assert!(queue(&balancer).await["queued_total"].as_u64().unwrap() > 100);
}

#[tokio::test]
async fn a_pool_has_only_so_many_connections_and_who_needs_one_more_waits_for_it() {
    let (held, other) = (Held::start().await, Origin::answering(OK, true).await);
    let text = "[[pool]]\nmax_connections = 1\n[timeouts]\nconnect = \"1s\"\n";
    let backends = [format!("{},name=held", held.origin.address()), format!("{},name=other", other.address())];
    let balancer = limited("connections", &backends, text, &[]).await;
    let mut first = ask(balancer.port(), "/0").await;
    held.wait_for(1).await;
    let mut second = ask(balancer.port(), "/1").await;
    let refused = reply(&mut second).await;
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("pool.max_connections"), "{refused}");
    assert_eq!(metric(&balancer, "lb_backend_connections_refused_total").await, 1);
    second.write_all(b"GET /2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let (_, served) = tokio::join!(
        async {
            e2e::eventually("it waits", async || {
                (metric(&balancer, "lb_backend_connections_waited_total").await == 2).then_some(())
            })
            .await;
            held.let_go();
            held.let_go();
        },
        reply(&mut second)
    );
    assert!(served.starts_with("HTTP/1.1 200"), "{served}");
    assert!(reply(&mut first).await.ends_with("ok"));
    // An idle connection of one worker is not in the way of another's request for long.
    for _ in 0..10 {
        held.let_go();
        assert_eq!(balancer.get("/").await.status.as_u16(), 200);
    }
    assert!(metric(&balancer, "lb_backend_connections").await <= 1);
}
