//! The graceful stop, from the closed door to the last connection.

use std::convert::Infallible;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, interval_at, sleep_until, timeout};
use tracing::{info, warn};

use crate::Error;
use crate::app::App;
use crate::conn::Stage;
use crate::notify;
use crate::shutdown::Shutdown;

/// How long idle connections stay open after the stop began: a request that is just on its way is still answered,
/// with `Connection: close`, instead of meeting a closed connection.
const IDLE_LINGER: Duration = Duration::from_millis(200);

/// Between two lines that say what is waited for.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// For tasks to let go of their sockets after a cut; only a stuck runtime needs it.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// The connections that are left, once nothing is accepted any more.
pub(crate) struct Remaining {
    pub(crate) stage: watch::Sender<Stage>,
    pub(crate) alive: mpsc::Receiver<Infallible>,
}

/// Lets requests finish, closes idle connections, and cuts what is left when `drain` is over.
///
/// # Errors
/// [`Error::Interrupted`] when told a second time to stop.
pub(crate) async fn finish(
    app: &App,
    mut remaining: Remaining,
    drain: Duration,
    shutdown: &mut Shutdown,
) -> Result<(), Error> {
    let began = Instant::now();
    let deadline = began + drain;
    let mut reports = interval_at(began + REPORT_EVERY, REPORT_EVERY);
    let mut idle_closed = false;
    let interrupted = loop {
        tokio::select! {
            biased;
            () = shutdown.now() => break true,
            _ = remaining.alive.recv() => {
                info!(ms = (Instant::now() - began).as_millis(), "stopped: every request was answered");
                return Ok(());
            }
            () = sleep_until(deadline.min(began + IDLE_LINGER)), if !idle_closed => {
                remaining.stage.send_replace(Stage::Close);
                idle_closed = true;
            }
            () = sleep_until(deadline) => break false,
            _ = reports.tick() => report(app, deadline),
        }
    };
    let (requests, connections) = (app.metrics.in_flight(), app.metrics.open_connections());
    remaining.stage.send_replace(Stage::Cut);
    if timeout(CUT_GRACE, remaining.alive.recv()).await.is_err() {
        warn!("connections did not end when cut");
    }
    if interrupted {
        return Err(Error::Interrupted { requests });
    }
    warn!(requests, connections, drain_s = drain.as_secs_f64(), "stopped: the drain time is over, cut what was left");
    Ok(())
}

/// Says what the stop is waiting for.
pub(crate) fn report(app: &App, deadline: Instant) {
    let (requests, connections) = (app.metrics.in_flight(), app.metrics.open_connections());
    let left_s = (deadline - Instant::now()).as_secs_f64().ceil();
    info!(requests, connections, left_s, "stopping: waiting for requests in flight and open connections");
    notify::status(&format!("stopping: waiting for {requests} requests, at most {left_s} s more"));
}
