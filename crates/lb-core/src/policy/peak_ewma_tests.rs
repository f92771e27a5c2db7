use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Cursor, Policy, Slot, Tried};
use super::*;
use crate::backend::{Backend, BackendId, BackendSpec, HostPort};

fn of(weights: &[u32]) -> (PeakEwma, Vec<Arc<Backend>>) {
    let backend = |id: usize| {
        let address = HostPort { host: "127.0.0.1".to_owned(), port: 80 };
        Backend::new(BackendId(id as u32), BackendSpec { name: format!("b{id}"), address, weight: 1 }, 1)
    };
    let backends: Vec<_> = (0..weights.len()).map(backend).collect();
    let listed = weights.iter().zip(&backends).enumerate();
    (PeakEwma::new(listed.map(|(at, (weight, one))| (at as Slot, Arc::clone(one), *weight)).collect()), backends)
}

/// Weyl's sequence: evenly spread.
fn random() -> impl Fn() -> u64 {
    let state = Cell::new(0x1234_5678_9abc_def1_u64);
    move || {
        state.set(state.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407));
        state.get()
    }
}

fn share_of_last(policy: &PeakEwma, backends: usize) -> f64 {
    let random = random();
    let picks = (0..20_000).map(|_| policy.pick(&Cursor::default(), &Tried::default(), &random));
    picks.filter(|slot| *slot == Some(backends as Slot - 1)).count() as f64 / 20_000.0
}

#[test]
fn before_anybody_has_answered_and_where_all_answer_alike_shares_are_by_weight() {
    for known in [false, true] {
        let (policy, backends) = of(&[4, 3, 1]);
        if known {
            backends.iter().for_each(|one| one.note_time(Duration::from_millis(5)));
        }
        let share = share_of_last(&policy, 3);
        assert!((share - 0.125).abs() < 0.01, "{share}");
    }
}

#[test]
fn of_two_empty_ones_the_faster_is_taken_and_of_full_ones_the_one_that_is_likely_through_first() {
    let (policy, backends) = of(&[1, 1]);
    backends[0].note_time(Duration::from_millis(1));
    backends[1].note_time(Duration::from_millis(10));
    assert_eq!(share_of_last(&policy, 2), 0.0);
    (0..8).for_each(|_| backends[0].enter());
    assert_eq!(share_of_last(&policy, 2), 0.0, "9 ms against 10");
    (0..2).for_each(|_| backends[0].enter());
    assert_eq!(share_of_last(&policy, 2), 1.0, "11 ms against 10");
}

#[test]
fn a_quick_failure_makes_nobody_fast() {
    let (policy, backends) = of(&[1, 1]);
    for _ in 0..50 {
        backends[0].note_time(Duration::from_millis(20));
        backends[1].add_failure_load();
        backends[1].fade_failures(Duration::from_secs(60), Duration::from_secs(1));
    }
    (0..20).for_each(|_| backends[0].enter());
    assert_eq!(share_of_last(&policy, 2), 0.0);
}

#[test]
fn times_rise_at_once_fall_slowly_and_fade_without_answers() {
    let one = of(&[1]).1.remove(0);
    let ms = |ms: u64| Duration::from_millis(ms);
    assert_eq!(one.typical_ns(), None);
    one.fade_time(ms(1000));
    assert_eq!(one.typical_ns(), None, "nothing is known by waiting");
    one.note_time(ms(10));
    one.note_time(ms(100));
    assert_eq!(one.typical_ns(), Some(100_000_000));
    (0..16).for_each(|_| one.note_time(ms(10)));
    let typical = one.typical_ns().unwrap();
    assert!((40_000_000..46_000_000).contains(&typical), "{typical}");
    one.fade_time(ms(10_000));
    let faded = one.typical_ns().unwrap() as f64;
    assert!((faded / typical as f64 - (-1.0_f64).exp()).abs() < 0.001, "{faded}");
    (0..500).for_each(|_| one.note_time(ms(1)));
    assert_eq!(one.typical_ns(), Some(1_000_000), "it gets there");
}
