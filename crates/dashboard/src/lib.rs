//! The dashboard: serves one web page that shows a load balancer live, and forwards an operator's actions to it.
//!
//! It holds no state that matters: everything comes from the load balancer's admin API (`lb_core::api` is the
//! contract), and the page says so when it does not come. What does not live here: any figure that is computed
//! (the load balancer does that), and the admin token, which this program uses and never passes on.

mod balancer;
mod config;
mod feed;
mod guard;
mod logging;
mod metrics;
mod notify;
mod options;
mod serve;
mod target;
mod token;
mod web;

use std::fmt;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use config::{Config, ConfigError};
pub use logging::{LogFormat, init as init_logging};
pub use options::{Options, command};

use balancer::AdminClient;
use feed::Feed;

/// Connections that may wait for `accept`; a page opens about six at once.
const BACKLOG: i32 = 128;

/// Why the program could not do its work.
#[derive(Debug)]
pub enum RunError {
    /// The page's own address cannot be listened on.
    Bind { address: SocketAddr, cause: io::Error },
}

impl RunError {
    /// The exit code that tells a service manager what kind of error it was.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Bind { .. } => 69,
        }
    }
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind { address, cause } => {
                let hint = match cause.kind() {
                    io::ErrorKind::AddrInUse => "another program listens there; stop it, or choose another port",
                    io::ErrorKind::PermissionDenied => "ports below 1024 need the right to bind them; choose another",
                    io::ErrorKind::AddrNotAvailable => "this machine does not have that address",
                    _ => "choose another address or port",
                };
                write!(f, "cannot listen on {address}: {cause}\n  {hint} with --port or DASHBOARD_PORT")
            }
        }
    }
}

impl std::error::Error for RunError {}

/// Serves the page until `shutdown` completes, then ends all streams and returns.
///
/// Prints the ready line on standard output once it serves.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) -> Result<(), RunError> {
    let wanted = SocketAddr::new(config.bind, config.port);
    let listener = listen(wanted).map_err(|cause| RunError::Bind { address: wanted, cause })?;
    let address = listener.local_addr().map_err(|cause| RunError::Bind { address: wanted, cause })?;

    let (stop, stopping) = watch::channel(false);
    let client = Arc::new(AdminClient::new(config.admin, config.token));
    let feed = Arc::new(Feed::new(client.target().to_string()));
    let following = tokio::spawn(balancer::follow(Arc::clone(&client), Arc::clone(&feed)));
    let watchdog = notify::watchdog();
    let app = web::router(web::App::new(client, Arc::clone(&feed), config.hosts, stopping.clone()));
    let serving = tokio::spawn(serve::serve(listener, app, stopping));

    tracing::info!(url = %format_args!("http://{address}"), admin = feed.url(), "serving");
    // Nobody reading our standard output is no reason not to serve.
    let _ = writeln!(io::stdout(), "ready dashboard url=http://{address}");
    notify::ready(&address, feed.url());

    shutdown.await;
    tracing::info!("stopping: ending all streams");
    notify::stopping();
    stop.send_replace(true);
    // Only a panic in there ends it with an error, and that has already been printed.
    let _ = serving.await;
    following.abort();
    if let Some(watchdog) = watchdog {
        watchdog.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
