//! When a backend counts as up or down: rise, fall, and how soon to look again. No I/O and no clock: results and
//! randomness come in, a verdict and a delay come out.

use std::fmt;
use std::time::Duration;

use crate::api::{Health, ReasonCode};

/// How checks are made and judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HealthPolicy {
    /// Between checks of a backend whose state is settled.
    pub interval: Duration,
    /// Between checks while results disagree with the state, so that a change is decided soon.
    pub fast_interval: Duration,
    /// Between checks of a backend that is down for good.
    pub down_interval: Duration,
    /// A check that takes longer has failed; look-up, connection, request and answer together.
    pub timeout: Duration,
    /// How many passes in a row bring a backend up.
    pub rise: u32,
    /// How many failures in a row take a backend down.
    pub fall: u32,
    /// Each delay is stretched or shortened by up to this share (0 to 1), so that checks of many backends, by many
    /// balancers, do not march in step.
    pub jitter: f64,
}

/// One result, of a check or of live traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered as expected.
    Passed(Pass),
    /// It was not, and the backend (or the way to it) is why.
    Failed(Failure),
    /// It could not even be tried: we have no descriptor, port or memory left. Says nothing about the backend.
    NotTried(String),
}

/// How a check passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pass {
    /// From the start of the connection to the end of the answer.
    pub took: Duration,
    /// Of the answer; `None` where a connection is all that is asked for.
    pub status: Option<u16>,
}

impl fmt::Display for Pass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.took.as_secs_f64() * 1000.0;
        match self.status {
            None => write!(f, "connected in {ms:.1} ms"),
            Some(status) => write!(f, "status {status} in {ms:.1} ms"),
        }
    }
}

/// Why a check failed, or a connection of live traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// As one of a fixed set.
    pub code: ReasonCode,
    /// In words, which are the same whenever the same is wrong, and may be told to clients: `connection refused`.
    pub words: String,
    /// What goes on behind them and is only for who holds the admin token: how far it came, what the backend sent.
    pub seen: String,
}

/// Whether an error of `connect` is about our own means: EMFILE, ENFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL (no local port
/// is left), EAGAIN. A balancer that has run out must not hold its backends responsible and take them all down.
pub fn is_our_own(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    let known = matches!(error.kind(), ErrorKind::OutOfMemory | ErrorKind::AddrNotAvailable | ErrorKind::WouldBlock);
    // No stable `ErrorKind` for these; the numbers are those of Linux on every architecture we run on.
    known || matches!(error.raw_os_error(), Some(23 | 24 | 105))
}

impl Failure {
    /// With nothing behind its words.
    pub fn new(code: ReasonCode, words: impl Into<String>) -> Self {
        Self { code, words: words.into(), seen: String::new() }
    }

    /// All there is to say, for the operator.
    pub fn in_full(&self) -> String {
        format!("{}{}", self.words, self.seen)
    }

    /// Sorts an error of `connect` into the fixed set.
    pub fn of_connect(error: &std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::ConnectionRefused => Self::new(ReasonCode::ConnectionRefused, "connection refused"),
            ErrorKind::TimedOut => Self::new(ReasonCode::ConnectTimeout, "connect timed out"),
            _ => Self::new(ReasonCode::Unreachable, error.to_string()),
        }
    }

    /// No answer within `limit`.
    pub fn connect_timeout(limit: Duration) -> Self {
        Self::new(ReasonCode::ConnectTimeout, format!("no connection within {limit:?}"))
    }
}

/// What is known about one backend's health. Written by the control task only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthState {
    health: Health,
    /// Results in a row that say the same.
    streak: u32,
    last_passed: Option<bool>,
    was_up: bool,
    /// There was one result only.
    is_new: bool,
}

impl HealthState {
    /// The verdict.
    pub fn health(&self) -> Health {
        self.health
    }

    /// How many results in a row say the same as the last one.
    pub fn streak(&self) -> u32 {
        self.streak
    }

    /// Takes in one result and returns the new verdict if it changed. The first result decides at once.
    pub fn record(&mut self, policy: &HealthPolicy, passed: bool) -> Option<Health> {
        self.is_new = self.last_passed.is_none();
        self.streak = if self.last_passed == Some(passed) { self.streak.saturating_add(1) } else { 1 };
        self.last_passed = Some(passed);
        let verdict = match (self.health, passed) {
            (Health::Unknown, true) => Health::Up,
            (Health::Unknown, false) => Health::Down,
            (Health::Down, true) if self.streak >= policy.rise => Health::Up,
            (Health::Up, false) if self.streak >= policy.fall => Health::Down,
            (unchanged, _) => unchanged,
        };
        if verdict == self.health {
            return None;
        }
        self.health = verdict;
        self.was_up |= verdict == Health::Up;
        Some(verdict)
    }

    /// Forgets everything: the next result decides at once. For a backend that comes back from maintenance.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// How many results in a row would change (or have just made) the verdict.
    pub fn needed(&self, policy: &HealthPolicy) -> u32 {
        match self.health {
            Health::Unknown => 1,
            Health::Up => policy.fall,
            Health::Down => policy.rise,
        }
    }

    /// Whether a change is to be expected: results disagree with the verdict, or it has never been up, as when
    /// balancer and servers are started together.
    pub fn is_changing(&self) -> bool {
        match (self.health, self.last_passed) {
            (Health::Up, Some(false)) | (Health::Down, Some(true)) => true,
            (Health::Down, _) => !self.was_up,
            _ => false,
        }
    }

    /// How long to wait before the next check. `random` is uniform in 0..1.
    ///
    /// All backends are checked at the start at once, since their first results are waited for; their second checks
    /// are spread over a whole interval, so that a thousand of them do not march in step from then on.
    pub fn next_delay(&self, policy: &HealthPolicy, random: f64) -> Duration {
        let base = match self.health {
            _ if self.is_changing() => policy.fast_interval,
            Health::Down => policy.down_interval,
            Health::Up | Health::Unknown => policy.interval,
        };
        if self.is_new {
            return base.mul_f64(random);
        }
        base.mul_f64(1.0 + policy.jitter * (2.0 * random - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: HealthPolicy = HealthPolicy {
        interval: Duration::from_secs(5),
        fast_interval: Duration::from_secs(1),
        down_interval: Duration::from_secs(3),
        timeout: Duration::from_secs(2),
        rise: 2,
        fall: 3,
        jitter: 0.1,
    };

    fn verdicts(results: &[bool]) -> Vec<Health> {
        let mut state = HealthState::default();
        results
            .iter()
            .map(|passed| {
                state.record(&POLICY, *passed);
                state.health()
            })
            .collect()
    }

    #[test]
    fn the_first_result_decides() {
        assert_eq!(verdicts(&[true]), [Health::Up]);
        assert_eq!(verdicts(&[false]), [Health::Down]);
    }

    #[test]
    fn down_after_fall_failures_in_a_row_and_up_after_rise_passes() {
        use Health::{Down, Up};
        assert_eq!(verdicts(&[true, false, false, true, false, false, false]), [Up, Up, Up, Up, Up, Up, Down]);
        assert_eq!(verdicts(&[false, true, false, true, true]), [Down, Down, Down, Down, Up]);
    }

    #[test]
    fn checks_are_fast_only_while_the_state_is_changing() {
        let mut state = HealthState::default();
        state.record(&POLICY, true);
        state.record(&POLICY, true);
        assert_eq!(state.next_delay(&POLICY, 0.5), POLICY.interval);
        state.record(&POLICY, false);
        assert_eq!(state.next_delay(&POLICY, 0.5), POLICY.fast_interval);
        state.record(&POLICY, false);
        state.record(&POLICY, false);
        assert_eq!(state.health(), Health::Down);
        assert_eq!(state.next_delay(&POLICY, 0.5), POLICY.down_interval);
        state.record(&POLICY, true);
        assert_eq!(state.next_delay(&POLICY, 0.5), POLICY.fast_interval);
    }

    #[test]
    fn a_backend_that_was_never_up_is_looked_for_often() {
        let mut state = HealthState::default();
        state.record(&POLICY, false);
        for _ in 0..10 {
            state.record(&POLICY, false);
            assert_eq!(state.next_delay(&POLICY, 0.5), POLICY.fast_interval);
        }
    }

    #[test]
    fn running_out_of_descriptors_is_nobody_elses_fault() {
        for (number, ours) in
            [(24, true), (23, true), (105, true), (12, true), (99, true), (111, false), (110, false), (113, false)]
        {
            assert_eq!(is_our_own(&std::io::Error::from_raw_os_error(number)), ours, "errno {number}");
        }
    }

    #[test]
    fn jitter_stays_within_its_share() {
        let mut state = HealthState::default();
        state.record(&POLICY, true);
        state.record(&POLICY, true);
        assert_eq!(state.next_delay(&POLICY, 0.0), Duration::from_millis(4500));
        assert!(state.next_delay(&POLICY, 0.999_999) < Duration::from_millis(5500));
    }

    proptest! {
        #[test]
        fn second_checks_are_spread_and_later_ones_keep_their_interval(
            results in proptest::collection::vec(any::<bool>(), 1..40),
            random in 0.0..1.0_f64,
        ) {
            let mut state = HealthState::default();
            for (at, passed) in results.iter().enumerate() {
                state.record(&POLICY, *passed);
                let delay = state.next_delay(&POLICY, random);
                let bases = [POLICY.interval, POLICY.fast_interval, POLICY.down_interval];
                if at == 0 {
                    prop_assert!(bases.iter().any(|base| delay == base.mul_f64(random)));
                } else {
                    let near = |base: &Duration| (delay.as_secs_f64() / base.as_secs_f64() - 1.0).abs() <= POLICY.jitter + 1e-6;
                    prop_assert!(bases.iter().any(near), "{delay:?} after {at}");
                    prop_assert_eq!(near(&POLICY.fast_interval), state.is_changing());
                }
            }
        }
    }
}
