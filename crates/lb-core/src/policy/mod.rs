//! How a backend is chosen: one trait, one file per policy.
//!
//! A policy is built off the request path from the backends that may take requests, and then only picked from:
//! without allocation, lock, clock, log or I/O. It never sees health or admin state; whoever builds it leaves out
//! what must not be picked.

mod least_requests;
mod peak_ewma;
mod round_robin;
mod two_choices;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crossbeam_utils::CachePadded;

use crate::backend::Backend;

pub use least_requests::LeastRequests;
pub use peak_ewma::PeakEwma;
pub use round_robin::RoundRobin;

/// Which policy a pool is balanced by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PolicyKind {
    /// [`RoundRobin`], the promise: A, B, C by weight, whatever becomes of the requests.
    #[default]
    RoundRobin,
    /// [`LeastRequests`]: by what is under way.
    LeastRequests,
    /// [`PeakEwma`]: by what is under way, and how long it takes.
    PeakEwma,
}

impl PolicyKind {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::RoundRobin, Self::LeastRequests, Self::PeakEwma];

    /// Its name, in the configuration and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequests => "least_requests",
            Self::PeakEwma => "peak_ewma",
        }
    }

    /// The policy of this kind for backends that may take requests, each with its slot and its weight of the moment.
    pub fn build(self, backends: Vec<(Slot, Arc<Backend>, u32)>) -> Box<dyn Policy> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::new(backends.iter().map(|(slot, _, weight)| (*slot, *weight)))),
            Self::LeastRequests => Box::new(LeastRequests::new(backends)),
            Self::PeakEwma => Box::new(PeakEwma::new(backends)),
        }
    }
}

/// Index of a backend in its pool's list.
pub type Slot = u16;

/// The most attempts that one request makes, whatever is configured: the first, three repeats of each kind, and one for
/// a kept connection that turned out to be closed.
pub const MAX_ATTEMPTS: usize = 8;

/// The backends that one request has tried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    slots: [Slot; MAX_ATTEMPTS],
    len: u8,
}

impl Tried {
    /// `slot` alone.
    pub fn of(slot: Slot) -> Self {
        let mut tried = Self::default();
        tried.insert(slot);
        tried
    }

    /// Remembers `slot`. Once [`MAX_ATTEMPTS`] are remembered, further ones are dropped; the caller stops there.
    pub fn insert(&mut self, slot: Slot) {
        if let Some(free) = self.slots.get_mut(usize::from(self.len)) {
            *free = slot;
            self.len += 1;
        }
    }

    /// Whether `slot` was tried.
    pub fn contains(&self, slot: Slot) -> bool {
        self.slots[..usize::from(self.len)].contains(&slot)
    }

    /// Those that were tried.
    pub fn iter(&self) -> impl Iterator<Item = Slot> {
        self.slots[..usize::from(self.len)].iter().copied()
    }

    /// How many were tried.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Whether none was tried.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The position in a pool's rotation. One per pool, shared by all workers and carried over every change of the pool,
/// so that the order is exactly A, B, C across all of them and a change does not start again at A. On a cache line of
/// its own. Relaxed: the value itself is all there is.
///
/// Retries have a position of their own. If they took turns of the first one, a failing backend beside one healthy one
/// would get every request first (each request takes two turns, so the next begins where the last began), and a local
/// step to the next entry would give the failing backend's neighbour a double share.
#[derive(Debug, Default)]
pub struct Cursor {
    first: CachePadded<AtomicU64>,
    retry: CachePadded<AtomicU64>,
}

/// Chooses among a fixed set of backends.
///
/// A failure counts as load: a server that fails fast has little in flight and answers soon, and must not draw requests
/// by that. Round robin looks at neither, so nothing is to be done there: its share is what its weight says until it is
/// ejected. A policy that looks at load must look at [`Backend::load`], which has the failures in it.
pub trait Policy: Send + Sync {
    /// The slot of a backend that was not tried yet, or `None` when there is none. `random` gives uniform numbers; who
    /// needs none does not ask.
    fn pick(&self, cursor: &Cursor, tried: &Tried, random: &dyn Fn() -> u64) -> Option<Slot>;

    /// As [`Self::pick`], but the first one that `enter` lets in. `enter` is asked for each backend that was not tried
    /// before `None` is the answer, for some perhaps more than once; what it lets in is what is returned.
    fn pick_where(
        &self,
        cursor: &Cursor,
        tried: &Tried,
        random: &dyn Fn() -> u64,
        enter: &mut dyn FnMut(Slot) -> bool,
    ) -> Option<Slot>;
}
