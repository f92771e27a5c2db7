//! Who waits when everything that may be used is in use: a bounded line, first come, first served, across all workers.
//!
//! What is waited for is counted elsewhere (the [`Gate`](crate::gate::Gate)); here is only the order. Whoever gives
//! something back calls [`Queue::freed`], which calls the first in the line; the called one looks again, and takes it.
//! Nobody else does meanwhile: while somebody waits, whoever comes joins the line, also when a place is free just now.
//!
//! Some cannot use everything (a repeated request does not go to a backend that it has tried): a called one that finds
//! nothing for itself passes the call on to the next behind it and keeps its place.
//!
//! # State
//! The line is behind one lock, taken only by who waits and by who frees something while somebody waits. Whether
//! somebody does is one number, written under the lock and read without it.
//!
//! # Race window
//! A place that becomes free while somebody joins is not missed: the joiner announces itself in [`Queue::waiting`]
//! first and looks for a place after that, the leaver counts itself out first and looks at the number after that. All
//! four are sequentially consistent, so at least one sees the other. And since looking, joining and calling all happen
//! under the lock, a call finds everybody either in the line or through.
//!
//! Whoever saw nobody waiting and was held up
//! before it took a place may take the one that a waiter was called for; the waiter keeps its place in the line, and
//! is called by whoever leaves next.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use crossbeam_utils::CachePadded;

/// The line.
#[derive(Debug)]
pub struct Queue {
    most: usize,
    /// How many are in the line, or about to be. Written under the lock.
    waiting: CachePadded<AtomicUsize>,
    /// How many ever joined.
    joined: AtomicU64,
    line: Mutex<Line>,
}

#[derive(Debug, Default)]
struct Line {
    next_number: u64,
    /// Those that nobody has called yet, by number.
    standing: BTreeMap<u64, Waiter>,
    /// Those that were called and have not looked yet.
    called: BTreeMap<u64, Waiter>,
    /// How many of both can use whatever is free.
    easy: usize,
    /// Calls that nobody in the line has an answer to: whoever joins may look for what they were about.
    spare: usize,
    /// Nobody knows what there is: one after the other looks, this one now, until one finds nothing that would take
    /// anything. Nobody else is called meanwhile.
    sounding: Option<u64>,
    /// Something was freed meanwhile, which those that have looked already may want.
    sound_again: bool,
}

#[derive(Debug)]
struct Waiter {
    since_ms: u64,
    picky: bool,
    waker: Option<Waker>,
}

/// The line is as long as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// What a look around came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look<T> {
    /// There was something, and it is taken.
    Took(T),
    /// There is nothing for this one.
    Nothing,
    /// Nothing was taken, and it waits no longer.
    GivesUp(T),
}

/// What came of joining.
#[derive(Debug)]
pub enum Joined<'a, T> {
    /// There was something to take, or it did not want to wait.
    Through(T),
    /// It must wait.
    Waits(Ticket<'a>),
}

/// A place in the line; given up when dropped.
#[derive(Debug)]
pub struct Ticket<'a> {
    queue: &'a Queue,
    number: u64,
    /// How many were before it when it joined.
    pub ahead: usize,
}

impl Queue {
    /// A line of at most `most`.
    pub fn new(most: usize) -> Self {
        Self { most, waiting: CachePadded::default(), joined: AtomicU64::new(0), line: Mutex::default() }
    }

    /// How many may wait.
    pub fn most(&self) -> usize {
        self.most
    }

    /// How many wait. One load: the whole price where nobody does.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many have ever had to wait.
    pub fn joined(&self) -> u64 {
        self.joined.load(Ordering::Relaxed)
    }

    /// For how long the first in the line has waited.
    pub fn longest_wait_ms(&self, now_ms: u64) -> u64 {
        let line = self.line();
        let first = |waiters: &BTreeMap<u64, Waiter>| waiters.values().next().map(|waiter| waiter.since_ms);
        let since = first(&line.standing).into_iter().chain(first(&line.called)).min();
        since.map_or(0, |since_ms| now_ms.saturating_sub(since_ms))
    }

    /// Joins the line, unless `take` finds something that nobody in it waits for. `picky` says that `take` may refuse
    /// what others would take. `since_ms` is now, on the clock of [`Self::longest_wait_ms`].
    ///
    /// # Errors
    /// The line is full.
    pub fn join<T>(
        &self,
        picky: bool,
        since_ms: u64,
        take: impl FnOnce() -> Look<T>,
    ) -> Result<Joined<'_, T>, QueueFull> {
        let mut line = self.line();
        let announced = Announced::new(&self.waiting);
        // Behind somebody who takes anything there is only what was freed beyond what the called ones will take.
        if line.easy == 0 || line.spare > 0 {
            match take() {
                Look::Took(taken) => {
                    line.spare = line.spare.saturating_sub(1);
                    return Ok(Joined::Through(taken));
                }
                Look::GivesUp(taken) => return Ok(Joined::Through(taken)),
                Look::Nothing => line.found_nothing(picky),
            }
        }
        let ahead = line.standing.len() + line.called.len();
        if ahead >= self.most {
            return Err(QueueFull);
        }
        let number = line.next_number;
        line.next_number += 1;
        line.easy += usize::from(!picky);
        line.standing.insert(number, Waiter { since_ms, picky, waker: None });
        self.joined.fetch_add(1, Ordering::Relaxed);
        announced.stays();
        Ok(Joined::Waits(Ticket { queue: self, number, ahead }))
    }

    /// Something was given back. Call it after the count says so.
    pub fn freed(&self) {
        if self.waiting() > 0 {
            let mut line = self.line();
            match line.sounding {
                Some(_) => line.sound_again = true,
                None => line.pass_on(0),
            }
        }
    }

    /// What there is has changed: the first in the line looks, and as long as they find something, the next.
    pub fn changed(&self) {
        if self.waiting() > 0 {
            let mut line = self.line();
            line.call_off();
            line.sounding = line.call_next(0);
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // A panic inside can only come from `take`, which is not half way through anything of ours.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// Calls the first standing one from `number` on; which, if there was one.
    fn call_next(&mut self, number: u64) -> Option<u64> {
        let (number, _) = self.standing.range(number..).next()?;
        let number = *number;
        let mut waiter = self.standing.remove(&number)?;
        if let Some(waker) = waiter.waker.take() {
            waker.wake();
        }
        self.called.insert(number, waiter);
        Some(number)
    }

    /// A call for something that was freed, to the first standing one from `number` on, or left to whoever joins next.
    fn pass_on(&mut self, number: u64) {
        if self.call_next(number).is_none() {
            self.spare += 1;
        }
    }

    /// `called` has looked, or left: who is next, from `number` on.
    fn go_on(&mut self, called: u64, taken: bool, number: u64) {
        if self.sounding != Some(called) {
            if !taken {
                self.pass_on(number);
            }
            return;
        }
        self.sounding = self.call_next(number);
        if self.sounding.is_none() && std::mem::take(&mut self.sound_again) {
            self.sounding = self.call_next(0);
        }
    }

    /// Whoever was called stands again.
    fn call_off(&mut self) {
        self.standing.append(&mut self.called);
        (self.spare, self.sounding, self.sound_again) = (0, None, false);
    }

    /// Somebody looked in vain. If it would have taken anything, there is nothing for anybody, and no call is worth
    /// anything: the next thing that is freed goes to the first in the line.
    fn found_nothing(&mut self, picky: bool) {
        if !picky {
            self.call_off();
        }
    }

    fn leave(&mut self, waiter: &Waiter, waiting: &AtomicUsize) {
        self.easy -= usize::from(!waiter.picky);
        if self.called.is_empty() && self.standing.is_empty() {
            (self.spare, self.sounding, self.sound_again) = (0, None, false);
        }
        waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticket<'_> {
    /// If it was called: what `take` finds, and the place in the line is given up. `None` while it must wait; `waker` is
    /// woken when it is called.
    pub fn turn<T>(&mut self, waker: &Waker, take: impl FnOnce() -> Look<T>) -> Option<T> {
        let mut line = self.queue.line();
        if let Some(waiter) = line.standing.get_mut(&self.number) {
            if !waiter.waker.as_ref().is_some_and(|stored| stored.will_wake(waker)) {
                waiter.waker = Some(waker.clone());
            }
            return None;
        }
        // Through already.
        if !line.called.contains_key(&self.number) {
            return None;
        }
        let look = take();
        let mut waiter = line.called.remove(&self.number)?;
        let (taken, through) = match look {
            Look::Took(through) => (true, through),
            Look::GivesUp(through) => (false, through),
            Look::Nothing => {
                let picky = waiter.picky;
                waiter.waker = Some(waker.clone());
                line.standing.insert(self.number, waiter);
                line.found_nothing(picky);
                if picky {
                    line.go_on(self.number, false, self.number + 1);
                }
                return None;
            }
        };
        line.go_on(self.number, taken, 0);
        line.leave(&waiter, &self.queue.waiting);
        Some(through)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut line = self.queue.line();
        let called = line.called.remove(&self.number);
        let was_called = called.is_some();
        let Some(waiter) = called.or_else(|| line.standing.remove(&self.number)) else { return };
        // A call that is not answered goes to the next.
        if was_called {
            line.go_on(self.number, false, 0);
        }
        line.leave(&waiter, &self.queue.waiting);
    }
}

/// One more in [`Queue::waiting`], for as long as it is not sure whether it must wait.
struct Announced<'a>(&'a AtomicUsize);

impl<'a> Announced<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }

    fn stays(self) {
        std::mem::forget(self);
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
