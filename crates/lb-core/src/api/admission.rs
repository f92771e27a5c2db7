//! What is taken in at a time, and whether there is too much of everything.

use serde::{Deserialize, Serialize};

/// The line of a pool whose requests are limited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Requests that may be under way in the pool; `null` is any number.
    pub max_requests: Option<u64>,
    /// The same at each backend.
    pub max_requests_per_backend: Option<u64>,
    /// Requests that wait now.
    pub waiting: u64,
    /// How many may.
    pub length: u64,
    /// For how long the first of them has waited; 0 when nobody waits.
    pub longest_wait_ms: u64,
    /// Requests that ever had to wait.
    pub queued_total: u64,
    /// Requests that were refused: the line was full, or the wait too long.
    pub refused_total: u64,
}

/// How near the end of its means the balancer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overload {
    pub level: OverloadLevel,
    /// Why, in words, when it is not calm.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    pub memory_used_bytes: u64,
    /// 0 when none is known.
    pub memory_limit_bytes: u64,
    /// Descriptors that the process has open.
    #[serde(default)]
    pub descriptors_open: u64,
    /// Against this limit; 0 when they are not watched.
    #[serde(default)]
    pub descriptors_limit: u64,
    /// Connections to backends, idle ones included.
    pub backend_connections: u64,
    /// `null` is what descriptors carry.
    pub backend_connections_limit: Option<u64>,
}

/// What follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OverloadLevel {
    #[default]
    Calm,
    /// Idle connections are closed.
    Shrink,
    /// And new requests are answered 503.
    Shed,
}
