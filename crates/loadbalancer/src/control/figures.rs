//! From counters to rates: once a second all shards are added up and compared with one and with ten seconds ago.
//!
//! Kept per backend: eleven readings (about 40 KiB) and a minute of rates; for the whole, five minutes of samples.

use std::collections::VecDeque;
use std::time::Instant;

use lb_core::api::{self, HISTORY_KEPT, RECENT_KEPT, Sample, StatusClasses, Traffic};
use lb_core::backend::Backend;
use lb_core::metrics::{BackendTotals, Counts, FailureKind, LocalReply, Rejected, WorkerTotals};

use super::board::Board;
use crate::worker::Shared;

/// Seconds that quantiles and error rates look back.
const WINDOW: usize = 10;

/// Rates of everything, as of the last tick.
pub(super) struct Figures {
    pub tick: u64,
    pub started_unix_ms: u64,
    /// Rates are computed from it: the time of day may jump.
    started: Instant,
    pub proxy_address: String,
    pub history: VecDeque<Sample>,
    /// In the order of pools and backends.
    pub backends: Vec<Vec<Window>>,
    /// What the balancer answered itself; no pool is told apart while there is one.
    pub local: VecDeque<(u64, WorkerTotals)>,
    /// What the last delta showed, to leave out what has not changed.
    pub(super) shown: Vec<Vec<api::Backend>>,
    /// The newest event that a delta has carried.
    pub(super) told: u64,
}

/// Readings of one backend, oldest first, and its recent rates.
#[derive(Default)]
pub(super) struct Window {
    readings: VecDeque<(u64, BackendTotals)>,
    pub recent: VecDeque<f64>,
}

/// What a window says.
#[derive(Default)]
pub(super) struct Rates {
    pub requests_per_s: f64,
    pub errors_per_s: f64,
    /// Over the whole window.
    pub requests: u64,
    pub errors: u64,
    pub response: Counts,
    pub connect: Counts,
}

impl Figures {
    pub(super) fn new(shared: &Shared, proxy_address: String, now_ms: u64) -> Self {
        let pools = [shared.config.pool.backends.len()];
        Self {
            tick: 0,
            started_unix_ms: now_ms,
            started: Instant::now(),
            proxy_address,
            history: VecDeque::new(),
            backends: pools.map(|count| (0..count).map(|_| Window::default()).collect()).into(),
            local: VecDeque::new(),
            shown: Vec::new(),
            told: 0,
        }
    }

    /// Reads all counters.
    pub(super) fn tick(&mut self, shared: &Shared, board: &Board, unix_ms: u64) {
        self.tick += 1;
        let now_ms = self.started.elapsed().as_millis() as u64;
        push_bounded(&mut self.local, (now_ms, worker_totals(shared)), WINDOW + 1);
        for (pool, windows) in board.pools.iter().zip(&mut self.backends) {
            for (entry, window) in pool.entries.iter().zip(windows) {
                window.read(&entry.backend, now_ms);
                let rate = window.requests_per_s();
                push_bounded(&mut window.recent, rate, RECENT_KEPT);
            }
        }
        let second = self.last_second(board, unix_ms);
        push_bounded(&mut self.history, second, HISTORY_KEPT);
    }

    /// The last second of everything, for the charts.
    fn last_second(&self, board: &Board, unix_ms: u64) -> Sample {
        let (mut requests_per_s, mut errors_per_s) = self.local_per_s();
        let mut response = Counts::default();
        for window in self.backends.iter().flatten() {
            let [before, now] = window.last_two();
            let (Some((from, before)), Some((to, now))) = (before, now) else { continue };
            requests_per_s += window.requests_per_s();
            errors_per_s += per_s(now.responses[4] - before.responses[4], *from, *to);
            response.add_between(&before.response, &now.response);
        }
        Sample {
            unix_ms,
            requests_per_s,
            errors_per_s,
            in_flight: board.pools.iter().flat_map(|pool| &pool.entries).map(|entry| entry.backend.in_flight()).sum(),
            p50_ms: response.quantile_ms(0.5),
            p99_ms: response.quantile_ms(0.99),
        }
    }

    /// Replies and 5xx replies per second that the balancer made itself.
    fn local_per_s(&self) -> (f64, f64) {
        let mut latest = self.local.iter().rev();
        let (Some((to, now)), Some((from, before))) = (latest.next(), latest.next()) else { return (0.0, 0.0) };
        let (all, errors) = local_between(before, now);
        (per_s(all, *from, *to), per_s(errors, *from, *to))
    }

    /// Everything in a pool, and what was answered here.
    pub(super) fn pool_traffic(&self, board: &Board, pool: usize) -> Traffic {
        let mut totals = BackendTotals::default();
        let mut rates = Rates::default();
        for (entry, window) in board.pools[pool].entries.iter().zip(&self.backends[pool]) {
            totals.merge(&entry.backend.totals());
            let backend = window.rates();
            rates.requests_per_s += backend.requests_per_s;
            rates.requests += backend.requests;
            rates.response.merge(&backend.response);
            let (errors, per_s) = window.server_errors();
            rates.errors += errors;
            rates.errors_per_s += per_s;
        }
        let (local_per_s, local_errors_per_s) = self.local_per_s();
        rates.requests_per_s += local_per_s;
        rates.errors_per_s += local_errors_per_s;
        if let (Some((_, before)), Some((_, now))) = (self.local.front(), self.local.back()) {
            let (all, errors) = local_between(before, now);
            rates.requests += all;
            rates.errors += errors;
        }
        let in_flight = board.pools[pool].entries.iter().map(|entry| entry.backend.in_flight()).sum();
        let mut traffic = traffic(&totals, &rates, in_flight);
        if let Some((_, local)) = self.local.back() {
            add_local(&mut traffic, local);
        }
        traffic
    }

    /// Everything at one backend.
    pub(super) fn backend_traffic(&self, board: &Board, (pool, entry): (usize, usize)) -> Traffic {
        let backend = &board.pools[pool].entries[entry].backend;
        let mut rates = self.backends[pool][entry].rates();
        // Broken attempts were requests too, as far as this backend's error rate goes.
        rates.requests += rates.errors.saturating_sub(self.backends[pool][entry].server_errors().0);
        traffic(&backend.totals(), &rates, backend.in_flight())
    }
}

impl Window {
    /// Takes a reading, in the memory of the oldest: with a thousand backends it would be megabytes each second.
    fn read(&mut self, backend: &Backend, now_ms: u64) {
        let is_full = self.readings.len() > WINDOW;
        let (_, mut totals) = is_full.then(|| self.readings.pop_front()).flatten().unwrap_or_default();
        backend.read_totals(&mut totals);
        self.readings.push_back((now_ms, totals));
    }

    fn last_two(&self) -> [Option<&(u64, BackendTotals)>; 2] {
        let mut latest = self.readings.iter().rev();
        let now = latest.next();
        [latest.next(), now]
    }

    /// 5xx responses over the window, and per second.
    fn server_errors(&self) -> (u64, f64) {
        let (Some((_, first)), [Some((from, before)), Some((to, now))]) = (self.readings.front(), self.last_two())
        else {
            return (0, 0.0);
        };
        (now.responses[4] - first.responses[4], per_s(now.responses[4] - before.responses[4], *from, *to))
    }

    /// Over the last second.
    fn requests_per_s(&self) -> f64 {
        let [Some((from, before)), Some((to, now))] = self.last_two() else { return 0.0 };
        per_s(answered(now) - answered(before), *from, *to)
    }

    pub(super) fn rates(&self) -> Rates {
        let (Some((_, first)), [Some((from, before)), Some((to, now))]) = (self.readings.front(), self.last_two())
        else {
            return Rates::default();
        };
        Rates {
            requests_per_s: self.requests_per_s(),
            errors_per_s: per_s(errors(now) - errors(before), *from, *to),
            requests: answered(now) - answered(first),
            errors: errors(now) - errors(first),
            response: now.response.since(&first.response),
            connect: now.connect.since(&first.connect),
        }
    }
}

/// All workers' own numbers.
pub(super) fn worker_totals(shared: &Shared) -> WorkerTotals {
    let mut totals = WorkerTotals::default();
    for worker in &shared.workers {
        totals.add(&worker.shard);
    }
    totals
}

/// Quantiles for a page; `None` when nothing was counted.
pub(super) fn latency(counts: &Counts) -> Option<api::Latency> {
    Some(api::Latency {
        p50_ms: counts.quantile_ms(0.5)?,
        p90_ms: counts.quantile_ms(0.9)?,
        p99_ms: counts.quantile_ms(0.99)?,
        max_ms: counts.quantile_ms(1.0)?,
    })
}

fn answered(totals: &BackendTotals) -> u64 {
    totals.responses.iter().sum()
}

fn errors(totals: &BackendTotals) -> u64 {
    totals.responses[4] + totals.failures.iter().sum::<u64>()
}

/// Replies and 5xx replies between two readings.
fn local_between(before: &WorkerTotals, now: &WorkerTotals) -> (u64, u64) {
    let mut sums = (0, 0);
    for ((status, now), (_, before)) in made_here(now).zip(made_here(before)) {
        sums.0 += now - before;
        // A client that speaks another language, or in circles, is no server error.
        sums.1 += if status >= 500 && !CLIENTS_FAULT.contains(&status) { now - before } else { 0 };
    }
    sums
}

/// Statuses from 500 on that are refusals of what a client sent: unknown coding, version, loop.
const CLIENTS_FAULT: [u16; 3] = [501, 505, 508];

/// Replies made here, with their status.
fn made_here(totals: &WorkerTotals) -> impl Iterator<Item = (u16, u64)> {
    let local = LocalReply::ALL.iter().map(|kind| (kind.status(), totals.local_replies[*kind as usize]));
    // Connections that never had a request, and a client that is slow with an answer already counted, are none.
    let request =
        |kind: &&Rejected| !matches!(kind, Rejected::SlowReader | Rejected::ProxyHeader | Rejected::ClientConnections);
    let rejected = Rejected::ALL.iter().filter(request);
    let rejected = rejected.map(|kind| (kind.status(), totals.rejected[*kind as usize]));
    local.chain(rejected)
}

fn per_s(count: u64, from_ms: u64, to_ms: u64) -> f64 {
    let rate = count as f64 * 1000.0 / to_ms.saturating_sub(from_ms).max(1) as f64;
    (rate * 10.0).round() / 10.0
}

fn traffic(totals: &BackendTotals, rates: &Rates, in_flight: u64) -> Traffic {
    let [informational, success, redirection, client_error, server_error] = totals.responses;
    Traffic {
        requests_total: answered(totals),
        responses: StatusClasses { informational, success, redirection, client_error, server_error },
        made_here_total: 0,
        failures_total: FailureKind::ALL.iter().map(|kind| totals.failures[*kind as usize]).sum(),
        retries_total: totals.retries,
        in_flight,
        received_bytes_total: totals.received_bytes,
        sent_bytes_total: totals.sent_bytes,
        requests_per_s: rates.requests_per_s,
        errors_per_s: rates.errors_per_s,
        error_rate: (rates.requests > 0).then(|| rates.errors as f64 / rates.requests as f64),
        latency: latency(&rates.response),
    }
}

fn add_local(traffic: &mut Traffic, totals: &WorkerTotals) {
    for (status, count) in made_here(totals) {
        traffic.requests_total += count;
        traffic.made_here_total += count;
        match status / 100 {
            5 => traffic.responses.server_error += count,
            _ => traffic.responses.client_error += count,
        }
    }
}

fn push_bounded<T>(queue: &mut VecDeque<T>, item: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(item);
}
