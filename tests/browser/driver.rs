//! One Chromium with one page, and what a test can do with it.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::program::{scratch_dir, workspace_root};
use serde_json::{Value, json};
use thirtyfour::common::capabilities::chromium::ChromiumLikeCapabilities;
use thirtyfour::{By, ChromeCapabilities, DesiredCapabilities, LoggingPrefsLogLevel, WebDriver, WebElement};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::task::{LocalSet, spawn_local};

const CHROMEDRIVER: &str = "chromedriver";

/// Nothing of the machine's own browser, no background traffic, and what a container needs.
const FLAGS: [&str; 9] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Small shared memory is what containers have.
    "--disable-dev-shm-usage",
];

/// A page under test.
#[derive(Clone)]
pub(crate) struct Page {
    driver: WebDriver,
}

/// Runs `test` with a browser of its own, and ends the browser whatever happens.
pub(crate) async fn browse<F>(name: &str, test: impl FnOnce(Page) -> F)
where
    F: Future<Output = ()> + 'static,
{
    let Some((mut chromedriver, port)) = chromedriver().await else { return };
    let driver = WebDriver::new(format!("http://127.0.0.1:{port}"), capabilities()).await.expect("Chromium starts");
    let page = Page { driver: driver.clone() };
    // A task of its own, so that a panic in it comes back as a value.
    let outcome = LocalSet::new().run_until(async { spawn_local(test(page.clone())).await }).await;
    if outcome.is_err() {
        page.picture(&format!("failed-{name}")).await;
    }
    // Chromium ends with its session; only then may its driver.
    driver.quit().await.expect("Chromium ends");
    chromedriver.kill().await.expect("chromedriver ends");
    if let Err(error) = outcome {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// chromedriver on a free port, or `None` where there is none and none is required.
async fn chromedriver() -> Option<(Child, u16)> {
    let started = Command::new(CHROMEDRIVER)
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let required = ["CI", "E2E_REQUIRE_BROWSER"]
                .iter()
                .any(|name| std::env::var(name).is_ok_and(|value| !matches!(value.as_str(), "" | "0" | "false")));
            assert!(!required, "no chromedriver ({error}): apt-get install chromium chromium-driver");
            eprintln!("skipped: no chromedriver ({error}): apt-get install chromium chromium-driver");
            return None;
        }
    };
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let port = async {
        while let Some(line) = lines.next_line().await.expect("chromedriver prints text") {
            if let Some((_, port)) = line.split_once("started successfully on port ") {
                return port.trim_end_matches('.').parse().expect("a port");
            }
        }
        panic!("chromedriver ended before it was ready");
    };
    let port = tokio::time::timeout(e2e::PATIENCE, port).await.expect("chromedriver starts in time");
    Some((child, port))
}

fn capabilities() -> ChromeCapabilities {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let profile = scratch_dir().join(format!("chromium-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    let mut capabilities = DesiredCapabilities::chrome();
    for flag in FLAGS {
        capabilities.add_arg(flag).expect("a flag is text");
    }
    capabilities.add_arg(&format!("--user-data-dir={}", profile.display())).expect("a flag is text");
    capabilities.set_browser_log_level(LoggingPrefsLogLevel::All).expect("a level is text");
    capabilities
}

impl Page {
    /// Opens `url`, as a screen of that size would show it.
    pub(crate) async fn open(&self, url: &str, (width, height): (u32, u32)) {
        self.screen((width, height), "light").await;
        self.driver.goto(url).await.expect("the page loads");
    }

    /// Waits until the page shows figures.
    pub(crate) async fn ready(&self) {
        self.until("the page is ready", "document.documentElement.dataset.ready === 'true'").await;
    }

    /// Turns the screen into another one.
    pub(crate) async fn screen(&self, (width, height): (u32, u32), scheme: &str) {
        let phone = width < 600;
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": if phone { 2 } else { 1 }, "mobile": phone});
        let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.cdp("Emulation.setDeviceMetricsOverride", metrics).await;
        self.cdp("Emulation.setEmulatedMedia", media).await;
    }

    pub(crate) async fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.driver.cdp().send_raw(command, parameters).await.unwrap_or_else(|e| panic!("{command}: {e}"))
    }

    /// The value of a JavaScript expression.
    pub(crate) async fn eval(&self, expression: &str) -> Value {
        let script = format!("return ({expression})");
        let result = self.driver.execute(script.as_str(), Vec::new()).await;
        result.unwrap_or_else(|e| panic!("{expression}: {e}")).json().clone()
    }

    /// The value that a JavaScript function body resolves to; it may `await`.
    pub(crate) async fn run(&self, body: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; (async () => {{ {body} }})().then(done, (error) => done('failed: ' + error + error.stack));"
        );
        self.driver.execute_async(script.as_str(), Vec::new()).await.expect("the script ends").json().clone()
    }

    /// Waits until a JavaScript expression is true.
    pub(crate) async fn until(&self, what: &str, expression: &str) {
        self.within(what, expression, e2e::PATIENCE).await;
    }

    /// Waits until a JavaScript expression is true, at most `limit`; says how long it took.
    pub(crate) async fn within(&self, what: &str, expression: &str, limit: Duration) -> Duration {
        let began = tokio::time::Instant::now();
        while self.eval(expression).await != Value::Bool(true) {
            assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        began.elapsed()
    }

    /// What a person reads in the first element that `selector` finds.
    pub(crate) async fn text(&self, selector: &str) -> String {
        self.find(selector).await.text().await.expect("an element has text")
    }

    /// A real click: it fails when something lies over the element.
    pub(crate) async fn click(&self, selector: &str) {
        self.find(selector).await.click().await.unwrap_or_else(|e| panic!("cannot click {selector}: {e}"));
    }

    /// Keys, as typed by a person, to whatever has the focus.
    pub(crate) async fn keys(&self, keys: &str) {
        self.driver.action_chain().send_keys(keys).perform().await.expect("keys are typed");
    }

    async fn find(&self, selector: &str) -> WebElement {
        self.driver.find(By::Css(selector)).await.unwrap_or_else(|e| panic!("{selector}: {e}"))
    }

    /// Saves what is to be seen as `artifacts/NAME.png`, and says where.
    pub(crate) async fn picture(&self, name: &str) -> PathBuf {
        let dir = workspace_root().join("artifacts");
        std::fs::create_dir_all(&dir).expect("artifacts/ can be made");
        let path = dir.join(format!("{name}.png"));
        self.driver.screenshot(&path).await.expect("a picture is taken");
        path
    }

    /// Everything that the browser complained about since the last time.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let entries = self.driver.browser_log().await.expect("the browser's log");
        entries.into_iter().filter(|entry| entry.level == "SEVERE").map(|entry| entry.message).collect()
    }
}
