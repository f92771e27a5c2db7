//! One worker: everything that belongs to one thread of the data plane, and its view of what all threads share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use http::HeaderValue;
use lb_core::api::AdminState;
use lb_core::backend::{Backend, BackendId};
use lb_core::gate::Gate;
use lb_core::health::Failure;
use lb_core::metrics::{BackendShard, LocalReply, Look, Rejected, WorkerShard};
use lb_core::overload::Level;
use lb_core::rate::RateLimiter;
use lb_core::retry::{ActiveRetries, RetryBudget, RetryPolicy};
use lb_core::snapshot::Snapshot;
use tokio::sync::{Notify, mpsc};

use crate::access;
use crate::clock::{Clock, Tick};
use crate::config::Config;
use crate::conn::Rest;
use crate::deadline::{Deadline, Ending, Sweep};
use crate::descriptors::Shares;
use crate::listen::Admission;
use crate::overload::Overload;
use crate::tunnels::Tunnels;
use crate::turns::Turns;
use crate::upstream::{ConnCache, OpenConns, UpstreamConn, Via};

/// How long what is idle is still served once its end is wanted. A client that has just sent its next request, or is
/// about to, gets an answer with `Connection: close` instead of a reset, and a tunnel is not cut inside a message; a
/// closed loop of requests pauses for far less.
const QUIET: Duration = Duration::from_millis(500);

/// What is read at once from a tunnel: more than most messages.
const PIECE: usize = 16 * 1024;

/// Idle connections that are closed at once for those who wait: what more want is closed by the next sweep.
const MOST_ROOM: usize = 64;

/// Tunnels to one backend that there is room for from the first on.
const FEWEST_TUNNELS: usize = 4;

/// Long enough for the allocator's own delays.
const TIDYING_SWEEPS: u32 = 30;

/// Large enough for the allocator to look at what it has free for so long that the system may have it.
const TIDYING_BYTES: usize = 1 << 20;

/// Allocations per sweep of a size that the allocator has to search for. It forgets empty pages after some 16,000 such
/// searches; all together they take about 50 µs.
const TIDYING_SEARCHES: usize = 600;
const SEARCHED_BYTES: usize = 2048;

/// A connect failure of live traffic, on its way to the control task.
#[derive(Debug)]
pub(crate) struct LiveFailure {
    pub backend: BackendId,
    pub failure: Failure,
}

/// What all workers and the control task share.
pub(crate) struct Shared {
    pub config: Config,
    /// Written by the control task only.
    pub snapshot: ArcSwap<Snapshot>,
    /// The generation of `snapshot`; tells workers cheaply that there is a new one. Written by the control task after
    /// the swap (release), read by workers (acquire), so a worker that sees it also sees the snapshot.
    pub generation: AtomicU64,
    /// Bounded. A failure that finds it full is dropped: those before it already say the same.
    pub live_failures: mpsc::Sender<LiveFailure>,
    /// Backends with as many errors in a row as eject. Bounded; one that finds it full is told again after as many more.
    pub suspects: mpsc::Sender<BackendId>,
    pub workers: Box<[CachePadded<WorkerSlot>]>,
    pub tunnels: Tunnels,
    /// Repeats under way at the pool.
    pub retries: ActiveRetries,
    /// The way to the access log's writer; `None` when it is off.
    pub access: Option<access::Log>,
    pub admission: Arc<Admission>,
    /// The moment that all clocks count from.
    pub started: Instant,
    pub overload: Overload,
    /// The limit that descriptors are watched against; 0 is not at all.
    pub descriptors: u64,
    /// `None` when clients may ask as often as they like.
    pub rate: Option<RateLimiter>,
    pub backend_conns: Arc<OpenConns>,
    /// `Via`, made once: as a field for responses, as text for requests.
    pub via: HeaderValue,
    pub via_text: Via,
    /// The same for messages that came in HTTP/1.0.
    pub old_via: HeaderValue,
    pub old_via_text: Via,
}

/// What one worker shows to the others.
#[derive(Default)]
pub(crate) struct WorkerSlot {
    pub shard: WorkerShard,
    /// Client connections it serves; written by itself, read by acceptors that look for the least loaded worker.
    pub connections: AtomicUsize,
    /// Counts sweeps; the watchdog looks whether it moves.
    pub heartbeat: AtomicU64,
    /// The newest snapshot that it has taken over. Written by itself (release), read by the control task (acquire):
    /// whoever sees it sees every request counted in that was picked from an older one.
    pub generation: AtomicU64,
    /// Idle connections to backends that it has. A hint, as of its last sweep; written by itself.
    pub idle: AtomicUsize,
    /// A request of another worker wants the place of one of these.
    pub room: Notify,
    /// A connection has come, or a snapshot that somebody waits for: there is something to look at again.
    pub busy: Notify,
}

/// A worker's own state. No other thread sees it, so cells suffice. No borrow is held across an `.await`.
pub(crate) struct Worker {
    pub id: usize,
    pub shared: Arc<Shared>,
    pub clock: Clock,
    pub sweep: Sweep,
    pub rest: Rest,
    pub turns: Turns,
    pub budget: RefCell<RetryBudget>,
    pub draining: Cell<bool>,
    /// Its lines of the access log; `None` when that is off.
    pub access: Option<access::Lines>,
    /// Where small responses are put together; its size stays small because theirs is.
    pub scratch: RefCell<Vec<u8>>,
    /// What tunnels carry from one socket to the other, a piece at a time.
    pub piece: RefCell<Box<[u8]>>,
    /// When it last looked what is under way.
    pub looked: Cell<Tick>,
    /// Connections that were refused, and wait for their reply to arrive.
    pub turned_away: Cell<u32>,
    /// For so many sweeps memory that was freed is offered back to the system.
    tidying: Cell<u32>,
    rng: RefCell<fastrand::Rng>,
    view: RefCell<Rc<View>>,
}

/// A snapshot with what this worker keeps for each of its backends.
pub(crate) struct View {
    pub snapshot: Arc<Snapshot>,
    /// In the order of the snapshot's pools and backends.
    pub pools: Vec<Vec<Rc<LocalBackend>>>,
    /// Whether some backend is on its way out.
    pub leaving: bool,
}

/// What one worker keeps for one backend, across snapshots.
pub(crate) struct LocalBackend {
    pub backend: Arc<Backend>,
    pub address: Cell<Option<SocketAddr>>,
    /// Its pool's; `None` when nothing is limited.
    gate: Option<Arc<Gate>>,
    pub idle: ConnCache,
    in_rotation: Cell<bool>,
    /// What is under way at it is to be closed.
    pub cut: Cell<bool>,
    /// The count of a look at what is under way.
    pub look: Cell<Look>,
    /// An operator wants it free of requests: its tunnels end at their next quiet moment.
    leaving: Cell<bool>,
    /// Of tunnels to it; entries of ended ones go when there is no room for another.
    tunnels: RefCell<Vec<Weak<Deadline>>>,
    /// Whether it is known to speak HTTP/1.0 only. Written after each response head.
    pub old: Cell<bool>,
    /// New connections to it are looked at twice until then: it has reset one, before or after something was sent on it, or
    /// none has been seen to last yet.
    pub wary_until: Cell<Tick>,
    /// Requests of this worker that wait for a connection to it, and the word to the first of them that one was kept.
    pub awaited: Cell<usize>,
    pub kept: Notify,
    worker: usize,
}

impl Shared {
    /// The state before the control task has published a first snapshot.
    pub(crate) fn new(
        config: Config,
        shares: Shares,
        live_failures: mpsc::Sender<LiveFailure>,
        suspects: mpsc::Sender<BackendId>,
        access: Option<access::Log>,
    ) -> Arc<Self> {
        let via_text = format!("1.1 {}", config.via);
        let old_via_text = format!("1.0 {}", config.via);
        // The option takes tokens only, which are valid values.
        let value =
            |text: &str| HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static("1.1 loadbalancer"));
        let rate = config.admit.rate.as_ref().map(|rate| RateLimiter::new(rate.policy, rate.clients));
        Arc::new(Self {
            started: Instant::now(),
            overload: Overload::default(),
            descriptors: shares.watched,
            rate,
            backend_conns: OpenConns::new(config.admit.connections, shares.backends),
            snapshot: ArcSwap::default(),
            generation: AtomicU64::new(0),
            live_failures,
            suspects,
            admission: Admission::new(shares.clients, config.admission.connections_per_client),
            workers: (0..config.workers).map(|_| CachePadded::default()).collect(),
            tunnels: Tunnels::default(),
            retries: ActiveRetries::default(),
            access,
            via: value(&via_text),
            via_text: Via::new(via_text),
            old_via: value(&old_via_text),
            old_via_text: Via::new(old_via_text),
            config,
        })
    }

    /// Client connections that are being served now.
    pub(crate) fn connections(&self) -> usize {
        self.workers.iter().map(|worker| worker.connections.load(Ordering::Relaxed)).sum()
    }
}

impl LocalBackend {
    /// This worker's numbers about it.
    pub(crate) fn shard(&self) -> &BackendShard {
        self.backend.shard(self.worker)
    }

    /// A request that was counted in is through.
    pub(crate) fn leave(&self) {
        match &self.gate {
            None => self.backend.leave(),
            Some(gate) => gate.leave(&self.backend),
        }
    }

    /// A tunnel to it opens, whose time `deadline` keeps.
    pub(crate) fn tunnel_opens(&self, deadline: &Rc<Deadline>) {
        remember(&mut self.tunnels.borrow_mut(), deadline);
        if self.leaving.get() {
            deadline.hurry();
        }
    }

    /// Whether an operator wants it free of requests, now. If not, tunnels that were to end go on until `calm`.
    fn be_left(&self, leaving: bool, calm: Tick) {
        if self.leaving.replace(leaving) == leaving {
            return;
        }
        for tunnel in self.tunnels.borrow().iter().filter_map(Weak::upgrade) {
            if leaving { tunnel.hurry() } else { tunnel.calm(calm) }
        }
    }

    /// Keeps a connection whose exchange is through, for a request that waits for one or the next that comes; unless the
    /// backend has moved or left rotation meanwhile, or its place is worth more.
    pub(crate) fn keep(&self, connection: Box<UpstreamConn>, now: Tick, most: usize) {
        if !self.in_rotation.get() || self.address.get() != Some(connection.address) {
            return;
        }
        // What the backend was told is of one client is of no use to others.
        let here = if connection.on_behalf.is_none() { self.awaited.get() } else { 0 };
        if !connection.place.as_ref().is_some_and(|place| place.is_better_closed(here)) {
            self.idle.put(connection, now, most);
            if here > 0 {
                self.kept.notify_one();
            }
        }
    }
}

/// Adds a tunnel. All are looked at only when there is no room, and then as much room is made as there are: so each that
/// opens pays for few, however many there are, and room for twice the most that were open at a time is all that is kept.
fn remember(tunnels: &mut Vec<Weak<Deadline>>, deadline: &Rc<Deadline>) {
    if tunnels.len() == tunnels.capacity() {
        tunnels.retain(|tunnel| tunnel.strong_count() > 0);
        tunnels.reserve(tunnels.len().max(FEWEST_TUNNELS));
    }
    tunnels.push(Rc::downgrade(deadline));
}

impl Worker {
    pub(crate) fn new(id: usize, shared: Arc<Shared>) -> Rc<Self> {
        let clock = Clock::since(shared.started);
        let retry = &shared.config.retry;
        // Each worker gets its share of the reserve, but enough for a backend that dies under it.
        let reserve = (retry.reserve / shared.config.workers as u32).max(retry.reserve.min(10));
        let policy = RetryPolicy { percent: retry.percent, reserve };
        let budget = RetryBudget::new(policy, clock.read().as_ms());
        let view = Rc::new(View { snapshot: Arc::default(), pools: Vec::new(), leaving: false });
        let access = shared.access.clone().map(|log| access::Lines::new(log, clock.now()));
        Rc::new(Self {
            id,
            clock,
            sweep: Sweep::default(),
            rest: Rest::default(),
            budget: RefCell::new(budget),
            draining: Cell::new(false),
            access,
            turns: Turns::default(),
            scratch: RefCell::default(),
            piece: RefCell::new(vec![0; PIECE].into()),
            looked: Cell::default(),
            turned_away: Cell::default(),
            tidying: Cell::default(),
            rng: RefCell::new(fastrand::Rng::new()),
            view: RefCell::new(view),
            shared,
        })
    }

    pub(crate) fn slot(&self) -> &WorkerSlot {
        &self.shared.workers[self.id]
    }

    /// A number for identifiers; nothing secret hangs on it.
    pub(crate) fn random(&self) -> u128 {
        self.rng.borrow_mut().u128(..)
    }

    pub(crate) fn count_local(&self, reply: LocalReply) {
        self.slot().shard.local_replies[reply as usize].add(1);
    }

    pub(crate) fn count_rejected(&self, reason: Rejected) {
        self.slot().shard.rejected[reason as usize].add(1);
    }

    /// The newest snapshot. One atomic load unless it has changed.
    pub(crate) fn view(&self) -> Rc<View> {
        let newest = self.shared.generation.load(Ordering::Acquire);
        if self.view.borrow().snapshot.generation < newest {
            self.renew();
        }
        Rc::clone(&self.view.borrow())
    }

    /// Takes over a new snapshot: backends are kept by id, idle connections to what left rotation or moved are closed.
    fn renew(&self) {
        let snapshot = self.shared.snapshot.load_full();
        let former = self.view.borrow();
        let known: HashMap<BackendId, &Rc<LocalBackend>> =
            former.pools.iter().flatten().map(|local| (local.backend.id, local)).collect();
        let calm = self.clock.now().plus(self.shared.config.timeouts.tunnel);
        let pools = snapshot.pools.iter().map(|pool| {
            pool.backends.iter().map(|view| match known.get(&view.backend.id) {
                Some(local) => {
                    let moved = local.address.replace(view.address) != view.address;
                    local.in_rotation.set(pool.takes_requests(view));
                    local.cut.set(view.cut);
                    local.be_left(view.admin != AdminState::Ready, calm);
                    if moved {
                        local.idle.forget_idle_time();
                    }
                    if moved || !pool.takes_requests(view) {
                        local.idle.clear();
                    }
                    Rc::clone(local)
                }
                None => Rc::new(LocalBackend {
                    backend: Arc::clone(&view.backend),
                    gate: pool.gate.clone(),
                    address: Cell::new(view.address),
                    idle: ConnCache::default(),
                    in_rotation: Cell::new(pool.takes_requests(view)),
                    cut: Cell::new(view.cut),
                    look: Cell::default(),
                    leaving: Cell::new(view.admin != AdminState::Ready),
                    tunnels: RefCell::default(),
                    old: Cell::default(),
                    wary_until: Cell::new(Tick::NEVER),
                    awaited: Cell::default(),
                    kept: Notify::new(),
                    worker: self.id,
                }),
            })
        });
        let pools = pools.map(Iterator::collect).collect();
        drop(known);
        drop(former);
        let leaving = snapshot.pools.iter().flat_map(|pool| &pool.backends).any(|view| view.admin != AdminState::Ready);
        let generation = snapshot.generation;
        self.view.replace(Rc::new(View { snapshot, pools, leaving }));
        self.slot().generation.store(generation, Ordering::Release);
    }

    /// A connection has gone to sleep, and given memory back.
    pub(crate) fn has_freed(&self) {
        self.tidying.set(TIDYING_SWEEPS);
    }

    /// The allocator gives free memory back to the system only while it is asked for some: a worker at rest would keep
    /// what a rush has left. (Measured: 5,000 connections at rest, 18 KiB each without this.)
    fn tidy(&self) {
        if let Some(left) = self.tidying.get().checked_sub(1) {
            self.tidying.set(left);
            for _ in 0..TIDYING_SEARCHES {
                drop(std::hint::black_box(Vec::<u8>::with_capacity(SEARCHED_BYTES)));
            }
            drop(std::hint::black_box(Vec::<u8>::with_capacity(TIDYING_BYTES)));
        }
    }

    /// Closes all idle connections to backends, for want of descriptors. Returns how many.
    pub(crate) fn close_idle(&self) -> usize {
        self.view().pools.iter().flatten().map(|local| local.idle.clear()).sum()
    }

    /// Closes idle connections to backends for requests that want their places, the oldest first, `most` at most. Returns
    /// how many. Those that are kept for somebody who waits for them stay.
    pub(crate) fn make_room(&self, most: usize) -> usize {
        let view = self.view();
        let oldest = || {
            let idle = view.pools.iter().flatten().filter(|local| local.awaited.get() == 0);
            idle.filter_map(|local| Some((local.idle.oldest()?, local))).min_by_key(|(since, _)| *since)
        };
        let mut closed = 0;
        while closed < most.min(MOST_ROOM)
            && let Some((_, local)) = oldest()
        {
            local.idle.close_oldest();
            closed += 1;
        }
        let left = view.pools.iter().flatten().map(|local| local.idle.len()).sum();
        self.slot().idle.store(left, Ordering::Relaxed);
        closed
    }

    /// What the sweep does: deadlines, idle connections to backends, lines of the access log, a sign of life.
    pub(crate) fn sweep(self: &Rc<Self>) {
        let scarce = self.shared.overload.level() > Level::Calm;
        self.sweep.run(&self.clock, Ending { draining: self.draining.get(), scarce }, QUIET);
        self.rest.sweep(self, scarce, QUIET);
        if scarce {
            self.has_freed();
        }
        let conns = &self.shared.backend_conns;
        if scarce || conns.is_crowded() {
            self.close_idle();
        } else if conns.wanted() > 0 {
            self.make_room(conns.wanted());
        }
        let (view, now) = (self.view(), self.clock.now());
        let mut idle = 0;
        for local in view.pools.iter().flatten() {
            local.idle.purge(now, self.shared.config.upstream.idle_timeout);
            idle += local.idle.len();
            local.shard().idle_time.set(local.idle.learned());
        }
        self.slot().idle.store(idle, Ordering::Relaxed);
        self.budget.borrow_mut().pass(now.as_ms());
        self.look_at_work(&view, now);
        if let Some(lines) = &self.access {
            lines.sweep(now);
        }
        self.tidy();
        self.slot().heartbeat.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Waiting;

    #[test]
    fn tunnels_that_have_ended_are_forgotten_without_a_look_at_all_for_each_that_opens() {
        let (sweep, mut tunnels) = (Sweep::default(), Vec::new());
        let open = || sweep.enter(Waiting::Tunnel, Tick::NEVER);
        let lasting: Vec<_> = (0..1000).map(|_| open()).collect();
        lasting.iter().for_each(|tunnel| remember(&mut tunnels, tunnel));
        let mut looks = 0;
        for _ in 0..10_000 {
            let before = tunnels.len();
            remember(&mut tunnels, &open());
            looks += usize::from(tunnels.len() <= before);
        }
        assert!(looks <= 20, "{looks} looks at a thousand tunnels while ten thousand opened");
        assert!(tunnels.len() <= 2048 && tunnels.capacity() <= 4096, "{} of {}", tunnels.len(), tunnels.capacity());
        assert_eq!(tunnels.iter().filter(|tunnel| tunnel.strong_count() > 0).count(), 1000);
    }
}
