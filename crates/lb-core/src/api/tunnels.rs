//! `GET /v1/tunnels`: the connections that have switched protocols, which live longer than requests.

use serde::{Deserialize, Serialize};

/// How many tunnels a [`Tunnels`] lists at most.
pub const TUNNELS_LISTED: usize = 1000;

/// The answer to `GET /v1/tunnels`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnels {
    /// All that are open.
    pub open: u64,
    /// The oldest, oldest first, at most [`TUNNELS_LISTED`].
    pub tunnels: Vec<Tunnel>,
}

/// An open tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// Unique for the life of the process, rising.
    pub id: u64,
    pub pool: String,
    pub backend: String,
    /// The client's address, as `host:port`.
    pub client: String,
    /// What was switched to: `websocket`.
    pub protocol: String,
    /// Of the request, without its query, at most 100 characters.
    pub path: String,
    pub since_unix_ms: u64,
    /// Bytes from the client to the backend.
    pub received_bytes: u64,
    /// Bytes from the backend to the client.
    pub sent_bytes: u64,
}
