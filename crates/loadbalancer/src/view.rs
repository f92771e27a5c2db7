//! One worker's view of the newest snapshot: beside each backend what this worker keeps for it.
//!
//! Made anew with each snapshot, by the worker that it belongs to; what is kept of a backend goes on by its id.
//!
//! With many backends nothing of one is in the processor's caches any more when it has its turn, and each line of memory that
//! a request looks at costs as much as hundreds of instructions (measured with 1,000: 0.2 µs each, eight of them). So what
//! each request looks at lies together, and is asked for together.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use lb_core::api::AdminState;
use lb_core::backend::{Backend, BackendId};
use lb_core::gate::Gate;
use lb_core::metrics::{BackendShard, Look};
use lb_core::snapshot::{BackendView, PoolView, Snapshot};
use tokio::sync::Notify;

use crate::clock::Tick;
use crate::deadline::Deadline;
use crate::upstream::{ConnCache, UpstreamConn};

/// Tunnels to one backend that there is room for from the first on.
const FEWEST_TUNNELS: usize = 4;

/// A snapshot with what this worker keeps for each of its backends.
#[derive(Default)]
pub(crate) struct View {
    pub snapshot: Arc<Snapshot>,
    /// In the order of the snapshot's pools and backends.
    pub pools: Vec<Vec<Seen>>,
    /// Whether some backend is on its way out.
    pub leaving: bool,
}

/// A backend as a view has it. What is known of it is in several places: from here each can be asked for without waiting for
/// another.
pub(crate) struct Seen {
    local: Rc<LocalBackend>,
    backend: Arc<Backend>,
    shard: Arc<CachePadded<BackendShard>>,
}

impl std::ops::Deref for Seen {
    type Target = Rc<LocalBackend>;

    fn deref(&self) -> &Rc<LocalBackend> {
        &self.local
    }
}

impl Seen {
    /// Counts one request in. A locked addition waits for all memory that was asked for before it, so all is asked for
    /// together, by reading it.
    pub(crate) fn enter(&self) -> Rc<LocalBackend> {
        black_box((self.backend.in_flight(), self.shard.sent_bytes.value(), self.local.cut.get()));
        let local = Rc::clone(&self.local);
        self.backend.enter();
        local.idle.fetch();
        local
    }
}

/// What one worker keeps for one backend, across snapshots. What each request looks at comes first.
#[repr(C)]
pub(crate) struct LocalBackend {
    pub backend: Arc<Backend>,
    shard: Arc<CachePadded<BackendShard>>,
    /// Its pool's; `None` when nothing is limited.
    gate: Option<Arc<Gate>>,
    pub id: BackendId,
    /// [`Shared::errors`](crate::worker::Shared::errors) when a success of it was last noted.
    pub errors: Cell<u64>,
    in_rotation: Cell<bool>,
    /// What is under way at it is to be closed.
    pub cut: Cell<bool>,
    /// Whether it is known to speak HTTP/1.0 only. Written after each response head.
    pub old: Cell<bool>,
    /// An operator wants it free of requests: its tunnels end at their next quiet moment.
    leaving: Cell<bool>,
    /// New connections to it are looked at twice until then: it has reset one, before or after something was sent on it, or
    /// none has been seen to last yet.
    pub wary_until: Cell<Tick>,
    /// Requests of this worker that wait for a connection to it, and the word to the first of them that one was `kept`.
    pub awaited: Cell<usize>,
    pub idle: ConnCache,
    pub address: Cell<Option<SocketAddr>>,
    pub kept: Notify,
    /// The count of a look at what is under way.
    pub look: Cell<Look>,
    /// Of tunnels to it; entries of ended ones go when there is no room for another.
    tunnels: RefCell<Vec<Weak<Deadline>>>,
}

impl View {
    /// Takes over a new snapshot: backends are kept by id, idle connections to what left rotation or moved are closed. Where
    /// an operator does not want a backend's tunnels to end any more, they go on until `calm`.
    pub(crate) fn of(snapshot: Arc<Snapshot>, former: &Self, worker: usize, calm: Tick) -> Self {
        let known: HashMap<BackendId, &Rc<LocalBackend>> =
            former.pools.iter().flatten().map(|seen| (seen.id, &seen.local)).collect();
        let pools = snapshot.pools.iter().map(|pool| {
            let seen = pool.backends.iter().map(|view| {
                let local = match known.get(&view.backend.id) {
                    Some(&local) => {
                        local.follow(view, pool, calm);
                        Rc::clone(local)
                    }
                    None => Rc::new(LocalBackend::new(view, pool, worker)),
                };
                Seen { backend: Arc::clone(&local.backend), shard: Arc::clone(&local.shard), local }
            });
            seen.collect()
        });
        let pools = pools.collect();
        let leaving = snapshot.pools.iter().flat_map(|pool| &pool.backends).any(|view| view.admin != AdminState::Ready);
        Self { snapshot, pools, leaving }
    }
}

impl LocalBackend {
    fn new(view: &BackendView, pool: &PoolView, worker: usize) -> Self {
        Self {
            backend: Arc::clone(&view.backend),
            shard: Arc::clone(view.backend.shard(worker)),
            gate: pool.gate.clone(),
            id: view.backend.id,
            errors: Cell::default(),
            in_rotation: Cell::new(pool.takes_requests(view)),
            cut: Cell::new(view.cut),
            old: Cell::default(),
            leaving: Cell::new(view.admin != AdminState::Ready),
            wary_until: Cell::new(Tick::NEVER),
            awaited: Cell::default(),
            idle: ConnCache::default(),
            address: Cell::new(view.address),
            kept: Notify::new(),
            look: Cell::default(),
            tunnels: RefCell::default(),
        }
    }

    /// What a new snapshot says of it.
    fn follow(&self, view: &BackendView, pool: &PoolView, calm: Tick) {
        let moved = self.address.replace(view.address) != view.address;
        self.in_rotation.set(pool.takes_requests(view));
        self.cut.set(view.cut);
        self.be_left(view.admin != AdminState::Ready, calm);
        if moved {
            self.idle.forget_idle_time();
        }
        if moved || !pool.takes_requests(view) {
            self.idle.clear();
        }
    }

    /// This worker's numbers about it.
    pub(crate) fn shard(&self) -> &BackendShard {
        &self.shard
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::{Sweep, Waiting};

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
