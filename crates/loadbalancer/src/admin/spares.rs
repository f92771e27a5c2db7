//! Descriptors that are held for nothing but to be let go of when there are no others.
//!
//! The share that is set aside at the start suffices as long as the limit stays what it was. When it is lowered while
//! the process runs, or the whole system runs short, an operator must still get an answer: a connection to the admin
//! API then takes the place of spares, and they are taken back when it is gone.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// Held at rest: enough for a few probes, a scraper and a dashboard at a time.
const MOST: usize = 32;

/// Let go of for one connection: its own descriptor, and one for a file that an answer may be read from.
const FOR_ONE: usize = 2;

/// The spares.
#[derive(Clone, Debug, Default)]
pub(super) struct Spares(Arc<Mutex<Vec<File>>>);

/// A connection; when it is gone, spares are taken back.
pub(super) struct Using(Spares);

impl Spares {
    pub(super) fn new() -> Self {
        let spares = Self::default();
        spares.refill();
        spares
    }

    /// Lets go of some; `false` when none is left.
    ///
    /// # Race window
    /// A worker may take what was let go of before the admin API does. Workers that were refused wait for some time
    /// before they ask again, so that one of the next tries succeeds; there are several.
    pub(super) fn release(&self) -> bool {
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = spares.len().saturating_sub(FOR_ONE);
        spares.drain(left..).next().is_some()
    }

    /// For the time of one connection.
    pub(super) fn using(&self) -> Using {
        Using(self.clone())
    }

    fn refill(&self) {
        let mut spares = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while spares.len() < MOST
            && let Ok(spare) = File::open("/dev/null")
        {
            spares.push(spare);
        }
    }
}

impl Drop for Using {
    fn drop(&mut self) {
        self.0.refill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(spares: &Spares) -> usize {
        spares.0.lock().unwrap().len()
    }

    #[test]
    fn what_is_let_go_of_is_taken_back_after_the_connection() {
        let spares = Spares::new();
        assert_eq!(held(&spares), MOST);
        let using = spares.using();
        assert!(spares.release());
        assert_eq!(held(&spares), MOST - FOR_ONE);
        drop(using);
        assert_eq!(held(&spares), MOST);
    }

    #[test]
    fn there_is_an_end_of_them() {
        let spares = Spares::new();
        for _ in 0..MOST / FOR_ONE {
            assert!(spares.release());
        }
        assert!(!spares.release());
    }
}
