//! The part of `/metrics` about limits, the line and too much of everything.

use std::sync::atomic::Ordering;

use lb_core::metrics::WorkerTotals;
use lb_core::metrics::text::Page;
use lb_core::overload::Level;

use super::pressure;
use crate::clock::Clock;
use crate::worker::Shared;

/// Adds the families; those of the line only for pools that have one.
pub(super) fn put(page: &mut Page, shared: &Shared, workers: &WorkerTotals) {
    let snapshot = shared.snapshot.load();
    let limited: Vec<_> = (0..snapshot.pools.len())
        .filter_map(|at| Some((&*snapshot.pools[at].name, pressure::queue(shared, at)?)))
        .collect();
    if !limited.is_empty() {
        page.family("lb_queue_waiting", "gauge", "Requests that wait for a place at a backend.");
        for (pool, queue) in &limited {
            page.sample("lb_queue_waiting", &[("pool", pool)], queue.waiting);
        }
        page.family("lb_queue_longest_wait_seconds", "gauge", "For how long the first of them has waited.");
        for (pool, queue) in &limited {
            let seconds = queue.longest_wait_ms as f64 / 1000.0;
            page.sample("lb_queue_longest_wait_seconds", &[("pool", pool)], seconds);
        }
        page.family("lb_queued_total", "counter", "Requests that had to wait for a place.");
        for (pool, queue) in &limited {
            page.sample("lb_queued_total", &[("pool", pool)], queue.queued_total);
        }
        page.family("lb_queue_wait_seconds", "histogram", "How long they waited, until they had a place or gave up.");
        page.histogram("lb_queue_wait_seconds", &[], &workers.queue_wait);
    }
    page.family("lb_overload_level", "gauge", "1 for the level of overload, 0 for the others.");
    for level in Level::ALL {
        let is = u8::from(shared.overload.level() == level);
        page.sample("lb_overload_level", &[("level", level.as_str())], is);
    }
    let (used, limit) = shared.overload.memory();
    let conns = &shared.backend_conns;
    let each = [
        ("lb_memory_used_bytes", "gauge", "Memory used, as it is counted against the limit.", used),
        ("lb_memory_limit_bytes", "gauge", "Memory that may be used; 0 when it is not known.", limit),
        ("lb_backend_connections", "gauge", "Connections to backends, idle ones included.", conns.open() as u64),
        (
            "lb_backend_connections_waited_total",
            "counter",
            "Requests that waited for pool.max_connections.",
            conns.waited.load(Ordering::Relaxed),
        ),
        (
            "lb_backend_connections_refused_total",
            "counter",
            "Requests that did so in vain.",
            conns.refused.load(Ordering::Relaxed),
        ),
    ];
    for (name, kind, help, value) in each {
        page.family(name, kind, help);
        page.sample(name, &[], value);
    }
    if let Some(rate) = &shared.rate {
        let now_ns = Clock::since(shared.started).read().as_ns();
        let each = [
            (
                "lb_rate_limit_clients",
                "gauge",
                "Clients that have used some of their limit.",
                rate.clients(now_ns) as u64,
            ),
            ("lb_rate_limit_capacity", "gauge", "Clients that can be remembered.", rate.capacity() as u64),
            (
                "lb_rate_limit_forgotten_total",
                "counter",
                "Clients forgotten too early for want of room.",
                rate.forgotten(),
            ),
        ];
        for (name, kind, help, value) in each {
            page.family(name, kind, help);
            page.sample(name, &[], value);
        }
    }
}
