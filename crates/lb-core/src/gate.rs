//! How many requests a pool and each of its backends may have under way, and who waits when that is reached.
//!
//! A pool without limits has no gate, and its requests pay one branch for it. With one, a backend's count is raised
//! only while it is below the limit, by compare and swap, so that no number of workers can exceed it; the count of the
//! whole pool exists only when that is limited.
//!
//! Written by all workers. The orders are sequentially consistent, which [`Queue`] needs; on x86 that costs nothing
//! more than the swap.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use crate::backend::Backend;
use crate::policy::{Slot, Tried};
use crate::queue::Queue;
use crate::snapshot::{BackendView, PoolView};

/// What may be under way at most. At least one of the two is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateLimits {
    /// In the whole pool.
    pub requests: Option<u64>,
    /// At each backend.
    pub requests_per_backend: Option<u64>,
    /// Requests that may wait; 0 is none.
    pub queue: usize,
}

impl GateLimits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.requests.is_none() && self.requests_per_backend.is_none()
    }
}

/// The counts and the line of one pool. Carried from snapshot to snapshot.
#[derive(Debug)]
pub struct Gate {
    limits: GateLimits,
    /// Requests under way in the pool; stays 0 while that is not limited.
    active: CachePadded<AtomicU64>,
    /// Who waits.
    pub queue: Queue,
    /// The median time of a response lately, 0 while it is not known. Written by the control task.
    typical_ms: AtomicU64,
}

/// What came of looking for a backend with room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This one; it is counted already.
    Slot(Slot),
    /// There are backends for it, and they are all full; or the pool is.
    Full,
    /// There is no backend for it.
    Nobody,
}

impl Gate {
    /// A gate with nothing under way.
    pub fn new(limits: GateLimits) -> Self {
        let queue = Queue::new(limits.queue);
        Self { limits, active: CachePadded::default(), queue, typical_ms: AtomicU64::new(0) }
    }

    /// What may be under way.
    pub fn limits(&self) -> GateLimits {
        self.limits
    }

    /// A backend of `pool` that is not in `tried` and has room, counted in. What is taken must be given back by
    /// [`Self::leave`].
    pub fn take(&self, pool: &PoolView, tried: &Tried, random: &dyn Fn() -> u64) -> Taken {
        let Some(pool_room) = Room::enter(&self.active, self.limits.requests) else { return Taken::Full };
        let mut candidates = false;
        let slot = pool.policy.pick_where(&pool.cursor, tried, random, &mut |slot| {
            candidates = true;
            self.enter(pool, &pool.backends[usize::from(slot)])
        });
        match slot {
            Some(slot) => {
                pool_room.keep();
                Taken::Slot(slot)
            }
            None if candidates => Taken::Full,
            None => Taken::Nobody,
        }
    }

    /// A backend that starts slowly has only its share of the limit too: under the load that fills a limit it is the
    /// limit that shares requests out, and not the policy.
    fn enter(&self, pool: &PoolView, view: &BackendView) -> bool {
        match self.limits.requests_per_backend {
            Some(most) => view.backend.enter_below(pool.part_of(view, most)),
            None => {
                view.backend.enter();
                true
            }
        }
    }

    /// Gives back what [`Self::take`] took, and lets the next one in.
    pub fn leave(&self, backend: &Backend) {
        backend.leave();
        if self.limits.requests.is_some() {
            self.active.fetch_sub(1, Ordering::SeqCst);
        }
        self.queue.freed();
    }

    /// Says how long a response takes: the median, lately.
    pub fn set_typical_ms(&self, typical_ms: u64) {
        self.typical_ms.store(typical_ms, Ordering::Relaxed);
    }

    /// Whether a request that has `left_ms` until its deadline cannot make it from its place in the line, `ahead` others
    /// before it, with those of `pool` that take requests now. What is queued in vain only delays those behind it.
    pub fn is_hopeless(&self, left_ms: u64, ahead: usize, pool: &PoolView) -> bool {
        let typical_ms = self.typical_ms.load(Ordering::Relaxed);
        let per_backend = self.limits.requests_per_backend.map(|most| most.saturating_mul(pool.used() as u64));
        let at_once = per_backend.into_iter().chain(self.limits.requests).min().unwrap_or(u64::MAX).max(1);
        hopeless(left_ms, typical_ms, ahead as u64, at_once)
    }
}

/// Whether `left_ms` is less than the wait behind `ahead` others, of which `at_once` are served in each `typical_ms`,
/// and one response. Little's law with the median for the mean: what takes far longer than most must not condemn the
/// others.
fn hopeless(left_ms: u64, typical_ms: u64, ahead: u64, at_once: u64) -> bool {
    let rounds = ahead / at_once;
    left_ms == 0 || left_ms < typical_ms.saturating_mul(1 + rounds)
}

/// One more in the pool's count, for as long as it is not sure.
struct Room<'a>(Option<&'a AtomicU64>);

impl<'a> Room<'a> {
    fn enter(active: &'a AtomicU64, most: Option<u64>) -> Option<Self> {
        let Some(most) = most else { return Some(Self(None)) };
        let add = |active| (active < most).then_some(active + 1);
        active.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add).is_ok().then(|| Self(Some(active)))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        if let Some(active) = self.0 {
            active.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
