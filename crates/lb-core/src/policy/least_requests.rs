//! Least requests: of two backends the one with less under way. A slow backend fills up and gets less, without any
//! setting.
//!
//! **Compared** by load over weight ([`Backend::load`](crate::backend::Backend::load): what is under way, from all
//! workers, and recent failures). The second is taken only if it is lighter both as it is and with the request added to
//! either; else the first stays. As it is alone, a backend in slow start that is empty would be lighter than any other
//! that is not, and get a full share of requests one at a time; with the request added alone, it would get none at
//! all until the others are ten times as full. By both, the draw decides while there is little to do, so that shares are
//! exactly by weight, and the load decides as soon as it says something. With equal weights this is plain "fewer
//! under way".

use super::two_choices::{Choice, Compare, TwoChoices};
use crate::backend::LOAD_OF_ONE;

/// The policy.
pub type LeastRequests = TwoChoices<ByRequests>;

/// By load alone.
#[derive(Debug)]
pub struct ByRequests;

impl Compare for ByRequests {
    fn is_lighter(b: &Choice, a: &Choice) -> bool {
        by_load((b, b.backend.load()), (a, a.backend.load()))
    }
}

/// The same, for loads that were read.
pub(super) fn by_load((b, load_b): (&Choice, u64), (a, load_a): (&Choice, u64)) -> bool {
    // Cross products: below 2⁶⁰ for 2³⁰ requests under way at the largest weight.
    load_b * a.weight < load_a * b.weight && (load_b + LOAD_OF_ONE) * a.weight < (load_a + LOAD_OF_ONE) * b.weight
}

#[cfg(test)]
#[path = "least_requests_tests.rs"]
mod tests;
