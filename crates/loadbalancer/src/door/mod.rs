//! The door: a strict look at the bytes of each request before the parser (hyper) gets them.
//!
//! It promises that what reaches the parser can be read in one way only: a head is handed on when it is complete and
//! nothing in it is disputed between implementations ([`head`]), a body only as far as it belongs to that head
//! ([`chunks`]), and the next head not before the response to this one is out. It never decides anything else: what
//! the parser then makes of the message must agree with what was seen here, or the connection ends
//! ([`Rejected::Framing`](lb_core::metrics::Rejected::Framing)). So there is no second interpretation, only a stricter
//! first one.
//!
//! State: [`Door`] belongs to one connection's socket (`conn/stream.rs`), which is its only writer.

mod chunks;
mod head;
#[cfg(test)]
mod tests;

use bytes::BytesMut;
use lb_core::metrics::Rejected;

pub(crate) use head::{Body, diagnose, is_for_head_only};

use crate::config::Limits;
use chunks::ChunkWatch;

/// Empty lines taken before a request line (RFC 9112 §2.2 asks for at least one: clients put them behind a POST).
const MOST_EMPTY_LINES: usize = 4;

/// Bytes of later requests that are taken over while one is being answered. What is more waits in the kernel.
pub(crate) const MOST_HELD: usize = 16 * 1024;

/// Where in its messages a connection stands.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Head,
    Length(u64),
    Chunked(ChunkWatch),
}

/// What may be done with some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    /// So many from the front go to the parser; the rest is for later.
    On(usize),
    /// The head is not complete: nothing goes on.
    Wait,
}

/// One connection's door.
#[derive(Debug, Default)]
pub(crate) struct Door {
    stage: Stage,
    /// Bytes that were received and must not go on yet: part of a head, or what follows the current message.
    pub held: BytesMut,
    /// How much of `held` has been searched for the end of a head.
    searched: usize,
    /// Whether the current request is about the server as a whole, in a form that the parser does not keep.
    pub about_server: bool,
}

impl Door {
    /// Whether a head is awaited, and not the rest of a body.
    pub(crate) fn is_between(&self) -> bool {
        matches!(self.stage, Stage::Head)
    }

    /// Looks at a whole head and what came with it. `Ok(Some)` is how much may go on and the body that was announced.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn pass_head(&mut self, received: &[u8], limits: &Limits) -> Result<(Pass, Option<Body>), Rejected> {
        let start = head::skip_empty_lines(received, MOST_EMPTY_LINES)?;
        let rest = &received[start..];
        let searched = self.searched.saturating_sub(start);
        // Nearly every head comes in one piece. Where pieces come, it is judged again only when a line has come to its end:
        // lines are few, pieces need not be.
        let judged = if head::ends_a_line(&rest[searched..]) { head::judge(rest, limits)? } else { None };
        let Some((length, body)) = judged else {
            head::judge_part(rest, searched, limits)?;
            self.searched = received.len();
            return Ok((Pass::Wait, None));
        };
        self.searched = 0;
        self.about_server = head::asks_about_server(&rest[..length]);
        self.stage = match body {
            Body::None => Stage::Head,
            Body::Length(length) => Stage::Length(length),
            Body::Chunked => Stage::Chunked(ChunkWatch::new(limits.body)),
        };
        let behind = start + length;
        let of_body = if self.is_between() { 0 } else { self.pass_body(&received[behind..])? };
        Ok((Pass::On(behind + of_body), Some(body)))
    }

    /// How much of `received` belongs to the current body; behind its end a head is awaited again.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn pass_body(&mut self, received: &[u8]) -> Result<usize, Rejected> {
        let (passed, ended) = match &mut self.stage {
            Stage::Head => return Ok(0),
            Stage::Length(left) => {
                let passed = usize::try_from(*left).unwrap_or(usize::MAX).min(received.len());
                *left -= passed as u64;
                (passed, *left == 0)
            }
            Stage::Chunked(watch) => watch.pass(received)?,
        };
        if ended {
            self.stage = Stage::Head;
        }
        Ok(passed)
    }
}
