//! Active checks over HTTP: what they ask, what they take for a failure, and what a person is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use e2e::origin::Origin;
use e2e::program::scratch_dir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const HTTP_CHECK: [&str; 6] = ["--check-kind", "http", "--check-path", "/health", "--check-statuses", "200-299"];

async fn checks(balancer: &Balancer, name: &str) -> Value {
    let path = format!("/v1/pools/default/backends/{name}/checks");
    let answer = balancer.admin(Method::GET, &path, "").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    answer.json()
}

/// A configuration file with this text.
fn file(name: &str, text: &str) -> String {
    let path = scratch_dir().join(format!("checks-{name}.toml"));
    std::fs::write(&path, text).expect("the scratch directory is writable");
    path.display().to_string()
}

async fn reply(stream: &mut TcpStream, status: u16, body: &str) {
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(answer.as_bytes()).await;
}

#[tokio::test]
async fn a_server_that_answers_but_is_sick_goes_out_with_its_reason_and_comes_back() {
    let status = Arc::new(AtomicU16::new(204));
    let shown = Arc::clone(&status);
    let origin = Origin::start(move |seen, mut stream| {
        let status = shown.load(Ordering::SeqCst);
        async move {
            assert!(seen.head.starts_with("GET /health HTTP/1.1\r\n"), "{}", seen.head);
            reply(&mut stream, status, "").await;
            None
        }
    })
    .await;
    let balancer = Balancer::start(&[format!("{},name=a", origin.address())], &HTTP_CHECK).await;
    assert_eq!(balancer.backend("a").await["state"], "ready");
    let found = checks(&balancer, "a").await;
    assert!(found["explanation"].as_str().unwrap().contains("up for "), "{found}");
    assert!(found["results"][0]["words"].as_str().unwrap().starts_with("status 204 in "), "{found}");

    status.store(503, Ordering::SeqCst);
    let row = balancer.wait_for_state("a", "down").await;
    assert_eq!(
        (&row["reason_code"], &row["reason"]),
        (&"wrong_status".into(), &"status 503 instead of 200-299".into())
    );
    let found = checks(&balancer, "a").await;
    let words = found["explanation"].as_str().unwrap();
    for part in
        ["down for ", "status 503 instead of 200-299", "failed in a row", "the last pass was ", "the next check "]
    {
        assert!(words.contains(part), "no {part:?} in {words}");
    }
    let results = found["results"].as_array().unwrap();
    let last = results.last().unwrap();
    assert_eq!(
        (&last["passed"], &last["class"], &last["source"]),
        (&false.into(), &"wrong_status".into(), &"check".into())
    );
    assert!(
        last["took_ms"].as_f64().unwrap() > 0.0
            && last["unix_ms"].as_u64().unwrap() <= found["now_unix_ms"].as_u64().unwrap()
    );
    // It is only a window.
    e2e::eventually("32 results", async || {
        let count = checks(&balancer, "a").await["results"].as_array().unwrap().len();
        assert!(count <= 32);
        (count == 32).then_some(())
    })
    .await;
    status.store(200, Ordering::SeqCst);
    balancer.wait_for_state("a", "ready").await;
}

/// A server that does whatever `act` does with each connection.
async fn server_that<F, A>(act: F) -> u16
where
    F: Fn(TcpStream) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(act(stream));
        }
    });
    port
}

#[tokio::test]
async fn whatever_a_server_does_has_a_class_and_harms_nobody_else() {
    async fn drip(mut stream: TcpStream) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    async fn flood(mut stream: TcpStream, beginning: &'static [u8]) {
        let _ = stream.write_all(beginning).await;
        while stream.write_all(&[b'x'; 65536]).await.is_ok() {}
    }
    async fn silent(mut stream: TcpStream) {
        while matches!(stream.read(&mut [0; 512]).await, Ok(1..)) {}
    }
    async fn resets(mut stream: TcpStream) {
        let _ = stream.read(&mut [0; 512]).await;
        e2e::raw::reset(stream);
    }
    async fn tls(mut stream: TcpStream) {
        let _ = stream.read(&mut [0; 512]).await;
        let _ = stream.write_all(b"\x15\x03\x01\x00\x02\x02\x46").await;
    }
    let cases = [
        ("drips", server_that(drip).await, "response_timeout"),
        ("silent", server_that(silent).await, "response_timeout"),
        ("long-head", server_that(|stream| flood(stream, b"HTTP/1.1 200 OK\r\nX: ")).await, "too_long"),
        ("long-body", server_that(|stream| flood(stream, b"HTTP/1.1 200 OK\r\n\r\n")).await, "too_long"),
        ("garbage", server_that(|stream| flood(stream, b"220 ready\r\n")).await, "bad_response"),
        ("resets", server_that(resets).await, "reset"),
        ("closes", server_that(async |mut stream| drop(stream.read(&mut [0; 512]).await)).await, "closed"),
        ("tls", server_that(tls).await, "tls_response"),
        ("nobody", free_port(), "connection_refused"),
    ];
    let mut backends: Vec<String> =
        cases.iter().map(|(name, port, _)| format!("127.0.0.1:{port},name={name}")).collect();
    let (_good, good) = server("good").await;
    backends.push(good);
    let args = [&HTTP_CHECK[..2], &["--check-timeout", "400ms"]].concat();
    let balancer = Balancer::start(&backends, &args).await;
    for (name, _, code) in cases {
        let row = balancer.wait_for_state(name, "down").await;
        assert_eq!(row["reason_code"], code, "{name}: {row}");
    }
    balancer.wait_for_state("good", "ready").await;
    let page = http::get(balancer.admin_port(), "/metrics").await.text();
    for (name, _, code) in cases {
        let sample = |class: &str| {
            let start =
                format!("lb_health_check_failures_total{{pool=\"default\",backend=\"{name}\",class=\"{class}\"}} ");
            page.lines().find_map(|line| line.strip_prefix(&start)?.parse::<u64>().ok()).expect("a sample")
        };
        assert!(sample(code) > 0 && sample("wrong_body") == 0, "{name}");
    }
    assert!(page.contains("lb_health_check_duration_seconds_count{pool=\"default\",backend=\"good\"} "));
    // The balancer is as it was: nothing is kept of what was flooded.
    let status = std::fs::read_to_string(format!("/proc/{}/status", balancer.program.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")).unwrap();
    assert!(resident.trim().parse::<u64>().unwrap() < 200_000, "{resident} kB");
}

#[tokio::test]
async fn method_host_port_body_and_reuse_are_as_configured() {
    let body = Arc::new(std::sync::Mutex::new("all is well"));
    let shown = Arc::clone(&body);
    let health = Origin::start(move |seen, mut stream| {
        let body = *shown.lock().unwrap();
        async move {
            let good = seen.head.starts_with("OPTIONS /ready?deep=1 HTTP/1.1\r\nHost: shop.example\r\n");
            reply(&mut stream, if good { 207 } else { 400 }, body).await;
            Some(stream)
        }
    })
    .await;
    let traffic = Origin::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true).await;
    let port = health.address().rsplit(':').next().unwrap().to_owned();
    let text = format!(
        "[health]\nkind = \"http\"\nmethod = \"OPTIONS\"\npath = \"/ready?deep=1\"\nhost = \"shop.example\"\n\
         statuses = \"207\"\nbody = \"is well\"\nport = {port}\nreuse = true\n"
    );
    let config = file("all", &text);
    let balancer = Balancer::start(&[format!("{},name=a", traffic.address())], &["--config", &config]).await;
    balancer.wait_for_state("a", "ready").await;
    assert_eq!(balancer.get("/").await.text(), "ok");
    assert_eq!(balancer.backend("a").await["resolved"], traffic.address());
    e2e::eventually("some checks", async || (health.requests() >= 5).then_some(())).await;
    assert_eq!(health.connections(), 1, "the connection is kept");
    *body.lock().unwrap() = "all is lost";
    let row = balancer.wait_for_state("a", "down").await;
    assert_eq!(row["reason_code"], "wrong_body");
    assert_eq!(row["reason"], "\"is well\" is not in the body", "{row}");
    assert!(row["check"]["last_result"].as_str().unwrap().contains("begins with \"all is lost\""), "{row}");
    // Maintenance is no time for open connections.
    balancer.set_state("a", "maintenance").await;
    assert_eq!(checks(&balancer, "a").await["next_unix_ms"], Value::Null);
}

#[tokio::test]
async fn only_so_many_are_checked_at_once_and_all_get_their_turn() {
    const BACKENDS: usize = 60;
    const AT_ONCE: usize = 5;
    // One listener that is many servers: the network 127.0.0.0/8 is this machine.
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, highest) = (Arc::clone(&open), Arc::clone(&most));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
            highest.fetch_max(now, Ordering::SeqCst);
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 512]).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                // Before the answer: the balancer goes on to the next at once.
                counted.fetch_sub(1, Ordering::SeqCst);
                reply(&mut stream, 200, "").await;
            });
        }
    });
    let backends: Vec<String> = (1..=BACKENDS).map(|at| format!("127.0.0.{at}:{port},name=b{at}")).collect();
    let config = file("few", &format!("[health]\nconcurrency = {AT_ONCE}\n"));
    let args = [&HTTP_CHECK[..2], &["--config", &config]].concat();
    let balancer = Balancer::start(&backends, &args).await;
    for at in 1..=BACKENDS {
        balancer.wait_for_state(&format!("b{at}"), "ready").await;
    }
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
}

#[tokio::test]
async fn what_live_requests_find_stands_among_the_results() {
    let (_a, first) = server("a").await;
    let (mut dying, second) = server("b").await;
    // Checks will not find it in the time of this test.
    let balancer =
        Balancer::start(&[first, second], &["--check-interval", "60s", "--check-fast-interval", "60s"]).await;
    dying.kill().await;
    for _ in 0..8 {
        assert_eq!(balancer.get("/").await.status.as_u16(), 200);
    }
    balancer.wait_for_state("b", "down").await;
    let found = checks(&balancer, "b").await;
    let live: Vec<_> = found["results"].as_array().unwrap().iter().filter(|row| row["source"] == "traffic").collect();
    assert_eq!(live.len(), 3, "{found}");
    assert_eq!((&live[0]["class"], &live[0]["took_ms"]), (&"connection_refused".into(), &Value::Null));
}

#[tokio::test]
async fn who_is_not_there_cannot_be_asked_about() {
    let (_a, first) = server("a").await;
    let balancer = Balancer::start(&[first], &[]).await;
    for (path, status) in [
        ("/v1/pools/default/backends/z/checks", 404),
        ("/v1/pools/nope/backends/a/checks", 404),
        ("/v1/pools/default/backends/a/checks", 200),
    ] {
        assert_eq!(balancer.admin(Method::GET, path, "").await.status.as_u16(), status, "{path}");
    }
    assert_eq!(http::get(balancer.admin_port(), "/v1/pools/default/backends/a/checks").await.status.as_u16(), 401);
    assert_eq!(balancer.admin(Method::PUT, "/v1/pools/default/backends/a/checks", "{}").await.status.as_u16(), 405);
}
