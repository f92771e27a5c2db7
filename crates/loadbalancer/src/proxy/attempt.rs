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

use std::fmt::Write as _;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;
use http::{Method, Version};
use lb_core::health::{Failure, is_our_own};
use lb_core::metrics::{FailureKind, Rejected};
use lb_core::policy::{MAX_ATTEMPTS, Slot, Tried};

use super::error::ProxyError;
use super::record::Record;
use super::request::Outbound;
use super::response::Reached;
use super::route::Route;
use crate::access::Entry;
use crate::clock::Tick;
use crate::conn::Client;
use crate::deadline::Waiting;
use crate::proxy_protocol::{self, Ends};
use crate::upstream::{
    Answer, Exchange, ExchangeError, Forwarding, Framing, Outgoing, Progress, RequestBody, UpstreamConn, connect,
    write_head,
};
use crate::worker::{LiveFailure, LocalBackend};

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

/// How much repeating was done.
#[derive(Default)]
struct Spent {
    tried: Tried,
    retries: u32,
    connects: u32,
    /// What was tried and how it failed, for the reply.
    story: String,
    /// Only a fresh connection will do: a kept one has just turned out to be closed, and its neighbours may be too.
    fresh: bool,
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

fn pick(route: &Route, tried: &Tried) -> Option<Slot> {
    let pool = route.pool();
    pool.policy.pick(&pool.cursor, tried)
}

/// Where to go after `broken`, or `None` when it must not or cannot be repeated.
fn next(
    client: &Client,
    route: &Route,
    request: &Outbound<'_>,
    broken: &Broken,
    spent: &mut Spent,
    current: Slot,
) -> Option<Slot> {
    let retry = &client.worker.shared.config.retry;
    if !broken.body.is_replayable() || spent.tried.len() >= MAX_ATTEMPTS {
        return None;
    }
    match &broken.cause {
        Cause::Connect(_) => {
            spent.connects += 1;
            if spent.connects > retry.max_connect {
                return None;
            }
            pick(route, &spent.tried)
        }
        Cause::Exchange(ExchangeError::Closed(_)) if broken.written == 0 || is_idempotent(&request.head.method) => {
            // A kept connection that was closed meanwhile says nothing about anybody: not counted, once.
            let stale = broken.reused && !std::mem::replace(&mut spent.fresh, broken.reused);
            spent.retries += u32::from(!stale);
            if retry.max == 0 || spent.retries > retry.max {
                return None;
            }
            let slot = pick(route, &spent.tried).or_else(|| broken.reused.then_some(current))?;
            let worker = &client.worker;
            if !worker.budget.borrow_mut().withdraw(worker.clock.now().as_ms()) {
                worker.slot().shard.retries_refused.add(1);
                spent.story.push_str("  not tried again: the retry budget is used up\n");
                return None;
            }
            Some(slot)
        }
        Cause::OutOfMeans(_) | Cause::Exchange(_) => None,
    }
}

/// RFC 9110 §9.2.2.
fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

/// Counts a broken attempt, tells the control task of a failed connect, and keeps the story.
fn note(client: &Client, backend: &LocalBackend, record: &mut Record, broken: &Broken, spent: &mut Spent) {
    let words = match &broken.cause {
        Cause::Connect(failure) => {
            record.failed(FailureKind::Connect);
            let message = LiveFailure { backend: backend.backend.id, failure: failure.clone() };
            // A full channel already holds failures enough; see `Shared`.
            let _ = client.worker.shared.live_failures.try_send(message);
            failure.words.clone()
        }
        Cause::OutOfMeans(error) => {
            record.settle();
            format!("not tried: {error}")
        }
        Cause::Exchange(error) => {
            match error.failure() {
                Some(kind) => record.failed(kind),
                None => record.settle(),
            }
            error.to_string()
        }
    };
    tracing::debug!(backend = %backend.backend.spec.name, client = %client.address, %words, "attempt broke");
    let _ = writeln!(spent.story, "  tried {}: {words}", backend.backend.spec.name);
}

/// One attempt at one backend, up to the response head.
///
/// # Cancel safety
/// Dropped anywhere, the connection is closed and nothing is left behind.
async fn attempt(
    client: &Rc<Client>,
    backend: &Rc<LocalBackend>,
    request: &Outbound<'_>,
    body: RequestBody,
    framing: Framing,
    fresh: bool,
    record: &mut Record,
) -> Result<(Answer, Exchange), Broken> {
    let config = &client.worker.shared.config;
    let idempotent = is_idempotent(&request.head.method);
    let cached = if fresh { None } else { backend.idle.take(!idempotent, on_behalf(client)) };
    let mut connection = match cached {
        Some(connection) => connection,
        None => match open(client, backend).await {
            Ok(connection) => connection,
            Err(cause) => return Err(Broken { body, cause, written: 0, reused: false }),
        },
    };
    // RFC 9110 §10.1.1: an expectation is not passed on to HTTP/1.0, which does not know it, nor without content: some
    // servers would wait for that for ever.
    let has_content = !matches!(framing, Framing::None | Framing::Length(0));
    let held = request.expects_continue && has_content && !backend.old.get();
    put_head(client, backend, request, (framing, held), &mut connection.unsent);
    let outgoing = Outgoing::new(body, &request.head.headers, framing, idempotent, held);
    match outgoing.held {
        true => client.wait_for(Waiting::Continue, config.timeouts.expect_continue),
        false => client.wait_for(Waiting::RequestBody, config.timeouts.body_stall),
    }
    let mut exchange = Exchange::new(connection, outgoing);
    let head = poll_fn(|cx| {
        let mut poll = |exchange: &mut Exchange| {
            let holds = exchange.holds_body();
            let progress = |progress| match progress {
                Progress::SentAll => client.wait_for(Waiting::ResponseHead, config.timeouts.response_head),
                // The head is out; that of a held body says nothing about its 100.
                Progress::Sent if holds && client.deadline.waiting() == Waiting::Continue => {}
                Progress::Sent | Progress::Received => {
                    client.wait_for(Waiting::RequestBody, config.timeouts.body_stall);
                }
            };
            exchange.poll_head(cx, &request.head.method, request.upgrade, progress)
        };
        let head = poll(&mut exchange);
        // Now, since a client that goes away ends this here.
        record.sent_to_backend(exchange.outgoing.body_bytes);
        match head {
            Poll::Pending if client.expired() && exchange.holds_body() => {
                // The backend says nothing: many never do. RFC 9110 §10.1.1 forbids to wait for ever.
                exchange.release_body();
                client.wait_for(Waiting::RequestBody, config.timeouts.body_stall);
                poll(&mut exchange)
            }
            Poll::Pending if client.expired() => Poll::Ready(Err(exchange.stalled())),
            head => head,
        }
    });
    match head.await {
        Ok(head) => Ok((head, exchange)),
        Err(error) => {
            let (written, reused) = (exchange.outgoing.written, exchange.reused());
            Err(Broken { body: exchange.outgoing.body, cause: Cause::Exchange(error), written, reused })
        }
    }
}

fn put_head(
    client: &Client,
    backend: &LocalBackend,
    request: &Outbound<'_>,
    (framing, expects_continue): (Framing, bool),
    out: &mut BytesMut,
) {
    let own_name;
    let host = if request.host.is_empty() {
        // RFC 9112 §3.2: HTTP/1.1 towards the backend needs a Host even if an HTTP/1.0 client named none.
        own_name = backend.backend.spec.address.to_string();
        own_name.as_bytes()
    } else {
        request.host
    };
    let facts = Forwarding {
        host,
        host_named: !request.host.is_empty(),
        client: &client.address_text,
        trusted: client.trusted,
        request_id: request.request_id.as_bytes(),
        // RFC 9110 §7.6.3: the version that the message came in.
        via: match request.head.version {
            Version::HTTP_10 => &client.worker.shared.old_via_text,
            _ => &client.worker.shared.via_text,
        },
        framing,
        expects_continue,
        upgrade: request.upgrade,
        takes_trailers: request.takes_trailers,
        max_forwards: request.max_forwards.map(|hops| hops.saturating_sub(1)),
    };
    write_head(out, request.head.method.as_str(), &request.target, &request.head.headers, &facts);
}

/// Whom a connection to a backend is made for, if the backend is told.
fn on_behalf(client: &Client) -> Option<Ends> {
    client.worker.shared.config.upstream.proxy_protocol.and_then(|_| client.peer.ends())
}

/// Makes a connection, within the connect timeout.
async fn open(client: &Client, backend: &LocalBackend) -> Result<Box<UpstreamConn>, Cause> {
    let worker = &client.worker;
    let limit = worker.shared.config.timeouts.connect;
    let Some(address) = backend.address.get() else {
        let words = "no address".to_owned();
        return Err(Cause::Connect(Failure { code: lb_core::api::ReasonCode::NotResolved, words }));
    };
    let started = worker.clock.now();
    client.wait_for(Waiting::Connect, limit);
    let connected = loop {
        match or_expired(client, std::pin::pin!(connect(address))).await {
            // Idle connections hold what this request lacks, unless that is a port: closing would hold theirs for a
            // minute more. Once: with none left, the next error ends it.
            Some(Err(error))
                if is_our_own(&error)
                    && error.kind() != std::io::ErrorKind::AddrNotAvailable
                    && worker.close_idle() > 0 => {}
            connected => break connected,
        }
    };
    match connected {
        Some(Ok(mut connection)) => {
            if let Some(version) = worker.shared.config.upstream.proxy_protocol {
                connection.on_behalf = client.peer.ends();
                proxy_protocol::write(version, connection.on_behalf, &mut connection.unsent);
            }
            let shard = backend.shard();
            shard.connections.add(1);
            shard.connect.record(worker.clock.now().since(started));
            Ok(connection)
        }
        Some(Err(error)) if is_our_own(&error) => Err(Cause::OutOfMeans(error)),
        Some(Err(error)) => Err(Cause::Connect(Failure::of_connect(&error))),
        None => Err(Cause::Connect(Failure::connect_timeout(limit))),
    }
}

/// `future`'s output, or `None` once the client's deadline has expired.
async fn or_expired<F: Future + Unpin>(client: &Client, mut future: F) -> Option<F::Output> {
    poll_fn(|cx| match std::pin::Pin::new(&mut future).poll(cx) {
        Poll::Pending if client.expired() => Poll::Ready(None),
        polled => polled.map(Some),
    })
    .await
}

/// The error for the last thing that broke. `rejected` is what the door has against the body.
fn give_up(cause: Cause, story: String, rejected: Option<Rejected>) -> ProxyError {
    match cause {
        Cause::Connect(failure) => {
            let timed_out = failure.code == lb_core::api::ReasonCode::ConnectTimeout;
            ProxyError::ConnectFailed { tried: story, timed_out }
        }
        Cause::OutOfMeans(_) => ProxyError::OutOfMeans(story),
        Cause::Exchange(error @ ExchangeError::ClientBody(_)) if rejected.is_none() && error.client_gone() => {
            ProxyError::ClientGone
        }
        Cause::Exchange(ExchangeError::ClientBody(_)) => ProxyError::Rejected(rejected.unwrap_or(Rejected::Chunk)),
        Cause::Exchange(ExchangeError::ClientStalled) => ProxyError::Rejected(Rejected::BodyTimeout),
        Cause::Exchange(ExchangeError::Closed(_) | ExchangeError::Body(_)) => ProxyError::UpstreamClosed(story),
        Cause::Exchange(ExchangeError::HeadTimeout) => ProxyError::HeadTimeout(story),
        Cause::Exchange(ExchangeError::Bad(_)) => ProxyError::BadResponse(story),
    }
}

/// Nobody may take the request: which backends there are, and why each is out.
fn nobody(route: &Route, spent: Spent) -> ProxyError {
    let pool = route.pool();
    let mut story = spent.story;
    let _ = writeln!(story, "pool {}: none of {} backends is ready", pool.name, pool.backends.len());
    // A reply must stay small whatever the pool's size.
    for view in pool.backends.iter().take(20) {
        let spec = &view.backend.spec;
        let _ = write!(story, "  {}", spec.name);
        if spec.name != spec.address.to_string() {
            let _ = write!(story, " ({})", spec.address);
        }
        let _ = writeln!(story, " is {}: {}", view.state().as_str(), view.reason);
    }
    if pool.backends.len() > 20 {
        let _ = writeln!(story, "  and {} more", pool.backends.len() - 20);
    }
    ProxyError::NoBackend(story)
}
