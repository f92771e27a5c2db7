use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use e2e::http::request;
use e2e::program::scratch_dir;
use e2e::raw;
use lb_core::api::{Delta, Status};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::*;

#[tokio::test]
async fn everything_under_v1_needs_the_token_and_get_changes_nothing() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &[]).await;
    let state = "/v1/pools/default/backends/a/state";
    for (method, path) in
        [(Method::GET, "/v1/status"), (Method::GET, "/v1/stream"), (Method::PUT, state), (Method::GET, "/v1/x")]
    {
        for token in ["", "Bearer", "Bearer 0123456789abcdef0123456789abcdee", "Basic eA==", "Bearer  x"] {
            let sent = request(method.clone(), path, &[("authorization", token)], "{\"state\":\"drain\"}");
            let answer = http::send(balancer.admin_port(), sent).await;
            assert_eq!(
                (answer.status.as_u16(), answer.header("www-authenticate")),
                (401, Some("Bearer")),
                "{path} {token}"
            );
            assert_eq!(answer.header("content-type"), Some("application/problem+json"));
            assert!(!answer.text().contains(TOKEN));
        }
    }
    assert_eq!(balancer.admin(Method::GET, state, "").await.status.as_u16(), 405);
    assert_eq!(balancer.admin(Method::POST, "/v1/status", "").await.status.as_u16(), 405);
    assert_eq!(balancer.backend("a").await["state"], "ready");
    assert!(!balancer.program.stderr().contains(TOKEN));
}

#[tokio::test]
async fn an_operator_takes_a_server_out_and_back() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &["--slow-start", "0s"]).await;
    let served = async || {
        let mut names = Vec::new();
        for _ in 0..6 {
            names.push(balancer.get("/").await.header("x-served-by").unwrap().to_owned());
        }
        names.sort();
        names.concat()
    };
    for (asked, state) in [("drain", "draining"), ("maintenance", "maintenance")] {
        let row = balancer.set_state("b", asked).await;
        assert_eq!(row.status.as_u16(), 200);
        assert_eq!((&row.json()["admin"], &row.json()["state"]), (&Value::from(asked), &Value::from(state)));
        // The answer comes after the change: the very next request knows.
        assert_eq!(served().await, "aaaccc");
        assert!(balancer.backend("b").await["reason"].as_str().unwrap().contains("operator"));
    }
    let checks = async || balancer.backend("b").await["check"]["passed_total"].as_u64().unwrap();
    let paused = checks().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(checks().await, paused, "a server in maintenance is not checked");
    assert_eq!(balancer.set_state("b", "ready").await.status.as_u16(), 200);
    balancer.wait_for_state("b", "ready").await;
    assert_eq!(served().await, "aabbcc");
    let events = balancer.status().await["events"].to_string();
    assert!(events.contains("drain (was ready)") && events.contains("ready (was maintenance)"), "{events}");
}

#[tokio::test]
async fn a_draining_server_finishes_what_it_has() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &[]).await;
    let port = balancer.port();
    let slow: Vec<_> = (0..3).map(|_| tokio::spawn(async move { http::get(port, "/delay/1000").await })).collect();
    let in_flight = async |name: &str| balancer.backend(name).await["traffic"]["in_flight"].as_u64().unwrap();
    e2e::eventually("one is at a", async || (in_flight("a").await == 1).then_some(())).await;
    balancer.set_state("a", "drain").await;
    assert_eq!(in_flight("a").await, 1);
    for request in slow {
        assert_eq!(request.await.unwrap().status.as_u16(), 200);
    }
    assert_eq!(in_flight("a").await, 0);
}

#[tokio::test]
async fn a_change_that_makes_no_sense_is_refused_in_words() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &[]).await;
    for (path, body, status, words) in [
        ("/v1/pools/nope/backends/a/state", "{\"state\":\"drain\"}", 404, "there is default"),
        ("/v1/pools/default/backends/z/state", "{\"state\":\"drain\"}", 404, "it has a"),
        ("/v1/pools/default/backends/a/state", "{\"state\":\"off\"}", 422, "one of ready, drain, maintenance"),
        ("/v1/pools/default/backends/a/state", "drain", 422, "one of ready, drain, maintenance"),
        ("/v1/pools/default/backends/a", "", 404, "/v1/status"),
    ] {
        let answer = balancer.admin(Method::PUT, path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{path} {body}");
        assert!(answer.json()["detail"].as_str().unwrap().contains(words), "{}", answer.text());
    }
}

#[tokio::test]
async fn without_a_token_given_one_is_made_that_only_this_user_can_read() {
    let (_server, backend) = server("a").await;
    let args = ["--port", "0", "--admin-port", "0", "--backend", &backend];
    let mut program = Program::start("loadbalancer", &args, &[]).await;
    let path = scratch_dir().join(format!("loadbalancer/admin-{}.token", program.port("admin")));
    let token = std::fs::read_to_string(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    let bearer = format!("Bearer {token}");
    let sent = request(Method::GET, "/v1/status", &[("authorization", &bearer)], "");
    assert_eq!(http::send(program.port("admin"), sent).await.status.as_u16(), 200);
    // Its place is logged, by a thread of its own.
    e2e::eventually("the place of the token is logged", async || program.stderr().contains("admin-").then_some(()))
        .await;
    assert!(!program.stderr().contains(&token));
    program.signal("TERM");
    program.wait(e2e::PATIENCE).await;
    assert!(!path.exists(), "the token outlived its balancer");
}

#[tokio::test]
async fn health_endpoints_follow_kubernetes() {
    let (mut server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &[]).await;
    let health = async |path: &str| http::get(balancer.admin_port(), path).await;
    for path in ["/livez", "/readyz", "/healthz", "/startupz"] {
        let answer = health(path).await;
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok\n"), "{path}");
        assert!(health(&format!("{path}?verbose")).await.text().starts_with("[+] "), "{path}");
    }
    server.kill().await;
    balancer.wait_for_state("a", "down").await;
    let answer = health("/readyz").await;
    assert_eq!(answer.status.as_u16(), 503);
    assert!(answer.text().contains("a down: connection refused"), "{}", answer.text());
    assert!(health("/readyz?verbose").await.text().contains("[-] pools"));
    assert_eq!(health("/livez").await.status.as_u16(), 200);
}

#[tokio::test]
async fn metrics_say_what_happened() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &[]).await;
    for path in ["/", "/", "/", "/status/404", "/status/500", "/status/302"] {
        balancer.get(path).await;
    }
    http::send(balancer.port(), request(Method::POST, "/echo", &[], "12345")).await;
    let page = http::get(balancer.admin_port(), "/metrics").await;
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = page.text();
    for expected in [
        "lb_requests_total{pool=\"default\",backend=\"a\",class=\"2xx\"} 2",
        "lb_requests_total{pool=\"default\",backend=\"a\",class=\"4xx\"} 1",
        "lb_requests_total{pool=\"default\",backend=\"b\",class=\"5xx\"} 1",
        "lb_requests_total{pool=\"default\",backend=\"c\",class=\"3xx\"} 1",
        "lb_received_bytes_total{pool=\"default\",backend=\"a\"} 5",
        "lb_in_flight{pool=\"default\",backend=\"a\"} 0",
        "lb_response_duration_seconds_count{pool=\"default\",backend=\"a\"} 3",
        "lb_response_duration_seconds_bucket{pool=\"default\",backend=\"a\",le=\"+Inf\"} 3",
        "lb_backend_state{pool=\"default\",backend=\"a\",state=\"ready\",reason=\"checks_pass\"} 1",
        "lb_backend_state{pool=\"default\",backend=\"a\",state=\"down\",reason=\"\"} 0",
        "lb_retries_total{pool=\"default\",backend=\"a\"} 0",
        "lb_health_checks_total{pool=\"default\",backend=\"a\",result=\"failed\"} 0",
        "lb_pool_backends{pool=\"default\",which=\"ready\"} 3",
    ] {
        assert!(text.contains(&format!("{expected}\n")), "no {expected} in\n{text}");
    }
    assert!(text.contains("lb_connect_duration_seconds_count{pool=\"default\",backend=\"a\"} "));
    // Every sample belongs to a family that was announced, once.
    let families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let unique: std::collections::HashSet<_> = families.iter().collect();
    assert_eq!(unique.len(), families.len(), "a family stands twice");
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        assert!(families.contains(&name) || families.contains(&base), "{line}");
    }
}

#[tokio::test]
async fn the_stream_is_a_snapshot_and_then_deltas_that_tell_of_changes() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &[]).await;
    let mut stream = raw::connect(balancer.admin_port()).await;
    let sent = format!("GET /v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut lines = BufReader::new(stream).lines();
    let mut event = async || {
        let mut kind = String::new();
        loop {
            let line = tokio::time::timeout(e2e::PATIENCE, lines.next_line()).await.expect("an event in time");
            let line = line.unwrap().expect("the stream goes on");
            if let Some(found) = line.strip_prefix("event: ") {
                found.clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (kind.clone(), data.to_owned());
            }
        }
    };
    let (kind, data) = event().await;
    assert_eq!(kind, "snapshot");
    let snapshot: Status = serde_json::from_str(&data).expect("a status");
    assert_eq!(snapshot.pools[0].backends.len(), 3);
    balancer.set_state("b", "drain").await;
    for _ in 0..30 {
        balancer.get("/").await;
    }
    let (mut requests, mut drained, mut tick) = (0.0, false, snapshot.tick);
    for _ in 0..5 {
        let (kind, data) = event().await;
        assert_eq!(kind, "delta");
        let delta: Delta = serde_json::from_str(&data).expect("a delta");
        assert!(delta.tick > tick);
        tick = delta.tick;
        requests += delta.sample.requests_per_s;
        drained |=
            delta.events.iter().any(|event| event.backend.as_deref() == Some("b") && event.message.contains("drain"));
        if drained && requests >= 25.0 {
            return;
        }
    }
    panic!("{requests} requests and drained {drained} after five deltas");
}

#[tokio::test]
async fn streams_are_bounded_and_leave_room_for_health() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start(&[backend], &[]).await;
    let sent = format!("GET /v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    let (mut streams, mut refused) = (Vec::new(), 0);
    for _ in 0..70 {
        let mut stream = raw::connect(balancer.admin_port()).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        refused += u32::from(raw::read_head(&mut stream).await.starts_with("HTTP/1.1 503"));
        streams.push(stream);
    }
    assert_eq!(refused, 6);
    assert_eq!(http::get(balancer.admin_port(), "/readyz").await.status.as_u16(), 200);
}
