//! The `dashboard` program: every promise its server makes, with the real load balancer and servers behind it. What
//! the page does with it is in `browser`.

mod actions;
mod checks;
mod guard;
mod live;
mod page;
mod start;

use std::time::Duration;

use bytes::Bytes;
use e2e::http::{self, Answer, request};
use e2e::program::Program;
use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A dashboard on a free port, for a load balancer at `admin_url`.
async fn dashboard(admin_url: &str, args: &[&str], env: &[(&str, &str)]) -> Program {
    Program::start("dashboard", &[&["--port", "0", "--admin-url", admin_url], args].concat(), env).await
}

/// A dashboard of which only its own server matters: nobody listens where it looks for a load balancer.
async fn alone(args: &[&str]) -> (Program, u16) {
    // Port 1 of loopback: refused at once, and nothing else takes it meanwhile.
    let program = dashboard("http://127.0.0.1:1", args, &[]).await;
    let port = program.port("url");
    (program, port)
}

/// Three servers, a load balancer and a dashboard.
struct Setup {
    servers: Vec<Program>,
    balancer: Program,
    dashboard: Program,
}

impl Setup {
    async fn start() -> Self {
        let mut servers = Vec::new();
        for name in ["alpha", "beta", "gamma"] {
            servers.push(Program::start("server", &["--port", "0", "--name", name], &[]).await);
        }
        let balancer = balancer(&servers, 0, 0).await;
        let dashboard = dashboard(balancer.field("admin"), &[], &[]).await;
        Self { servers, balancer, dashboard }
    }

    fn port(&self) -> u16 {
        self.dashboard.port("url")
    }

    /// What the load balancer itself says about the backend `name`.
    async fn backend(&self, name: &str) -> Value {
        let status = http::get(self.port(), "/api/status").await.json();
        find(&status, name)
    }
}

/// A load balancer before `servers`; with port 0 on free ports.
async fn balancer(servers: &[Program], proxy_port: u16, admin_port: u16) -> Program {
    let backends: Vec<String> = servers
        .iter()
        .zip(["alpha", "beta", "gamma"])
        .map(|(server, name)| format!("127.0.0.1:{},name={name}", server.port("url")))
        .collect();
    let (proxy, admin) = (proxy_port.to_string(), admin_port.to_string());
    let mut args = vec!["--bind", "127.0.0.1", "--port", &proxy, "--admin-port", &admin];
    for backend in &backends {
        args.extend(["--backend", backend]);
    }
    Program::start("loadbalancer", &args, &[]).await
}

/// The backend `name` of a status or delta, whichever pool it is in; null when it is not there.
fn find(status: &Value, name: &str) -> Value {
    let pools = status["pools"].as_array().expect("pools");
    let mut backends = pools.iter().flat_map(|pool| pool["backends"].as_array().expect("backends"));
    backends.find(|backend| backend["name"] == name).cloned().unwrap_or_default()
}

/// Asks as the page does.
async fn put_state(port: u16, path: &str, state: &str) -> Answer {
    let host = format!("localhost:{port}");
    let origin = format!("http://{host}");
    let headers = [
        ("host", host.as_str()),
        ("origin", &origin),
        ("sec-fetch-site", "same-origin"),
        ("content-type", "application/json"),
    ];
    http::send(port, request(Method::PUT, path, &headers, format!("{{\"state\":\"{state}\"}}"))).await
}

/// The path of a backend's state in the dashboard's own API. The pool is looked up: its name is not ours to know.
async fn state_path(port: u16, name: &str) -> String {
    let status = http::get(port, "/api/status").await.json();
    let pool = status["pools"][0]["name"].as_str().expect("a pool").to_owned();
    format!("/api/pools/{pool}/backends/{name}/state")
}

/// An open page, as far as the dashboard can tell.
struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    async fn open(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connects");
        let handshake = hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream));
        let (mut sender, connection) = handshake.await.expect("speaks HTTP");
        tokio::spawn(connection);
        let response = sender.send_request(request(Method::GET, "/api/stream", &[], "")).await.expect("an answer");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event: its name and its data. `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let data = field("data").expect("every event has data");
                let parsed = serde_json::from_str(data).unwrap_or_else(|e| panic!("not JSON ({e}): {data}"));
                let found = (field("event").expect("every event has a name").to_owned(), parsed);
                self.text = rest.to_owned();
                return Some(found);
            }
            let frame = tokio::time::timeout(e2e::PATIENCE, self.body.frame()).await.expect("something in time")?;
            let data = frame.expect("the stream holds").into_data().expect("no trailers");
            self.text.push_str(std::str::from_utf8(&data).expect("text"));
        }
    }

    /// The next event of that name which `wanted` accepts; others are passed over.
    async fn until(&mut self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let search = async {
            loop {
                let (found, data) = self.next().await.expect("the stream goes on");
                if found == name && wanted(&data) {
                    return data;
                }
            }
        };
        tokio::time::timeout(e2e::PATIENCE, search).await.unwrap_or_else(|_| panic!("no such {name} in time"))
    }
}

/// The banner's promise.
const WITHIN: Duration = Duration::from_secs(3);
