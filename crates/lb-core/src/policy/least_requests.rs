//! Least requests: of two backends drawn at random, the one with less under way (Mitzenmacher, "The Power of Two Choices
//! in Randomized Load Balancing", 2001). A slow backend fills up and gets less, without any setting; and since two are
//! looked at and not all, those who look at the same moment do not all run to the same one.
//!
//! **Drawn** by weight, and never the same one twice: with replacement, half of all picks among two backends would look
//! at one only.
//!
//! **Compared** by load over weight ([`Backend::load`]: what is under way, from all workers, and recent failures). The
//! second is taken only if it is lighter both as it is and with the request added to either; else the first stays. As it
//! is alone, a backend in slow start that is empty would be lighter than any other that is not, and get a full share of
//! requests one at a time; with the request added alone, it would get none at all until the others are ten times
//! as full. By both, the draw decides while there is little to do, so that shares are exactly by weight, and the load
//! decides as soon as it says something. With equal weights this is plain "fewer under way".

use std::sync::Arc;

use super::{Cursor, MAX_ATTEMPTS, Policy, Slot, Tried};
use crate::backend::{Backend, LOAD_OF_ONE};

/// Pairs that one pick draws while it finds full backends; then it asks each in turn.
const MOST_DRAWS: usize = 4;

/// The backends that may take requests, in the order of their slots.
#[derive(Debug)]
pub struct LeastRequests {
    choices: Box<[Choice]>,
    /// Of all weights.
    total: u64,
}

#[derive(Debug)]
struct Choice {
    slot: Slot,
    backend: Arc<Backend>,
    weight: u64,
    /// Sum of the weights before it.
    before: u64,
}

/// Places in the list that a draw leaves out, ascending: what was tried, and the first of a pair.
#[derive(Clone, Copy, Default)]
struct LeftOut {
    places: [u16; MAX_ATTEMPTS + 1],
    len: usize,
}

impl LeftOut {
    fn insert(&mut self, place: usize) {
        let at = self.places[..self.len].partition_point(|known| usize::from(*known) < place);
        if self.places[..self.len].get(at).is_some_and(|known| usize::from(*known) == place) {
            return;
        }
        self.places.copy_within(at..self.len, at + 1);
        self.places[at] = place as u16;
        self.len += 1;
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        self.places[..self.len].iter().map(|place| usize::from(*place))
    }
}

impl LeastRequests {
    /// For backends with their slots, all different, and weights; a weight of 0 is left out.
    pub fn new(mut backends: Vec<(Slot, Arc<Backend>, u32)>) -> Self {
        backends.retain(|(_, _, weight)| *weight > 0);
        backends.sort_unstable_by_key(|(slot, ..)| *slot);
        let mut total = 0;
        let choices = backends.into_iter().map(|(slot, backend, weight)| {
            let (before, weight) = (total, u64::from(weight));
            total += weight;
            Choice { slot, backend, weight, before }
        });
        let choices = choices.collect();
        Self { choices, total }
    }

    fn tried(&self, tried: &Tried) -> LeftOut {
        let mut out = LeftOut::default();
        for slot in tried.iter() {
            if let Ok(place) = self.choices.binary_search_by_key(&slot, |choice| choice.slot) {
                out.insert(place);
            }
        }
        out
    }

    /// The place of one that is not left out, by weight; `None` when there is none.
    fn draw(&self, random: u64, out: &LeftOut) -> Option<usize> {
        let left = self.total - out.places().map(|place| self.choices[place].weight).sum::<u64>();
        if left == 0 {
            return None;
        }
        // Lemire's multiplication instead of a division; its bias is below one in 2⁴⁰.
        let mut at = ((u128::from(random) * u128::from(left)) >> 64) as u64;
        for place in out.places() {
            let Choice { before, weight, .. } = self.choices[place];
            at += if at >= before { weight } else { 0 };
        }
        Some(self.choices.partition_point(|choice| choice.before <= at) - 1)
    }

    /// Two different ones, the one that is to be taken first; or the only one.
    fn pair(&self, tried: &LeftOut, random: &dyn Fn() -> u64) -> Option<(usize, Option<usize>)> {
        let first = self.draw(random(), tried)?;
        let mut out = *tried;
        out.insert(first);
        let Some(second) = self.draw(random(), &out) else { return Some((first, None)) };
        let (a, b) = (&self.choices[first], &self.choices[second]);
        let (load_a, load_b) = (a.backend.load(), b.backend.load());
        // Cross products: below 2⁶⁰ for 2³⁰ requests under way at the largest weight.
        let lighter = load_b * a.weight < load_a * b.weight
            && (load_b + LOAD_OF_ONE) * a.weight < (load_a + LOAD_OF_ONE) * b.weight;
        Some(if lighter { (second, Some(first)) } else { (first, Some(second)) })
    }
}

impl Policy for LeastRequests {
    fn pick(&self, _: &Cursor, tried: &Tried, random: &dyn Fn() -> u64) -> Option<Slot> {
        let (best, _) = self.pair(&self.tried(tried), random)?;
        Some(self.choices[best].slot)
    }

    fn pick_where(
        &self,
        _: &Cursor,
        tried: &Tried,
        random: &dyn Fn() -> u64,
        enter: &mut dyn FnMut(Slot) -> bool,
    ) -> Option<Slot> {
        let out = self.tried(tried);
        for _ in 0..MOST_DRAWS {
            let (best, other) = self.pair(&out, random)?;
            let mut slots = [Some(best), other].into_iter().flatten().map(|place| self.choices[place].slot);
            if let Some(slot) = slots.find(|slot| enter(*slot)) {
                return Some(slot);
            }
        }
        // From a place at random, so that the neighbour of a full one gets no double share.
        let start = self.draw(random(), &LeftOut::default())?;
        let (before, after) = self.choices.split_at(start);
        let slots = after.iter().chain(before).map(|choice| choice.slot);
        slots.filter(|slot| !tried.contains(*slot)).find(|slot| enter(*slot))
    }
}

#[cfg(test)]
#[path = "least_requests_tests.rs"]
mod tests;
