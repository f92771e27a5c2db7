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
    /// go down ([`Gate`](crate::gate::Gate)), else no other memory depends on it. A padded line of its own: it is the
    /// one number of a backend that workers share.
    in_flight: CachePadded<AtomicU64>,
    /// Errors since the last success; see [`Self::note_error`]. Written by all workers, and by the control task when
    /// it comes into rotation; relaxed, since no other memory depends on it. On a line of its own, which all workers only
    /// read as long as nothing fails.
    errors_in_a_row: CachePadded<AtomicU32>,
    /// One per worker, written by that worker only.
    shards: Box<[CachePadded<BackendShard>]>,
}

impl Backend {
    /// A backend with all numbers at zero, for `workers` workers.
    pub fn new(id: BackendId, spec: BackendSpec, workers: usize) -> Arc<Self> {
        let shards = (0..workers).map(|_| CachePadded::default()).collect();
        Arc::new(Self { id, spec, in_flight: CachePadded::default(), errors_in_a_row: CachePadded::default(), shards })
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The same by kind, which is of each worker's last look.
    pub fn in_flight_by_kind(&self) -> InFlight {
        by_kind(self.in_flight(), self.shards.iter().map(|shard| &shard.under_way))
    }

    /// Counts one request in; pair it with [`Self::leave`].
    pub fn enter(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one request in, unless `most` are under way; whether it did. Sequentially consistent, as [`Self::leave`]
    /// is: see [`Queue`](crate::queue::Queue).
    pub fn enter_below(&self, most: u64) -> bool {
        let add = |in_flight| (in_flight < most).then_some(in_flight + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok()
    }

    /// Counts one request out.
    pub fn leave(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "left more often than entered");
    }

    /// Counts an error that is its fault, and returns how many there are in a row, this one included.
    ///
    /// # Race window
    /// Workers count together: "in a row" is in the order in which answers came to be noted. A success that another worker
    /// notes at the same moment may fall before or behind an error; either order is one that could have been.
    pub fn note_error(&self) -> u32 {
        self.errors_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// An answer without fault ends a row of errors. Costs a read while there is none.
    pub fn note_success(&self) {
        if self.errors_in_a_row.load(Ordering::Relaxed) != 0 {
            self.errors_in_a_row.store(0, Ordering::Relaxed);
        }
    }

    /// The numbers that `worker` writes.
    ///
    /// # Panics
    /// When there is no such worker.
    pub fn shard(&self, worker: usize) -> &BackendShard {
        &self.shards[worker]
    }

    /// After how long idle it closes connections, as the most careful of the workers has learned; `None` when none has.
    pub fn learned_idle(&self) -> Option<Duration> {
        self.shards.iter().filter_map(|shard| shard.idle_time.value()).min()
    }

    /// All workers' numbers added up. Not a consistent cut: each counter is right, their sum may be a request apart.
    pub fn totals(&self) -> BackendTotals {
        let mut totals = BackendTotals::default();
        for shard in &self.shards {
            totals.add(shard);
        }
        totals
    }
}
