//! The attempt loop: pick a backend, lease a connection or make one, send, and go on to another backend when that is
//! safe.
//!
//! What may be repeated is decided from facts ([`lb_core::retry`] has the rules):
//!
//! * nothing was written (no connection, or not a byte was taken by it): whatever the method, up to `retry.max_connect`
//!   times;
//! * something was written, and then the connection broke before the response head was complete (none of it goes to the
//!   client before), the time for one try passed, or the response has one of `retry.statuses`: only if the method is
//!   idempotent (RFC 9110 §9.2.2), the body was kept, fewer than `retry.max` repeats were made and the budget allows it
//!   (the first break of a kept-alive connection is not counted as one of them: it is the price of keeping it);
//! * never once the client has gone or has got a byte of a response, nor for an answer that is there and is not HTTP: it
//!   was worked on, and would be again; and on a backend that was tried only when there is no other.

mod choose;
mod connect;
mod once;
mod story;

use std::rc::Rc;

use lb_core::health::Failure;

use super::admit::{self, NoPlace};
use super::error::ProxyError;
use super::record::Record;
use super::request::Outbound;
use super::response::Reached;
use super::route::Route;
use crate::access::Entry;
use crate::clock::Tick;
use crate::conn::Client;
use crate::upstream::{Answer, ExchangeError, RequestBody};
use crate::worker::LocalBackend;
pub(super) use choose::Leaving;
use choose::{Ending, Next, Spent, cause, is_unwanted, next, passed_over, pause};
pub(super) use connect::or_expired;
use lb_core::policy::Slot;
use lb_core::retry::RetryCause;
use once::{attempt, discard};
use story::{give_up, nobody, note, note_status};

/// One attempt that broke.
struct Broken {
    body: RequestBody,
    cause: Cause,
    /// Bytes of head and body that were written.
    written: u64,
    /// It was on a kept connection, and so soon that the backend may have closed it before the request came.
    raced: bool,
}

enum Cause {
    Connect(Failure),
    /// We have no descriptor, port or memory left to connect with.
    OutOfMeans(std::io::Error),
    /// The pool may have no more connections.
    NoPlace,
    /// The time for the whole request has passed.
    Overdue,
    Exchange(ExchangeError),
}

/// Gets a response head for the request, from whichever backend.
///
/// What happens only between two attempts is on the heap of its own: it would make every request's future larger.
pub(super) async fn run(
    client: &Rc<Client>,
    route: &Route,
    request: &Outbound<'_>,
    mut body: RequestBody,
    arrived: Tick,
    entry: &mut Entry,
) -> Result<Reached, ProxyError> {
    entry.routed(&route.pool().name);
    client.worker.budget.borrow_mut().deposit();
    let framing = body.framing(request.length_announced);
    let mut spent = Spent::default();
    let mut place = admit::enter(client, route, &spent.tried).await;
    loop {
        let permit = match place {
            Ok(permit) => permit,
            Err(NoPlace::Nobody) => return Err(nobody(route, spent)),
            Err(NoPlace::Refused(why)) => return Err(ProxyError::Refused(why, spent.story)),
        };
        let (current, backend) = (permit.slot, &Rc::clone(&permit.backend));
        client.attempts.set(client.attempts.get() + 1);
        let mut record = Record::start(client, permit, arrived, std::mem::take(entry));
        let body_again;
        let ended = attempt(client, backend, request, body, framing, &spent, &mut record).await;
        client.time.try_ends();
        spent.tried.insert(current);
        let following = match ended {
            Ok((answer, mut exchange)) => {
                learn(backend, &answer);
                let replayable = exchange.outgoing.body.is_replayable();
                let ending = Ending { slot: current, why: RetryCause::Status, replayable, raced: false };
                let following = match is_unwanted(client, answer.status) {
                    true => Box::pin(next(client, route, request, ending, &mut spent)).await,
                    false => None,
                };
                let Some(following) = following else {
                    exchange.outgoing.body.forget();
                    let Answer { status, headers, old, .. } = answer;
                    return Ok(Reached { status, headers, old, exchange, record });
                };
                note_status(backend, &mut record, answer.status, &mut spent);
                *entry = record.into_entry();
                if request.upgrade.is_some() {
                    exchange.forget_connection();
                }
                body_again = Box::pin(discard(client, backend, exchange)).await;
                following
            }
            Err(broken) => {
                note(client, backend, &mut record, &broken, &mut spent);
                // From here on it is in flight nowhere.
                *entry = record.into_entry();
                let following = after_break(client, route, request, (current, &broken), &mut spent);
                let Some(following) = Box::pin(following).await else {
                    return Err(give_up(broken.cause, spent.story, client.rejected()));
                };
                body_again = broken.body;
                following
            }
        };
        let Next { why, wait } = following;
        Box::pin(pause(client, wait)).await;
        // Only now: whoever was there before the wait may have gone, and others may have come.
        place = match passed_over(client, spent.tried, current) {
            Some(over) => admit::enter_again(client, &over).await,
            None => Err(NoPlace::Nobody),
        };
        if place.is_ok() {
            backend.shard().retries.add(1);
            client.worker.slot().shard.retries[why as usize].add(1);
        }
        body = body_again;
        body.rewind();
    }
}

/// What a response head tells of the backend.
fn learn(backend: &LocalBackend, answer: &Answer) {
    backend.old.set(answer.old);
    if let Some(timeout) = answer.idle {
        backend.idle.announced(timeout);
    }
}

/// What follows a broken attempt; `None` when nothing does.
async fn after_break<'a>(
    client: &'a Client,
    route: &Route,
    request: &Outbound<'_>,
    (slot, broken): (Slot, &Broken),
    spent: &mut Spent<'a>,
) -> Option<Next> {
    let why = cause(broken)?;
    let (replayable, raced) = (broken.body.is_replayable(), broken.raced);
    next(client, route, request, Ending { slot, why, replayable, raced }, spent).await
}
