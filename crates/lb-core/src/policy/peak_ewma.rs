//! Peak EWMA: of two backends the one where the request is likely to be answered sooner: by what is under way, as
//! [`LeastRequests`](super::LeastRequests), times how long an answer takes there lately (Finagle's `PeakEwma`, linkerd's
//! default). Where answers take alike, that is least requests. One that is ten times as slow gets, of three, a twentieth
//! of the requests by least requests, whatever their number: its share is its speed's; here it gets as many as keep its
//! product as low as the others', which is none but for a look now and then.
//!
//! The time is up to the response head, and rises at once and falls slowly ([`Backend::note_time`]); a failure counts as
//! one of a second. Requests that wait by their nature (long polls) say nothing about a server, and must not be mixed
//! with others under this policy.
//!
//! [`Backend::note_time`]: crate::backend::Backend::note_time

use super::least_requests::by_load;
use super::two_choices::{Choice, Compare, TwoChoices};
use crate::backend::LOAD_OF_ONE;

/// The policy.
pub type PeakEwma = TwoChoices<ByTime>;

/// By load and time.
#[derive(Debug)]
pub struct ByTime;

impl Compare for ByTime {
    fn is_lighter(b: &Choice, a: &Choice) -> bool {
        let (load_a, load_b) = (a.backend.load(), b.backend.load());
        let (Some(time_a), Some(time_b)) = (a.backend.typical_ns(), b.backend.typical_ns()) else {
            // Who has not answered yet would seem to take no time.
            return by_load((b, load_b), (a, load_a));
        };
        let most = a.weight.max(b.weight) as f64;
        // As in least requests by both: as it is, and with the request. What it is compared by is never nothing, so that
        // the faster one of two empty ones is taken.
        let before = |choice: &Choice, load: u64, time_ns: u64| {
            time_ns as f64 * (load as f64 / choice.weight as f64 + LOAD_OF_ONE as f64 / most)
        };
        let after = |choice: &Choice, load: u64, time_ns: u64| {
            time_ns as f64 * ((load + LOAD_OF_ONE) as f64 / choice.weight as f64)
        };
        before(b, load_b, time_b) < before(a, load_a, time_a) && after(b, load_b, time_b) < after(a, load_a, time_a)
    }
}

#[cfg(test)]
#[path = "peak_ewma_tests.rs"]
mod tests;
