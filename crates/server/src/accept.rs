//! The accept loop: hands connections to their tasks, and closes and opens the door for `refuse`.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::app::App;
use crate::conn::{self, Stage};
use crate::faults::control::Refusal;
use crate::listen::Door;
use crate::metrics::Injected;

/// After an accept or a listen that failed for want of resources or of the port: not at once, which would spin, and
/// soon, because clients wait.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What a new connection is given.
pub(crate) struct Connections {
    pub(crate) app: Arc<App>,
    pub(crate) stage: watch::Receiver<Stage>,
    /// Nothing is ever sent: that all clones are gone says that all connections are.
    pub(crate) alive: mpsc::Sender<Infallible>,
}

impl Connections {
    fn start(&self, tcp: TcpStream, peer: SocketAddr) {
        let (app, stage, alive) = (Arc::clone(&self.app), self.stage.clone(), self.alive.clone());
        // An IPv4 client of a dual-stack socket comes as ::ffff:127.0.0.1.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        tokio::spawn(async move {
            app.metrics.connection_opened();
            conn::run(tcp, peer, Arc::clone(&app), stage).await;
            app.metrics.connection_closed();
            drop(alive);
        });
    }
}

/// Accepts until `stop`; then takes what is in the accept queue, closes the door and returns.
pub(crate) async fn run(mut door: Door, connections: Connections, mut stop: oneshot::Receiver<()>) {
    let mut refusals = connections.app.faults.as_ref().map(|faults| faults.refusal());
    if let Some(refusals) = &mut refusals {
        // One from the command line counts as a change.
        refusals.mark_changed();
    }
    let mut refusal = None;
    loop {
        tokio::select! {
            biased;
            _ = &mut stop => break,
            changed = next_change(&mut refusals) => {
                refusal = changed;
                refuse(&mut door, &connections, refusal);
            }
            () = end_of(refusal), if !door.is_open() => reopen(&mut door, &connections.app, refusal).await,
            accepted = door.accept() => match accepted {
                Ok((tcp, peer)) => connections.start(tcp, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    warn!(%error, "cannot accept connections");
                    sleep(RETRY_PAUSE).await;
                }
            }
        }
    }
    shut(&mut door, &connections);
}

fn refuse(door: &mut Door, connections: &Connections, refusal: Refusal) {
    // Without an end `end_of` is ready, and opens the door.
    if let Some(until) = refusal
        && door.is_open()
    {
        shut(door, connections);
        connections.app.metrics.injected(Injected::Refuse);
        info!(seconds = (until - Instant::now()).as_secs_f64(), "refusing connections");
    }
}

async fn reopen(door: &mut Door, app: &App, refusal: Refusal) {
    match door.reopen() {
        Ok(()) => {
            info!(address = %door.address(), "accepting connections again");
            if let (Some(faults), Some(until)) = (&app.faults, refusal) {
                faults.refusal_over(until);
            }
        }
        Err(error) => {
            warn!(%error, address = %door.address(), "cannot listen again, trying on");
            sleep(RETRY_PAUSE).await;
        }
    }
}

fn shut(door: &mut Door, connections: &Connections) {
    for (tcp, peer) in door.close() {
        match tcp.set_nonblocking(true).and_then(|()| TcpStream::from_std(tcp)) {
            Ok(tcp) => connections.start(tcp, peer),
            Err(error) => warn!(%error, %peer, "lost a connection from the accept queue"),
        }
    }
}

async fn next_change(refusals: &mut Option<watch::Receiver<Refusal>>) -> Refusal {
    if let Some(refusals) = refusals
        && refusals.changed().await.is_ok()
    {
        return *refusals.borrow_and_update();
    }
    pending().await
}

async fn end_of(refusal: Refusal) {
    if let Some(until) = refusal {
        sleep_until(until).await;
    }
}

/// The client left between its connect and our accept; the next one is not affected.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
