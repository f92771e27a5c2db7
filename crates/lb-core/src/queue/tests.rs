use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::Wake;

use proptest::prelude::*;

use super::*;

/// A waker that remembers that it was woken, as a runtime would.
#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Three servers with a few places each; what is waited for.
struct Places(RefCell<[u32; 3]>);

impl Places {
    fn look(&self, tried: u8) -> Look<Option<usize>> {
        match self.take(tried) {
            Some(at) => Look::Took(Some(at)),
            // All were tried: there is nothing to wait for.
            None if tried == 7 => Look::GivesUp(None),
            None => Look::Nothing,
        }
    }

    /// A place at a server that is not in the bit set `tried`.
    fn take(&self, tried: u8) -> Option<usize> {
        let mut free = self.0.borrow_mut();
        let at = (0..3).find(|at| tried & (1 << at) == 0 && free[*at] > 0)?;
        free[at] -= 1;
        Some(at)
    }

    fn could_take(&self, tried: u8) -> bool {
        (0..3).any(|at| tried & (1 << at) == 0 && self.0.borrow()[at] > 0)
    }
}

struct Waiting<'a> {
    ticket: Ticket<'a>,
    tried: u8,
    order: usize,
    flag: Arc<Flag>,
}

/// What a test run keeps.
struct Run<'a> {
    queue: &'a Queue,
    places: &'a Places,
    waiting: Vec<Waiting<'a>>,
    /// Servers of those that are through.
    busy: Vec<usize>,
    /// Of those that could use anything: by order of arrival, who is through, and who still waits.
    through: Vec<usize>,
    arrived: usize,
    refused: usize,
}

impl<'a> Run<'a> {
    fn new(queue: &'a Queue, places: &'a Places) -> Self {
        Run { queue, places, waiting: Vec::new(), busy: Vec::new(), through: Vec::new(), arrived: 0, refused: 0 }
    }

    fn arrive(&mut self, tried: u8) {
        let order = self.arrived;
        self.arrived += 1;
        // As the gate does it: only where nobody waits is the line passed by.
        if self.queue.waiting() == 0
            && let Some(at) = self.places.take(tried)
        {
            return self.busy.push(at);
        }
        match self.queue.join(tried != 0, 0, || self.places.look(tried)) {
            Ok(Joined::Through(at)) => self.is_through(tried, order, at),
            Ok(Joined::Waits(ticket)) => {
                let flag = Arc::new(Flag(AtomicBool::new(true)));
                self.waiting.push(Waiting { ticket, tried, order, flag });
            }
            Err(QueueFull) => self.refused += 1,
        }
    }

    fn is_through(&mut self, tried: u8, order: usize, at: Option<usize>) {
        self.busy.extend(at);
        if tried == 0 {
            self.through.push(order);
        }
    }

    fn release(&mut self, which: usize) {
        if !self.busy.is_empty() {
            let at = self.busy.swap_remove(which % self.busy.len());
            self.places.0.borrow_mut()[at] += 1;
            self.queue.freed();
        }
    }

    /// Lets one that was woken look; whether there was one.
    fn look(&mut self, which: usize) -> bool {
        let woken: Vec<usize> =
            (0..self.waiting.len()).filter(|at| self.waiting[*at].flag.0.load(Ordering::SeqCst)).collect();
        if woken.is_empty() {
            return false;
        }
        let at = woken[which % woken.len()];
        let waiting = &mut self.waiting[at];
        waiting.flag.0.store(false, Ordering::SeqCst);
        let waker = Arc::clone(&waiting.flag).into();
        let (tried, order) = (waiting.tried, waiting.order);
        if let Some(taken) = waiting.ticket.turn(&waker, || self.places.look(tried)) {
            self.waiting.remove(at);
            self.is_through(tried, order, taken);
        }
        true
    }

    fn leave(&mut self, which: usize) {
        if !self.waiting.is_empty() {
            self.waiting.remove(which % self.waiting.len());
        }
    }

    /// Lets everybody look who was woken, and checks what must hold then.
    fn settle(&mut self, which: usize) -> Result<(), TestCaseError> {
        while self.look(which) {}
        for waiting in &self.waiting {
            let could = self.places.could_take(waiting.tried);
            prop_assert!(!could, "{} waits while there is a place for it", waiting.order);
        }
        let last = self.through.iter().max().copied().unwrap_or_default();
        let first = self.waiting.iter().filter(|waiting| waiting.tried == 0).map(|waiting| waiting.order).min();
        prop_assert!(first.is_none_or(|first| first > last), "{last} is through before {first:?}");
        prop_assert!(self.queue.waiting() == self.waiting.len() && self.waiting.len() <= self.queue.most());
        Ok(())
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Arrive(u8),
    Release(usize),
    Look(usize),
    Leave(usize),
    /// A server has one place more.
    More(usize),
    Changed,
    Settle(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Arrive(0)),
        1 => (1..8_u8).prop_map(Step::Arrive),
        4 => any::<usize>().prop_map(Step::Release),
        3 => any::<usize>().prop_map(Step::Look),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => Just(Step::Changed),
        1 => (0..3_usize).prop_map(Step::More),
        1 => any::<usize>().prop_map(Step::Settle),
    ];
    prop::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn first_come_first_served_and_nobody_waits_beside_a_free_place(steps in steps(), most in 0..8_usize) {
        let (queue, places) = (Queue::new(most), Places(RefCell::new([1, 1, 2])));
        let mut run = Run::new(&queue, &places);
        let mut all = [1, 1, 2];
        for step in steps {
            match step {
                Step::Arrive(tried) => run.arrive(tried),
                Step::Release(which) => run.release(which),
                Step::Look(which) => { run.look(which); }
                Step::Leave(which) => run.leave(which),
                Step::More(at) => {
                    places.0.borrow_mut()[at] += 1;
                    all[at] += 1;
                    queue.changed();
                }
                Step::Changed => queue.changed(),
                Step::Settle(which) => run.settle(which)?,
            }
        }
        run.settle(0)?;
        // Whoever is left comes through as places become free, and nothing stays behind.
        while !run.busy.is_empty() {
            run.release(0);
            run.settle(0)?;
        }
        prop_assert!(run.waiting.is_empty() && queue.waiting() == 0);
        prop_assert_eq!(*places.0.borrow(), all);
        let line = queue.line();
        prop_assert!(line.standing.is_empty() && line.called.is_empty());
        prop_assert_eq!((line.easy, line.spare, line.sounding, line.sound_again), (0, 0, None, false));
    }
}

#[test]
fn a_full_line_refuses_and_a_line_of_none_refuses_at_once() {
    let queue = Queue::new(1);
    let first = queue.join(false, 0, || Look::Nothing::<()>);
    assert!(matches!(first, Ok(Joined::Waits(_))));
    assert_eq!(queue.join(false, 0, || Look::Nothing::<()>).err(), Some(QueueFull));
    drop(first);
    assert!(matches!(queue.join(false, 0, || Look::Nothing::<()>), Ok(Joined::Waits(_))));
    assert!(Queue::new(0).join(false, 0, || Look::Nothing::<()>).is_err());
    assert_eq!(queue.waiting(), 0);
}

#[test]
fn a_call_to_one_that_leaves_goes_to_the_next() {
    let queue = Queue::new(4);
    let join = |since_ms| match queue.join(false, since_ms, || Look::Nothing::<()>) {
        Ok(Joined::Waits(ticket)) => ticket,
        _ => panic!("there is nothing to take"),
    };
    let (first, mut second) = (join(5), join(7));
    assert_eq!((first.ahead, second.ahead, queue.longest_wait_ms(9)), (0, 1, 4));
    let flag = Arc::new(Flag::default());
    let waker = Arc::clone(&flag).into();
    assert_eq!(second.turn(&waker, || Look::Took(())), None, "it was not called");
    queue.freed();
    assert!(!flag.0.load(Ordering::SeqCst), "the first was");
    drop(first);
    assert!(flag.0.load(Ordering::SeqCst));
    assert_eq!(queue.longest_wait_ms(9), 2);
    assert_eq!(second.turn(&waker, || Look::Took(())), Some(()));
    assert_eq!((queue.waiting(), queue.joined(), queue.longest_wait_ms(9)), (0, 2, 0));
}

#[test]
fn who_comes_while_a_called_one_has_not_looked_yet_goes_behind_it() {
    let queue = Queue::new(4);
    let Ok(Joined::Waits(mut first)) = queue.join(false, 0, || Look::Nothing::<u8>) else { panic!() };
    queue.freed();
    let late = queue.join(false, 0, || Look::Took(1_u8));
    assert!(matches!(late, Ok(Joined::Waits(_))), "the place is the first one's");
    assert_eq!(first.turn(&Arc::new(Flag::default()).into(), || Look::Took(1)), Some(1));
}
