//! The active health checker: one connection attempt. The only part of this crate that does I/O.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::health::{Failure, Outcome};

/// Opens a TCP connection to the first of `addresses` that takes one, within `limit` for all of them, and closes it.
/// Returns the outcome, and which address it was.
///
/// # Cancel safety
/// Dropping the future closes the attempt.
pub async fn tcp(addresses: &[SocketAddr], limit: Duration) -> (Outcome, Option<SocketAddr>) {
    let started = Instant::now();
    let mut failure = None;
    for address in addresses {
        let left = limit.saturating_sub(started.elapsed());
        match timeout(left, TcpStream::connect(address)).await {
            Ok(Ok(_connection)) => return (Outcome::Passed(started.elapsed()), Some(*address)),
            Ok(Err(error)) => failure = Some(Failure::of_connect(&error)),
            Err(_) => {
                failure = Some(Failure::connect_timeout(limit));
                break;
            }
        }
    }
    let nothing = || Failure { code: crate::api::ReasonCode::NotResolved, words: "no address".to_owned() };
    (Outcome::Failed(failure.unwrap_or_else(nothing)), None)
}
