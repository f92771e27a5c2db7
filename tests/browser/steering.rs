//! What an operator does on the page, with the mouse and with the keyboard alone.

use std::sync::Arc;

use serde_json::Value;

use super::{Setup, browse};

const DESK: (u32, u32) = (1280, 800);
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

fn shows(name: &str, word: &str) -> String {
    format!("document.querySelector('[data-backend={name}] .c-state .badge').textContent.includes('{word}')")
}

async fn is(setup: &Setup, name: &str, state: &str) {
    e2e::eventually("the load balancer agrees", async || (setup.backend(name).await["state"] == state).then_some(()))
        .await;
}

#[tokio::test]
async fn draining_asks_first_says_what_it_does_and_then_does_it() {
    let setup = Arc::new(Setup::start().await);
    let traffic = setup.traffic();
    let inside = Arc::clone(&setup);
    browse("drain", |page| async move {
        let setup = inside;
        page.open(&setup.url(), DESK).await;
        page.ready().await;

        page.click("[data-backend=alpha] [data-action=drain]").await;
        let asked = page.text("#confirm").await;
        for part in ["Drain alpha?", "2 of 3 stay in rotation", "in flight", "Cancel"] {
            assert!(asked.contains(part), "no {part:?} in {asked}");
        }
        page.picture("confirm").await;
        page.keys(ESCAPE).await;
        page.until("Escape means no", "!document.querySelector('#confirm').open").await;
        assert_eq!(setup.backend("alpha").await["state"], "ready");

        page.click("[data-backend=alpha] [data-action=drain]").await;
        page.click("#confirm .primary").await;
        page.until("the page shows it", &shows("alpha", "Draining")).await;
        page.until("the dialog is gone", "!document.querySelector('#confirm').open").await;
        is(&setup, "alpha", "draining").await;
        assert!(page.text("#toasts").await.contains("alpha"));
        page.until(
            "nothing is left in flight",
            "document.querySelector('[data-backend=alpha] .safe').textContent === 'Safe to stop now'",
        )
        .await;
        page.until("it is an event", "document.querySelector('#events').textContent.includes('drain')").await;
        page.picture("draining").await;

        page.click("[data-backend=alpha] [data-action=maintenance]").await;
        page.click("#confirm .primary").await;
        page.until("the page shows it", &shows("alpha", "Maintenance")).await;
        is(&setup, "alpha", "maintenance").await;
        page.until(
            "its checks stop",
            "document.querySelector('[data-backend=alpha] .c-check').textContent.includes('checks paused')",
        )
        .await;

        page.click("[data-backend=alpha] [data-action=ready]").await;
        page.click("#confirm .primary").await;
        is(&setup, "alpha", "ready").await;
        page.until("the page shows it", &shows("alpha", "Ready")).await;
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
    drop(traffic);
}

#[tokio::test]
async fn taking_out_the_last_backend_is_warned_about() {
    let setup = Arc::new(Setup::start().await);
    let inside = Arc::clone(&setup);
    browse("last-one", |page| async move {
        let setup = inside;
        page.open(&setup.url(), DESK).await;
        page.ready().await;
        for name in ["alpha", "beta"] {
            page.click(&format!("[data-backend={name}] [data-action=drain]")).await;
            assert!(!page.text("#confirm").await.contains("503"));
            page.click("#confirm .primary").await;
            page.until("it drains", &shows(name, "Draining")).await;
            page.until("the dialog is gone", "!document.querySelector('#confirm').open").await;
        }
        page.click("[data-backend=gamma] [data-action=drain]").await;
        let asked = page.text("#confirm").await;
        for part in ["Drain gamma?", "0 of 3 stay", "last backend", "503", "Drain anyway"] {
            assert!(asked.contains(part), "no {part:?} in {asked}");
        }
        page.picture("last-one").await;
        // Enter right away is no: the safe answer has the focus.
        page.keys(ENTER).await;
        page.until("the dialog is gone", "!document.querySelector('#confirm').open").await;
        assert_eq!(setup.backend("gamma").await["state"], "ready");

        page.click("[data-backend=gamma] [data-action=drain]").await;
        page.click("#confirm .primary").await;
        is(&setup, "gamma", "draining").await;
        page.until("the pool is down", "document.querySelector('.pool-head .badge').textContent === 'Down'").await;
        page.until("the headline says so", "document.querySelector('#verdict').textContent.includes('Down')").await;
        page.picture("down").await;
    })
    .await;
}

#[tokio::test]
async fn everything_works_with_the_keyboard_alone() {
    let setup = Arc::new(Setup::start().await);
    let inside = Arc::clone(&setup);
    browse("keyboard", |page| async move {
        let setup = inside;
        page.open(&setup.url(), DESK).await;
        page.ready().await;
        let wanted = "document.activeElement?.dataset.action === 'drain' && document.activeElement.closest('[data-backend]').dataset.backend === 'beta'";
        let mut steps = 0;
        while page.eval(wanted).await != Value::Bool(true) {
            steps += 1;
            assert!(steps < 60, "Tab never reaches the button");
            page.keys(TAB).await;
            let seen = "(() => { const style = getComputedStyle(document.activeElement); return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2 })()";
            assert_eq!(page.eval(seen).await, Value::Bool(true), "the focus is to be seen at step {steps}");
        }
        page.keys(ENTER).await;
        page.until("it asks", "document.querySelector('#confirm').open").await;
        page.keys(ENTER).await;
        page.until("it drains", &shows("beta", "Draining")).await;
        is(&setup, "beta", "draining").await;
        page.until("the dialog is gone", "!document.querySelector('#confirm').open").await;
        assert_eq!(page.eval(wanted).await, Value::Bool(true), "the focus is back where it was");
        // A tick later, too: an update must not take it away.
        let tick = page.eval("Number(document.documentElement.dataset.tick)").await;
        page.until("the next tick", &format!("Number(document.documentElement.dataset.tick) > {tick}")).await;
        assert_eq!(page.eval(wanted).await, Value::Bool(true), "the focus stays");
    })
    .await;
}

#[tokio::test]
async fn a_change_that_fails_is_said_in_words() {
    let mut setup = Setup::start().await;
    let url = setup.url();
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let (done, gone) = tokio::sync::oneshot::channel::<()>();
    let kill = tokio::spawn(async move {
        told.await.expect("the dialog is open");
        setup.balancer.kill().await;
        done.send(()).expect("somebody waits");
        setup
    });
    browse("failure", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        page.click("[data-backend=alpha] [data-action=drain]").await;
        tell.send(()).expect("somebody waits");
        gone.await.expect("the load balancer is killed");
        page.click("#confirm .primary").await;
        page.until("it says so", "document.querySelector('#confirm .failure').textContent.includes('Not done: ')")
            .await;
        let failure = page.text("#confirm .failure").await;
        assert!(failure.contains("connection refused"), "{failure}");
        assert_eq!(page.eval("document.querySelector('#confirm').open").await, true, "it can be tried again");
        page.picture("failure").await;
    })
    .await;
    drop(kill);
}
