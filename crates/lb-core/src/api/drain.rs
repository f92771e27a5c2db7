//! What is under way at a backend, by kind, and how far its drain is: a part of its row in the status, and the answer to
//! `GET /v1/pools/{pool}/backends/{name}/drain`.

use serde::{Deserialize, Serialize};

use super::AdminState;

/// What is under way at a backend. The sum is exact at the moment of the answer; kinds and age are of the last look of
/// each worker, at most a second ago, a tenth of one during a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// What is no stream and no tunnel.
    pub requests: u64,
    /// Response bodies that have run for long, or are event streams.
    pub streams: u64,
    /// Connections that switched protocols (WebSocket).
    pub tunnels: u64,
    /// How long the oldest of them has been under way; `null` when there is none, or it has just begun.
    pub oldest_ms: Option<u64>,
}

impl InFlight {
    /// All kinds together.
    pub const fn total(&self) -> u64 {
        self.requests + self.streams + self.tunnels
    }
}

/// What happens to what is still under way at the drain's deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AtDeadline {
    /// It is told, and waited for.
    #[default]
    Wait,
    /// It is closed; a request that may be repeated goes to another backend.
    Close,
}

/// How far a backend is on its way out, from when it was first asked to take no more requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    pub since_unix_ms: u64,
    /// Nothing is under way, and no worker will send anything more.
    pub safe_to_stop: bool,
    pub safe_since_unix_ms: Option<u64>,
    /// `null` when there is none.
    pub deadline_unix_ms: Option<u64>,
    /// Whether the deadline came while something was under way.
    pub overdue: bool,
    pub at_deadline: AtDeadline,
    /// In words: `2 requests and 1 tunnel in flight, the oldest for 12 s`.
    pub words: String,
}

/// The answer to `GET /v1/pools/{pool}/backends/{name}/drain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainReport {
    pub pool: String,
    pub backend: String,
    pub admin: AdminState,
    /// The same as in `drain`; `false` for a backend that nobody asked to drain.
    pub safe_to_stop: bool,
    pub in_flight: InFlight,
    /// `null` for a backend that nobody asked to drain.
    pub drain: Option<Drain>,
    /// In words, whichever it is.
    pub words: String,
}
