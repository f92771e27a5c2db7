//! `pool.max_connections`: connections are used again up to it and beyond it, and nobody is forgotten over it.

use std::time::Duration;

use e2e::PATIENCE;
use e2e::http::{Client, request};
use e2e::origin::Origin;
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;

use super::limits::metric;
use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A balancer whose pool may have `most` connections; checks would be connections too, and wait.
async fn limited(name: &str, backends: &[String], most: usize, args: &[&str]) -> Balancer {
    let config = e2e::program::scratch_dir().join(format!("connections-{name}.toml"));
    std::fs::write(&config, format!("[[pool]]\nmax_connections = {most}\n")).unwrap();
    let file = config.display().to_string();
    Balancer::start(backends, &[&["--config", &file][..], args].concat()).await
}

/// A server that takes so long for each answer.
async fn taking(time: Duration) -> Origin {
    Origin::start(move |_, mut stream| async move {
        sleep(time).await;
        stream.write_all(OK).await.ok()?;
        Some(stream)
    })
    .await
}

/// So many clients ask so often each, at the same time; all must be answered.
async fn ask_all(port: u16, clients: usize, requests: usize) {
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(port).await.unwrap();
                for number in 0..requests {
                    let method = if number % 2 == 0 { Method::GET } else { Method::POST };
                    let answer = client.send(request(method, "/", &[], "")).await.unwrap();
                    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
                }
            })
        })
        .collect();
    for client in clients {
        tokio::time::timeout(PATIENCE, client).await.expect("nobody waits for ever").unwrap();
    }
}

#[tokio::test]
async fn at_the_limit_a_connection_is_used_again() {
    let origin = Origin::answering(OK, true).await;
    let balancer = limited("one", &[origin.address()], 1, &["--workers", "1"]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    for _ in 0..20 {
        assert_eq!(client.get("/").await.unwrap().status.as_u16(), 200);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn beyond_the_limit_a_connection_goes_to_who_waits_for_it() {
    let origin = taking(Duration::from_millis(2)).await;
    let balancer = limited("many", &[origin.address()], 4, &["--workers", "1"]).await;
    ask_all(balancer.port(), 16, 25).await;
    assert!(metric(&balancer, "lb_backend_connections_waited_total").await > 100);
    assert!(origin.connections() <= 40, "{} connections for 400 requests, 4 at a time", origin.connections());
    assert!(metric(&balancer, "lb_backend_connections").await <= 4);
}

#[tokio::test]
async fn who_waits_for_another_server_or_on_another_worker_gets_a_turn() {
    for (name, most) in [("single", 1), ("few", 3)] {
        let (a, b) = (taking(Duration::from_millis(2)).await, taking(Duration::from_millis(5)).await);
        let balancer = limited(name, &[a.address(), b.address()], most, &["--workers", "2"]).await;
        ask_all(balancer.port(), 12, 20).await;
        assert_eq!((a.requests(), b.requests()), (120, 120));
        assert_eq!(metric(&balancer, "lb_backend_connections_refused_total").await, 0);
        assert!(metric(&balancer, "lb_backend_connections").await <= most as u64);
    }
}

#[tokio::test]
async fn the_wait_for_a_connection_is_not_the_time_of_the_try() {
    let origin = taking(Duration::from_millis(600)).await;
    let balancer = limited("try", &[origin.address()], 1, &["--workers", "1", "--try-timeout", "900ms"]).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let port = balancer.port();
        clients.push(tokio::spawn(async move { http::send(port, request(Method::POST, "/", &[], "")).await }));
    }
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    }
    let row = balancer.backend(&origin.address()).await;
    assert_eq!(row["traffic"]["failures_total"], 0, "{row}");
}

#[tokio::test]
async fn who_waits_in_vain_is_told_by_what_and_so_is_the_operator() {
    let origin = taking(Duration::from_secs(30)).await;
    let args = ["--workers", "1", "--connect-timeout", "300ms"];
    let balancer = limited("vain", &[origin.address()], 1, &args).await;
    let port = balancer.port();
    let busy = tokio::spawn(async move { http::get(port, "/").await });
    e2e::eventually("the server is busy", async || (origin.requests() == 1).then_some(())).await;
    let answer = balancer.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("1")));
    assert!(answer.text().contains("pool.max_connections"), "{}", answer.text());
    let trusted = format!("lb_local_replies_total{{reason=\"{}\",status=\"503\"}}", "connection_limit");
    assert_eq!(metric(&balancer, &trusted).await, 1);
    assert_eq!(metric(&balancer, "lb_local_replies_total{reason=\"out_of_means\",status=\"503\"}").await, 0);
    let said = async |words: &str| {
        let events = balancer.status().await["events"].clone();
        events.as_array().unwrap().iter().any(|event| event["message"].as_str().unwrap().contains(words))
    };
    let told = async || said("pool.max_connections is reached").await.then_some(());
    e2e::eventually("the list of events says so", told).await;
    assert!(!said("descriptors, ports or memory are used up").await);
    busy.abort();
}

#[tokio::test]
async fn a_request_whose_own_time_passes_while_it_waits_is_none_that_was_refused() {
    let origin = taking(Duration::from_secs(30)).await;
    let args = ["--workers", "1", "--request-timeout", "400ms"];
    let balancer = limited("overdue", &[origin.address()], 1, &args).await;
    let port = balancer.port();
    let busy = tokio::spawn(async move { http::get(port, "/").await });
    e2e::eventually("the server is busy", async || (origin.requests() == 1).then_some(())).await;
    // Before the first is over, so that this one waits for all of its time.
    let port = balancer.port();
    let waiting: Vec<_> = (0..3).map(|_| tokio::spawn(async move { http::get(port, "/").await })).collect();
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().status.as_u16(), 504);
    }
    assert_eq!(metric(&balancer, "lb_backend_connections_refused_total").await, 0);
    busy.abort();
}
