//! The load balancer program.
//!
//! Two planes that share one [`Snapshot`](lb_core::snapshot::Snapshot) and nothing else that waits:
//!
//! * the **data plane**, one single-threaded runtime per core: `listen` accepts, `conn` serves a client connection behind
//!   the strict look of `door`, `proxy` takes each request to a backend through `upstream`, under the deadlines of `deadline`,
//!   and `turns` has what was begun finished first when there is too much to do;
//! * the **control plane** on the main thread: `control` checks backends and publishes snapshots, `admin` answers
//!   health, metrics and `/v1`.
//!
//! [`run`] is the whole life of the process; start reading at `proxy::call` for the life of a request.

mod access;
mod admin;
mod clock;
pub mod config;
mod conn;
mod control;
mod deadline;
pub mod descriptors;
mod door;
mod in_flight;
mod listen;
pub mod logging;
mod notify;
mod overload;
mod proxy;
mod proxy_protocol;
mod runtime;
mod shutdown;
mod tunnels;
mod turns;
mod upstream;
mod view;
mod wait_drained;
mod worker;

use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{mpsc, watch};

pub use config::options_markdown;
pub use shutdown::Signals;
pub use wait_drained::{Failed as WaitFailed, wait_drained};

use admin::{Admin, Token};
use config::Config;
use control::Control;
use runtime::{Phase, Workers};
use worker::Shared;

/// Failures of live traffic that may wait for the control task; see [`Shared`].
const LIVE_FAILURES: usize = 256;

/// Backends to be ejected that may wait for the control task: more than a burst of errors fills in the time of a turn.
const SUSPECTS: usize = 256;

/// How long the start waits at most for the first check of every backend.
const FIRST_CHECKS: Duration = Duration::from_secs(2);

/// After the cut, for tasks to be dropped and threads to end.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// Why the load balancer cannot run.
#[derive(Debug)]
pub enum RunError {
    /// A listener cannot be opened.
    Bind { what: &'static str, address: SocketAddr, change: &'static str, source: io::Error },
    /// The access log's file cannot be opened.
    AccessLog { file: String, source: io::Error },
    /// The admin token cannot be kept.
    Token(String),
    /// The system gives no thread, descriptor or signal.
    System(io::Error),
    /// A part without which it cannot serve has died.
    Died(&'static str),
}

impl RunError {
    /// 69 (`EX_UNAVAILABLE`) when it cannot bind, 78 (`EX_CONFIG`) when only other settings help, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } => 69,
            Self::Token(_) | Self::AccessLog { .. } => 78,
            Self::System(_) | Self::Died(_) => 1,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { what, address, change, source } => {
                write!(f, "cannot listen on {address} for {what}: {source}")?;
                if source.kind() == io::ErrorKind::AddrInUse {
                    let port = address.port();
                    write!(f, "; stop what uses port {port} (`ss -ltnp 'sport = :{port}'` shows it), or {change}")
                } else {
                    write!(f, "; {change}")
                }
            }
            Self::AccessLog { file, source } => write!(
                f,
                "cannot open the access log {file}: {source}; name a file that may be written with LB_ACCESS_LOG or \
                 --access-log (log.access in the file), or - for standard output"
            ),
            Self::Token(words) => f.write_str(words),
            Self::System(error) => write!(f, "the system refuses: {error}"),
            Self::Died(what) => write!(f, "{what} has died; see the log before this, and please report it"),
        }
    }
}

impl std::error::Error for RunError {}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Asked to, and everything in flight was finished or its time was up.
    Drained,
    /// A second signal came; so many connections were cut.
    Cut(usize),
}

/// Runs the load balancer until a signal ends it.
///
/// Must be called on a single-threaded runtime, which becomes the control plane.
///
/// # Errors
/// It cannot start; nothing has been served then.
pub async fn run(config: Config, mut signals: Signals) -> Result<Ended, RunError> {
    let admin_listener = admin::bind(config.admin.bind, config.admin.port).map_err(|source| RunError::Bind {
        what: "the admin API",
        address: SocketAddr::new(config.admin.bind, config.admin.port),
        change: "choose another with ADMIN_PORT or --admin-port (ADMIN_BIND or --admin-bind for the address)",
        source,
    })?;
    let listener = listen::bind(config.bind, config.port).map_err(|source| RunError::Bind {
        what: "clients",
        address: SocketAddr::new(config.bind, config.port),
        change: "choose another with PROXY_PORT or --port (PROXY_BIND or --bind for the address)",
        source,
    })?;
    let admin_address = admin_listener.local_addr().map_err(RunError::System)?;
    let address = listener.local_addr().map_err(RunError::System)?;
    let token = Token::establish(&config.admin.token, admin_address.port());
    let token = Arc::new(token.map_err(|error| RunError::Token(error.to_string()))?);

    let (log, writer) = access::start(&config.log.access)
        .map_err(|source| RunError::AccessLog { file: config.log.access.to_string(), source })?
        .unzip();

    let (drain, check_timeout) = (config.timeouts.drain, config.health.timeout);
    let (live_failures, failures) = mpsc::channel(LIVE_FAILURES);
    let shares = descriptors::share_out(descriptors::limit(), &config);
    let (suspects, suspected) = mpsc::channel(SUSPECTS);
    let shared = Shared::new(config, shares, live_failures, suspects, log);
    let shown = reachable(address).to_string();
    let (control, mut control_task) = control::start(Arc::clone(&shared), failures, suspected, shown);
    let (phase_tx, phase) = watch::channel(Phase::Serving);
    let admin = Admin::new(Arc::clone(&shared), control.clone(), Arc::clone(&token), phase.clone());
    tokio::spawn(admin::serve(admin_listener, admin));

    tokio::select! {
        () = first_checks(&control, check_timeout.min(FIRST_CHECKS)) => {}
        signal = signals.next() => {
            tracing::info!(signal, "ended before it served");
            return Ok(Ended::Drained);
        }
    }
    let workers = runtime::start(&shared, listener, &phase).map_err(RunError::System)?;
    announce(&shared, address, admin_address, &token);
    let signal = tokio::select! {
        signal = signals.next() => signal,
        () = notify::keep_telling(&shared) => "",
        // A panic in either has been logged. Going on without it would look healthy and not be.
        _ = &mut control_task => return Err(RunError::Died("the control task")),
        () = workers.one_ended() => return Err(RunError::Died("a worker thread")),
    };
    drop(phase);
    let ended = end(signal, &shared, &control, workers, &phase_tx, &mut signals, drain).await;
    if let Some(writer) = writer {
        writer.finish();
    }
    tracing::info!("ended");
    Ok(ended)
}

/// Connections wait in the kernel meanwhile, so a first request already finds what is up and what is not.
async fn first_checks(control: &Control, limit: Duration) {
    let mut started = control.started.clone();
    let _ = tokio::time::timeout(limit, started.wait_for(|started| *started)).await;
}

/// Says on all channels that it serves: one line for machines, one for people, and systemd.
fn announce(shared: &Shared, address: SocketAddr, admin: SocketAddr, token: &Token) {
    let (proxy, admin) = (reachable(address), reachable(admin));
    // Nobody may be reading; that is no reason not to serve.
    let _ = writeln!(io::stdout(), "ready loadbalancer proxy=http://{proxy} admin=http://{admin}");
    let backends = shared.config.pool.backends.len();
    tracing::info!(
        proxy = %address, admin = %admin, workers = shared.config.workers, backends,
        token = token.whereabouts(), "serving"
    );
    notify::tell(&[NotifyState::Ready]);
}

/// The address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

/// From the first signal to the end: nothing that was accepted is lost, unless time is up or a second signal comes.
async fn end(
    signal: &str,
    shared: &Shared,
    control: &Control,
    mut workers: Workers,
    phase: &watch::Sender<Phase>,
    signals: &mut Signals,
    drain: Duration,
) -> Ended {
    notify::tell(&[NotifyState::Stopping, NotifyState::Status("shutting down: finishing requests in flight")]);
    phase.send_replace(Phase::Draining);
    control.drain();
    tracing::info!(signal, connections = shared.connections(), at_most = ?drain, "shutting down; a second signal cuts");
    let ended = tokio::select! {
        () = workers.ended() => Ended::Drained,
        () = tokio::time::sleep(drain) => {
            tracing::warn!(connections = shared.connections(), "the drain time is up; cutting what is left");
            Ended::Drained
        }
        signal = signals.next() => {
            let cut = shared.connections();
            tracing::warn!(signal, connections = cut, "second signal; cutting what is left");
            Ended::Cut(cut)
        }
    };
    phase.send_replace(Phase::Cutting);
    if tokio::time::timeout(CUT_PATIENCE, workers.ended()).await.is_ok() {
        workers.join();
    }
    ended
}
