//! Deadlines of client connections, kept by one coarse sweep per worker instead of a timer each.
//!
//! A connection waits for one thing at a time, so it has one [`Deadline`]: a moment and what it is about. Setting it
//! is a store. Ten times a second the worker's sweep looks at all of them, marks those that have passed and wakes
//! their connections; a worker without connections looks once a second. A timer per wait costs about a microsecond
//! per request; this costs a few nanoseconds, and deadlines are up to [`SWEEP_INTERVAL`] late.
//!
//! Everything here belongs to one worker; no other thread sees it.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::Waker;
use std::time::Duration;

use lb_core::backend::BackendId;
use lb_core::metrics::{Kind, STREAM_AFTER};

use crate::clock::{Clock, Tick};
use crate::turns::Turn;

/// How late a deadline may be noticed.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// The first byte of a new connection; its time is that of the head.
    FirstRequest,
    /// The rest of a request head.
    ClientHead,
    /// The next request.
    NextRequest,
    /// A place at a backend.
    Queue,
    /// A connection to a backend.
    Connect,
    /// The moment to try once more.
    Retry,
    /// The next piece of the request body, or for the backend to take one.
    RequestBody,
    /// The response head.
    ResponseHead,
    /// The next piece of the response body, or for the client to take one.
    ResponseBody,
    /// A backend's word that the body may come.
    Continue,
    /// Anything, either way, through a tunnel.
    Tunnel,
}

/// What one connection waits for, and until when.
#[derive(Debug)]
pub(crate) struct Deadline {
    at: Cell<Tick>,
    waiting: Cell<Waiting>,
    expired: Cell<bool>,
    /// A tunnel is to end at its next quiet moment.
    hurried: Cell<bool>,
    /// For how many sweeps it has waited for a request without a byte of one.
    rests: Cell<u8>,
    /// Whether a sweep has found it.
    long: Cell<bool>,
    /// What is under way on it at a backend.
    work: Cell<Option<Work>>,
    /// That must end: the backend's drain is past its deadline.
    cut: Cell<bool>,
    /// Whether it waits for its turn to begin a request.
    pub turn: Cell<Turn>,
    waker: RefCell<Waker>,
}

/// What a connection has under way at a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work {
    pub backend: BackendId,
    /// When the request arrived.
    since: Tick,
    event_stream: bool,
}

/// Sweeps after which a connection is at rest: a second. A client that is busy pauses for less, and it costs some
/// microseconds to begin again.
const REST: u8 = 10;

/// Room for so many entries is kept whatever comes: some KiB.
const FEW_ENTRIES: usize = 1024;

impl Deadline {
    /// Waits for `waiting` until `at`; whatever was waited for before is forgotten.
    pub(crate) fn set(&self, waiting: Waiting, at: Tick) {
        self.at.set(at);
        self.waiting.set(waiting);
        self.expired.set(false);
        self.rests.set(0);
    }

    /// Whether its connection may be put to sleep.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.rests.get() >= REST
    }

    /// When it expires.
    pub(crate) fn at(&self) -> Tick {
        self.at.get()
    }

    /// Its connection is to look after its client from now on.
    pub(crate) fn lengthen(&self) {
        self.long.set(true);
    }

    /// Whether its connection lives for longer than it takes to answer at once.
    pub(crate) fn is_long(&self) -> bool {
        self.long.get()
    }

    /// Counts a sweep that found it waiting for a request.
    fn rest(&self) {
        let rests = self.rests.get();
        if rests < REST {
            self.rests.set(rests + 1);
            if rests + 1 == REST {
                self.waker.borrow().wake_by_ref();
            }
        }
    }

    /// Waits for `waiting` now, until the same moment as before.
    pub(crate) fn go_on(&self, waiting: Waiting) {
        self.waiting.set(waiting);
    }

    pub(crate) fn waiting(&self) -> Waiting {
        self.waiting.get()
    }

    /// Whether what was waited for did not come in time. Stays so until [`Self::set`].
    pub(crate) fn expired(&self) -> bool {
        self.expired.get()
    }

    /// A request that arrived at `since` goes to a backend. Written by its record, as the end of it is.
    pub(crate) fn begin_work(&self, backend: BackendId, since: Tick) {
        self.work.set(Some(Work { backend, since, event_stream: false }));
        self.cut.set(false);
    }

    /// Its response is one that may go on for ever.
    pub(crate) fn is_event_stream(&self) {
        self.work.set(self.work.get().map(|work| Work { event_stream: true, ..work }));
    }

    pub(crate) fn end_work(&self) {
        self.work.set(None);
        self.cut.set(false);
    }

    /// What is under way on it: where, of which kind, and for how long.
    pub(crate) fn under_way(&self, now: Tick) -> Option<(BackendId, Kind, Duration)> {
        let work = self.work.get()?;
        let age = now.since(work.since);
        let kind = match self.waiting.get() {
            Waiting::Tunnel => Kind::Tunnel,
            _ if work.event_stream => Kind::Stream,
            Waiting::ResponseBody if age >= STREAM_AFTER => Kind::Stream,
            _ => Kind::Request,
        };
        Some((work.backend, kind, age))
    }

    /// What is under way must end now. Says whether that is news. A connection to a backend that is still being made is
    /// left alone: it is over soon, and then it is looked at again.
    pub(crate) fn cut(&self) -> bool {
        if self.waiting.get() == Waiting::Connect || self.cut.replace(true) {
            return false;
        }
        self.waker.borrow().wake_by_ref();
        true
    }

    /// Whether what is under way must end now.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// A tunnel's backend is to be free of it soon.
    pub(crate) fn hurry(&self) {
        self.hurried.set(true);
    }

    /// Nobody waits for the tunnel to end any more.
    pub(crate) fn calm(&self, at: Tick) {
        self.hurried.set(false);
        self.set(Waiting::Tunnel, at);
    }

    /// Whether it was shortened because somebody waits for it to end.
    pub(crate) fn is_hurried(&self) -> bool {
        self.hurried.get()
    }

    /// Whom to wake; called at each poll of the connection, stores only a changed waker.
    pub(crate) fn watch(&self, waker: &Waker) {
        let mut stored = self.waker.borrow_mut();
        if !stored.will_wake(waker) {
            stored.clone_from(waker);
        }
    }

    pub(crate) fn wake(&self) {
        self.waker.borrow().wake_by_ref();
    }

    fn check(&self, now: Tick) {
        if now >= self.at.get() && !self.expired.replace(true) {
            self.waker.borrow().wake_by_ref();
        }
    }
}

/// Why waits are to end sooner.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ending {
    pub draining: bool,
    /// Memory is: what is idle must go.
    pub scarce: bool,
}

/// All deadlines of a worker.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    /// Entries of connections that are gone stay until the next sweep: at most a tenth of a second's connections.
    entries: RefCell<Vec<Weak<Deadline>>>,
}

impl Sweep {
    /// A deadline for a new connection.
    pub(crate) fn enter(&self, waiting: Waiting, at: Tick) -> Rc<Deadline> {
        let deadline = Rc::new(Deadline {
            at: Cell::new(at),
            waiting: Cell::new(waiting),
            expired: Cell::new(false),
            hurried: Cell::new(false),
            rests: Cell::new(0),
            long: Cell::new(false),
            work: Cell::new(None),
            cut: Cell::new(false),
            turn: Cell::default(),
            waker: RefCell::new(Waker::noop().clone()),
        });
        self.entries.borrow_mut().push(Rc::downgrade(&deadline));
        deadline
    }

    /// Shows all that are open.
    pub(crate) fn each(&self, mut look: impl FnMut(&Deadline)) {
        for deadline in self.entries.borrow().iter().filter_map(Weak::upgrade) {
            look(&deadline);
        }
    }

    /// Marks and wakes what has expired. When the worker drains or means are scarce, those that wait for a request
    /// without a byte of it wait no longer than `quiet` from now; when it drains, tunnels no longer without a byte; so
    /// do tunnels that are hurried.
    pub(crate) fn run(&self, clock: &Clock, Ending { draining, scarce }: Ending, quiet: Duration) {
        let now = clock.read();
        let mut entries = self.entries.borrow_mut();
        entries.retain(|entry| {
            let Some(deadline) = entry.upgrade() else { return false };
            if !deadline.long.replace(true) {
                // It may have more to look after now.
                deadline.waker.borrow().wake_by_ref();
            }
            let shorten = match deadline.waiting.get() {
                Waiting::FirstRequest | Waiting::NextRequest => {
                    deadline.rest();
                    draining || scarce
                }
                Waiting::Tunnel => {
                    if draining {
                        deadline.hurry();
                    }
                    deadline.is_hurried()
                }
                _ => false,
            };
            if shorten && deadline.at.get() > now.plus(quiet) {
                deadline.at.set(now.plus(quiet));
            }
            deadline.check(now);
            true
        });
        // What a rush has left.
        if entries.capacity() > FEW_ENTRIES && entries.len() < entries.capacity() / 4 {
            let room = entries.len() * 2;
            entries.shrink_to(room.max(FEW_ENTRIES));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_has_passed_expires_and_setting_starts_anew() {
        let (clock, sweep) = (Clock::new(), Sweep::default());
        let past = sweep.enter(Waiting::ClientHead, Tick::default());
        let future = sweep.enter(Waiting::NextRequest, clock.read().plus(Duration::from_secs(3600)));
        sweep.run(&clock, Ending::default(), Duration::ZERO);
        assert!(past.expired() && !future.expired());
        let hour = clock.now().plus(Duration::from_secs(3600));
        past.set(Waiting::Connect, hour);
        assert!(!past.expired());
        let (draining, scarce) = (Ending { draining: true, scarce: false }, Ending { draining: false, scarce: true });
        sweep.run(&clock, draining, Duration::ZERO);
        sweep.run(&clock, draining, Duration::ZERO);
        assert!(future.expired() && !past.expired(), "draining shortens only the wait for a next request");
        let (idle, tunnel) = (sweep.enter(Waiting::NextRequest, hour), sweep.enter(Waiting::Tunnel, hour));
        sweep.run(&clock, scarce, Duration::ZERO);
        sweep.run(&clock, scarce, Duration::ZERO);
        assert!(idle.expired() && !tunnel.expired() && !past.expired(), "what is scarce is taken from the idle");
    }

    #[test]
    fn entries_of_closed_connections_go_away() {
        let (clock, sweep) = (Clock::new(), Sweep::default());
        drop(sweep.enter(Waiting::ClientHead, Tick::default()));
        sweep.run(&clock, Ending::default(), Duration::ZERO);
        assert!(sweep.entries.borrow().is_empty());
    }

    #[test]
    fn room_for_a_rush_is_given_back() {
        let (clock, sweep) = (Clock::new(), Sweep::default());
        let hour = clock.read().plus(Duration::from_secs(3600));
        let mut rush: Vec<_> = (0..20_000).map(|_| sweep.enter(Waiting::NextRequest, hour)).collect();
        rush.truncate(3000);
        sweep.run(&clock, Ending::default(), Duration::ZERO);
        let capacity = sweep.entries.borrow().capacity();
        assert!((3000..10_000).contains(&capacity), "{capacity}");
        drop(rush);
        sweep.run(&clock, Ending::default(), Duration::ZERO);
        assert!(sweep.entries.borrow().capacity() <= 2 * FEW_ENTRIES);
    }

    #[test]
    fn what_is_under_way_is_told_by_what_it_waits_for_its_type_and_its_age() {
        let (clock, sweep, backend) = (Clock::new(), Sweep::default(), BackendId(3));
        let (begun, never) = (clock.read(), clock.now().plus(Duration::from_secs(3600)));
        let old = begun.plus(STREAM_AFTER);
        let deadline = sweep.enter(Waiting::NextRequest, never);
        let kind = |now| deadline.under_way(now).map(|(_, kind, _)| kind);
        assert_eq!(kind(old), None);
        deadline.begin_work(backend, begun);
        deadline.set(Waiting::ResponseHead, never);
        assert_eq!(deadline.under_way(old), Some((backend, Kind::Request, STREAM_AFTER)));
        deadline.set(Waiting::ResponseBody, never);
        assert_eq!((kind(begun), kind(old)), (Some(Kind::Request), Some(Kind::Stream)));
        deadline.is_event_stream();
        assert_eq!(kind(begun), Some(Kind::Stream));
        deadline.set(Waiting::Tunnel, never);
        assert_eq!(kind(begun), Some(Kind::Tunnel));
        deadline.end_work();
        assert_eq!(kind(old), None);
    }

    #[test]
    fn what_is_cut_stays_so_until_its_work_ends_but_not_while_it_connects() {
        let (clock, sweep) = (Clock::new(), Sweep::default());
        let never = clock.read().plus(Duration::from_secs(3600));
        let deadline = sweep.enter(Waiting::Connect, never);
        deadline.begin_work(BackendId(0), clock.now());
        assert!(!deadline.cut() && !deadline.is_cut());
        deadline.set(Waiting::ResponseHead, never);
        assert!(deadline.cut() && !deadline.cut(), "it is news once");
        deadline.set(Waiting::ResponseBody, never);
        assert!(deadline.is_cut());
        deadline.end_work();
        assert!(!deadline.is_cut());
    }
}
