//! Time as the data plane sees it: one reading per poll of a connection, shared by everything that happens in that
//! poll. A reading costs some 25 ns; a request needs a start, an end and several deadlines, which come out of two.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// A moment, in nanoseconds since the process started, on all workers alike. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tick(u64);

impl Tick {
    /// After all others.
    pub(crate) const NEVER: Self = Self(u64::MAX);

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    pub(crate) fn as_ns(self) -> u64 {
        self.0
    }

    pub(crate) fn as_ms(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// A worker's clock.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Instant,
    now: Cell<Tick>,
}

impl Clock {
    /// A clock of its own.
    #[cfg(test)]
    pub(crate) fn new() -> Self {
        Self::since(Instant::now())
    }

    /// One whose ticks mean the same as those of others since `started`.
    pub(crate) fn since(started: Instant) -> Self {
        Self { started, now: Cell::default() }
    }

    /// Reads the real clock.
    pub(crate) fn read(&self) -> Tick {
        let now = Tick(u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX));
        self.now.set(now);
        now
    }

    /// The last reading.
    pub(crate) fn now(&self) -> Tick {
        self.now.get()
    }
}
