//! The wire types, filled in from the board and the figures.

use lb_core::api::{self, Check, Connections, Delta, PoolDelta, PoolState, Readiness, Retries, Status, Traffic};
use lb_core::metrics::LocalReply;
use lb_core::retry::{Refused, RetryCause};
use lb_core::snapshot::PoolView;

use super::board::{Board, Entry, Place};
use super::figures::{Figures, latency, worker_totals};
use super::pressure;
use super::unix_ms;
use crate::worker::Shared;

/// Whether the balancer wants traffic: not while it shuts down, and only if some pool has a backend for it.
pub(crate) fn readiness(draining: bool, started: bool, pools: &[PoolView]) -> Readiness {
    let words =
        || pools.iter().map(|pool| format!("pool {}: {}", pool.name, pool.reason())).collect::<Vec<_>>().join("; ");
    let (ready, reason) = if draining {
        (false, "shutting down".to_owned())
    } else if !started {
        (false, "starting: waiting for the first check of every backend".to_owned())
    } else if pools.iter().all(|pool| pool.state() == PoolState::Down) {
        (false, words())
    } else {
        (true, words())
    };
    Readiness { ready, reason, draining }
}

impl Figures {
    /// Everything, whole.
    pub(super) fn status(&self, shared: &Shared, board: &Board, now_ms: u64) -> Status {
        let snapshot = shared.snapshot.load();
        let backends = |pool: usize| -> Vec<api::Backend> {
            (0..board.pools[pool].entries.len()).map(|entry| self.backend(shared, board, (pool, entry))).collect()
        };
        let pools = snapshot.pools.iter().enumerate().map(|(at, view)| api::Pool {
            name: view.name.to_string(),
            policy: view.kind.as_str().to_owned(),
            state: view.state(),
            reason: view.reason(),
            traffic: self.pool_traffic(board, at),
            queue: pressure::queue(shared, at),
            backends: backends(at),
        });
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_unix_ms: self.started_unix_ms,
            now_unix_ms: now_ms,
            tick: self.tick,
            generation: board.generation,
            ready: readiness(board.draining, board.all_known(), &snapshot.pools),
            proxy_address: self.proxy_address.clone(),
            workers: shared.config.workers as u32,
            connections: connections(shared),
            overload: pressure::overload(shared),
            traffic: self.whole(board),
            retries: retries(shared),
            pools: pools.collect(),
            events: board.events.iter().cloned().collect(),
            history: self.history.iter().copied().collect(),
        }
    }

    /// What has changed since the last one.
    pub(super) fn delta(&mut self, shared: &Shared, board: &Board, now_ms: u64) -> Delta {
        let snapshot = shared.snapshot.load();
        let former = std::mem::take(&mut self.shown);
        let mut pools = Vec::new();
        for (at, view) in snapshot.pools.iter().enumerate() {
            let mut changed = Vec::new();
            let mut shown = Vec::new();
            for entry in 0..board.pools[at].entries.len() {
                let mut backend = self.backend(shared, board, (at, entry));
                let newest = backend.recent_requests_per_s.pop();
                backend.recent_requests_per_s.clear();
                let known = former.get(at).and_then(|pool| pool.get(entry));
                let differs = known != Some(&backend);
                shown.push(backend.clone());
                if differs {
                    backend.recent_requests_per_s.extend(newest);
                    changed.push(backend);
                }
            }
            self.shown.push(shown);
            pools.push(PoolDelta {
                name: view.name.to_string(),
                state: view.state(),
                reason: view.reason(),
                traffic: self.pool_traffic(board, at),
                queue: pressure::queue(shared, at),
                backends: changed,
            });
        }
        let told = std::mem::replace(&mut self.told, board.events.back().map_or(0, |event| event.seq));
        let newest = api::Sample {
            unix_ms: now_ms,
            requests_per_s: 0.0,
            errors_per_s: 0.0,
            in_flight: 0,
            p50_ms: None,
            p99_ms: None,
        };
        Delta {
            tick: self.tick,
            now_unix_ms: now_ms,
            generation: board.generation,
            ready: readiness(board.draining, board.all_known(), &snapshot.pools),
            connections: connections(shared),
            overload: pressure::overload(shared),
            traffic: self.whole(board),
            retries: Some(retries(shared)),
            pools,
            events: board.events.iter().filter(|event| event.seq > told).cloned().collect(),
            sample: self.history.back().copied().unwrap_or(newest),
        }
    }

    /// One backend.
    pub(super) fn backend(&self, shared: &Shared, board: &Board, place: Place) -> api::Backend {
        let entry = &board.pools[place.0].entries[place.1];
        let window = &self.backends[place.0][place.1];
        let (reason_code, reason) = entry.reason_at(board.now_ms());
        let snapshot = shared.snapshot.load();
        let share = snapshot.pools.get(place.0).map_or(0.0, |pool| pool.share_of(&pool.backends[place.1]));
        let spec = &entry.backend.spec;
        let in_flight = entry.backend.in_flight_by_kind();
        api::Backend {
            name: spec.name.clone(),
            address: spec.address.to_string(),
            resolved: entry.address.map(|address| address.to_string()),
            weight: spec.weight,
            admin: entry.admin,
            health: entry.health.health(),
            state: entry.state(),
            in_rotation: share > 0.0,
            effective_weight: f64::from(spec.weight) * share,
            reason,
            reason_code,
            since_unix_ms: entry.since_unix_ms,
            check: check(shared, entry),
            ejection: entry.ejection(board.now_ms(), unix_ms()),
            traffic: self.backend_traffic(board, place),
            in_flight,
            drain: entry.drain(&shared.config.drain, &in_flight),
            connect: latency(&window.rates().connect),
            learned_idle_ms: entry.backend.learned_idle().map(|time| time.as_millis() as u64),
            recent_requests_per_s: window.recent.iter().copied().collect(),
        }
    }

    /// All pools together. There is one.
    fn whole(&self, board: &Board) -> Traffic {
        self.pool_traffic(board, 0)
    }
}

fn check(shared: &Shared, entry: &Entry) -> Check {
    Check {
        last_unix_ms: entry.last.as_ref().map(|last| last.unix_ms),
        last_passed: entry.last.as_ref().map(|last| last.passed),
        last_result: entry.last.as_ref().map(|last| last.words.clone()),
        streak: entry.health.streak(),
        needed: entry.health.needed(&shared.config.health),
        next_unix_ms: entry.next_unix_ms,
        passed_total: entry.passed,
        failed_total: entry.failed,
    }
}

fn retries(shared: &Shared) -> Retries {
    let totals = worker_totals(shared);
    let (of, refused) = (|cause| totals.retries[cause as usize], |by| totals.retries_refused[by as usize]);
    Retries {
        connect_total: of(RetryCause::Connect),
        unsent_total: of(RetryCause::Unsent),
        stale_total: of(RetryCause::Stale),
        closed_total: of(RetryCause::Closed),
        try_timeout_total: of(RetryCause::TryTimeout),
        status_total: of(RetryCause::Status),
        refused_recent_total: refused(Refused::Recent),
        refused_active_total: refused(Refused::Active),
        active: shared.retries.count(),
        deadline_replies_total: totals.local_replies[LocalReply::Deadline as usize],
        deadline_cuts_total: totals.cut_overdue,
    }
}

fn connections(shared: &Shared) -> Connections {
    Connections { open: shared.connections() as u64, accepted_total: worker_totals(shared).accepted }
}
