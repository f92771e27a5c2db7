//! The README's picture of the dashboard, taken on request: `UPDATE_PICTURE=1`.

use std::f64::consts::TAU;
use std::time::{Duration, Instant};

use e2e::http::Client;
use e2e::program::workspace_root;

use super::{Setup, browse};

/// The charts show five minutes; a picture of a page that has just been opened would show empty ones.
const HISTORY: Duration = Duration::from_secs(305);
/// Each client's average pause between two requests.
const PAUSE_S: f64 = 0.05;
/// One wave of traffic.
const WAVE_S: f64 = 140.0;

#[tokio::test]
async fn the_picture_of_the_readme() {
    if std::env::var("UPDATE_PICTURE").as_deref() != Ok("1") {
        eprintln!("skipped: takes five minutes; set UPDATE_PICTURE=1 for a new picture");
        return;
    }
    let setup = Setup::start().await;
    let (url, proxy) = (setup.url(), setup.balancer.port("proxy"));
    let began = Instant::now();
    let clients: Vec<_> = (0..8).map(|number| tokio::spawn(wave(proxy, began, number))).collect();
    browse("picture", |page| async move {
        page.open(&url, (1280, 800)).await;
        page.ready().await;
        tokio::time::sleep(HISTORY / 2).await;
        for action in ["drain", "ready"] {
            page.click(&format!("[data-backend=beta] [data-action={action}]")).await;
            page.click("#confirm .primary").await;
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        tokio::time::sleep(HISTORY.saturating_sub(began.elapsed())).await;
        page.eval("document.activeElement.blur()").await;
        page.cdp("Emulation.setScrollbarsHidden", serde_json::json!({"hidden": true})).await;
        // The page draws once a second; the charts have to have heard of their new width.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let taken = page.picture("dashboard").await;
        std::fs::copy(taken, workspace_root().join("crates/dashboard/docs/dashboard.png"))
            .expect("the picture is kept");
    })
    .await;
    for client in clients {
        client.abort();
    }
}

/// A client whose pauses swell and shrink, with something slow now and then.
async fn wave(port: u16, began: Instant, number: u32) {
    let Ok(mut client) = Client::connect(port).await else { return };
    for turn in 0_u32.. {
        let swell = 1.0 + 0.4 * (began.elapsed().as_secs_f64() / WAVE_S * TAU).sin();
        let path = match (turn + number * 7) % 40 {
            0 => "/delay/12",
            1..4 => "/delay/4",
            _ => "/",
        };
        if client.get(path).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_secs_f64(PAUSE_S / swell)).await;
    }
}
