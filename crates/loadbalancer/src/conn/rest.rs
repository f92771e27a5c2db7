//! Connections at rest: clients that have asked for nothing for a second, which is most of them in front of most
//! services. One costs its descriptor and the few facts that are not known any other way; its task, its deadline, and
//! what hyper keeps are given back. (Measured: about a quarter of a KiB instead of 2.8.)
//!
//! A worker watches the sockets of all its connections at rest through a poller of its own, which is itself one
//! descriptor of the worker's runtime. The first byte, or the end of the connection, begins a new task for it.
//!
//! Belongs to one worker: [`enter`](Rest::enter) is called by the connection's ending task, [`watch`] by the one task
//! that wakes, [`sweep`](Rest::sweep) by the worker's sweep.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;
use tokio::io::unix::AsyncFd;

use crate::clock::Tick;
use crate::deadline::Waiting;
use crate::listen::{Peer, Seat};
use crate::worker::Worker;

/// Woken at one look; the rest of a rush comes at the next, after what else the worker has to do.
const WOKEN_AT_ONCE: usize = 256;

/// The connections at rest of one worker.
pub(crate) struct Rest {
    /// As long as [`watch`] watches; without it, connections stay awake.
    registry: RefCell<Option<Registry>>,
    sleepers: RefCell<Slab<Sleeper>>,
    /// No deadline is before this.
    earliest: Cell<Tick>,
}

/// A connection at rest. There may be many: what few have is behind a pointer.
pub(super) struct Sleeper {
    stream: TcpStream,
    socket: SocketAddr,
    /// If the client is not whoever is at the socket's other end, or its own end is known.
    peer: Option<Box<Peer>>,
    seat: Seat,
    past: Past,
}

impl Sleeper {
    pub(super) fn new(stream: TcpStream, peer: Peer, seat: Seat, past: Past) -> Self {
        let is_plain = peer.client == peer.socket && peer.destination.is_none();
        Self { stream, socket: peer.socket, peer: (!is_plain).then(|| Box::new(peer)), seat, past }
    }

    fn wake(self, worker: &Rc<Worker>) {
        let socket = self.socket;
        let peer = self.peer.map_or(Peer { socket, client: socket, destination: None }, |peer| *peer);
        tokio::task::spawn_local(super::go_on(Rc::clone(worker), self.stream, peer, self.seat, self.past));
    }
}

/// What a connection goes on with when it wakes.
#[derive(Clone, Copy)]
pub(super) struct Past {
    /// A first or a next request.
    pub waiting: Waiting,
    /// When its wait for that ends.
    pub until: Tick,
    pub requests: u64,
}

impl Past {
    /// Of a new connection.
    pub(super) fn new(worker: &Worker) -> Self {
        let until = worker.clock.read().plus(worker.shared.config.timeouts.client_head);
        Self { waiting: Waiting::FirstRequest, until, requests: 0 }
    }
}

impl Default for Rest {
    fn default() -> Self {
        let (registry, sleepers) = (RefCell::default(), RefCell::default());
        Self { registry, sleepers, earliest: Cell::new(Tick::NEVER) }
    }
}

impl Rest {
    /// Takes a connection in.
    ///
    /// # Errors
    /// It cannot be watched.
    fn enter(&self, sleeper: Sleeper) -> Result<(), Sleeper> {
        let registry = self.registry.borrow();
        let Some(registry) = &*registry else { return Err(sleeper) };
        let mut sleepers = self.sleepers.borrow_mut();
        let place = sleepers.vacant_entry();
        // What has come since the last look is told at once: no byte falls between the two watches.
        let watched =
            registry.register(&mut SourceFd(&sleeper.stream.as_raw_fd()), Token(place.key()), Interest::READABLE);
        if let Err(error) = watched {
            tracing::debug!(%error, "a connection cannot be watched at rest");
            return Err(sleeper);
        }
        self.earliest.set(self.earliest.get().min(sleeper.past.until));
        place.insert(sleeper);
        Ok(())
    }

    /// Ends all.
    pub(crate) fn clear(&self) {
        drop(self.sleepers.take());
    }

    /// Gives one out. The poller has it no longer.
    fn take(&self, key: usize) -> Option<Sleeper> {
        let sleeper = self.sleepers.borrow_mut().try_remove(key)?;
        if let Some(registry) = &*self.registry.borrow() {
            // It fails only for what is not registered, and then there is nothing to undo.
            let _ = registry.deregister(&mut SourceFd(&sleeper.stream.as_raw_fd()));
        }
        Some(sleeper)
    }

    /// Ends those whose time is over. When the worker drains or means are `scarce`, none waits for longer than `quiet`.
    pub(crate) fn sweep(&self, worker: &Rc<Worker>, scarce: bool, quiet: Duration) {
        let now = worker.clock.now();
        if worker.draining.get() || scarce {
            let soon = now.plus(quiet);
            for (_, sleeper) in self.sleepers.borrow_mut().iter_mut() {
                sleeper.past.until = sleeper.past.until.min(soon);
            }
            self.earliest.set(self.earliest.get().min(soon));
        }
        if now < self.earliest.get() {
            return;
        }
        let mut earliest = Tick::NEVER;
        let mut over = Vec::new();
        for (key, sleeper) in self.sleepers.borrow().iter() {
            match sleeper.past.until {
                until if until <= now => over.push(key),
                until => earliest = earliest.min(until),
            }
        }
        self.earliest.set(earliest);
        for sleeper in over.into_iter().filter_map(|key| self.take(key)) {
            // What has come at the last moment, and was not told yet, is not thrown away.
            match sleeper.stream.peek(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tracing::debug!(peer = %sleeper.socket, "connection closed: no further request");
                }
                _ => sleeper.wake(worker),
            }
        }
    }
}

/// Takes a connection in. One that cannot be watched goes on awake.
pub(super) fn enter(worker: &Rc<Worker>, sleeper: Sleeper) {
    if let Err(sleeper) = worker.rest.enter(sleeper) {
        sleeper.wake(worker);
    }
}

/// Wakes connections at rest. Ends with the runtime.
pub(crate) async fn watch(worker: Rc<Worker>) {
    if let Err(error) = try_watch(&worker).await {
        tracing::warn!(%error, worker = worker.id, "connections at rest cannot be watched; idle ones take more memory");
        drop(worker.rest.registry.take());
        let sleepers = worker.rest.sleepers.take();
        sleepers.into_iter().for_each(|(_, sleeper)| sleeper.wake(&worker));
    }
}

async fn try_watch(worker: &Rc<Worker>) -> io::Result<()> {
    let poll = Poll::new()?;
    let registry = poll.registry().try_clone()?;
    #[expect(deprecated, reason = "unsound only for what may close its descriptor early: a poller keeps its own")]
    let mut poll = AsyncFd::with_interest(poll, tokio::io::Interest::READABLE)?;
    let mut events = Events::with_capacity(WOKEN_AT_ONCE);
    // Only now: what is at rest has somebody who wakes it.
    worker.rest.registry.replace(Some(registry));
    loop {
        let mut ready = poll.readable_mut().await?;
        match ready.get_inner_mut().poll(&mut events, Some(Duration::ZERO)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if events.is_empty() {
            ready.clear_ready();
        }
        for sleeper in events.iter().filter_map(|event| worker.rest.take(event.token().0)) {
            sleeper.wake(worker);
        }
        // A rush must not keep the worker from what else there is to do.
        tokio::task::yield_now().await;
    }
}
