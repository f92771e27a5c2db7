//! Idle connections of one worker to one backend, and what their ends have taught of it.
//!
//! Last in, first out: the connection used last is the one least likely to have been closed meanwhile, and the
//! surplus of a busy minute grows old at the bottom and is purged.

use std::cell::{Cell, RefCell};
use std::hint::black_box;
use std::time::Duration;

use lb_core::idle::IdleTime;
use smallvec::SmallVec;

use super::UpstreamConn;
use crate::clock::Tick;
use crate::proxy_protocol::Ends;

/// Behind this a connection was part of a rush that is over.
const REST: Duration = Duration::from_secs(1);

/// Idle connections, oldest first.
#[derive(Debug, Default)]
pub(crate) struct ConnCache {
    /// Each behind a pointer, since it moves in and out with each request; few of them here and not on yet another line of
    /// the processor's cache.
    idle: RefCell<SmallVec<[Box<UpstreamConn>; 2]>>,
    /// After how long idle the backend closes.
    time: Cell<IdleTime>,
}

impl ConnCache {
    /// A connection that looks alive, or `None`. `for_sure` is for what cannot be sent again: the kernel is asked as
    /// well, which knows of a close before the runtime does, and one that is so old that the backend may be about to
    /// close it is not given. One that the backend was told is of some client is given only `on_behalf` of the same;
    /// without such, the first look finds one.
    pub(crate) fn take(&self, for_sure: bool, on_behalf: Option<Ends>, now: Tick) -> Option<Box<UpstreamConn>> {
        let mut idle = self.idle.borrow_mut();
        let mut closed = None;
        let mut found = None;
        while let Some(at) = idle.iter().rposition(|connection| connection.on_behalf.as_deref() == on_behalf.as_ref()) {
            // All that follow are older.
            if for_sure && now.since(idle[at].idle_since) >= self.time.get().safe_age() {
                break;
            }
            let connection = idle.remove(at);
            let ask = for_sure || connection.doubtful;
            if connection.is_quiet() && (!ask || connection.is_quiet_for_sure()) {
                found = Some(connection);
                break;
            }
            closed = closed.max(Some(connection.last_open));
        }
        if let Some(last_open) = closed {
            self.found_closed(last_open);
        }
        found
    }

    /// Begins to fetch the connection that is taken next from memory.
    pub(crate) fn fetch(&self) {
        black_box(self.idle.borrow().last().map(|connection| connection.idle_since));
    }

    /// Keeps a connection whose exchange is completely through. Beyond `most`, the oldest is closed.
    pub(crate) fn put(&self, mut connection: Box<UpstreamConn>, now: Tick, most: usize) {
        if most == 0 {
            return;
        }
        connection.lend_no_more();
        connection.reused = true;
        connection.idle_since = now;
        connection.last_open = Duration::ZERO;
        let mut idle = self.idle.borrow_mut();
        if idle.len() >= most {
            idle.remove(0);
        }
        idle.push(connection);
    }

    /// Closes all. Returns how many.
    pub(crate) fn clear(&self) -> usize {
        self.idle.borrow_mut().drain(..).count()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Since when the oldest is idle.
    pub(crate) fn oldest(&self) -> Option<Tick> {
        self.idle.borrow().first().map(|connection| connection.idle_since)
    }

    /// Closes the oldest.
    pub(crate) fn close_oldest(&self) {
        let mut idle = self.idle.borrow_mut();
        if !idle.is_empty() {
            idle.remove(0);
        }
    }

    /// Another server is behind it now.
    pub(crate) fn forget_idle_time(&self) {
        self.time.set(IdleTime::default());
    }

    /// Closes those that were idle for longer than `timeout`, and those that the backend closed. What is kept for long
    /// keeps no buffer.
    pub(crate) fn purge(&self, now: Tick, timeout: Duration) {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return;
        }
        let (mut time, mut closed) = (self.time.get(), None);
        idle.retain(|connection| {
            let age = now.since(connection.idle_since);
            if !connection.is_quiet() {
                closed = closed.max(Some(connection.last_open));
                return false;
            }
            time.seen_open(connection.last_open, age);
            connection.last_open = age;
            if age > REST {
                connection.drop_buffers();
            }
            age < timeout
        });
        self.time.set(time);
        if let Some(last_open) = closed {
            self.found_closed(last_open);
        }
    }

    /// One or more were closed by the backend; of them, this was the longest idle when it was last seen open.
    pub(crate) fn found_closed(&self, last_open: Duration) {
        let mut time = self.time.get();
        time.found_closed(last_open);
        self.time.set(time);
    }

    /// The backend says after how long it closes.
    pub(crate) fn announced(&self, timeout: Duration) {
        let mut time = self.time.get();
        time.announce(timeout);
        self.time.set(time);
    }

    /// After how long idle the backend closes, as far as it was learned.
    pub(crate) fn learned(&self) -> Option<Duration> {
        self.time.get().learned()
    }
}
