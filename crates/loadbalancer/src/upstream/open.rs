//! How many connections to backends are open, idle ones included, all workers together.
//!
//! They share the process's descriptors with clients. From nine tenths of their share on, connections that come free
//! are closed instead of kept and each worker's sweep closes what is idle, so that what is kept for later is never what
//! a request lacks. Only a limit that the operator asked for refuses, and not at once: a request waits for a place as
//! long as it may take to connect.
//!
//! Written by all workers, when a connection opens and when it closes; read by each request's end, relaxed.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

/// The count and its limits.
#[derive(Debug)]
pub(crate) struct OpenConns {
    /// What the operator asked for; `usize::MAX` is nothing.
    most: usize,
    /// From here on none is kept idle.
    crowded_from: usize,
    open: CachePadded<AtomicUsize>,
    /// Requests that wait for a place.
    wanted: AtomicUsize,
    freed: Notify,
    /// Times that a request had to wait, and those that it waited in vain.
    pub waited: AtomicU64,
    pub refused: AtomicU64,
}

/// One connection's part of the count; given back when dropped.
#[derive(Debug)]
pub(crate) struct Opened(Arc<OpenConns>);

impl OpenConns {
    /// With what the operator asked for, and what descriptors carry.
    pub(crate) fn new(asked: Option<usize>, carried: usize) -> Arc<Self> {
        let most = asked.unwrap_or(usize::MAX);
        let share = most.min(carried);
        Arc::new(Self {
            most,
            crowded_from: (share - share / 10).max(1),
            open: CachePadded::default(),
            wanted: AtomicUsize::new(0),
            freed: Notify::new(),
            waited: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// The operator's limit, if there is one.
    pub(crate) fn most(&self) -> Option<usize> {
        (self.most < usize::MAX).then_some(self.most)
    }

    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Whether idle connections are to be closed.
    pub(crate) fn is_crowded(&self) -> bool {
        self.open() >= self.crowded_from || self.wanted.load(Ordering::Relaxed) > 0
    }

    /// A place, if there is one.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Opened> {
        let add = |open| (open < self.most).then(|| open + 1);
        let entered = self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        entered.is_ok().then(|| Opened(Arc::clone(self)))
    }

    /// Waits for a place; first come, first served, as far as nobody who comes just then is faster.
    ///
    /// # Race window
    /// A place that is given back between a failed [`Self::enter`] and the wait is not missed: the wait is announced
    /// first and the count looked at after it, while a leaver counts first and looks for waiters after it.
    ///
    /// # Cancel safety
    /// Dropped, nobody is counted as waiting; a wake-up that came meanwhile goes to another waiter.
    pub(crate) async fn place(self: &Arc<Self>) -> Opened {
        let _wanted = Wanted::new(&self.wanted);
        loop {
            let mut freed = pin!(self.freed.notified());
            // Registered before the look, so that two places freed in between wake two.
            freed.as_mut().enable();
            if let Some(opened) = self.enter() {
                return opened;
            }
            freed.await;
        }
    }
}

impl Opened {
    /// Whether it would be better closed than kept.
    pub(crate) fn is_in_a_crowd(&self) -> bool {
        self.0.is_crowded()
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        if self.0.wanted.load(Ordering::SeqCst) > 0 {
            self.0.freed.notify_one();
        }
    }
}

struct Wanted<'a>(&'a AtomicUsize);

impl<'a> Wanted<'a> {
    fn new(wanted: &'a AtomicUsize) -> Self {
        wanted.fetch_add(1, Ordering::SeqCst);
        Self(wanted)
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_ones_go_before_anybody_is_refused() {
        let conns = OpenConns::new(None, 10);
        let mut places: Vec<_> = (0..8).map_while(|_| conns.enter()).collect();
        assert!(!conns.is_crowded());
        places.extend((0..8).map_while(|_| conns.enter()));
        assert!(conns.is_crowded() && conns.open() == 16, "what descriptors carry is not refused here");
        places.clear();
        assert!(!conns.is_crowded() && conns.open() == 0);
    }

    #[tokio::test]
    async fn beyond_the_operators_limit_a_request_waits_until_a_connection_closes() {
        let conns = OpenConns::new(Some(1), 1000);
        let place = conns.enter().unwrap();
        assert!(conns.enter().is_none());
        let waiter = Arc::clone(&conns);
        let waiter = tokio::spawn(async move { waiter.place().await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished() && conns.is_crowded());
        drop(place);
        let place = waiter.await.unwrap();
        assert_eq!(conns.open(), 1);
        drop(place);
        assert_eq!((conns.open(), conns.wanted.load(Ordering::SeqCst)), (0, 0));
    }
}
