use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn slots(weights: &[u32]) -> Vec<(Slot, u32)> {
    weights.iter().enumerate().map(|(slot, weight)| (slot as Slot, *weight)).collect()
}

/// |count − k·w/W| of the worst prefix, times (2n − 2)·W: compared in integers.
fn worst_deviation(table: &[Slot], weights: &[u32]) -> i128 {
    let period: i128 = weights.iter().map(|w| i128::from(*w)).sum();
    let mut counts = vec![0_i128; weights.len()];
    let mut worst = 0;
    for (k, slot) in table.iter().enumerate() {
        counts[usize::from(*slot)] += 1;
        for (count, weight) in counts.iter().zip(weights) {
            worst = worst.max((count * period - (k as i128 + 1) * i128::from(*weight)).abs());
        }
    }
    worst
}

/// NGINX's smooth weighted round robin, as the oracle that must be worse.
fn nginx_table(weights: &[u32]) -> Vec<Slot> {
    let total: i64 = weights.iter().map(|w| i64::from(*w)).sum();
    let mut current = vec![0_i64; weights.len()];
    (0..total)
        .map(|_| {
            let mut best = 0;
            for (i, weight) in weights.iter().enumerate() {
                current[i] += i64::from(*weight);
                if current[i] > current[best] {
                    best = i;
                }
            }
            current[best] -= total;
            best as Slot
        })
        .collect()
}

fn bound(weights: &[u32]) -> (i128, i128) {
    let n = weights.len() as i128;
    let period: i128 = weights.iter().map(|w| i128::from(*w)).sum();
    // worst / W ≤ 1 − 1/(2n − 2)   ⇔   worst·(2n − 2) ≤ (2n − 3)·W
    (2 * n - 2, (2 * n - 3) * period)
}

#[test]
fn equal_weights_are_plain_rotation() {
    assert_eq!(RoundRobin::new(slots(&[7, 7, 7])).table(), [0, 1, 2]);
    assert_eq!(RoundRobin::new(slots(&[1])).table(), [0]);
    assert_eq!(RoundRobin::new(slots(&[3, 0, 3])).table(), [0, 2]);
}

#[test]
fn five_one_one_is_spread() {
    let table = RoundRobin::new(slots(&[5, 1, 1])).table().to_vec();
    assert_eq!(table.len(), 7);
    assert_eq!(table.iter().filter(|slot| **slot == 0).count(), 5);
    assert!(!table.windows(4).any(|w| w == [0, 0, 0, 0]), "{table:?}");
}

#[test]
fn smoother_than_nginx_where_nginx_is_not_smooth() {
    let weights = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 80, 80, 80, 80];
    let (factor, limit) = bound(&weights);
    assert!(worst_deviation(RoundRobin::new(slots(&weights)).table(), &weights) * factor <= limit);
    assert!(worst_deviation(&nginx_table(&weights), &weights) * factor > limit);
}

#[test]
fn an_empty_set_has_no_pick() {
    assert_eq!(RoundRobin::new([]).pick(&Cursor::default(), &Tried::default(), &|| 0), None);
}

#[test]
fn a_tried_backend_does_not_double_its_neighbours_share() {
    let policy = RoundRobin::new(slots(&[1, 1, 1, 1]));
    let cursor = Cursor::default();
    let mut tried = Tried::default();
    tried.insert(1);
    let mut counts = [0_u32; 4];
    for _ in 0..4000 {
        let first = policy.pick(&cursor, &Tried::default(), &|| 0).unwrap();
        let slot = if first == 1 { policy.pick(&cursor, &tried, &|| 0).unwrap() } else { first };
        counts[usize::from(slot)] += 1;
    }
    let rest = [counts[0], counts[2], counts[3]];
    assert_eq!(counts[1], 0);
    assert!(rest.iter().max().unwrap() - rest.iter().min().unwrap() <= 1, "{counts:?}");
}

#[test]
fn a_failing_backend_beside_a_healthy_one_gets_half_of_the_first_attempts() {
    let policy = RoundRobin::new(slots(&[1, 1]));
    let cursor = Cursor::default();
    let mut tried = Tried::default();
    tried.insert(0);
    let mut failed = 0;
    for _ in 0..1000 {
        if policy.pick(&cursor, &Tried::default(), &|| 0) == Some(0) {
            failed += 1;
            assert_eq!(policy.pick(&cursor, &tried, &|| 0), Some(1));
        }
    }
    assert_eq!(failed, 500);
}

#[test]
fn the_cursor_may_wrap() {
    let policy = RoundRobin::new(slots(&[1, 1, 1]));
    let cursor = Cursor::default();
    cursor.first.store(u64::MAX - 5, Ordering::Relaxed);
    let mut counts = [0_i32; 3];
    for _ in 0..30 {
        counts[usize::from(policy.pick(&cursor, &Tried::default(), &|| 0).unwrap())] += 1;
    }
    assert!(counts.iter().all(|count| (count - 10).abs() <= 1), "{counts:?}");
}

#[test]
fn threads_share_one_exact_rotation() {
    let policy = RoundRobin::new(slots(&[1, 1, 1, 1, 1]));
    let cursor = Cursor::default();
    let counts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut counts = [0_u32; 5];
                    for _ in 0..10_001 {
                        counts[usize::from(policy.pick(&cursor, &Tried::default(), &|| 0).unwrap())] += 1;
                    }
                    counts
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).fold([0; 5], |mut sum, counts| {
            for (sum, count) in sum.iter_mut().zip(counts) {
                *sum += count;
            }
            sum
        })
    });
    assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
}

proptest! {
    #[test]
    fn every_prefix_is_as_close_as_any_order_can_be(weights in prop::collection::vec(1..=40_u32, 2..12)) {
        let divisor = weights.iter().fold(0, |d, w| gcd(d, u64::from(*w)));
        let table = RoundRobin::new(slots(&weights)).table().to_vec();
        let reduced: Vec<u32> = weights.iter().map(|w| w / divisor as u32).collect();
        for (slot, weight) in reduced.iter().enumerate() {
            prop_assert_eq!(table.iter().filter(|s| usize::from(**s) == slot).count(), *weight as usize);
        }
        let (factor, limit) = bound(&reduced);
        prop_assert!(worst_deviation(&table, &reduced) * factor <= limit);
    }

    #[test]
    fn a_pick_is_new_whenever_a_new_one_exists(
        weights in prop::collection::vec(0..4_u32, 1..6),
        tried in prop::collection::vec(0..6_u16, 0..4),
        start in any::<u64>(),
    ) {
        let policy = RoundRobin::new(slots(&weights));
        let cursor = Cursor::default();
        cursor.first.store(start, Ordering::Relaxed);
        cursor.retry.store(start, Ordering::Relaxed);
        let mut set = Tried::default();
        for slot in &tried {
            if !set.contains(*slot) {
                set.insert(*slot);
            }
        }
        let candidates: HashSet<Slot> = slots(&weights).into_iter()
            .filter(|(slot, weight)| *weight > 0 && !set.contains(*slot)).map(|(slot, _)| slot).collect();
        match policy.pick(&cursor, &set, &|| 0) {
            Some(slot) => prop_assert!(candidates.contains(&slot)),
            None => prop_assert!(candidates.is_empty()),
        }
    }
}
