//! The request body on its way to the backend, and what is kept of it so that it can be sent again.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{HeaderMap, HeaderName};
use http_body::{Body, Frame};
use hyper::body::Incoming;

use super::chunked::may_trail;
use super::encode::{Framing, named_by_connection};
use super::{ExchangeError, UpstreamConn};

/// The client's request body. What has been taken out of it is kept, up to `most_kept` bytes, until it is known that no
/// second try is needed.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Incoming,
    ended: bool,
    most_kept: usize,
    /// Whether what is taken out is kept.
    keeping: bool,
    /// What was taken out so far. Copied: a piece of one byte would hold on to the whole buffer it was read into.
    kept: BytesMut,
    /// Something that was taken out is not kept: it cannot be sent again.
    lost: bool,
    /// The current try is to send what was kept first.
    replay: bool,
    /// Taken out, not kept, and not sent either: comes first.
    returned: Bytes,
    /// Told when it is dropped before its end: the connection then has bytes on it that nobody will read.
    unread: Rc<Cell<bool>>,
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if !self.ended && !self.incoming.is_end_stream() {
            self.unread.set(true);
        }
    }
}

impl RequestBody {
    /// Up to `most_kept` bytes are kept for a second try; of what is known to be longer, none. `unread` is set when the
    /// body is given up before its end.
    pub(crate) fn new(incoming: Incoming, most_kept: usize, unread: Rc<Cell<bool>>) -> Self {
        let ended = incoming.is_end_stream();
        let keeping = incoming.size_hint().exact().is_none_or(|length| length <= most_kept as u64);
        let (kept, returned) = (BytesMut::new(), Bytes::new());
        Self { incoming, ended, most_kept, keeping, kept, lost: false, replay: false, returned, unread }
    }

    /// How it is delimited; asked before anything is taken out of it.
    pub(crate) fn framing(&self, announced: bool) -> Framing {
        match self.incoming.size_hint().exact() {
            // RFC 9110 §8.6: `Content-Length: 0` is passed on if the client said so (a POST without a body).
            Some(0) if !announced => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        }
    }

    /// Whether it can be sent once more from the start.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.lost
    }

    /// Whether it could be sent again even after all of it was sent, as far as is known now.
    pub(crate) fn is_kept(&self) -> bool {
        self.keeping && self.incoming.size_hint().exact().is_some()
    }

    /// Starts again from the beginning.
    pub(crate) fn rewind(&mut self) {
        debug_assert!(self.is_replayable(), "rewound what was lost");
        self.replay = !self.kept.is_empty();
    }

    /// Takes back `chunk`, the one piece that was taken out for a try that could not send a byte of it.
    pub(crate) fn give_back(&mut self, chunk: Bytes) {
        // Kept pieces come back by themselves. Without a piece, it was trailers that are lost.
        if self.lost && !chunk.is_empty() {
            self.returned = chunk;
            self.lost = false;
        }
    }

    /// What is sent from here on is sent for the last time: nothing more is kept.
    pub(crate) fn keep_no_more(&mut self) {
        self.keeping = false;
        if !self.replay {
            self.kept = BytesMut::new();
        }
    }

    /// There will be no second try.
    pub(crate) fn forget(&mut self) {
        self.keep_no_more();
        self.lost = true;
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let again = if std::mem::take(&mut self.replay) {
            if self.keeping { Bytes::copy_from_slice(&self.kept) } else { std::mem::take(&mut self.kept).freeze() }
        } else {
            std::mem::take(&mut self.returned)
        };
        if !again.is_empty() {
            self.lost |= !self.keeping;
            return Poll::Ready(Some(Ok(Frame::data(again))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if self.keeping && self.kept.len() + data.len() <= self.most_kept => {
                    self.kept.extend_from_slice(data);
                }
                _ => self.forget(),
            },
            Some(Err(_)) => self.lost = true,
            None => self.ended = true,
        }
        Poll::Ready(frame)
    }
}

/// A request on its way: its head stands in the connection's buffer, its body follows.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub body: RequestBody,
    framing: Framing,
    /// With `Framing::Length`: how much may still come.
    left: u64,
    chunk: Bytes,
    tail: &'static [u8],
    ended: bool,
    /// Fields named by `Connection`: they end here as trailers too (RFC 9110 §7.6.1).
    named: Vec<HeaderName>,
    /// The client waits for 100 before it sends the body, and the backend has not asked for it yet: it is not touched,
    /// since touching it makes hyper ask the client (RFC 9110 §10.1.1).
    pub held: bool,
    /// Whether it may be sent again although something of it was written.
    repeatable: bool,
    /// Bytes of head and body that the kernel took.
    pub written: u64,
    /// Bytes of the body alone.
    pub body_bytes: u64,
}

impl Outgoing {
    /// A request with this head. `held` keeps its body back until the backend asks for it.
    pub(crate) fn new(body: RequestBody, head: &HeaderMap, framing: Framing, repeatable: bool, held: bool) -> Self {
        let named = if framing == Framing::Chunked { named_by_connection(head) } else { Vec::new() };
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        let ended = matches!(framing, Framing::None | Framing::Length(0));
        let held = held && !ended;
        Self {
            body,
            framing,
            left,
            chunk: Bytes::new(),
            tail: b"",
            ended,
            named,
            held,
            repeatable,
            written: 0,
            body_bytes: 0,
        }
    }

    /// The body, to be tried again with from its start. What was taken out of it and not sent is put back.
    pub(crate) fn into_body(mut self) -> RequestBody {
        if self.written == 0 {
            self.body.give_back(self.chunk);
        }
        self.body
    }

    /// Sends on. `Ready(Ok)` when head and body are through; `progress` is called after each write.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut UpstreamConn,
        mut progress: impl FnMut(),
    ) -> Poll<Result<(), ExchangeError>> {
        loop {
            // The body is asked first, so that a small one leaves in the same write as its head.
            let wanted = !self.ended && self.chunk.is_empty() && self.tail.is_empty();
            let starved = wanted && (self.held || self.poll_chunk(cx, connection)?);
            let written = connection.poll_send(cx, &mut self.chunk, &mut self.tail);
            match written.map_err(ExchangeError::Closed)? {
                Poll::Ready(0) => {}
                Poll::Ready(written) => {
                    if self.written == 0 && !self.repeatable {
                        self.body.forget();
                    }
                    self.written += written as u64;
                    progress();
                }
                Poll::Pending => return Poll::Pending,
            }
            let flushed = connection.unsent.is_empty() && self.chunk.is_empty() && self.tail.is_empty();
            match (flushed, self.ended, starved) {
                (true, true, _) => return Poll::Ready(Ok(())),
                // Waiting for the client: its task is this one, so its waker is too.
                (true, false, true) => return Poll::Pending,
                _ => {}
            }
        }
    }

    /// Whether everything that came so far is sent, and more must come.
    pub(super) fn is_waiting_for_client(&self, connection: &UpstreamConn) -> bool {
        !self.ended && !self.held && self.chunk.is_empty() && self.tail.is_empty() && connection.unsent.is_empty()
    }

    /// Takes the next piece of the body over; says whether there is none yet.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, connection: &mut UpstreamConn) -> Result<bool, ExchangeError> {
        let frame = match self.body.poll_frame(cx) {
            Poll::Pending => return Ok(true),
            Poll::Ready(frame) => frame.transpose().map_err(ExchangeError::ClientBody)?,
        };
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => self.put_chunk(data, connection),
            Some(Err(frame)) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                self.put_end(connection, &trailers);
            }
            None => self.put_end(connection, &HeaderMap::new()),
        }
        Ok(false)
    }

    fn put_chunk(&mut self, data: Bytes, connection: &mut UpstreamConn) {
        if data.is_empty() {
            return;
        }
        self.body_bytes += data.len() as u64;
        if self.framing == Framing::Chunked {
            put_hex(&mut connection.unsent, data.len());
            self.tail = b"\r\n";
        } else {
            // hyper yields exactly the announced length or an error, never more.
            self.left = self.left.saturating_sub(data.len() as u64);
            self.ended = self.left == 0;
        }
        self.chunk = data;
    }

    fn put_end(&mut self, connection: &mut UpstreamConn, trailers: &HeaderMap) {
        self.ended = true;
        if self.framing != Framing::Chunked {
            return;
        }
        connection.unsent.put_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name) && !self.named.contains(name)) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                connection.unsent.put_slice(part);
            }
        }
        connection.unsent.put_slice(b"\r\n");
    }
}

/// A chunk's size line (RFC 9112 §7.1).
fn put_hex(out: &mut BytesMut, number: usize) {
    let digits = (usize::BITS - number.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.put_u8(b"0123456789abcdef"[(number >> (4 * digit)) & 0xf]);
    }
    out.put_slice(b"\r\n");
}

/// A body that ended before its announced length would leave the backend waiting.
pub(super) fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_lines_are_hexadecimal() {
        for number in [1, 9, 15, 16, 255, 4096, 65_536, usize::MAX] {
            let mut out = BytesMut::new();
            put_hex(&mut out, number);
            assert_eq!(out, format!("{number:x}\r\n").as_bytes());
        }
    }
}
