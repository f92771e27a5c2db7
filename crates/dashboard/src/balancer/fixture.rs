//! A small status and the delta that follows it, for tests.

use lb_core::api::{
    AdminState, Backend, BackendState, Check, Connections, Delta, Ejection, Event, EventKind, Health, InFlight,
    Overload, Pool, PoolDelta, PoolState, Queue, Readiness, ReasonCode, Retries, Sample, Status, Traffic,
};

fn traffic(requests_per_s: f64) -> Traffic {
    Traffic { requests_per_s, ..Traffic::default() }
}

fn ready() -> Readiness {
    Readiness { ready: true, reason: "serving".to_owned(), draining: false }
}

pub(crate) fn sample(tick: u64) -> Sample {
    Sample { unix_ms: tick * 1000, requests_per_s: 1.0, errors_per_s: 0.0, in_flight: 0, p50_ms: None, p99_ms: None }
}

pub(crate) fn event(seq: u64) -> Event {
    let message = format!("event {seq}");
    Event { seq, unix_ms: seq * 1000, kind: EventKind::Health, pool: None, backend: None, message }
}

pub(crate) fn backend(name: &str, requests_per_s: f64) -> Backend {
    Backend {
        name: name.to_owned(),
        address: "127.0.0.1:8081".to_owned(),
        resolved: None,
        weight: 1,
        admin: AdminState::Ready,
        health: Health::Up,
        state: BackendState::Ready,
        in_rotation: true,
        effective_weight: 1.0,
        reason: "checks pass".to_owned(),
        reason_code: ReasonCode::ChecksPass,
        since_unix_ms: 0,
        check: Check::default(),
        ejection: Ejection::default(),
        traffic: traffic(requests_per_s),
        in_flight: InFlight::default(),
        drain: None,
        connect: None,
        learned_idle_ms: None,
        recent_requests_per_s: vec![requests_per_s],
    }
}

pub(crate) fn status(tick: u64) -> Status {
    Status {
        version: "1.2.3".to_owned(),
        pid: 1,
        started_unix_ms: 0,
        now_unix_ms: tick * 1000,
        tick,
        generation: 1,
        ready: ready(),
        proxy_address: "0.0.0.0:8080".to_owned(),
        workers: 2,
        connections: Connections::default(),
        overload: Overload::default(),
        traffic: traffic(3.0),
        retries: Retries::default(),
        pools: vec![Pool {
            name: "default".to_owned(),
            policy: "round_robin".to_owned(),
            state: PoolState::Ok,
            reason: "2 of 2 backends ready".to_owned(),
            traffic: traffic(3.0),
            queue: None,
            backends: vec![backend("alpha", 1.0), backend("beta", 2.0)],
        }],
        events: vec![event(1)],
        history: vec![sample(tick)],
    }
}

pub(crate) fn delta(tick: u64) -> Delta {
    Delta {
        tick,
        now_unix_ms: tick * 1000,
        generation: 2,
        ready: ready(),
        connections: Connections { open: 5, accepted_total: 9 },
        overload: Overload { memory_used_bytes: 7, ..Overload::default() },
        traffic: traffic(12.0),
        retries: Some(Retries { connect_total: 3, ..Retries::default() }),
        pools: vec![PoolDelta {
            name: "default".to_owned(),
            state: PoolState::Degraded,
            reason: "1 of 2 backends ready".to_owned(),
            traffic: traffic(12.0),
            queue: Some(Queue { waiting: 5, ..Queue::default() }),
            backends: vec![backend("alpha", 10.0)],
        }],
        events: vec![event(1), event(2)],
        sample: sample(tick),
    }
}
