//! The active health checker: how one check is made over sockets. The only part of this crate that does I/O.
//!
//! It promises an outcome within the time it is given, whatever the other side does, and bounded memory: a refusal, a
//! silence, garbage and an answer that never ends are failures with their class. It owns nothing but the connection
//! that it may keep between two checks of the same backend.

mod chunks;
mod dial;
mod exchange;
mod expect;
pub mod reply;
#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::api::ReasonCode;
use crate::backend::HostPort;
use crate::check::{CheckKind, CheckMethod, HttpCheck};
use crate::health::{Failure, Outcome, Pass, is_our_own};

use dial::Dialled;
pub use exchange::exchange;
use expect::Expectation;

/// Whether a connection was made from a port to the same port: TCP allows it, and a dead server on this machine whose
/// port happens to be chosen for the way out would seem alive.
pub fn is_to_itself(connection: &TcpStream) -> bool {
    is_same(connection.local_addr(), connection.peer_addr())
}

fn is_same(local: io::Result<SocketAddr>, peer: io::Result<SocketAddr>) -> bool {
    matches!((local, peer), (Ok(local), Ok(peer)) if local == peer)
}

/// How one backend is checked.
#[derive(Debug)]
pub struct Probe {
    /// The port that is checked instead of the one that requests go to.
    port: Option<u16>,
    /// What a connection begins with.
    greeting: Vec<u8>,
    http: Option<Http>,
}

/// A request that is sent again and again.
#[derive(Debug)]
struct Http {
    check: HttpCheck,
    request: Vec<u8>,
    /// Whether a connection is kept for the next check.
    reuse: bool,
    kept: Option<(TcpStream, SocketAddr)>,
}

impl Probe {
    /// A way to check the backend that is called `name`. `greeting` is what each connection to it begins with, `port`
    /// the one that is checked if it is not that of requests; `reuse` keeps the connection between checks over HTTP.
    pub fn new(name: &HostPort, kind: &CheckKind, port: Option<u16>, greeting: Vec<u8>, reuse: bool) -> Self {
        let http = match kind {
            CheckKind::Tcp => None,
            CheckKind::Http(check) => {
                let checked = HostPort { host: name.host.clone(), port: port.unwrap_or(name.port) };
                let host = check.host.clone().unwrap_or_else(|| checked.to_string());
                let request = request(check, &host, reuse);
                Some(Http { check: check.clone(), request, reuse, kept: None })
            }
        };
        Self { port, greeting, http }
    }

    /// Checks the first of `addresses` that takes a connection, until `deadline` at most, shared between all of them.
    /// Returns the outcome, and which of `addresses` it was.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    pub async fn check(&mut self, addresses: &[SocketAddr], deadline: Instant) -> (Outcome, Option<SocketAddr>) {
        let started = Instant::now();
        if let Some((outcome, address)) = self.check_again(addresses, started, deadline).await {
            return (outcome, Some(address));
        }
        let (connection, address) = match connect(addresses, self.port, deadline).await {
            Ok(connected) => connected,
            Err(outcome) => return (outcome, None),
        };
        let Some(http) = &mut self.http else {
            connection.greet(&self.greeting);
            return (Outcome::Passed(Pass { took: started.elapsed(), status: None }), Some(address));
        };
        let mut connection = match connection.into_watched() {
            Ok(connection) => connection,
            Err(error) => return (Outcome::NotTried(error.to_string()), None),
        };
        let _ = connection.set_nodelay(true);
        let sent = [&self.greeting[..], &http.request].concat();
        let (outcome, reusable) = http.ask(&mut connection, &sent, started, deadline).await;
        http.kept = reusable.then_some((connection, address));
        (outcome, Some(address))
    }

    /// Closes the connection that is kept for the next check, if any.
    pub fn let_go(&mut self) {
        if let Some(http) = &mut self.http {
            http.kept = None;
        }
    }

    /// The same over the connection of the last check, if there is one that still holds. `None` says that a new one is
    /// to be made: a server may close a connection at any moment (RFC 9112 §9.5), which says nothing about its health.
    async fn check_again(
        &mut self,
        addresses: &[SocketAddr],
        started: Instant,
        deadline: Instant,
    ) -> Option<(Outcome, SocketAddr)> {
        let http = self.http.as_mut()?;
        let (mut connection, address) = http.kept.take().filter(|(_, address)| addresses.contains(address))?;
        // A close, or bytes that nobody asked for.
        if !matches!(connection.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            return None;
        }
        let request = std::mem::take(&mut http.request);
        let (outcome, reusable) = http.ask(&mut connection, &request, started, deadline).await;
        http.request = request;
        if let Outcome::Failed(Failure { code: ReasonCode::Closed | ReasonCode::Reset, .. }) = outcome {
            return None;
        }
        http.kept = reusable.then_some((connection, address));
        Some((outcome, address))
    }
}

impl Http {
    /// Asks over `connection`. Returns the outcome, and whether the connection may be kept.
    async fn ask(
        &self,
        connection: &mut TcpStream,
        sent: &[u8],
        started: Instant,
        deadline: Instant,
    ) -> (Outcome, bool) {
        let mut expectation = Expectation::new(&self.check);
        let to_head = self.check.method == CheckMethod::Head;
        let answered = exchange(connection, sent, to_head, &mut expectation, started, deadline).await;
        match answered.and_then(|reusable| expectation.judge().map(|()| reusable)) {
            Ok(reusable) => {
                let pass = Pass { took: started.elapsed(), status: expectation.status };
                (Outcome::Passed(pass), reusable && self.reuse)
            }
            Err(failure) => (Outcome::Failed(failure), false),
        }
    }
}

/// RFC 9112 §3: what is sent. Every part was checked when the configuration was read.
fn request(check: &HttpCheck, host: &str, reuse: bool) -> Vec<u8> {
    let (method, target, version) = (check.method.as_str(), &check.target, env!("CARGO_PKG_VERSION"));
    let close = if reuse { "" } else { "Connection: close\r\n" };
    format!(
        "{method} {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: loadbalancer-check/{version}\r\nAccept: */*\r\n\
         {close}\r\n"
    )
    .into_bytes()
}

/// A connection to the first of `addresses` that takes one, at `port` if that is another.
async fn connect(
    addresses: &[SocketAddr],
    port: Option<u16>,
    deadline: Instant,
) -> Result<(Dialled, SocketAddr), Outcome> {
    let mut failure = None;
    for (tried, address) in addresses.iter().enumerate() {
        let checked = SocketAddr::new(address.ip(), port.unwrap_or_else(|| address.port()));
        // An address that swallows packets must not use up the time of those behind it.
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / (addresses.len() - tried) as u32;
        match timeout_at(now + share, Dialled::to(checked)).await {
            Ok(Ok(connection)) => return Ok((connection, *address)),
            Ok(Err(error)) if is_our_own(&error) => return Err(Outcome::NotTried(error.to_string())),
            Ok(Err(error)) => failure = Some(Failure::of_connect(&error)),
            Err(_) => failure = Some(Failure::connect_timeout(rounded(share))),
        }
    }
    let nothing = || Failure::new(ReasonCode::NotResolved, "no address");
    Err(Outcome::Failed(failure.unwrap_or_else(nothing)))
}

/// To whole milliseconds: what a person wrote, and not what the clock made of it.
fn rounded(duration: Duration) -> Duration {
    Duration::from_millis((duration.as_secs_f64() * 1000.0).round() as u64)
}
