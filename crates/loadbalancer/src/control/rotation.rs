//! Drives the rotation of each pool ([`lb_core::rotation`]): tells it what the board believes and what time it is, and
//! tells people what came of it. Owns nothing: what is kept stands in the board's pools and entries.

use std::time::Duration;

use lb_core::api::{AdminState, Ejection, EjectionTotals, EventKind, Health, ReasonCode};
use lb_core::backend::BackendId;
use lb_core::outlier::{Cause, Tally};
use lb_core::rotation::{Happening, Member, News, Return, Standing};
use lb_core::slow_start::WHOLE;
use lb_core::snapshot::Snapshot;
use tokio::time::Instant;

use super::board::{Board, Entry, Place};

/// When nothing is due at all. Any time would do.
const NOTHING_DUE: Duration = Duration::from_secs(3600);

impl Member for Entry {
    fn admin(&self) -> AdminState {
        self.admin
    }

    fn health(&self) -> Health {
        self.health.health()
    }

    fn health_code(&self) -> ReasonCode {
        self.health_code
    }

    fn standing(&self) -> &Standing {
        &self.standing
    }

    fn standing_mut(&mut self) -> &mut Standing {
        &mut self.standing
    }
}

impl Entry {
    /// For the wire.
    pub(super) fn ejection(&self, now_ms: u64, now_unix_ms: u64) -> Ejection {
        let ejections = &self.standing.ejections;
        let totals = ejections.totals();
        Ejection {
            until_unix_ms: ejections.until_ms().map(|until_ms| now_unix_ms + until_ms.saturating_sub(now_ms)),
            times: ejections.times(),
            total: EjectionTotals {
                consecutive_errors: totals[Cause::ConsecutiveErrors as usize],
                success_rate: totals[Cause::SuccessRate as usize],
                failure_percentage: totals[Cause::FailurePercentage as usize],
            },
        }
    }
}

impl Board {
    /// Milliseconds since the start, of the clock that rotations go by: it never jumps.
    pub(super) fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    /// When [`Self::take_turn`] is due, if nothing else happens before.
    pub(super) fn next_turn(&self) -> Instant {
        self.due_ms.map_or_else(|| Instant::now() + NOTHING_DUE, |at| self.began + Duration::from_millis(at))
    }

    /// Puts all rotations in order, after whatever may have changed. To be called before a snapshot is taken. Looks at
    /// every backend, so only if there may be something to do: what a rotation goes by is shown by the snapshot too, or
    /// is the time. Most calls are about one check that found what all before it did, and there are 200 a second of
    /// 1,000 backends.
    pub(super) fn settle(&mut self, now_unix_ms: u64) {
        let now_ms = self.now_ms();
        if !self.changed && self.due_ms.is_none_or(|at| now_ms < at) {
            return;
        }
        let all_known = self.all_known();
        for at in 0..self.pools.len() {
            let pool = &mut self.pools[at];
            let news = pool.rotation.settle(&mut pool.entries, now_ms);
            if all_known {
                pool.rotation.started();
            }
            for News { at: entry, what } in news {
                self.tell((at, entry), &what, now_unix_ms);
            }
            self.note_changed(at);
        }
        let turns = self.pools.iter().filter_map(|pool| pool.rotation.next_turn_ms(&pool.entries));
        self.due_ms = turns.min();
    }

    fn note_changed(&mut self, pool: usize) {
        self.changed |= self.pools[pool].rotation.take_changed();
    }

    /// An interval may have ended. What else time brings is brought by [`Self::settle`].
    pub(super) fn take_turn(&mut self, now_unix_ms: u64) {
        let now_ms = self.now_ms();
        for at in 0..self.pools.len() {
            let pool = &mut self.pools[at];
            if !pool.rotation.is_sweep_due(now_ms) {
                continue;
            }
            let tallies: Vec<Tally> = pool.entries.iter().map(|entry| Tally::of(&entry.backend.totals())).collect();
            for News { at: entry, what } in pool.rotation.sweep(&mut pool.entries, &tallies, now_ms, fastrand::f64) {
                self.tell((at, entry), &what, now_unix_ms);
            }
            self.note_changed(at);
        }
    }

    /// A worker has seen as many errors in a row as eject.
    pub(super) fn take_suspect(&mut self, backend: BackendId, now_unix_ms: u64) {
        let Some((at, entry)) = self.find(backend) else { return };
        let now_ms = self.now_ms();
        let pool = &mut self.pools[at];
        for News { at: entry, what } in pool.rotation.suspect(&mut pool.entries, entry, now_ms, fastrand::f64()) {
            self.tell((at, entry), &what, now_unix_ms);
        }
        self.note_changed(at);
    }

    /// The operator says that it is ready: an ejection ends.
    pub(super) fn pardon(&mut self, (at, entry): Place, now_unix_ms: u64) {
        let pool = &mut self.pools[at];
        if pool.rotation.pardon(&mut pool.entries, entry) {
            pool.entries[entry].since_unix_ms = now_unix_ms;
            let words = "back from ejection early: the operator says it is ready".to_owned();
            self.event(now_unix_ms, EventKind::Operator, Some((at, entry)), words);
        }
        self.note_changed(at);
    }

    fn tell(&mut self, (at, entry): Place, what: &Happening, now_unix_ms: u64) {
        let pool = &mut self.pools[at];
        let slow_start = pool.rotation.policy().slow_start;
        let row = &mut pool.entries[entry];
        let words = match what {
            Happening::CameIn => {
                // Of requests from before: a new row begins with the next one.
                row.backend.note_success();
                return;
            }
            Happening::Ejected => {
                format!(
                    "ejected: {}",
                    row.standing.ejections.words_at(self.began.elapsed().as_millis() as u64).unwrap_or_default()
                )
            }
            // The event of what overtook it says all.
            Happening::Returned(Return::Overtaken) => return,
            Happening::Returned(Return::Needed) => "back from ejection early: too few others are left".to_owned(),
            // Off, or it served its whole share in a panic until now.
            Happening::Returned(Return::TimeUp) if row.standing.tenths() >= WHOLE => {
                "back from ejection: its time is up".to_owned()
            }
            Happening::Returned(Return::TimeUp) => {
                format!("back from ejection: its time is up; slow start over {slow_start:?}")
            }
        };
        row.since_unix_ms = now_unix_ms;
        self.event(now_unix_ms, EventKind::Ejection, Some((at, entry)), words);
    }

    /// Says so when the snapshot that is about to be published begins or ends a pool's panic.
    pub(super) fn tell_of_panic(&mut self, snapshot: &Snapshot, now_unix_ms: u64) {
        for (at, view) in snapshot.pools.iter().enumerate() {
            let pool = &mut self.pools[at];
            if pool.in_panic == view.in_panic {
                continue;
            }
            pool.in_panic = view.in_panic;
            pool.panics += u64::from(view.in_panic);
            let reason = view.reason();
            let percent = pool.rotation.policy().panic_percent;
            let words = if view.in_panic {
                tracing::warn!(pool = %view.name, "panic: fewer than {percent} % of the backends are ready: {reason}");
                format!("panic: fewer than {percent} % are ready: {reason}")
            } else {
                format!("panic is over: {reason}")
            };
            self.pool_event(now_unix_ms, EventKind::Panic, at, words);
        }
    }
}
