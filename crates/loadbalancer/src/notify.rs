//! What systemd is told: ready, a line of status, a sign of life, stopping. Without `NOTIFY_SOCKET` all of it is
//! nothing.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::control::readiness;
use crate::worker::Shared;

/// How often the status line is looked at.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// A worker that has given no sign for this long is stuck: signs are due every second at the least.
const MOST_SILENT: Duration = Duration::from_secs(3);

/// Tells the service manager, if there is one. It may be gone; that is no reason to stop serving.
pub(crate) fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}

/// Keeps the status line true, and gives signs of life only while every worker gives one.
pub(crate) async fn keep_telling(shared: &Shared) {
    let watchdog = sd_notify::watchdog_enabled().map(|limit| limit / 2);
    let every = watchdog.map_or(STATUS_INTERVAL, |limit| limit.min(STATUS_INTERVAL));
    let mut ticks = tokio::time::interval(every);
    let mut silent = Duration::ZERO;
    let mut former: Vec<u64> = vec![u64::MAX; shared.workers.len()];
    let mut told = String::new();
    loop {
        ticks.tick().await;
        let snapshot = shared.snapshot.load();
        let status = readiness(false, true, &snapshot.pools).reason;
        if status != told {
            tell(&[NotifyState::Status(&status)]);
            told = status;
        }
        let beats: Vec<u64> = shared.workers.iter().map(|worker| worker.heartbeat.load(Ordering::Relaxed)).collect();
        // A worker at rest gives a sign once a second, so it may have given none since the last look.
        silent =
            if beats.iter().zip(&former).all(|(now, before)| now != before) { Duration::ZERO } else { silent + every };
        if silent.is_zero() {
            former = beats;
        }
        if watchdog.is_some() && silent <= MOST_SILENT {
            tell(&[NotifyState::Watchdog]);
        }
    }
}
