//! How many connections to backends are open, idle ones included, all workers together.
//!
//! They share the process's descriptors with clients. From nine tenths of their share on, connections that come free
//! are closed instead of kept and each worker's sweep closes what is idle, so that what is kept for later is never what
//! a request lacks. Only a limit that the operator asked for refuses, and not at once: a request waits for a place as
//! long as it may take to connect. Up to that limit connections are kept as ever; once a request waits, idle ones are
//! closed for it, the oldest first.
//!
//! What comes free while requests wait is given to one that waits in the same worker for the same backend, as it is: a
//! connection made anew for each request would cost more than the request, and leave a port in TIME_WAIT each time.
//! Those who wait elsewhere cannot use it and want its place, so only so many are handed over in a row: as many as may
//! be open, [`MOST_IN_A_ROW`] at most. Whoever is first in line waits for about one more response by that.
//!
//! Written by all workers, when a connection opens and when it closes; read by each request's end, relaxed.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;
use tokio::sync::Notify;

/// Handed over in a row while others wait elsewhere: few new connections, and little more to wait.
const MOST_IN_A_ROW: usize = 16;

/// The count and its limits.
#[derive(Debug)]
pub(crate) struct OpenConns {
    /// What the operator asked for; `usize::MAX` is nothing.
    most: usize,
    /// From here on none is kept idle: descriptors run out.
    crowded_from: usize,
    open: CachePadded<AtomicUsize>,
    /// Requests that wait for a place.
    wanted: AtomicUsize,
    freed: Notify,
    /// Connections handed over since the last place came free. A hint: a count that is lost costs a turn.
    handed: AtomicUsize,
    /// Times that a request had to wait, and those that it waited in vain.
    pub waited: AtomicU64,
    pub refused: AtomicU64,
}

/// A request's wish for a place. While there is one, whatever comes free is not kept idle.
#[derive(Debug)]
pub(crate) struct Wanted(Arc<OpenConns>);

/// One connection's part of the count; given back when dropped.
#[derive(Debug)]
pub(crate) struct Opened(Arc<OpenConns>);

impl OpenConns {
    /// With what the operator asked for, and what descriptors carry.
    pub(crate) fn new(asked: Option<usize>, carried: usize) -> Arc<Self> {
        Arc::new(Self {
            most: asked.unwrap_or(usize::MAX),
            crowded_from: (carried - carried / 10).max(1),
            open: CachePadded::default(),
            wanted: AtomicUsize::new(0),
            freed: Notify::new(),
            handed: AtomicUsize::new(0),
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

    /// Whether descriptors run out, so that none is kept idle.
    pub(crate) fn is_crowded(&self) -> bool {
        self.open() >= self.crowded_from
    }

    /// Requests that wait for a place.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Whether a connection that has come free stays in its worker although `wanted` wait, `here` of them for it.
    fn is_handed_over(&self, here: usize, wanted: usize) -> bool {
        let most = self.most.min(MOST_IN_A_ROW);
        here >= wanted || (here > 0 && self.handed.fetch_add(1, Ordering::Relaxed) < most)
    }

    /// A place, if there is one.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<Opened> {
        let add = |open| (open < self.most).then(|| open + 1);
        let entered = self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, add);
        entered.is_ok().then(|| Opened(Arc::clone(self)))
    }

    /// Announces that a place is wanted. Done before idle connections are closed for it, so that none comes free
    /// unnoticed in between.
    pub(crate) fn want(self: &Arc<Self>) -> Wanted {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        Wanted(Arc::clone(self))
    }
}

impl Wanted {
    /// Waits for a place; first come, first served, as far as nobody who comes just then is faster.
    ///
    /// # Race window
    /// A place that is given back between a failed [`OpenConns::enter`] and the wait is not missed: the wait is announced
    /// first and the count looked at after it, while a leaver counts first and looks for waiters after it.
    ///
    /// # Cancel safety
    /// Dropped, a wake-up that came meanwhile goes to another waiter.
    pub(crate) async fn place(&self) -> Opened {
        loop {
            let mut freed = pin!(self.0.freed.notified());
            // Registered before the look, so that two places freed in between wake two.
            freed.as_mut().enable();
            if let Some(opened) = self.0.enter() {
                return opened;
            }
            freed.await;
        }
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.wanted.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Opened {
    /// Whether, its exchange through, it is better closed than kept. `here` requests wait that could use it.
    pub(crate) fn is_better_closed(&self, here: usize) -> bool {
        match self.0.wanted() {
            0 => self.0.is_crowded(),
            wanted => !self.0.is_handed_over(here, wanted),
        }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        if self.0.wanted.load(Ordering::SeqCst) > 0 {
            self.0.handed.store(0, Ordering::Relaxed);
            self.0.freed.notify_one();
        }
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

    #[test]
    fn up_to_the_operators_limit_connections_are_kept() {
        let conns = OpenConns::new(Some(1), 1000);
        let place = conns.enter().unwrap();
        assert!(conns.enter().is_none() && !place.is_better_closed(0));
    }

    #[test]
    fn while_others_wait_elsewhere_connections_change_hands_only_so_often() {
        let conns = OpenConns::new(Some(3), 1000);
        let place = conns.enter().unwrap();
        let wishes: Vec<_> = (0..4).map(|_| conns.want()).collect();
        assert!(place.is_better_closed(0), "nobody here can use it");
        for _ in 0..100 {
            assert!(!place.is_better_closed(4), "all that wait can use it");
        }
        for _ in 0..5 {
            let handed = (0..10).take_while(|_| !place.is_better_closed(3)).count();
            assert_eq!(handed, 3, "as many as may be open");
            drop(conns.enter().unwrap());
        }
        drop(wishes);
        assert!(!place.is_better_closed(0));
    }

    #[tokio::test]
    async fn beyond_the_operators_limit_a_request_waits_until_a_connection_closes() {
        let conns = OpenConns::new(Some(1), 1000);
        let place = conns.enter().unwrap();
        assert!(conns.enter().is_none());
        let wanted = conns.want();
        let waiter = tokio::spawn(async move { wanted.place().await });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished() && place.is_better_closed(0));
        drop(place);
        let place = waiter.await.unwrap();
        assert_eq!(conns.open(), 1);
        drop(place);
        assert_eq!((conns.open(), conns.wanted()), (0, 0));
    }
}
