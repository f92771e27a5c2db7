//! Whether a broken attempt may be followed by another, and where that goes.

use http::Method;
use lb_core::policy::{MAX_ATTEMPTS, Slot, Tried};

use super::{Broken, Cause, Outbound, Route};
use crate::conn::Client;
use crate::upstream::ExchangeError;

/// How much repeating was done.
#[derive(Default)]
pub(super) struct Spent {
    pub tried: Tried,
    pub retries: u32,
    pub connects: u32,
    /// What was tried and how it failed, for the reply.
    pub story: String,
    /// Only a fresh connection will do: a kept one has just turned out to be closed, and its neighbours may be too.
    pub fresh: bool,
}

pub(super) fn pick(route: &Route, tried: &Tried) -> Option<Slot> {
    let pool = route.pool();
    pool.policy.pick(&pool.cursor, tried)
}

/// Where to go after `broken`, or `None` when it must not or cannot be repeated.
pub(super) fn next(
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
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}
