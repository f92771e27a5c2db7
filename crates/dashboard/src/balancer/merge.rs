//! Snapshot plus delta gives the next snapshot: what a browser that comes later, or was too slow, is given.
//!
//! The page does the same in `assets/js/store.js`.

use lb_core::api::{Backend, Delta, EVENTS_KEPT, HISTORY_KEPT, Pool, PoolDelta, RECENT_KEPT, Status};

/// A tick is missing between the two, so that the delta does not say all that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap;

/// # Errors
/// When the delta is not the one that follows; the status is then as it was.
pub(crate) fn apply(status: &mut Status, delta: &Delta) -> Result<(), Gap> {
    if delta.tick <= status.tick {
        return Ok(());
    }
    if delta.tick > status.tick + 1 || delta.pools.iter().any(|pool| !status.pools.iter().any(|p| p.name == pool.name))
    {
        return Err(Gap);
    }
    status.tick = delta.tick;
    status.now_unix_ms = delta.now_unix_ms;
    status.generation = delta.generation;
    status.ready.clone_from(&delta.ready);
    status.connections = delta.connections;
    status.overload.clone_from(&delta.overload);
    status.traffic.clone_from(&delta.traffic);
    if let Some(retries) = delta.retries {
        status.retries = retries;
    }
    status.history.push(delta.sample);
    keep_newest(&mut status.history, HISTORY_KEPT);
    let newest = status.events.last().map_or(0, |event| event.seq);
    status.events.extend(delta.events.iter().filter(|event| event.seq > newest).cloned());
    keep_newest(&mut status.events, EVENTS_KEPT);
    for pool in &mut status.pools {
        if let Some(change) = delta.pools.iter().find(|change| change.name == pool.name) {
            apply_pool(pool, change);
        }
    }
    Ok(())
}

fn apply_pool(pool: &mut Pool, change: &PoolDelta) {
    pool.state = change.state;
    pool.reason.clone_from(&change.reason);
    pool.traffic.clone_from(&change.traffic);
    pool.queue = change.queue;
    for backend in &mut pool.backends {
        match change.backends.iter().find(|changed| changed.name == backend.name) {
            Some(changed) => replace(backend, changed),
            None => backend.recent_requests_per_s.push(backend.traffic.requests_per_s),
        }
        keep_newest(&mut backend.recent_requests_per_s, RECENT_KEPT);
    }
    for changed in &change.backends {
        if !pool.backends.iter().any(|backend| backend.name == changed.name) {
            pool.backends.push(changed.clone());
        }
    }
}

fn replace(backend: &mut Backend, changed: &Backend) {
    let mut recent = std::mem::take(&mut backend.recent_requests_per_s);
    recent.extend(&changed.recent_requests_per_s);
    *backend = changed.clone();
    backend.recent_requests_per_s = recent;
}

fn keep_newest<T>(items: &mut Vec<T>, most: usize) {
    let surplus = items.len().saturating_sub(most);
    items.drain(..surplus);
}

#[cfg(test)]
#[path = "merge_tests.rs"]
mod tests;
