//! One request of our own and its answer, over a connection, until a moment at most.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::api::ReasonCode;
use crate::health::Failure;

use super::reply::{Judge, Progress, Reply, failure};
use super::rounded;

/// Read at once; an answer to a check is smaller.
const PIECE: usize = 4 * 1024;

/// Sends `request` and reads the answer to its end, showing it to `judge`. `to_head`: the request's method is HEAD.
/// Returns whether another request may follow on the connection.
///
/// # Errors
/// There is no whole answer by `deadline` (reckoned from `started`), it is not HTTP, or the judge does not like it.
///
/// # Cancel safety
/// Dropped, the connection is in the middle of an answer and must be closed.
pub async fn exchange(
    connection: &mut TcpStream,
    request: &[u8],
    to_head: bool,
    judge: &mut impl Judge,
    started: Instant,
    deadline: Instant,
) -> Result<bool, Failure> {
    let mut reply = Reply::new(to_head);
    let limit = rounded(deadline.saturating_duration_since(started));
    let late = |reply: &Reply| {
        let words = format!("no whole answer within {limit:?}");
        Failure { seen: format!(", {}", reply.place()), ..failure(ReasonCode::ResponseTimeout, words) }
    };
    // A request this small fits into a socket's buffer. An error may be a reset that an answer came before: it is read.
    let sent = timeout_at(deadline, connection.write_all(request)).await.map_err(|_| late(&reply))?;
    let mut piece = [0; PIECE];
    loop {
        let read = timeout_at(deadline, connection.read(&mut piece)).await.map_err(|_| late(&reply))?;
        let progress = match read {
            Ok(0) => reply.end().map_err(|failure| sent.as_ref().err().map_or(failure, |error| broken(error, &reply))),
            Ok(length) => reply.feed(&piece[..length], judge),
            Err(error) => Err(broken(&error, &reply)),
        };
        if let Progress::Done { reusable } = progress? {
            return Ok(reusable && sent.is_ok());
        }
        // Bytes that are there already are read without a look at the clock; a flood must not outlast the deadline.
        if Instant::now() >= deadline {
            return Err(late(&reply));
        }
    }
}

fn broken(error: &io::Error, reply: &Reply) -> Failure {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            Failure { seen: format!(" {}", reply.place()), ..failure(ReasonCode::Reset, "connection reset".to_owned()) }
        }
        _ => Failure { seen: format!(", {}", reply.place()), ..failure(ReasonCode::Closed, error.to_string()) },
    }
}
