//! Two backends drawn at random, and the lighter of them (Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing", 2001): what all policies share that look at load. Since two are looked at and not all, those who look at
//! the same moment do not all run to the same one. What is lighter is for the policy to say.
//!
//! **Drawn** by weight, and never the same one twice: with replacement, half of all picks among two backends would look
//! at one only.

use std::marker::PhantomData;
use std::sync::Arc;

use super::{Cursor, MAX_ATTEMPTS, Policy, Slot, Tried};
use crate::backend::Backend;

/// Pairs that one pick draws while it finds full backends; then it asks each in turn.
const MOST_DRAWS: usize = 4;

/// How two are compared.
pub trait Compare: Send + Sync {
    /// Whether the request is better off with `b` than with `a`, which was drawn first; not if they are alike.
    fn is_lighter(b: &Choice, a: &Choice) -> bool;
}

/// The backends that may take requests, in the order of their slots.
#[derive(Debug)]
pub struct TwoChoices<C> {
    choices: Box<[Choice]>,
    /// Of all weights.
    total: u64,
    compare: PhantomData<C>,
}

/// One of them.
#[derive(Debug)]
pub struct Choice {
    /// Its numbers.
    pub backend: Arc<Backend>,
    /// Its weight of the moment, not 0.
    pub weight: u64,
    slot: Slot,
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

impl<C> TwoChoices<C> {
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
        Self { choices, total, compare: PhantomData }
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
    fn pair(&self, tried: &LeftOut, random: &dyn Fn() -> u64) -> Option<(usize, Option<usize>)>
    where
        C: Compare,
    {
        let first = self.draw(random(), tried)?;
        let mut out = *tried;
        out.insert(first);
        let Some(second) = self.draw(random(), &out) else { return Some((first, None)) };
        let lighter = C::is_lighter(&self.choices[second], &self.choices[first]);
        Some(if lighter { (second, Some(first)) } else { (first, Some(second)) })
    }
}

impl<C: Compare> Policy for TwoChoices<C> {
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
