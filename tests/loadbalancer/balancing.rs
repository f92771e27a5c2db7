use std::collections::BTreeMap;

use e2e::http::Client;
use e2e::load::{self, Plan};

use super::*;

async fn served_by(client: &mut Client) -> String {
    client.get("/").await.unwrap().header("x-served-by").unwrap().to_owned()
}

#[tokio::test]
async fn three_thousand_requests_go_to_a_b_c_in_strict_order() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &[]).await;
    // Over several connections, which different workers serve: the order is one for all of them.
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(Client::connect(balancer.port()).await.unwrap());
    }
    let mut counts = BTreeMap::new();
    for number in 0..3000 {
        let name = served_by(&mut clients[number % 6]).await;
        assert_eq!(name, ["a", "b", "c"][number % 3], "request {number}");
        *counts.entry(name).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [1000, 1000, 1000]);
    let status = balancer.status().await;
    let workers: Vec<_> = status["pools"][0]["backends"].as_array().unwrap().iter().collect();
    assert!(workers.iter().all(|row| row["traffic"]["requests_total"] == 1000), "{status}");
}

#[tokio::test]
async fn concurrent_clients_are_spread_evenly() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &[]).await;
    let plan = Plan { port: balancer.port(), connections: 64, requests: 30_000, reconnect: true };
    let tally = load::run(&plan).await;
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    let counts: Vec<u64> = tally.by_server.values().copied().collect();
    let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
    assert!(counts.len() == 3 && most - least <= 64, "{:?}", tally.by_server);
}

#[tokio::test]
async fn weights_are_exact_and_smooth() {
    let (_servers, mut backends) = servers().await;
    backends[0].push_str(",weight=3");
    let balancer = Balancer::start(&backends, &[]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    let mut order = Vec::new();
    for _ in 0..500 {
        order.push(served_by(&mut client).await);
    }
    assert_eq!(order.iter().filter(|name| *name == "a").count(), 300);
    assert!(!order.windows(3).any(|three| three.iter().all(|name| name == "a")), "{:?}", &order[..10]);
}

#[tokio::test]
async fn both_workers_share_the_connections() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &[]).await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::connect(balancer.port()).await.unwrap());
        served_by(clients.last_mut().unwrap()).await;
    }
    // Threads are named worker-0 and worker-1; each of them has done something.
    let task = format!("/proc/{}/task", balancer.program.pid());
    let mut busy = 0;
    for thread in std::fs::read_dir(task).unwrap() {
        let dir = thread.unwrap().path();
        let name = std::fs::read_to_string(dir.join("comm")).unwrap();
        let switches = std::fs::read_to_string(dir.join("status")).unwrap();
        let voluntary = switches.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        let voluntary: u64 = voluntary.unwrap().trim().parse().unwrap();
        busy += u32::from(name.starts_with("worker-") && voluntary > 20);
    }
    assert_eq!(busy, 2);
}
