//! The last results of one backend, and what they say in words: why it is up or down, since when, and what comes next.
//!
//! Bounded: [`RESULTS_KEPT`] results of some hundred bytes each. Written by the control task only.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use crate::api::{AdminState, CheckResult, CheckSource, Health, RESULTS_KEPT, ReasonCode};
use crate::health::{Failure, Outcome};

/// Longer words of a result are cut: they come from the system or from the backend.
const MOST_WORDS: usize = 300;

/// The last results, and how many there were of each kind.
#[derive(Clone, Debug, Default)]
pub struct History {
    results: VecDeque<CheckResult>,
    last_passed_unix_ms: Option<u64>,
    /// Of the last result that counts for its health: whether it passed, and its words.
    last: Option<(bool, String)>,
    failures: [u64; ReasonCode::CHECK_FAILURES.len()],
    not_tried: u64,
    took: Duration,
    timed: u64,
}

/// What else is known of a backend, to explain it with.
#[derive(Clone, Copy, Debug)]
pub struct Explained<'a> {
    pub admin: AdminState,
    pub health: Health,
    /// Why its health is what it is, in words.
    pub reason: &'a str,
    /// Of its health; in maintenance, of that.
    pub since_unix_ms: u64,
    /// Why it is ejected all the same.
    pub ejected: Option<&'a str>,
    pub next_unix_ms: Option<u64>,
    /// Results in a row that say the same as the last one.
    pub streak: u32,
    /// How many in a row would change its health.
    pub needed: u32,
}

impl History {
    /// Takes in what a check found, after its whole time.
    pub fn checked(&mut self, unix_ms: u64, took: Duration, outcome: &Outcome) {
        let (class, words) = match outcome {
            // Says nothing about the backend, so it is no result of it.
            Outcome::NotTried(_) => return self.not_tried += 1,
            Outcome::Passed(pass) => (None, pass.to_string()),
            Outcome::Failed(failure) => {
                if let Some(at) = ReasonCode::CHECK_FAILURES.iter().position(|class| *class == failure.code) {
                    self.failures[at] += 1;
                }
                (Some(failure.code), failure.in_full())
            }
        };
        self.took += took;
        self.timed += 1;
        let took_ms = Some((took.as_secs_f64() * 1e6).round() / 1e3);
        self.push(CheckResult { unix_ms, source: CheckSource::Check, passed: class.is_none(), class, took_ms, words });
    }

    /// Takes in a failure of live traffic that counted as a failed check does.
    pub fn live_failure(&mut self, unix_ms: u64, failure: &Failure) {
        let (class, words) = (Some(failure.code), failure.in_full());
        self.push(CheckResult { unix_ms, source: CheckSource::Traffic, passed: false, class, took_ms: None, words });
    }

    /// Takes in a failure of live traffic that does not count as a failed check does. Of several in a row only the last
    /// is kept: a request may fail at any rate, and must not drive the checks out.
    pub fn live_failure_beside(&mut self, unix_ms: u64, failure: &Failure) {
        if self.results.back().is_some_and(|last| last.source == CheckSource::Traffic) {
            self.results.pop_back();
        }
        let last = self.last.take();
        self.live_failure(unix_ms, failure);
        self.last = last;
    }

    fn push(&mut self, mut result: CheckResult) {
        if result.words.len() > MOST_WORDS {
            let end = (0..=MOST_WORDS).rev().find(|end| result.words.is_char_boundary(*end)).unwrap_or_default();
            result.words.truncate(end);
            result.words.push('…');
        }
        if result.passed {
            self.last_passed_unix_ms = Some(result.unix_ms);
        }
        self.last = Some((result.passed, result.words.clone()));
        if self.results.len() == RESULTS_KEPT {
            self.results.pop_front();
        }
        self.results.push_back(result);
    }

    /// Oldest first.
    pub fn results(&self) -> impl Iterator<Item = &CheckResult> {
        self.results.iter()
    }

    /// When a check last passed, however long ago.
    pub fn last_passed_unix_ms(&self) -> Option<u64> {
        self.last_passed_unix_ms
    }

    /// Failed checks by class.
    pub fn failures(&self) -> impl Iterator<Item = (ReasonCode, u64)> {
        ReasonCode::CHECK_FAILURES.into_iter().zip(self.failures)
    }

    /// Checks that could not be made, for want of means of our own.
    pub fn not_tried(&self) -> u64 {
        self.not_tried
    }

    /// The time of all checks, and how many there were.
    pub fn time_spent(&self) -> (Duration, u64) {
        (self.took, self.timed)
    }

    /// Why it is as it is, since when, and what comes next: one line.
    pub fn explain(&self, now_ms: u64, known: &Explained<'_>) -> String {
        let lasts = span(now_ms.saturating_sub(known.since_unix_ms));
        if known.admin == AdminState::Maintenance {
            return format!("in maintenance for {lasts}: it is not checked until an operator says ready or drain");
        }
        let mut words = match known.admin {
            AdminState::Drain => "draining; ".to_owned(),
            _ => String::new(),
        };
        if let Some(why) = known.ejected {
            // Checks do not see what it is ejected for.
            let _ = write!(words, "ejected: {why}; by its checks ");
        }
        self.put_health(&mut words, now_ms, known, &lasts);
        match known.next_unix_ms {
            Some(next) if next > now_ms => {
                let _ = write!(words, "; the next check is in {}", span(next - now_ms));
            }
            Some(_) => words.push_str("; the next check is due now"),
            None => words.push_str("; checks are paused"),
        }
        words
    }

    fn put_health(&self, words: &mut String, now_ms: u64, known: &Explained<'_>, lasts: &str) {
        let Explained { reason, streak, needed, .. } = known;
        let last = self.last.as_ref();
        let lasts = format!(" for {lasts}");
        let _ = match (known.health, last) {
            (Health::Unknown, _) | (_, None) => write!(words, "not checked yet: the first result decides at once"),
            (Health::Up, Some((true, _))) => write!(words, "up{lasts}: {last}", last = passes(*streak)),
            (Health::Up, Some((false, said))) => {
                write!(words, "up{lasts}, but {streak} of {needed} failures in a row that take it down: {said}")
            }
            (Health::Down, Some((true, _))) => {
                write!(words, "down{lasts}: {reason}; {streak} of {needed} passes in a row that bring it back")
            }
            (Health::Down, Some((false, _))) => {
                let _ = write!(words, "down{lasts}: {reason} ({streak} failed in a row); ");
                let _ = match self.last_passed_unix_ms {
                    Some(passed) => write!(words, "the last pass was {} ago; ", span(now_ms.saturating_sub(passed))),
                    None => write!(words, "none has ever passed; "),
                };
                write!(words, "{} it back", brings(*needed))
            }
        };
    }
}

fn passes(streak: u32) -> String {
    match streak {
        1 => "the last check passed".to_owned(),
        many => format!("the last {many} checks passed"),
    }
}

fn brings(needed: u32) -> String {
    match needed {
        1 => "one pass brings".to_owned(),
        many => format!("{many} passes in a row bring"),
    }
}

/// How long something lasts, for a person: its two largest units.
pub(crate) fn span(ms: u64) -> String {
    let secs = Duration::from_millis(ms).as_secs();
    match secs {
        0 => format!("{ms} ms"),
        1..60 => format!("{secs} s"),
        60..3600 => format!("{} min {} s", secs / 60, secs % 60),
        3600..172_800 => format!("{} h {} min", secs / 3600, secs % 3600 / 60),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::health::Pass;

    fn passed() -> Outcome {
        Outcome::Passed(Pass { took: Duration::from_millis(2), status: Some(200) })
    }

    fn failed(code: ReasonCode, words: &str) -> Outcome {
        Outcome::Failed(Failure::new(code, words))
    }

    const KNOWN: Explained<'_> = Explained {
        admin: AdminState::Ready,
        health: Health::Down,
        reason: "status 503 instead of 200-299",
        since_unix_ms: 100_000,
        ejected: None,
        next_unix_ms: Some(115_000),
        streak: 5,
        needed: 2,
    };

    fn explained(history: &History, known: Explained<'_>) -> String {
        history.explain(112_000, &known)
    }

    #[test]
    fn it_says_why_a_backend_is_down_since_when_and_when_the_next_try_is() {
        let mut history = History::default();
        history.checked(95_000, Duration::from_millis(2), &passed());
        history.checked(111_000, Duration::from_millis(3), &failed(ReasonCode::WrongStatus, "status 503"));
        assert_eq!(
            explained(&history, KNOWN),
            "down for 12 s: status 503 instead of 200-299 (5 failed in a row); the last pass was 17 s ago; 2 passes in \
             a row bring it back; the next check is in 3 s"
        );
        history.checked(111_500, Duration::from_millis(3), &passed());
        let words = explained(&history, Explained { streak: 1, ..KNOWN });
        assert!(words.contains("1 of 2 passes in a row that bring it back"), "{words}");
    }

    #[test]
    fn it_says_what_is_about_to_happen_to_one_that_is_up() {
        let mut history = History::default();
        let up = Explained { health: Health::Up, streak: 7, needed: 3, next_unix_ms: Some(1), ..KNOWN };
        assert!(explained(&history, Explained { health: Health::Unknown, ..up }).starts_with("not checked yet"));
        history.checked(111_000, Duration::ZERO, &passed());
        assert_eq!(explained(&history, up), "up for 12 s: the last 7 checks passed; the next check is due now");
        history.live_failure(111_000, &Failure::new(ReasonCode::Reset, "reset by the peer"));
        let words = explained(&history, Explained { streak: 1, ..up });
        assert!(words.contains("1 of 3 failures in a row that take it down: reset by the peer"), "{words}");
        let words = explained(&history, Explained { admin: AdminState::Maintenance, next_unix_ms: None, ..up });
        assert!(words.contains("in maintenance for 12 s: it is not checked"), "{words}");
        let words = explained(&history, Explained { admin: AdminState::Drain, ..up });
        assert!(words.starts_with("draining; up for 12 s, but 7 of 3"), "{words}");
        let why = Some("5 errors in a row; back in 7 s (1st time)");
        let words = explained(&history, Explained { ejected: why, ..up });
        assert!(
            words.starts_with("ejected: 5 errors in a row; back in 7 s (1st time); by its checks up for"),
            "{words}"
        );
    }

    #[test]
    fn failures_of_traffic_that_do_not_count_are_shown_once_and_change_no_explanation() {
        let mut history = History::default();
        let up = Explained { health: Health::Up, streak: 7, needed: 3, ..KNOWN };
        for at in 0..40 {
            history.checked(at, Duration::ZERO, &passed());
        }
        let before = explained(&history, up);
        let refused = Failure::new(ReasonCode::ConnectionRefused, "connection refused");
        for at in 100..200 {
            history.live_failure_beside(at, &refused);
        }
        assert_eq!(explained(&history, up), before);
        let live: Vec<_> = history.results().filter(|row| row.source == CheckSource::Traffic).collect();
        assert_eq!((live.len(), live[0].unix_ms, history.results().count()), (1, 199, RESULTS_KEPT));
    }

    #[test]
    fn what_could_not_be_tried_is_no_result() {
        let mut history = History::default();
        history.checked(1, Duration::ZERO, &Outcome::NotTried("no descriptor".to_owned()));
        assert_eq!((history.results().count(), history.not_tried(), history.time_spent().1), (0, 1, 0));
    }

    #[test]
    fn spans_have_two_units_at_most() {
        for (ms, words) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1 s"),
            (61_000, "1 min 1 s"),
            (7_260_000, "2 h 1 min"),
            (172_800_000, "2 days"),
        ] {
            assert_eq!(span(ms), words);
        }
    }

    proptest! {
        #[test]
        fn only_the_last_results_are_kept_and_all_are_counted(
            results in proptest::collection::vec(proptest::option::of(0..ReasonCode::CHECK_FAILURES.len()), 0..100),
            length in 0..2000_usize,
        ) {
            let mut history = History::default();
            for (at, class) in results.iter().enumerate() {
                let outcome = match class {
                    None => passed(),
                    Some(class) => failed(ReasonCode::CHECK_FAILURES[*class], &"ü".repeat(length)),
                };
                history.checked(at as u64, Duration::from_millis(1), &outcome);
            }
            let kept: Vec<_> = history.results().collect();
            prop_assert_eq!(kept.len(), results.len().min(RESULTS_KEPT));
            for (row, (at, class)) in kept.iter().rev().zip(results.iter().enumerate().rev()) {
                prop_assert_eq!(row.unix_ms, at as u64);
                prop_assert_eq!(row.class, class.map(|class| ReasonCode::CHECK_FAILURES[class]));
                prop_assert!(row.words.len() <= MOST_WORDS + '…'.len_utf8());
            }
            let failures: u64 = history.failures().map(|(_, count)| count).sum();
            prop_assert_eq!(failures, results.iter().flatten().count() as u64);
            prop_assert_eq!(history.time_spent(), (Duration::from_millis(results.len() as u64), results.len() as u64));
        }
    }
}
