//! What is decided for single requests is told by the episode: a line when refusals of one kind begin, one when there
//! have been none for a while. Counters come in, lines go to the event list; nothing is decided here.

use lb_core::api::EventKind;
use lb_core::metrics::{EndedEarly, LocalReply, WorkerTotals};
use lb_core::overload::{Change, Episode, QUIET_MS};

use super::board::Board;
use super::{pressure, unix_ms};
use crate::listen::Pause;
use crate::worker::Shared;

/// What is told of, in the order of [`Watch::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Queueing,
    QueueFull,
    Connections,
    Rate,
    Repeats,
    Withheld,
    Deadlines,
    Means,
    Paused,
    PausedForMeans,
    MadeRoom,
}

impl Watch {
    const ALL: [Self; 11] = [
        Self::Queueing,
        Self::QueueFull,
        Self::Connections,
        Self::Rate,
        Self::Repeats,
        Self::Withheld,
        Self::Deadlines,
        Self::Means,
        Self::Paused,
        Self::PausedForMeans,
        Self::MadeRoom,
    ];

    /// What there is too much of, what follows, and what is counted; nothing is where a count would say nothing.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Queueing => ("the limits of a pool are reached", "requests wait for a place", "waited"),
            Self::QueueFull => ("the pool is full", "requests that wait in vain are answered 503", "refused"),
            Self::Connections => {
                ("pool.max_connections is reached", "requests that wait for one in vain are answered 503", "refused")
            }
            Self::Rate => ("clients ask too often", "those are answered 429", "refused"),
            Self::Repeats => ("the budget of repeats is used up", "failed requests are not sent again", "not repeated"),
            Self::Withheld => (
                "backends fail that cannot be left out",
                "too few others are left, so they stay in",
                "ejections withheld",
            ),
            Self::Deadlines => ("requests pass their deadline", "they are answered 504, or cut", "ended"),
            Self::Means => ("descriptors, ports or memory are used up", "requests are answered 503", "refused"),
            Self::Paused => ("limits.connections are open", "accepting pauses, clients wait", ""),
            Self::MadeRoom => (
                "clients wait while limits.connections are open",
                "idle ones are closed for them, the soonest to end first",
                "closed",
            ),
            Self::PausedForMeans => ("no descriptor is left for clients", "accepting pauses, clients wait", ""),
        }
    }

    /// After how much calm it is over. What is no refusal may come now and then for hours, at the pace of single clients
    /// or of the intervals of outlier detection, and must not fill the event list with beginnings and ends.
    const fn quiet_ms(self) -> u64 {
        match self {
            Self::QueueFull | Self::Connections | Self::Rate => QUIET_MS,
            _ => 60_000,
        }
    }

    const fn kind(self) -> EventKind {
        match self {
            Self::Withheld => EventKind::Ejection,
            _ => EventKind::Overload,
        }
    }
}

/// All of them, as of the last look.
#[derive(Debug, Default)]
pub(super) struct Episodes {
    episodes: [Episode; Watch::ALL.len()],
    /// Looks that found accepting paused, by [`Pause`]: one pause may last for longer than an episode's silence.
    paused: [u64; Pause::ALL.len()],
}

impl Episodes {
    /// Looks at all counters.
    pub(super) fn look(&mut self, shared: &Shared, board: &mut Board, totals: &WorkerTotals, now_ms: u64) {
        // A pause between two looks shows in the count of them, one that lasts in that of looks.
        let mut pauses = [0; Pause::ALL.len()];
        for ((looks, sum), pause) in self.paused.iter_mut().zip(&mut pauses).zip(Pause::ALL) {
            let (begun, now) = shared.admission.paused(pause);
            *looks += u64::from(now);
            *sum = begun + *looks;
        }
        let counts = counts(board, totals, pauses);
        self.observe(board, counts, now_ms);
    }

    fn observe(&mut self, board: &mut Board, counts: [u64; Watch::ALL.len()], now_ms: u64) {
        for ((watch, episode), count) in Watch::ALL.into_iter().zip(&mut self.episodes).zip(counts) {
            let (what, follows, counted) = watch.words();
            let message = match episode.observe_until_quiet(count, now_ms, watch.quiet_ms()) {
                Some(Change::Began) => format!("{what}: {follows}"),
                Some(Change::Ended { lasted_ms, .. }) if counted.is_empty() => {
                    format!("{what}: over after {:.1} s", lasted_ms as f64 / 1000.0)
                }
                Some(Change::Ended { refused, lasted_ms }) => {
                    format!("{what}: over; {refused} {counted} in {:.1} s", lasted_ms as f64 / 1000.0)
                }
                None => continue,
            };
            board.event(unix_ms(), watch.kind(), None, message);
        }
    }
}

fn counts(board: &Board, totals: &WorkerTotals, pauses: [u64; Pause::ALL.len()]) -> [u64; Watch::ALL.len()] {
    let replies = |reply: LocalReply| totals.local_replies[reply as usize];
    Watch::ALL.map(|watch| match watch {
        Watch::Queueing => board.pools.iter().filter_map(|pool| Some(pool.gate.as_ref()?.queue.joined())).sum(),
        Watch::QueueFull => pressure::refused(totals),
        Watch::Connections => replies(LocalReply::ConnectionLimit),
        Watch::Rate => replies(LocalReply::RateLimited),
        Watch::Repeats => totals.retries_refused.iter().sum(),
        Watch::Withheld => board.pools.iter().map(|pool| pool.rotation.withheld()).sum(),
        Watch::Deadlines => replies(LocalReply::Deadline) + totals.cut_overdue,
        Watch::Means => replies(LocalReply::OutOfMeans),
        Watch::Paused => pauses[Pause::Connections as usize],
        Watch::PausedForMeans => pauses[Pause::Descriptors as usize],
        Watch::MadeRoom => totals.ended_early[EndedEarly::Connections as usize],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::board::tests::board;

    fn told(board: &Board) -> Vec<(EventKind, &str)> {
        board.events.iter().map(|event| (event.kind, event.message.as_str())).collect()
    }

    #[tokio::test]
    async fn each_kind_of_decision_is_told_of_when_it_begins_and_when_it_is_over() {
        for watch in Watch::ALL {
            let (mut board, _) = board(&[]);
            let mut episodes = Episodes::default();
            let counts = |count: u64| {
                let mut counts = [0; Watch::ALL.len()];
                counts[watch as usize] = count;
                counts
            };
            let before = board.events.len();
            for (count, now_ms) in [(0, 0), (3, 1000), (9, 2000), (9, 4000), (9, 90_000), (9, 200_000)] {
                episodes.observe(&mut board, counts(count), now_ms);
            }
            let told = &told(&board)[before..];
            let [(began, first), (ended, last)] = told else { panic!("{watch:?}: {told:?}") };
            assert_eq!((*began, *ended), (watch.kind(), watch.kind()));
            let (what, follows, _) = watch.words();
            assert_eq!(*first, format!("{what}: {follows}"));
            assert!(last.starts_with(what) && last.contains("over") && last.ends_with("1.0 s"), "{last}");
        }
    }

    #[tokio::test]
    async fn every_counter_is_looked_at() {
        let (mut board, _) = board(&["--max-requests", "1"]);
        let mut totals = WorkerTotals::default();
        for reply in [LocalReply::QueueFull, LocalReply::RateLimited, LocalReply::Deadline, LocalReply::OutOfMeans] {
            totals.local_replies[reply as usize] = 1;
        }
        totals.local_replies[LocalReply::ConnectionLimit as usize] = 7;
        totals.retries_refused = [1, 1];
        totals.cut_overdue = 1;
        totals.ended_early = [8, 9];
        // Two of three fail and may not both go.
        for at in 0..3 {
            board.take_suspect(lb_core::backend::BackendId(at), 10);
        }
        let gate = board.pools[0].gate.clone().unwrap();
        let _waits = gate.queue.join(false, 0, || lb_core::queue::Look::<()>::Nothing).unwrap();
        assert_eq!(counts(&board, &totals, [4, 5]), [1, 1, 7, 1, 2, 2, 2, 1, 4, 5, 8]);
    }
}
