//! Which pool a request goes to. There is one pool, so far: every request goes there.

use std::rc::Rc;

use lb_core::snapshot::PoolView;

use crate::view::{Seen, View};

/// A pool, and what this worker keeps for its backends, in the same order.
pub(super) struct Route {
    view: Rc<View>,
    pool: usize,
}

impl Route {
    pub(super) fn pool(&self) -> &PoolView {
        &self.view.snapshot.pools[self.pool]
    }

    pub(super) fn backend(&self, slot: lb_core::policy::Slot) -> &Seen {
        &self.view.pools[self.pool][usize::from(slot)]
    }
}

/// The pool for a request; `None` when no pool is configured for it.
pub(super) fn pool(view: &Rc<View>) -> Option<Route> {
    (!view.snapshot.pools.is_empty()).then(|| Route { view: Rc::clone(view), pool: 0 })
}
