//! One attempt at one backend, up to the response head.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use http::Version;
use lb_core::policy::{MAX_ATTEMPTS, PolicyKind};

use super::super::record::fails;
use super::choose::{Spent, is_repeatable, is_unwanted};
use super::connect::{on_behalf, open, or_expired};
use super::{Broken, Cause, Outbound, Record, Unanswered};
use crate::clock::Tick;
use crate::conn::{Client, Overdue};
use crate::deadline::Waiting;
use crate::upstream::{
    Answer, Exchange, ExchangeError, Forwarding, Framing, Outgoing, Progress, RequestBody, UpstreamConn, write_head,
};
use crate::view::LocalBackend;

/// Most of a discarded response's body that is read so that its connection can be used again: more costs more than a
/// new connection.
const MOST_DISCARDED: usize = 64 * 1024;

/// A close of a kept connection that crossed our request arrives within a round trip. What is closed later was closed with
/// the request in hand: the backend's failure, and a repeat that costs.
const RACE: Duration = Duration::from_millis(250);

/// For how long a backend that reset a new connection is not trusted with another one at once, and for how long such a
/// one is looked at: some round trips within a data centre.
const WARY: Duration = Duration::from_secs(10);
const SECOND_LOOK: Duration = Duration::from_millis(2);

/// Longer than any such look: however short the time to connect is, it has been kept by then.
const FRESH_LOOK: Duration = Duration::from_secs(1);

/// One attempt at one backend, up to the response head.
///
/// # Cancel safety
/// Dropped anywhere, the connection is closed and nothing is left behind.
pub(super) async fn attempt(
    client: &Rc<Client>,
    backend: &Rc<LocalBackend>,
    request: &Outbound<'_>,
    mut body: RequestBody,
    framing: Framing,
    spent: Option<&Spent<'_>>,
    record: &mut Record,
) -> Result<(Answer, Exchange), Unanswered> {
    if client.overdue().is_some() {
        return Err(Broken::before_it_was_sent(body, Cause::Overdue));
    }
    client.try_begins();
    let config = &client.worker.shared.config;
    let (tried, fresh) = spent.map_or((0, false), |spent| (spent.tried.len(), spent.fresh));
    let repeatable = is_repeatable(client, &request.head.method) && tried + 1 < MAX_ATTEMPTS;
    let mut connection = match lease(client, backend, fresh, repeatable && body.is_kept()).await {
        Ok(connection) => connection,
        Err(cause) => return Err(Broken::before_it_was_sent(body, cause)),
    };
    // RFC 9110 §10.1.1: an expectation is not passed on to HTTP/1.0, which does not know it, nor without content: some
    // servers would wait for that for ever.
    let has_content = !matches!(framing, Framing::None | Framing::Length(0));
    let held = request.expects_continue && has_content && !backend.old.get();
    put_head(client, backend, request, (framing, held), connection.sending());
    if !repeatable {
        body.keep_no_more();
    }
    let outgoing = Outgoing::new(body, &request.head.headers, framing, repeatable, held);
    if has_content {
        // The client's time to send its body is no part of the backend's to answer.
        client.time.try_ends();
    }
    match outgoing.held {
        true => client.wait_for(Waiting::Continue, config.timeouts.expect_continue),
        false => client.wait_for(Waiting::RequestBody, config.timeouts.body_stall),
    }
    let mut exchange = Exchange::new(connection, outgoing);
    let begun = client.worker.clock.now();
    // Until then it is the client's time.
    let sent = Cell::new(begun);
    let head = poll_fn(|cx| {
        let head = poll_once(client, request, has_content, (&mut exchange, &sent), cx);
        // Now, since a client that goes away ends this here.
        record.sent_to_backend(exchange.outgoing.body_bytes);
        match head {
            Poll::Pending if client.deadline.is_cut() => Poll::Ready(Err(ExchangeError::Drained)),
            Poll::Pending => match client.overdue() {
                Some(Overdue::Request) => Poll::Ready(Err(ExchangeError::Overdue)),
                Some(Overdue::Try) => Poll::Ready(Err(ExchangeError::TryTimeout)),
                None if client.expired() && exchange.holds_body() => {
                    // The backend says nothing: many never do. RFC 9110 §10.1.1 forbids to wait for ever.
                    exchange.release_body();
                    client.wait_for(Waiting::RequestBody, config.timeouts.body_stall);
                    poll_once(client, request, has_content, (&mut exchange, &sent), cx)
                }
                None if client.expired() => Poll::Ready(Err(exchange.stalled())),
                None => Poll::Pending,
            },
            head => head,
        }
    });
    match head.await {
        Ok(head) => {
            if config.pool.policy == PolicyKind::PeakEwma && !fails(head.status) {
                backend.backend.note_time(client.worker.clock.now().since(sent.get()));
            }
            if backend.wary_until.get() == Tick::NEVER {
                backend.wary_until.set(Tick::default());
            }
            learn(backend, &head);
            match is_unwanted(client, head.status) {
                true => Err(Unanswered::Unwanted(Box::new((head, exchange)))),
                false => Ok((head, exchange)),
            }
        }
        Err(error) => {
            let written = exchange.outgoing.written;
            let soon = client.worker.clock.now().since(begun) <= RACE;
            let raced = soon && exchange.reused() && matches!(error, ExchangeError::Closed(_));
            if raced {
                backend.idle.found_closed(exchange.last_open());
            } else if soon && matches!(error, ExchangeError::Closed(_)) {
                backend.wary_until.set(client.worker.clock.now().plus(WARY));
            }
            let (body, cause) = (exchange.outgoing.into_body(), Cause::Exchange(error));
            Err(Unanswered::Broken(Box::new(Broken { body, cause, written, raced })))
        }
    }
}

/// What a response head tells of the backend.
fn learn(backend: &LocalBackend, answer: &Answer) {
    backend.old.set(answer.old);
    if let Some(timeout) = answer.idle {
        backend.idle.announced(timeout);
    }
}

/// A kept connection, or else, and if only a `fresh` one will do, a new one. What is not `repeatable` must not meet one that
/// is being closed.
async fn lease(
    client: &Client,
    backend: &LocalBackend,
    fresh: bool,
    repeatable: bool,
) -> Result<Box<UpstreamConn>, Cause> {
    let take = || backend.idle.take(!repeatable, on_behalf(client), client.worker.clock.now());
    if !fresh && let Some(kept) = take() {
        return Ok(kept);
    }
    // Apart: few requests need one, and each would be larger for it.
    Box::pin(make(client, backend, repeatable, (!fresh).then_some(take))).await
}

/// A new connection; or one that was kept after all, if `take` finds one while the new one must be waited for.
async fn make(
    client: &Client,
    backend: &LocalBackend,
    repeatable: bool,
    take: Option<impl Fn() -> Option<Box<UpstreamConn>>>,
) -> Result<Box<UpstreamConn>, Cause> {
    let connection = open(client, backend, take).await?;
    // One that was kept has been looked at.
    if repeatable || connection.reused {
        return Ok(connection);
    }
    match stays(client, backend, &connection).await {
        Some(Ok(())) => Ok(connection),
        Some(Err(heard)) => {
            backend.wary_until.set(client.worker.clock.now().plus(WARY));
            Err(Cause::Exchange(ExchangeError::Closed(heard)))
        }
        None if client.overdue() == Some(Overdue::Request) => Err(Cause::Overdue),
        None => Err(Cause::Exchange(ExchangeError::TryTimeout)),
    }
}

/// Whether a new connection is still there a moment after it was made; asked for what cannot be sent twice. A server that
/// is overrun, or whose firewall is, takes connections and resets them: where that was seen lately, the moment is long
/// enough to see it again. One that speaks unasked may go on to (RFC 9112 §9.2), so what cannot be sent twice is not sent to it.
/// `None` when the request's time, or the try's, passes meanwhile.
async fn stays(client: &Client, backend: &LocalBackend, connection: &UpstreamConn) -> Option<std::io::Result<()>> {
    let moment = async {
        if client.worker.clock.now() < backend.wary_until.get() {
            Box::pin(tokio::time::sleep(SECOND_LOOK)).await;
        } else {
            tokio::task::yield_now().await;
        }
    };
    // The connect timeout, which has been kept, must not end here. Those of the request and the try may.
    client.wait_for(Waiting::Connect, client.worker.shared.config.timeouts.connect.max(FRESH_LOOK));
    match or_expired(client, pin!(moment)).await {
        None if client.overdue().is_some() => None,
        _ => Some(connection.heard()),
    }
}

/// Lets the exchange get on, and restarts the time of what it waits for.
fn poll_once(
    client: &Client,
    request: &Outbound<'_>,
    has_content: bool,
    (exchange, sent): (&mut Exchange, &Cell<Tick>),
    cx: &mut Context<'_>,
) -> Poll<Result<Answer, ExchangeError>> {
    let timeouts = &client.worker.shared.config.timeouts;
    let holds = exchange.holds_body();
    let progress = |progress| match progress {
        Progress::SentAll => {
            sent.set(client.worker.clock.now());
            if has_content {
                client.try_begins();
            }
            client.wait_for(Waiting::ResponseHead, timeouts.response_head);
        }
        // The head is out, which says nothing about the body's 100.
        Progress::Sent if holds && client.deadline.waiting() == Waiting::Continue => {}
        // Once it is asked for, the client has as much time for it as for any other.
        Progress::Sent | Progress::Received | Progress::Asked => {
            client.wait_for(Waiting::RequestBody, timeouts.body_stall)
        }
    };
    exchange.poll_head(cx, &request.head.method, request.upgrade, progress)
}

/// Throws a response away that another try is to replace, and returns the request's body. Its connection is kept if the
/// rest of it is here already, and is closed otherwise: nobody waits for what nobody wants.
pub(super) async fn discard(client: &Client, backend: &LocalBackend, mut exchange: Exchange) -> RequestBody {
    let mut left = MOST_DISCARDED;
    poll_fn(|cx| {
        // The rest of a request that is not through would be taken from the client.
        while exchange.is_sent() && !exchange.is_through() && left > 0 {
            let Poll::Ready(Some(Ok(frame))) = exchange.poll_body(cx, |_| {}) else { break };
            left = left.saturating_sub(frame.data_ref().map_or(0, |data| data.len().max(1)));
        }
        Poll::Ready(())
    })
    .await;
    let (body, connection) = exchange.into_parts();
    if let Some(connection) = connection {
        let worker = &client.worker;
        backend.keep(connection, worker.clock.now(), worker.shared.config.upstream.max_idle);
    }
    body
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
        // Zero would say that it is too late already.
        time_left_ms: client.time_left().map(|left| left.as_millis().max(1) as u64),
    };
    write_head(out, request.head.method.as_str(), &request.target, &request.head.headers, &facts);
}
