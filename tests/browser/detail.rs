//! One server alone on the page: why it is as it is, its last checks, what is under way, and whether it may be stopped.

use std::sync::Arc;

use e2e::http::{self, request};
use e2e::program::Program;
use e2e::raw;
use hyper::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::{NAMES, Setup, browse, dashboard, views};

const DESK: (u32, u32) = (1280, 900);
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

impl Setup {
    /// With these options for the load balancer and for the last server.
    async fn with(balancer_args: &[&str], last_server_args: &[&str]) -> Self {
        let mut servers = Vec::new();
        for name in NAMES {
            let last = if name == NAMES[2] { last_server_args } else { &[] };
            servers.push(Program::start("server", &[&["--port", "0", "--name", name], last].concat(), &[]).await);
        }
        let balancer = super::balancer_with(&servers, 0, 0, balancer_args).await;
        let dashboard = dashboard(balancer.field("admin"), 0).await;
        let setup = Self { servers, balancer, dashboard };
        for name in NAMES {
            setup.until(name, "it is ready", |backend| backend["state"] == "ready").await;
        }
        setup
    }

    /// The address that a colleague can be sent.
    fn address(&self, name: &str) -> String {
        format!("{}#/pools/default/backends/{name}", self.url())
    }

    async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        e2e::eventually(what, async || Some(self.backend(name).await).filter(|backend| holds(backend))).await
    }

    async fn checks(&self, name: &str) -> Value {
        let path = format!("/api/pools/default/backends/{name}/checks");
        let answer = http::get(self.dashboard.port("url"), &path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    async fn put(&self, name: &str, state: &str) {
        let port = self.dashboard.port("url");
        let (host, origin) = (format!("localhost:{port}"), format!("http://localhost:{port}"));
        let headers = [("host", &*host), ("origin", &*origin), ("content-type", "application/json")];
        let path = format!("/api/pools/default/backends/{name}/state");
        let answer =
            http::send(port, request(Method::PUT, &path, &headers, format!("{{\"state\":\"{state}\"}}"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Options with which something happens while one looks.
fn quick_checks() -> String {
    let path = e2e::program::scratch_dir().join("quick-checks.toml");
    let text = "[health]\ninterval = \"400ms\"\nfast_interval = \"400ms\"\ndown_interval = \"400ms\"\n";
    std::fs::write(&path, text).expect("a file can be written");
    path.display().to_string()
}

fn reads(selector: &str, words: &str) -> String {
    format!("document.querySelector('{selector}').textContent.includes({words:?})")
}

/// A fact's answer and its note, by what is asked.
fn fact(term: &str) -> String {
    format!("[data-fact=\"{term}\"] dd")
}

#[tokio::test]
async fn a_server_that_is_down_tells_why_since_when_and_when_the_next_try_is() {
    let mut setup = Setup::with(&["--config", &quick_checks()], &[]).await;
    setup.servers[1].kill().await;
    let down = setup.until("beta", "it is down", |backend| backend["state"] == "down").await;
    setup.until("beta", "some checks have failed", |backend| backend["check"]["failed_total"].as_u64() > Some(3)).await;
    let setup = Arc::new(setup);
    let inside = Arc::clone(&setup);
    browse("detail-down", |page| async move {
        page.open(&inside.address("beta"), DESK).await;
        page.ready().await;
        assert_eq!(page.text("#detail-title").await, "beta");
        page.until("its checks are read", &reads(".explanation", "the next check is")).await;
        let why = page.text(".explanation").await;
        for part in ["Down for ", "connection refused", "in a row bring it back", "the last pass was"] {
            assert!(why.contains(part), "no {part:?} in {why}");
        }
        assert!(page.text(".detail-head").await.contains("Down"));
        assert_eq!(page.text(&fact("New requests")).await, "None");
        assert!(page.text(&fact("Since")).await.contains(" s"), "since when");
        let next = page.text(&fact("Next check")).await;
        assert!(next.starts_with("In ") || next == "Due now", "{next}");
        assert!(page.text(&fact("Last check")).await.starts_with("Connection refused"));
        assert!(page.text(".safety").await.contains("may again by itself"), "down is not the way out");

        // The table and the strip show what the load balancer has, newest first and oldest first.
        let rows = "[...document.querySelectorAll('.results tbody tr')].map((row) => row.dataset.result).reverse()";
        let slots = "[...document.querySelectorAll('.slots .slot')].map((slot) => slot.dataset.result).filter(Boolean)";
        e2e::eventually("each result is a row and a slot", async || {
            let known = inside.checks("beta").await;
            let results = known["results"].as_array()?;
            let word = |result: &Value| if result["passed"] == true { "passed" } else { "failed" };
            let wanted: Value = results.iter().map(word).collect();
            (page.eval(rows).await == wanted && page.eval(slots).await == wanted).then_some(())
        })
        .await;
        let newest = page.text(".results tbody tr").await;
        for part in ["Failed", "connection refused", "ms"] {
            assert!(newest.contains(part), "no {part:?} in {newest}");
        }
        assert!(newest.contains(" ago") || newest.contains(" just now"), "{newest}");
        let label = page.eval("document.querySelector('.slots').getAttribute('aria-label')").await;
        let label = label.as_str().expect("the strip says in words what it shows");
        assert!(label.contains("failed (connection refused)") && label.contains("passed"), "{label}");

        // Its own events, and nobody else's.
        let events = page.text(".history-panel").await;
        assert!(events.contains("down: connection refused"), "{events}");
        assert!(!events.contains("alpha") && !events.contains("gamma"), "{events}");
        assert_eq!(page.eval("document.title").await, "beta is down – Load balancer");

        // It goes on while it is looked at.
        let seen = page.text(".results tbody time").await;
        page.until(
            "a newer check comes",
            &format!("document.querySelector('.results tbody time').textContent !== '{seen}'"),
        )
        .await;
        page.picture("detail-down").await;
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
    let after = setup.backend("beta").await;
    assert_eq!((&after["admin"], &after["since_unix_ms"]), (&down["admin"], &down["since_unix_ms"]), "looking is free");
}

#[tokio::test]
async fn a_drain_shows_what_is_left_until_it_is_safe_to_stop() {
    let setup = Arc::new(Setup::with(&["--drain-deadline", "90s", "--drain-at-deadline", "close"], &[]).await);
    let proxy = setup.balancer.port("proxy");
    let mut held = raw::connect(proxy).await;
    held.write_all(b"GET /delay/60000 HTTP/1.1\r\nHost: held\r\n\r\n").await.expect("the request is sent");
    let name = e2e::eventually("somebody has the request", async || {
        for name in NAMES {
            if setup.backend(name).await["traffic"]["in_flight"] == 1 {
                return Some(name);
            }
        }
        None
    })
    .await;
    setup.put(name, "drain").await;
    let inside = Arc::clone(&setup);
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let release = tokio::spawn(async move {
        told.await.expect("the page shows it");
        raw::reset(held);
    });
    browse("detail-drain", |page| async move {
        page.open(&inside.address(name), DESK).await;
        page.ready().await;
        let verdict = |word: &str| format!("document.querySelector('.safety').dataset.verdict === '{word}'");
        page.until("it is not safe", &verdict("wait")).await;
        page.until("by kind", "document.querySelector('[data-kind=Requests] dd').textContent === '1'").await;
        page.until("its age is known", "/^\\d+.s$/.test(document.querySelector('[data-kind=Oldest] dd').textContent)")
            .await;
        let safety = page.text(".safety").await;
        for part in
            ["Not safe to stop yet", "1 request in flight", "Taken out at", "Deadline in", "is closed", "wait-drained"]
        {
            assert!(safety.contains(part), "no {part:?} in {safety}");
        }
        let share = page.eval("document.querySelector('.safety progress').value").await.as_f64().expect("a share");
        assert!(share > 0.0 && share < 1.0, "{share}");
        page.picture("detail-draining").await;

        tell.send(()).expect("somebody waits");
        page.until("it is safe", &verdict("safe")).await;
        assert!(page.text(".safety").await.starts_with("Safe to stop now"));
        assert_eq!(page.eval("document.querySelector('.safety progress').checkVisibility()").await, false);
        page.until("it is said aloud", &reads("#announcer", "is safe to stop now")).await;
        page.until("it is an event", &reads(".history-panel", "safe to stop now")).await;
        page.picture("detail-safe").await;
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
    release.await.expect("the request is let go");
}

#[tokio::test]
async fn nothing_is_called_safe_when_the_load_balancer_is_gone() {
    let mut setup = Setup::with(&[], &[]).await;
    setup.put("alpha", "drain").await;
    setup.until("alpha", "it is safe", |backend| backend["drain"]["safe_to_stop"] == true).await;
    let url = setup.address("alpha");
    let (tell, told) = tokio::sync::oneshot::channel::<()>();
    let kill = tokio::spawn(async move {
        told.await.expect("the page is open");
        setup.balancer.kill().await;
        setup
    });
    browse("detail-lost", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        page.until("it is safe", &reads(".safety", "Safe to stop now")).await;
        tell.send(()).expect("somebody waits");
        page.until("it is not known any more", &reads(".safety", "not known")).await;
        assert!(!page.text(".safety").await.contains("Safe to stop now"));
        assert!(page.text(".banner").await.contains("not there any more"));
        page.picture("detail-lost").await;
        page.click(".crumbs a").await;
        page.until("nor among the others", &reads("[data-backend=alpha] .safe", "when last heard of")).await;
    })
    .await;
    drop(kill.await.expect("it was killed"));
}

#[tokio::test]
async fn an_ejection_says_its_cause_its_end_and_then_how_slowly_it_starts() {
    let setup = Setup::with(&["--slow-start", "60s"], &["--faults", "reset-before=100%"]).await;
    let proxy = setup.balancer.port("proxy");
    e2e::eventually("it is ejected", async || {
        http::get(proxy, "/").await;
        (setup.backend("gamma").await["state"] == "ejected").then_some(())
    })
    .await;
    let url = setup.address("gamma");
    browse("detail-ejected", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        page.until("its checks are read", &reads(".explanation", "by its checks up")).await;
        let why = page.text(".explanation").await;
        assert!(why.contains("Ejected: ") && why.contains("errors in a row; back in"), "{why}");
        let ejection = page.text(&fact("Ejection")).await;
        assert!(ejection.starts_with("Ends ") && ejection.contains("1 for errors in a row"), "{ejection}");
        assert!(page.text(".around-panel").await.contains("gamma ejected"));
        page.picture("detail-ejected").await;
        // The operator ends it here, with the buttons of this very view.
        page.click("#detail [data-action=ready]").await;
        page.until("it asks", "document.querySelector('#confirm').open").await;
        page.click("#confirm .primary").await;
        page.until("it starts slowly", &reads(&fact("New requests"), "of its share")).await;
        assert!(page.text(&fact("New requests")).await.contains("slow start"));
        assert!(page.text(&fact("Ejection")).await.starts_with("Not now"));
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn there_and_back_by_keyboard_with_the_focus_where_it_belongs() {
    let setup = Setup::with(&[], &[]).await;
    let url = setup.url();
    browse("detail-keyboard", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        assert_eq!(page.eval("document.querySelector('#detail').checkVisibility()").await, false);
        let on_link = "document.activeElement?.matches('a.name') && document.activeElement.textContent === 'beta'";
        let mut steps = 0;
        while page.eval(on_link).await != Value::Bool(true) {
            steps += 1;
            assert!(steps < 60, "Tab never reaches the link");
            page.keys(TAB).await;
        }
        page.keys(ENTER).await;
        page.until("the view is there", "document.querySelector('#detail').checkVisibility()").await;
        assert_eq!(page.eval("location.hash").await, "#/pools/default/backends/beta");
        assert_eq!(page.eval("document.querySelector('#pools').checkVisibility()").await, false);
        let focused = "document.activeElement.id === 'detail-title' && document.activeElement.textContent === 'beta'";
        page.until("the focus is on its name", focused).await;
        let tick = page.eval("Number(document.documentElement.dataset.tick)").await;
        page.until("ticks go on", &format!("Number(document.documentElement.dataset.tick) > {tick} + 1")).await;
        assert_eq!(page.eval(focused).await, true, "and an update does not take it away");

        // The skip link skips to the content, and does not leave the view.
        page.run("document.querySelector('#skip').focus()").await;
        page.keys(ENTER).await;
        page.until("it skips", "document.activeElement.id === 'detail'").await;
        assert_eq!(page.eval("location.hash").await, "#/pools/default/backends/beta");

        page.run("history.back()").await;
        page.until("all are there again", "document.querySelector('#pools').checkVisibility()").await;
        page.until("the focus is back on the link", on_link).await;
        page.until("the charts are drawn", "document.querySelectorAll('.chart canvas').length === 2").await;

        page.click("#events a").await;
        page.until("an event leads there too", "location.hash.includes('/backends/')").await;
        page.click(".crumbs a").await;
        page.until("and the way back is a link", "location.hash === '#/'").await;
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn an_address_of_nobody_says_who_there_is() {
    let setup = Setup::with(&[], &[]).await;
    let url = setup.address("omega%3Cb%3E");
    browse("detail-missing", |page| async move {
        page.open(&url, DESK).await;
        page.ready().await;
        let text = page.text(".missing").await;
        for part in ["No such backend", "omega<b>", "pool default has alpha, beta, gamma"] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert_eq!(page.complaints().await, Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn it_fits_every_screen_in_light_and_dark_and_keeps_still_when_paused() {
    let mut setup = Setup::with(&["--config", &quick_checks()], &[]).await;
    setup.servers[1].kill().await;
    setup.until("beta", "it is down", |backend| backend["state"] == "down").await;
    setup.put("alpha", "drain").await;
    let (down, drained) = (setup.address("beta"), setup.address("alpha"));
    browse("detail-screens", |page| async move {
        for (url, what) in [(&down, "down"), (&drained, "drained")] {
            page.open(url, DESK).await;
            page.ready().await;
            page.until("its checks are read", "document.querySelectorAll('.results tbody tr').length > 2").await;
            for (width, height, scheme) in [
                (1280, 900, "light"),
                (1280, 900, "dark"),
                (820, 1180, "light"),
                (390, 844, "dark"),
                (320, 640, "light"),
            ] {
                page.screen((width, height), scheme).await;
                let name = format!("detail-{what}-{width}-{scheme}");
                page.until("it has that width", &format!("innerWidth === {width}")).await;
                let sideways =
                    page.eval("[document.documentElement.scrollWidth, document.documentElement.clientWidth]").await;
                assert!(sideways[0].as_u64() <= sideways[1].as_u64(), "{name} scrolls sideways: {sideways}");
                assert_eq!(page.eval(views::SMALL_TARGETS).await, serde_json::json!([]), "{name}: too small to hit");
                assert_eq!(page.eval(views::LOW_CONTRAST).await, serde_json::json!([]), "{name}: too faint to read");
                page.picture(&name).await;
            }
        }
        page.open(&down, DESK).await;
        page.ready().await;
        page.until("its checks are read", "document.querySelectorAll('.results tbody tr').length > 2").await;
        page.click("#pause").await;
        page.until("it is paused", "document.documentElement.dataset.link === 'paused'").await;
        let shown = "document.querySelector('#detail').textContent";
        let before = page.eval(shown).await;
        // Some checks and two ticks come in behind it.
        tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
        assert_eq!(page.eval(shown).await, before, "nothing moves");
        // What is asked for is shown all the same.
        page.run("location.hash = '#/pools/default/backends/alpha'").await;
        page.until("the other one is shown", "document.querySelector('#detail-title').textContent === 'alpha'").await;
        page.until("with its checks", &reads(".explanation", "Draining; up for")).await;
        page.until("a page that stands still promises nothing", &reads(".safety", "not known")).await;
        page.click("#pause").await;
        page.until("and says it when it goes on", &reads(".safety", "Safe to stop now")).await;
    })
    .await;
}
