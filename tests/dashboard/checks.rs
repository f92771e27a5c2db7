//! What the page reads of one backend: passed on as the load balancer says it, and looking changes nothing.

use e2e::http::{self, request};
use hyper::Method;
use lb_core::api::{CheckSource, Checks};

use super::{Setup, alone, find};

const ALPHA: &str = "/api/pools/default/backends/alpha/checks";

#[tokio::test]
async fn the_last_checks_are_the_balancers_own_and_looking_changes_nothing() {
    let setup = Setup::start().await;
    e2e::eventually("alpha is ready", async || (setup.backend("alpha").await["state"] == "ready").then_some(())).await;
    let before = http::get(setup.port(), "/api/status").await.json();
    let answer = http::get(setup.port(), ALPHA).await;
    assert_eq!((answer.status.as_u16(), answer.header("cache-control")), (200, Some("no-store")));
    let checks: Checks = serde_json::from_slice(&answer.body).expect("the contract");
    assert_eq!((checks.pool.as_str(), checks.backend.as_str()), ("default", "alpha"));
    assert!(checks.explanation.starts_with("up for "), "{}", checks.explanation);
    assert!(checks.results.iter().any(|result| result.passed && result.source == CheckSource::Check), "{checks:?}");

    for method in [Method::PUT, Method::POST, Method::DELETE, Method::PATCH] {
        let port = setup.port();
        let (host, origin) = (format!("localhost:{port}"), format!("http://localhost:{port}"));
        let headers = [("host", &*host), ("origin", &*origin), ("content-type", "application/json")];
        let refused = http::send(port, request(method.clone(), ALPHA, &headers, "{\"state\":\"drain\"}")).await;
        assert_eq!(refused.status, 405, "{method}");
    }
    for path in [ALPHA, "/api/pools/default/backends/alpha/state"] {
        http::get(setup.port(), path).await;
    }
    let after = http::get(setup.port(), "/api/status").await.json();
    for field in ["admin", "state", "since_unix_ms", "drain"] {
        assert_eq!(find(&after, "alpha")[field], find(&before, "alpha")[field], "{field}");
    }
    assert!(http::get(setup.port(), "/metrics").await.text().contains("dashboard_actions_total{result=\"done\"} 0\n"));
}

#[tokio::test]
async fn checks_of_nobody_and_of_a_balancer_that_is_gone_are_refused_in_words() {
    let setup = Setup::start().await;
    for path in ["/api/pools/default/backends/no%2Fsuch/checks", "/api/pools/none/backends/alpha/checks"] {
        let answer = http::get(setup.port(), path).await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
    }
    let named = http::get(setup.port(), "/api/pools/default/backends/no%2Fsuch/checks").await.json();
    assert!(named["detail"].as_str().unwrap().contains("no/such"), "{named}");

    let (_program, port) = alone(&[]).await;
    let answer = http::get(port, ALPHA).await;
    assert_eq!(answer.status, 502);
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("http://127.0.0.1:1") && detail.contains("connection refused"), "{detail}");
}
