//! What requests are balanced by: an immutable picture of all pools, made by the control task and swapped as a whole.
//!
//! # Race window
//! A worker may use the former snapshot for the request it is just handling. Consequence: one request more goes to a
//! backend that was taken out a moment ago, as if it had come a moment earlier. A backend that is gone refuses it and
//! the request moves on; a draining one serves it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::api::{AdminState, BackendState, Health, PoolState, ReasonCode};
use crate::backend::Backend;
use crate::policy::{Cursor, Policy, RoundRobin, Slot};

/// All pools at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows by one with every snapshot.
    pub generation: u64,
    /// In the order of the configuration.
    pub pools: Box<[PoolView]>,
}

/// A pool at one moment.
pub struct PoolView {
    /// Unique.
    pub name: Arc<str>,
    /// Carried from snapshot to snapshot.
    pub cursor: Arc<Cursor>,
    /// In the order of the configuration; a [`Slot`] is an index into it.
    pub backends: Box<[BackendView]>,
    /// Knows only the backends that may take requests.
    pub policy: Box<dyn Policy>,
}

/// A backend at one moment.
#[derive(Clone, Debug)]
pub struct BackendView {
    /// Its identity and numbers.
    pub backend: Arc<Backend>,
    /// Where to connect; `None` until its host name is resolved.
    pub address: Option<SocketAddr>,
    /// What the operator asked for.
    pub admin: AdminState,
    /// What checks and live traffic say.
    pub health: Health,
    /// Why, as one of a fixed set.
    pub reason_code: ReasonCode,
    /// Why, in words.
    pub reason: Arc<str>,
}

impl BackendView {
    /// Admin state and health in one word.
    pub fn state(&self) -> BackendState {
        BackendState::of(self.admin, self.health)
    }

    /// Whether new requests may go to it.
    pub fn in_rotation(&self) -> bool {
        self.state() == BackendState::Ready && self.address.is_some()
    }
}

impl PoolView {
    /// A pool balanced by round robin over the backends that are in rotation.
    pub fn new(name: Arc<str>, cursor: Arc<Cursor>, backends: Box<[BackendView]>) -> Self {
        let eligible = backends
            .iter()
            .enumerate()
            .filter(|(_, view)| view.in_rotation())
            .map(|(slot, view)| (slot as Slot, view.backend.spec.weight));
        let policy = Box::new(RoundRobin::new(eligible));
        Self { name, cursor, backends, policy }
    }

    /// How many backends are in rotation.
    pub fn ready(&self) -> usize {
        self.backends.iter().filter(|view| view.in_rotation()).count()
    }

    /// The pool's state, from its backends alone.
    pub fn state(&self) -> PoolState {
        let wanted = self.backends.iter().filter(|view| view.admin == AdminState::Ready).count();
        match self.ready() {
            0 => PoolState::Down,
            ready if ready < wanted => PoolState::Degraded,
            _ => PoolState::Ok,
        }
    }

    /// The state in words: `2 of 3 backends ready; 127.0.0.1:8082 down: connection refused`.
    pub fn reason(&self) -> String {
        let mut words = format!("{} of {} backends ready", self.ready(), self.backends.len());
        let out = self.backends.iter().filter(|view| !view.in_rotation());
        // A page and a log line can take a few; a pool of a thousand must not make a paragraph.
        for (shown, view) in out.enumerate() {
            if shown == 3 {
                words.push_str("; …");
                break;
            }
            let _ = write!(words, "; {} {}: {}", view.backend.spec.name, view.state().as_str(), view.reason);
        }
        words
    }
}

impl std::fmt::Debug for PoolView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolView").field("name", &self.name).field("backends", &self.backends).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{BackendId, BackendSpec, HostPort};
    use crate::policy::Tried;

    fn view(id: u32, admin: AdminState, health: Health) -> BackendView {
        let address = HostPort { host: "127.0.0.1".to_owned(), port: 8081 };
        let spec = BackendSpec { name: format!("b{id}"), address, weight: 1 };
        BackendView {
            backend: Backend::new(BackendId(id), spec, 1),
            address: Some(SocketAddr::from(([127, 0, 0, 1], 8081))),
            admin,
            health,
            reason_code: ReasonCode::ChecksPass,
            reason: "because".into(),
        }
    }

    fn pool(views: Vec<BackendView>) -> PoolView {
        PoolView::new("p".into(), Arc::default(), views.into())
    }

    #[test]
    fn only_ready_backends_are_picked() {
        use AdminState::{Drain, Maintenance, Ready};
        let pool = pool(vec![
            view(0, Ready, Health::Down),
            view(1, Ready, Health::Up),
            view(2, Drain, Health::Up),
            view(3, Maintenance, Health::Unknown),
            view(4, Ready, Health::Unknown),
        ]);
        for _ in 0..10 {
            assert_eq!(pool.policy.pick(&pool.cursor, &Tried::default()), Some(1));
        }
        assert_eq!(pool.state(), PoolState::Degraded);
        let reason = pool.reason();
        assert!(reason.starts_with("1 of 5 backends ready; b0 down: because; b2 draining"), "{reason}");
    }

    #[test]
    fn what_the_operator_took_out_does_not_degrade_a_pool() {
        use AdminState::{Drain, Ready};
        assert_eq!(pool(vec![view(0, Ready, Health::Up), view(1, Drain, Health::Up)]).state(), PoolState::Ok);
        assert_eq!(pool(vec![view(0, Drain, Health::Up)]).state(), PoolState::Down);
        assert_eq!(pool(vec![view(0, Ready, Health::Up), view(1, Ready, Health::Down)]).state(), PoolState::Degraded);
    }
}
