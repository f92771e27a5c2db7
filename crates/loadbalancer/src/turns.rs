//! Whose turn it is to begin a request, while many want to: what was begun is finished first.
//!
//! A worker that is asked more than it can do finds hundreds of requests waiting each time it looks. Were it to begin them
//! all before it looks again, each of their answers would wait behind all the others' beginnings, and by the time it comes,
//! nothing of the request would be left in the processor's cache, of ours nor of the kernel's. So it begins a few, then
//! looks what has been answered meanwhile, finishes that, and goes on with the next few. Nobody waits for an answer here:
//! if none has come, the next are begun at once. So this decides in which order things are done, not how many there are.
//!
//! Those who have to wait are served in the order in which they came.
//!
//! State: one [`Turns`] per worker, and a [`Turn`] with each connection's deadline; written by the worker's own tasks only.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::clock::Clock;
use crate::deadline::Deadline;

/// How many are begun between two looks. A look is a system call, and half a microsecond: of so many still a small part. What
/// one touches, here and in the kernel, is some 20 KB, and what is begun must still be in a core's own cache, beside all else that
/// the request runs through, when its answer comes. Timed against 32, slices of load in turn within one run, CPU per request:
/// with 64 clients 1 to 2 % less with 16, the same with 8, 1 % more with 64; with 1,000 clients 3 to 4 % less, 5 % less, 6 % more.
const MOST_BEGUN: u32 = 16;

/// So many more may begin for each of these that a look took: those who wait for their turn shall not be starved by others
/// who have much to do, such as large bodies. Some three times what so many small requests take themselves: were it less,
/// each look would let more begin than the one before, until all do.
const EACH: Duration = Duration::from_millis(1);

/// Room for so many is kept whatever comes: some KiB.
const FEW: usize = 1024;

/// Whether a connection waits for its turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Turn {
    #[default]
    None,
    Waits,
    /// It may begin at its next poll.
    Has,
}

/// Who may begin a request.
#[derive(Default)]
pub(crate) struct Turns {
    /// How many were begun since the usher last let some begin. It looks only while somebody waits, so on a quiet worker one
    /// poll in so many goes through the line for nothing: some microseconds.
    begun: Cell<u32>,
    /// Each connection at most once.
    line: RefCell<VecDeque<Rc<Deadline>>>,
    /// The usher's, while nobody waits. It is not woken while it looks: that would end its look too soon.
    usher: Cell<Option<Waker>>,
}

impl Turns {
    /// Whether a connection that has nothing under way may begin something now. If not, it is woken when it may.
    pub(crate) fn may_begin(&self, connection: &Rc<Deadline>) -> bool {
        match connection.turn.get() {
            Turn::Has => {
                connection.turn.set(Turn::None);
                true
            }
            Turn::Waits => false,
            Turn::None if self.begun.get() < MOST_BEGUN && self.line.borrow().is_empty() => {
                self.begun.set(self.begun.get() + 1);
                true
            }
            Turn::None => {
                connection.turn.set(Turn::Waits);
                self.line.borrow_mut().push_back(Rc::clone(connection));
                if let Some(usher) = self.usher.take() {
                    usher.wake();
                }
                false
            }
        }
    }

    /// Lets the next in the line begin, as many as may after a look that took so long.
    fn go_on(&self, took: Duration) {
        let most = MOST_BEGUN.saturating_add(MOST_BEGUN.saturating_mul((took.as_nanos() / EACH.as_nanos()) as u32));
        let mut line = self.line.borrow_mut();
        let mut begun = 0;
        while begun < most
            && let Some(connection) = line.pop_front()
        {
            // Of one that has gone meanwhile, this is all that is left.
            if Rc::strong_count(&connection) > 1 {
                connection.turn.set(Turn::Has);
                connection.wake();
                begun += 1;
            }
        }
        self.begun.set(begun);
        if line.is_empty() && line.capacity() > FEW {
            line.shrink_to(FEW);
        }
    }

    fn poll_wanted(&self, cx: &Context<'_>) -> Poll<()> {
        if self.line.borrow().is_empty() {
            self.usher.set(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

/// Sees to it that those who wait get their turn.
pub(crate) async fn usher(turns: &Turns, clock: &Clock) {
    loop {
        poll_fn(|cx| turns.poll_wanted(cx)).await;
        let before = clock.read();
        // The runtime looks what has happened before it goes on with a task that yields, and has those that it happened to
        // go first.
        tokio::task::yield_now().await;
        turns.go_on(clock.read().since(before));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::clock::Tick;
    use crate::deadline::{Sweep, Waiting};

    fn connections(count: u32) -> Vec<Rc<Deadline>> {
        let sweep = Sweep::default();
        (0..count).map(|_| sweep.enter(Waiting::NextRequest, Tick::default())).collect()
    }

    #[test]
    fn some_begin_at_once_and_the_rest_in_the_order_in_which_they_came() {
        let turns = Turns::default();
        let connections = connections(3 * MOST_BEGUN);
        let begin = || -> Vec<bool> { connections.iter().map(|connection| turns.may_begin(connection)).collect() };
        let first: Vec<bool> = (0..3 * MOST_BEGUN).map(|nth| nth < MOST_BEGUN).collect();
        assert_eq!(begin(), first);
        // Whoever asks again keeps its place, and nobody gets ahead of the line.
        turns.begun.set(0);
        assert!(!turns.may_begin(&connections[0]) && !turns.may_begin(&connections[connections.len() - 1]));
        for round in 0..2 {
            turns.go_on(Duration::ZERO);
            let now = |nth: u32| connections[nth as usize].turn.get() == Turn::Has;
            let has: Vec<u32> = (0..3 * MOST_BEGUN).filter(|nth| now(*nth)).collect();
            let (from, to) = (MOST_BEGUN * (round + 1), MOST_BEGUN * (round + 2));
            assert_eq!(has, (from..to).collect::<Vec<_>>(), "the first of all asked again, and is behind them");
            assert!(has.iter().all(|nth| turns.may_begin(&connections[*nth as usize])));
        }
        turns.go_on(Duration::ZERO);
        assert_eq!(connections[0].turn.get(), Turn::Has);
    }

    #[test]
    fn after_a_long_look_more_may_begin_and_who_has_gone_takes_no_turn() {
        let turns = Turns::default();
        let mut connections = connections(20 * MOST_BEGUN);
        let begun = connections.iter().filter(|connection| turns.may_begin(connection)).count();
        assert_eq!(begun, MOST_BEGUN as usize);
        connections.drain(MOST_BEGUN as usize..2 * MOST_BEGUN as usize);
        let has = || connections.iter().filter(|connection| connection.turn.get() == Turn::Has).count() as u32;
        turns.go_on(EACH - Duration::from_nanos(1));
        assert_eq!(has(), MOST_BEGUN);
        turns.go_on(10 * EACH);
        assert_eq!(has(), 12 * MOST_BEGUN);
        turns.go_on(Duration::MAX);
        assert_eq!(has(), 18 * MOST_BEGUN, "all that are left");
        assert!(turns.line.borrow().is_empty() && turns.line.borrow().capacity() <= FEW);
    }

    #[test]
    fn everybody_gets_a_turn_and_what_is_answered_comes_before_what_begins() {
        let runtime =
            Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).expect("a runtime");
        let turns = Rc::new(Turns::default());
        let (under_way, most, done) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let own = Rc::clone(&turns);
        // A clock that stands still: on a busy machine a look may take long, and more would begin for it.
        let still = Clock::since(Instant::now() + Duration::from_secs(3600));
        runtime.spawn_local(async move { usher(&own, &still).await });
        let tasks: Vec<_> = connections(1000)
            .into_iter()
            .map(|connection| {
                let (turns, under_way, most, done) =
                    (Rc::clone(&turns), Rc::clone(&under_way), Rc::clone(&most), Rc::clone(&done));
                runtime.spawn_local(async move {
                    for _ in 0..5 {
                        poll_fn(|cx| {
                            connection.watch(cx.waker());
                            if turns.may_begin(&connection) { Poll::Ready(()) } else { Poll::Pending }
                        })
                        .await;
                        under_way.set(under_way.get() + 1);
                        most.set(most.get().max(under_way.get()));
                        // The answer is there at the next look.
                        tokio::task::yield_now().await;
                        under_way.set(under_way.get() - 1);
                        done.set(done.get() + 1);
                    }
                })
            })
            .collect();
        runtime.block_on(async {
            for task in tasks {
                tokio::time::timeout(Duration::from_secs(60), task).await.expect("in time").expect("no panic");
            }
        });
        assert_eq!(done.get(), 5000);
        assert!(most.get() <= 2 * MOST_BEGUN, "{} were under way at a time", most.get());
    }
}
