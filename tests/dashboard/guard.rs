//! No other web site can read the page or press its buttons.

use e2e::http::{self, request};
use e2e::raw;
use hyper::Method;

use super::alone;

const STATE: &str = "/api/pools/default/backends/alpha/state";

#[tokio::test]
async fn only_our_own_hosts_are_answered() {
    let (_program, port) = alone(&["--allowed-host", "ops.example.com,https://tls.example.com"]).await;
    for (host, status) in [
        (format!("localhost:{port}"), 200),
        (format!("127.0.0.1:{port}"), 200),
        (format!("[::1]:{port}"), 200),
        ("localhost".to_owned(), 200),
        ("localhost:1".to_owned(), 200),
        ("ops.example.com".to_owned(), 200),
        ("tls.example.com".to_owned(), 200),
        ("evil.example".to_owned(), 421),
        (format!("evil.example:{port}"), 421),
        ("localhost.evil.example".to_owned(), 421),
        ("10.0.0.1".to_owned(), 421),
        (String::new(), 421),
    ] {
        for path in ["/", "/assets/css/base.css", "/livez", "/api/stream-that-is-not"] {
            let answer = http::send(port, request(Method::GET, path, &[("host", &host)], "")).await;
            let expected = if status == 200 && path.contains("is-not") { 404 } else { status };
            assert_eq!(answer.status.as_u16(), expected, "{host:?} {path}");
        }
    }
    let answer = http::send(port, request(Method::GET, "/", &[("host", "evil.example")], "")).await;
    assert_eq!(answer.json()["type"], "/problems/foreign-host");
    assert!(answer.text().contains("DASHBOARD_ALLOWED_HOSTS"), "{}", answer.text());
}

#[tokio::test]
async fn a_host_that_is_missing_or_said_twice_is_not_answered() {
    let (_program, port) = alone(&[]).await;
    for head in [
        "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: evil.example\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        "GET http://localhost/ HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    ] {
        let answer = raw::exchange(port, head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 421 ") || answer.starts_with("HTTP/1.0 421 "), "{head:?}: {answer}");
    }
}

/// A change that is let in fails with 502 here, because no load balancer is there.
#[tokio::test]
async fn only_the_page_itself_can_change_anything() {
    let (program, port) = alone(&["--allowed-host", "https://tls.example.com"]).await;
    let host = format!("localhost:{port}");
    let own = format!("http://{host}");
    let other_port = format!("http://localhost:{}", port ^ 1);
    let by_address = format!("http://127.0.0.1:{port}");
    let tls = format!("https://{host}");
    for (host, origin, site, status) in [
        (&*host, Some(&*own), Some("same-origin"), 502),
        (&*host, Some(&*own), None, 502),
        ("tls.example.com", Some("https://tls.example.com"), Some("same-origin"), 502),
        ("tls.example.com", Some("http://tls.example.com"), Some("same-origin"), 403),
        (&*host, None, None, 403),
        (&*host, None, Some("same-origin"), 403),
        (&*host, Some("null"), Some("same-origin"), 403),
        (&*host, Some("http://evil.example"), None, 403),
        (&*host, Some("http://evil.example"), Some("cross-site"), 403),
        (&*host, Some(&*other_port), Some("same-site"), 403),
        (&*host, Some(&*by_address), Some("cross-site"), 403),
        (&*host, Some(&*tls), Some("same-origin"), 403),
        (&*host, Some(&*own), Some("cross-site"), 403),
        (&*host, Some(&*own), Some("same-site"), 403),
        (&*host, Some(&*own), Some("none"), 403),
        ("evil.example", Some("http://evil.example"), Some("same-origin"), 421),
    ] {
        let mut headers = vec![("host", host), ("content-type", "application/json")];
        headers.extend(origin.map(|origin| ("origin", origin)));
        headers.extend(site.map(|site| ("sec-fetch-site", site)));
        let answer = http::send(port, request(Method::PUT, STATE, &headers, r#"{"state":"drain"}"#)).await;
        assert_eq!(answer.status.as_u16(), status, "{host} {origin:?} {site:?}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    }
    let metrics = http::get(port, "/metrics").await.text();
    assert!(metrics.contains("\ndashboard_refused_requests_total 13\n"), "{metrics}");
    assert!(metrics.contains("dashboard_actions_total{result=\"failed\"} 3\n"), "{metrics}");
    assert!(program.stderr().contains("\"refused\""), "refusals are logged: {}", program.stderr());
}

#[tokio::test]
async fn nothing_is_changed_by_a_get_or_from_a_form() {
    let (_program, port) = alone(&[]).await;
    let host = format!("localhost:{port}");
    let origin = format!("http://{host}");
    let own = [("host", &*host), ("origin", &*origin), ("sec-fetch-site", "same-origin")];
    for (method, status) in [(Method::GET, 405), (Method::HEAD, 405), (Method::POST, 405), (Method::DELETE, 405)] {
        let answer = http::send(port, request(method.clone(), STATE, &own, "")).await;
        assert_eq!(answer.status.as_u16(), status, "{method}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        let headers = [&own[..], &[("content-type", content_type)]].concat();
        let answer = http::send(port, request(Method::PUT, STATE, &headers, r#"{"state":"drain"}"#)).await;
        assert_eq!(answer.status.as_u16(), 415, "{content_type}");
    }
    let headers = [&own[..], &[("content-type", "application/json")]].concat();
    for (body, status) in [("{}", 400), (r#"{"state":"gone"}"#, 400), ("drain", 400), (&*"x".repeat(5000), 413)] {
        let answer = http::send(port, request(Method::PUT, STATE, &headers, body.to_owned())).await;
        assert_eq!(answer.status.as_u16(), status, "{body:.40}");
    }
}

#[tokio::test]
async fn every_answer_carries_the_headers_that_keep_others_out_and_none_that_lets_them_in() {
    let (_program, port) = alone(&[]).await;
    let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                  frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    for (path, host) in
        [("/", "localhost"), ("/assets/js/main.js", "localhost"), ("/nothing", "localhost"), ("/", "evil.example")]
    {
        let headers = [("host", host), ("origin", "http://evil.example")];
        let answer = http::send(port, request(Method::GET, path, &headers, "")).await;
        assert_eq!(answer.header("content-security-policy"), Some(policy), "{path} {host}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("same-origin"));
        assert_eq!(answer.header("cross-origin-resource-policy"), Some("same-origin"));
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("access-control-")), "no CORS");
        assert_eq!(answer.header("set-cookie"), None);
    }
    let preflight =
        [("host", "localhost"), ("origin", "http://evil.example"), ("access-control-request-method", "PUT")];
    let answer = http::send(port, request(Method::OPTIONS, STATE, &preflight, "")).await;
    assert!(!answer.status.is_success(), "{}", answer.status);
    assert_eq!(answer.header("access-control-allow-origin"), None);
}
