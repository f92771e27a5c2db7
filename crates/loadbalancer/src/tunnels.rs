//! The tunnels that are open, over all workers: counted and listed, so that an operator sees who holds a backend.
//!
//! Written by workers when a tunnel opens or ends (the one place where they share a lock: it is taken twice in a
//! tunnel's life and never on a request's path), and while it carries bytes through atomics of its own row. Read by
//! the admin API.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use lb_core::api;

/// What is known of an open tunnel.
#[derive(Debug)]
pub(crate) struct Facts {
    pub id: u64,
    pub pool: String,
    pub backend: String,
    pub client: SocketAddr,
    pub protocol: String,
    pub path: String,
    pub since: SystemTime,
    /// Written by the tunnel's worker only.
    pub to_backend: AtomicU64,
    /// Written by the tunnel's worker only.
    pub to_client: AtomicU64,
}

impl Facts {
    /// As the admin API tells it.
    pub(crate) fn wire(&self) -> api::Tunnel {
        let since = self.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        api::Tunnel {
            id: self.id,
            pool: self.pool.clone(),
            backend: self.backend.clone(),
            client: self.client.to_string(),
            protocol: self.protocol.clone(),
            path: self.path.clone(),
            since_unix_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            received_bytes: self.to_backend.load(Ordering::Relaxed),
            sent_bytes: self.to_client.load(Ordering::Relaxed),
        }
    }
}

/// All open tunnels. Bounded by the client connections: each is one.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    rows: Mutex<HashMap<u64, Arc<Facts>>>,
    next: AtomicU64,
}

impl Tunnels {
    /// A number for a new tunnel.
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn enter(&self, facts: Arc<Facts>) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).insert(facts.id, facts);
    }

    pub(crate) fn leave(&self, id: u64) {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// The `most` oldest, oldest first.
    pub(crate) fn oldest(&self, most: usize) -> Vec<Arc<Facts>> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<Arc<Facts>> = rows.values().map(Arc::clone).collect();
        drop(rows);
        all.sort_unstable_by_key(|facts| facts.id);
        all.truncate(most);
        all
    }
}
