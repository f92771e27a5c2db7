//! Counters of one worker, and their sums.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::histogram::{Counts, Histogram, bump};
use super::{Kind, Rejected, UnderWay};
use crate::retry::{Refused, RetryCause};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `by`. Only the counter's one writer may call this.
    pub fn add(&self, by: u64) {
        bump(&self.0, by);
    }

    /// What it stands at.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A time that its one writer has learned, or not yet. Relaxed: it is for people to look at.
#[derive(Debug, Default)]
pub struct LearnedTime(AtomicU64);

impl LearnedTime {
    /// Only its one writer may call this.
    pub fn set(&self, time: Option<Duration>) {
        // 0 is for what is not known.
        let number = time.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).saturating_add(1));
        self.0.store(number, Ordering::Relaxed);
    }

    /// To the millisecond.
    pub fn value(&self) -> Option<Duration> {
        self.0.load(Ordering::Relaxed).checked_sub(1).map(Duration::from_millis)
    }
}

/// Where an attempt at a backend broke. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection: refused, timed out, unreachable.
    Connect,
    /// The connection broke before the response head.
    Closed,
    /// No response head in time.
    HeadTimeout,
    /// The response was not valid HTTP.
    BadResponse,
    /// It broke or stalled inside the response body.
    Body,
    /// The response had one of the statuses that are to be repeated, and was thrown away.
    Status,
}

impl FailureKind {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Connect, Self::Closed, Self::HeadTimeout, Self::BadResponse, Self::Body, Self::Status];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Closed => "closed",
            Self::HeadTimeout => "head_timeout",
            Self::BadResponse => "bad_response",
            Self::Body => "body",
            Self::Status => "status",
        }
    }
}

/// A reply (or its absence) that the balancer makes because there is none of a backend; what the client is to blame
/// for is [`Rejected`]. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalReply {
    /// 404: no pool for it.
    NoRoute,
    /// 503: no backend may take it.
    NoBackend,
    /// 502: no connection to any backend that was tried.
    ConnectFailed,
    /// 502: closed before the response head.
    UpstreamClosed,
    /// 502: not valid HTTP.
    BadResponse,
    /// 504: connecting took too long.
    ConnectTimeout,
    /// 504: the response head took too long.
    HeadTimeout,
    /// 504: the time for the whole request passed before there was a response head.
    Deadline,
    /// 503: we have no descriptor, port or memory left to reach a backend.
    OutOfMeans,
    /// No reply (499 in logs): the client went away.
    ClientGone,
    /// 503: its pool's limits are reached, and as many wait as may.
    QueueFull,
    /// 503: it waited for a place for as long as it may.
    QueueTimeout,
    /// 504: it waited for a place, and its deadline could not be kept any more.
    QueueDeadline,
    /// 503: memory or descriptors are nearly used up.
    Overloaded,
    /// 429: its client asks too often. The client's fault, but nothing is wrong with the request, and its connection
    /// goes on: no [`Rejected`].
    RateLimited,
    /// 503: its pool has as many connections as it may, and none came free in time.
    ConnectionLimit,
}

impl LocalReply {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::NoRoute,
        Self::NoBackend,
        Self::ConnectFailed,
        Self::UpstreamClosed,
        Self::BadResponse,
        Self::ConnectTimeout,
        Self::HeadTimeout,
        Self::Deadline,
        Self::OutOfMeans,
        Self::ClientGone,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::QueueDeadline,
        Self::Overloaded,
        Self::RateLimited,
        Self::ConnectionLimit,
    ];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoBackend => "no_backend",
            Self::ConnectFailed => "connect_failed",
            Self::UpstreamClosed => "upstream_closed",
            Self::BadResponse => "bad_response",
            Self::ConnectTimeout => "connect_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::Deadline => "deadline",
            Self::OutOfMeans => "out_of_means",
            Self::ClientGone => "client_gone",
            Self::QueueFull => "queue_full",
            Self::QueueTimeout => "queue_timeout",
            Self::QueueDeadline => "queue_deadline",
            Self::Overloaded => "overloaded",
            Self::RateLimited => "rate_limited",
            Self::ConnectionLimit => "connection_limit",
        }
    }

    /// The status it goes out with, or is counted as.
    pub const fn status(self) -> u16 {
        match self {
            Self::NoRoute => 404,
            Self::RateLimited => 429,
            Self::ClientGone => 499,
            Self::ConnectFailed | Self::UpstreamClosed | Self::BadResponse => 502,
            Self::NoBackend | Self::OutOfMeans | Self::ConnectionLimit => 503,
            Self::QueueFull | Self::QueueTimeout | Self::Overloaded => 503,
            Self::ConnectTimeout | Self::HeadTimeout | Self::Deadline | Self::QueueDeadline => 504,
        }
    }
}

/// Why a tunnel (a connection that switched protocols) ended. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides ended it.
    Closed,
    /// One side broke off.
    Broken,
    /// Nothing moved for `timeouts.tunnel`.
    Idle,
    /// The balancer or the backend was draining.
    Drained,
}

impl TunnelEnd {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Closed, Self::Broken, Self::Idle, Self::Drained];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Idle => "idle",
            Self::Drained => "drained",
        }
    }
}

/// One worker's numbers about one backend.
///
/// In this order, since what each request writes is one line of the cache so, and its bucket another. With many backends
/// each has left the caches when it has its turn, and every line of it costs as much as hundreds of instructions.
#[derive(Debug, Default)]
#[repr(C)]
pub struct BackendShard {
    /// Responses whose head came from it, by first digit of the status.
    pub responses: [Counter; 5],
    /// Request body bytes sent to it.
    pub received_bytes: Counter,
    /// Response body bytes taken from it.
    pub sent_bytes: Counter,
    /// From the arrival of the request to the end of the response.
    pub response: Histogram,
    /// Attempts that broke, by [`FailureKind`].
    pub failures: [Counter; FailureKind::ALL.len()],
    /// Of the failures, those that say nothing about it: a kept connection that it had closed meanwhile.
    pub excused: Counter,
    /// Of the failures by status, those that were no 5xx: answers like others, but for `retry.statuses`.
    pub repeated_well: Counter,
    /// Attempts that left it for another backend (or a fresh connection).
    pub retries: Counter,
    /// Connections opened to it.
    pub connections: Counter,
    /// Tunnels opened to it.
    pub tunnels: Counter,
    /// After how long idle it closes connections, as this worker has learned.
    pub idle_time: LearnedTime,
    /// Time to open a connection.
    pub connect: Histogram,
    /// What is under way, as of the last look.
    pub under_way: UnderWay,
}

/// The numbers of a backend, all workers together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendTotals {
    /// As in [`BackendShard`].
    pub responses: [u64; 5],
    /// As in [`BackendShard`].
    pub failures: [u64; FailureKind::ALL.len()],
    /// As in [`BackendShard`].
    pub excused: u64,
    /// As in [`BackendShard`].
    pub repeated_well: u64,
    /// As in [`BackendShard`].
    pub retries: u64,
    /// As in [`BackendShard`].
    pub connections: u64,
    /// As in [`BackendShard`].
    pub tunnels: u64,
    /// As in [`BackendShard`].
    pub received_bytes: u64,
    /// As in [`BackendShard`].
    pub sent_bytes: u64,
    /// As in [`BackendShard`].
    pub connect: Counts,
    /// As in [`BackendShard`].
    pub response: Counts,
}

impl BackendTotals {
    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        let Self {
            responses,
            failures,
            excused,
            repeated_well,
            retries,
            connections,
            tunnels,
            received_bytes,
            sent_bytes,
            connect,
            response,
        } = self;
        responses.fill(0);
        failures.fill(0);
        for number in [excused, repeated_well, retries, connections, tunnels, received_bytes, sent_bytes] {
            *number = 0;
        }
        connect.clear();
        response.clear();
    }

    /// Adds one worker's numbers.
    pub fn add(&mut self, shard: &BackendShard) {
        add_each(&mut self.responses, &shard.responses);
        add_each(&mut self.failures, &shard.failures);
        self.excused += shard.excused.value();
        self.repeated_well += shard.repeated_well.value();
        self.retries += shard.retries.value();
        self.connections += shard.connections.value();
        self.tunnels += shard.tunnels.value();
        self.received_bytes += shard.received_bytes.value();
        self.sent_bytes += shard.sent_bytes.value();
        self.connect.add(&shard.connect);
        self.response.add(&shard.response);
    }

    /// Adds another backend's numbers.
    pub fn merge(&mut self, other: &Self) {
        for (sum, number) in self.responses.iter_mut().zip(other.responses) {
            *sum += number;
        }
        for (sum, number) in self.failures.iter_mut().zip(other.failures) {
            *sum += number;
        }
        self.excused += other.excused;
        self.repeated_well += other.repeated_well;
        self.retries += other.retries;
        self.connections += other.connections;
        self.tunnels += other.tunnels;
        self.received_bytes += other.received_bytes;
        self.sent_bytes += other.sent_bytes;
        self.connect.merge(&other.connect);
        self.response.merge(&other.response);
    }
}

/// Why a client's connection at rest was closed before its time. A fixed set: it is a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndedEarly {
    /// Clients waited for a place.
    Connections,
    /// Memory or descriptors were nearly used up.
    Overload,
}

impl EndedEarly {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Connections, Self::Overload];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Overload => "overload",
        }
    }
}

/// One worker's numbers that belong to no backend.
#[derive(Debug, Default)]
pub struct WorkerShard {
    /// Client connections accepted.
    pub accepted: Counter,
    /// Client connections closed.
    pub closed: Counter,
    /// Replies made here, by [`LocalReply`].
    pub local_replies: [Counter; LocalReply::ALL.len()],
    /// Requests and connections refused at the door, by [`Rejected`].
    pub rejected: [Counter; Rejected::ALL.len()],
    /// Tunnels that ended, by [`TunnelEnd`].
    pub tunnel_ends: [Counter; TunnelEnd::ALL.len()],
    /// What was under way at a backend at its drain's deadline and was closed, by [`Kind`].
    pub drain_closed: [Counter; Kind::ALL.len()],
    /// Client connections at rest that were closed before their time, by [`EndedEarly`].
    pub ended_early: [Counter; EndedEarly::ALL.len()],
    /// Responses that the client did not stay for to the end.
    pub cut_by_client: Counter,
    /// Repeats, by [`RetryCause`].
    pub retries: [Counter; RetryCause::ALL.len()],
    /// Repeats that the budget refused, by [`Refused`].
    pub retries_refused: [Counter; Refused::ALL.len()],
    /// Responses that were cut when the request's time had passed.
    pub cut_overdue: Counter,
    /// Tasks that panicked; each cost one connection.
    pub panics: Counter,
    /// How long requests waited for a place, those that had to.
    pub queue_wait: Histogram,
}

/// Sums of [`WorkerShard`]s.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerTotals {
    /// As in [`WorkerShard`].
    pub accepted: u64,
    /// As in [`WorkerShard`].
    pub closed: u64,
    /// As in [`WorkerShard`].
    pub local_replies: [u64; LocalReply::ALL.len()],
    /// As in [`WorkerShard`].
    pub rejected: [u64; Rejected::ALL.len()],
    /// As in [`WorkerShard`].
    pub tunnel_ends: [u64; TunnelEnd::ALL.len()],
    /// As in [`WorkerShard`].
    pub drain_closed: [u64; Kind::ALL.len()],
    /// As in [`WorkerShard`].
    pub ended_early: [u64; EndedEarly::ALL.len()],
    /// As in [`WorkerShard`].
    pub cut_by_client: u64,
    /// As in [`WorkerShard`].
    pub retries: [u64; RetryCause::ALL.len()],
    /// As in [`WorkerShard`].
    pub retries_refused: [u64; Refused::ALL.len()],
    /// As in [`WorkerShard`].
    pub cut_overdue: u64,
    /// As in [`WorkerShard`].
    pub panics: u64,
    /// As in [`WorkerShard`].
    pub queue_wait: Counts,
}

impl WorkerTotals {
    /// Adds one worker's numbers.
    pub fn add(&mut self, shard: &WorkerShard) {
        self.accepted += shard.accepted.value();
        self.closed += shard.closed.value();
        add_each(&mut self.local_replies, &shard.local_replies);
        add_each(&mut self.rejected, &shard.rejected);
        add_each(&mut self.tunnel_ends, &shard.tunnel_ends);
        add_each(&mut self.drain_closed, &shard.drain_closed);
        add_each(&mut self.ended_early, &shard.ended_early);
        self.cut_by_client += shard.cut_by_client.value();
        add_each(&mut self.retries, &shard.retries);
        add_each(&mut self.retries_refused, &shard.retries_refused);
        self.cut_overdue += shard.cut_overdue.value();
        self.panics += shard.panics.value();
        self.queue_wait.add(&shard.queue_wait);
    }

    /// Client connections open now. Closes are counted by the worker that accepted, so this is never negative at
    /// rest; while it is read it may be a connection off.
    pub fn open(&self) -> u64 {
        self.accepted.saturating_sub(self.closed)
    }
}

fn add_each<const N: usize>(sums: &mut [u64; N], counters: &[Counter; N]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.value();
    }
}
