//! The backend that people test a load balancer against: small, fast, and broken on demand.
//!
//! - [`cli`]: options; [`logging`]: the log
//! - `listen`, `accept`, `conn`: from the socket to hyper; `stop`: and back
//! - `serve`: one request; `routes`: what it is answered; `faults`: what befalls it instead
//! - `body`, `upload`, `reply`, `exchange`: what a request and its answer are made of
//! - `metrics`, `notify`: who is told
//!
//! Every answer to a request carries `X-Served-By`. Bytes that are no request are refused by hyper itself (400, 431),
//! which leaves no room for a header of ours.
//!
//! It shares no code with the load balancer: an origin must not share its bugs. The program runs on one thread; a
//! second core is for the load balancer.

mod accept;
mod app;
mod body;
pub mod cli;
mod conn;
mod duration;
mod exchange;
mod faults;
mod holder;
mod listen;
pub mod logging;
mod metrics;
mod name;
mod notify;
mod reply;
mod routes;
mod serve;
mod shutdown;
mod stop;
mod upload;

use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tracing::info;

pub use crate::cli::{Config, command, parse};
pub use crate::faults::Faults;
pub use crate::name::Name;
pub use crate::shutdown::{Shutdown, Stopper};

use crate::accept::Connections;
use crate::app::App;
use crate::conn::Stage;
use crate::faults::control::FaultControl;
use crate::listen::Door;
use crate::stop::Remaining;

/// Why the server ended before it was asked to, or without having answered everyone.
#[derive(Debug)]
pub enum Error {
    /// The address cannot be listened on.
    Bind { address: SocketAddr, cause: io::Error, holder: Option<String> },
    /// Told twice to stop, with this many requests unanswered.
    Interrupted { requests: u64 },
}

impl Error {
    pub fn exit_code(&self) -> u8 {
        match self {
            // EX_UNAVAILABLE of sysexits.h.
            Self::Bind { .. } => 69,
            Self::Interrupted { .. } => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, cause, holder } => {
                write!(f, "cannot listen on {address}: {cause}")?;
                if let Some(holder) = holder {
                    write!(f, "; the port is held by {holder}")?;
                }
                match cause.kind() {
                    io::ErrorKind::PermissionDenied => {
                        f.write_str("; ports below 1024 need CAP_NET_BIND_SERVICE, --port or SERVER_PORT takes another")
                    }
                    io::ErrorKind::AddrInUse => f.write_str("; choose another port with --port or SERVER_PORT"),
                    _ => f.write_str("; choose another address with --bind or SERVER_BIND"),
                }
            }
            Self::Interrupted { requests } => write!(f, "stopped at once by a second signal, {requests} requests cut"),
        }
    }
}

impl std::error::Error for Error {}

/// Serves until `shutdown`. Prints the ready line to standard output when connections are accepted.
///
/// # Errors
/// See [`Error`]; a drain time that runs out is none.
pub async fn run(config: Config, mut shutdown: Shutdown) -> Result<(), Error> {
    metrics::render::mark_start();
    let door = Door::open(config.bind, config.port).map_err(|(address, cause)| {
        let holder = (cause.kind() == io::ErrorKind::AddrInUse).then(|| holder::of_port(address.port())).flatten();
        Error::Bind { address, cause, holder }
    })?;
    let address = door.address();
    let name = config.name.unwrap_or_else(|| Name::of_port(address.port()));
    let faults = config.faults.map(|faults| FaultControl::new(faults, fastrand::Rng::new()));
    announce(&name, address, faults.as_ref());

    let app = Arc::new(App::new(name, faults));
    let (stage_tx, stage) = watch::channel(Stage::Serve);
    let (alive_tx, alive) = mpsc::channel(1);
    let (close_tx, close) = oneshot::channel();
    let connections = Connections { app: Arc::clone(&app), stage, alive: alive_tx };
    let accepting = accept::run(door, connections, close);
    let accepting = tokio::spawn(accepting);
    let watchdog = tokio::spawn(notify::watchdog());

    shutdown.gracefully().await;
    app.stop();
    notify::stopping("stopping");
    stop::report(&app, Instant::now() + config.drain);
    drop(close_tx);
    if let Err(error) = accepting.await {
        tracing::error!(%error, "the accept loop ended early");
    }
    let remaining = Remaining { stage: stage_tx, alive };
    let finished = stop::finish(&app, remaining, config.drain, &mut shutdown).await;
    watchdog.abort();
    finished
}

/// Tells everyone who waits for it that the server serves.
fn announce(name: &Name, address: SocketAddr, faults: Option<&FaultControl>) {
    let (name, url) = (name.as_str(), format!("http://{}", reachable(address)));
    let faults = faults.map_or_else(|| "off".to_owned(), |faults| faults.current().to_string());
    info!(name, %address, faults, "serving");
    notify::ready("serving, ready");
    // Nobody may be reading, and that is no reason to stop.
    let _ = writeln!(io::stdout(), "ready server name={name} url={url}");
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) | IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    }
}
