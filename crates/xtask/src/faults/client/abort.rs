//! Clients that go away: inside their request's body, or inside the answer.

use std::io::{Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::ident::Id;
use super::load::encode;
use crate::bench::http;

/// A request that its client gave up.
pub(in super::super) struct Aborted {
    pub(in super::super) number: u64,
    /// Inside the request's body; otherwise inside the answer.
    pub(in super::super) in_request: bool,
    /// Since 1970.
    pub(in super::super) at_us: u64,
}

/// Longer than what the kernel holds between client, proxy and origin, so that an origin notices who does not read.
const LONG: usize = 24 << 20;

/// How much of it moves before the client goes.
const PART: usize = 64 << 10;

/// Aborts `count` requests, each way in turn, on connections of their own.
///
/// # Errors
/// When the proxy does not take part.
pub(in super::super) fn abort_many(port: u16, run: u64, first: u64, count: u64) -> Result<Vec<Aborted>, String> {
    (0..count).map(|n| abort_one(port, Id { run, number: first + n }, n % 2 == 0)).collect()
}

fn abort_one(port: u16, id: Id, in_request: bool) -> Result<Aborted, String> {
    let failed = |e: std::io::Error| format!("a client that is to go away: {e}");
    let mut stream = http::connect(port).map_err(failed)?;
    if in_request {
        let (bytes, _) = encode(id, true, 2 * PART, 16);
        stream.write_all(&bytes[..bytes.len() - PART]).map_err(failed)?;
        // What was sent arrives before the end of the connection does.
        std::thread::sleep(Duration::from_millis(20));
    } else {
        let (bytes, _) = encode(id, false, 0, LONG);
        stream.write_all(&bytes).map_err(failed)?;
        stream.read_exact(&mut vec![0; PART]).map_err(failed)?;
    }
    drop(stream);
    let at_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
    Ok(Aborted { number: id.number, in_request, at_us })
}
