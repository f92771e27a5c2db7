use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::super::{Cursor, MAX_ATTEMPTS, Policy, Slot, Tried};
use super::*;
use crate::backend::{Backend, BackendId, BackendSpec, HostPort, fade};

/// SplitMix64.
fn random(seed: u64) -> impl Fn() -> u64 {
    let state = Cell::new(seed);
    move || {
        state.set(state.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let mixed = (state.get() ^ (state.get() >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn backend(id: usize) -> Arc<Backend> {
    let address = HostPort { host: "127.0.0.1".to_owned(), port: 80 };
    Backend::new(BackendId(id as u32), BackendSpec { name: format!("b{id}"), address, weight: 1 }, 1)
}

fn of(weights: &[u32]) -> (LeastRequests, Vec<Arc<Backend>>) {
    let backends: Vec<_> = (0..weights.len()).map(backend).collect();
    let listed = weights.iter().zip(&backends).enumerate();
    (LeastRequests::new(listed.map(|(at, (weight, one))| (at as Slot, Arc::clone(one), *weight)).collect()), backends)
}

fn under_way(backend: &Backend, requests: u64) {
    (0..requests).for_each(|_| backend.enter());
}

/// Shares of `picks` at a standstill: nothing begins or ends.
fn shares(policy: &LeastRequests, backends: usize, picks: usize) -> Vec<f64> {
    let (mut counts, random) = (vec![0; backends], random(7));
    for _ in 0..picks {
        let slot = policy.pick(&Cursor::default(), &Tried::default(), &random).expect("there are some");
        counts[usize::from(slot)] += 1;
    }
    counts.iter().map(|count| f64::from(*count) / picks as f64).collect()
}

#[test]
fn of_two_the_emptier_one_is_always_taken() {
    let (policy, backends) = of(&[1, 1]);
    under_way(&backends[0], 1);
    assert_eq!(shares(&policy, 2, 1000), [0.0, 1.0]);
}

#[test]
fn the_fullest_one_of_many_is_never_taken() {
    // It is never drawn beside itself.
    let (policy, backends) = of(&[1; 5]);
    under_way(&backends[3], 1);
    assert_eq!(shares(&policy, 5, 10_000)[3], 0.0);
}

#[test]
fn with_nothing_under_way_shares_are_by_weight() {
    for weights in [&[1, 1, 1][..], &[10, 1], &[5, 3, 1, 1], &[256, 1, 1]] {
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (share, weight) in shares(&of(weights).0, weights.len(), 100_000).iter().zip(weights) {
            assert!((share - f64::from(*weight) / total).abs() < 0.01, "{weights:?}: {share}");
        }
    }
}

#[test]
fn a_starting_backend_gets_its_tenth_also_beside_one_that_is_never_empty() {
    let (policy, backends) = of(&[10, 1]);
    under_way(&backends[0], 2);
    assert!((shares(&policy, 2, 100_000)[1] - 1.0 / 11.0).abs() < 0.01, "by the draw");
    under_way(&backends[0], 7);
    assert!((shares(&policy, 2, 100_000)[1] - 1.0 / 11.0).abs() < 0.01, "ten with the request, as it would be");
    under_way(&backends[0], 1);
    assert_eq!(shares(&policy, 2, 1000)[1], 1.0, "the other is fuller by weight, with and without");
}

#[test]
fn a_tried_one_may_be_remembered_twice() {
    let (policy, _) = of(&[1, 3]);
    let mut tried = Tried::of(1);
    tried.insert(1);
    assert_eq!(policy.pick(&Cursor::default(), &tried, &random(1)), Some(0));
    assert_eq!(of(&[]).0.pick(&Cursor::default(), &Tried::default(), &random(1)), None);
}

#[derive(Clone, Copy)]
struct Server {
    takes_ms: u64,
    fails: bool,
}

/// So many clients in a closed loop, over the policy, for 20 s in steps of 1 ms; requests that each server got.
fn closed_loop(servers: &[Server], clients: usize, seed: u64) -> Vec<f64> {
    let (policy, backends) = of(&vec![1; servers.len()]);
    let (random, mut counts) = (random(seed), vec![0.0; servers.len()]);
    let mut until = vec![(0, None::<usize>); clients];
    for now_ms in 0..20_000 {
        if now_ms % 250 == 0 {
            backends.iter().for_each(|one| one.fade_failures(Duration::from_millis(250), fade(Duration::ZERO)));
        }
        for (ends_ms, at) in until.iter_mut().filter(|(ends_ms, _)| *ends_ms <= now_ms) {
            if let Some(former) = at.take() {
                backends[former].leave();
                if servers[former].fails {
                    backends[former].add_failure_load();
                }
            }
            let slot = usize::from(policy.pick(&Cursor::default(), &Tried::default(), &random).expect("some"));
            backends[slot].enter();
            counts[slot] += 1.0;
            (*ends_ms, *at) = (now_ms + servers[slot].takes_ms, Some(slot));
        }
    }
    counts
}

#[test]
fn equal_servers_get_equal_shares() {
    let counts = closed_loop(&[Server { takes_ms: 10, fails: false }; 4], 32, 1);
    let fair = counts.iter().sum::<f64>() / 4.0;
    assert!(counts.iter().all(|count| (count / fair - 1.0).abs() < 0.02), "{counts:?}");
}

#[test]
fn a_server_ten_times_as_slow_gets_about_a_tenth() {
    let fast = Server { takes_ms: 10, fails: false };
    let counts = closed_loop(&[fast, fast, Server { takes_ms: 100, fails: false }], 48, 1);
    assert!(counts[2] / counts[0] < 0.2, "{counts:?}");
}

proptest! {
    #[test]
    fn a_server_that_fails_fast_gets_no_more_than_its_fair_share(
        servers in 2..8_usize, clients in 4..64_usize, takes_ms in 2..500_u64, seed in any::<u64>(),
    ) {
        let mut all = vec![Server { takes_ms, fails: false }; servers];
        all[0] = Server { takes_ms: 1, fails: true };
        let counts = closed_loop(&all, clients, seed);
        let total: f64 = counts.iter().sum();
        // As many again as there are clients: it takes some failures to weigh as much as they do.
        prop_assert!(counts[0] <= total / servers as f64 + clients as f64, "{:?}", counts);
    }

    #[test]
    fn a_pick_is_new_and_never_of_weight_0_and_the_less_loaded_of_two(
        weights in prop::collection::vec((0..4_u32, 0..20_u64), 1..20),
        tried in prop::collection::vec(0..20_u16, 0..MAX_ATTEMPTS),
        seed in any::<u64>(),
    ) {
        let (policy, backends) = of(&weights.iter().map(|(weight, _)| *weight).collect::<Vec<_>>());
        weights.iter().zip(&backends).for_each(|((_, load), one)| under_way(one, *load));
        let mut set = Tried::default();
        tried.iter().for_each(|slot| set.insert(*slot));
        let left: Vec<usize> =
            (0..weights.len()).filter(|at| weights[*at].0 > 0 && !tried.contains(&(*at as Slot))).collect();
        let random = random(seed);
        for _ in 0..50 {
            let Some(slot) = policy.pick(&Cursor::default(), &set, &random) else {
                prop_assert!(left.is_empty());
                break;
            };
            prop_assert!(left.contains(&usize::from(slot)));
            let load = |at: usize| weights[at].1 * 12 / u64::from(weights[at].0);
            let heavier = left.iter().filter(|at| load(**at) > load(usize::from(slot))).count();
            let equal_weights = left.iter().all(|at| weights[*at].0 == weights[left[0]].0);
            let alike = left.iter().filter(|at| load(**at) == load(usize::from(slot))).count();
            prop_assert!(!equal_weights || left.len() == 1 || heavier > 0 || alike > 1, "the heaviest of all");
        }
    }

    #[test]
    fn everyone_is_asked_before_nobody_is_the_answer(
        weights in prop::collection::vec(0..4_u32, 1..20), tried in prop::collection::vec(0..20_u16, 0..4),
        room in prop::option::of(0..20_u16), seed in any::<u64>(),
    ) {
        let (policy, _) = of(&weights);
        let mut set = Tried::default();
        tried.iter().for_each(|slot| set.insert(*slot));
        let mut asked = Vec::new();
        let found = policy.pick_where(&Cursor::default(), &set, &random(seed), &mut |slot| {
            asked.push(slot);
            Some(slot) == room
        });
        let may = |slot: Slot| weights.get(usize::from(slot)).is_some_and(|weight| *weight > 0) && !tried.contains(&slot);
        prop_assert!(asked.iter().all(|slot| may(*slot)));
        prop_assert_eq!(found, room.filter(|slot| may(*slot)));
        prop_assert!(found.is_some() || (0..20).filter(|slot| may(*slot)).all(|slot| asked.contains(&slot)));
    }

    #[test]
    fn failures_fade_to_nothing_and_never_below(steps in prop::collection::vec((0..50_u32, 0..2000_u64), 1..50)) {
        let one = backend(0);
        for (failures, elapsed_ms) in steps {
            (0..failures).for_each(|_| one.add_failure_load());
            let before = one.failure_load();
            one.fade_failures(Duration::from_millis(elapsed_ms), fade(Duration::ZERO));
            let exact = before * (-(elapsed_ms as f64) / 1000.0).exp();
            prop_assert!(one.failure_load() <= exact && one.failure_load() > exact - 0.01);
        }
        one.fade_failures(Duration::from_secs(60), fade(Duration::ZERO));
        prop_assert_eq!(one.load(), 0);
    }
}
