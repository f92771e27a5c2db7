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
use crate::gate::Gate;
use crate::policy::{Cursor, Policy, PolicyKind, Slot};
use crate::{panic, slow_start};

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
    /// Which policy that is.
    pub kind: PolicyKind,
    /// Whether so few are ready that others take requests too; see [`mod@panic`].
    pub in_panic: bool,
    /// The largest share of a backend in rotation; others' are relative to it.
    most_tenths: u32,
    rule: panic::Rule,
    /// What may be under way at a time; `None` when nothing is limited. Carried from snapshot to snapshot.
    pub gate: Option<Arc<Gate>>,
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
    /// Whether it is out for having failed requests.
    pub ejected: bool,
    /// Its share in tenths while it starts slowly; see [`slow_start`].
    pub tenths: u32,
    /// Why, as one of a fixed set.
    pub reason_code: ReasonCode,
    /// Why, in words.
    pub reason: Arc<str>,
    /// What is still under way at it is to be closed: its drain's deadline has come.
    pub cut: bool,
}

impl BackendView {
    /// Admin state, health and ejection in one word.
    pub fn state(&self) -> BackendState {
        BackendState::of(self.admin, self.health, self.ejected)
    }

    /// Whether new requests may go to it when its pool is not in panic.
    pub fn in_rotation(&self) -> bool {
        self.state() == BackendState::Ready && self.address.is_some()
    }

    /// Whether it is used in a panic: wanted, and a connection could be made to it when that was last tried.
    fn serves_in_panic(&self, rule: panic::Rule) -> bool {
        let reachable = rule.may_serve(self.health, self.reason_code);
        self.admin == AdminState::Ready && reachable && self.address.is_some()
    }
}

impl PoolView {
    /// A pool balanced by a policy of this `kind` over the backends that are in rotation, each by its share; or, where
    /// `rule` says panic, over all that may serve.
    pub fn new(
        name: Arc<str>,
        (kind, cursor): (PolicyKind, Arc<Cursor>),
        backends: Box<[BackendView]>,
        rule: panic::Rule,
    ) -> Self {
        let wanted = backends.iter().filter(|view| view.admin == AdminState::Ready);
        // Whoever has not been checked yet may be ready in a moment.
        let ready = wanted.clone().filter(|view| view.in_rotation() || view.health == Health::Unknown).count();
        let in_panic = panic::is_below(rule.percent, ready, wanted.count())
            && backends.iter().any(|view| view.serves_in_panic(rule));
        let in_rotation = backends.iter().filter(|view| view.in_rotation());
        let most_tenths = in_rotation.map(|view| view.tenths).max().unwrap_or_default().max(1);
        let policy = kind.build(Vec::new());
        let mut pool = Self { name, cursor, backends, policy, kind, in_panic, most_tenths, rule, gate: None };
        let used = || pool.backends.iter().enumerate().filter(|(_, view)| pool.takes_requests(view));
        let share = |view: &BackendView| if in_panic { slow_start::WHOLE } else { view.tenths };
        let weights: Vec<_> = used().map(|(_, view)| (view.backend.spec.weight, share(view))).collect();
        let slots = used().map(|(slot, view)| (slot as Slot, Arc::clone(&view.backend)));
        let scaled = slots.zip(slow_start::scaled(&weights));
        pool.policy = kind.build(scaled.map(|((slot, backend), weight)| (slot, backend, weight)).collect());
        pool
    }

    /// Whether new requests may go to `view`, which is one of this pool's backends.
    pub fn takes_requests(&self, view: &BackendView) -> bool {
        view.in_rotation() || (self.in_panic && view.serves_in_panic(self.rule))
    }

    /// The part of its weight that `view`, one of this pool's backends, gets now: 0 to 1.
    pub fn share_of(&self, view: &BackendView) -> f64 {
        match (self.takes_requests(view), self.in_panic) {
            (false, _) => 0.0,
            (true, true) => 1.0,
            (true, false) => f64::from(view.tenths) / f64::from(self.most_tenths),
        }
    }

    /// Of `most`, which each backend may have, what `view`, one that takes requests, may have now: at least 1.
    pub fn part_of(&self, view: &BackendView, most: u64) -> u64 {
        if self.in_panic || view.tenths >= self.most_tenths {
            return most;
        }
        most.saturating_mul(u64::from(view.tenths)).div_ceil(u64::from(self.most_tenths)).max(1)
    }

    /// The same, with a limit to what may be under way.
    pub fn with_gate(self, gate: Option<Arc<Gate>>) -> Self {
        Self { gate, ..self }
    }

    /// How many backends take requests: those in rotation, or in a panic all that may serve.
    pub fn used(&self) -> usize {
        self.backends.iter().filter(|view| self.takes_requests(view)).count()
    }

    /// How many backends are in rotation.
    pub fn ready(&self) -> usize {
        self.backends.iter().filter(|view| view.in_rotation()).count()
    }

    /// The pool's state, from its backends alone.
    pub fn state(&self) -> PoolState {
        let wanted = self.backends.iter().filter(|view| view.admin == AdminState::Ready).count();
        match self.ready() {
            _ if self.in_panic => PoolState::Panic,
            0 => PoolState::Down,
            ready if ready < wanted => PoolState::Degraded,
            _ => PoolState::Ok,
        }
    }

    /// The state in words: `2 of 3 backends ready; 127.0.0.1:8082 down: connection refused`.
    pub fn reason(&self) -> String {
        let mut words = format!("{} of {} backends ready", self.ready(), self.backends.len());
        if self.in_panic {
            let _ = write!(words, ", too few: in panic all {} that take connections are used", self.used());
        }
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
            ejected: false,
            tenths: slow_start::WHOLE,
            reason_code: ReasonCode::ChecksPass,
            reason: "because".into(),
            cut: false,
        }
    }

    fn pool(views: Vec<BackendView>) -> PoolView {
        PoolView::new(
            "p".into(),
            Default::default(),
            views.into(),
            panic::Rule { percent: 30, checks_elsewhere: false },
        )
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
            assert_eq!(pool.policy.pick(&pool.cursor, &Tried::default(), &|| 0), Some(1));
        }
        assert_eq!(pool.state(), PoolState::Degraded);
        let reason = pool.reason();
        assert!(reason.starts_with("1 of 5 backends ready; b0 down: because; b2 draining"), "{reason}");
    }

    fn picked(pool: &PoolView, picks: usize) -> Vec<usize> {
        let mut counts = vec![0; pool.backends.len()];
        for _ in 0..picks {
            counts[usize::from(pool.policy.pick(&pool.cursor, &Tried::default(), &|| 0).unwrap())] += 1;
        }
        counts
    }

    #[test]
    fn an_ejected_backend_is_not_picked_and_a_starting_one_by_its_share() {
        use AdminState::Ready;
        let ejected = BackendView { ejected: true, ..view(0, Ready, Health::Up) };
        let starting = BackendView { tenths: 4, ..view(1, Ready, Health::Up) };
        let pool = pool(vec![ejected, starting, view(2, Ready, Health::Up)]);
        assert_eq!(picked(&pool, 140), [0, 40, 100]);
        assert_eq!((pool.state(), pool.backends[0].state()), (PoolState::Degraded, BackendState::Ejected));
    }

    #[test]
    fn in_panic_all_are_used_that_take_connections_and_that_the_operator_wants() {
        use AdminState::{Drain, Maintenance, Ready};
        let ejected = BackendView { ejected: true, ..view(0, Ready, Health::Up) };
        let failing = view(1, Ready, Health::Down);
        let refused = |id| BackendView { reason_code: ReasonCode::ConnectionRefused, ..view(id, Ready, Health::Down) };
        let starting = BackendView { tenths: 1, ..view(2, Ready, Health::Up) };
        let out = [view(3, Drain, Health::Up), view(4, Maintenance, Health::Up)];
        let views: Vec<_> = [ejected, failing, starting].into_iter().chain(out).chain([refused(5)]).collect();
        let pool = pool(views);
        assert_eq!((pool.state(), pool.ready(), pool.used()), (PoolState::Panic, 1, 3));
        assert_eq!(picked(&pool, 30), [10, 10, 10, 0, 0, 0]);
        assert!(pool.reason().contains("1 of 6 backends ready, too few: in panic all 3"), "{}", pool.reason());
    }

    #[test]
    fn where_nobody_takes_connections_the_pool_is_down_and_not_in_panic() {
        let refused = |id| BackendView {
            reason_code: ReasonCode::ConnectionRefused,
            ..view(id, AdminState::Ready, Health::Down)
        };
        let pool = pool(vec![refused(0), refused(1)]);
        assert_eq!((pool.state(), pool.policy.pick(&pool.cursor, &Tried::default(), &|| 0)), (PoolState::Down, None));
    }

    #[test]
    fn where_checks_look_at_another_port_all_are_used_though_all_checks_are_refused() {
        let refused = |id| BackendView {
            reason_code: ReasonCode::ConnectionRefused,
            ..view(id, AdminState::Ready, Health::Down)
        };
        let rule = panic::Rule { percent: 30, checks_elsewhere: true };
        let pool = PoolView::new("p".into(), Default::default(), [refused(0), refused(1)].into(), rule);
        assert_eq!((pool.state(), picked(&pool, 10)), (PoolState::Panic, vec![5, 5]));
    }

    #[test]
    fn what_is_not_known_yet_is_no_reason_to_panic() {
        let unknown = |id| view(id, AdminState::Ready, Health::Unknown);
        let pool = pool(vec![view(0, AdminState::Ready, Health::Up), unknown(1), unknown(2), unknown(3)]);
        assert_eq!((pool.state(), picked(&pool, 4)[0]), (PoolState::Degraded, 4));
    }

    #[test]
    fn what_the_operator_took_out_does_not_degrade_a_pool() {
        use AdminState::{Drain, Ready};
        assert_eq!(pool(vec![view(0, Ready, Health::Up), view(1, Drain, Health::Up)]).state(), PoolState::Ok);
        assert_eq!(pool(vec![view(0, Drain, Health::Up)]).state(), PoolState::Down);
        assert_eq!(pool(vec![view(0, Ready, Health::Up), view(1, Ready, Health::Down)]).state(), PoolState::Degraded);
    }
}
