//! What was sent again, what was not, and what took too long.

use serde::{Deserialize, Serialize};

/// Repeats and deadlines since the start, all pools together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Repeated because no connection could be made. Comes out of no budget, as the next two.
    pub connect_total: u64,
    /// Repeated because nothing of the request had been written.
    pub unsent_total: u64,
    /// Repeated because a kept connection turned out to be closed.
    pub stale_total: u64,
    /// Repeated because the connection broke before the response head was complete.
    pub closed_total: u64,
    /// Repeated because the time for one try passed.
    pub try_timeout_total: u64,
    /// Repeated because the response had one of `retry.statuses`.
    pub status_total: u64,
    /// Not repeated: the share of recent requests and the reserve were used up.
    pub refused_recent_total: u64,
    /// Not repeated: too many repeats were under way.
    pub refused_active_total: u64,
    /// Repeats under way that came out of the budget.
    pub active: u64,
    /// Requests answered 504 because their time had passed.
    pub deadline_replies_total: u64,
    /// Responses cut because the time for their request had passed.
    pub deadline_cuts_total: u64,
}
