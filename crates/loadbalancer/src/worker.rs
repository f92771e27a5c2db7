//! One worker: everything that belongs to one thread of the data plane, and its view of what all threads share.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_utils::CachePadded;
use http::HeaderValue;
use lb_core::backend::BackendId;
use lb_core::health::Failure;
use lb_core::metrics::{LocalReply, Rejected, WorkerShard};
use lb_core::overload::Level;
use lb_core::rate::RateLimiter;
use lb_core::retry::{ActiveRetries, RetryBudget, RetryPolicy};
use lb_core::snapshot::Snapshot;
use tokio::sync::{Notify, mpsc};

use crate::access;
use crate::clock::{Clock, Tick};
use crate::config::Config;
use crate::conn::{Carrier, Poller, Rest};
use crate::deadline::{Ending, Sweep};
use crate::descriptors::Shares;
use crate::listen::Admission;
use crate::overload::Overload;
use crate::tunnels::Tunnels;
use crate::turns::Turns;
use crate::upstream::{OpenConns, Via};
use crate::view::View;

/// How long what is idle is still served once its end is wanted. A client that has just sent its next request, or is
/// about to, gets an answer with `Connection: close` instead of a reset, and a tunnel is not cut inside a message; a
/// closed loop of requests pauses for far less.
const QUIET: Duration = Duration::from_millis(500);

/// What is read at once from a tunnel: more than most messages, and more than is read of a head and behind it.
const PIECE: usize = 16 * 1024;

/// Idle connections that are closed at once for those who wait: what more want is closed by the next sweep.
const MOST_ROOM: usize = 64;

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
    /// Errors that were held against any backend. Written by workers, behind what they note of the backend (release), and
    /// read by those that note a success (acquire): while it stands still there is nothing at any backend to take back, and
    /// none of them has to be looked at for that.
    pub errors: CachePadded<AtomicU64>,
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
    pub poller: Poller,
    pub rest: Rest,
    pub carrier: Carrier,
    pub turns: Turns,
    pub budget: RefCell<RetryBudget>,
    pub draining: Cell<bool>,
    /// Its lines of the access log; `None` when that is off.
    pub access: Option<access::Lines>,
    /// Where small responses are put together; its size stays small because theirs is.
    pub scratch: RefCell<Vec<u8>>,
    /// What tunnels carry from one socket to the other, a piece at a time, and what clients send on its way into a buffer.
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
            errors: CachePadded::default(),
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

impl Worker {
    pub(crate) fn new(id: usize, shared: Arc<Shared>) -> Rc<Self> {
        let clock = Clock::since(shared.started);
        let retry = &shared.config.retry;
        // Each worker gets its share of the reserve, but enough for a backend that dies under it.
        let reserve = (retry.reserve / shared.config.workers as u32).max(retry.reserve.min(10));
        let policy = RetryPolicy { percent: retry.percent, reserve };
        let budget = RetryBudget::new(policy, clock.read().as_ms());
        let view = Rc::default();
        let access = shared.access.clone().map(|log| access::Lines::new(log, clock.now()));
        Rc::new(Self {
            id,
            clock,
            sweep: Sweep::default(),
            poller: Poller::default(),
            rest: Rest::default(),
            carrier: Carrier::default(),
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

    /// Takes over a new snapshot.
    fn renew(&self) {
        let snapshot = self.shared.snapshot.load_full();
        let generation = snapshot.generation;
        let calm = self.clock.now().plus(self.shared.config.timeouts.tunnel);
        let view = View::of(snapshot, &self.view.borrow(), self.id, calm);
        self.view.replace(Rc::new(view));
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
                drop(black_box(Vec::<u8>::with_capacity(SEARCHED_BYTES)));
            }
            drop(black_box(Vec::<u8>::with_capacity(TIDYING_BYTES)));
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
    // Not inlined, so that it can be told from what requests cost (`cargo xtask test --only gates`).
    #[inline(never)]
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
