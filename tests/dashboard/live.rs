//! What is shown is what is: status, stream, and the load balancer that goes and comes back.

use std::time::{Duration, Instant};

use e2e::http;
use serde_json::Value;

use super::{Events, Setup, WITHIN, alone, balancer, dashboard, find};

#[tokio::test]
async fn the_status_is_the_balancers_own() {
    let setup = Setup::start().await;
    let answer = http::get(setup.port(), "/api/status").await;
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, Some("no-store")));
    let status: lb_core::api::Status = serde_json::from_slice(&answer.body).expect("the contract");
    assert_eq!(status.pid, setup.balancer.pid());
    let names: Vec<&str> = status.pools[0].backends.iter().map(|backend| backend.name.as_str()).collect();
    assert_eq!(names, ["alpha", "beta", "gamma"]);
}

#[tokio::test]
async fn a_browser_gets_how_things_stand_then_a_snapshot_then_deltas_each_second() {
    let setup = Setup::start().await;
    connected(setup.port()).await;
    let mut events = Events::open(setup.port()).await;
    let (name, link) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &link["reachable"]), ("balancer", &Value::Bool(true)));
    assert_eq!(link["url"], setup.balancer.field("admin"));
    let (name, snapshot) = events.next().await.unwrap();
    assert_eq!(name, "snapshot");
    let tick = snapshot["tick"].as_u64().unwrap();
    let began = Instant::now();
    for expected in tick + 1..=tick + 3 {
        let delta = events.until("delta", |_| true).await;
        assert_eq!(delta["tick"].as_u64(), Some(expected), "no tick is missing");
    }
    let took = began.elapsed();
    assert!((Duration::from_millis(1500)..Duration::from_millis(4500)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn traffic_shows_within_two_ticks_in_the_total_and_at_each_backend() {
    let setup = Setup::start().await;
    let mut events = Events::open(setup.port()).await;
    let ready = |status: &Value| ["alpha", "beta", "gamma"].iter().all(|name| find(status, name)["state"] == "ready");
    e2e::eventually("all are ready", async || {
        ready(&http::get(setup.port(), "/api/status").await.json()).then_some(())
    })
    .await;
    let proxy = setup.balancer.port("proxy");
    for _ in 0..30 {
        assert_eq!(http::get(proxy, "/").await.status, 200);
    }
    let seen = events.until("delta", |delta| delta["traffic"]["requests_total"].as_u64() >= Some(30)).await;
    for name in ["alpha", "beta", "gamma"] {
        assert_eq!(find(&seen, name)["traffic"]["requests_total"], 10, "{name}: {seen}");
    }
    assert!(seen["traffic"]["latency"]["p99_ms"].as_f64().unwrap() > 0.0, "{seen}");
}

#[tokio::test]
async fn one_upstream_stream_serves_all_browsers_and_a_slow_one_hinders_nobody() {
    let setup = Setup::start().await;
    connected(setup.port()).await;
    // They read nothing after the head.
    let mut slow = Vec::new();
    for _ in 0..20 {
        slow.push(Events::open(setup.port()).await);
    }
    let mut quick = Events::open(setup.port()).await;
    let mut last = quick.until("snapshot", |_| true).await["tick"].as_u64().unwrap();
    for _ in 0..3 {
        let tick = quick.until("delta", |_| true).await["tick"].as_u64().unwrap();
        assert_eq!(tick, last + 1);
        last = tick;
    }
    let metrics = http::get(setup.port(), "/metrics").await.text();
    assert!(metrics.contains("\ndashboard_browsers 21\n"), "{metrics}");
    let upstream = connections_to(&setup, setup.balancer.port("admin"));
    assert_eq!(upstream, 1, "connections from the dashboard to the admin API");
    drop(slow);
    e2e::eventually("those who left are forgotten", async || {
        http::get(setup.port(), "/metrics").await.text().contains("\ndashboard_browsers 1\n").then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_loss_of_the_balancer_shows_within_three_seconds_and_its_return_by_itself() {
    let mut setup = Setup::start().await;
    connected(setup.port()).await;
    let mut events = Events::open(setup.port()).await;
    let (proxy, admin) = (setup.balancer.port("proxy"), setup.balancer.port("admin"));
    let url = setup.balancer.field("admin").to_owned();
    let first_pid = setup.balancer.pid();

    let killed = Instant::now();
    setup.balancer.kill().await;
    let lost = events.until("balancer", |link| link["reachable"] == false).await;
    assert!(killed.elapsed() < WITHIN, "{:?}", killed.elapsed());
    assert_eq!(lost["url"].as_str(), Some(&*url));
    assert!(lost["retry_in_ms"].as_u64().unwrap() <= 3000, "{lost}");
    let refused = events.until("balancer", |link| link["error"].as_str().is_some_and(|e| e.contains("refused"))).await;
    assert_eq!(refused["since_unix_ms"], lost["since_unix_ms"], "the loss is as old as it is");
    events.until("heartbeat", |_| true).await;

    let answer = http::get(setup.port(), "/api/status").await;
    assert_eq!(answer.status, 502);
    assert!(answer.json()["detail"].as_str().unwrap().contains(&url), "{}", answer.text());
    assert_eq!(http::get(setup.port(), "/readyz").await.status, 200);

    // A new load balancer on the same ports makes a new token; the dashboard must find that too.
    setup.balancer = balancer(&setup.servers, proxy, admin).await;
    events.until("balancer", |link| link["reachable"] == true).await;
    let snapshot = events.until("snapshot", |_| true).await;
    assert_ne!(snapshot["pid"].as_u64(), Some(u64::from(first_pid)));
    assert_eq!(snapshot["pid"].as_u64(), Some(u64::from(setup.balancer.pid())));
    events.until("delta", |_| true).await;
    let metrics = http::get(setup.port(), "/metrics").await.text();
    assert!(metrics.contains("\ndashboard_balancer_losses_total 1\n"), "{metrics}");
}

/// Stopped, not dead: its connections stay open, and the kernel even accepts new ones.
#[tokio::test]
async fn a_balancer_that_hangs_is_noticed_within_three_seconds() {
    let setup = Setup::start().await;
    connected(setup.port()).await;
    let mut events = Events::open(setup.port()).await;
    events.until("delta", |_| true).await;
    setup.balancer.signal("STOP");
    let stopped = Instant::now();
    let lost = events.until("balancer", |link| link["reachable"] == false).await;
    let took = stopped.elapsed();
    setup.balancer.signal("CONT");
    assert!(took < WITHIN, "{took:?}");
    assert_eq!(lost["error"], "no news for 2.5 s");
    events.until("balancer", |link| link["reachable"] == true).await;
}

#[tokio::test]
async fn who_opens_the_page_during_the_loss_sees_the_last_state_and_that_it_is_old() {
    let mut setup = Setup::start().await;
    connected(setup.port()).await;
    setup.balancer.kill().await;
    e2e::eventually("the loss is noticed", async || {
        http::get(setup.port(), "/metrics").await.text().contains("\ndashboard_balancer_up 0\n").then_some(())
    })
    .await;
    let mut events = Events::open(setup.port()).await;
    let (first, link) = events.next().await.unwrap();
    let (second, snapshot) = events.next().await.unwrap();
    assert_eq!((first.as_str(), second.as_str()), ("balancer", "snapshot"));
    assert_eq!(link["reachable"], false);
    assert_eq!(find(&snapshot, "alpha")["name"], "alpha");
}

#[tokio::test]
async fn a_refused_token_is_said_in_words_that_help() {
    let setup = Setup::start().await;
    let stranger = dashboard(setup.balancer.field("admin"), &[], &[("ADMIN_TOKEN", "not-the-token")]).await;
    let mut events = Events::open(stranger.port("url")).await;
    let link = events.until("balancer", |link| !link["error"].is_null()).await;
    let error = link["error"].as_str().unwrap();
    assert!(error.contains("refused the admin token") && error.contains("same ADMIN_TOKEN"), "{error}");
    assert!(!stranger.stderr().contains("not-the-token"), "{}", stranger.stderr());

    let lost = dashboard(setup.balancer.field("admin"), &["--admin-token-file", "/nowhere/token"], &[]).await;
    let mut events = Events::open(lost.port("url")).await;
    let link = events.until("balancer", |link| !link["error"].is_null()).await;
    assert!(link["error"].as_str().unwrap().contains("cannot read the admin token from /nowhere/token"), "{link}");
}

#[tokio::test]
async fn without_a_balancer_there_is_a_heartbeat_at_least_every_two_seconds() {
    let (_program, port) = alone(&[]).await;
    let mut events = Events::open(port).await;
    for _ in 0..4 {
        let next = tokio::time::timeout(Duration::from_secs(2), events.next()).await;
        assert!(matches!(next.expect("within two seconds").unwrap().0.as_str(), "heartbeat" | "balancer"));
    }
}

/// `localhost` is ::1 and 127.0.0.1, and the admin API listens on one of them only.
#[tokio::test]
async fn localhost_is_found_on_whichever_address_it_listens() {
    let setup = Setup::start().await;
    let admin = setup.balancer.port("admin").to_string();
    let args = ["--port", "0", "--load-balancer-url", "http://localhost:8080", "--admin-port", &admin];
    let other = e2e::program::Program::start("dashboard", &args, &[]).await;
    connected(other.port("url")).await;
}

async fn connected(port: u16) {
    e2e::eventually("the load balancer is found", async || {
        http::get(port, "/metrics").await.text().contains("\ndashboard_balancer_up 1\n").then_some(())
    })
    .await;
}

/// Established connections of the dashboard to `port`, by the kernel's own list.
fn connections_to(setup: &Setup, port: u16) -> usize {
    let table = std::fs::read_to_string(format!("/proc/{}/net/tcp", setup.dashboard.pid())).unwrap();
    let remote = format!("0100007F:{port:04X}");
    let established = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.get(2) == Some(&&*remote) && fields.get(3) == Some(&"01")
    };
    table.lines().filter(established).count()
}
