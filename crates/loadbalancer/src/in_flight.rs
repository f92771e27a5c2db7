//! What a worker has under way, by backend and kind: counted by a look at all connections, now and then, and not with
//! each request. A request costs three stores into its connection's own deadline; what is idle costs a branch a second.
//!
//! The look is also where a drain's deadline takes effect: it marks what must end, and each connection ends it where it
//! stands.

use std::collections::HashMap;
use std::time::Duration;

use lb_core::backend::BackendId;
use lb_core::metrics::Look;

use crate::clock::Tick;
use crate::view::{LocalBackend, View};
use crate::worker::Worker;

/// Between two looks while no backend is on its way out: as often as a page shows what they find. While one is, each
/// sweep looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Worker {
    /// Looks at what is under way, if that is due.
    pub(crate) fn look_at_work(&self, view: &View, now: Tick) {
        if !view.leaving && now.since(self.looked.get()) < LOOK_INTERVAL {
            return;
        }
        self.looked.set(now);
        let known: HashMap<BackendId, &LocalBackend> =
            view.pools.iter().flatten().map(|local| (local.id, &***local)).collect();
        self.sweep.each(|deadline| {
            let Some((backend, kind, age)) = deadline.under_way(now) else { return };
            // One that was removed: nobody asks for it.
            let Some(local) = known.get(&backend) else { return };
            let mut look = local.look.get();
            look.add(kind, age);
            local.look.set(look);
            if local.cut.get() && deadline.cut() {
                self.slot().shard.drain_closed[kind as usize].add(1);
            }
        });
        for local in known.values() {
            local.shard().under_way.show(local.look.replace(Look::default()));
        }
    }
}
