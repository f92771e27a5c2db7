use e2e::http::{Client, request};
use e2e::origin::Origin;
use tokio::io::AsyncWriteExt;

use super::*;

#[tokio::test]
async fn a_refused_connection_costs_no_user_an_error_whatever_the_method() {
    let (_server, alive) = server("a").await;
    let port = free_port();
    let (mut dying, backend) = server_on("b", port).await;
    // Slow checks: only live traffic can notice.
    let balancer =
        Balancer::start(&[alive, backend], &["--check-interval", "60s", "--check-fast-interval", "60s"]).await;
    dying.kill().await;
    for _ in 0..20 {
        for method in [Method::GET, Method::POST] {
            let answer = http::send(balancer.port(), request(method, "/echo", &[], "x")).await;
            assert_eq!((answer.status.as_u16(), answer.header("x-served-by")), (200, Some("a")));
        }
    }
    let row = balancer.backend("b").await;
    assert_eq!((row["state"].as_str(), row["reason"].as_str()), (Some("down"), Some("connection refused")));
    // Three failed connects were enough; after them nobody tried any more.
    assert_eq!(row["traffic"]["failures_total"], 3, "{row}");
}

#[tokio::test]
async fn a_get_whose_connection_breaks_is_answered_by_another_server() {
    let (_server, alive) = server("a").await;
    let origin = Origin::hanging_up().await;
    let balancer = Balancer::start(&[alive, origin.address()], &[]).await;
    for _ in 0..10 {
        assert_eq!(balancer.get("/").await.header("x-served-by"), Some("a"));
    }
    assert_eq!(origin.requests(), 5);
    let metrics = http::get(balancer.admin_port(), "/metrics").await.text();
    let expected = format!("lb_retries_total{{pool=\"default\",backend=\"{}\"}} 5", origin.address());
    assert!(metrics.contains(&expected), "{metrics}");
}

#[tokio::test]
async fn a_kept_connection_that_the_only_server_closed_is_no_error() {
    // Says keep-alive, and closes after each answer.
    let origin = Origin::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
    let balancer = Balancer::start(&[origin.address()], &["--workers", "1"]).await;
    for _ in 0..200 {
        assert_eq!(balancer.get("/").await.text(), "ok");
        let posted = http::send(balancer.port(), request(Method::POST, "/", &[], "x")).await;
        assert_eq!(posted.status.as_u16(), 200, "{}", posted.text());
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_under_a_get_is_replaced_even_at_the_only_server() {
    // Takes one request per connection, and hangs up when a second one comes: the close cannot be seen beforehand.
    let origin = Origin::start(|seen, mut stream| async move {
        if seen.on_connection > 0 {
            return None;
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?;
        Some(stream)
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--workers", "1"]).await;
    for _ in 0..20 {
        assert_eq!(balancer.get("/").await.text(), "ok");
    }
    assert_eq!(balancer.backend(&origin.address()).await["state"], "ready");
}

#[tokio::test]
async fn retries_are_bounded_by_the_budget() {
    let origin = Origin::hanging_up().await;
    let other = Origin::hanging_up().await;
    let config = e2e::program::scratch_dir().join("budget.toml");
    // With one of them ejected there would be no other to try.
    std::fs::write(&config, "[retry]\nreserve = 10\npercent = 10\n[outlier]\ndetection = false\n").unwrap();
    let file = config.display().to_string();
    let balancer = Balancer::start(&[origin.address(), other.address()], &["--workers", "1", "--config", &file]).await;
    for _ in 0..300 {
        assert_eq!(balancer.get("/").await.status.as_u16(), 502);
    }
    let attempts = origin.requests() + other.requests();
    assert!((330..=360).contains(&attempts), "{attempts} attempts for 300 requests");
    let metrics = http::get(balancer.admin_port(), "/metrics").await.text();
    assert!(!metrics.contains("lb_retries_refused_total{by=\"recent\"} 0\n"), "{metrics}");
}

#[tokio::test]
async fn without_a_ready_server_the_answer_is_503_at_once_and_says_why() {
    let (port, other) = (free_port(), free_port());
    let backends = [format!("127.0.0.1:{port}"), format!("127.0.0.1:{other},name=second")];
    let balancer = Balancer::start(&backends, &[]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    let mut fastest = std::time::Duration::MAX;
    for _ in 0..5 {
        let started = tokio::time::Instant::now();
        let answer = client.get("/some/path?secret=1").await.unwrap();
        fastest = fastest.min(started.elapsed());
        assert_eq!(answer.status.as_u16(), 503);
        assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() >= 1);
        let text = answer.text();
        for expected in [
            "pool default",
            &format!("127.0.0.1:{port} is down: connection refused"),
            &format!("second (127.0.0.1:{other}) is down: connection refused"),
            "request id: ",
            "GET /some/path\n",
        ] {
            assert!(text.contains(expected), "no {expected:?} in {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }
    assert!(fastest < std::time::Duration::from_millis(10), "{fastest:?}");
    assert_eq!(http::get(balancer.admin_port(), "/readyz").await.status.as_u16(), 503);
}

#[tokio::test]
async fn the_detail_can_be_hidden_from_the_public() {
    let port = free_port();
    let balancer = Balancer::start(&[format!("127.0.0.1:{port}")], &["--explain-errors", "false"]).await;
    let text = balancer.get("/").await.text();
    assert!(text.contains("503") && !text.contains(&port.to_string()), "{text}");
}

#[tokio::test]
async fn running_out_of_descriptors_takes_no_backend_down() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &["--workers", "1"]).await;
    for name in ["a", "b", "c"] {
        balancer.wait_for_state(name, "ready").await;
    }
    // The worker has opened what it needs once it has answered; from here on only connections come.
    assert_eq!(balancer.get("/").await.status.as_u16(), 200);
    let pid = balancer.program.pid();
    let mut room = 4;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let mut clients = Vec::new();
    let mut refused = loop {
        // Only the soft limit, so that it can be lifted again.
        limit_descriptors(pid, open + room);
        let mut client = e2e::raw::connect(balancer.port()).await;
        client.write_all(b"GET /delay/30000 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut byte = [0];
        let answered = tokio::time::timeout(std::time::Duration::from_millis(300), client.peek(&mut byte)).await;
        clients.push(client);
        if answered.is_ok() {
            break clients.pop().unwrap();
        }
        // Either it waits for its server, or it was not accepted for want of a descriptor. One more at a time: at last
        // there is exactly one, for a client and for no server behind it.
        assert!(clients.len() < 20, "never out of means; stderr:\n{}", balancer.program.stderr());
        room += 1;
    };
    let refused = e2e::raw::read_to_close(&mut refused, e2e::PATIENCE).await.unwrap_or_default();
    assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("retry-after"), "{refused}");
    assert!(refused.contains("has run out of connections to servers"), "{refused}\n{}", balancer.program.stderr());
    // Checks found no descriptor either, and say nothing about the servers for it.
    let short = || balancer.program.stderr().contains("a check could not be made");
    e2e::eventually("a check is short of descriptors", async || short().then_some(())).await;
    drop(clients);
    limit_descriptors(pid, 1024);
    assert_eq!(balancer.get("/").await.status.as_u16(), 200);
    let status = balancer.status().await;
    let rows = status["pools"][0]["backends"].as_array().unwrap();
    assert!(rows.iter().all(|row| row["state"] == "ready"), "{status}");
    let log = balancer.program.stderr();
    assert!(!log.contains("down: "), "{log}");
    let metrics = http::get(balancer.admin_port(), "/metrics").await.text();
    assert!(!metrics.contains("reason=\"out_of_means\",status=\"503\"} 0\n"), "{metrics}\n{log}");
}

/// Changes the soft limit of descriptors of a running process.
pub(super) fn limit_descriptors(pid: u32, limit: usize) {
    let (pid, limit) = (pid.to_string(), format!("--nofile={limit}:"));
    let done = std::process::Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap();
    assert!(done.success());
}
