//! What there is too much of: looked at four times a second, said in the event list when it begins and when it ends.

use std::path::Path;
use std::time::Duration;

use lb_core::api::{self, EventKind, OverloadLevel};
use lb_core::metrics::{LocalReply, WorkerTotals};
use lb_core::overload::{Level, SHED_FROM, SHRINK_FROM};

use super::board::Board;
use super::episodes::Episodes;
use super::figures::{Figures, worker_totals};
use super::unix_ms;
use crate::clock::Clock;
use crate::descriptors;
use crate::overload::{Memory, Reading, Source};
use crate::worker::Shared;

/// Between two looks. At 10 Gbit/s 300 MB can come in meanwhile; far more than that buffers take in that time, since
/// each holds a fixed amount and only new connections bring more of them.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Looks from one at the limit itself to the next: 10 s.
const LOOKS_PER_LIMIT: u32 = 40;

/// What is watched.
pub(super) struct Pressure {
    clock: Clock,
    memory: Memory,
    /// The last one that succeeded.
    reading: Reading,
    looks: u32,
    /// Of memory, and of descriptors.
    level: Level,
    descriptors: Level,
    episodes: Episodes,
}

impl Pressure {
    pub(super) fn new(shared: &Shared) -> Self {
        let memory = Memory::find(shared.config.admit.memory, Path::new("/")).unwrap_or_else(|error| {
            tracing::warn!(%error, "the memory limit cannot be known yet");
            Memory::unknown()
        });
        let reading = memory.read().unwrap_or_default();
        if memory.source != Source::Unknown {
            tracing::info!(bytes = memory.limit, of = memory.words(), "memory limit");
        }
        shared.overload.set(Level::Calm, reading.used, memory.limit, memory.room(reading));
        Self {
            clock: Clock::since(shared.started),
            memory,
            reading,
            looks: 0,
            level: Level::Calm,
            descriptors: Level::Calm,
            episodes: Episodes::default(),
        }
    }

    /// Measures, and says what has changed.
    pub(super) fn look(&mut self, shared: &Shared, board: &mut Board) {
        let now_ms = self.clock.read().as_ms();
        self.look_at_limit(shared, board);
        // What cannot be read says nothing: above all not that the need is over.
        let level = match self.memory.read() {
            Some(reading) => {
                self.reading = reading;
                self.memory.level(self.level, reading)
            }
            None => self.level,
        };
        self.look_at_descriptors(shared, board);
        // While there are none, who comes is told so and not served: it takes one for a second at most, and no more than a
        // few of them do at a time.
        let room = if self.descriptors == Level::Shed { Some(0) } else { self.memory.room(self.reading) };
        shared.overload.set(level.max(self.descriptors), self.reading.used, self.memory.limit, room);
        let before = std::mem::replace(&mut self.level, level);
        if level != before {
            board.event(unix_ms(), EventKind::Overload, None, self.level_words(before));
        }
        self.episodes.look(shared, board, &worker_totals(shared), now_ms);
    }

    fn look_at_descriptors(&mut self, shared: &Shared, board: &mut Board) {
        let limit = shared.descriptors;
        let open = match descriptors::open() {
            Some(open) => open,
            // What there are hardly any others than.
            None => (shared.connections() + shared.backend_conns.open()) as u64,
        };
        shared.overload.set_descriptors(open, limit);
        let level = self.descriptors.next(open, limit);
        let before = std::mem::replace(&mut self.descriptors, level);
        if level != before {
            let words = format!("descriptors: {open} of {limit} open: {}", follows(before, level));
            board.event(unix_ms(), EventKind::Overload, None, words);
        }
    }

    /// A limit may be changed while we run: a container is resized, an operator of the machine writes to its group.
    fn look_at_limit(&mut self, shared: &Shared, board: &mut Board) {
        self.looks += 1;
        if !self.looks.is_multiple_of(LOOKS_PER_LIMIT) {
            return;
        }
        // Where it cannot be known now the former one holds.
        let Ok(found) = Memory::find(shared.config.admit.memory, Path::new("/")) else { return };
        if (found.limit, &found.source) != (self.memory.limit, &self.memory.source) {
            let words = format!("the memory limit is {} MiB now ({})", found.limit >> 20, found.words());
            board.event(unix_ms(), EventKind::Overload, None, words);
            self.memory = found;
        }
    }

    /// Tells the gates how long a response takes.
    pub(super) fn tell_gates(shared: &Shared, board: &Board, figures: &Figures) {
        let snapshot = shared.snapshot.load();
        for (at, pool) in snapshot.pools.iter().enumerate() {
            if let Some(gate) = &pool.gate {
                let typical = figures.pool_traffic(board, at).latency.map_or(0.0, |latency| latency.p50_ms);
                gate.set_typical_ms(typical as u64);
            }
        }
    }

    fn level_words(&self, before: Level) -> String {
        let (used, limit) = (self.reading.used >> 20, self.memory.limit >> 20);
        let whose = match &self.memory.source {
            Source::Group(_) => {
                format!("{}, {} MiB of it by this process", self.memory.words(), self.reading.own >> 20)
            }
            _ => self.memory.words(),
        };
        format!("memory: {used} of {limit} MiB used ({whose}): {}", follows(before, self.level))
    }
}

/// What a change of level means, for people.
fn follows(before: Level, now: Level) -> &'static str {
    match (before, now) {
        (_, Level::Shed) => "new requests are answered 503",
        (Level::Shed, Level::Shrink) => "requests are taken again; idle connections are closed",
        (_, Level::Shrink) => "idle connections are closed",
        (_, Level::Calm) => "over",
    }
}

/// Requests that found no place.
pub(super) fn refused(totals: &WorkerTotals) -> u64 {
    let kinds = [LocalReply::QueueFull, LocalReply::QueueTimeout, LocalReply::QueueDeadline];
    kinds.iter().map(|kind| totals.local_replies[*kind as usize]).sum()
}

/// The line of pool `at`, if it has one.
pub(super) fn queue(shared: &Shared, at: usize) -> Option<api::Queue> {
    let snapshot = shared.snapshot.load();
    let gate = snapshot.pools.get(at)?.gate.as_ref()?;
    let limits = gate.limits();
    let now_ms = Clock::since(shared.started).read().as_ms();
    Some(api::Queue {
        max_requests: limits.requests,
        max_requests_per_backend: limits.requests_per_backend,
        waiting: gate.queue.waiting() as u64,
        length: limits.queue as u64,
        longest_wait_ms: gate.queue.longest_wait_ms(now_ms),
        queued_total: gate.queue.joined(),
        refused_total: refused(&worker_totals(shared)),
    })
}

/// The state of the whole.
pub(super) fn overload(shared: &Shared) -> api::Overload {
    let ((used, limit), descriptors) = (shared.overload.memory(), shared.overload.descriptors());
    let level = shared.overload.level();
    let reason = (level > Level::Calm).then(|| {
        let from = if level == Level::Shed { SHED_FROM } else { SHRINK_FROM };
        format!("{}; from {from} % on", shared.overload.words())
    });
    api::Overload {
        level: match level {
            Level::Calm => OverloadLevel::Calm,
            Level::Shrink => OverloadLevel::Shrink,
            Level::Shed => OverloadLevel::Shed,
        },
        reason,
        memory_used_bytes: used,
        memory_limit_bytes: limit,
        descriptors_open: descriptors.0,
        descriptors_limit: descriptors.1,
        backend_connections: shared.backend_conns.open() as u64,
        backend_connections_limit: shared.backend_conns.most().map(|most| most as u64),
    }
}
