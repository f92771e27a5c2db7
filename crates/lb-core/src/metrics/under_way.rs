//! What one worker has under way at one backend, by kind: not counted with each request, but looked at now and then by
//! the worker's sweep, so that it costs a request nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::api::InFlight;

/// A response body that has run for so long is a stream: nearly all pages are through by then, and what is not will
/// hardly be in the next moment.
pub const STREAM_AFTER: Duration = Duration::from_secs(10);

/// What a request under way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    /// A response body that has run for [`STREAM_AFTER`], or an event stream.
    Stream,
    /// It has switched protocols.
    Tunnel,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Request, Self::Stream, Self::Tunnel];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Stream => "stream",
            Self::Tunnel => "tunnel",
        }
    }
}

/// What one look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    streams: u64,
    tunnels: u64,
    oldest: Duration,
}

impl Look {
    /// Adds one that has been under way for `age`.
    pub fn add(&mut self, kind: Kind, age: Duration) {
        match kind {
            // What is neither stream nor tunnel comes out of the exact sum.
            Kind::Request => {}
            Kind::Stream => self.streams += 1,
            Kind::Tunnel => self.tunnels += 1,
        }
        self.oldest = self.oldest.max(age);
    }
}

/// The last look of one worker at one backend. Written by that worker only, relaxed: each number stands for itself.
#[derive(Debug, Default)]
pub struct UnderWay {
    streams: AtomicU64,
    tunnels: AtomicU64,
    oldest_ms: AtomicU64,
}

impl UnderWay {
    /// Shows what a look found.
    pub fn show(&self, look: Look) {
        self.streams.store(look.streams, Ordering::Relaxed);
        self.tunnels.store(look.tunnels, Ordering::Relaxed);
        self.oldest_ms.store(u64::try_from(look.oldest.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// The looks of all workers against the exact count of now, which is what decides: of kinds that the looks saw, those
/// that are gone since are left out.
pub(crate) fn by_kind<'a>(in_flight: u64, looks: impl Iterator<Item = &'a UnderWay>) -> InFlight {
    let (mut streams, mut tunnels, mut oldest_ms) = (0, 0, 0);
    for look in looks {
        streams += look.streams.load(Ordering::Relaxed);
        tunnels += look.tunnels.load(Ordering::Relaxed);
        oldest_ms = oldest_ms.max(look.oldest_ms.load(Ordering::Relaxed));
    }
    let tunnels = tunnels.min(in_flight);
    let streams = streams.min(in_flight - tunnels);
    let oldest_ms = (in_flight > 0 && oldest_ms > 0).then_some(oldest_ms);
    InFlight { requests: in_flight - tunnels - streams, streams, tunnels, oldest_ms }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_oldest_of_all_workers_counts_and_nothing_has_no_age() {
        let looks = [UnderWay::default(), UnderWay::default()];
        let (mut first, mut second) = (Look::default(), Look::default());
        first.add(Kind::Stream, Duration::from_secs(30));
        first.add(Kind::Request, Duration::from_secs(1));
        second.add(Kind::Tunnel, Duration::from_secs(70));
        looks[0].show(first);
        looks[1].show(second);
        let found = by_kind(3, looks.iter());
        assert_eq!(found, InFlight { requests: 1, streams: 1, tunnels: 1, oldest_ms: Some(70_000) });
        assert_eq!(by_kind(0, looks.iter()), InFlight::default());
    }

    proptest! {
        #[test]
        fn kinds_add_up_to_the_exact_count_however_old_the_looks_are(
            in_flight in 0..20_u64,
            seen in proptest::collection::vec((0..3_usize, 0..100_u64), 0..20),
        ) {
            let (under_way, mut look) = (UnderWay::default(), Look::default());
            for (kind, secs) in &seen {
                look.add(Kind::ALL[*kind], Duration::from_secs(*secs));
            }
            under_way.show(look);
            let found = by_kind(in_flight, std::iter::once(&under_way));
            prop_assert_eq!(found.total(), in_flight);
            let count = |kind| seen.iter().filter(|(seen, _)| Kind::ALL[*seen] == kind).count() as u64;
            prop_assert!(found.streams <= count(Kind::Stream) && found.tunnels <= count(Kind::Tunnel));
            if in_flight >= seen.len() as u64 {
                prop_assert_eq!((found.streams, found.tunnels), (count(Kind::Stream), count(Kind::Tunnel)));
            }
        }
    }
}
