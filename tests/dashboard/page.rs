//! What the browser is given: every file, at any place, and never the token.

use std::path::Path;

use e2e::http::{self, request};
use e2e::program::scratch_dir;
use hyper::Method;

use super::{Events, Setup, alone};

/// Every path of the page, found the way a browser finds them: from the page on, through what each file refers to.
async fn crawl(port: u16) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut open = vec!["/".to_owned()];
    while let Some(path) = open.pop() {
        if found.iter().any(|(known, _)| *known == path) {
            continue;
        }
        let answer = http::get(port, &path).await;
        assert_eq!(answer.status, 200, "{path}");
        let text = answer.text();
        let quotes: &[&str] = if path.ends_with(".js") { &["from '"] } else { &["src=\"", "href=\"assets/"] };
        for quote in quotes {
            for reference in text.split(quote).skip(1).filter(|_| !path.contains("vendor")) {
                let end = if *quote == "from '" { '\'' } else { '"' };
                let reference = reference.split(end).next().unwrap();
                let reference = quote.split_once('"').map_or("", |(_, prefix)| prefix).to_owned() + reference;
                open.push(join(&path, &reference));
            }
        }
        found.push((path, text));
    }
    found
}

fn join(base: &str, reference: &str) -> String {
    let mut parts: Vec<&str> = base.split('/').collect();
    parts.pop();
    for part in reference.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[tokio::test]
async fn everything_the_page_refers_to_is_there() {
    let (_program, port) = alone(&[]).await;
    let found = crawl(port).await;
    let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
    for expected in [
        "/assets/js/main.js",
        "/assets/js/view/chart.js",
        "/assets/vendor/uplot/uPlot.iife.min.js",
        "/assets/css/base.css",
    ] {
        assert!(paths.contains(&expected), "{paths:?}");
    }
    let modules = std::fs::read_dir(e2e::program::workspace_root().join("crates/dashboard/assets/js/view")).unwrap();
    for module in modules {
        let name = module.unwrap().file_name().into_string().unwrap();
        assert!(paths.contains(&&*format!("/assets/js/view/{name}")), "{name} is used by nothing");
    }
}

#[tokio::test]
async fn an_asset_is_revalidated_and_nothing_outside_is_served() {
    let (_program, port) = alone(&[]).await;
    let answer = http::get(port, "/assets/js/main.js").await;
    assert_eq!(answer.header("content-type"), Some("text/javascript; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    let etag = answer.header("etag").unwrap().to_owned();
    let again = http::send(port, request(Method::GET, "/assets/js/main.js", &[("if-none-match", &etag)], "")).await;
    assert_eq!((again.status.as_u16(), again.body.len()), (304, 0));
    for path in [
        "/assets/",
        "/assets/none.js",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e/Cargo.toml",
        "/index.html",
        "/v1/status",
    ] {
        assert_eq!(http::get(port, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn the_token_is_in_no_answer_no_file_and_no_log() {
    let setup = Setup::start().await;
    let port = setup.port();
    let token = token(&setup);
    let mut seen: Vec<(String, String)> = crawl(port).await;
    for path in [
        "/api/status",
        "/livez",
        "/readyz?verbose",
        "/metrics",
        "/nothing",
        "/api/pools/x/backends/y/state",
        "/api/pools/default/backends/alpha/checks",
    ] {
        let answer = http::get(port, path).await;
        seen.push((path.to_owned(), format!("{:?}\n{}", answer.headers, answer.text())));
    }
    let refused = super::put_state(port, "/api/pools/no/backends/such/state", "drain").await;
    seen.push(("an unknown backend".to_owned(), format!("{:?}\n{}", refused.headers, refused.text())));
    let mut events = Events::open(port).await;
    let (name, snapshot) = (events.next().await, events.until("snapshot", |_| true).await);
    seen.push(("the stream".to_owned(), format!("{name:?}\n{snapshot}")));
    seen.push(("the log".to_owned(), format!("{}{}", setup.dashboard.stderr(), setup.dashboard.stdout())));
    for (what, text) in seen {
        assert!(!text.contains(&token), "the token is in {what}");
    }
}

/// The token that the load balancer made for itself.
fn token(setup: &Setup) -> String {
    let name = format!("admin-{}.token", setup.balancer.port("admin"));
    let path = scratch_dir().join("loadbalancer").join(name);
    let token = std::fs::read_to_string(Path::new(&path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let token = token.trim().to_owned();
    assert!(token.len() >= 16, "a token worth guarding");
    token
}
