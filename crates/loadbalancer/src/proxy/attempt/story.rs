//! What was tried and how it failed: counted, told to the control task, and kept for the reply.

use std::fmt::Write as _;

use http::StatusCode;
use lb_core::metrics::{FailureKind, Rejected};

use super::super::admit::Refused;
use super::choose::Spent;
use super::{Broken, Cause, ProxyError, Record, Route};
use crate::conn::Client;
use crate::upstream::ExchangeError;
use crate::view::LocalBackend;
use crate::worker::LiveFailure;

/// Counts a broken attempt, tells the control task of a failed connect, and keeps the story.
pub(super) fn note(
    client: &Client,
    backend: &LocalBackend,
    record: &mut Record,
    broken: &Broken,
    spent: &mut Spent<'_>,
) {
    let words = match &broken.cause {
        Cause::Connect(failure) => {
            record.failed(FailureKind::Connect);
            let message = LiveFailure { backend: backend.id, failure: failure.clone() };
            // A full channel already holds failures enough; see `Shared`.
            let _ = client.worker.shared.live_failures.try_send(message);
            failure.words.clone()
        }
        Cause::OutOfMeans(error) => {
            record.settle();
            format!("not tried: {error}")
        }
        Cause::NoPlace => {
            record.settle();
            "not tried: no connection came free".to_owned()
        }
        Cause::Overdue => {
            record.settle();
            "not tried: the time for the request has passed".to_owned()
        }
        Cause::Exchange(error) => {
            match error.failure() {
                Some(FailureKind::Closed) if broken.raced => record.lost_race(),
                Some(kind) => record.failed(kind),
                None => record.settle(),
            }
            error.to_string()
        }
    };
    tracing::debug!(backend = %backend.backend.spec.name, client = %client.address, %words, "attempt broke");
    let _ = writeln!(spent.story, "  tried {}: {words}", backend.backend.spec.name);
}

/// Counts a response that is thrown away for its status.
pub(super) fn note_status(backend: &LocalBackend, record: &mut Record, status: StatusCode, spent: &mut Spent<'_>) {
    record.thrown_away(status);
    let _ = writeln!(spent.story, "  tried {}: it answered {status}", backend.backend.spec.name);
}

/// The error for the last thing that broke. `rejected` is what the door has against the body.
pub(super) fn give_up(cause: Cause, story: String, rejected: Option<Rejected>) -> ProxyError {
    match cause {
        Cause::Connect(failure) => {
            let timed_out = failure.code == lb_core::api::ReasonCode::ConnectTimeout;
            ProxyError::ConnectFailed { tried: story, timed_out }
        }
        Cause::OutOfMeans(_) => ProxyError::OutOfMeans(story),
        Cause::NoPlace => ProxyError::Refused(Refused::Connections, story),
        Cause::Overdue | Cause::Exchange(ExchangeError::Overdue) => ProxyError::Overdue(story),
        Cause::Exchange(error @ ExchangeError::ClientBody(_)) if rejected.is_none() && error.client_gone() => {
            ProxyError::ClientGone
        }
        Cause::Exchange(ExchangeError::ClientBody(_)) => ProxyError::Rejected(rejected.unwrap_or(Rejected::Chunk)),
        Cause::Exchange(ExchangeError::ClientStalled) => ProxyError::Rejected(Rejected::BodyTimeout),
        Cause::Exchange(
            ExchangeError::Closed(_) | ExchangeError::HeadCut(_) | ExchangeError::Body(_) | ExchangeError::Drained,
        ) => ProxyError::UpstreamClosed(story),
        Cause::Exchange(ExchangeError::HeadTimeout | ExchangeError::TryTimeout) => ProxyError::HeadTimeout(story),
        Cause::Exchange(ExchangeError::Bad(_)) => ProxyError::BadResponse(story),
    }
}

/// Nobody may take the request: which backends there are, and why each is out, after the `story` of the attempts so far.
pub(super) fn nobody(route: &Route, mut story: String) -> ProxyError {
    let pool = route.pool();
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
