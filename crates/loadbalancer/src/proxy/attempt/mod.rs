//! The attempt loop: pick a backend, lease a connection or make one, send, and go on to another backend when that is
//! safe.
//!
//! What may be repeated is decided from facts, never from a stored flag:
//!
//! * nothing was written: whatever the method, up to `retry.max_connect` further backends after a failed connect;
//! * something was written, and the connection broke before the response head: only if the method is idempotent
//!   (RFC 9110 §9.2.2), the body can be replayed, fewer than `retry.max` repeats were made and the budget allows it
//!   (the first break of a kept-alive connection is not counted as one of them: it is the price of keeping it);
//! * never after the response head, and never on a backend that was tried, except for one case: a kept-alive
//!   connection that turns out to be closed says nothing about its backend, so when that is the only one it is tried
//!   again on a fresh connection.

mod choose;
mod connect;
mod once;
mod story;

use std::rc::Rc;

use lb_core::health::Failure;

use super::error::ProxyError;
use super::record::Record;
use super::request::Outbound;
use super::response::Reached;
use super::route::Route;
use crate::access::Entry;
use crate::clock::Tick;
use crate::conn::Client;
use crate::upstream::{Answer, ExchangeError, RequestBody};
use choose::{Spent, next, pick};
use once::attempt;
use story::{give_up, nobody, note};

/// One attempt that broke.
struct Broken {
    body: RequestBody,
    cause: Cause,
    /// Bytes of head and body that were written.
    written: u64,
    /// It was on a kept-alive connection.
    reused: bool,
}

enum Cause {
    Connect(Failure),
    /// We have no descriptor, port or memory left to connect with.
    OutOfMeans(std::io::Error),
    Exchange(ExchangeError),
}

/// Gets a response head for the request, from whichever backend.
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
    let mut slot = pick(route, &spent.tried);
    loop {
        let Some(current) = slot else { return Err(nobody(route, spent)) };
        let backend = route.backend(current);
        let mut record = Record::start(client, backend, arrived, std::mem::take(entry));
        let broken = match attempt(client, backend, request, body, framing, spent.fresh, &mut record).await {
            Ok((answer, exchange)) => {
                backend.old.set(answer.old);
                let Answer { status, headers, old } = answer;
                return Ok(Reached { status, headers, old, exchange, record });
            }
            Err(broken) => broken,
        };
        note(client, backend, &mut record, &broken, &mut spent);
        *entry = record.into_entry();
        spent.tried.insert(current);
        slot = next(client, route, request, &broken, &mut spent, current);
        if slot.is_none() {
            return Err(give_up(broken.cause, spent.story, client.rejected()));
        }
        backend.shard().retries.add(1);
        body = broken.body;
        body.rewind();
    }
}
