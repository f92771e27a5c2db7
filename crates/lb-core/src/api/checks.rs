//! `GET /v1/pools/{pool}/backends/{name}/checks`: why a backend is up or down, since when, and what comes next.

use serde::{Deserialize, Serialize};

use super::{AdminState, BackendState, Health, ReasonCode};

/// How many results a [`Checks`] carries at most: more than rise and fall take, and two minutes and a half at the usual
/// interval.
pub const RESULTS_KEPT: usize = 32;

/// The answer to `GET /v1/pools/{pool}/backends/{name}/checks`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checks {
    pub pool: String,
    pub backend: String,
    /// In words: why it is as it is, since when, when it is looked at again, and what would change it.
    pub explanation: String,
    pub admin: AdminState,
    pub health: Health,
    pub state: BackendState,
    pub since_unix_ms: u64,
    pub now_unix_ms: u64,
    /// `null` while checks are paused (maintenance).
    pub next_unix_ms: Option<u64>,
    /// `null` if none ever passed.
    pub last_passed_unix_ms: Option<u64>,
    /// Oldest first, at most [`RESULTS_KEPT`].
    pub results: Vec<CheckResult>,
}

/// One result that counted for or against a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// When it was known.
    pub unix_ms: u64,
    pub source: CheckSource,
    pub passed: bool,
    /// What kind of failure; `null` when it passed.
    pub class: Option<ReasonCode>,
    /// How long the check took, its whole time; `null` for what was no check.
    pub took_ms: Option<f64>,
    /// In words: `status 200 in 1.3 ms`, `connection refused`.
    pub words: String,
}

/// What a result is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckSource {
    /// An active check.
    Check,
    /// A request of a client.
    Traffic,
}
