//! How requests are shared out when turns are not the rule.

use std::collections::HashMap;
use std::time::Duration;

use e2e::http::Client;
use e2e::origin::Origin;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;

use super::*;

const LEAST: [&str; 2] = ["--policy", "least_requests"];

/// Answers `status` to each request, after `time`.
async fn taking(time: Duration, status: &'static str) -> Origin {
    Origin::start(move |_, mut stream| async move {
        tokio::time::sleep(time).await;
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
        stream.write_all(answer.as_bytes()).await.is_ok().then_some(stream)
    })
    .await
}

/// The share of requests that the last of `origins` gets from `clients` that ask one after the other for a while.
async fn share_of_last(balancer: &Balancer, origins: &[Origin], clients: usize) -> f64 {
    let (port, until) = (balancer.port(), Instant::now() + Duration::from_secs(2));
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(port).await.unwrap();
                while Instant::now() < until {
                    client.get("/").await.unwrap();
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let requests: Vec<usize> = origins.iter().map(Origin::requests).collect();
    assert!(requests[0] > 100, "{requests:?}");
    *requests.last().unwrap() as f64 / requests.iter().sum::<usize>() as f64
}

#[tokio::test]
async fn a_slow_server_gets_hardly_any_few_or_its_turns_as_the_policy_says() {
    let peak = ["--policy", "peak_ewma"];
    for (args, shares) in [(&peak[..], 0.0..0.02), (&LEAST, 0.0..0.15), (&[], 0.3..0.36)] {
        let fast = Duration::from_millis(5);
        let origins = [taking(fast, "200 OK").await, taking(fast, "200 OK").await, taking(fast * 20, "200 OK").await];
        let addresses = origins.each_ref().map(Origin::address);
        let balancer = Balancer::start(&addresses, args).await;
        let share = share_of_last(&balancer, &origins, 24).await;
        assert!(shares.contains(&share), "{args:?}: {share}");
    }
}

#[tokio::test]
async fn a_server_that_fails_fast_attracts_nothing_though_nobody_ejects_it() {
    let cases = [("least_requests", "503 Broken"), ("least_requests", "500 Broken"), ("peak_ewma", "429 Busy")];
    for (policy, status) in cases {
        let honest = Duration::from_millis(20);
        let origins =
            [taking(honest, "200 OK").await, taking(honest, "200 OK").await, taking(Duration::ZERO, status).await];
        let addresses = origins.each_ref().map(Origin::address);
        let balancer = Balancer::start(&addresses, &["--policy", policy, "--outlier-detection", "false"]).await;
        let share = share_of_last(&balancer, &origins, 12).await;
        assert!(share < 1.0 / 3.0, "{policy}, {status}: {share}");
        let page = http::get(balancer.admin_port(), "/metrics").await.text();
        let weighs =
            page.lines().filter_map(|line| line.strip_prefix("lb_backend_failure_load{pool=\"default\",backend=\""));
        let weighs: HashMap<&str, f64> = weighs
            .filter_map(|line| line.split_once("\"} "))
            .map(|(name, load)| (name, load.parse().unwrap()))
            .collect();
        assert!(weighs[&*addresses[2]] > 0.0 && weighs[&*addresses[0]] == 0.0, "{weighs:?}");
        let faded = async || {
            let page = http::get(balancer.admin_port(), "/metrics").await.text();
            page.contains(&format!("backend=\"{}\"}} 0\n", addresses[2])).then_some(())
        };
        e2e::eventually("it is forgotten", faded).await;
    }
}

#[tokio::test]
async fn a_starting_server_gets_its_tenth_with_least_requests_too() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &[&LEAST[..], &["--slow-start", "1h"]].concat()).await;
    assert_eq!(balancer.status().await["pools"][0]["policy"], "least_requests");
    balancer.set_state("b", "drain").await;
    balancer.set_state("b", "ready").await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    let mut to_b = 0;
    for _ in 0..2100 {
        to_b += u32::from(client.get("/").await.unwrap().header("x-served-by") == Some("b"));
    }
    // A twenty-first of them, with seven standard deviations.
    assert!((30..=170).contains(&to_b), "{to_b}");
}
