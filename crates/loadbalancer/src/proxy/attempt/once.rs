//! One attempt at one backend, up to the response head.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::BytesMut;
use http::Version;

use super::choose::is_idempotent;
use super::connect::{on_behalf, open};
use super::{Broken, Cause, Outbound, Record};
use crate::conn::Client;
use crate::deadline::Waiting;
use crate::upstream::{Answer, Exchange, Forwarding, Framing, Outgoing, Progress, RequestBody, write_head};
use crate::worker::LocalBackend;

/// One attempt at one backend, up to the response head.
///
/// # Cancel safety
/// Dropped anywhere, the connection is closed and nothing is left behind.
pub(super) async fn attempt(
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
