//! The page's buttons: what they change, and what is said when they cannot.

use e2e::http;

use super::{Events, Setup, alone, find, put_state, state_path};

#[tokio::test]
async fn a_change_takes_effect_is_answered_with_the_backend_and_seen_by_every_page() {
    let setup = Setup::start().await;
    let port = setup.port();
    e2e::eventually("alpha is ready", async || (setup.backend("alpha").await["state"] == "ready").then_some(())).await;
    let path = state_path(port, "alpha").await;
    let mut events = Events::open(port).await;
    for (state, shown) in [("drain", "draining"), ("maintenance", "maintenance")] {
        let answer = put_state(port, &path, state).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let backend: lb_core::api::Backend = serde_json::from_slice(&answer.body).expect("the contract");
        assert_eq!((backend.name.as_str(), backend.admin.as_str(), backend.state.as_str()), ("alpha", state, shown));
        assert_eq!(setup.backend("alpha").await["state"], shown);
        let delta = events.until("delta", |delta| find(delta, "alpha")["state"] == shown).await;
        assert!(!find(&delta, "alpha")["reason"].as_str().unwrap().is_empty());
        assert!(!find(&delta, "alpha")["in_rotation"].as_bool().unwrap());
    }
    let proxy = setup.balancer.port("proxy");
    for _ in 0..6 {
        assert_ne!(http::get(proxy, "/").await.header("x-served-by"), Some("alpha"));
    }
    assert_eq!(put_state(port, &path, "ready").await.status, 200);
    e2e::eventually("it is back", async || (setup.backend("alpha").await["state"] == "ready").then_some(())).await;
    let metrics = http::get(port, "/metrics").await.text();
    assert!(metrics.contains("dashboard_actions_total{result=\"done\"} 3\n"), "{metrics}");
}

#[tokio::test]
async fn what_the_balancer_refuses_is_passed_on_in_its_words() {
    let setup = Setup::start().await;
    for path in ["/api/pools/default/backends/no%2Fsuch/state", "/api/pools/none/backends/alpha/state"] {
        let answer = put_state(setup.port(), path, "drain").await;
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
        assert!(!answer.json()["detail"].as_str().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_change_without_a_balancer_fails_in_words() {
    let (_program, port) = alone(&[]).await;
    let answer = put_state(port, "/api/pools/default/backends/alpha/state", "drain").await;
    assert_eq!(answer.status, 502);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let detail = answer.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("http://127.0.0.1:1") && detail.contains("connection refused"), "{detail}");
}
