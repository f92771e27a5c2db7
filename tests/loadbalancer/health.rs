use std::time::Duration;

use tokio::time::Instant;

use super::*;

#[tokio::test]
async fn a_server_that_goes_leaves_and_comes_back_by_itself() {
    let (_a, first) = server("a").await;
    let port = free_port();
    let (mut dying, second) = server_on("b", port).await;
    let balancer = Balancer::start(&[first, second], &["--slow-start", "0s"]).await;
    assert_eq!(balancer.backend("b").await["state"], "ready");
    dying.kill().await;
    let row = balancer.wait_for_state("b", "down").await;
    assert_eq!(
        (row["reason"].as_str(), row["reason_code"].as_str()),
        (Some("connection refused"), Some("connection_refused"))
    );
    assert_eq!((row["in_rotation"].as_bool(), row["check"]["last_passed"].as_bool()), (Some(false), Some(false)));
    assert_eq!(balancer.status().await["pools"][0]["state"], "degraded");
    let (_again, _) = server_on("b", port).await;
    let restarted = Instant::now();
    balancer.wait_for_state("b", "ready").await;
    // rise 2 × interval 200 ms, and a second for slow machines.
    assert!(restarted.elapsed() < Duration::from_millis(1400), "{:?}", restarted.elapsed());
    let names: Vec<String> = [balancer.get("/").await, balancer.get("/").await]
        .iter()
        .map(|answer| answer.header("x-served-by").unwrap().to_owned())
        .collect();
    assert!(names.contains(&"b".to_owned()), "{names:?}");
    let events = balancer.status().await["events"].to_string();
    assert!(events.contains("down: connection refused (3 of 3 checks failed in a row)"), "{events}");
    assert!(events.contains("up: 2 checks in a row passed"), "{events}");
}

#[tokio::test]
async fn the_first_result_counts_at_start() {
    let (_a, first) = server("a").await;
    let dead = format!("127.0.0.1:{},name=dead", free_port());
    let balancer = Balancer::start(&[first, dead], &[]).await;
    // Ready was said after the first checks: nobody is ever sent to the dead one.
    for _ in 0..10 {
        assert_eq!(balancer.get("/").await.header("x-served-by"), Some("a"));
    }
    let row = balancer.backend("dead").await;
    assert_eq!((row["state"].as_str(), row["traffic"]["failures_total"].as_u64()), (Some("down"), Some(0)));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_reported_and_stops_nobody() {
    let (server, _) = server("a").await;
    let by_name = format!("localhost:{},name=named", server.port("url"));
    let lost = "no-such-host.invalid:80,name=lost".to_owned();
    let balancer = Balancer::start(&[by_name, lost], &[]).await;
    for _ in 0..4 {
        assert_eq!(balancer.get("/").await.header("x-served-by"), Some("a"));
    }
    let row = balancer.wait_for_state("lost", "down").await;
    assert_eq!((row["reason_code"].as_str(), row["resolved"].as_str()), (Some("not_resolved"), None));
    assert!(row["reason"].as_str().unwrap().contains("no-such-host.invalid cannot be resolved"), "{row}");
    let tried = row["check"]["failed_total"].as_u64().unwrap();
    e2e::eventually("it is tried again", async || {
        (balancer.backend("lost").await["check"]["failed_total"].as_u64().unwrap() > tried).then_some(())
    })
    .await;
    assert!(balancer.program.stderr().contains("no-such-host.invalid"));
}

#[tokio::test]
async fn checks_are_made_at_their_interval_and_counted() {
    let (_a, first) = server("a").await;
    let balancer = Balancer::start(&[first], &["--check-interval", "100ms", "--check-jitter", "0.1"]).await;
    let passed = async || balancer.backend("a").await["check"]["passed_total"].as_u64().unwrap();
    let (before, started) = (passed().await, Instant::now());
    e2e::eventually("twenty checks", async || (passed().await >= before + 20).then_some(())).await;
    let per_check = started.elapsed() / 20;
    assert!((80..200).contains(&per_check.as_millis()), "{per_check:?} between checks");
}
