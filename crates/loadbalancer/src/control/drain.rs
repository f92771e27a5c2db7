//! The way out of a backend that an operator takes out: when it is safe to stop, and what happens at its deadline.
//!
//! *Safe to stop* promises that nothing is under way at the backend and that no worker will send it anything more. For
//! that, nothing in flight is not enough: a worker may still be about to pick from the snapshot before. So each worker
//! shows the newest snapshot that it has taken over, and only when all of them have taken over the one without the
//! backend does a count of zero say that it is safe. (A worker counts a request in before it shows a newer snapshot,
//! and that is a release; the look here is an acquire, so whoever sees the one sees the other.)

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crossbeam_utils::CachePadded;
use lb_core::api::{AdminState, AtDeadline, Drain, DrainReport, EventKind, InFlight};
use lb_core::metrics::Kind;
use lb_core::metrics::text::Page;
use tokio::time::Instant;

use super::board::{Board, Entry, Place};
use super::figures::worker_totals;
use super::metrics::Row;
use crate::config::DrainConfig;
use crate::worker::{Shared, WorkerSlot};

/// Between two looks while some backend is on its way out: how late its safety is noticed.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A backend on its way out.
pub(super) struct Leaving {
    since: Instant,
    since_unix_ms: u64,
    /// The first snapshot that does not send it anything.
    generation: u64,
    safe_since_unix_ms: Option<u64>,
    overdue: bool,
    cut: bool,
}

impl Leaving {
    /// What becomes of `former` when an operator asks for `state`. Its time runs from the first time that the backend
    /// was not wanted: from drain to maintenance is no new beginning.
    pub(super) fn after(former: Option<Self>, state: AdminState, generation: u64, now_ms: u64) -> Option<Self> {
        let begin = || Self {
            since: Instant::now(),
            since_unix_ms: now_ms,
            generation,
            safe_since_unix_ms: None,
            overdue: false,
            cut: false,
        };
        (state != AdminState::Ready).then(|| former.unwrap_or_else(begin))
    }

    /// Whether what is left is to be closed.
    pub(super) fn is_cut(&self) -> bool {
        self.cut
    }

    fn wire(&self, config: &DrainConfig, in_flight: &InFlight) -> Drain {
        let deadline_ms = config.deadline.map(|deadline| deadline.as_millis() as u64);
        let mut words = match self.safe_since_unix_ms {
            Some(_) => "safe to stop: nothing is in flight, and nothing more is sent to it".to_owned(),
            None if in_flight.total() == 0 => "nothing in flight; workers are being told".to_owned(),
            None => in_words(in_flight),
        };
        if self.overdue && self.safe_since_unix_ms.is_none() {
            words.push_str(if self.cut {
                "; past its deadline: closing them"
            } else {
                "; past its deadline: waiting on"
            });
        }
        Drain {
            since_unix_ms: self.since_unix_ms,
            safe_to_stop: self.safe_since_unix_ms.is_some(),
            safe_since_unix_ms: self.safe_since_unix_ms,
            deadline_unix_ms: deadline_ms.map(|deadline| self.since_unix_ms + deadline),
            overdue: self.overdue,
            at_deadline: config.at_deadline,
            words,
        }
    }
}

impl Entry {
    /// How far it is on its way out; `None` while it is wanted.
    pub(super) fn drain(&self, config: &DrainConfig, in_flight: &InFlight) -> Option<Drain> {
        self.leaving.as_ref().map(|leaving| leaving.wire(config, in_flight))
    }
}

impl Board {
    /// How far one backend's drain is.
    pub(super) fn drain_report(&self, shared: &Shared, place: Place) -> DrainReport {
        let entry = &self.pools[place.0].entries[place.1];
        let in_flight = entry.backend.in_flight_by_kind();
        let drain = entry.drain(&shared.config.drain, &in_flight);
        let name = &entry.backend.spec.name;
        let words = match &drain {
            Some(drain) => drain.words.clone(),
            None => format!("{name} is not draining: nobody asked it to (PUT …/state with {{\"state\":\"drain\"}})"),
        };
        DrainReport {
            pool: self.pools[place.0].name.to_string(),
            backend: name.clone(),
            admin: entry.admin,
            safe_to_stop: drain.as_ref().is_some_and(|drain| drain.safe_to_stop),
            in_flight,
            drain,
            words,
        }
    }

    /// Looks at all that are on their way out: what has become safe to stop, and whose deadline has come.
    pub(super) fn look_at_drains(&mut self, shared: &Shared, now_ms: u64) {
        for pool in 0..self.pools.len() {
            for at in 0..self.pools[pool].entries.len() {
                if let Some(words) = self.look_at_drain(shared, (pool, at), now_ms) {
                    self.drain_news += 1;
                    self.event(now_ms, EventKind::Drain, Some((pool, at)), words);
                }
            }
        }
    }

    /// What there is to tell of one.
    fn look_at_drain(&mut self, shared: &Shared, (pool, at): Place, now_ms: u64) -> Option<String> {
        let entry = &mut self.pools[pool].entries[at];
        let leaving = entry.leaving.as_mut()?;
        let told = all_took_over(&shared.workers, leaving.generation);
        // In this order: what a worker picked before it took the snapshot over is counted by then.
        let safe = told && entry.backend.in_flight() == 0;
        match (safe, leaving.safe_since_unix_ms) {
            (true, None) => {
                leaving.safe_since_unix_ms = Some(now_ms);
                let took = leaving.since.elapsed();
                return Some(format!(
                    "safe to stop now: nothing is in flight ({:.1} s after it was taken out)",
                    took.as_secs_f64()
                ));
            }
            (false, Some(_)) => {
                leaving.safe_since_unix_ms = None;
                return Some("no longer safe to stop: a request was sent to it".to_owned());
            }
            (true, Some(_)) => return None,
            (false, None) => {}
        }
        let config = &shared.config.drain;
        let deadline = config.deadline.filter(|deadline| !leaving.overdue && leaving.since.elapsed() >= *deadline)?;
        let left = in_words(&entry.backend.in_flight_by_kind());
        leaving.overdue = true;
        let then = match config.at_deadline {
            AtDeadline::Wait => "waiting on (drain.at_deadline is wait)",
            AtDeadline::Close => {
                leaving.cut = true;
                self.changed = true;
                "closing them (drain.at_deadline is close)"
            }
        };
        Some(format!("its drain's deadline of {deadline:?} has come with {left}: {then}"))
    }
}

/// Whether all workers have taken over this snapshot. Those that have not are woken: one without connections looks only
/// now and then.
fn all_took_over(workers: &[CachePadded<WorkerSlot>], generation: u64) -> bool {
    let mut all = true;
    for worker in workers {
        if worker.generation.load(Ordering::Acquire) < generation {
            worker.busy.notify_one();
            all = false;
        }
    }
    all
}

/// `2 requests and 1 tunnel in flight, the oldest for 12 s`.
fn in_words(in_flight: &InFlight) -> String {
    let kinds = [(in_flight.requests, "request"), (in_flight.streams, "stream"), (in_flight.tunnels, "tunnel")];
    let parts = kinds.into_iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> =
        parts.map(|(count, kind)| format!("{count} {kind}{}", if count == 1 { "" } else { "s" })).collect();
    let mut words = match parts.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
    };
    words.push_str(" in flight");
    if let Some(oldest_ms) = in_flight.oldest_ms {
        let _ = write!(words, ", the oldest for {} s", oldest_ms / 1000);
    }
    words
}

/// What is under way by kind, and how far drains are.
pub(super) fn metrics(page: &mut Page, shared: &Shared, rows: &[Row<'_>]) {
    let found: Vec<InFlight> = rows.iter().map(|row| row.entry.backend.in_flight_by_kind()).collect();
    page.family("lb_in_flight_by_kind", "gauge", "Requests, streams and tunnels under way.");
    for (row, found) in rows.iter().zip(&found) {
        for (kind, count) in Kind::ALL.into_iter().zip([found.requests, found.streams, found.tunnels]) {
            let labels = [("pool", row.pool), ("backend", row.name), ("kind", kind.as_str())];
            page.sample("lb_in_flight_by_kind", &labels, count);
        }
    }
    page.family("lb_in_flight_oldest_seconds", "gauge", "How long the oldest of them has been under way.");
    for (row, found) in rows.iter().zip(&found) {
        let oldest = found.oldest_ms.unwrap_or_default() as f64 / 1000.0;
        page.sample("lb_in_flight_oldest_seconds", &[("pool", row.pool), ("backend", row.name)], oldest);
    }
    let help = "1 while a backend was taken out and is safe to stop.";
    page.family("lb_backend_safe_to_stop", "gauge", help);
    for row in rows {
        let safe = row.entry.leaving.as_ref().is_some_and(|leaving| leaving.safe_since_unix_ms.is_some());
        page.sample("lb_backend_safe_to_stop", &[("pool", row.pool), ("backend", row.name)], u8::from(safe));
    }
    let help = "What was under way at a backend at its drain's deadline and was closed, by kind.";
    page.family("lb_drain_closed_total", "counter", help);
    let closed = worker_totals(shared).drain_closed;
    for (kind, count) in Kind::ALL.into_iter().zip(closed) {
        page.sample("lb_drain_closed_total", &[("kind", kind.as_str())], count);
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn what_is_left_is_said_in_words() {
        let words =
            |requests, streams, tunnels, oldest_ms| in_words(&InFlight { requests, streams, tunnels, oldest_ms });
        assert_eq!(words(1, 0, 0, None), "1 request in flight");
        assert_eq!(words(2, 0, 1, Some(12_400)), "2 requests and 1 tunnel in flight, the oldest for 12 s");
        assert_eq!(words(2, 3, 1, None), "2 requests, 3 streams and 1 tunnel in flight");
    }

    fn woken(worker: &WorkerSlot) -> bool {
        let notified = std::pin::pin!(worker.busy.notified());
        notified.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_worker_that_has_not_been_told_is_waited_for_and_woken() {
        let workers = [CachePadded::<WorkerSlot>::default(), CachePadded::default()];
        workers[0].generation.store(7, Ordering::Release);
        workers[1].generation.store(6, Ordering::Release);
        assert!(!all_took_over(&workers, 7));
        // Only the one that lags is woken.
        assert_eq!([woken(&workers[0]), woken(&workers[1])], [false, true]);
        workers[1].generation.store(8, Ordering::Release);
        assert!(all_took_over(&workers, 7));
        assert!(!woken(&workers[1]));
    }

    #[test]
    fn from_drain_to_maintenance_is_no_new_beginning() {
        let first = Leaving::after(None, AdminState::Drain, 5, 1000);
        let then = Leaving::after(first, AdminState::Maintenance, 9, 2000).unwrap();
        assert_eq!((then.since_unix_ms, then.generation), (1000, 5));
        assert!(Leaving::after(Some(then), AdminState::Ready, 10, 3000).is_none());
    }
}
