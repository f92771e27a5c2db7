//! Connections at rest: clients that have asked for nothing for a second, which is most of them in front of most
//! services. One costs its descriptor and the few facts that are not known any other way; its task, its deadline, and
//! what hyper keeps are given back. (Measured: about a quarter of a KiB instead of 2.8.)
//!
//! They are watched by the worker's [`poller`](super::poller). The first byte, or the end of the connection, begins a new task
//! for it.
//!
//! They end when their time is over; before it where there is need, those first that would end soonest anyway, and a number
//! at a time: a part of them under pressure, a few, then more and more, while clients wait for a place. At once, since
//! whoever has not asked for a second is hardly about to. No sweep ends more than [`MOST_ENDED`]. Where there are many, all
//! are looked at once a second only, so that their times end up to a second late.
//!
//! Belongs to one worker: [`enter`](Rest::enter) is called by the connection's ending task, [`wake`](Rest::wake) by the
//! poller's, [`sweep`](Rest::sweep) by the worker's sweep.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use lb_core::metrics::EndedEarly;
use slab::Slab;

use super::poller::{Place, Poller};
use crate::clock::Tick;
use crate::deadline::Waiting;
use crate::listen::{Peer, Seat};
use crate::worker::Worker;

/// Ended in one sweep: some milliseconds of closing, in which nobody is served. The rest of them is for the next.
const MOST_ENDED: usize = 2048;

/// Up to so many are looked at in each sweep if it must be; what is more, once in [`LOOK_AT_MANY`].
const FEW: usize = 4096;
const LOOK_AT_MANY: Duration = Duration::from_secs(1);

/// What is ended in a sweep while means are scarce: this part, and so many at least. Half are gone within 1.1 s, which is
/// four measurements of memory.
const SCARCE_PART: usize = 16;
const SCARCE_LEAST: usize = 64;

/// Most that is ended in a sweep for clients that wait. Nobody knows how many do: one is ended first, then twice as many
/// each time.
const MOST_FOR_CLIENTS: usize = 256;

/// Moved in one sweep when room is given back: a system call each.
const MOST_MOVED: usize = 1024;

/// The connections at rest of one worker.
pub(crate) struct Rest {
    sleepers: RefCell<Slab<Sleeper>>,
    /// No deadline is before this, or none is looked at before it.
    earliest: Cell<Tick>,
    /// How many to end for clients that wait, if some do at the next sweep.
    for_clients: Cell<usize>,
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
        Self { sleepers: RefCell::default(), earliest: Cell::new(Tick::NEVER), for_clients: Cell::new(1) }
    }
}

impl Rest {
    /// Takes a connection in.
    ///
    /// # Errors
    /// It cannot be watched.
    fn enter(&self, poller: &Poller, sleeper: Sleeper) -> Result<(), Sleeper> {
        let mut sleepers = self.sleepers.borrow_mut();
        let place = sleepers.vacant_entry();
        // What has come since the last look is told at once: no byte falls between the two watches.
        if let Err(error) = poller.add(&sleeper.stream, Place::Sleeper(place.key())) {
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
    fn take(&self, poller: &Poller, key: usize) -> Option<Sleeper> {
        let sleeper = self.sleepers.borrow_mut().try_remove(key)?;
        poller.remove(&sleeper.stream);
        Some(sleeper)
    }

    /// One has sent something, or has gone.
    pub(super) fn wake(&self, worker: &Rc<Worker>, key: usize) {
        if let Some(sleeper) = self.take(&worker.poller, key) {
            sleeper.wake(worker);
        }
    }

    /// Nobody watches them any more.
    pub(super) fn wake_all(&self, worker: &Rc<Worker>) {
        self.sleepers.take().into_iter().for_each(|(_, sleeper)| sleeper.wake(worker));
    }

    /// Ends those whose time is over, and others if they must make room. When the worker drains, none waits for longer
    /// than `quiet`.
    pub(crate) fn sweep(&self, worker: &Rc<Worker>, scarce: bool, quiet: Duration) {
        let now = worker.clock.now();
        self.shrink(&worker.poller);
        if worker.draining.get() {
            let soon = now.plus(quiet);
            for (_, sleeper) in self.sleepers.borrow_mut().iter_mut() {
                sleeper.past.until = sleeper.past.until.min(soon);
            }
            self.earliest.set(self.earliest.get().min(soon));
        }
        let asked = !self.sleepers.borrow().is_empty() && worker.shared.admission.is_asked_for_room();
        let for_clients = self.for_clients(asked);
        let for_means = if scarce { self.sleepers.borrow().len().div_ceil(SCARCE_PART).max(SCARCE_LEAST) } else { 0 };
        let soonest = for_clients.max(for_means);
        if soonest == 0 && now < self.earliest.get() {
            return;
        }
        let (over, earliest) = due(self.sleepers.borrow().iter().map(|(key, it)| (it.past.until, key)), now, soonest);
        let many = self.sleepers.borrow().len() > FEW && earliest > now && !worker.draining.get();
        self.earliest.set(if many { earliest.max(now.plus(LOOK_AT_MANY)) } else { earliest });
        let reason = if for_clients > for_means { EndedEarly::Connections } else { EndedEarly::Overload };
        for (until, key) in over {
            let Some(sleeper) = self.take(&worker.poller, key) else { continue };
            // What has come at the last moment, and was not told yet, is not thrown away.
            match sleeper.stream.peek(&mut [0]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if until > now {
                        worker.slot().shard.ended_early[reason as usize].add(1);
                    }
                    tracing::debug!(peer = %sleeper.socket, "connection closed: no further request");
                }
                _ => sleeper.wake(worker),
            }
        }
    }

    /// How many are to end for clients that wait, if some do. Twice as many at each look in a row, half as many again
    /// at each without: so few are ended in vain.
    fn for_clients(&self, wanted: bool) -> usize {
        let now = self.for_clients.get();
        let next = if wanted { (now * 2).min(MOST_FOR_CLIENTS) } else { (now / 2).max(1) };
        self.for_clients.set(next);
        if wanted { now } else { 0 }
    }

    /// Gives back what a rush has left, a piece at a time.
    fn shrink(&self, poller: &Poller) {
        let mut sleepers = self.sleepers.borrow_mut();
        if sleepers.capacity() <= FEW || sleepers.len() > sleepers.capacity() / 4 {
            return;
        }
        let mut moved = 0;
        // What cannot be moved stays where it is, and with it what is before it.
        sleepers.compact(|sleeper, _, key| {
            moved += 1;
            moved <= MOST_MOVED && poller.move_to(&sleeper.stream, Place::Sleeper(key)).is_ok()
        });
    }
}

/// Of all, those to end now: whose time is over, or the `soonest` first if that is more; and when the next is to end.
fn due(all: impl Iterator<Item = (Tick, usize)>, now: Tick, soonest: usize) -> (Vec<(Tick, usize)>, Tick) {
    let (mut due, mut over, mut earliest) = (Vec::new(), 0, Tick::NEVER);
    for one in all {
        let is_over = one.0 <= now;
        over += usize::from(is_over);
        if is_over || soonest > 0 {
            due.push(one);
        } else {
            earliest = earliest.min(one.0);
        }
    }
    let most = over.max(soonest).min(MOST_ENDED);
    if due.len() > most {
        let (_, left, _) = due.select_nth_unstable(most);
        earliest = earliest.min(left.0);
        due.truncate(most);
    }
    (due, earliest)
}

/// Takes a connection in. One that cannot be watched goes on awake.
pub(super) fn enter(worker: &Rc<Worker>, sleeper: Sleeper) {
    if let Err(sleeper) = worker.rest.enter(&worker.poller, sleeper) {
        sleeper.wake(worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: usize) -> Tick {
        Tick::default().plus(Duration::from_secs(seconds as u64))
    }

    /// Sorted, since they come in any order.
    fn ended(untils: &[usize], now: usize, soonest: usize) -> (Vec<Tick>, Tick) {
        let all = untils.iter().enumerate().map(|(key, until)| (at(*until), key));
        let (due, earliest) = due(all, at(now), soonest);
        let mut due: Vec<_> = due.into_iter().map(|(until, _)| until).collect();
        due.sort_unstable();
        (due, earliest)
    }

    #[test]
    fn what_is_over_ends_and_where_room_is_needed_what_would_end_soonest() {
        let untils = [50, 3, 40, 9, 20, 30];
        assert_eq!(ended(&untils, 1, 0), (vec![], at(3)));
        assert_eq!(ended(&untils, 9, 0), (vec![at(3), at(9)], at(20)));
        assert_eq!(ended(&untils, 9, 1), (vec![at(3), at(9)], at(20)), "room is made by what is over");
        assert_eq!(ended(&untils, 9, 4), (vec![at(3), at(9), at(20), at(30)], at(40)));
        assert_eq!(ended(&untils, 1, 99), ([3, 9, 20, 30, 40, 50].map(at).to_vec(), Tick::NEVER));
    }

    #[test]
    fn no_sweep_ends_more_than_some_milliseconds_of_closing() {
        let untils: Vec<_> = (0..50_000).map(|number| 1 + number % 60).collect();
        for soonest in [0, 1, 50_000] {
            let (due, earliest) = ended(&untils, 100, soonest);
            assert_eq!(due.len(), MOST_ENDED);
            assert!(earliest <= at(100), "the next sweep goes on");
            assert!(due.iter().all(|until| *until <= earliest), "the oldest first");
        }
    }

    #[test]
    fn for_one_client_one_is_ended_and_for_many_more_and_more() {
        let rest = Rest::default();
        assert_eq!([true, false, false, true, true, true].map(|wanted| rest.for_clients(wanted)), [1, 0, 0, 1, 2, 4]);
        assert_eq!((0..20).map(|_| rest.for_clients(true)).max(), Some(MOST_FOR_CLIENTS));
    }
}
