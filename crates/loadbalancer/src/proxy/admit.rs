//! A place for a request: at a backend of its pool, now or after a wait; or why there is none.
//!
//! Where nothing is limited this is the policy's pick and a count. With limits it is the pool's
//! [`Gate`](lb_core::gate::Gate): what is full is passed over, and when everything is, the request waits in the line of
//! all workers, under the client's own deadline. A place is a [`Permit`], held until the response has ended (tunnels
//! hold theirs until they end), and given back by its drop whatever happens.
//!
//! Refusals of whole requests that look at no backend (too much of everything, too many of one client) are here as well.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use http::HeaderMap;
use lb_core::gate::{Gate, Taken};
use lb_core::metrics::LocalReply;
use lb_core::policy::{Slot, Tried};
use lb_core::queue::{Joined, Look};
use lb_core::rate::{self, retry_after_s};

use super::attempt::{Leaving, or_expired};
use super::route::{self, Route};
use crate::access::forwarded_for;
use crate::clock::Tick;
use crate::conn::Client;
use crate::deadline::Waiting;
use crate::upstream::{Opened, UpstreamConn};
use crate::view::LocalBackend;
use crate::worker::Worker;

/// For how long a client stays away after it was shed: memory is measured four times a second, and what was freed
/// shows within a second or two.
const SHED_RETRY_S: u64 = 2;

/// A place at a backend; free again when dropped.
pub(crate) struct Permit {
    pub backend: Rc<LocalBackend>,
    pub slot: Slot,
}

impl Permit {
    fn new(backend: &Rc<LocalBackend>, slot: Slot) -> Self {
        Self { backend: Rc::clone(backend), slot }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.backend.leave();
    }
}

/// Why a request has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// There is no backend for it.
    Nobody,
    Refused(Refused),
}

/// Why we take a request no further. Nothing is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// As many wait as may.
    QueueFull,
    /// It waited for as long as it may.
    QueueTimeout,
    /// It waited, and could not be answered by its deadline any more.
    QueueDeadline,
    /// Memory or descriptors are nearly used up.
    Overloaded,
    /// It waited for a connection to a backend for as long as it may.
    Connections,
    /// Its client asks too often; seconds until it may again.
    TooOften(u64),
}

impl Refused {
    /// What it is counted as.
    pub(super) fn reply(self) -> LocalReply {
        match self {
            Self::QueueFull => LocalReply::QueueFull,
            Self::QueueTimeout => LocalReply::QueueTimeout,
            Self::QueueDeadline => LocalReply::QueueDeadline,
            Self::Overloaded => LocalReply::Overloaded,
            Self::Connections => LocalReply::ConnectionLimit,
            Self::TooOften(_) => LocalReply::RateLimited,
        }
    }

    /// When to come again: not before the line has moved on by its own timeout.
    pub(super) fn retry_after_s(self, worker: &Worker) -> u64 {
        match self {
            Self::TooOften(seconds) => seconds,
            Self::Overloaded => SHED_RETRY_S,
            Self::Connections => retry_after_s(worker.shared.config.timeouts.connect),
            Self::QueueFull | Self::QueueTimeout | Self::QueueDeadline => {
                retry_after_s(worker.shared.config.admit.queue_timeout)
            }
        }
    }

    /// The detail for the engineer on call.
    pub(super) fn story(self, worker: &Worker) -> String {
        let admit = &worker.shared.config.admit;
        match self {
            Self::QueueFull | Self::QueueTimeout | Self::QueueDeadline => {
                let limits = admit.gate;
                let each = limits.requests_per_backend.map(|most| format!(", {most} at each backend"));
                let whole = limits.requests.map(|most| format!(", {most} in the pool"));
                let pool = route::pool(&worker.view());
                let (name, used) = pool.as_ref().map_or(("", 0), |pool| (&*pool.pool().name, pool.pool().used()));
                let what = match self {
                    Self::QueueFull => format!("as many requests wait as may (queue.length = {})", limits.queue),
                    Self::QueueTimeout => {
                        format!("no place came free within queue.timeout = {:?}", admit.queue_timeout)
                    }
                    _ => "its deadline could not be kept any more".to_owned(),
                };
                let (each, whole) = (each.unwrap_or_default(), whole.unwrap_or_default());
                format!("pool {name}: {used} backends take requests{each}{whole}, all in use; {what}\n")
            }
            Self::Overloaded => format!("{}\n", worker.shared.overload.words()),
            Self::Connections => {
                let most = admit.connections.unwrap_or_default();
                let limit = worker.shared.config.timeouts.connect;
                format!(
                    "all {most} connections of pool.max_connections are in use, and none came free within \
                     timeouts.connect = {limit:?}\n"
                )
            }
            Self::TooOften(seconds) => match &admit.rate {
                Some(rate) => {
                    let (requests, period) = (rate.policy.requests, rate.policy.period);
                    format!("rate_limit.requests = {requests} in {period:?}; come again in {seconds} s\n")
                }
                None => String::new(),
            },
        }
    }
}

/// Whether a request may come in at all: not while memory is nearly used up, nor too often. Two loads where neither is.
pub(super) fn screen(client: &Client, headers: &HeaderMap) -> Result<(), Refused> {
    let shared = &client.worker.shared;
    if shared.overload.sheds() {
        return Err(Refused::Overloaded);
    }
    let (Some(limiter), Some(config)) = (&shared.rate, &shared.config.admit.rate) else { return Ok(()) };
    let named = if client.trusted { config.header.as_ref().and_then(|name| headers.get(name)) } else { None };
    let who = match named {
        Some(name) => rate::Client::Name(name.as_bytes()),
        None if client.trusted => match forwarded_for(headers, &shared.config.trusted_proxies) {
            Some(behind) => rate::Client::Address(behind),
            // It speaks for itself, or for nobody it names: it is trusted.
            None => return Ok(()),
        },
        None => rate::Client::Address(client.address),
    };
    limiter.take(who, client.worker.clock.now().as_ns()).map_err(|wait| Refused::TooOften(retry_after_s(wait)))
}

/// A place for a request that has tried `tried`, at once or after a wait, which ends with the request's time at the latest.
///
/// # Cancel safety
/// Dropped, its place in the line is free, and a place that was meant for it goes to the next.
pub(super) async fn enter(client: &Rc<Client>, route: &Route, tried: &Tried) -> Result<Permit, NoPlace> {
    let Some(gate) = &route.pool().gate else {
        let pool = route.pool();
        let slot = pool.policy.pick(&pool.cursor, tried, &random(client)).ok_or(NoPlace::Nobody)?;
        return Ok(Permit { backend: route.backend(slot).enter(), slot });
    };
    if gate.queue.waiting() == 0 {
        match take(client, gate, route, tried) {
            Look::Took(found) | Look::GivesUp(found) => return found,
            // Outside the line's lock a look holds a place of the pool for a moment: who looked meanwhile looks again.
            Look::Nothing if gate.limits().requests.is_some() => gate.queue.freed(),
            Look::Nothing => {}
        }
    }
    // Not in the request's own future: hardly any needs the room.
    let deadline = client.time_left().map(|left| client.worker.clock.now().plus(left));
    Box::pin(wait(client, gate, tried, deadline)).await
}

/// The same for another attempt. By now the request's own snapshot may be old: a backend that has left meanwhile may be
/// safe to stop.
pub(super) async fn enter_again(client: &Rc<Client>, over: &Tried) -> Result<Permit, NoPlace> {
    let newest = route::pool(&client.worker.view()).ok_or(NoPlace::Nobody)?;
    enter(client, &newest, over).await
}

/// Whether there is a backend that takes requests, as of now, and was not tried.
pub(super) fn has_another(client: &Client, tried: &Tried) -> bool {
    let Some(route) = route::pool(&client.worker.view()) else { return false };
    let pool = route.pool();
    let backends = pool.backends.iter().enumerate();
    backends.filter(|(_, view)| pool.takes_requests(view)).any(|(slot, _)| !tried.contains(slot as Slot))
}

/// Numbers for a policy that draws.
fn random(client: &Client) -> impl Fn() -> u64 {
    || client.worker.random() as u64
}

fn take(client: &Client, gate: &Gate, route: &Route, tried: &Tried) -> Look<Result<Permit, NoPlace>> {
    match gate.take(route.pool(), tried, &random(client)) {
        Taken::Slot(slot) => Look::Took(Ok(Permit::new(route.backend(slot), slot))),
        Taken::Full => Look::Nothing,
        Taken::Nobody => Look::GivesUp(Err(NoPlace::Nobody)),
    }
}

/// Waits for a place.
async fn wait(client: &Rc<Client>, gate: &Gate, tried: &Tried, deadline: Option<Tick>) -> Result<Permit, NoPlace> {
    let worker = &client.worker;
    let begun = worker.clock.now();
    let refused = |why| Err(NoPlace::Refused(why));
    let hopeless = |ahead: usize, route: &Route| {
        let left = deadline.map(|deadline| deadline.since(worker.clock.now()).as_millis() as u64);
        left.is_some_and(|left_ms| gate.is_hopeless(left_ms, ahead, route.pool()))
    };
    // Who waits sees what has become of the pool meanwhile.
    let newest = || route::pool(&worker.view()).ok_or(NoPlace::Nobody);
    let route = newest()?;
    // As below.
    let look = || match newest() {
        Err(nobody) => Look::GivesUp(Err(nobody)),
        Ok(route) => take(client, gate, &route, tried),
    };
    let mut ticket = match gate.queue.join(!tried.is_empty(), begun.as_ms(), look) {
        Ok(Joined::Through(found)) => return found,
        Ok(Joined::Waits(ticket)) => ticket,
        Err(_) => return refused(Refused::QueueFull),
    };
    if hopeless(ticket.ahead, &route) {
        return refused(Refused::QueueDeadline);
    }
    drop(route);
    let most = worker.shared.config.admit.queue_timeout;
    let until = deadline.map_or(most, |deadline| deadline.since(begun).min(most));
    // Whoever leaves the line gives up its place, also before the worker's next sweep.
    client.deadline.lengthen();
    client.wait_for(Waiting::Queue, until);
    let mut leaving = Leaving(Some(client));
    let found = poll_fn(|cx| {
        // Under the line's lock, so that no change of the pool falls between the view and the look.
        let look = || match newest() {
            Err(nobody) => Look::GivesUp(Err(nobody)),
            Ok(route) if hopeless(0, &route) => Look::GivesUp(refused(Refused::QueueDeadline)),
            Ok(route) => take(client, gate, &route, tried),
        };
        match ticket.turn(cx.waker(), look) {
            Some(found) => Poll::Ready(found),
            None if client.expired() && until < most => Poll::Ready(refused(Refused::QueueDeadline)),
            None if client.expired() => Poll::Ready(refused(Refused::QueueTimeout)),
            None => Poll::Pending,
        }
    })
    .await;
    leaving.0 = None;
    record_wait(worker, worker.clock.now().since(begun));
    found
}

/// What a request connects with.
pub(super) enum Way {
    /// A place for one more connection.
    Place(Opened),
    /// A connection that another request was done with while this one waited for a place.
    Kept(Box<UpstreamConn>),
}

/// A place for one more connection to a backend, if there is one. Else what comes free first within the time for
/// connecting: a place, or a connection to `backend` that `take` finds to be of use.
pub(super) async fn connection(
    client: &Client,
    backend: &LocalBackend,
    take: Option<impl Fn() -> Option<Box<UpstreamConn>>>,
) -> Option<Way> {
    match client.worker.shared.backend_conns.enter() {
        Some(place) => Some(Way::Place(place)),
        // Not in the request's own future: hardly any needs the room.
        None => Box::pin(wait_for_connection(client, backend, take)).await,
    }
}

async fn wait_for_connection(
    client: &Client,
    backend: &LocalBackend,
    take: Option<impl Fn() -> Option<Box<UpstreamConn>>>,
) -> Option<Way> {
    let (worker, conns) = (&client.worker, &client.worker.shared.backend_conns);
    let wanted = conns.want();
    // What is idle here is worth less than what is needed now.
    if worker.make_room(1) > 0
        && let Some(place) = conns.enter()
    {
        return Some(Way::Place(place));
    }
    // So is what others have idle. What they get back from now on they do not keep.
    let others = worker.shared.workers.iter().enumerate().filter(|(id, _)| *id != worker.id);
    for (_, other) in others.filter(|(_, other)| other.idle.load(Ordering::Relaxed) > 0) {
        other.room.notify_one();
    }
    conns.waited.fetch_add(1, Ordering::Relaxed);
    // No part of the time for one try: no backend is waited for.
    client.time.try_ends();
    client.wait_for(Waiting::Connect, worker.shared.config.timeouts.connect);
    let _awaiting = take.is_some().then(|| Awaiting::new(worker, backend));
    let mut place = pin!(wanted.place());
    let way = pin!(async {
        loop {
            tokio::select! {
                biased;
                () = backend.kept.notified(), if take.is_some() => match take.as_ref().and_then(|take| take()) {
                    Some(kept) => return Way::Kept(kept),
                    // Gone to somebody faster; or of no use to this request, and then its place is.
                    None => drop(backend.idle.clear()),
                },
                place = &mut place => return Way::Place(place),
            }
        }
    });
    let way = or_expired(client, way).await;
    if way.is_none() && client.overdue().is_none() {
        conns.refused.fetch_add(1, Ordering::Relaxed);
    }
    way
}

/// A request that could use a connection of this worker to this backend, for as long as it waits.
struct Awaiting<'a> {
    worker: &'a Worker,
    backend: &'a LocalBackend,
}

impl<'a> Awaiting<'a> {
    fn new(worker: &'a Worker, backend: &'a LocalBackend) -> Self {
        backend.awaited.set(backend.awaited.get() + 1);
        Self { worker, backend }
    }
}

impl Drop for Awaiting<'_> {
    fn drop(&mut self) {
        self.backend.awaited.set(self.backend.awaited.get() - 1);
        // What was kept for it and not taken is in the way of those who wait elsewhere. It still counts itself.
        if self.backend.awaited.get() == 0 && self.worker.shared.backend_conns.wanted() > 1 {
            self.backend.idle.clear();
        }
    }
}

fn record_wait(worker: &Worker, waited: Duration) {
    worker.slot().shard.queue_wait.record(waited);
}
