//! Names, health, metrics, statuses, delays: the short answers.

use std::time::{Duration, Instant};

use e2e::http::{self, Client, request};
use e2e::program::Program;
use e2e::raw;
use hyper::Method;
use tokio::io::AsyncWriteExt;

use super::{metric, server};

#[tokio::test]
async fn any_path_and_method_answers_with_the_name() {
    let (_program, port) = server(&["--name", "alpha"]).await;
    for (method, path, body) in [
        (Method::GET, "/", "alpha GET /\n"),
        (Method::GET, "/favicon.ico", "alpha GET /favicon.ico\n"),
        (Method::POST, "/api/v1/users?q=1", "alpha POST /api/v1/users\n"),
        (Method::DELETE, "/livez/deeper", "alpha DELETE /livez/deeper\n"),
        (Method::OPTIONS, "*", "alpha OPTIONS *\n"),
        (Method::HEAD, "/", ""),
    ] {
        let answer = http::send(port, request(method.clone(), path, &[], "")).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, body), "{method} {path}");
        assert_eq!(answer.header("x-served-by"), Some("alpha"));
    }
    let head = http::send(port, request(Method::HEAD, "/", &[], "")).await;
    assert_eq!(head.header("content-length"), Some("13"), "a HEAD tells the length of what a GET would bring");
}

#[tokio::test]
async fn the_default_answer_is_at_most_200_bytes_in_all_and_stays_so_for_long_paths() {
    let program = Program::start("server", &["--port=0", "--name", "server-8081"], &[]).await;
    let port = program.port("url");
    let answer = raw::exchange(port, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    assert!(answer.replace("connection: close\r\n", "").len() <= 200, "{answer}");
    let long = http::get(port, &format!("/{}", "x".repeat(5000))).await;
    assert_eq!(long.body.len(), 200);
    assert!(long.text().starts_with("server-8081 GET /xxx") && long.text().ends_with("x\n"));
}

#[tokio::test]
async fn every_answer_says_who_served_it() {
    let (_program, port) = server(&["--name", "alpha", "--faults", "none"]).await;
    for path in [
        "/",
        "/livez",
        "/readyz",
        "/healthz",
        "/health",
        "/metrics",
        "/echo",
        "/echo/body",
        "/bytes/1",
        "/delay/0",
        "/status/204",
        "/status/304",
        "/status/503",
        "/stream/1",
        "/sse?n=0",
        "/admin/ready",
        "/admin/x",
        "/admin/faults",
        "/bytes/x",
    ] {
        assert_eq!(http::get(port, path).await.header("x-served-by"), Some("alpha"), "{path}");
    }
}

#[tokio::test]
async fn health_follows_kubernetes_and_readiness_can_be_switched() {
    let (_program, port) = server(&[]).await;
    for path in ["/livez", "/readyz", "/healthz", "/health"] {
        let answer = http::get(port, path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok\n"), "{path}");
        assert_eq!(http::send(port, request(Method::POST, path, &[], "")).await.status, 405, "{path}");
    }
    assert_eq!(metric(port, "server_ready").await, 1.0);
    let verbose = http::get(port, "/readyz?verbose").await.text();
    assert!(verbose.contains("[+]switch ok\n") && verbose.ends_with("readyz check passed\n"), "{verbose}");

    for path in ["/admin/ready", "/admin/not-ready"] {
        let answer = http::get(port, path).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")), "{path}");
    }
    assert_eq!(http::get(port, "/readyz").await.status, 200, "a GET switches nothing");

    let post = async |path| http::send(port, request(Method::POST, path, &[], "")).await.status.as_u16();
    assert_eq!(post("/admin/not-ready").await, 200);
    for path in ["/readyz", "/healthz", "/health"] {
        let answer = http::get(port, path).await;
        assert_eq!(answer.status, 503, "{path}");
        assert_eq!(answer.text(), "not ready: switched off by POST /admin/not-ready\n");
    }
    let verbose = http::get(port, "/readyz?verbose").await;
    assert_eq!(verbose.status, 503);
    assert!(verbose.text().contains("[-]switch failed: switched off"), "{}", verbose.text());
    assert!(verbose.text().ends_with("readyz check failed\n"));
    assert_eq!(http::get(port, "/livez").await.status, 200, "liveness is not readiness");
    assert_eq!(http::get(port, "/").await.status, 200, "a server that is not ready still answers");
    assert_eq!(metric(port, "server_ready").await, 0.0);

    assert_eq!(post("/admin/ready").await, 200);
    assert_eq!(http::get(port, "/readyz").await.status, 200);
}

#[tokio::test]
async fn pages_of_other_sites_cannot_switch_anything() {
    let (_program, port) = server(&["--faults"]).await;
    let foreign = [("sec-fetch-site", "cross-site")];
    for (method, path) in [(Method::POST, "/admin/not-ready"), (Method::PUT, "/admin/faults")] {
        assert_eq!(http::send(port, request(method, path, &foreign, "error=100%")).await.status, 403);
    }
    assert_eq!(http::get(port, "/readyz").await.status, 200);
    let own = [("sec-fetch-site", "same-origin")];
    assert_eq!(http::send(port, request(Method::POST, "/admin/not-ready", &own, "")).await.status, 200);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let (_program, port) = server(&["--name", "alpha"]).await;
    for path in ["/", "/", "/status/302", "/status/404", "/status/404", "/status/404", "/status/500", "/bytes/1000000"]
    {
        http::get(port, path).await;
    }
    let page = http::get(port, "/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for (class, count) in [("2xx", 3), ("3xx", 1), ("4xx", 3), ("5xx", 1), ("aborted", 0)] {
        let line = format!("server_requests_total{{class=\"{class}\"}} {count}\n");
        assert!(page.text().contains(&line), "{line} is not in\n{}", page.text());
    }
    assert!(page.text().contains("server_response_time_seconds_count 8\n"), "{}", page.text());
    assert!(page.text().contains("server_build_info{name=\"alpha\",version="), "{}", page.text());
    assert_eq!(metric(port, "server_requests_in_flight").await, 1.0, "the scrape itself");
    assert_eq!(metric(port, "server_connections_total").await, 11.0);
    assert!(metric(port, "server_sent_bytes_total").await > 1_000_000.0);
    assert!(metric(port, "server_received_bytes_total").await > 200.0);
    assert!(metric(port, "process_resident_memory_bytes").await > 1_000_000.0);
    assert!(metric(port, "process_start_time_seconds").await > 1_600_000_000.0);
    // Every sample belongs to a family that was declared before it.
    let text = page.text();
    let mut declared = Vec::new();
    for line in text.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            declared.push(family.split(' ').next().unwrap());
        } else if !line.starts_with('#') {
            assert!(declared.last().is_some_and(|family| line.starts_with(family)), "{line}");
        }
    }
}

#[tokio::test]
async fn in_flight_lasts_until_the_last_byte_and_a_client_that_leaves_ends_it() {
    let (_program, port) = server(&[]).await;
    let mut stream = raw::connect(port).await;
    stream.write_all(b"GET /stream/1000?pause_ms=1000 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    raw::read_head(&mut stream).await;
    assert_eq!(metric(port, "server_requests_in_flight").await, 2.0, "the head is out, the body is not");
    drop(stream);
    e2e::eventually("the abandoned request ends", async || {
        (metric(port, "server_requests_in_flight").await < 1.5).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_delay_is_waited_for() {
    let (_program, port) = server(&[]).await;
    let began = Instant::now();
    let answer = http::get(port, "/delay/300").await;
    assert_eq!(answer.status, 200);
    let took = began.elapsed();
    assert!((Duration::from_millis(300)..Duration::from_secs(3)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn every_final_status_can_be_had() {
    let (_program, port) = server(&[]).await;
    let mut client = Client::connect(port).await.unwrap();
    for code in 200..=599 {
        let answer = client.get(&format!("/status/{code}")).await.unwrap_or_else(|e| panic!("{code}: {e}"));
        assert_eq!(answer.status.as_u16(), code);
        assert_eq!(answer.body.is_empty(), [204, 205, 304].contains(&code), "{code}");
    }
}

#[tokio::test]
async fn numbers_out_of_bounds_are_refused_with_the_bound() {
    let (_program, port) = server(&[]).await;
    let head = http::send(port, request(Method::HEAD, "/bytes/10737418241", &[], "")).await;
    assert_eq!(head.status, 400, "asked without a body first: the wrong answer would be long");
    for (path, words) in [
        ("/bytes/10737418241", &["n=10737418241", "10737418240"][..]),
        ("/bytes/-1", &["n=-1", "0 to"]),
        ("/bytes/", &["n=", "0 to"]),
        ("/bytes", &["n=", "0 to"]),
        ("/bytes/5/6", &["n=5/6"]),
        ("/delay/60001", &["ms=60001", "60000"]),
        ("/delay/1s", &["ms=1s", "60000"]),
        ("/status/101", &["code=101", "200 to 599", "1xx"]),
        ("/status/199", &["code=199", "200 to 599"]),
        ("/status/600", &["code=600", "200 to 599"]),
        ("/status/ok", &["code=ok", "200 to 599"]),
        ("/stream/10001", &["n=10001", "10000"]),
        ("/stream/1?pause_ms=10001", &["pause_ms=10001", "10000"]),
        ("/sse?n=10001", &["n=10001", "10000"]),
        ("/sse?pause_ms=x", &["pause_ms=x", "10000"]),
    ] {
        let answer = http::get(port, path).await;
        assert_eq!(answer.status, 400, "{path}");
        for word in words {
            assert!(answer.text().contains(word), "{path}: {word:?} is not in {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_tunnel_is_not_promised() {
    let (_program, port) = server(&[]).await;
    let answer = raw::exchange(port, b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\nconnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
}

#[tokio::test]
async fn garbage_gets_400_and_a_close() {
    let (_program, port) = server(&[]).await;
    let answer = raw::exchange(port, b"\x16\x03\x01 what is this\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
}

#[tokio::test]
async fn a_head_that_is_not_complete_in_10_seconds_gets_408_and_a_close() {
    let (_program, port) = server(&["--name", "alpha"]).await;
    let mut stream = raw::connect(port).await;
    let began = Instant::now();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ").await.unwrap();
    let answer = raw::read_to_close(&mut stream, e2e::PATIENCE).await.expect("closed");
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("x-served-by: alpha\r\n"), "{answer:?}");
    let took = began.elapsed().as_secs_f64();
    assert!((9.5..13.0).contains(&took), "{took}");
}
