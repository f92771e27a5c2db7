//! What the server counts, as plain atomics.
//!
//! The program has one thread, so every counter has one writer at a time and relaxed ordering is enough: a scrape
//! may see a request half a microsecond before its bytes. How it looks on `/metrics` is in [`render`], what the
//! kernel knows of the process in [`process`].

mod process;
pub(crate) mod render;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the response time histogram: from a loopback answer (some 50 µs) to the longest `/delay`.
pub(crate) const BOUNDS_US: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000,
    60_000_000,
];

/// The classes of answers, and `aborted`: the connection ended before there was one.
pub(crate) const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "aborted"];

/// An injected fault, as counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Injected {
    Latency,
    Error,
    Hang,
    ResetBefore,
    ResetMid,
    Refuse,
}

impl Injected {
    /// In the order of the enum; the words of the fault grammar in the spelling of label values.
    pub(crate) const KINDS: [&'static str; 6] = ["latency", "error", "hang", "reset_before", "reset_mid", "refuse"];
}

#[derive(Default)]
pub(crate) struct Metrics {
    requests: [AtomicU64; CLASSES.len()],
    in_flight: AtomicU64,
    /// One more than bounds: the last is everything above them.
    times: [AtomicU64; BOUNDS_US.len() + 1],
    times_sum_us: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    connections: AtomicU64,
    open_connections: AtomicU64,
    injected: [AtomicU64; Injected::KINDS.len()],
}

impl Metrics {
    pub(crate) fn request_began(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// `status` is `None` when the connection ended before there was an answer; such a request has no response time.
    pub(crate) fn request_ended(&self, status: Option<u16>, took: Duration) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let class = match status {
            Some(200..=299) => 0,
            Some(300..=399) => 1,
            Some(400..=499) => 2,
            Some(_) => 3,
            None => 4,
        };
        self.requests[class].fetch_add(1, Ordering::Relaxed);
        if status.is_some() {
            let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.times[BOUNDS_US.partition_point(|bound_us| *bound_us < took_us)].fetch_add(1, Ordering::Relaxed);
            self.times_sum_us.fetch_add(took_us, Ordering::Relaxed);
        }
    }

    pub(crate) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.open_connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn connection_closed(&self) {
        self.open_connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(crate) fn received(&self, bytes: usize) {
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn injected(&self, kind: Injected) {
        self.injected[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn injected_count(&self, kind: usize) -> u64 {
        self.injected[kind].load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn open_connections(&self) -> u64 {
        self.open_connections.load(Ordering::Relaxed)
    }
}
