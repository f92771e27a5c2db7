//! What is held against a backend fades with time: failures that count as load ([`lb_core::backend::Backend::load`]), and
//! how long its answers take. Workers add; this, in the control task, takes off.

use std::time::Duration;

use lb_core::backend::fade;
use lb_core::policy::PolicyKind;

use super::board::Board;
use super::figures::Figures;

impl Board {
    /// Lets all of it fade by the time since the last call. Costs a look at each backend while nothing fails.
    pub(super) fn fade_failures(&mut self, figures: &Figures) {
        let now_ms = self.now_ms();
        let elapsed = Duration::from_millis(now_ms.saturating_sub(std::mem::replace(&mut self.faded_ms, now_ms)));
        for (at, pool) in self.pools.iter().enumerate() {
            if pool.policy == PolicyKind::PeakEwma {
                pool.entries.iter().for_each(|entry| entry.backend.fade_time(elapsed));
            }
            if pool.entries.iter().all(|entry| entry.backend.failure_load() == 0.0) {
                continue;
            }
            let typical_ms = figures.pool_traffic(self, at).latency.map_or(0.0, |latency| latency.p50_ms);
            let fade = fade(Duration::from_secs_f64(typical_ms / 1000.0));
            pool.entries.iter().for_each(|entry| entry.backend.fade_failures(elapsed, fade));
        }
    }
}
