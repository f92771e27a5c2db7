//! `/metrics`: every number in the Prometheus text format. Base units, a `_total` on counters, labels only from the
//! configuration and from fixed sets, one 0/1 series per state name.

use std::path::Path;

use lb_core::api::BackendState;
use lb_core::metrics::text::Page;
use lb_core::metrics::{BackendTotals, EndedEarly, FailureKind, LocalReply, Rejected, TunnelEnd, WorkerTotals};
use lb_core::outlier::Cause;
use lb_core::retry::{Refused, RetryCause};

use super::admit_metrics;
use super::board::{Board, BoardPool, Entry};
use super::figures::worker_totals;
use super::{checks, drain};
use crate::access;
use crate::descriptors;
use crate::listen::Pause;
use crate::logging;
use crate::overload;
use crate::worker::Shared;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// One backend's labels and numbers, read once for the whole page.
pub(super) struct Row<'a> {
    pub pool: &'a str,
    pub name: &'a str,
    pub entry: &'a Entry,
    totals: BackendTotals,
}

/// A family with one sample per backend: name, kind, help, value.
type Simple<'a> = (&'a str, &'a str, &'a str, fn(&Row<'_>) -> u64);

/// The same with one sample per pool.
type OfPool<'a> = (&'a str, &'a str, &'a str, fn(&BoardPool) -> u64);

/// The whole page.
pub(super) fn page(shared: &Shared, board: &Board) -> String {
    let rows: Vec<Row<'_>> = board
        .pools
        .iter()
        .flat_map(|pool| pool.entries.iter().map(move |entry| (&*pool.name, entry)))
        .map(|(pool, entry)| Row { pool, name: &entry.backend.spec.name, totals: entry.backend.totals(), entry })
        .collect();
    let mut page = Page::default();
    requests(&mut page, &rows);
    idle_times(&mut page, &rows);
    timings(&mut page, &rows);
    health(&mut page, &rows);
    rotation(&mut page, &rows, shared, board);
    checks::metrics(&mut page, &rows);
    drain::metrics(&mut page, shared, &rows);
    pools(&mut page, shared);
    process(&mut page, shared, board);
    page.finish()
}

fn requests(page: &mut Page, rows: &[Row<'_>]) {
    page.family("lb_requests_total", "counter", "Requests answered by a backend, by class of the status.");
    for row in rows {
        for (class, count) in CLASSES.iter().zip(row.totals.responses) {
            page.sample("lb_requests_total", &[("pool", row.pool), ("backend", row.name), ("class", class)], count);
        }
    }
    page.family("lb_attempt_failures_total", "counter", "Attempts at a backend that broke, by where they broke.");
    for row in rows {
        for kind in FailureKind::ALL {
            let labels = [("pool", row.pool), ("backend", row.name), ("kind", kind.as_str())];
            page.sample("lb_attempt_failures_total", &labels, row.totals.failures[kind as usize]);
        }
    }
    let each: [Simple<'_>; 6] = [
        ("lb_retries_total", "counter", "Attempts that left this backend for another.", |row| row.totals.retries),
        ("lb_in_flight", "gauge", "Requests under way.", |row| row.entry.backend.in_flight()),
        ("lb_received_bytes_total", "counter", "Request body bytes sent to the backend.", |row| {
            row.totals.received_bytes
        }),
        ("lb_sent_bytes_total", "counter", "Response body bytes taken from the backend.", |row| row.totals.sent_bytes),
        ("lb_backend_connections_total", "counter", "Connections opened to the backend.", |row| row.totals.connections),
        ("lb_tunnels_total", "counter", "Tunnels (WebSocket) opened to the backend.", |row| row.totals.tunnels),
    ];
    for (name, kind, help, value) in each {
        page.family(name, kind, help);
        for row in rows {
            page.sample(name, &[("pool", row.pool), ("backend", row.name)], value(row));
        }
    }
}

fn idle_times(page: &mut Page, rows: &[Row<'_>]) {
    let name = "lb_backend_learned_idle_seconds";
    page.family(name, "gauge", "After how long idle the backend closes connections, as learned; absent until it is.");
    for row in rows {
        if let Some(time) = row.entry.backend.learned_idle() {
            page.sample(name, &[("pool", row.pool), ("backend", row.name)], time.as_secs_f64());
        }
    }
}

fn timings(page: &mut Page, rows: &[Row<'_>]) {
    page.family("lb_connect_duration_seconds", "histogram", "Time to open a connection to the backend.");
    for row in rows {
        let labels = [("pool", row.pool), ("backend", row.name)];
        page.histogram("lb_connect_duration_seconds", &labels, &row.totals.connect);
    }
    let help = "From the arrival of a request to the end of its response.";
    page.family("lb_response_duration_seconds", "histogram", help);
    for row in rows {
        let labels = [("pool", row.pool), ("backend", row.name)];
        page.histogram("lb_response_duration_seconds", &labels, &row.totals.response);
    }
}

fn health(page: &mut Page, rows: &[Row<'_>]) {
    page.family("lb_health_checks_total", "counter", "Active checks, by result.");
    for row in rows {
        for (result, count) in [("passed", row.entry.passed), ("failed", row.entry.failed)] {
            let labels = [("pool", row.pool), ("backend", row.name), ("result", result)];
            page.sample("lb_health_checks_total", &labels, count);
        }
    }
    let help = "1 for the state the backend is in, 0 for the others; the reason is that of the current state.";
    page.family("lb_backend_state", "gauge", help);
    for row in rows {
        for state in BackendState::ALL {
            let is = row.entry.state() == state;
            let reason = if is { row.entry.reason().0.as_str() } else { "" };
            let labels = [("pool", row.pool), ("backend", row.name), ("state", state.as_str()), ("reason", reason)];
            page.sample("lb_backend_state", &labels, u8::from(is));
        }
    }
}

/// Ejections, shares and panic.
fn rotation(page: &mut Page, rows: &[Row<'_>], shared: &Shared, board: &Board) {
    page.family("lb_ejections_total", "counter", "Times that a backend was ejected for failing requests, by cause.");
    for row in rows {
        for (cause, count) in Cause::ALL.iter().zip(row.entry.standing.ejections.totals()) {
            let labels = [("pool", row.pool), ("backend", row.name), ("cause", cause.as_str())];
            page.sample("lb_ejections_total", &labels, count);
        }
    }
    let help = "A backend's weight as it is now: less than configured in a slow start, 0 while no requests go to it.";
    page.family("lb_backend_effective_weight", "gauge", help);
    for pool in &shared.snapshot.load().pools {
        for view in &pool.backends {
            let labels = [("pool", &*pool.name), ("backend", view.backend.spec.name.as_str())];
            let weight = f64::from(view.backend.spec.weight) * pool.share_of(view);
            page.sample("lb_backend_effective_weight", &labels, weight);
        }
    }
    let help =
        "What a backend's recent failures weigh beside its requests under way; policies that look at load add it.";
    page.family("lb_backend_failure_load", "gauge", help);
    for pool in &board.pools {
        for entry in &pool.entries {
            let labels = [("pool", &*pool.name), ("backend", entry.backend.spec.name.as_str())];
            page.sample("lb_backend_failure_load", &labels, entry.backend.failure_load());
        }
    }
    let each: [OfPool<'_>; 3] = [
        ("lb_pool_panic", "gauge", "1 while too few backends are ready and others are used too.", |pool| {
            u64::from(pool.in_panic)
        }),
        ("lb_pool_panics_total", "counter", "Times that a panic began.", |pool| pool.panics),
        (
            "lb_ejections_withheld_total",
            "counter",
            "Ejections that did not take place for the sake of the pool.",
            |pool| pool.rotation.withheld(),
        ),
    ];
    for (name, kind, help, value) in each {
        page.family(name, kind, help);
        for pool in &board.pools {
            page.sample(name, &[("pool", &*pool.name)], value(pool));
        }
    }
}

fn pools(page: &mut Page, shared: &Shared) {
    let snapshot = shared.snapshot.load();
    page.family("lb_pool_backends", "gauge", "Backends of a pool, and how many of them take requests.");
    for pool in &snapshot.pools {
        for (which, count) in [("configured", pool.backends.len()), ("ready", pool.ready())] {
            page.sample("lb_pool_backends", &[("pool", &pool.name), ("which", which)], count);
        }
    }
    let workers = worker_totals(shared);
    let help = "Replies that the balancer made itself, by reason; client_gone had nobody to reply to.";
    page.family("lb_local_replies_total", "counter", help);
    for kind in LocalReply::ALL {
        let status = kind.status().to_string();
        let labels = [("reason", kind.as_str()), ("status", status.as_str())];
        page.sample("lb_local_replies_total", &labels, workers.local_replies[kind as usize]);
    }
    let help = "Requests and connections refused for what the client sent or did, by reason.";
    page.family("lb_rejected_total", "counter", help);
    for reason in Rejected::ALL {
        let status = reason.status().to_string();
        let labels = [("reason", reason.as_str()), ("status", status.as_str())];
        page.sample("lb_rejected_total", &labels, workers.rejected[reason as usize]);
    }
    retries(page, &workers);
    page.family("lb_tunnels_ended_total", "counter", "Tunnels that ended, by why.");
    for end in TunnelEnd::ALL {
        page.sample("lb_tunnels_ended_total", &[("reason", end.as_str())], workers.tunnel_ends[end as usize]);
    }
    page.family("lb_accept_paused_total", "counter", "Times that accepting began to pause, by reason.");
    for pause in Pause::ALL {
        page.sample("lb_accept_paused_total", &[("reason", pause.as_str())], shared.admission.paused(pause).0);
    }
    page.family("lb_accept_paused", "gauge", "1 while clients wait because accepting pauses, by reason.");
    for pause in Pause::ALL {
        page.sample("lb_accept_paused", &[("reason", pause.as_str())], u8::from(shared.admission.paused(pause).1));
    }
    let help = "Idle client connections closed before their time, by what their room was needed for.";
    page.family("lb_idle_closed_early_total", "counter", help);
    for reason in EndedEarly::ALL {
        let closed = workers.ended_early[reason as usize];
        page.sample("lb_idle_closed_early_total", &[("reason", reason.as_str())], closed);
    }
    admit_metrics::put(page, shared, &workers);
    let each = [
        ("lb_tunnels", "gauge", "Tunnels open now.", shared.tunnels.count() as u64),
        ("lb_connections_limit", "gauge", "Most client connections at a time.", shared.admission.most() as u64),
        ("lb_connections_accepted_total", "counter", "Client connections accepted.", workers.accepted),
        ("lb_connections", "gauge", "Client connections open.", shared.connections() as u64),
        (
            "lb_responses_cut_by_client_total",
            "counter",
            "Responses the client did not stay for.",
            workers.cut_by_client,
        ),
        (
            "lb_responses_cut_by_deadline_total",
            "counter",
            "Responses that were cut because the time for the request had passed.",
            workers.cut_overdue,
        ),
        ("lb_retries_active", "gauge", "Paid repeats under way.", shared.retries.count()),
        ("lb_log_lines_dropped_total", "counter", "Log lines that nobody took in time.", logging::dropped() as u64),
        (
            "lb_access_log_lines_dropped_total",
            "counter",
            "Lines of the access log that could not be written.",
            shared.access.as_ref().map_or(0, access::Log::dropped),
        ),
        ("lb_panics_total", "counter", "Connections lost to a panic: please report.", workers.panics),
    ];
    for (name, kind, help, value) in each {
        page.family(name, kind, help);
        page.sample(name, &[], value);
    }
}

fn retries(page: &mut Page, workers: &WorkerTotals) {
    let help = "Attempts that were repeated, by what had happened; connect, unsent and stale come out of no budget.";
    page.family("lb_retries_by_cause_total", "counter", help);
    for cause in RetryCause::ALL {
        page.sample("lb_retries_by_cause_total", &[("cause", cause.as_str())], workers.retries[cause as usize]);
    }
    let help = "Repeats that the budget refused, by which bound of it: recent requests, or active ones.";
    page.family("lb_retries_refused_total", "counter", help);
    for by in Refused::ALL {
        page.sample("lb_retries_refused_total", &[("by", by.as_str())], workers.retries_refused[by as usize]);
    }
}

fn process(page: &mut Page, shared: &Shared, board: &Board) {
    page.family("lb_build_info", "gauge", "1, with the version as a label.");
    page.sample("lb_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("lb_workers", "gauge", "Worker threads.");
    page.sample("lb_workers", &[], shared.config.workers);
    page.family("lb_snapshot_generation", "gauge", "Number of the snapshot requests are balanced by.");
    page.sample("lb_snapshot_generation", &[], board.generation);
    page.family("lb_draining", "gauge", "1 while the balancer shuts down.");
    page.sample("lb_draining", &[], u8::from(board.draining));
    page.family("process_open_fds", "gauge", "Open file descriptors.");
    // Without a descriptor to look with, there is no sample: nothing would be a lie.
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        page.sample("process_open_fds", &[], open.count());
    }
    page.family("process_max_fds", "gauge", "Most file descriptors.");
    page.sample("process_max_fds", &[], descriptors::limit());
    page.family("process_resident_memory_bytes", "gauge", "Resident memory.");
    page.sample("process_resident_memory_bytes", &[], overload::resident(Path::new("/")));
}
