//! Wire types of the admin API: what `GET /v1/status`, `GET /v1/stream`, `GET /v1/tunnels`, `GET /v1/…/checks`,
//! `GET /v1/…/drain` and `PUT /v1/…/state` carry.
//!
//! The load balancer writes them, the dashboard and scripts read them. Names are part of the contract: a field is
//! added, never renamed, and a golden file pins the shape. Times are unix milliseconds, durations say their unit in
//! their name, rates are per second, and a number that cannot be known yet is `null`, never 0.
//!
//! What does not live here: how the numbers come about (`metrics`), and who may ask (the load balancer's `admin`).

mod admission;
mod checks;
mod drain;
mod reason;
mod retries;
#[cfg(test)]
mod tests;
mod token;
mod tunnels;

use serde::{Deserialize, Serialize};

pub use admission::{Overload, OverloadLevel, Queue};
pub use checks::{CheckResult, CheckSource, Checks, RESULTS_KEPT};
pub use drain::{AtDeadline, Drain, DrainReport, InFlight};
pub use reason::ReasonCode;
pub use retries::Retries;
pub use token::{TOKEN_FILE_MODE, runtime_dir, token_file_name};
pub use tunnels::{TUNNELS_LISTED, Tunnel, Tunnels};

/// The answer to `GET /v1/status`, and the first event (`snapshot`) of `GET /v1/stream`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the load balancer that answers.
    pub version: String,
    pub pid: u32,
    pub started_unix_ms: u64,
    pub now_unix_ms: u64,
    /// Number of the one-second tick that these figures belong to; the `id` of the stream's events.
    pub tick: u64,
    /// Number of the snapshot that requests are balanced by; it grows with every change of state.
    pub generation: u64,
    pub ready: Readiness,
    /// Address the proxy listens on, as `host:port`.
    pub proxy_address: String,
    pub workers: u32,
    pub connections: Connections,
    #[serde(default)]
    pub overload: Overload,
    /// All pools together.
    pub traffic: Traffic,
    /// What was sent again, and what took too long.
    #[serde(default)]
    pub retries: Retries,
    pub pools: Vec<Pool>,
    /// What happened lately, oldest first, at most [`EVENTS_KEPT`].
    pub events: Vec<Event>,
    /// One sample a second, oldest first, at most [`HISTORY_KEPT`].
    pub history: Vec<Sample>,
}

/// How many events a [`Status`] carries at most.
pub const EVENTS_KEPT: usize = 200;
/// How many one-second samples a [`Status`] carries at most: five minutes.
pub const HISTORY_KEPT: usize = 300;
/// How many one-second request rates a [`Backend`] carries at most: one minute, a sparkline.
pub const RECENT_KEPT: usize = 60;

/// Whether the balancer wants traffic, as `/readyz` tells Kubernetes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Readiness {
    pub ready: bool,
    /// In words, for a person.
    pub reason: String,
    /// Shutting down: what is in flight is being finished.
    pub draining: bool,
}

/// Client connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Connections {
    pub open: u64,
    pub accepted_total: u64,
}

/// Counters and rates of a backend, a pool, or everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests answered, whoever made the answer. At backend level: those that it answered.
    pub requests_total: u64,
    /// Answers by status class.
    pub responses: StatusClasses,
    /// Answers that the balancer made itself (no backend, timeout, bad gateway). Always 0 at backend level.
    pub made_here_total: u64,
    /// Attempts that broke (connect, send, head, body), retried or not.
    pub failures_total: u64,
    /// Attempts repeated on another backend. At backend level: attempts that left this backend for another.
    pub retries_total: u64,
    pub in_flight: u64,
    pub received_bytes_total: u64,
    pub sent_bytes_total: u64,
    /// Requests per second, over the last full second.
    pub requests_per_s: f64,
    /// Answers with a 5xx status per second, over the last full second. At backend level: and attempts that broke.
    pub errors_per_s: f64,
    /// Share of errors among requests, 0 to 1, over the last ten seconds; `null` without requests.
    pub error_rate: Option<f64>,
    /// Time to the end of the answer, over the last ten seconds; `null` without requests.
    pub latency: Option<Latency>,
}

/// Answers by the first digit of their status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusClasses {
    #[serde(rename = "1xx")]
    pub informational: u64,
    #[serde(rename = "2xx")]
    pub success: u64,
    #[serde(rename = "3xx")]
    pub redirection: u64,
    #[serde(rename = "4xx")]
    pub client_error: u64,
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

/// Quantiles in milliseconds, computed from merged histograms (never averaged), within 6.25 % of the true value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// One second of the past, for charts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub unix_ms: u64,
    pub requests_per_s: f64,
    pub errors_per_s: f64,
    pub in_flight: u64,
    /// `null` in a second without requests.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

/// A set of backends that share a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pool {
    pub name: String,
    pub policy: String,
    pub state: PoolState,
    /// In words: `3 of 3 backends ready`.
    pub reason: String,
    pub traffic: Traffic,
    /// `null` when nothing is limited.
    #[serde(default)]
    pub queue: Option<Queue>,
    pub backends: Vec<Backend>,
}

/// A pool's state, derived from its backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PoolState {
    /// Every backend that the operator did not take out is in rotation.
    Ok,
    /// Some backend is out that should be in.
    Degraded,
    /// No backend takes requests: clients get 503.
    Down,
    /// So few are ready that all to which connections can be made take requests, also those that are ejected or whose
    /// checks fail.
    Panic,
}

/// One server behind the balancer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    pub name: String,
    /// As configured, `host:port`.
    pub address: String,
    /// The address that requests go to; `null` while a host name has not been resolved.
    pub resolved: Option<String>,
    pub weight: u32,
    /// What the operator asked for.
    pub admin: AdminState,
    /// What checks and live traffic say.
    pub health: Health,
    /// Both together, in one word for a person.
    pub state: BackendState,
    /// Whether new requests may go to it: `state == ready`, and in a pool in panic others too.
    pub in_rotation: bool,
    /// Its weight as it is now: less than `weight` while it starts slowly, 0 while no requests go to it.
    #[serde(default)]
    pub effective_weight: f64,
    /// Why it is in this state, in words.
    pub reason: String,
    /// Why, as one of a fixed set, for scripts and metric labels.
    pub reason_code: ReasonCode,
    pub since_unix_ms: u64,
    pub check: Check,
    #[serde(default)]
    pub ejection: Ejection,
    pub traffic: Traffic,
    /// What `traffic.in_flight` is made of.
    #[serde(default)]
    pub in_flight: InFlight,
    /// How far it is on its way out; `null` while it is wanted.
    pub drain: Option<Drain>,
    /// Time to open a connection to it, over the last ten seconds; `null` when none was opened.
    pub connect: Option<Latency>,
    /// After how long idle it closes connections, as learned (by the most careful of the workers); `null` until then.
    #[serde(default)]
    pub learned_idle_ms: Option<u64>,
    /// Requests per second, one number a second, oldest first, at most [`RECENT_KEPT`].
    pub recent_requests_per_s: Vec<f64>,
}

/// What an operator can ask for, and the body of `PUT /v1/pools/{pool}/backends/{name}/state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// Takes requests when it is healthy.
    #[default]
    Ready,
    /// Takes no new requests; those in flight finish; checks go on.
    Drain,
    /// Takes no requests and is not checked: somebody works on it.
    Maintenance,
}

impl AdminState {
    /// All of them, in the order a page shows them.
    pub const ALL: [Self; 3] = [Self::Ready, Self::Drain, Self::Maintenance];

    /// The word on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Drain => "drain",
            Self::Maintenance => "maintenance",
        }
    }
}

/// Body of a state change: `{"state":"drain"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateChange {
    pub state: AdminState,
}

/// What checks and live traffic say about a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not checked yet.
    #[default]
    Unknown,
    Up,
    Down,
}

/// Admin state, health and ejection together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// In rotation.
    Ready,
    /// Asked to drain: finishing what is in flight.
    Draining,
    Maintenance,
    /// Checks or live traffic took it out.
    Down,
    /// It takes connections but failed requests: out for a while.
    Ejected,
    /// Waiting for the first check or for its host name.
    Unknown,
}

impl BackendState {
    /// All of them; the label values of the state metric.
    pub const ALL: [Self; 6] =
        [Self::Ready, Self::Draining, Self::Maintenance, Self::Down, Self::Ejected, Self::Unknown];

    /// Admin state first: what the operator took out stays out however healthy it is.
    pub const fn of(admin: AdminState, health: Health, ejected: bool) -> Self {
        match (admin, health) {
            (AdminState::Maintenance, _) => Self::Maintenance,
            (AdminState::Drain, _) => Self::Draining,
            (AdminState::Ready, Health::Up) if ejected => Self::Ejected,
            (AdminState::Ready, Health::Up) => Self::Ready,
            (AdminState::Ready, Health::Down) => Self::Down,
            (AdminState::Ready, Health::Unknown) => Self::Unknown,
        }
    }

    /// The word on the wire and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Down => "down",
            Self::Ejected => "ejected",
            Self::Unknown => "unknown",
        }
    }
}

/// The active checks of one backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// `null` before the first result.
    pub last_unix_ms: Option<u64>,
    pub last_passed: Option<bool>,
    /// What the last check found, in words: `connected in 0.2 ms`, `connection refused`.
    pub last_result: Option<String>,
    /// How many results in a row say the same.
    pub streak: u32,
    /// How many in a row would change the health: `fall` while it is up, `rise` while it is down.
    pub needed: u32,
    /// `null` while checks are paused (maintenance).
    pub next_unix_ms: Option<u64>,
    pub passed_total: u64,
    pub failed_total: u64,
}

/// The ejections of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// When the present one ends by itself; `null` when there is none.
    pub until_unix_ms: Option<u64>,
    /// How often lately, the present one included: each takes longer than the one before. Goes down in good times.
    pub times: u32,
    /// Since the start, by cause.
    pub total: EjectionTotals,
}

/// Ejections by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EjectionTotals {
    /// Errors in a row.
    pub consecutive_errors: u64,
    /// Far more failures than its peers.
    pub success_rate: u64,
    /// Nearly everything failed.
    pub failure_percentage: u64,
}

/// Something that happened, for the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one with every event.
    pub seq: u64,
    pub unix_ms: u64,
    pub kind: EventKind,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backend: Option<String>,
    /// In words: `down: connection refused (3 of 3 checks failed)`.
    pub message: String,
}

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// A backend's health changed.
    Health,
    /// An operator changed something.
    Operator,
    /// A host name was resolved, changed, or could not be resolved.
    Discovery,
    /// The balancer started or is shutting down.
    Lifecycle,
    /// A backend was ejected, or its ejection ended.
    Ejection,
    /// A pool's panic began or ended.
    Panic,
    /// A backend on its way out: safe to stop, or past its deadline.
    Drain,
    /// There is too much of something, or no more.
    Overload,
}

/// The `delta` event of `GET /v1/stream`: everything that may have changed since the last tick.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delta {
    pub tick: u64,
    pub now_unix_ms: u64,
    pub generation: u64,
    pub ready: Readiness,
    pub connections: Connections,
    #[serde(default)]
    pub overload: Overload,
    pub traffic: Traffic,
    /// `None` from a balancer that does not tell.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retries: Option<Retries>,
    pub pools: Vec<PoolDelta>,
    /// Events that are newer than the last delta's.
    pub events: Vec<Event>,
    /// The newest sample of the history.
    pub sample: Sample,
}

/// A pool in a [`Delta`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolDelta {
    pub name: String,
    pub state: PoolState,
    pub reason: String,
    pub traffic: Traffic,
    /// As in [`Pool`].
    #[serde(default)]
    pub queue: Option<Queue>,
    /// Only the backends that differ from the last tick, whole except `recent_requests_per_s`: in a delta it holds
    /// just the newest number, to append. A backend that is not listed had the same figures (append its
    /// `traffic.requests_per_s`).
    pub backends: Vec<Backend>,
}

/// An RFC 9457 problem, the body of every refusal of the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable word for scripts, as a URI reference: `/problems/unknown-backend`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    /// What was tried, what was expected, what to do.
    pub detail: String,
}
