//! The faults that are active right now, and the switch for the listening socket.
//!
//! Exists only when the server was started with `--faults`. Written by `/admin/faults` and, when a `refuse` is
//! over, by the accept loop; read by every request.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Faults, Plan};

/// Until when the listening socket stays closed; `None` means open.
pub(crate) type Refusal = Option<Instant>;

pub(crate) struct FaultControl {
    /// Whether any request is touched, so that an idle switch costs a request one load. Written under the lock of
    /// `active`, read without it.
    ///
    /// # Race window
    /// A request that arrives while the faults are being replaced may be judged by either set; nobody can tell.
    touches_requests: AtomicBool,
    active: Mutex<Active>,
    refusal: watch::Sender<Refusal>,
}

struct Active {
    faults: Faults,
    rng: fastrand::Rng,
}

impl FaultControl {
    pub(crate) fn new(faults: Faults, rng: fastrand::Rng) -> Self {
        let control = Self {
            touches_requests: AtomicBool::new(false),
            active: Mutex::new(Active { faults: Faults::default(), rng }),
            refusal: watch::Sender::new(None),
        };
        control.replace(faults);
        control
    }

    /// Makes `faults` the whole set, from now on; a `refuse` starts its time now, and its absence ends a running one.
    pub(crate) fn replace(&self, faults: Faults) {
        let mut active = self.active();
        self.touches_requests.store(faults.touches_requests(), Ordering::Relaxed);
        self.refusal.send_replace(faults.refuse().map(|time| Instant::now() + time));
        active.faults = faults;
    }

    /// What the next request gets, or `None` when no request is touched.
    pub(crate) fn plan(&self) -> Option<Plan> {
        if !self.touches_requests.load(Ordering::Relaxed) {
            return None;
        }
        let Active { faults, rng } = &mut *self.active();
        Some(faults.draw(rng))
    }

    pub(crate) fn current(&self) -> Faults {
        self.active().faults.clone()
    }

    /// How much longer connections are refused; zero when they are not.
    pub(crate) fn refusing_for(&self) -> Duration {
        self.refusal.borrow().map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    pub(crate) fn refusal(&self) -> watch::Receiver<Refusal> {
        self.refusal.subscribe()
    }

    /// The accept loop says that the refusal which ended at `until` is over; a newer one stands.
    pub(crate) fn refusal_over(&self, until: Instant) {
        let mut active = self.active();
        if *self.refusal.borrow() != Some(until) {
            return;
        }
        active.faults = std::mem::take(&mut active.faults).without_refuse();
        self.refusal.send_replace(None);
    }

    /// A panic elsewhere cannot leave the set half written: every change is one assignment.
    fn active(&self) -> MutexGuard<'_, Active> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn control(text: &str) -> FaultControl {
        FaultControl::new(text.parse().expect("valid"), fastrand::Rng::with_seed(1))
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_refusal_does_not_end_a_newer_one() {
        let control = control("refuse=5s,error=1%");
        let first = control.refusal().borrow().expect("refusing");
        tokio::time::advance(Duration::from_secs(1)).await;
        control.replace("refuse=20s".parse().expect("valid"));
        control.refusal_over(first);
        assert_eq!(control.refusing_for(), Duration::from_secs(20));
        let second = control.refusal().borrow().expect("refusing");
        control.refusal_over(second);
        assert_eq!(control.refusing_for(), Duration::ZERO);
        assert_eq!(control.current().to_string(), "none");
    }

    #[tokio::test(start_paused = true)]
    async fn the_other_faults_outlive_a_refusal() {
        let control = control("refuse=5s,error=100%");
        let until = control.refusal().borrow().expect("refusing");
        control.refusal_over(until);
        assert_eq!(control.current().to_string(), "error=100%");
        assert!(control.plan().is_some());
    }

    #[tokio::test]
    async fn nothing_active_means_no_plan() {
        assert_eq!(control("none").plan(), None);
        assert_eq!(control("refuse").plan(), None);
    }
}
