//! The `server` program: every promise it makes, over real sockets.

mod answers;
mod bodies;
mod faults;
mod refuse;
mod start;
mod stop;

use e2e::http;
use e2e::program::Program;

/// A server on a free port, with these options.
async fn server(args: &[&str]) -> (Program, u16) {
    let program = Program::start("server", &[&["--port", "0"], args].concat(), &[]).await;
    let port = program.port("url");
    (program, port)
}

/// The value of one series on `/metrics`, 0 when it is not there.
async fn metric(port: u16, series: &str) -> f64 {
    let page = http::get(port, "/metrics").await.text();
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().expect("a number"))
}
