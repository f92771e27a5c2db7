//! How long the current request, and the current try at a backend, may take. Whatever a connection waits for ends no
//! later than these: its one [`Deadline`](crate::deadline::Deadline) is set to the soonest.
//!
//! Written by the connection's own task. Without limits both are a moment that never comes, and cost a comparison.

use std::cell::Cell;
use std::time::Duration;

use crate::clock::Tick;

/// What has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// The time for the whole request.
    Request,
    /// The time for one try.
    Try,
}

/// The ends of both times.
#[derive(Debug)]
pub(crate) struct RequestTime {
    request: Cell<Tick>,
    one_try: Cell<Tick>,
}

impl Default for RequestTime {
    fn default() -> Self {
        Self { request: Cell::new(Tick::NEVER), one_try: Cell::new(Tick::NEVER) }
    }
}

impl RequestTime {
    /// The request may take until `until`, unless it may only take less.
    pub(crate) fn request_until(&self, until: Tick) {
        self.request.set(until.min(self.request.get()));
    }

    /// The try may take until `until`.
    pub(crate) fn try_until(&self, until: Tick) {
        self.one_try.set(until);
    }

    /// There is no try whose time counts.
    pub(crate) fn try_ends(&self) {
        self.one_try.set(Tick::NEVER);
    }

    /// The request is through.
    pub(crate) fn lift(&self) {
        self.request.set(Tick::NEVER);
        self.try_ends();
    }

    pub(super) fn at_most(&self, at: Tick) -> Tick {
        at.min(self.request.get()).min(self.one_try.get())
    }

    pub(super) fn overdue(&self, now: Tick) -> Option<Overdue> {
        if now >= self.request.get() {
            Some(Overdue::Request)
        } else if now >= self.one_try.get() {
            Some(Overdue::Try)
        } else {
            None
        }
    }

    pub(super) fn left(&self, now: Tick) -> Option<Duration> {
        let until = self.request.get();
        (until != Tick::NEVER).then(|| until.since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soonest_end_counts_and_that_of_the_request_is_told_first() {
        let (time, second) = (RequestTime::default(), Duration::from_secs(1));
        let at = |seconds: u32| Tick::default().plus(second * seconds);
        assert_eq!((time.at_most(at(9)), time.overdue(at(9)), time.left(at(9))), (at(9), None, None));
        time.request_until(at(5));
        time.request_until(at(7));
        time.try_until(at(2));
        assert_eq!((time.at_most(at(9)), time.at_most(at(1))), (at(2), at(1)));
        assert_eq!([1, 2, 5].map(|now| time.overdue(at(now))), [None, Some(Overdue::Try), Some(Overdue::Request)]);
        assert_eq!(time.left(at(1)), Some(second * 4));
        time.try_ends();
        assert_eq!((time.overdue(at(4)), time.at_most(at(9))), (None, at(5)));
        time.lift();
        assert_eq!((time.overdue(at(9)), time.left(at(9))), (None, None));
    }
}
