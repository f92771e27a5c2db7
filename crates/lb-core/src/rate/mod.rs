//! How often one client may ask: a token bucket per client, in a table of fixed size.
//!
//! A bucket is one number, the moment at which it will be full again (the generic cell rate algorithm, ITU-T I.371:
//! the same decisions as a token bucket, without a timer that fills it). `governor` computes the same, but its keyed
//! store is a map that grows with every address seen and has to be swept; a million addresses in a minute is what a
//! limit is for, so here the memory is taken once, at the start, and never more.
//!
//! The table is set-associative, like a processor's cache: a client's hash says which `WAYS` cells may be its own.
//! When all are taken, the bucket that is nearest to being full gives way: mostly it is full, and forgetting it changes
//! nothing; else its client is let off a part of what it has used. So whoever is over its limit is remembered longest,
//! and a flood of addresses that ask once each cannot wash it out. An error is always in the client's favour, but for
//! two clients with the same 64-bit hash, which share a bucket (one pair in 30,000 million for a million clients).
//!
//! # State
//! Shared by all workers, each shard behind a lock, held for a few comparisons. It exists only when a limit is set.

#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_utils::CachePadded;

/// Cells among which a client's may be. Eight are two cache lines, and make a half-full table forget hardly anybody.
const WAYS: usize = 8;

/// Far more than there are workers, so that two hardly ever want the same one.
const SHARDS: usize = 64;

/// How much one client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RatePolicy {
    /// So many, at least 1 …
    pub requests: u32,
    /// … in each of this, in the long run.
    pub period: Duration,
    /// So many at once after a rest, at least 1.
    pub burst: u32,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client<'a> {
    /// One IPv4 address, or one /64 of IPv6, which a single client has all of (RFC 6177 §2).
    Address(IpAddr),
    /// Whatever a header says.
    Name(&'a [u8]),
}

/// The buckets of all clients.
#[derive(Debug)]
pub struct RateLimiter {
    /// What one request costs, in nanoseconds of the long-run rate.
    cost_ns: u64,
    /// How far in the future a bucket's moment may be.
    most_ns: u64,
    hasher: RandomState,
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    forgotten: AtomicU64,
}

type Shard = Box<[[Cell; WAYS]]>;

/// One client's bucket. 0 and 0 is nobody's.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    client: u64,
    full_ns: u64,
}

impl RateLimiter {
    /// A limit of `policy` with room for at least `clients` at a time, 16 bytes each.
    pub fn new(policy: RatePolicy, clients: usize) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let cost_ns = (nanos(policy.period) / u64::from(policy.requests.max(1))).max(1);
        let sets = clients.div_ceil(WAYS * SHARDS).max(1);
        let shard = || Mutex::new(vec![[Cell::default(); WAYS]; sets].into_boxed_slice()).into();
        Self {
            cost_ns,
            most_ns: cost_ns.saturating_mul(u64::from(policy.burst.max(1))),
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| shard()).collect(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Takes one request of `client` out of its bucket. `now_ns` is a clock that all callers share; it may be a little
    /// behind that of another caller.
    ///
    /// # Errors
    /// The bucket is empty; how long until there is a request in it again.
    pub fn take(&self, client: Client<'_>, now_ns: u64) -> Result<(), Duration> {
        let hash = self.hash(client);
        let mut shard = self.shard(hash);
        // The low bits chose the shard; the high half chooses the set, without a division.
        let set = ((hash >> 32) * shard.len() as u64) >> 32;
        let cells = &mut shard[set as usize];
        let at = match cells.iter().position(|cell| cell.client == hash) {
            Some(at) => at,
            None => {
                let at = (0..WAYS).min_by_key(|at| cells[*at].full_ns).unwrap_or_default();
                if cells[at].full_ns > now_ns {
                    self.forgotten.fetch_add(1, Ordering::Relaxed);
                }
                cells[at] = Cell { client: hash, full_ns: 0 };
                at
            }
        };
        let cell = &mut cells[at];
        let full_ns = cell.full_ns.max(now_ns).saturating_add(self.cost_ns);
        match full_ns.saturating_sub(now_ns).checked_sub(self.most_ns) {
            None | Some(0) => {
                cell.full_ns = full_ns;
                Ok(())
            }
            Some(wait_ns) => Err(Duration::from_nanos(wait_ns)),
        }
    }

    /// How many clients' buckets are not full now. Looks at every cell: for a page, not for a request.
    pub fn clients(&self, now_ns: u64) -> usize {
        let held = |shard: &Shard| shard.iter().flatten().filter(|cell| cell.full_ns > now_ns).count();
        (0..SHARDS as u64).map(|at| held(&self.shard(at))).sum()
    }

    /// How many clients there is room for.
    pub fn capacity(&self) -> usize {
        self.shard(0).len() * WAYS * SHARDS
    }

    /// How many buckets were given to another client before they were full again.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Ordering::Relaxed)
    }

    fn hash(&self, client: Client<'_>) -> u64 {
        let hash = match client {
            Client::Address(address) => self.hasher.hash_one(network_of(address)),
            Client::Name(name) => self.hasher.hash_one(name),
        };
        // 0 is nobody's.
        hash.max(1)
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        // Nothing inside can panic half way; a cell is always whole.
        self.shards[hash as usize % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Retry-After for a wait: whole seconds, rounded up, since who comes back sooner is refused again.
pub fn retry_after_s(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

/// Who is counted together.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}
