//! A server that takes connections and fails requests is left out for a while: checks do not see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use e2e::http::request;
use e2e::load::{self, Plan};
use e2e::origin::Origin;
use tokio::io::AsyncWriteExt;

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
pub(super) const UNAVAILABLE: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";
const BROKEN: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\nbug";

/// A backend that answers `bad` while the switch is on, else 200.
async fn switched(bad: &'static [u8]) -> (Origin, Arc<AtomicBool>) {
    let failing = Arc::new(AtomicBool::new(true));
    let seen = Arc::clone(&failing);
    let origin = Origin::start(move |_, mut stream| {
        let answer = if seen.load(Ordering::SeqCst) { bad } else { OK };
        async move { stream.write_all(answer).await.is_ok().then_some(stream) }
    })
    .await;
    (origin, failing)
}

/// Writes a file of options, named for the test, and returns its path.
pub(super) fn options(name: &str, text: &str) -> String {
    let path = e2e::program::scratch_dir().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

pub(super) async fn metric(balancer: &Balancer, name: &str) -> f64 {
    let page = http::get(balancer.admin_port(), "/metrics").await.text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    line.unwrap_or_else(|| panic!("no {name} in:\n{page}"))
}

/// `retry.statuses` says what is worth another try, `outlier.errors` what is held against a backend.
#[tokio::test]
async fn an_answer_that_is_repeated_is_held_against_a_backend_only_if_it_would_be_anyway() {
    for (bad, status, ejected) in [(BROKEN, "500", false), (UNAVAILABLE, "503", true)] {
        let (_servers, mut backends) = servers().await;
        let (origin, _) = switched(bad).await;
        backends[2] = format!("{},name=c", origin.address());
        let balancer = Balancer::start(&backends, &["--retry-statuses", status]).await;
        for _ in 0..45 {
            balancer.get("/").await;
        }
        let row = balancer.backend("c").await;
        assert_eq!(row["state"] == "ejected", ejected, "{status}: {row}");
        assert_eq!(origin.requests() > 5, !ejected, "{status}: {row}");
        assert_ne!(row["traffic"]["failures_total"], 0, "{status} is repeated: {row}");
    }
}

#[tokio::test]
async fn five_gateway_errors_in_a_row_eject_at_once() {
    let (_servers, mut backends) = servers().await;
    let (origin, _) = switched(UNAVAILABLE).await;
    backends[2] = format!("{},name=c", origin.address());
    let balancer = Balancer::start(&backends, &[]).await;
    let mut failed = 0;
    // The fifth is the last: it is told as it is seen, and the snapshot is out long before the next turn of c.
    let row = loop {
        failed += u32::from(balancer.get("/").await.status.as_u16() == 503);
        let row = balancer.backend("c").await;
        if row["state"] == "ejected" {
            break row;
        }
        assert!(failed <= 5, "{row}");
    };
    assert_eq!((failed, origin.requests()), (5, 5));
    for _ in 0..100 {
        assert_eq!(balancer.get("/").await.status.as_u16(), 200);
    }
    assert_eq!(origin.requests(), 5);
    let reason = row["reason"].as_str().unwrap();
    assert!(reason.starts_with("5 errors in a row; back in ") && reason.ends_with(" s (1st time)"), "{reason}");
    assert_eq!((&row["reason_code"], &row["in_rotation"]), (&"ejected".into(), &false.into()));
    assert_eq!((&row["health"], &row["effective_weight"]), (&"up".into(), &0.0.into()));
    let left_ms =
        row["ejection"]["until_unix_ms"].as_i64().unwrap() - balancer.status().await["now_unix_ms"].as_i64().unwrap();
    assert!((0..=10_000).contains(&left_ms), "{left_ms} ms");
    assert_eq!(row["ejection"]["total"]["consecutive_errors"], 1);
    let counter = r#"lb_ejections_total{pool="default",backend="c",cause="consecutive_errors"}"#;
    assert_eq!(metric(&balancer, counter).await, 1.0);
    assert_eq!(balancer.status().await["pools"][0]["state"], "degraded");
    let events = balancer.status().await["events"].to_string();
    assert!(events.contains("ejected: 5 errors in a row; back in "), "{events}");
}

#[tokio::test]
async fn who_comes_back_starts_slowly_and_who_fails_again_is_out_for_longer() {
    let (_server, alive) = server("a").await;
    let (origin, failing) = switched(UNAVAILABLE).await;
    let file = options("eject-again.toml", "[outlier]\nbase_time = \"500ms\"\n");
    let backends = [alive, format!("{},name=b", origin.address())];
    let balancer = Balancer::start(&backends, &["--config", &file, "--slow-start", "1s"]).await;
    let mut times = Vec::new();
    for number in 1..=2 {
        let row = e2e::eventually("b is ejected", async || {
            balancer.get("/").await;
            let row = balancer.backend("b").await;
            (row["state"] == "ejected").then_some(row)
        })
        .await;
        assert_eq!(row["ejection"]["times"], number, "{row}");
        let began = row["since_unix_ms"].as_i64().unwrap();
        times.push(row["ejection"]["until_unix_ms"].as_i64().unwrap() - began);
        failing.store(number == 1, Ordering::SeqCst);
        let row = balancer.wait_for_state("b", "ready").await;
        assert_eq!(row["reason_code"], "slow_start", "{row}");
        assert!(row["reason"].as_str().unwrap().starts_with("slow start "), "{row}");
        assert!(row["effective_weight"].as_f64().unwrap() < 1.0, "{row}");
    }
    // Ten percent of jitter downwards, and a few milliseconds between the clocks.
    assert!((440..=510).contains(&times[0]) && (890..=1010).contains(&times[1]), "{times:?}");
    e2e::eventually("b has its whole share", async || {
        let row = balancer.backend("b").await;
        (row["reason_code"] == "checks_pass" && row["effective_weight"] == 1.0).then_some(())
    })
    .await;
    let events = balancer.status().await["events"].to_string();
    assert!(events.contains("back from ejection: its time is up; slow start over 1s"), "{events}");
}

#[tokio::test]
async fn an_operator_ends_an_ejection_by_saying_ready() {
    let (_server, alive) = server("a").await;
    let (origin, failing) = switched(UNAVAILABLE).await;
    let balancer = Balancer::start(&[alive, format!("{},name=b", origin.address())], &[]).await;
    e2e::eventually("b is ejected", async || {
        balancer.get("/").await;
        (balancer.backend("b").await["state"] == "ejected").then_some(())
    })
    .await;
    failing.store(false, Ordering::SeqCst);
    let answer = balancer.set_state("b", "ready").await;
    assert_eq!((answer.status.as_u16(), answer.json()["state"].as_str()), (200, Some("ready")), "{}", answer.text());
    let events = balancer.status().await["events"].to_string();
    assert!(events.contains("back from ejection early: the operator says it is ready"), "{events}");
    // Asked again it changes nothing.
    let before = balancer.status().await["events"].as_array().unwrap().len();
    balancer.set_state("b", "ready").await;
    assert_eq!(balancer.status().await["events"].as_array().unwrap().len(), before);
}

#[tokio::test]
async fn the_last_one_is_never_ejected_and_comes_back_when_the_others_go() {
    let (mut server, alive) = server("a").await;
    let (origin, _) = switched(UNAVAILABLE).await;
    let balancer = Balancer::start(&[alive, format!("{},name=b", origin.address())], &[]).await;
    e2e::eventually("b is ejected", async || {
        balancer.get("/").await;
        (balancer.backend("b").await["state"] == "ejected").then_some(())
    })
    .await;
    server.kill().await;
    balancer.wait_for_state("a", "down").await;
    let row = balancer.wait_for_state("b", "ready").await;
    assert_eq!((&row["effective_weight"], &row["in_rotation"]), (&1.0.into(), &true.into()));
    // Its own answers are still better than none of ours.
    for _ in 0..20 {
        assert_eq!(balancer.get("/").await.text(), "busy");
    }
    assert_eq!(balancer.backend("b").await["state"], "ready");
    assert!(metric(&balancer, r#"lb_ejections_withheld_total{pool="default"}"#).await >= 1.0);
}

#[tokio::test]
async fn what_is_not_the_backends_fault_ejects_nobody() {
    // Closes each kept connection when it is used again; says 500 and 404 for good reasons.
    let race = Origin::start(|seen, mut stream| async move {
        if seen.on_connection > 0 {
            return None;
        }
        let answer = [OK, BROKEN, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"][seen.number % 3];
        stream.write_all(answer).await.is_ok().then_some(stream)
    })
    .await;
    // Never answers: its clients go away.
    let silent = Origin::start(|_, stream| async move {
        std::future::pending::<()>().await;
        Some(stream)
    })
    .await;
    let file =
        options("no-fault.toml", "[outlier]\ninterval = \"200ms\"\nfailure_requests = 5\nfailure_percent = 50\n");
    let args = ["--config", &file, "--workers", "1"];
    let balancer = Balancer::start(&[race.address(), silent.address()], &args).await;
    balancer.set_state(&silent.address(), "maintenance").await;
    for _ in 0..60 {
        assert_ne!(balancer.get("/").await.status.as_u16(), 502);
    }
    balancer.set_state(&silent.address(), "ready").await;
    balancer.wait_for_state(&silent.address(), "ready").await;
    balancer.set_state(&race.address(), "maintenance").await;
    for _ in 0..20 {
        let mut client = e2e::raw::connect(balancer.port()).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let asked = silent.requests();
        e2e::eventually("the request is there", async || (silent.requests() > asked).then_some(())).await;
        // Dropped with a request under way.
        client.set_zero_linger().unwrap();
    }
    balancer.set_state(&race.address(), "ready").await;
    let page = http::get(balancer.admin_port(), "/metrics").await.text();
    let sum: f64 = page
        .lines()
        .filter(|line| line.starts_with("lb_ejections_total{") || line.starts_with("lb_ejections_withheld_total{"))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum();
    assert_eq!(sum, 0.0, "{page}");
}

#[tokio::test]
async fn a_server_that_is_gone_is_down_and_not_ejected() {
    let (_server, alive) = server("a").await;
    let (mut dying, backend) = server("b").await;
    // Slow checks: only live traffic can notice.
    let args = ["--check-interval", "60s", "--check-fast-interval", "60s"];
    let balancer = Balancer::start(&[alive, backend], &args).await;
    dying.kill().await;
    let plan = Plan { port: balancer.port(), connections: 32, requests: 2000, reconnect: false };
    let tally = load::run(&plan).await;
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
    let row = balancer.wait_for_state("b", "down").await;
    assert_eq!((&row["ejection"]["times"], &row["reason_code"]), (&0.into(), &"connection_refused".into()), "{row}");
}

#[tokio::test]
async fn a_server_that_fails_nearly_everything_goes_at_the_end_of_the_interval() {
    let (_server, alive) = server("a").await;
    // 500 is no gateway error: one page may be at fault. But all of them?
    let (origin, _) = switched(BROKEN).await;
    let file = options("interval.toml", "[outlier]\ninterval = \"300ms\"\nfailure_requests = 10\n");
    let backends = [alive, format!("{},name=b", origin.address())];
    let balancer = Balancer::start(&backends, &["--config", &file]).await;
    let row = e2e::eventually("b is ejected", async || {
        for _ in 0..30 {
            balancer.get("/").await;
        }
        let row = balancer.backend("b").await;
        (row["state"] == "ejected").then_some(row)
    })
    .await;
    assert!(row["reason"].as_str().unwrap().contains("100 % of "), "{row}");
    assert_eq!(
        (&row["ejection"]["total"]["failure_percentage"], &row["ejection"]["total"]["consecutive_errors"]),
        (&1.into(), &0.into())
    );
}

#[tokio::test]
async fn connections_that_are_hung_up_on_eject_too_and_detection_can_be_switched_off() {
    for (detection, expected) in [("on", "ejected"), ("off", "ready")] {
        let (_server, alive) = server("a").await;
        let origin = Origin::hanging_up().await;
        let backends = [alive, format!("{},name=b", origin.address())];
        let balancer = Balancer::start(&backends, &["--outlier-detection", detection]).await;
        for _ in 0..40 {
            // Each GET is saved by the other server; a POST would not be.
            assert_eq!(http::send(balancer.port(), request(Method::GET, "/", &[], "")).await.status.as_u16(), 200);
        }
        assert_eq!(balancer.backend("b").await["state"], expected);
        assert_eq!(origin.requests(), if detection == "on" { 5 } else { 20 });
    }
}
