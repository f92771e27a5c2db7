use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::api::{AdminState, Health, ReasonCode};
use crate::backend::{BackendId, BackendSpec, HostPort};
use crate::queue::{Joined, Look};
use crate::snapshot::BackendView;

fn pool(backends: u32) -> PoolView {
    pool_of(&vec![crate::slow_start::WHOLE; backends as usize])
}

/// Of backends with these shares.
fn pool_of(tenths: &[u32]) -> PoolView {
    let view = |(id, tenths): (usize, &u32)| {
        let address = HostPort { host: "127.0.0.1".to_owned(), port: 8081 };
        BackendView {
            cut: false,
            ejected: false,
            tenths: *tenths,
            backend: Backend::new(BackendId(id as u32), BackendSpec { name: format!("b{id}"), address, weight: 1 }, 1),
            address: Some(SocketAddr::from(([127, 0, 0, 1], 8081))),
            admin: AdminState::Ready,
            health: Health::Up,
            reason_code: ReasonCode::ChecksPass,
            reason: "".into(),
        }
    };
    let rule = crate::panic::Rule { percent: 0, checks_elsewhere: false };
    PoolView::new("p".into(), Default::default(), tenths.iter().enumerate().map(view).collect(), rule)
}

fn gate(requests: Option<u64>, requests_per_backend: Option<u64>) -> Gate {
    Gate::new(GateLimits { requests, requests_per_backend, queue: 1024 })
}

fn in_flight(pool: &PoolView) -> Vec<u64> {
    pool.backends.iter().map(|view| view.backend.in_flight()).collect()
}

#[test]
fn full_backends_are_passed_over_and_the_others_share_their_turns() {
    let (gate, pool) = (gate(None, Some(2)), pool(4));
    // One is full for the whole time.
    for _ in 0..2 {
        pool.backends[1].backend.enter();
    }
    let mut counts = [0; 4];
    for _ in 0..3000 {
        let Taken::Slot(slot) = gate.take(&pool, &Tried::default(), &|| 0) else { panic!("three have room") };
        counts[usize::from(slot)] += 1;
        gate.leave(&pool.backends[usize::from(slot)].backend);
    }
    assert_eq!(counts, [1000, 0, 1000, 1000], "its neighbour has no double share");
}

#[test]
fn one_that_starts_slowly_has_its_share_of_the_limit_and_at_least_one() {
    let fill = |most, tenths: &[u32]| {
        let (gate, pool) = (gate(None, Some(most)), pool_of(tenths));
        while gate.take(&pool, &Tried::default(), &|| 0) != Taken::Full {}
        in_flight(&pool)
    };
    assert_eq!(fill(100, &[10, 1, 5]), [100, 10, 50]);
    assert_eq!(fill(5, &[10, 1, 5]), [5, 1, 3]);
    assert_eq!(fill(100, &[2, 2, 1]), [100, 100, 50], "shares are relative");
}

#[test]
fn what_is_full_and_what_is_not_there_are_told_apart() {
    let (gate, pool) = (gate(None, Some(1)), pool(2));
    let mut tried = Tried::default();
    assert_eq!([gate.take(&pool, &tried, &|| 0), gate.take(&pool, &tried, &|| 0)], [Taken::Slot(0), Taken::Slot(1)]);
    assert_eq!(gate.take(&pool, &tried, &|| 0), Taken::Full);
    tried.insert(0);
    gate.leave(&pool.backends[0].backend);
    assert_eq!(gate.take(&pool, &tried, &|| 0), Taken::Full, "what is free was tried");
    tried.insert(1);
    assert_eq!(gate.take(&pool, &tried, &|| 0), Taken::Nobody);
    assert_eq!(gate.take(&self::pool(0), &Tried::default(), &|| 0), Taken::Nobody);
    assert_eq!(in_flight(&pool), [0, 1]);
}

#[test]
fn the_limit_of_a_pool_holds_over_all_its_backends_and_what_finds_nobody_is_not_counted() {
    let (gate, pool) = (gate(Some(3), None), pool(2));
    let take = |tried: &Tried| gate.take(&pool, tried, &|| 0);
    let mut both = Tried::default();
    both.insert(0);
    both.insert(1);
    for _ in 0..10 {
        assert_eq!(take(&both), Taken::Nobody);
    }
    assert_eq!([take(&Tried::default()), take(&Tried::default())], [Taken::Slot(0), Taken::Slot(1)]);
    assert_eq!([take(&Tried::default()), take(&Tried::default())], [Taken::Slot(0), Taken::Full]);
    gate.leave(&pool.backends[1].backend);
    assert_eq!(take(&Tried::default()), Taken::Slot(1));
    assert_eq!(in_flight(&pool), [2, 1]);
}

#[test]
fn every_backend_of_many_is_asked_before_the_answer_is_no() {
    let (gate, pool) = (gate(None, Some(1)), pool(200));
    for taken in 0..200 {
        assert!(matches!(gate.take(&pool, &Tried::default(), &|| 0), Taken::Slot(_)), "after {taken}");
    }
    assert_eq!(gate.take(&pool, &Tried::default(), &|| 0), Taken::Full);
    assert!(in_flight(&pool).iter().all(|count| *count == 1));
}

#[test]
fn what_cannot_make_its_deadline_is_told_by_the_line_before_it() {
    assert!(hopeless(0, 0, 0, 10));
    assert!(!hopeless(1, 0, 1000, 1), "nothing is known of how long it takes");
    assert!(hopeless(99, 100, 0, 10) && !hopeless(100, 100, 9, 10));
    assert!(hopeless(199, 100, 10, 10) && !hopeless(200, 100, 10, 10));
    let gate = gate(Some(20), Some(4));
    gate.set_typical_ms(100);
    let three = pool(3);
    assert!(!gate.is_hopeless(200, 23, &three) && gate.is_hopeless(199, 12, &three), "three serve twelve at a time");
    let many = pool(100);
    assert!(!gate.is_hopeless(199, 19, &many) && gate.is_hopeless(199, 20, &many), "and the pool no more than twenty");
    // In a panic those serve that checks have nothing good to say of.
    let mut views = pool(10).backends;
    views[1..].iter_mut().for_each(|view| (view.health, view.reason_code) = (Health::Down, ReasonCode::WrongStatus));
    let rule = crate::panic::Rule { percent: 30, checks_elsewhere: false };
    let panicking = PoolView::new("p".into(), Default::default(), views, rule);
    assert!(panicking.in_panic && !gate.is_hopeless(199, 19, &panicking));
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// A place of the pool, as the balancer keeps it: given back whatever happens.
struct Permit<'a>(&'a Gate, &'a PoolView, Slot);

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.leave(&self.1.backends[usize::from(self.2)].backend);
    }
}

fn take<'a>(gate: &'a Gate, pool: &'a PoolView, tried: &Tried) -> Option<Permit<'a>> {
    match gate.take(pool, tried, &|| 0) {
        Taken::Slot(slot) => Some(Permit(gate, pool, slot)),
        _ => None,
    }
}

fn look<'a>(gate: &'a Gate, pool: &'a PoolView, tried: &Tried) -> Look<Permit<'a>> {
    take(gate, pool, tried).map_or(Look::Nothing, Look::Took)
}

/// Waits for a place as a worker does, and for at most `looks` wake-ups.
fn enter<'a>(gate: &'a Gate, pool: &'a PoolView, tried: &Tried, looks: usize) -> Option<Permit<'a>> {
    if gate.queue.waiting() == 0
        && let Some(permit) = take(gate, pool, tried)
    {
        return Some(permit);
    }
    let picky = !tried.is_empty();
    let mut ticket = match gate.queue.join(picky, 0, || look(gate, pool, tried)).expect("the line is long enough") {
        Joined::Through(permit) => return Some(permit),
        Joined::Waits(ticket) => ticket,
    };
    let waker: Waker = Arc::new(Unpark(std::thread::current())).into();
    let begun = Instant::now();
    for _ in 0..looks {
        if let Some(permit) = ticket.turn(&waker, || look(gate, pool, tried)) {
            return Some(permit);
        }
        std::thread::park_timeout(Duration::from_secs(20));
        assert!(begun.elapsed() < Duration::from_secs(20), "a wake-up was lost");
    }
    None
}

#[test]
fn many_threads_never_exceed_the_limits_and_no_wake_up_is_lost() {
    let (gate, pool) = (gate(Some(5), Some(2)), pool(3));
    let inside = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (gate, pool, inside) = (&gate, &pool, &inside);
            scope.spawn(move || {
                let mut number = thread;
                for round in 0..3000 {
                    number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let mut tried = Tried::default();
                    if number >> 61 == 0 {
                        tried.insert((number >> 32) as Slot % 3);
                    }
                    // Some are woken once and leave all the same, some leave at once.
                    let looks = if number >> 60 & 3 == 3 { (number >> 40) as usize % 2 } else { usize::MAX };
                    let Some(permit) = enter(gate, pool, &tried, looks) else { continue };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < 5, "more than the pool may have");
                    assert!(pool.backends[usize::from(permit.2)].backend.in_flight() <= 2);
                    if round % 3 == 0 {
                        std::thread::yield_now();
                    }
                    inside.fetch_sub(1, Ordering::SeqCst);
                    if round % 500 == 0 {
                        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                            let _permit = permit;
                            std::panic::resume_unwind(Box::new("in a request"));
                        }));
                        assert!(panicked.is_err());
                    }
                }
            });
        }
    });
    assert_eq!((in_flight(&pool), gate.active.load(Ordering::SeqCst)), (vec![0; 3], 0));
    assert_eq!(gate.queue.waiting(), 0);
}

proptest! {
    #[test]
    fn counts_come_back_to_nothing(
        steps in prop::collection::vec((any::<bool>(), any::<usize>(), 0..4_u16), 1..300),
        requests in prop::option::of(1..6_u64),
        per_backend in prop::option::of(1..3_u64),
    ) {
        let (gate, pool) = (gate(requests, per_backend), pool(3));
        let mut permits = Vec::new();
        for (arrives, which, avoid) in steps {
            if arrives {
                let mut tried = Tried::default();
                if avoid < 3 {
                    tried.insert(avoid);
                }
                let permit = take(&gate, &pool, &tried);
                prop_assert!(permit.as_ref().is_none_or(|permit| permit.2 != avoid));
                permits.extend(permit);
            } else if !permits.is_empty() {
                permits.swap_remove(which % permits.len());
            }
            prop_assert!(requests.is_none_or(|most| permits.len() as u64 <= most));
            prop_assert!(per_backend.is_none_or(|most| in_flight(&pool).iter().all(|count| *count <= most)));
            prop_assert_eq!(in_flight(&pool).iter().sum::<u64>(), permits.len() as u64);
        }
        drop(permits);
        prop_assert_eq!((in_flight(&pool), gate.active.load(Ordering::SeqCst)), (vec![0; 3], 0));
    }
}
