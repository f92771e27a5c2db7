//! The wire format, pinned: what stands in `golden.json` is what dashboards and scripts of former versions read.
//! `UPDATE_GOLDEN=1 cargo test -p lb-core api` writes it anew; a field may be added, never renamed or dropped.

mod fuzz;

use super::*;

fn traffic() -> Traffic {
    Traffic {
        requests_total: 1204,
        responses: StatusClasses { informational: 0, success: 1200, redirection: 1, client_error: 2, server_error: 1 },
        made_here_total: 3,
        failures_total: 4,
        retries_total: 4,
        in_flight: 2,
        received_bytes_total: 512,
        sent_bytes_total: 1_048_576,
        requests_per_s: 20.5,
        errors_per_s: 0.5,
        error_rate: Some(0.01),
        latency: Some(Latency { p50_ms: 0.5, p90_ms: 0.75, p99_ms: 1.5, max_ms: 3.0 }),
    }
}

fn backend() -> Backend {
    Backend {
        name: "alpha".to_owned(),
        address: "localhost:8081".to_owned(),
        resolved: Some("127.0.0.1:8081".to_owned()),
        weight: 2,
        admin: AdminState::Ready,
        health: Health::Down,
        state: BackendState::Down,
        in_rotation: false,
        effective_weight: 0.0,
        reason: "connection refused".to_owned(),
        reason_code: ReasonCode::ConnectionRefused,
        since_unix_ms: 1_700_000_000_000,
        check: Check {
            last_unix_ms: Some(1_700_000_001_000),
            last_passed: Some(false),
            last_result: Some("connection refused".to_owned()),
            streak: 3,
            needed: 2,
            next_unix_ms: None,
            passed_total: 10,
            failed_total: 3,
        },
        ejection: Ejection {
            until_unix_ms: Some(1_700_000_012_000),
            times: 2,
            total: EjectionTotals { consecutive_errors: 3, success_rate: 0, failure_percentage: 1 },
        },
        traffic: Traffic { error_rate: None, latency: None, ..traffic() },
        in_flight: in_flight(),
        drain: Some(drain()),
        connect: None,
        learned_idle_ms: Some(4900),
        recent_requests_per_s: vec![1.0, 2.5],
    }
}

fn in_flight() -> InFlight {
    InFlight { requests: 1, streams: 1, tunnels: 0, oldest_ms: Some(12_000) }
}

fn drain() -> Drain {
    Drain {
        since_unix_ms: 1_700_000_000_000,
        safe_to_stop: false,
        safe_since_unix_ms: None,
        deadline_unix_ms: Some(1_700_000_300_000),
        overdue: false,
        at_deadline: AtDeadline::Wait,
        words: "1 request and 1 stream in flight, the oldest for 12 s".to_owned(),
    }
}

fn checks() -> Checks {
    let result = CheckResult {
        unix_ms: 1_700_000_001_000,
        source: CheckSource::Check,
        passed: false,
        class: Some(ReasonCode::WrongStatus),
        took_ms: Some(1.25),
        words: "status 503 instead of 200-299".to_owned(),
    };
    let live = CheckResult { source: CheckSource::Traffic, took_ms: None, ..result.clone() };
    Checks {
        pool: "default".to_owned(),
        backend: "alpha".to_owned(),
        explanation: "down for 1 s: status 503 instead of 200-299 (2 failed in a row)".to_owned(),
        admin: AdminState::Ready,
        health: Health::Down,
        state: BackendState::Down,
        since_unix_ms: 1_700_000_000_000,
        now_unix_ms: 1_700_000_001_000,
        next_unix_ms: None,
        last_passed_unix_ms: Some(1_699_999_999_000),
        results: vec![live, result],
    }
}

fn drain_report() -> DrainReport {
    DrainReport {
        pool: "default".to_owned(),
        backend: "alpha".to_owned(),
        admin: AdminState::Drain,
        safe_to_stop: false,
        in_flight: in_flight(),
        drain: Some(drain()),
        words: "1 request and 1 stream in flight, the oldest for 12 s".to_owned(),
    }
}

fn sample() -> Sample {
    Sample {
        unix_ms: 1_700_000_001_000,
        requests_per_s: 20.5,
        errors_per_s: 0.5,
        in_flight: 2,
        p50_ms: Some(0.5),
        p99_ms: None,
    }
}

fn overload() -> Overload {
    Overload {
        level: OverloadLevel::Shed,
        reason: Some("memory: 250 of 256 MiB used; from 95 % on".to_owned()),
        memory_used_bytes: 262_144_000,
        memory_limit_bytes: 268_435_456,
        descriptors_open: 120,
        descriptors_limit: 1024,
        backend_connections: 12,
        backend_connections_limit: Some(100),
    }
}

fn queue() -> Queue {
    Queue {
        max_requests: None,
        max_requests_per_backend: Some(10),
        waiting: 3,
        length: 1024,
        longest_wait_ms: 120,
        queued_total: 40,
        refused_total: 1,
    }
}

fn readiness() -> Readiness {
    Readiness { ready: true, reason: "pool default: 2 of 3 backends ready".to_owned(), draining: false }
}

fn event() -> Event {
    Event {
        seq: 7,
        unix_ms: 1_700_000_000_000,
        kind: EventKind::Health,
        pool: Some("default".to_owned()),
        backend: Some("alpha".to_owned()),
        message: "down: connection refused (3 of 3 checks failed in a row)".to_owned(),
    }
}

fn everything() -> serde_json::Value {
    let status = Status {
        version: "0.1.0".to_owned(),
        pid: 4242,
        started_unix_ms: 1_699_999_999_000,
        now_unix_ms: 1_700_000_001_000,
        tick: 2,
        generation: 5,
        ready: readiness(),
        proxy_address: "127.0.0.1:8080".to_owned(),
        workers: 2,
        connections: Connections { open: 3, accepted_total: 9 },
        overload: overload(),
        traffic: traffic(),
        retries: Retries { connect_total: 2, deadline_cuts_total: 1, ..Retries::default() },
        pools: vec![Pool {
            name: "default".to_owned(),
            policy: "round_robin".to_owned(),
            state: PoolState::Degraded,
            reason: "2 of 3 backends ready".to_owned(),
            traffic: traffic(),
            queue: Some(queue()),
            backends: vec![backend()],
        }],
        events: vec![event(), Event { pool: None, backend: None, kind: EventKind::Lifecycle, ..event() }],
        history: vec![sample()],
    };
    let delta = Delta {
        tick: 3,
        now_unix_ms: 1_700_000_002_000,
        generation: 5,
        ready: readiness(),
        connections: status.connections,
        overload: Overload { level: OverloadLevel::Calm, reason: None, ..overload() },
        traffic: traffic(),
        retries: Some(status.retries),
        pools: vec![PoolDelta {
            name: "default".to_owned(),
            state: PoolState::Down,
            reason: "0 of 3 backends ready".to_owned(),
            traffic: traffic(),
            queue: None,
            backends: vec![backend()],
        }],
        events: vec![event()],
        sample: sample(),
    };
    let problem = Problem {
        kind: "/problems/unknown-backend".to_owned(),
        title: "Not Found".to_owned(),
        status: 404,
        detail: "pool \"default\" has no backend \"x\"; it has alpha".to_owned(),
    };
    let tunnel = Tunnel {
        id: 7,
        pool: "default".to_owned(),
        backend: "alpha".to_owned(),
        client: "192.0.2.7:50000".to_owned(),
        protocol: "websocket".to_owned(),
        path: "/chat".to_owned(),
        since_unix_ms: 1_700_000_000_500,
        received_bytes: 100,
        sent_bytes: 200,
    };
    let tunnels = Tunnels { open: 1, tunnels: vec![tunnel] };
    let words = |names: &[&str]| serde_json::json!(names);
    serde_json::json!({
        "status": status,
        "delta": delta,
        "state_change": StateChange { state: AdminState::Maintenance },
        "problem": problem,
        "tunnels": tunnels,
        "checks": checks(),
        "drain": drain_report(),
        "admin_states": words(&AdminState::ALL.map(AdminState::as_str)),
        "backend_states": words(&BackendState::ALL.map(BackendState::as_str)),
    })
}

#[test]
fn the_wire_format_is_the_golden_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/api/golden.json");
    let now = everything();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
    }
    // Compared as values: the order of keys depends on a feature that any crate of the workspace may turn on.
    let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(now == golden, "the wire format has changed:\n{now:#}\ninstead of\n{golden:#}");
}

#[test]
fn what_an_older_balancer_leaves_out_is_nothing() {
    let mut row = serde_json::to_value(backend()).unwrap();
    row.as_object_mut()
        .unwrap()
        .retain(|key, _| !["ejection", "effective_weight", "in_flight"].contains(&key.as_str()));
    let row: Backend = serde_json::from_value(row).unwrap();
    assert_eq!((row.ejection, row.in_flight), (Ejection::default(), InFlight::default()));
}

#[test]
fn what_is_written_can_be_read_back() {
    let all = everything();
    let status: Status = serde_json::from_value(all["status"].clone()).unwrap();
    let delta: Delta = serde_json::from_value(all["delta"].clone()).unwrap();
    assert_eq!(serde_json::to_value(status).unwrap(), all["status"]);
    assert_eq!(serde_json::to_value(delta).unwrap(), all["delta"]);
}

#[test]
fn words_on_the_wire_and_in_metrics_are_the_same() {
    for state in BackendState::ALL {
        assert_eq!(serde_json::json!(state), state.as_str());
    }
    for state in AdminState::ALL {
        assert_eq!(serde_json::json!(state), state.as_str());
    }
    use ReasonCode as R;
    for code in [R::NotCheckedYet, R::ChecksPass, R::Operator]
        .into_iter()
        .chain(R::CHECK_FAILURES)
        .chain([R::Ejected, R::SlowStart])
    {
        assert_eq!(serde_json::json!(code), code.as_str());
    }
}
