//! The page in a real browser: Chromium, without a window, driven through chromedriver.
//!
//! Where there is no chromedriver these tests say so and do nothing, except in CI (`CI=true`) or with
//! `E2E_REQUIRE_BROWSER=1`, where they fail. Pictures, also of failures, are written to `artifacts/`.

mod detail;
mod driver;
mod logic;
mod loss;
mod picture;
mod steering;
mod views;

use std::time::Duration;

use e2e::http::{self, Client};
use e2e::program::Program;
use serde_json::Value;
use tokio::task::JoinHandle;

pub(crate) use driver::browse;

/// Three servers with some latency, so that there is something in flight; a load balancer; a dashboard.
struct Setup {
    servers: Vec<Program>,
    balancer: Program,
    dashboard: Program,
}

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

impl Setup {
    async fn start() -> Self {
        let mut servers = Vec::new();
        for name in NAMES {
            servers.push(Program::start("server", &["--port", "0", "--name", name], &[]).await);
        }
        let balancer = balancer(&servers, 0, 0).await;
        let dashboard = dashboard(balancer.field("admin"), 0).await;
        let setup = Self { servers, balancer, dashboard };
        e2e::eventually("all backends are ready", async || {
            let status = setup.status().await;
            let backends = status["pools"][0]["backends"].as_array()?;
            backends.iter().all(|backend| backend["state"] == "ready").then_some(())
        })
        .await;
        setup
    }

    fn url(&self) -> String {
        format!("{}/", self.dashboard.field("url"))
    }

    /// What the load balancer says, `null` while it cannot be asked.
    async fn status(&self) -> Value {
        let answer = http::get(self.dashboard.port("url"), "/api/status").await;
        if answer.status == 200 { answer.json() } else { Value::Null }
    }

    /// The backend `name` as the load balancer sees it.
    async fn backend(&self, name: &str) -> Value {
        let status = self.status().await;
        let backends = status["pools"][0]["backends"].as_array().cloned().unwrap_or_default();
        backends.into_iter().find(|backend| backend["name"] == name).unwrap_or_default()
    }

    fn traffic(&self) -> Traffic {
        Traffic::start(self.balancer.port("proxy"))
    }
}

async fn dashboard(admin_url: &str, port: u16) -> Program {
    Program::start("dashboard", &["--port", &port.to_string(), "--admin-url", admin_url], &[]).await
}

async fn balancer(servers: &[Program], proxy_port: u16, admin_port: u16) -> Program {
    balancer_with(servers, proxy_port, admin_port, &[]).await
}

async fn balancer_with(servers: &[Program], proxy_port: u16, admin_port: u16, options: &[&str]) -> Program {
    let with_name = |(server, name): (&Program, &str)| format!("127.0.0.1:{},name={name}", server.port("url"));
    let backends: Vec<String> = servers.iter().zip(NAMES).map(with_name).collect();
    let (proxy, admin) = (proxy_port.to_string(), admin_port.to_string());
    let mut args = vec!["--bind", "127.0.0.1", "--port", &proxy, "--admin-port", &admin];
    for backend in &backends {
        args.extend(["--backend", backend]);
    }
    args.extend(options);
    Program::start("loadbalancer", &args, &[]).await
}

/// Clients that ask again and again until it is dropped.
struct Traffic {
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn start(port: u16) -> Self {
        Self { clients: (0..4).map(|_| tokio::spawn(ask_on(port, Duration::from_millis(25)))).collect() }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        for client in &self.clients {
            client.abort();
        }
    }
}

/// Some requests take a while, so that there are some in flight whenever one looks.
async fn ask_on(port: u16, pause: Duration) {
    loop {
        if let Ok(mut client) = Client::connect(port).await {
            for path in ["/", "/", "/delay/40", "/"].iter().cycle() {
                if client.get(path).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
        tokio::time::sleep(pause).await;
    }
}
