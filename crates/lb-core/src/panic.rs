//! The panic threshold: when so few backends of a pool are ready that those would only be pushed over too, or that the
//! verdicts themselves must be wrong, the pool takes back what it left out on suspicion.
//!
//! **When.** Fewer than `panic.threshold` percent of the backends that the operator wants in rotation are ready. One that
//! has not had its first result yet counts as ready: an unfinished start, or a return from maintenance, is no panic.
//!
//! **Who is used then.** All that the operator wants, except those to which no connection could be made at their last
//! check (refused, timed out, unreachable, no address), and those that are still unknown. Left out on suspicion are
//! the ejected ones and those whose check connects and then does not like the answer: they may serve, and in numbers they
//! are likelier right than the verdict is (a check page that hangs on a shared database fails everywhere at once). A
//! refused connection is no suspicion. Sending requests there relieves nobody, since none is taken; of ten backends with
//! eight dead it would fail nearly half of all requests, three connects each, that the two living ones serve now.
//! They are not given slow starts then: nothing is left to be protected by one.
//!
//! **All down.** When nobody at all could be connected to, there is nobody to use: the pool is down, not in panic, and
//! replies 503 with Retry-After at once instead of after a row of connects that are known to fail (a black hole would
//! take their whole timeout, each). The next check that connects ends it.
//!
//! **Checks of another port** (`health.port`) say nothing about connections of requests: a health endpoint that is gone
//! everywhere is the very case of verdicts that are wrong. There whoever is down for any reason may serve.
//!
//! **Ejection** never leads here: it asks [`is_below`] first and leaves a backend in rather than begin a panic.

use crate::api::{Health, ReasonCode};

/// When a pool panics, and who serves then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Percentage of ready backends below which the pool panics; 0 is never.
    pub percent: u32,
    /// Whether checks look at another port than requests go to.
    pub checks_elsewhere: bool,
}

impl Rule {
    /// Whether a backend of this health, for this reason, takes connections as far as is known.
    pub fn may_serve(&self, health: Health, reason: ReasonCode) -> bool {
        match health {
            Health::Up => true,
            Health::Down => self.checks_elsewhere || may_serve(reason),
            Health::Unknown => false,
        }
    }
}

/// Whether `ready` of `wanted` backends (those not checked yet are ready here) are fewer than `percent` of them.
/// 0 percent is never; nobody wanted is nobody missed.
pub fn is_below(percent: u32, ready: usize, wanted: usize) -> bool {
    ready * 100 < percent as usize * wanted
}

/// Whether a backend that is down for this reason may still serve: a connection was made, but the check failed.
fn may_serve(reason: ReasonCode) -> bool {
    !matches!(
        reason,
        ReasonCode::ConnectionRefused
            | ReasonCode::ConnectTimeout
            | ReasonCode::Unreachable
            | ReasonCode::NotResolved
            | ReasonCode::NotCheckedYet
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_means_fewer_than_the_share() {
        for (ready, wanted, below) in [(1, 3, false), (1, 4, true), (3, 10, false), (2, 10, true), (0, 1, true)] {
            assert_eq!(is_below(30, ready, wanted), below, "{ready} of {wanted}");
        }
        assert!(!is_below(0, 0, 10) && !is_below(30, 0, 0));
        assert!(is_below(100, 9, 10) && !is_below(100, 10, 10));
    }

    #[test]
    fn where_nobody_listens_nobody_serves() {
        assert!(!may_serve(ReasonCode::ConnectionRefused) && !may_serve(ReasonCode::ConnectTimeout));
        assert!(may_serve(ReasonCode::ChecksPass) && may_serve(ReasonCode::Ejected));
    }

    #[test]
    fn a_refused_check_of_another_port_says_nothing_about_requests() {
        let rule = |checks_elsewhere| Rule { percent: 30, checks_elsewhere };
        let serves = |rule: Rule, health| rule.may_serve(health, ReasonCode::ConnectionRefused);
        assert!(!serves(rule(false), Health::Down) && serves(rule(true), Health::Down));
        assert!(!serves(rule(true), Health::Unknown) && serves(rule(false), Health::Up));
    }
}
