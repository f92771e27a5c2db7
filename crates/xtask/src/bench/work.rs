//! What is measured, row by row, with the target that each row has to meet. Pure.

use super::contender::Contender;

/// Bytes of a small reply: all of its cost is overhead.
pub(super) const SMALL: usize = 128;

/// One row: the same is asked of every contender.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Work {
    /// What `--work` takes.
    pub(super) short: &'static str,
    pub(super) name: &'static str,
    /// Ours, divided by the best of NGINX and HAProxy, may be at most this.
    pub(super) target: f64,
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// CPU time per request, as fast as it goes.
    Http(Http),
    /// CPU time per message that is echoed through a tunnel.
    WebSocket { connections: usize, bytes: usize },
    /// The 99th percentile of latency at a share of the contender's own maximum.
    Latency { load: Http, share: f64 },
    /// Resident memory for each connection that has had a reply and stays open.
    Memory { connections: usize },
}

/// Requests, and what answers them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Http {
    /// A file of the backends, or the path of an upload.
    pub(super) path: &'static str,
    /// Length of the reply's body.
    pub(super) reply: usize,
    /// Length of the request's body; a POST if there is one.
    pub(super) upload: usize,
    pub(super) connections: usize,
    /// The client asks for the connection to end with each reply.
    pub(super) close: bool,
}

/// 64 connections keep one worker busy without making the number of connections the subject.
pub(super) const SMALL_REPLIES: Http = Http { path: "/small", reply: SMALL, upload: 0, connections: 64, close: false };

/// The targets are those the project set itself before it measured.
pub(super) const WORKS: [Work; 9] = [
    Work { short: "reply-128", name: "128 B reply, 64 connections", target: 0.95, kind: Kind::Http(SMALL_REPLIES) },
    Work {
        short: "reply-16k",
        name: "16 KiB reply, 64 connections",
        target: 0.92,
        kind: Kind::Http(Http { path: "/large", reply: 16 << 10, ..SMALL_REPLIES }),
    },
    Work {
        short: "reply-1m",
        name: "1 MiB reply, 16 connections",
        target: 0.80,
        kind: Kind::Http(Http { path: "/huge", reply: 1 << 20, connections: 16, ..SMALL_REPLIES }),
    },
    Work {
        short: "clients-1000",
        name: "128 B reply, 1,000 connections",
        target: 0.85,
        kind: Kind::Http(Http { connections: 1000, ..SMALL_REPLIES }),
    },
    Work {
        short: "upload-1m",
        name: "1 MiB request body, 16 connections",
        target: 0.85,
        kind: Kind::Http(Http { path: "/upload", reply: 2, upload: 1 << 20, connections: 16, close: false }),
    },
    Work {
        short: "connect",
        name: "new connection per request, 64 at a time",
        target: 1.00,
        kind: Kind::Http(Http { close: true, ..SMALL_REPLIES }),
    },
    Work {
        short: "websocket",
        name: "WebSocket echo of 100 B, 64 connections",
        target: 1.00,
        kind: Kind::WebSocket { connections: 64, bytes: 100 },
    },
    Work {
        short: "p99",
        name: "p99 latency of a calm turn, open loop at 70 % of own maximum",
        target: 1.00,
        kind: Kind::Latency { load: SMALL_REPLIES, share: 0.7 },
    },
    Work {
        short: "memory",
        name: "resident memory per idle connection, 5,000 of them",
        target: 1.00,
        kind: Kind::Memory { connections: 5000 },
    },
];

impl Work {
    /// What one figure of this work is counted in.
    pub(super) const fn unit(&self) -> &'static str {
        match self.kind {
            Kind::Http(_) => "µs/request",
            Kind::WebSocket { .. } => "µs/message",
            Kind::Latency { .. } => "µs",
            Kind::Memory { .. } => "bytes",
        }
    }
}

/// A property of ours alone: a cost under two conditions of which the second must not show.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Check {
    pub(super) short: &'static str,
    pub(super) name: &'static str,
    pub(super) bound: Bound,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bound {
    /// With `backends` instead of three, the cost changes by less than `percent`.
    Backends { backends: usize, percent: f64 },
    /// With `connections` idle ones open, the cost changes by less than `percent`.
    Idle { connections: usize, percent: f64 },
    /// Two workers do at least `times` the work of one, for the CPU time of two.
    Workers { times: f64 },
    /// The worker spends less than `us` on a line of the access log.
    AccessLog { us: f64 },
}

pub(super) const CHECKS: [Check; 4] = [
    Check {
        short: "backends-1000",
        name: "1,000 backends instead of 3",
        bound: Bound::Backends { backends: 1000, percent: 5.0 },
    },
    Check {
        short: "idle-8000",
        name: "8,000 idle connections besides",
        bound: Bound::Idle { connections: 8000, percent: 5.0 },
    },
    Check { short: "workers-2", name: "two workers on two cores instead of one", bound: Bound::Workers { times: 1.9 } },
    Check { short: "access-log", name: "an access log line per request", bound: Bound::AccessLog { us: 1.0 } },
];

impl Check {
    /// Whether it is measured of `contender`, too: a peer has other options than ours, but can have as many backends.
    pub(super) fn is_for(&self, contender: Contender) -> bool {
        match contender {
            Contender::Loadbalancer => true,
            Contender::Nginx | Contender::Haproxy => matches!(self.bound, Bound::Backends { .. }),
            Contender::Caddy => false,
        }
    }
}

/// Everything that `--work` takes.
pub(super) fn short_names() -> Vec<&'static str> {
    WORKS.iter().map(|work| work.short).chain(CHECKS.iter().map(|check| check.short)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_name_of_its_own() {
        let mut names = short_names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), WORKS.len() + CHECKS.len());
    }
}
