//! What the page shows when the load balancer, or its own dashboard, is not there: never old figures as if they were
//! live, and everything again by itself when it is back. And that it works at any place behind a proxy.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::{Setup, balancer, browse, dashboard};

const DESK: (u32, u32) = (1280, 800);
const WITHIN: Duration = Duration::from_secs(3);
const LIVE: &str =
    "document.documentElement.dataset.link === 'live' && !document.querySelector('.banner').checkVisibility()";

fn banner_says(words: &str) -> String {
    format!(
        "document.querySelector('.banner').checkVisibility() && document.querySelector('.banner').textContent.includes('{words}')"
    )
}

/// What the test outside of the browser is asked to do.
enum Order {
    KillBalancer,
    StartBalancer,
    StopDashboard,
    ContinueDashboard,
    KillDashboard,
    StartDashboard,
}

/// Does as it is told, one after the other, and says when it is done.
async fn obey(mut setup: Setup, mut orders: mpsc::Receiver<Order>, done: mpsc::Sender<()>) {
    let (proxy, admin) = (setup.balancer.port("proxy"), setup.balancer.port("admin"));
    let (admin_url, page_port) = (setup.balancer.field("admin").to_owned(), setup.dashboard.port("url"));
    while let Some(order) = orders.recv().await {
        match order {
            Order::KillBalancer => setup.balancer.kill().await,
            Order::StartBalancer => setup.balancer = balancer(&setup.servers, proxy, admin).await,
            Order::StopDashboard => setup.dashboard.signal("STOP"),
            Order::ContinueDashboard => setup.dashboard.signal("CONT"),
            Order::KillDashboard => setup.dashboard.kill().await,
            Order::StartDashboard => setup.dashboard = dashboard(&admin_url, page_port).await,
        }
        if done.send(()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn the_loss_of_the_balancer_shows_within_three_seconds_and_mends_itself() {
    let setup = Setup::start().await;
    let url = setup.url();
    let (order, orders) = mpsc::channel(1);
    let (done_tx, mut done) = mpsc::channel(1);
    let hands = tokio::spawn(obey(setup, orders, done_tx));
    browse("loss", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        page.until("it is live", LIVE).await;

        order.send(Order::KillBalancer).await.unwrap_or_else(|_| panic!("nobody obeys"));
        done.recv().await.unwrap();
        page.within("the banner", &banner_says("connection refused"), WITHIN).await;
        let banner = page.text(".banner").await;
        for part in ["The load balancer is not there any more", "http://127.0.0.1:", "Trying again", "What you see is from"] {
            assert!(banner.contains(part), "no {part:?} in {banner}");
        }
        assert_eq!(page.eval("document.documentElement.dataset.link").await, "lost");
        assert!(page.text("#link").await.contains("Not live"));
        assert!(page.text("#verdict").await.contains("State not known"), "what was true is not claimed any more");
        let grey = page.eval("getComputedStyle(document.querySelector('.totals .value')).color === getComputedStyle(document.querySelector('.card h2')).color").await;
        assert_eq!(grey, true, "old figures look old");
        page.until("its age grows", "/Not live, [2-9]/.test(document.querySelector('#link').textContent)").await;
        page.picture("lost").await;

        order.send(Order::StartBalancer).await.unwrap_or_else(|_| panic!("nobody obeys"));
        done.recv().await.unwrap();
        page.within("it is live again", LIVE, Duration::from_secs(10)).await;
        assert!(page.text("#link").await.contains("Live"));
    })
    .await;
    hands.await.unwrap();
}

#[tokio::test]
async fn the_loss_of_the_dashboard_itself_shows_and_mends_itself() {
    let setup = Setup::start().await;
    let url = setup.url();
    let (order, orders) = mpsc::channel(1);
    let (done_tx, mut done) = mpsc::channel(1);
    let hands = tokio::spawn(obey(setup, orders, done_tx));
    browse("dashboard-loss", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        page.until("it is live", LIVE).await;

        // Gone: its connection is closed.
        order.send(Order::KillDashboard).await.unwrap_or_else(|_| panic!("nobody obeys"));
        done.recv().await.unwrap();
        page.within("the banner", &banner_says("lost its dashboard"), WITHIN).await;
        assert!(page.text(".banner").await.contains("cargo run --release --bin dashboard"));
        page.picture("dashboard-lost").await;
        order.send(Order::StartDashboard).await.unwrap_or_else(|_| panic!("nobody obeys"));
        done.recv().await.unwrap();
        page.within("it is live again", LIVE, Duration::from_secs(10)).await;

        // Silent: its connection stays open, as after a sleep, and only the watchdog can know.
        order.send(Order::StopDashboard).await.unwrap_or_else(|_| panic!("nobody obeys"));
        done.recv().await.unwrap();
        page.within("the watchdog's banner", &banner_says("lost its dashboard"), Duration::from_secs(6)).await;
        order.send(Order::ContinueDashboard).await.unwrap_or_else(|_| panic!("nobody obeys"));
        done.recv().await.unwrap();
        page.within("it is live again", LIVE, Duration::from_secs(10)).await;
    })
    .await;
    hands.await.unwrap();
}

/// A proxy that serves the page under `/ops/lb/` and takes that off before it passes a request on.
async fn proxy_with_prefix(upstream: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = e2e::raw::read_head(&mut client).await;
                if !head.starts_with("GET /ops/lb/") && !head.starts_with("PUT /ops/lb/") {
                    let _ = client
                        .write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                        .await;
                    return;
                }
                // One request a connection, so that the next one's path is seen, too.
                let head = head.replacen(" /ops/lb/", " /", 1).replacen("\r\n", "\r\nconnection: close\r\n", 1);
                let head = head.replace("Connection: keep-alive\r\n", "");
                let mut server = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                server.write_all(head.as_bytes()).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn the_page_works_under_any_path() {
    let setup = Setup::start().await;
    let port = proxy_with_prefix(setup.dashboard.port("url")).await;
    browse("base-path", |page| async move {
        page.open(&format!("http://127.0.0.1:{port}/ops/lb/"), DESK).await;
        page.ready().await;
        page.until("it is live", LIVE).await;
        page.click("[data-backend=alpha] [data-action=drain]").await;
        page.click("#confirm .primary").await;
        page.until("actions work", "document.querySelector('[data-backend=alpha]').dataset.state === 'draining'").await;
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
    assert_eq!(setup.backend("alpha").await["state"], "draining");
}

#[tokio::test]
async fn a_hidden_tab_lets_go_of_its_stream_and_is_fresh_when_seen_again() {
    let setup = Setup::start().await;
    let (url, port) = (setup.url(), setup.dashboard.port("url"));
    let watching = async move |number: u32| {
        e2e::eventually("as many pages are watching", async || {
            let metrics = e2e::http::get(port, "/metrics").await.text();
            metrics.contains(&format!("\ndashboard_browsers {number}\n")).then_some(())
        })
        .await;
    };
    browse("hidden", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        watching(1).await;
        // There is no real hiding without a window; the page cannot tell the difference.
        let hide = |hidden: bool| format!("(() => {{ Object.defineProperty(document, 'hidden', {{ value: {hidden}, configurable: true }}); document.dispatchEvent(new Event('visibilitychange')); return true }})()");
        page.eval(&hide(true)).await;
        watching(0).await;
        let tick = page.eval("Number(document.documentElement.dataset.tick)").await;
        page.eval(&hide(false)).await;
        page.until("news come again", &format!("Number(document.documentElement.dataset.tick) > {tick}")).await;
        watching(1).await;
    })
    .await;
}
