//! Where a backend stands on the board, by the names that people use.

use super::NotFound;
use super::board::{Board, Place};

/// Names that a refusal lists: a reply must stay small whatever the pool's size.
const MOST_NAMED: usize = 20;

impl Board {
    /// # Errors
    /// There is no such pool, or no such backend in it; says what there is.
    pub(super) fn place(&self, pool: &str, backend: &str) -> Result<Place, NotFound> {
        let found = self.pools.iter().position(|candidate| *candidate.name == *pool).ok_or_else(|| {
            let names: Vec<&str> = self.pools.iter().map(|pool| &*pool.name).collect();
            NotFound(format!("there is no pool {pool:?}; there is {}", names.join(", ")))
        })?;
        let entries = &self.pools[found].entries;
        let at = entries.iter().position(|entry| entry.backend.spec.name == backend).ok_or_else(|| {
            let names = entries.iter().take(MOST_NAMED).map(|entry| entry.backend.spec.name.as_str());
            let names: Vec<&str> = names.collect();
            NotFound(format!("pool {pool:?} has no backend {backend:?}; it has {}", names.join(", ")))
        })?;
        Ok((found, at))
    }
}
