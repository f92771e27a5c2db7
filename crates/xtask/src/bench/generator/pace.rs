//! When requests are due, and what their latencies were. Pure.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// At the beginning, requests are sent and not counted: the first ones of all connections leave together.
const SETTLE: Duration = Duration::from_millis(20);

/// How requests follow each other, and for how long they count.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Pace {
    /// `None` asks again as soon as there is an answer.
    per_s: Option<f64>,
    counted: Duration,
}

/// What came of a load.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::bench) struct Outcome {
    /// Every answer, also before they counted.
    pub(in crate::bench) answered: u64,
    /// Answered requests among those that counted.
    pub(in crate::bench) per_s: f64,
    /// Of those that counted in an open loop, from when each was due.
    pub(in crate::bench) latencies: Vec<Duration>,
    /// How late the sender itself was: below this, latencies say nothing.
    pub(in crate::bench) lateness: Vec<Duration>,
}

impl Pace {
    /// Each connection asks again at its answer.
    pub(in crate::bench) fn closed(counted: Duration) -> Self {
        Self { per_s: None, counted }
    }

    /// Requests leave at a fixed rate.
    ///
    /// # Errors
    /// When there is no such rate.
    pub(in crate::bench) fn open(per_s: f64, counted: Duration) -> Result<Self, String> {
        if !(per_s.is_finite() && per_s >= 1.0) {
            return Err(format!("{per_s} requests a second cannot be sent"));
        }
        Ok(Self { per_s: Some(per_s), counted })
    }

    pub(super) fn lasts(&self) -> Duration {
        SETTLE + self.counted
    }
}

/// A load being made.
pub(super) struct Book {
    pace: Pace,
    start: Instant,
    counted_from: Instant,
    /// Requests of the open loop, and how many have fallen due.
    total: u64,
    fallen_due: u64,
    /// Connections on which nothing is under way, longest idle first.
    idle: VecDeque<usize>,
    /// For each connection on which a request is under way, when that was due.
    due: Vec<Option<Instant>>,
    /// Requests that found no idle connection.
    waiting: VecDeque<Instant>,
    answered: u64,
    counted: u64,
    latencies: Vec<Duration>,
    lateness: Vec<Duration>,
}

impl Book {
    pub(super) fn new(pace: Pace, connections: usize, start: Instant) -> Self {
        let total = pace.per_s.map_or(0, |per_s| (pace.lasts().as_secs_f64() * per_s).round() as u64);
        let room = total as usize;
        Self {
            pace,
            start,
            counted_from: start + SETTLE,
            total,
            fallen_due: 0,
            idle: (0..connections).collect(),
            due: vec![None; connections],
            waiting: VecDeque::new(),
            answered: 0,
            counted: 0,
            latencies: Vec::with_capacity(room),
            lateness: Vec::with_capacity(room),
        }
    }

    /// A connection on which a request is to go out now, if one is due.
    pub(super) fn next(&mut self, now: Instant) -> Option<usize> {
        let Some(per_s) = self.pace.per_s else {
            if self.is_late(now) {
                return None;
            }
            let connection = self.idle.pop_front()?;
            self.due[connection] = Some(now);
            return Some(connection);
        };
        while self.fallen_due < self.total {
            let due = self.start + Duration::from_secs_f64(self.fallen_due as f64 / per_s);
            if now < due {
                break;
            }
            self.fallen_due += 1;
            if due >= self.counted_from {
                self.lateness.push(now - due);
            }
            self.waiting.push_back(due);
        }
        if self.waiting.is_empty() {
            return None;
        }
        let connection = self.idle.pop_front()?;
        self.due[connection] = self.waiting.pop_front();
        Some(connection)
    }

    /// The answer on `connection` is there.
    ///
    /// # Errors
    /// When nothing was asked there.
    pub(super) fn answered(&mut self, connection: usize, now: Instant) -> Result<(), String> {
        let due = self.due[connection].take().ok_or("an answer came that nobody had asked for")?;
        if due >= self.counted_from {
            self.counted += 1;
            if self.pace.per_s.is_some() {
                self.latencies.push(now.saturating_duration_since(due));
            }
        }
        self.answered += 1;
        self.idle.push_back(connection);
        Ok(())
    }

    /// Nothing is to be sent any more, and nothing is under way.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        match self.pace.per_s {
            None => self.is_late(now) && self.idle.len() == self.due.len(),
            Some(_) => self.answered == self.total,
        }
    }

    /// Its time is over.
    fn is_late(&self, now: Instant) -> bool {
        now >= self.start + self.pace.lasts()
    }

    /// What is missing, once it is too late for it.
    pub(super) fn missing(&self, now: Instant, spare: Duration) -> Option<String> {
        let late = now >= self.start + self.pace.lasts() + spare;
        late.then(|| match self.pace.per_s {
            None => format!("{} requests were not answered in time", self.due.len() - self.idle.len()),
            Some(_) => format!("only {} of {} requests were answered in time", self.answered, self.total),
        })
    }

    pub(super) fn close(self) -> Outcome {
        Outcome {
            answered: self.answered,
            per_s: self.counted as f64 / self.pace.counted.as_secs_f64(),
            latencies: self.latencies,
            lateness: self.lateness,
        }
    }
}

/// Nearest rank, in µs.
pub(in crate::bench) fn quantile_us(durations: &mut [Duration], share: f64) -> f64 {
    durations.sort_unstable();
    let rank = (durations.len() as f64 * share).ceil() as usize;
    durations.get(rank.saturating_sub(1)).map_or(0.0, |duration| duration.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let mut durations: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(quantile_us(&mut durations, 0.99), 198.0);
        assert_eq!(quantile_us(&mut durations, 0.5), 100.0);
        assert_eq!(quantile_us(&mut [], 0.99), 0.0);
    }

    #[test]
    fn a_request_waits_for_a_connection_and_its_clock_runs() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut book = Book::new(Pace::open(100.0, SECOND).unwrap(), 1, start);
        assert_eq!(book.next(at(200)), Some(0));
        assert_eq!(book.next(at(200)), None, "the connection is busy");
        book.answered(0, at(300)).unwrap();
        assert_eq!(book.next(at(300)), Some(0), "and the next has waited");
        assert_eq!(book.due[0], Some(at(10)), "since it was due");
        assert_eq!(book.lateness.len(), 29, "due from 20 to 300 ms");
        assert_eq!((book.latencies.len(), book.answered), (0, 1), "what was due before it counted does not count");
    }

    #[test]
    fn a_closed_loop_asks_again_at_once_and_ends_when_all_is_answered() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut book = Book::new(Pace::closed(SECOND), 2, start);
        assert_eq!((book.next(at(0)), book.next(at(0)), book.next(at(0))), (Some(0), Some(1), None));
        book.answered(1, at(600)).unwrap();
        assert_eq!(book.next(at(600)), Some(1));
        assert!(!book.is_over(at(1100)) && book.missing(at(1100), SECOND).is_none());
        assert!(book.missing(at(2100), SECOND).is_some_and(|missing| missing.starts_with("2 requests")));
        book.answered(1, at(1200)).unwrap();
        assert_eq!(book.next(at(1200)), None, "time is over");
        assert!(!book.is_over(at(1200)), "one is under way");
        book.answered(0, at(1300)).unwrap();
        assert!(book.is_over(at(1300)));
        assert!(book.answered(0, at(1300)).is_err(), "nobody had asked");
        let outcome = book.close();
        assert_eq!((outcome.answered, outcome.per_s), (3, 1.0), "what was asked before it counted is only answered");
    }
}
