//! When there is too much of everything: how near to its end a resource is, and when that begins and ends.
//!
//! Three levels with different ways up and down, so that what the measures themselves free does not end them at once
//! (and begin them again a moment later). The figures are Envoy's for its edge: shrink at 90 %, shed at 95 %.
//!
//! Pure: who measures and who acts is elsewhere.

/// How near the end is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is enough.
    #[default]
    Calm,
    /// What is kept for later is given back.
    Shrink,
    /// New work is refused at once.
    Shed,
}

/// From which share on, in hundredths, a level is entered.
pub const SHRINK_FROM: u64 = 90;
/// As [`SHRINK_FROM`].
pub const SHED_FROM: u64 = 95;
/// Below which share a level is left: 5 % is more than measuring and freeing in pieces make it swing.
const SHRINK_UNTIL: u64 = 85;
const SHED_UNTIL: u64 = 90;

/// What we must have of a shared limit, in hundredths, to refuse work for it, and to go on refusing. Twice the 5 % that
/// lie between shedding and the end: with less, even giving back half of it would not matter.
pub const OWN_FROM: u64 = 10;
const OWN_UNTIL: u64 = 8;

impl Level {
    /// All of them; a metric's labels.
    pub const ALL: [Self; 3] = [Self::Calm, Self::Shrink, Self::Shed];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Shrink => "shrink",
            Self::Shed => "shed",
        }
    }

    /// The level after `used` of `limit` was seen; a limit of 0 is none.
    #[must_use]
    pub fn next(self, used: u64, limit: u64) -> Self {
        if limit == 0 {
            return Self::Calm;
        }
        let hundredths = (u128::from(used) * 100 / u128::from(limit)) as u64;
        let shed = hundredths >= if self == Self::Shed { SHED_UNTIL } else { SHED_FROM };
        let shrink = hundredths >= if self == Self::Calm { SHRINK_FROM } else { SHRINK_UNTIL };
        match (shed, shrink) {
            (true, _) => Self::Shed,
            (false, true) => Self::Shrink,
            (false, false) => Self::Calm,
        }
    }

    /// The same where `limit` is shared with others and `own` is what we have of it: who has hardly anything cannot
    /// relieve anybody by refusing work, and only gives back what it keeps.
    #[must_use]
    pub fn among_others(self, before: Self, own: u64, limit: u64) -> Self {
        let hundredths = if before == Self::Shed { OWN_UNTIL } else { OWN_FROM };
        match self {
            Self::Shed if u128::from(own) * 100 < u128::from(limit) * u128::from(hundredths) => Self::Shrink,
            level => level,
        }
    }
}

/// Refusals in quick succession are one episode: one line when it begins, one when it is over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Episode {
    seen: u64,
    /// The count before it began, when it began, and when it grew last.
    open: Option<(u64, u64, u64)>,
}

/// What [`Episode::observe`] noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It begins.
    Began,
    /// Nothing was refused for a while.
    Ended {
        /// How many were refused in all.
        refused: u64,
        /// From the first to the last.
        lasted_ms: u64,
    },
}

/// Calm for so long ends an episode: longer than a client that obeys Retry-After stays away.
pub const QUIET_MS: u64 = 5000;

impl Episode {
    /// Takes in a counter, which only grows, and the time; [`QUIET_MS`] of calm end it.
    pub fn observe(&mut self, count: u64, now_ms: u64) -> Option<Change> {
        self.observe_until_quiet(count, now_ms, QUIET_MS)
    }

    /// The same; `quiet_ms` of calm end it.
    pub fn observe_until_quiet(&mut self, count: u64, now_ms: u64, quiet_ms: u64) -> Option<Change> {
        let before = std::mem::replace(&mut self.seen, count);
        match &mut self.open {
            Some((_, _, last_ms)) if count > before => *last_ms = now_ms,
            Some((first, since_ms, last_ms)) if now_ms.saturating_sub(*last_ms) >= quiet_ms => {
                let ended = Change::Ended { refused: count - *first, lasted_ms: *last_ms - *since_ms };
                self.open = None;
                return Some(ended);
            }
            Some(_) => {}
            None if count > before => {
                self.open = Some((before, now_ms, now_ms));
                return Some(Change::Began);
            }
            None => {}
        }
        None
    }

    /// Whether one is under way.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_level_is_left_below_where_it_was_entered() {
        let mut level = Level::Calm;
        let mut at = |used| {
            level = level.next(used, 100);
            level
        };
        assert_eq!([at(89), at(90), at(94)], [Level::Calm, Level::Shrink, Level::Shrink]);
        assert_eq!([at(95), at(94), at(90)], [Level::Shed; 3]);
        assert_eq!([at(89), at(85), at(84), at(89)], [Level::Shrink, Level::Shrink, Level::Calm, Level::Calm]);
        assert_eq!([at(100), at(10)], [Level::Shed, Level::Calm]);
    }

    #[test]
    fn who_has_little_of_a_shared_limit_never_sheds_for_it_and_does_not_flutter() {
        use Level::{Calm, Shed, Shrink};
        let level = |before: Level, own| before.next(99, 100).among_others(before, own, 100);
        assert_eq!([level(Calm, 9), level(Calm, 10), level(Shrink, 9)], [Shrink, Shed, Shrink]);
        assert_eq!([level(Shed, 9), level(Shed, 8), level(Shed, 7)], [Shed, Shed, Shrink]);
        assert_eq!([Calm.among_others(Shed, 0, 100), Shrink.among_others(Shed, 0, 100)], [Calm, Shrink]);
    }

    #[test]
    fn without_a_limit_there_is_always_enough() {
        assert_eq!(Level::Shed.next(u64::MAX, 0), Level::Calm);
        assert_eq!(Level::Calm.next(u64::MAX, 1), Level::Shed);
    }

    #[test]
    fn an_episode_begins_once_and_ends_when_it_has_been_quiet() {
        let mut episode = Episode::default();
        assert_eq!(episode.observe(0, 0), None);
        assert_eq!(episode.observe(3, 1000), Some(Change::Began));
        assert_eq!(episode.observe(9, 3000), None);
        assert_eq!(episode.observe(9, 7999), None);
        assert_eq!(episode.observe(9, 8000), Some(Change::Ended { refused: 9, lasted_ms: 2000 }));
        assert_eq!(episode.observe(9, 20_000), None);
        assert_eq!(episode.observe(10, 21_000), Some(Change::Began));
        assert_eq!(episode.observe_until_quiet(10, 29_000, 9000), None);
        assert!(episode.observe_until_quiet(10, 30_000, 9000).is_some());
    }

    proptest! {
        #[test]
        fn small_swings_never_make_a_level_flutter(start in 0..120_u64, swings in prop::collection::vec(0..5_u64, 1..100)) {
            // Whatever happens within a band of 5 %, there are at most two changes: in, and further in.
            let (mut level, mut changes) = (Level::Calm.next(start, 100), 0);
            for swing in swings {
                let next = level.next(start + swing, 100);
                changes += u32::from(next != level);
                level = next;
            }
            prop_assert!(changes <= 2, "{changes}");
        }
    }
}
