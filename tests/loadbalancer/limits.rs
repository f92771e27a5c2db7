//! How many clients come in, what happens to the others, and who is still answered when means run out.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use e2e::http::Client;
use e2e::origin::Origin;
use e2e::{PATIENCE, raw};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use super::failover::limit_descriptors;
use super::*;

/// Long enough for an answer that is not held back, short enough to wait for nothing.
const MOMENT: Duration = Duration::from_millis(300);

pub(super) async fn ask(port: u16, path: &str) -> TcpStream {
    let mut client = raw::connect(port).await;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    client.write_all(request.as_bytes()).await.expect("a request fits into the socket's buffer");
    client
}

/// Whether bytes of an answer come within `patience`.
pub(super) async fn is_answered(client: &TcpStream, patience: Duration) -> bool {
    matches!(tokio::time::timeout(patience, client.peek(&mut [0])).await, Ok(Ok(1)))
}

/// So many clients that have had an answer, and have asked for nothing since for long enough to be at rest.
async fn at_rest(balancer: &Balancer, count: usize) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let client = ask(balancer.port(), "/").await;
        assert!(is_answered(&client, PATIENCE).await);
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    clients
}

/// Processor time used so far, in hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
    let field = |at: usize| fields.split_whitespace().nth(at).and_then(|text| text.parse::<u64>().ok());
    field(11).expect("utime") + field(12).expect("stime")
}

/// Asserts that the process uses less than 5 % of a core over one second.
async fn assert_at_rest(balancer: &Balancer) {
    let before = ticks(balancer.program.pid());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = ticks(balancer.program.pid()) - before;
    assert!(used < 5, "{used} ticks of 100 while nothing can be done");
}

pub(super) async fn metric(balancer: &Balancer, name: &str) -> u64 {
    let page = http::get(balancer.admin_port(), "/metrics").await.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {page}"))
}

/// The lowest descriptor that is not in use: with this as the limit, none can be had.
fn first_free(pid: u32) -> usize {
    (0..).find(|fd| std::fs::symlink_metadata(format!("/proc/{pid}/fd/{fd}")).is_err()).expect("numbers do not end")
}

#[tokio::test]
async fn beyond_the_limit_clients_wait_at_no_cost_and_come_in_when_others_leave() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--max-connections", "4"]).await;
    // Answered, and not idle for a long time: an idle client would make room.
    let busy = "/stream/10?pause_ms=10000";
    assert_eq!(metric(&balancer, "lb_connections_limit").await, 4);
    let mut inside = Vec::new();
    for _ in 0..4 {
        let client = ask(balancer.port(), busy).await;
        assert!(is_answered(&client, PATIENCE).await);
        inside.push(client);
    }
    let mut outside = Vec::new();
    for _ in 0..6 {
        outside.push(ask(balancer.port(), busy).await);
    }
    assert!(!is_answered(&outside[0], MOMENT).await, "a fifth connection of four");
    assert_at_rest(&balancer).await;
    assert_eq!(metric(&balancer, "lb_accept_paused{reason=\"connections\"}").await, 1);
    // Each that leaves lets one in, in the order they came.
    for client in outside {
        drop(inside.remove(0));
        assert!(is_answered(&client, PATIENCE).await);
        assert_eq!(metric(&balancer, "lb_connections").await, 4);
        inside.push(client);
    }
    drop(inside);
    assert_eq!(balancer.get("/").await.status.as_u16(), 200);
    e2e::eventually("nobody waits", async || {
        (metric(&balancer, "lb_accept_paused{reason=\"connections\"}").await == 0).then_some(())
    })
    .await;
    // One episode, or few on a slow machine, however often a place was freed and taken in it; each said once.
    let episodes = metric(&balancer, "lb_accept_paused_total{reason=\"connections\"}").await;
    assert!((1..=3).contains(&episodes), "{episodes} episodes");
    let said = || balancer.program.stderr().matches("accepting pauses, clients wait: ").count() as u64;
    e2e::eventually("each is in the log", async || (said() == episodes).then_some(())).await;
}

#[tokio::test]
async fn idle_clients_make_room_for_those_who_wait_and_for_nobody_else() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--max-connections", "12"]).await;
    let closed = async || metric(&balancer, "lb_idle_closed_early_total{reason=\"connections\"}").await;
    let busy = ask(balancer.port(), "/stream/10?pause_ms=10000").await;
    let _idle = at_rest(&balancer, 11).await;
    assert_eq!((metric(&balancer, "lb_connections").await, closed().await), (12, 0), "a full house is no reason");
    let began = tokio::time::Instant::now();
    let first = ask(balancer.port(), "/").await;
    assert!(is_answered(&first, PATIENCE).await, "one that comes late");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!((1..=4).contains(&closed().await), "one, or what was under way: {}", closed().await);
    let mut rush = Vec::new();
    for _ in 0..5 {
        rush.push(ask(balancer.port(), "/stream/10?pause_ms=10000").await);
    }
    for client in &rush {
        assert!(is_answered(client, PATIENCE).await);
    }
    assert!(is_answered(&busy, PATIENCE).await, "who is served stays");
    let said =
        async || balancer.status().await["events"].to_string().contains("idle ones are closed for them").then_some(());
    e2e::eventually("the list of events says so", said).await;
}

#[tokio::test]
async fn idle_clients_make_room_also_where_others_come_and_go_all_the_time() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--max-connections", "12", "--workers", "1"]).await;
    let _idle = at_rest(&balancer, 8).await;
    // More than there are places, so that some wait at any time, and none of them for long.
    let mut coming = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let port = balancer.port();
        coming.spawn(async move {
            loop {
                let mut client = raw::connect(port).await;
                let request = b"GET /delay/10 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
                if client.write_all(request).await.is_ok() {
                    let _ = raw::read_to_close(&mut client, PATIENCE).await;
                }
            }
        });
    }
    let closed = async || metric(&balancer, "lb_idle_closed_early_total{reason=\"connections\"}").await;
    e2e::eventually("all that are idle have made room", async || (closed().await == 8).then_some(())).await;
}

#[tokio::test]
async fn who_waits_for_a_place_when_the_balancer_shuts_down_is_answered() {
    let (_server, backend) = server("a").await;
    let mut balancer = Balancer::start(&[backend], &["--max-connections", "1"]).await;
    let inside = ask(balancer.port(), "/delay/1000").await;
    e2e::eventually("it is inside", async || (metric(&balancer, "lb_connections").await == 1).then_some(())).await;
    let mut outside = ask(balancer.port(), "/").await;
    balancer.program.signal("TERM");
    let answer = raw::read_to_close(&mut outside, PATIENCE).await.expect("the connection is closed after the answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    assert!(is_answered(&inside, PATIENCE).await);
    assert!(balancer.program.wait(PATIENCE).await.success());
}

#[tokio::test]
async fn the_soft_limit_is_raised_and_shared_out_so_that_no_request_lacks_a_connection() {
    let (_server, backend) = server("a").await;
    let script = e2e::program::scratch_dir().join("few-descriptors.sh");
    let program = e2e::program::bin_dir().join("loadbalancer");
    let lines = format!("#!/bin/sh\nulimit -S -n 100\nulimit -H -n 240\nexec {} \"$@\"\n", program.display());
    std::fs::write(&script, lines).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    let args = ["--port", "0", "--admin-port", "0", "--workers", "2", "--backend", &backend];
    let script = script.display().to_string();
    let balancer = Balancer { program: Program::start(&script, &args, &[("ADMIN_TOKEN", TOKEN)]).await };
    assert_eq!(metric(&balancer, "process_max_fds").await, 240);
    // Half is the reserve's under so small a limit, and half of the rest is for clients.
    assert_eq!(metric(&balancer, "lb_connections_limit").await, 60);
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(ask(balancer.port(), "/delay/1500").await);
    }
    e2e::eventually("all places are taken", async || (metric(&balancer, "lb_connections").await == 60).then_some(()))
        .await;
    assert_eq!(balancer.status().await["pools"][0]["backends"][0]["state"], "ready");
    for (answered, mut client) in clients.into_iter().enumerate() {
        let head = raw::read_head(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 200"), "after {answered}: {head}");
    }
    assert_eq!(metric(&balancer, "lb_local_replies_total{reason=\"out_of_means\",status=\"503\"}").await, 0);
}

#[tokio::test]
async fn a_limit_that_cannot_be_carried_is_lowered_and_said() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--max-connections", "10000000"]).await;
    assert!(metric(&balancer, "lb_connections_limit").await < 10_000_000);
    let said = || balancer.program.stderr().contains("limits.connections is 10000000, but a limit of");
    e2e::eventually("the log says so", async || said().then_some(())).await;
}

#[tokio::test]
async fn without_descriptors_accepting_pauses_at_no_cost_and_the_operator_is_answered() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &[]).await;
    for name in ["a", "b", "c"] {
        balancer.wait_for_state(name, "ready").await;
    }
    let pid = balancer.program.pid();
    limit_descriptors(pid, first_free(pid) + 6);
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(ask(balancer.port(), "/delay/3000").await);
    }
    let paused = "lb_accept_paused_total{reason=\"descriptors\"}";
    e2e::eventually("accepting pauses", async || (metric(&balancer, paused).await > 0).then_some(())).await;
    limit_descriptors(pid, first_free(pid));
    assert_at_rest(&balancer).await;
    for path in ["/livez", "/readyz", "/metrics"] {
        let answer = tokio::time::timeout(PATIENCE, http::get(balancer.admin_port(), path)).await;
        let answer = answer.unwrap_or_else(|_| panic!("nobody answers {path}"));
        assert_eq!(answer.status.as_u16(), 200, "{path}: {}", answer.text());
    }
    let status = balancer.status().await;
    let rows = status["pools"][0]["backends"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["state"] == "ready"), "{status}");
    limit_descriptors(pid, 1024);
    for client in &mut clients {
        let head = raw::read_head(client).await;
        assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 503"), "{head}");
    }
    assert_eq!(balancer.get("/").await.status.as_u16(), 200);
}

#[tokio::test]
async fn idle_connections_to_servers_make_room_for_one_that_is_needed() {
    let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    let (a, b) = (Origin::answering(ok, true).await, Origin::answering(ok, true).await);
    let c = Origin::answering(ok, true).await;
    let slow = ["--workers", "1", "--check-interval", "60s", "--check-fast-interval", "60s"];
    let balancer = Balancer::start(&[a.address(), b.address(), c.address()], &slow).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("/").await.unwrap().status.as_u16(), 200);
    }
    limit_descriptors(balancer.program.pid(), first_free(balancer.program.pid()));
    for _ in 0..3 {
        let answer = client.get("/").await.unwrap();
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    }
    // The third request found no descriptor; those kept for the first two servers were given up for it.
    assert_eq!((a.connections(), b.connections(), c.connections()), (2, 2, 1));
}

#[tokio::test]
async fn one_client_has_only_so_many_connections() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &["--max-connections-per-client", "2"]).await;
    let first = ask(balancer.port(), "/").await;
    let second = ask(balancer.port(), "/").await;
    assert!(is_answered(&first, PATIENCE).await && is_answered(&second, PATIENCE).await);
    // Nothing was asked yet, and nothing needs to be. Often: it must not depend on what the runtime has heard of a
    // socket so new.
    for _ in 0..100 {
        let mut third = raw::connect(balancer.port()).await;
        let refused = raw::read_to_close(&mut third, PATIENCE).await.expect("a refused connection is closed");
        let reply = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: ";
        assert!(refused.starts_with(reply), "{refused:?}");
    }
    // Nor does a request on the way lose the reply.
    let mut third = ask(balancer.port(), "/").await;
    assert!(raw::read_head(&mut third).await.starts_with("HTTP/1.1 429"));
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    let mut other = elsewhere.connect(([127, 0, 0, 1], balancer.port()).into()).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(raw::read_head(&mut other).await.starts_with("HTTP/1.1 200"));
    let rejected = "lb_rejected_total{reason=\"client_connections\",status=\"429\"}";
    assert_eq!(metric(&balancer, rejected).await, 101);
    drop((first, third));
    e2e::eventually("a place is free again", async || {
        let mut next = ask(balancer.port(), "/").await;
        raw::read_head(&mut next).await.starts_with("HTTP/1.1 200").then_some(())
    })
    .await;
}

#[tokio::test]
async fn clients_that_were_turned_away_do_not_keep_the_places_of_others() {
    let (_server, backend) = server("a").await;
    let args = ["--max-connections-per-client", "1", "--max-connections", "200", "--workers", "1"];
    let balancer = Balancer::start(&[backend], &args).await;
    let first = ask(balancer.port(), "/").await;
    assert!(is_answered(&first, PATIENCE).await);
    // They read their reply, and hang on.
    let mut hanging = Vec::new();
    for _ in 0..150 {
        let client = raw::connect(balancer.port()).await;
        assert!(is_answered(&client, PATIENCE).await);
        hanging.push(client);
    }
    let open = metric(&balancer, "lb_connections").await;
    assert!(open <= 65, "{open} of 1 that is served and 64 that linger");
}

#[tokio::test]
async fn a_trusted_proxy_may_have_any_number_of_connections() {
    let (_server, backend) = server("a").await;
    let args = ["--max-connections-per-client", "1", "--trusted-proxy", "127.0.0.0/8"];
    let balancer = Balancer::start(&[backend], &args).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = ask(balancer.port(), "/").await;
        assert!(raw::read_head(&mut client).await.starts_with("HTTP/1.1 200"));
        clients.push(client);
    }
}
