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
mod follow;
mod once;
mod story;

use std::rc::Rc;

use lb_core::health::Failure;
use lb_core::policy::{Slot, Tried};

use super::admit::{self, NoPlace};
use super::error::ProxyError;
use super::record::Record;
use super::request::Outbound;
use super::response::Reached;
use super::route::Route;
use crate::access::Entry;
use crate::clock::Tick;
use crate::conn::Client;
use crate::upstream::{Answer, Exchange, ExchangeError, RequestBody};
use crate::view::LocalBackend;
pub(super) use choose::Leaving;
use choose::Spent;
pub(super) use connect::or_expired;
use follow::{Following, follow};
use once::attempt;
use story::nobody;

/// Why an attempt gave no answer for the client.
enum Unanswered {
    /// Its status is one of `retry.statuses`.
    Unwanted(Box<(Answer, Exchange)>),
    Broken(Box<Broken>),
}

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

impl Broken {
    fn before_it_was_sent(body: RequestBody, cause: Cause) -> Unanswered {
        Unanswered::Broken(Box::new(Self { body, cause, written: 0, raced: false }))
    }
}

/// One attempt, and what came of it.
struct Attempted {
    slot: Slot,
    backend: Rc<LocalBackend>,
    record: Record,
    ended: Unanswered,
}

/// Gets a response head for the request, from whichever backend.
///
/// What is only needed between two attempts is on the heap of its own ([`follow`], [`Spent`]): it would make every request
/// larger, and with a thousand clients what a request touches is what it costs.
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
    let mut spent: Option<Box<Spent<'_>>> = None;
    let mut permit = match admit::enter(client, route, &Tried::default()).await {
        Ok(permit) => permit,
        Err(why) => return Err(no_place(why, route, String::new())),
    };
    loop {
        let (slot, backend) = (permit.slot, Rc::clone(&permit.backend));
        client.attempts.set(client.attempts.get() + 1);
        let mut record = Record::start(client, permit, arrived, std::mem::take(entry));
        let ended = match attempt(client, &backend, request, body, framing, spent.as_deref(), &mut record).await {
            Ok((answer, exchange)) => {
                client.time.try_ends();
                return Ok(Reached::new(answer, exchange, record));
            }
            Err(ended) => ended,
        };
        let attempted = Attempted { slot, backend, record, ended };
        let spent = spent.get_or_insert_default();
        (permit, body) = match Box::pin(follow(client, route, request, attempted, entry, spent)).await? {
            Following::Answer(reached) => return Ok(*reached),
            Following::Attempt(permit, body) => (permit, body),
        };
    }
}

/// The reply for a request without a place; `story` tells of its attempts so far.
fn no_place(why: NoPlace, route: &Route, story: String) -> ProxyError {
    match why {
        NoPlace::Nobody => nobody(route, story),
        NoPlace::Refused(why) => ProxyError::Refused(why, story),
    }
}
