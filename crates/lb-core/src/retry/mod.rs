//! What a balancer may repeat: whether ([`Repeats`]), when ([`backoff`]), and how much in all ([`RetryBudget`] and
//! [`ActiveRetries`], of which the smaller counts).
//!
//! Two kinds of repeats are told apart. Where the broken backend did no work (no connection, nothing sent, a kept
//! connection that it had closed), the repeat adds no execution anywhere, and comes out of no budget: at most a fixed
//! number is made per request. Any other repeat is an execution more, so it is paid for: when a whole pool fails, paid
//! repeats are what pushes it over.

mod active;
mod backoff;
mod budget;
mod repeats;

pub use active::ActiveRetries;
pub use backoff::backoff;
pub use budget::{RetryBudget, RetryPolicy};
pub use repeats::{Repeat, Repeats, RetryCause, RetryLimits};

/// Which bound of the budget refused a repeat. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The share of recent requests, and the reserve, are used up.
    Recent,
    /// Too many repeats are under way for the requests under way.
    Active,
}

impl Refused {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Recent, Self::Active];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Recent => "recent",
            Self::Active => "active",
        }
    }

    /// For a person.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Recent => "the retry budget is used up (a share of recent requests, and a reserve)",
            Self::Active => "as many retries are under way as the requests under way allow",
        }
    }
}
