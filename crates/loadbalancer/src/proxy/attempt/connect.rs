//! A connection for an attempt: made within its time, and for want of descriptors out of what lies idle.

use std::future::poll_fn;
use std::task::Poll;

use lb_core::health::{Failure, is_our_own};

use super::super::admit::{self, Way};
use super::Cause;
use crate::conn::{Client, Overdue};
use crate::deadline::Waiting;
use crate::proxy_protocol::{self, Ends};
use crate::upstream::{UpstreamConn, connect};
use crate::view::LocalBackend;

/// Whom a connection to a backend is made for, if the backend is told.
pub(super) fn on_behalf(client: &Client) -> Option<Ends> {
    client.worker.shared.config.upstream.proxy_protocol.and_then(|_| client.peer.ends())
}

/// Makes a connection, within the connect timeout; or has one that another request was done with, if that must be waited
/// for and `take` finds it to be of use.
pub(super) async fn open(
    client: &Client,
    backend: &LocalBackend,
    take: Option<impl Fn() -> Option<Box<UpstreamConn>>>,
) -> Result<Box<UpstreamConn>, Cause> {
    let worker = &client.worker;
    let config = &worker.shared.config;
    let limit = config.attempts.per_try.map_or(config.timeouts.connect, |limit| limit.min(config.timeouts.connect));
    let way = admit::connection(client, backend, take).await;
    // The wait for a place is no part of the backend's time: not of that to take the connection, nor of that of the try.
    client.try_begins();
    client.wait_for(Waiting::Connect, limit);
    let place = match way {
        Some(Way::Place(place)) => place,
        Some(Way::Kept(connection)) => return Ok(connection),
        None if client.overdue() == Some(Overdue::Request) => return Err(Cause::Overdue),
        None => return Err(Cause::NoPlace),
    };
    // As of now: it may have moved meanwhile.
    let Some(address) = backend.address.get() else {
        return Err(Cause::Connect(Failure::new(lb_core::api::ReasonCode::NotResolved, "no address")));
    };
    let started = worker.clock.now();
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
            connection.place = Some(place);
            if let Some(version) = worker.shared.config.upstream.proxy_protocol {
                connection.on_behalf = client.peer.ends().map(Box::new);
                proxy_protocol::write(version, client.peer.ends(), connection.sending());
            }
            let shard = backend.shard();
            shard.connections.add(1);
            shard.connect.record(worker.clock.now().since(started));
            Ok(connection)
        }
        Some(Err(error)) if is_our_own(&error) => Err(Cause::OutOfMeans(error)),
        Some(Err(error)) => Err(Cause::Connect(Failure::of_connect(&error))),
        None if client.overdue() == Some(Overdue::Request) => Err(Cause::Overdue),
        None => Err(Cause::Connect(Failure::connect_timeout(limit))),
    }
}

/// `future`'s output, or `None` once the client's deadline has expired.
pub(in super::super) async fn or_expired<F: Future + Unpin>(client: &Client, mut future: F) -> Option<F::Output> {
    poll_fn(|cx| match std::pin::Pin::new(&mut future).poll(cx) {
        Poll::Pending if client.expired() => Poll::Ready(None),
        polled => polled.map(Some),
    })
    .await
}
