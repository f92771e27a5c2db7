//! What is believed about each backend, and what happened lately. Owned by the control task; no I/O, no clock.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_core::api::{AdminState, BackendState, EVENTS_KEPT, Event, EventKind, Health, ReasonCode};
use lb_core::backend::{Backend, BackendId};
use lb_core::check::History;
use lb_core::gate::Gate;
use lb_core::health::{HealthPolicy, HealthState, Outcome};
use lb_core::policy::{Cursor, PolicyKind};
use lb_core::rotation::{Rotation, Standing};
use lb_core::snapshot::{BackendView, PoolView, Snapshot};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use super::NotFound;
use super::checker::{Checker, Order, Report};
use super::drain::Leaving;
use crate::config::Config;
use crate::worker::LiveFailure;

/// Index of a pool, and of a backend in it.
pub(super) type Place = (usize, usize);

/// Everything that is believed.
pub(super) struct Board {
    pub pools: Vec<BoardPool>,
    pub events: VecDeque<Event>,
    pub generation: u64,
    pub draining: bool,
    /// What the clock of rotations counts from.
    pub began: Instant,
    /// Counts what a waiter for a drain wants to know of.
    pub drain_news: u64,
    /// When failures last faded, by the clock of rotations.
    pub(super) faded_ms: u64,
    /// Something that a snapshot shows.
    pub(super) changed: bool,
    /// When time alone brings the next thing to a rotation, by their clock; as of the last settling.
    pub(super) due_ms: Option<u64>,
    /// How many backends are on their way out.
    leaving: usize,
    places: HashMap<BackendId, Place>,
    next_event: u64,
}

pub(super) struct BoardPool {
    pub name: Arc<str>,
    pub policy: PolicyKind,
    pub cursor: Arc<Cursor>,
    pub gate: Option<Arc<Gate>>,
    pub entries: Vec<Entry>,
    pub rotation: Rotation,
    /// As of the last snapshot, and how often it has begun.
    pub in_panic: bool,
    pub panics: u64,
}

/// What is believed about one backend.
pub(super) struct Entry {
    pub backend: Arc<Backend>,
    pub address: Option<SocketAddr>,
    pub admin: AdminState,
    pub health: HealthState,
    /// Its place in the rotation.
    pub standing: Standing,
    /// Why its health is what it is.
    pub health_code: ReasonCode,
    pub health_words: String,
    /// Since when its health is what it is.
    pub health_since_unix_ms: u64,
    /// Since when it is in its state: health, what the operator asked for, and ejection together.
    pub since_unix_ms: u64,
    pub last: Option<LastCheck>,
    pub next_unix_ms: Option<u64>,
    pub passed: u64,
    pub failed: u64,
    pub history: History,
    /// Set while it is not wanted.
    pub leaving: Option<Leaving>,
    checker: Checker,
    next: Instant,
    /// Grows when what was known becomes void; a report of an earlier one is dropped.
    epoch: u32,
}

/// The last active check.
pub(super) struct LastCheck {
    pub unix_ms: u64,
    pub passed: bool,
    pub words: String,
}

impl Entry {
    pub(super) fn state(&self) -> BackendState {
        BackendState::of(self.admin, self.health.health(), self.standing.is_ejected())
    }

    /// Why it is in this state: code and words.
    pub(super) fn reason(&self) -> (ReasonCode, String) {
        let asked = match self.admin {
            AdminState::Ready => return self.reason_in_rotation(self.standing.ejections.words()),
            AdminState::Drain => "the operator asked it to drain",
            AdminState::Maintenance => "the operator put it into maintenance; it is not checked",
        };
        let words = match (self.admin, self.health.health()) {
            (AdminState::Drain, Health::Down) => format!("{asked}; checks fail: {}", self.health_words),
            _ => asked.to_owned(),
        };
        (ReasonCode::Operator, words)
    }

    /// As [`Self::reason`], with the time that is left of an ejection.
    pub(super) fn reason_at(&self, now_ms: u64) -> (ReasonCode, String) {
        match self.admin {
            AdminState::Ready => self.reason_in_rotation(self.standing.ejections.words_at(now_ms)),
            _ => self.reason(),
        }
    }

    fn reason_in_rotation(&self, ejected: Option<String>) -> (ReasonCode, String) {
        match (self.state(), ejected) {
            (BackendState::Ejected, Some(words)) => (ReasonCode::Ejected, words),
            (BackendState::Ready, _) if (1..100).contains(&self.standing.percent()) => {
                (ReasonCode::SlowStart, format!("slow start {} %", self.standing.percent()))
            }
            _ => (self.health_code, self.health_words.clone()),
        }
    }

    fn view(&self) -> BackendView {
        let (reason_code, words) = self.reason();
        BackendView {
            backend: Arc::clone(&self.backend),
            address: self.address,
            admin: self.admin,
            health: self.health.health(),
            ejected: self.standing.is_ejected(),
            tenths: self.standing.tenths(),
            reason_code,
            reason: words.into(),
            cut: self.leaving.as_ref().is_some_and(Leaving::is_cut),
        }
    }
}

impl Board {
    /// All backends of the configuration, unknown, with their checkers running.
    pub(super) fn new(config: &Config, reports: &mpsc::Sender<Report>, now_ms: u64) -> Self {
        let now = Instant::now();
        let turns = Arc::new(Semaphore::new(config.checks.concurrency));
        let entries = config.pool.backends.iter().enumerate().map(|(id, spec)| Entry {
            checker: Checker::start(
                BackendId(id as u32),
                spec.address.clone(),
                config,
                now,
                Arc::clone(&turns),
                reports.clone(),
            ),
            backend: Backend::new(BackendId(id as u32), spec.clone(), config.workers),
            address: None,
            admin: AdminState::Ready,
            health: HealthState::default(),
            standing: Standing::default(),
            health_code: ReasonCode::NotCheckedYet,
            health_words: "not checked yet".to_owned(),
            health_since_unix_ms: now_ms,
            since_unix_ms: now_ms,
            last: None,
            next_unix_ms: Some(now_ms),
            passed: 0,
            failed: 0,
            history: History::default(),
            leaving: None,
            next: now,
            epoch: 0,
        });
        let limits = config.admit.gate;
        let pool = BoardPool {
            name: config.pool.name.as_str().into(),
            policy: config.pool.policy,
            cursor: Arc::default(),
            gate: (!limits.is_none()).then(|| Arc::new(Gate::new(limits))),
            entries: entries.collect(),
            rotation: Rotation::new(config.rotation.clone(), 0),
            in_panic: false,
            panics: 0,
        };
        let places = pool.entries.iter().enumerate().map(|(at, entry)| (entry.backend.id, (0, at))).collect();
        Self {
            pools: vec![pool],
            events: VecDeque::new(),
            generation: 0,
            draining: false,
            began: now,
            drain_news: 0,
            faded_ms: 0,
            changed: true,
            due_ms: None,
            leaving: 0,
            places,
            next_event: 1,
        }
    }

    /// Whether any backend is on its way out.
    pub(super) fn is_any_leaving(&self) -> bool {
        self.leaving > 0
    }

    /// Whether every backend has had a first result.
    pub(super) fn all_known(&self) -> bool {
        // What is in maintenance is not checked, so nothing is waited for.
        let known = |entry: &Entry| entry.last.is_some() || entry.admin == AdminState::Maintenance;
        self.pools.iter().flat_map(|pool| &pool.entries).all(known)
    }

    /// The next snapshot, if what it shows has changed.
    pub(super) fn take_snapshot(&mut self) -> Option<Snapshot> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        self.generation += 1;
        let pools = self.pools.iter().map(|pool| {
            let views = pool.entries.iter().map(Entry::view).collect();
            let rule = pool.rotation.policy().panic_rule();
            let policy = (pool.policy, Arc::clone(&pool.cursor));
            PoolView::new(Arc::clone(&pool.name), policy, views, rule).with_gate(pool.gate.clone())
        });
        Some(Snapshot { generation: self.generation, pools: pools.collect() })
    }

    pub(super) fn event(&mut self, now_ms: u64, kind: EventKind, place: Option<Place>, message: String) {
        let (pool, backend) = match place {
            Some((pool, entry)) => {
                let pool = &self.pools[pool];
                (Some(pool.name.to_string()), Some(pool.entries[entry].backend.spec.name.clone()))
            }
            None => (None, None),
        };
        self.push_event(now_ms, kind, pool, backend, message);
    }

    /// An event of a pool as a whole.
    pub(super) fn pool_event(&mut self, now_ms: u64, kind: EventKind, pool: usize, message: String) {
        let pool = self.pools[pool].name.to_string();
        self.push_event(now_ms, kind, Some(pool), None, message);
    }

    fn push_event(
        &mut self,
        now_ms: u64,
        kind: EventKind,
        pool: Option<String>,
        backend: Option<String>,
        message: String,
    ) {
        tracing::info!(kind = ?kind, pool, backend, "{message}");
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(Event { seq: self.next_event, unix_ms: now_ms, kind, pool, backend, message });
        self.next_event += 1;
    }

    pub(super) fn find(&self, id: BackendId) -> Option<Place> {
        self.places.get(&id).copied()
    }

    /// Takes in the result of a check, and says when the next one is due.
    pub(super) fn take_report(&mut self, policy: &HealthPolicy, report: Report, now_ms: u64) {
        let Some(place) = self.find(report.backend) else { return };
        if let Some(message) = report.discovery {
            self.event(now_ms, EventKind::Discovery, Some(place), message);
        }
        let entry = &mut self.pools[place.0].entries[place.1];
        // A check that was under way when maintenance began says nothing about what comes after it.
        if entry.admin == AdminState::Maintenance || report.epoch != entry.epoch {
            return;
        }
        let passed = matches!(report.outcome, Outcome::Passed(_));
        if let Some(address) = report.address.filter(|address| entry.address != Some(*address)) {
            entry.address = Some(address);
            self.changed = true;
        }
        entry.history.checked(now_ms, report.took, &report.outcome);
        let words = match &report.outcome {
            Outcome::Passed(pass) => pass.to_string(),
            Outcome::Failed(failure) => failure.in_full(),
            Outcome::NotTried(why) => {
                tracing::warn!(backend = %entry.backend.spec.name, why, "a check could not be made");
                entry.schedule(Instant::now() + policy.fast_interval, now_ms + policy.fast_interval.as_millis() as u64);
                return;
            }
        };
        entry.last = Some(LastCheck { unix_ms: now_ms, passed, words });
        *(if passed { &mut entry.passed } else { &mut entry.failed }) += 1;
        self.judge(policy, place, report.outcome, "checks", now_ms);
        let entry = &mut self.pools[place.0].entries[place.1];
        let (now, delay) = (Instant::now(), entry.health.next_delay(policy, fastrand::f64()));
        let delay = together(now + delay - self.began, delay) - (now - self.began);
        entry.schedule(now + delay, now_ms + delay.as_millis() as u64);
    }

    /// Takes in a failed connect of live traffic: it counts as much as a failed check, at once, and brings the next
    /// check forward; unless checks look at another port.
    pub(super) fn take_live_failure(&mut self, policy: &HealthPolicy, live: LiveFailure, now_ms: u64) {
        let Some(place) = self.find(live.backend) else { return };
        let entry = &self.pools[place.0].entries[place.1];
        // A request picked it before it was taken out: nothing new.
        if entry.health.health() != Health::Up || entry.admin == AdminState::Maintenance {
            return;
        }
        let rotation = self.pools[place.0].rotation.policy();
        // Checks of another port would bring it back at once: ejection, which lasts longer each time, has counted it.
        if rotation.checks_elsewhere && rotation.outlier.consecutive > 0 {
            self.pools[place.0].entries[place.1].history.live_failure_beside(now_ms, &live.failure);
            return;
        }
        self.pools[place.0].entries[place.1].history.live_failure(now_ms, &live.failure);
        self.judge(policy, place, Outcome::Failed(live.failure), "connects of live requests", now_ms);
        let entry = &mut self.pools[place.0].entries[place.1];
        let soon = Instant::now() + entry.health.next_delay(policy, fastrand::f64()).min(policy.fast_interval);
        if soon < entry.next && entry.admin != AdminState::Maintenance {
            entry.schedule(soon, now_ms + policy.fast_interval.as_millis() as u64);
        }
    }

    fn judge(&mut self, policy: &HealthPolicy, place: Place, outcome: Outcome, source: &str, now_ms: u64) {
        let entry = &mut self.pools[place.0].entries[place.1];
        let first = entry.last.is_none() || entry.health.health() == Health::Unknown;
        let verdict = entry.health.record(policy, matches!(outcome, Outcome::Passed(_)));
        let failure = match outcome {
            Outcome::Passed(_) | Outcome::NotTried(_) => None,
            Outcome::Failed(failure) => Some(failure),
        };
        let Some(verdict) = verdict else {
            // The cause of a lasting outage may change; what a page says follows. A snapshot is worth only another
            // kind of cause: words may differ with each check of each backend.
            if let (Some(failure), Health::Down) = (failure, entry.health.health()) {
                self.changed |= entry.health_code != failure.code;
                (entry.health_code, entry.health_words) = (failure.code, failure.words);
            }
            return;
        };
        let streak = entry.health.streak();
        let message = match failure {
            None if first => {
                (entry.health_code, entry.health_words) = (ReasonCode::ChecksPass, "checks pass".to_owned());
                "up: the first check passed".to_owned()
            }
            None => {
                (entry.health_code, entry.health_words) = (ReasonCode::ChecksPass, "checks pass".to_owned());
                format!("up: {streak} checks in a row passed")
            }
            Some(failure) => {
                let words = failure.in_full();
                let message = if first {
                    format!("down: {words} at the first check")
                } else {
                    format!("down: {words} ({streak} of {} {source} failed in a row)", policy.fall)
                };
                (entry.health_code, entry.health_words) = (failure.code, failure.words);
                message
            }
        };
        debug_assert!(verdict != Health::Unknown, "a result always decides");
        entry.health_since_unix_ms = now_ms;
        entry.since_unix_ms = now_ms;
        self.changed = true;
        self.event(now_ms, EventKind::Health, Some(place), message);
    }

    /// Does what the operator asks. Asking for what is already so changes nothing and is no event,
    /// except that a backend that is to be ready is not ejected any more.
    pub(super) fn set_admin(
        &mut self,
        pool: &str,
        backend: &str,
        state: AdminState,
        now_ms: u64,
    ) -> Result<Place, NotFound> {
        let (found, at) = self.place(pool, backend)?;
        let generation = self.generation + 1;
        let entry = &mut self.pools[found].entries[at];
        let before = entry.admin;
        if before == state {
            if state == AdminState::Ready {
                self.pardon((found, at), now_ms);
            }
            return Ok((found, at));
        }
        entry.admin = state;
        entry.since_unix_ms = now_ms;
        self.leaving -= usize::from(entry.leaving.is_some());
        entry.leaving = Leaving::after(entry.leaving.take(), state, generation, now_ms);
        self.leaving += usize::from(entry.leaving.is_some());
        self.drain_news += 1;
        if state == AdminState::Maintenance {
            entry.checker.order(Order::Pause);
            entry.next_unix_ms = None;
        } else if before == AdminState::Maintenance {
            // What was known is out of date: the next result decides at once, and it is asked for at once.
            entry.health.reset();
            entry.health_since_unix_ms = now_ms;
            entry.epoch += 1;
            entry.health_code = ReasonCode::NotCheckedYet;
            entry.health_words = "back from maintenance; not checked yet".to_owned();
            entry.schedule(Instant::now(), now_ms);
        }
        self.changed = true;
        let message = format!("{} (was {})", state.as_str(), before.as_str());
        self.event(now_ms, EventKind::Operator, Some((found, at)), message);
        Ok((found, at))
    }
}

/// When a check is made that is to be made at `due`, `delay` after the last one: at the next beat of all those with such a delay,
/// a fiftieth of it later at most. With many backends several are then made in one go; each for itself would take the core
/// from a worker twice, and leave it to find its memory out of the cache.
fn together(due: Duration, delay: Duration) -> Duration {
    // Of all delays between two powers of two the beat is the same.
    let beat_ms = ((delay.as_millis() / 50) as u64 + 1).next_power_of_two() / 2;
    let due_ms = due.as_millis() as u64 + 1;
    if beat_ms == 0 { due } else { Duration::from_millis(due_ms.next_multiple_of(beat_ms)) }
}

impl Entry {
    fn schedule(&mut self, at: Instant, unix_ms: u64) {
        self.next = at;
        self.next_unix_ms = Some(unix_ms);
        self.checker.order(Order::CheckAt(at, self.epoch));
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
pub(super) mod tests;
