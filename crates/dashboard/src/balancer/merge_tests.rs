use super::*;
use crate::balancer::fixture::{backend, delta, event, sample, status};

#[test]
fn a_delta_replaces_what_it_names_and_leaves_the_rest() {
    let mut merged = status(1);
    apply(&mut merged, &delta(2)).unwrap();
    assert_eq!((merged.tick, merged.now_unix_ms, merged.generation), (2, 2000, 2));
    assert_eq!(merged.version, "1.2.3");
    assert_eq!(merged.connections.open, 5);
    assert_eq!(merged.retries.connect_total, 3);
    let old = Delta { retries: None, ..delta(3) };
    apply(&mut merged, &old).unwrap();
    assert_eq!(merged.retries.connect_total, 3, "who does not tell has not said 0");
    let mut merged = status(1);
    apply(&mut merged, &delta(2)).unwrap();
    assert!((merged.traffic.requests_per_s - 12.0).abs() < 1e-9);
    assert_eq!(merged.pools[0].policy, "round_robin");
    assert_eq!(merged.pools[0].reason, "1 of 2 backends ready");
    assert_eq!(merged.pools[0].backends.len(), 2);
    assert_eq!(merged.history.len(), 2);
}

#[test]
fn each_backend_gets_one_more_rate_whether_it_changed_or_not() {
    let mut merged = status(1);
    apply(&mut merged, &delta(2)).unwrap();
    assert_eq!(merged.pools[0].backends[0].recent_requests_per_s, [1.0, 10.0]);
    assert_eq!(merged.pools[0].backends[1].recent_requests_per_s, [2.0, 2.0]);
}

#[test]
fn a_backend_that_is_new_is_added() {
    let mut merged = status(1);
    let mut change = delta(2);
    change.pools[0].backends.push(backend("gamma", 0.0));
    apply(&mut merged, &change).unwrap();
    assert_eq!(merged.pools[0].backends[2].name, "gamma");
}

#[test]
fn events_are_taken_once() {
    let mut merged = status(1);
    apply(&mut merged, &delta(2)).unwrap();
    assert_eq!(merged.events, [event(1), event(2)]);
}

#[test]
fn a_delta_from_before_the_snapshot_changes_nothing() {
    let mut merged = status(5);
    apply(&mut merged, &delta(5)).unwrap();
    apply(&mut merged, &delta(4)).unwrap();
    assert_eq!(merged, status(5));
}

#[test]
fn a_missing_tick_or_an_unknown_pool_asks_for_a_new_snapshot() {
    let mut merged = status(1);
    assert_eq!(apply(&mut merged, &delta(3)), Err(Gap));
    let mut change = delta(2);
    change.pools[0].name = "other".to_owned();
    assert_eq!(apply(&mut merged, &change), Err(Gap));
    assert_eq!(merged, status(1));
}

#[test]
fn lists_keep_their_length() {
    let mut merged = status(1);
    for tick in 2..1000 {
        let mut change = delta(tick);
        change.events = vec![event(tick)];
        apply(&mut merged, &change).unwrap();
    }
    assert_eq!(merged.history.len(), HISTORY_KEPT);
    assert_eq!(merged.history.last(), Some(&sample(999)));
    assert_eq!(merged.events.len(), EVENTS_KEPT);
    assert_eq!(merged.events.last().unwrap().seq, 999);
    assert!(merged.pools[0].backends.iter().all(|backend| backend.recent_requests_per_s.len() == RECENT_KEPT));
}
