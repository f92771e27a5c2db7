//! What systemd is told over its notify socket. Does nothing when the server was not started by it.

use std::convert::Infallible;
use std::future::pending;

use sd_notify::NotifyState;
use tracing::warn;

pub(crate) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

pub(crate) fn stopping(status: &str) {
    send(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

pub(crate) fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// Says that the server lives, twice as often as the service manager asks. Runs on the thread that answers
/// requests: when that is stuck, this falls silent, which is the point.
pub(crate) async fn watchdog() -> Infallible {
    let Some(patience) = sd_notify::watchdog_enabled().filter(|patience| !patience.is_zero()) else {
        return pending().await;
    };
    let mut ticks = tokio::time::interval(patience / 2);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        send(&[NotifyState::Watchdog]);
    }
}

/// A service manager that cannot be reached is no reason to stop serving.
fn send(state: &[NotifyState<'_>]) {
    // Set but empty counts as unset, here as for our own variables.
    if std::env::var_os("NOTIFY_SOCKET").is_none_or(|socket| socket.is_empty()) {
        return;
    }
    if let Err(error) = sd_notify::notify(state) {
        warn!(%error, "cannot notify the service manager");
    }
}
