//! After how long a backend closes a connection that it has nothing to do on. Nobody tells: it is learned from when
//! connections were found closed, from how long others lived, and from `Keep-Alive: timeout=N`.
//!
//! What is sent on a connection just as it is being closed is lost, and must not be sent again unless it is idempotent.
//! A look at the socket shows a close that has arrived; against one that is on its way there is only distance:
//! [`IdleTime::safe_age`] stays well below what was learned. To believe in too short a time costs a new connection now
//! and then, in too long a time a request; so it goes down at once, and up only slowly.

use std::time::Duration;

/// Believed of a backend that nothing is known of: the shortest default among common servers (Gunicorn's 2 s; Node's,
/// Apache's and uvicorn's are 5 s, NGINX' 75 s).
const ASSUMED: Duration = Duration::from_secs(2);

/// So many connections must outlive what was learned, by far and with none closed meanwhile, before it is doubled: a
/// server that was restarted has closed young connections once, and that must be forgotten some time.
const WITNESSES: u32 = 32;

/// The time between two looks: what is learned below it says only that it is short.
const TOO_SHORT: Duration = Duration::from_millis(100);

/// How far they must outlive it beyond twice the time: two looks at the connections.
const BEYOND: Duration = Duration::from_millis(200);

/// What is known of one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IdleTime {
    announced: Option<Duration>,
    /// The least age at which a connection that was then closed had last been seen open.
    closed: Option<Duration>,
    /// The greatest age at which one was seen open.
    open: Duration,
    /// Connections that outlived `closed`, one after the other.
    witnesses: u32,
}

impl IdleTime {
    /// In one look at the connections some were found closed that had been open at the look before; `last_open` is the
    /// greatest age that one of them had then. The greatest: connections that became idle at different times and end
    /// together were ended by a restart, and their ages say nothing; of those that end for being idle it is the same.
    pub fn found_closed(&mut self, last_open: Duration) {
        if last_open <= self.doubled() {
            self.witnesses = 0;
        }
        self.closed = Some(self.closed.map_or(last_open, |closed| closed.min(last_open)));
    }

    /// A connection that was idle for `before` at the last look is idle for `now`, and open.
    pub fn seen_open(&mut self, before: Duration, now: Duration) {
        self.open = self.open.max(now);
        if self.closed.is_some() {
            let doubled = self.doubled();
            if before <= doubled && now > doubled {
                self.witnesses += 1;
            }
            if self.witnesses >= WITNESSES {
                (self.closed, self.witnesses) = (Some(doubled), 0);
            }
        }
    }

    /// The backend says so itself.
    pub fn announce(&mut self, timeout: Duration) {
        self.announced = Some(timeout);
    }

    /// After how long the backend closes, as far as it was learned.
    pub fn learned(&self) -> Option<Duration> {
        match (self.announced, self.closed) {
            (Some(announced), Some(closed)) => Some(announced.min(closed)),
            (announced, closed) => announced.or(closed),
        }
    }

    /// Up to this age, itself not included, a connection may be used for what must not be lost: half of what is believed.
    /// None is young enough at a backend that closes within `TOO_SHORT`.
    pub fn safe_age(&self) -> Duration {
        match self.learned().unwrap_or_else(|| self.open.max(ASSUMED)) {
            learned if learned < TOO_SHORT => Duration::ZERO,
            learned => learned / 2,
        }
    }

    fn doubled(&self) -> Duration {
        self.closed.unwrap_or_default() * 2 + BEYOND
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// A backend that closes after `closes_ms`, whose connections are looked at every 100 ms; each is idle for `ages_ms`
    /// and then used. Says the ages at which one was closed under a use that was thought safe.
    fn live(idle: &mut IdleTime, closes_ms: u64, ages_ms: &[u64]) -> Vec<u64> {
        let mut lost = Vec::new();
        for &age_ms in ages_ms {
            if ms(age_ms) <= idle.safe_age() && age_ms >= closes_ms {
                lost.push(age_ms);
            }
            for look_ms in (100..=age_ms).step_by(100) {
                if look_ms >= closes_ms {
                    idle.found_closed(ms(look_ms - 100));
                    break;
                }
                idle.seen_open(ms(look_ms - 100), ms(look_ms));
            }
        }
        lost
    }

    #[test]
    fn without_experience_a_young_connection_is_safe() {
        let mut idle = IdleTime::default();
        assert_eq!((idle.learned(), idle.safe_age()), (None, ms(1000)));
        idle.seen_open(ms(9_900), ms(10_000));
        assert_eq!((idle.learned(), idle.safe_age()), (None, ms(5000)), "one that lived for long shows that it can");
    }

    #[test]
    fn what_is_announced_bounds_what_was_seen() {
        let mut idle = IdleTime::default();
        idle.announce(ms(5000));
        assert_eq!((idle.learned(), idle.safe_age()), (Some(ms(5000)), ms(2500)));
        idle.seen_open(ms(0), ms(30_000));
        assert_eq!(idle.safe_age(), ms(2500));
        idle.found_closed(ms(2900));
        assert_eq!(idle.safe_age(), ms(1450));
    }

    #[test]
    fn a_restart_is_forgotten_when_enough_connections_have_outlived_it() {
        let mut idle = IdleTime::default();
        live(&mut idle, 5000, &[6000]);
        assert_eq!(idle.learned(), Some(ms(4900)));
        idle.found_closed(ms(0));
        assert_eq!(idle.safe_age(), ms(0), "nothing old is trusted for now");
        live(&mut idle, 5000, &[4000; 31]);
        assert_eq!(idle.learned(), Some(ms(0)));
        live(&mut idle, 5000, &[6000; 200]);
        let learned = idle.learned().unwrap();
        assert!((ms(2000)..=ms(4900)).contains(&learned), "{learned:?}");
    }

    proptest! {
        /// Whatever ages connections reach, once one was found closed no use that is thought safe meets a close.
        #[test]
        fn nothing_is_lost_at_a_steady_server(
            closes_ms in 1..20_000_u64,
            ages_ms in prop::collection::vec(0..30_000_u64, 1..100),
        ) {
            let mut idle = IdleTime::default();
            live(&mut idle, closes_ms, &[closes_ms.next_multiple_of(100) + 100]);
            prop_assert!(idle.learned().is_some_and(|learned| learned <= ms(closes_ms)));
            let lost = live(&mut idle, closes_ms, &ages_ms);
            prop_assert!(lost.is_empty(), "closes after {}, lost at {:?}", closes_ms, lost);
            // And no more is given away than two looks' worth.
            prop_assert!(idle.safe_age() + ms(100) >= ms(closes_ms / 2), "{:?}", idle);
        }

        /// A server that closes after some time between two: as long as short lives are seen now and then, the shortest
        /// counts.
        #[test]
        fn at_an_unsteady_server_the_shortest_life_counts(
            lives_ms in prop::collection::vec(500..5000_u64, 64..200),
        ) {
            let mut idle = IdleTime::default();
            let mut shortest = Duration::MAX;
            for closes_ms in lives_ms {
                live(&mut idle, closes_ms, &[closes_ms.next_multiple_of(100)]);
                shortest = shortest.min(ms(closes_ms));
                // One doubling may have come of a long run of long lives.
                prop_assert!(idle.safe_age() <= shortest * 2 + BEYOND, "{:?} after {:?}", idle, shortest);
            }
        }
    }
}
