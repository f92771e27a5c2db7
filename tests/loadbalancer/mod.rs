//! The load balancer, as its users and their servers see it.

mod access;
mod admin;
mod balancing;
mod checks;
mod config_files;
mod connections;
mod deadlines;
mod drain;
mod ejection;
mod exchange;
mod failover;
mod forwarding;
mod health;
mod idle;
mod limits;
mod load;
mod options;
mod overload;
mod panic;
mod policies;
mod proxy_protocol;
mod queue;
mod rate_limit;
mod retries;
mod rfc;
mod shutdown;
mod slow_start;
mod streams;
mod systemd;
mod timeouts;
mod upgrade;

use e2e::http::{self, Answer};
use e2e::program::Program;
use hyper::Method;
use serde_json::Value;

/// The token that tests give the balancer.
const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Checks so fast that a test sees several; the intervals' own defaults are tested in lb-core.
const FAST_CHECKS: [&str; 4] = ["--check-interval", "200ms", "--check-fast-interval", "50ms"];

/// A balancer before some backends.
struct Balancer {
    program: Program,
}

impl Balancer {
    /// Starts one with free ports, two workers and fast checks; `args` come last.
    async fn start(backends: &[String], args: &[&str]) -> Self {
        Self::start_with(backends, args, &[]).await
    }

    async fn start_with(backends: &[String], args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut all = vec!["--port", "0", "--admin-port", "0", "--workers", "2"];
        all.extend(FAST_CHECKS);
        for backend in backends {
            all.extend(["--backend", backend]);
        }
        all.extend(args);
        let env = [&[("ADMIN_TOKEN", TOKEN)], env].concat();
        Self { program: Program::start("loadbalancer", &all, &env).await }
    }

    fn port(&self) -> u16 {
        self.program.port("proxy")
    }

    fn admin_port(&self) -> u16 {
        self.program.port("admin")
    }

    async fn get(&self, path: &str) -> Answer {
        http::get(self.port(), path).await
    }

    /// A request to the admin API, with the token.
    async fn admin(&self, method: Method, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let request = http::request(method, path, &[("authorization", &bearer)], body.to_owned());
        http::send(self.admin_port(), request).await
    }

    async fn status(&self) -> Value {
        self.admin(Method::GET, "/v1/status", "").await.json()
    }

    /// One backend's row of the status.
    async fn backend(&self, name: &str) -> Value {
        let status = self.status().await;
        let backends = status["pools"][0]["backends"].as_array().expect("a list of backends").clone();
        backends.into_iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no backend {name}"))
    }

    async fn set_state(&self, name: &str, state: &str) -> Answer {
        let path = format!("/v1/pools/default/backends/{name}/state");
        self.admin(Method::PUT, &path, &format!("{{\"state\":\"{state}\"}}")).await
    }

    /// Waits until a backend is in `state`, and returns its row.
    async fn wait_for_state(&self, name: &str, state: &str) -> Value {
        e2e::eventually(&format!("{name} is {state}"), async || {
            let row = self.backend(name).await;
            (row["state"] == state).then_some(row)
        })
        .await
    }
}

/// Starts a server named `name` on a free port, and how the balancer is told of it.
async fn server(name: &str) -> (Program, String) {
    server_on(name, 0).await
}

async fn server_on(name: &str, port: u16) -> (Program, String) {
    let port = port.to_string();
    let server = Program::start("server", &["--port", &port, "--name", name, "--faults", "none"], &[]).await;
    let backend = format!("127.0.0.1:{},name={name}", server.port("url"));
    (server, backend)
}

/// Three servers `a`, `b`, `c`.
async fn servers() -> (Vec<Program>, Vec<String>) {
    let (mut programs, mut backends) = (Vec::new(), Vec::new());
    for name in ["a", "b", "c"] {
        let (program, backend) = server(name).await;
        programs.push(program);
        backends.push(backend);
    }
    (programs, backends)
}

/// A port that nothing listens on, for a moment at least.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    listener.local_addr().expect("a bound listener has an address").port()
}
