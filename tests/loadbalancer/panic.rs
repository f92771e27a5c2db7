//! Below the panic threshold the pool takes back what it left out on suspicion, and says so.

use e2e::origin::Origin;

use super::ejection::{UNAVAILABLE, metric};
use super::*;

const PANIC: &str = r#"lb_pool_panic{pool="default"}"#;

#[tokio::test]
async fn with_too_few_ready_the_ejected_are_used_again_until_it_is_over() {
    let (_a, first) = server("a").await;
    let port = free_port();
    let (mut dying, second) = server_on("b", port).await;
    let (c, d) = (Origin::answering(UNAVAILABLE, true).await, Origin::answering(UNAVAILABLE, true).await);
    let backends = [first, second, format!("{},name=c", c.address()), format!("{},name=d", d.address())];
    let balancer = Balancer::start(&backends, &["--slow-start", "0s"]).await;
    e2e::eventually("c and d are ejected", async || {
        balancer.get("/").await;
        let (c, d) = (balancer.backend("c").await, balancer.backend("d").await);
        (c["state"] == "ejected" && d["state"] == "ejected").then_some(())
    })
    .await;
    assert_eq!(
        (balancer.status().await["pools"][0]["state"].as_str(), metric(&balancer, PANIC).await),
        (Some("degraded"), 0.0)
    );
    let calm = c.requests() + d.requests();
    dying.kill().await;
    balancer.wait_for_state("b", "down").await;
    let pool = balancer.status().await["pools"][0].clone();
    assert_eq!(pool["state"], "panic", "{pool}");
    let reason = pool["reason"].as_str().unwrap();
    assert!(reason.contains("1 of 4 backends ready, too few: in panic all 3 that take connections"), "{reason}");
    assert_eq!(metric(&balancer, PANIC).await, 1.0);
    // All but the one that refuses are used, evenly.
    let mut from_a = 0;
    for _ in 0..30 {
        from_a += usize::from(balancer.get("/").await.header("x-served-by") == Some("a"));
    }
    assert_eq!((from_a, c.requests() + d.requests()), (10, calm + 20));
    let (b, c_row) = (balancer.backend("b").await, balancer.backend("c").await);
    assert_eq!((&b["in_rotation"], &c_row["in_rotation"]), (&false.into(), &true.into()), "{b} {c_row}");
    let log = balancer.program.stderr();
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains("panic: fewer than 30 %")), "{log}");
    let (_again, _) = server_on("b", port).await;
    balancer.wait_for_state("b", "ready").await;
    assert_ne!(balancer.status().await["pools"][0]["state"], "panic");
    assert_eq!(metric(&balancer, PANIC).await, 0.0);
    assert_eq!(metric(&balancer, r#"lb_pool_panics_total{pool="default"}"#).await, 1.0);
    let events = balancer.status().await["events"].to_string();
    assert!(
        events.contains("panic: fewer than 30 % are ready: 1 of 4") && events.contains("panic is over: "),
        "{events}"
    );
}

#[tokio::test]
async fn when_all_are_refused_there_is_nobody_to_panic_with_and_the_answer_is_quick() {
    let backends: Vec<String> = (0..4).map(|_| format!("127.0.0.1:{}", free_port())).collect();
    let balancer = Balancer::start(&backends, &[]).await;
    let mut client = http::Client::connect(balancer.port()).await.unwrap();
    let mut fastest = std::time::Duration::MAX;
    for _ in 0..10 {
        let started = tokio::time::Instant::now();
        let answer = client.get("/").await.unwrap();
        fastest = fastest.min(started.elapsed());
        assert_eq!((answer.status.as_u16(), answer.header("retry-after").is_some()), (503, true));
    }
    assert!(fastest < std::time::Duration::from_millis(10), "{fastest:?}");
    let pool = balancer.status().await["pools"][0].clone();
    assert_eq!((&pool["state"], metric(&balancer, PANIC).await), (&"down".into(), 0.0));
    assert_eq!(pool["traffic"]["failures_total"], 0, "nobody tried");
}

#[tokio::test]
async fn what_the_operator_took_out_is_not_used_in_panic_and_makes_none() {
    let (_servers, mut backends) = servers().await;
    backends.push(format!("127.0.0.1:{},name=dead", free_port()));
    let balancer = Balancer::start(&backends, &["--panic-threshold", "60"]).await;
    // 3 of 4 are ready.
    assert_eq!(balancer.status().await["pools"][0]["state"], "degraded");
    balancer.set_state("b", "drain").await;
    balancer.set_state("c", "maintenance").await;
    // 1 of 2 wanted is below 60 %.
    assert_eq!(balancer.status().await["pools"][0]["state"], "panic");
    for _ in 0..10 {
        assert_eq!(balancer.get("/").await.header("x-served-by"), Some("a"));
    }
    balancer.set_state("dead", "maintenance").await;
    assert_eq!(balancer.status().await["pools"][0]["state"], "ok");
}
