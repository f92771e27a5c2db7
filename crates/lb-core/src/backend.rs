//! A backend: the identity and the shared numbers of one server. What is believed about it (health, admin state)
//! lives in the [`Snapshot`](crate::snapshot::Snapshot).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use crate::api::InFlight;
use crate::metrics::under_way::by_kind;
use crate::metrics::{BackendShard, BackendTotals};

/// Host name or address, and port, as the operator wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// A name or an IP address without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The largest weight. With [`MAX_BACKENDS`] it bounds a weighted round-robin table to 512 KiB. HAProxy's bound.
pub const MAX_WEIGHT: u32 = 256;

/// The most backends of one pool. Slots are 16 bits wide and a page can still show them.
pub const MAX_BACKENDS: usize = 1024;

/// A backend as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// Unique in its pool; the address unless the operator chose one.
    pub name: String,
    /// Where it listens.
    pub address: HostPort,
    /// Its share of requests relative to the others, 1 to [`MAX_WEIGHT`].
    pub weight: u32,
}

/// Together, since who writes the one has just written the other.
#[derive(Debug, Default)]
struct InFlightAndTime {
    in_flight: AtomicU64,
    /// How long answers take, in nanoseconds; 0 while there was none. See [`Backend::note_time`].
    time_ns: AtomicU64,
}

/// What failed lately. Relaxed, since no other memory depends on it.
#[derive(Debug, Default)]
struct Errors {
    /// Since the last success; see [`Backend::note_error`]. Written by all workers, and by the control task when it comes
    /// into rotation.
    in_a_row: AtomicU32,
    /// What failures add to the load; see [`Backend::load`]. Raised by all workers, lowered by the control task.
    load: AtomicU64,
}

/// One request under way, in the unit of [`Backend::load`]: failures fade by parts of it.
pub const LOAD_OF_ONE: u64 = 1024;

/// The least time constant by which failures fade. Nearly every backend answers within it; and a failure weighs as much
/// by it as a hundred requests of 10 ms, so that more would drown what is under way where a little fails everywhere.
const LEAST_FADE: Duration = Duration::from_secs(1);

/// The time constant by which failures fade, where half of all responses take `typical` at most.
///
/// By Little's law a backend that serves r requests a second, each in t, has r · t under way. One that fails r a second
/// at once has nothing under way, and r · f of failures, where f is this constant: as long as f is at least t it looks
/// no lighter than the others for the same requests, and gets no more than they do. Twice the median covers a mean that
/// is above it.
pub fn fade(typical: Duration) -> Duration {
    typical.saturating_mul(2).max(LEAST_FADE)
}

/// As long as a failure counts to have taken: longer than most answers do.
pub const FAILURE_TIME: Duration = Duration::from_secs(1);

/// The time constant by which times fade; Finagle's and linkerd's.
pub const TIME_FADE: Duration = Duration::from_secs(10);

/// Tells backends apart for the life of the process, also across reloads. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

/// One server, and its numbers. Shared by all workers; carried from snapshot to snapshot by its id.
#[derive(Debug)]
pub struct Backend {
    /// Its identity.
    pub id: BackendId,
    /// As configured.
    pub spec: BackendSpec,
    /// Requests that are under way. Written by all workers; sequentially consistent where somebody may wait for it to
    /// go down ([`Gate`](crate::gate::Gate)), else no other memory depends on it. A padded line of its own: it is what
    /// workers share of a backend while nothing fails.
    in_flight: CachePadded<InFlightAndTime>,
    /// On a line of its own, which all workers only read as long as nothing fails.
    errors: CachePadded<Errors>,
    /// One per worker, written by that worker only.
    shards: Box<[Arc<CachePadded<BackendShard>>]>,
}

impl Backend {
    /// A backend with all numbers at zero, for `workers` workers.
    pub fn new(id: BackendId, spec: BackendSpec, workers: usize) -> Arc<Self> {
        let shards = (0..workers).map(|_| Arc::default()).collect();
        Arc::new(Self { id, spec, in_flight: CachePadded::default(), errors: CachePadded::default(), shards })
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.in_flight.load(Ordering::Relaxed)
    }

    /// The same by kind, which is of each worker's last look.
    pub fn in_flight_by_kind(&self) -> InFlight {
        by_kind(self.in_flight(), self.shards.iter().map(|shard| &shard.under_way))
    }

    /// Counts one request in; pair it with [`Self::leave`].
    pub fn enter(&self) {
        self.in_flight.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request in, unless `most` are under way; whether it did. Sequentially consistent, as [`Self::leave`]
    /// is: see [`Queue`](crate::queue::Queue).
    pub fn enter_below(&self, most: u64) -> bool {
        let add = |in_flight| (in_flight < most).then_some(in_flight + 1);
        self.in_flight.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
    }

    /// Counts one request out.
    pub fn leave(&self) {
        let before = self.in_flight.in_flight.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "left more often than entered");
    }

    /// Counts an error that is its fault, and returns how many there are in a row, this one included.
    ///
    /// # Race window
    /// Workers count together: "in a row" is in the order in which answers came to be noted. A success that another worker
    /// notes at the same moment may fall before or behind an error; either order is one that could have been.
    pub fn note_error(&self) -> u32 {
        self.errors.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// An answer without fault ends a row of errors. Costs a read while there is none.
    pub fn note_success(&self) {
        if self.errors.in_a_row.load(Ordering::Relaxed) != 0 {
            self.errors.in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// What a policy compares it by, in units of [`LOAD_OF_ONE`]: requests under way, and one for each failure, which
    /// fades with [`fade`]. So a server that fails fast never attracts traffic, ejected or not.
    pub fn load(&self) -> u64 {
        self.in_flight() * LOAD_OF_ONE + self.errors.load.load(Ordering::Relaxed)
    }

    /// A failure that is its fault. It counts as an answer that took [`FAILURE_TIME`], too: a quick no must not make it
    /// seem fast.
    pub fn add_failure_load(&self) {
        self.errors.load.fetch_add(LOAD_OF_ONE, Ordering::Relaxed);
        self.in_flight.time_ns.fetch_max(FAILURE_TIME.as_nanos() as u64, Ordering::Relaxed);
    }

    /// An answer's head came so long after the request was sent. One that took longer than what is typical is typical
    /// from then on; one that did not pulls that down by a sixteenth of the difference, so that a peak is remembered for
    /// some sixteen answers.
    ///
    /// # Race window
    /// Of two workers that note a time at once one may lose its own: there is another in a moment.
    pub fn note_time(&self, took: Duration) {
        let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        let typical = self.in_flight.time_ns.load(Ordering::Relaxed);
        let next = if took_ns >= typical { took_ns } else { typical - (typical - took_ns).div_ceil(16) };
        self.in_flight.time_ns.store(next, Ordering::Relaxed);
    }

    /// How long answers take; `None` while there was none.
    pub fn typical_ns(&self) -> Option<u64> {
        Some(self.in_flight.time_ns.load(Ordering::Relaxed)).filter(|time_ns| *time_ns > 0)
    }

    /// What is typical is `elapsed` older, and fades by [`TIME_FADE`], so that one that was slow is looked at again
    /// although nobody goes there. For one task at a time; as in [`Self::note_time`], a time that is noted meanwhile may be
    /// lost.
    pub fn fade_time(&self, elapsed: Duration) {
        if let Some(time_ns) = self.typical_ns() {
            let left = time_ns as f64 * (-elapsed.as_secs_f64() / TIME_FADE.as_secs_f64()).exp();
            self.in_flight.time_ns.store((left as u64).max(1), Ordering::Relaxed);
        }
    }

    /// How many requests its failures weigh now.
    pub fn failure_load(&self) -> f64 {
        self.errors.load.load(Ordering::Relaxed) as f64 / LOAD_OF_ONE as f64
    }

    /// Failures are `elapsed` older, and fade by the time constant `fade`. For one task at a time.
    ///
    /// # Race window
    /// A failure that is added meanwhile stays whole: what has faded is taken off, not stored.
    pub fn fade_failures(&self, elapsed: Duration, fade: Duration) {
        let load = self.errors.load.load(Ordering::Relaxed);
        if load > 0 {
            let left = (load as f64 * (-elapsed.as_secs_f64() / fade.as_secs_f64()).exp()) as u64;
            self.errors.load.fetch_sub(load - left.min(load), Ordering::Relaxed);
        }
    }

    /// The numbers that `worker` writes. It keeps them: they are a look nearer then.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn shard(&self, worker: usize) -> &Arc<CachePadded<BackendShard>> {
        &self.shards[worker]
    }

    /// After how long idle it closes connections, as the most careful of the workers has learned; `None` when none has.
    pub fn learned_idle(&self) -> Option<Duration> {
        self.shards.iter().filter_map(|shard| shard.idle_time.value()).min()
    }

    /// All workers' numbers added up. Not a consistent cut: each counter is right, their sum may be a request apart.
    pub fn totals(&self) -> BackendTotals {
        let mut totals = BackendTotals::default();
        self.read_totals(&mut totals);
        totals
    }

    /// The same into `totals`, instead of what it held: its memory, some 3 KiB, is used again.
    pub fn read_totals(&self, totals: &mut BackendTotals) {
        totals.clear();
        for shard in &self.shards {
            totals.add(shard);
        }
    }
}
