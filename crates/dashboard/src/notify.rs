//! What systemd is told: readiness, a status line, the end, and that the event loop still turns (watchdog).
//!
//! Without systemd (`NOTIFY_SOCKET` unset) all of it does nothing.

use std::net::SocketAddr;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

/// Pings per watchdog period: systemd advises half of it, so that one late ping is not death.
const PINGS_PER_PERIOD: u32 = 2;
/// A watchdog period below this is a mistake, and would turn the interval into a busy loop.
const SHORTEST_PERIOD: Duration = Duration::from_millis(100);

pub(crate) fn ready(address: &SocketAddr, admin_url: &str) {
    let status = format!("page at http://{address}, load balancer at {admin_url}");
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("ending all streams")]);
}

/// Pings from the same event loop that serves, so that a loop that hangs is noticed.
pub(crate) fn watchdog() -> Option<JoinHandle<()>> {
    let period = sd_notify::watchdog_enabled()?.max(SHORTEST_PERIOD);
    Some(tokio::spawn(async move {
        let mut ticks = tokio::time::interval(period / PINGS_PER_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            tell(&[NotifyState::Watchdog]);
        }
    }))
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
