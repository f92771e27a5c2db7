//! Round robin, exact across all workers, by weight.
//!
//! One period of the rotation is a table; a pick is one shared `fetch_add`. The table is filled by Tijdeman's rule
//! for the chairman assignment problem (Discrete Mathematics 32, 1980): at every moment each backend is within
//! 1 − 1/(2n − 2) picks of its exact share, which no order can better in general. NGINX's smooth weighted round robin
//! drifts up to 1.46 picks away (eleven backends of weight 1 beside four of weight 80). Equal weights give A, B, C.
//!
//! The period is Σ weight / gcd, at most 262,144 slots of 2 bytes, so no second, approximate structure is needed for
//! odd weights.

use std::cmp::{Ordering as Order, Reverse};
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Cursor, Policy, Slot, Tried};

/// A table of one period.
#[derive(Debug)]
pub struct RoundRobin {
    table: Box<[Slot]>,
    /// Each backend of the table once.
    slots: Box<[Slot]>,
}

impl RoundRobin {
    /// Builds the table for `(slot, weight)` pairs; a weight of 0 is left out. O(period · log n).
    pub fn new(weights: impl IntoIterator<Item = (Slot, u32)>) -> Self {
        let mut weights: Vec<(Slot, u64)> =
            weights.into_iter().filter(|(_, weight)| *weight > 0).map(|(slot, weight)| (slot, weight.into())).collect();
        let slots = weights.iter().map(|(slot, _)| *slot).collect();
        let divisor = weights.iter().fold(0, |divisor, (_, weight)| gcd(divisor, *weight)).max(1);
        for (_, weight) in &mut weights {
            *weight /= divisor;
        }
        Self { table: chairman_table(&weights), slots }
    }

    /// Slots of one period, in order.
    pub fn table(&self) -> &[Slot] {
        &self.table
    }

    fn next(&self, position: &AtomicU64) -> Slot {
        let at = position.fetch_add(1, Ordering::Relaxed) % self.table.len() as u64;
        self.table[at as usize]
    }
}

impl Policy for RoundRobin {
    fn pick(&self, cursor: &Cursor, tried: &Tried, _: &dyn Fn() -> u64) -> Option<Slot> {
        if self.table.is_empty() {
            return None;
        }
        if tried.is_empty() {
            return Some(self.next(&cursor.first));
        }
        for _ in 0..=tried.len() {
            let slot = self.next(&cursor.retry);
            if !tried.contains(slot) {
                return Some(slot);
            }
        }
        // A weighted table, or other workers' retries, may hit tried slots again and again; a scan ends the search.
        let start = (cursor.retry.load(Ordering::Relaxed) % self.table.len() as u64) as usize;
        let (before, after) = self.table.split_at(start);
        after.iter().chain(before).copied().find(|slot| !tried.contains(*slot))
    }

    fn pick_where(
        &self,
        cursor: &Cursor,
        tried: &Tried,
        _: &dyn Fn() -> u64,
        enter: &mut dyn FnMut(Slot) -> bool,
    ) -> Option<Slot> {
        if self.table.is_empty() {
            return None;
        }
        // One that is full gives its turn to the next turn of all workers, not to its neighbour: that would get a
        // double share (four backends, one full, a local step: 1000 / 0 / 2000 / 1000).
        let position = if tried.is_empty() { &cursor.first } else { &cursor.retry };
        for _ in 0..self.slots.len().min(MOST_TURNS) {
            let slot = self.next(position);
            if !tried.contains(slot) && enter(slot) {
                return Some(slot);
            }
        }
        // Turns of a weighted table come back to the heavy ones; each is asked once before the answer is no.
        let start = (position.load(Ordering::Relaxed) % self.slots.len() as u64) as usize;
        let (before, after) = self.slots.split_at(start);
        after.iter().chain(before).copied().find(|slot| !tried.contains(*slot) && enter(*slot))
    }
}

/// Turns that one pick takes when it finds full backends; enough to find one of few that have room fairly, and not so
/// many that a thousand full ones cost a thousand writes to the shared position.
const MOST_TURNS: usize = 16;

/// One turn that a backend is owed: it may not be served before `release`, and the least `deadline` goes first.
struct Turn {
    release: u64,
    /// A fraction with `weight` as its denominator (common factors left out).
    deadline: u64,
    weight: u64,
    index: usize,
    served: u64,
}

impl Turn {
    /// The turn number `served + 1` of backend `index`, in integers: with m = 2n − 2 and W the period, it is released
    /// at the first step k with k·w/W − served ≥ 1/m, and due in the order of (1 − 1/m + served)/w.
    fn new(index: usize, weight: u64, served: u64, m: u64, period: u64) -> Self {
        Self {
            release: ((m * served + 1) * period).div_ceil(m * weight),
            deadline: m - 1 + m * served,
            weight,
            index,
            served,
        }
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Order {
        (self.deadline * other.weight).cmp(&(other.deadline * self.weight)).then(self.index.cmp(&other.index))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Turn {}

fn chairman_table(weights: &[(Slot, u64)]) -> Box<[Slot]> {
    if let [(slot, _)] = weights {
        return Box::new([*slot]);
    }
    let period: u64 = weights.iter().map(|(_, weight)| weight).sum();
    let m = (2 * weights.len() as u64).saturating_sub(2);
    let mut waiting: Vec<Turn> =
        weights.iter().enumerate().map(|(index, (_, weight))| Turn::new(index, *weight, 0, m, period)).collect();
    // By step of release; a turn is released at most one period ahead.
    let mut later: BinaryHeap<Reverse<(u64, usize)>> = waiting.iter().map(|t| Reverse((t.release, t.index))).collect();
    let mut due: BinaryHeap<Reverse<Turn>> = BinaryHeap::new();
    let mut table = Vec::with_capacity(period as usize);
    for step in 1..=period {
        while let Some(Reverse((release, index))) = later.peek().copied()
            && release <= step
        {
            later.pop();
            let turn = &mut waiting[index];
            let served = turn.served;
            due.push(Reverse(std::mem::replace(turn, Turn::new(index, turn.weight, served + 1, m, period))));
        }
        let Some(Reverse(turn)) = due.pop() else {
            debug_assert!(false, "the chairman assignment always has a candidate");
            continue;
        };
        table.push(weights[turn.index].0);
        later.push(Reverse((waiting[turn.index].release, turn.index)));
    }
    table.into()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[path = "round_robin_tests.rs"]
mod tests;
