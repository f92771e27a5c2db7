//! Faults on purpose: which there are, and what one request gets.
//!
//! Pure: the random generator is an argument, nothing here sleeps or touches a socket. The text form is in
//! [`grammar`], what is active right now in [`control`]; the connection carries the verdicts out.

pub(crate) mod control;
mod grammar;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub(crate) use grammar::{GRAMMAR, from_json};

/// How long `refuse` lasts when it does not say: long enough for any health check to notice, short enough that a
/// forgotten one heals by itself.
pub(crate) const REFUSE_DEFAULT: Duration = Duration::from_secs(10);

/// The longest `refuse`: nothing but its end (or a connection that was open before) can bring the server back.
pub(crate) const REFUSE_MAX: Duration = Duration::from_secs(3600);

/// The longest `latency`; the same bound as `/delay/{ms}`.
pub(crate) const LATENCY_MAX: Duration = Duration::from_secs(60);

/// How long `hang` holds a request: longer than any sane timeout in front of it, yet not for ever.
pub(crate) const HANG_MAX: Duration = Duration::from_secs(3600);

/// A share of requests, in thousandths of a percent, so that 100 % is exactly every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Rate(u32);

impl Rate {
    /// Every request.
    const ALL: u32 = 100_000;
}

/// A set of faults; the default is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Faults {
    latency: Duration,
    jitter: Duration,
    error: Rate,
    hang: Rate,
    reset_before: Rate,
    reset_mid: Rate,
    refuse: Option<Duration>,
}

/// What one request gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Waited before anything else.
    pub(crate) delay: Duration,
    pub(crate) fate: Fate,
}

/// How one request ends. At most one of these befalls it, so the rates add up and may not exceed 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Answer,
    Error,
    Hang,
    ResetBefore,
    ResetMid,
}

impl Faults {
    /// Draws what the next request gets.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> Plan {
        Plan { delay: self.draw_delay(rng), fate: self.draw_fate(rng) }
    }

    /// Whether requests are touched at all; `refuse` alone is about connections.
    pub(crate) fn touches_requests(&self) -> bool {
        Self { refuse: None, ..self.clone() } != Self::default()
    }

    pub(crate) fn refuse(&self) -> Option<Duration> {
        self.refuse
    }

    pub(crate) fn without_refuse(self) -> Self {
        Self { refuse: None, ..self }
    }

    /// Uniform in latency ± jitter; jitter is never more than latency, so the difference cannot be negative.
    fn draw_delay(&self, rng: &mut fastrand::Rng) -> Duration {
        if self.jitter.is_zero() {
            return self.latency;
        }
        let jitter_us = u64::try_from(self.jitter.as_micros()).unwrap_or(u64::MAX / 2);
        self.latency.saturating_sub(self.jitter) + Duration::from_micros(rng.u64(0..=2 * jitter_us))
    }

    fn draw_fate(&self, rng: &mut fastrand::Rng) -> Fate {
        let mut draw = rng.u32(0..Rate::ALL);
        for (rate, fate) in [
            (self.error, Fate::Error),
            (self.hang, Fate::Hang),
            (self.reset_before, Fate::ResetBefore),
            (self.reset_mid, Fate::ResetMid),
        ] {
            if draw < rate.0 {
                return fate;
            }
            draw -= rate.0;
        }
        Fate::Answer
    }
}
