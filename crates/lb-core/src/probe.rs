//! The active health checker: one connection attempt. The only part of this crate that does I/O.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::health::{Failure, Outcome, is_our_own};

/// Whether a connection was made from a port to the same port: TCP allows it, and a dead server on this machine whose
/// port happens to be chosen for the way out would seem alive.
pub fn is_to_itself(connection: &TcpStream) -> bool {
    matches!((connection.local_addr(), connection.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

/// Opens a TCP connection to the first of `addresses` that takes one, within `limit` shared between all of them, sends
/// `greeting` and closes it. Returns the outcome, and which address it was.
///
/// # Cancel safety
/// Dropping the future closes the attempt.
pub async fn tcp(addresses: &[SocketAddr], limit: Duration, greeting: &[u8]) -> (Outcome, Option<SocketAddr>) {
    let started = Instant::now();
    let mut failure = None;
    for (tried, address) in addresses.iter().enumerate() {
        // An address that swallows packets must not use up the time of those behind it.
        let share = limit.saturating_sub(started.elapsed()) / (addresses.len() - tried) as u32;
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(connection)) if is_to_itself(&connection) => {
                failure = Some(Failure::of_connect(&std::io::ErrorKind::ConnectionRefused.into()));
            }
            Ok(Ok(connection)) => {
                // A new socket's buffer takes it at once. What the other side does with it is no part of the check.
                let _ = connection.try_write(greeting);
                return (Outcome::Passed(started.elapsed()), Some(*address));
            }
            Ok(Err(error)) if is_our_own(&error) => return (Outcome::NotTried(error.to_string()), None),
            Ok(Err(error)) => failure = Some(Failure::of_connect(&error)),
            Err(_) => failure = Some(Failure::connect_timeout(share)),
        }
    }
    let nothing = || Failure { code: crate::api::ReasonCode::NotResolved, words: "no address".to_owned() };
    (Outcome::Failed(failure.unwrap_or_else(nothing)), None)
}
