//! Whether an attempt that ended is followed by another, where that goes, and when.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::{Method, StatusCode};
use lb_core::metrics::LocalReply;
use lb_core::policy::{MAX_ATTEMPTS, Slot, Tried};
use lb_core::retry::{ActiveRetries, Refused, Repeat, Repeats, RetryCause, RetryLimits, backoff};

use super::super::admit;
use super::{Broken, Cause, Outbound, Route};
use crate::conn::Client;
use crate::deadline::Waiting;
use crate::upstream::ExchangeError;

/// How much a wait between attempts may be late before it is given up: the timer's own lateness, and a busy machine's.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a repeat waits for a place among those under way: about half a second in all. Whoever waits that long waits
/// for a pool that does not answer.
const WAITS: u32 = 5;

/// How much repeating was done.
#[derive(Default)]
pub(super) struct Spent<'a> {
    pub tried: Tried,
    pub repeats: Repeats,
    /// What was tried and how it failed, for the reply.
    pub story: String,
    /// Only a fresh connection will do: a kept one has just turned out to be closed, and its neighbours may be too.
    pub fresh: bool,
    /// The place among the repeats under way.
    place: Option<Place<'a>>,
}

/// One of the repeats under way, given back when the response head is there or nothing is tried any more.
struct Place<'a>(&'a ActiveRetries);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// An attempt that ended without an answer for the client.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub slot: Slot,
    pub why: RetryCause,
    /// Whether the body can be sent again.
    pub replayable: bool,
    /// It was on a kept connection that may have been closed before the request came.
    pub raced: bool,
}

/// What comes next.
pub(super) struct Next {
    pub why: RetryCause,
    pub wait: Option<Duration>,
}

/// Why `broken` may be repeated, as far as it itself goes; `None` when it must not be.
pub(super) fn cause(broken: &Broken) -> Option<RetryCause> {
    match &broken.cause {
        Cause::Connect(_) => Some(RetryCause::Connect),
        Cause::Exchange(ExchangeError::Closed(_) | ExchangeError::Drained) if broken.written == 0 => {
            Some(RetryCause::Unsent)
        }
        Cause::Exchange(ExchangeError::Closed(_)) if broken.raced => Some(RetryCause::Stale),
        // RFC 9110 §9.2.2: until the client is able to read the response. Of a head it gets all or nothing.
        Cause::Exchange(ExchangeError::Closed(_) | ExchangeError::HeadCut(_) | ExchangeError::Drained) => {
            Some(RetryCause::Closed)
        }
        Cause::Exchange(ExchangeError::TryTimeout) => Some(RetryCause::TryTimeout),
        Cause::OutOfMeans(_) | Cause::NoPlace | Cause::Exchange(_) | Cause::Overdue => None,
    }
}

/// Where to go after an attempt that ended, or `None` when it must not or cannot be repeated; the story says what stood
/// in the way if that is no property of the request.
///
/// # Cancel safety
/// As of [`pause`].
pub(super) async fn next<'a>(
    client: &'a Client,
    route: &Route,
    request: &Outbound<'_>,
    ending: Ending,
    spent: &mut Spent<'a>,
) -> Option<Next> {
    let Ending { slot: current, why, replayable, raced } = ending;
    if !replayable || spent.tried.len() >= MAX_ATTEMPTS {
        return None;
    }
    spent.fresh |= raced;
    if why == RetryCause::Status && route.pool().gate.as_ref().is_some_and(|gate| gate.queue.waiting() > 0) {
        // An answer that is there goes out rather than to wait for a place behind others.
        spent.story.push_str("  not tried again: others wait for a place\n");
        return None;
    }
    // Whoever wants a backend free gets no request back on it.
    passed_over(client, spent.tried, current)?;
    let untried = admit::has_another(client, &spent.tried);
    let Repeat { paid, wait } =
        spent.repeats.allow(why, limits(client), is_idempotent(&request.head.method), untried)?;
    let mut wait = wait.map(|nth| backoff(nth, client.worker.random() as u64));
    if !is_time_for(client, wait.unwrap_or_default()) {
        spent.story.push_str("  not tried again: the time for the request would pass\n");
        return None;
    }
    if paid {
        // A response that is there already goes out rather than to wait for a place.
        let waits = if why == RetryCause::Status { 0 } else { WAITS };
        if waits > 0 {
            // Before it takes a place, so that places are held for attempts, not for waits.
            pause(client, wait.take()).await;
        }
        if let Err(refused) = pay(client, route, spent, waits).await {
            client.worker.slot().shard.retries_refused[refused as usize].add(1);
            let _ = writeln!(spent.story, "  not tried again: {}", refused.words());
            return None;
        }
    }
    Some(Next { why, wait })
}

fn is_time_for(client: &Client, wait: Duration) -> bool {
    client.time_left().is_none_or(|left| left > wait)
}

/// Which backends a repeat passes over: those that were tried; if there is no other, the last one, since the others had
/// longer to recover; if there is only that one, none. `None` when nobody takes requests any more.
pub(super) fn passed_over(client: &Client, tried: Tried, current: Slot) -> Option<Tried> {
    [tried, Tried::of(current), Tried::default()].into_iter().find(|over| admit::has_another(client, over))
}

/// Takes a repeat out of the budget: both of its bounds must allow it. When a server dies, all its requests break at
/// once, and those that find no place among the repeats under way get one a moment later; only where repeats do not end
/// are others refused.
async fn pay<'a>(client: &'a Client, route: &Route, spent: &mut Spent<'a>, waits: u32) -> Result<(), Refused> {
    let worker = &client.worker;
    let mut waited = 0;
    while spent.place.is_none() {
        let in_flight = route.pool().backends.iter().map(|view| view.backend.in_flight()).sum::<u64>();
        // This request is between two attempts, and in flight nowhere.
        if worker.shared.retries.enter(in_flight + 1, worker.shared.config.retry.percent) {
            spent.place = Some(Place(&worker.shared.retries));
            break;
        }
        waited += 1;
        let wait = backoff(waited, worker.random() as u64);
        if waited > waits || !is_time_for(client, wait) {
            return Err(Refused::Active);
        }
        pause(client, Some(wait)).await;
    }
    let allowed = worker.budget.borrow_mut().withdraw(worker.clock.now().as_ms());
    if allowed { Ok(()) } else { Err(Refused::Recent) }
}

fn limits(client: &Client) -> RetryLimits {
    let retry = &client.worker.shared.config.retry;
    RetryLimits { max: retry.max, max_connect: retry.max_connect }
}

/// Whether the request may be sent again once it was sent, if its body is kept.
pub(super) fn is_repeatable(client: &Client, method: &Method) -> bool {
    client.worker.shared.config.retry.max > 0 && is_idempotent(method)
}

/// Whether a response with this status is to be thrown away for another try, if one may be made.
pub(super) fn is_unwanted(client: &Client, status: StatusCode) -> bool {
    client.worker.shared.config.attempts.statuses.contains(&status)
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// Waits before the next attempt, at least until the connection has looked after its client: whoever has gone meanwhile
/// ends everything here, and nothing is sent on its behalf.
///
/// # Cancel safety
/// Dropped, it counts a client that went away.
pub(super) async fn pause(client: &Client, wait: Option<Duration>) {
    let mut leaving = Leaving(Some(client));
    client.deadline.lengthen();
    client.wait_for(Waiting::Retry, wait.unwrap_or_default() + PATIENCE);
    match wait {
        None => tokio::task::yield_now().await,
        Some(wait) => {
            let mut sleep = pin!(tokio::time::sleep(wait));
            poll_fn(|cx| match sleep.as_mut().poll(cx) {
                Poll::Pending if !client.expired() => Poll::Pending,
                _ => Poll::Ready(()),
            })
            .await;
        }
    }
    leaving.0 = None;
}

/// Between two attempts there is no record that would count a client that goes away.
pub(in super::super) struct Leaving<'a>(pub Option<&'a Client>);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.0 {
            client.worker.count_local(LocalReply::ClientGone);
        }
    }
}
