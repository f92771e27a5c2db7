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
///
/// Most requests have none, and many wait at a time: what only a body needs is apart, so that they are small.
#[derive(Debug)]
pub(crate) struct RequestBody {
    content: Option<Box<Content>>,
    /// Something that was taken out is not kept: it cannot be sent again.
    lost: bool,
}

#[derive(Debug)]
struct Content {
    incoming: Incoming,
    ended: bool,
    most_kept: usize,
    /// Whether what is taken out is kept.
    keeping: bool,
    /// What was taken out so far. Copied: a piece of one byte would hold on to the whole buffer it was read into.
    kept: BytesMut,
    /// The current try is to send what was kept first.
    replay: bool,
    /// Taken out, not kept, and not sent either: comes first.
    returned: Bytes,
    /// Told when it is dropped before its end: the connection then has bytes on it that nobody will read.
    unread: Rc<Cell<bool>>,
}

impl Drop for Content {
    fn drop(&mut self) {
        if !self.ended && !self.incoming.is_end_stream() {
            self.unread.set(true);
        }
    }
}

impl Content {
    fn keep_no_more(&mut self) {
        self.keeping = false;
        if !self.replay {
            self.kept = BytesMut::new();
        }
    }

    /// The next piece, and whether it is lost: it is not kept, or broke.
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<(Taken, bool)> {
        let again = if std::mem::take(&mut self.replay) {
            if self.keeping { Bytes::copy_from_slice(&self.kept) } else { std::mem::take(&mut self.kept).freeze() }
        } else {
            std::mem::take(&mut self.returned)
        };
        if !again.is_empty() {
            return Poll::Ready((Some(Ok(Frame::data(again))), !self.keeping));
        }
        if self.ended {
            return Poll::Ready((None, false));
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        let lost = match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(data) if self.keeping && self.kept.len() + data.len() <= self.most_kept => {
                    self.kept.extend_from_slice(data);
                    false
                }
                _ => {
                    self.keep_no_more();
                    true
                }
            },
            Some(Err(_)) => true,
            None => {
                self.ended = true;
                false
            }
        };
        Poll::Ready((frame, lost))
    }
}

/// What comes out of a body: a piece, an error, or its end.
type Taken = Option<Result<Frame<Bytes>, hyper::Error>>;

impl RequestBody {
    /// Up to `most_kept` bytes are kept for a second try; of what is known to be longer, none. `unread` is set when the
    /// body is given up before its end.
    pub(crate) fn new(incoming: Incoming, most_kept: usize, unread: &Rc<Cell<bool>>) -> Self {
        if incoming.is_end_stream() {
            return Self { content: None, lost: false };
        }
        let keeping = incoming.size_hint().exact().is_none_or(|length| length <= most_kept as u64);
        let content = Content {
            incoming,
            ended: false,
            most_kept,
            keeping,
            kept: BytesMut::new(),
            replay: false,
            returned: Bytes::new(),
            unread: Rc::clone(unread),
        };
        Self { content: Some(Box::new(content)), lost: false }
    }

    /// How it is delimited; asked before anything is taken out of it.
    pub(crate) fn framing(&self, announced: bool) -> Framing {
        match self.content.as_ref().map_or(Some(0), |content| content.incoming.size_hint().exact()) {
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
        self.content.as_ref().is_none_or(|content| content.keeping && content.incoming.size_hint().exact().is_some())
    }

    /// Starts again from the beginning.
    pub(crate) fn rewind(&mut self) {
        debug_assert!(self.is_replayable(), "rewound what was lost");
        if let Some(content) = &mut self.content {
            content.replay = !content.kept.is_empty();
        }
    }

    /// Takes back `chunk`, the one piece that was taken out for a try that could not send a byte of it.
    pub(crate) fn give_back(&mut self, chunk: Bytes) {
        // Kept pieces come back by themselves. Without a piece, it was trailers that are lost.
        if let Some(content) = &mut self.content
            && self.lost
            && !chunk.is_empty()
        {
            content.returned = chunk;
            self.lost = false;
        }
    }

    /// What is sent from here on is sent for the last time: nothing more is kept.
    pub(crate) fn keep_no_more(&mut self) {
        if let Some(content) = &mut self.content {
            content.keep_no_more();
        }
    }

    /// There will be no second try.
    pub(crate) fn forget(&mut self) {
        self.keep_no_more();
        self.lost = true;
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Taken> {
        let Some(content) = &mut self.content else { return Poll::Ready(None) };
        let (frame, lost) = ready!(content.poll_frame(cx));
        self.lost |= lost;
        Poll::Ready(frame)
    }
}

/// A request on its way: its head stands in the connection's buffer, its body follows.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub body: RequestBody,
    /// For as long as there is a body to send.
    upload: Option<Box<Upload>>,
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

/// How a body is sent, and how far that is.
#[derive(Debug)]
struct Upload {
    framing: Framing,
    /// With `Framing::Length`: how much may still come.
    left: u64,
    chunk: Bytes,
    tail: &'static [u8],
    /// No more comes.
    ended: bool,
    /// Fields named by `Connection`: they end here as trailers too (RFC 9110 §7.6.1).
    named: Vec<HeaderName>,
}

impl Upload {
    fn is_empty(&self) -> bool {
        self.chunk.is_empty() && self.tail.is_empty()
    }

    /// Puts the next piece of the body after what is to be sent already.
    fn put(&mut self, data: Bytes, connection: &mut UpstreamConn) {
        if data.is_empty() {
            return;
        }
        if self.framing == Framing::Chunked {
            put_hex(connection.sending(), data.len());
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
        let unsent = connection.sending();
        unsent.put_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| may_trail(name) && !self.named.contains(name)) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                unsent.put_slice(part);
            }
        }
        unsent.put_slice(b"\r\n");
    }
}

impl Outgoing {
    /// A request with this head. `held` keeps its body back until the backend asks for it.
    pub(crate) fn new(body: RequestBody, head: &HeaderMap, framing: Framing, repeatable: bool, held: bool) -> Self {
        let left = match framing {
            Framing::None | Framing::Length(0) => None,
            Framing::Length(length) => Some(length),
            Framing::Chunked => Some(0),
        };
        let upload = left.map(|left| {
            let named = if framing == Framing::Chunked { named_by_connection(head) } else { Vec::new() };
            Box::new(Upload { framing, left, chunk: Bytes::new(), tail: b"", ended: false, named })
        });
        let held = held && upload.is_some();
        Self { body, upload, held, repeatable, written: 0, body_bytes: 0 }
    }

    /// The body, to be tried again with from its start. What was taken out of it and not sent is put back.
    pub(crate) fn into_body(mut self) -> RequestBody {
        if self.written == 0
            && let Some(upload) = self.upload
        {
            self.body.give_back(upload.chunk);
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
            let wanted = self.upload.as_ref().is_some_and(|upload| !upload.ended && upload.is_empty());
            let starved = wanted && (self.held || self.poll_chunk(cx, connection)?);
            let (mut nothing, mut no_tail) = (Bytes::new(), &b""[..]);
            let (chunk, tail) = match &mut self.upload {
                Some(upload) => (&mut upload.chunk, &mut upload.tail),
                None => (&mut nothing, &mut no_tail),
            };
            match connection.poll_send(cx, chunk, tail).map_err(ExchangeError::Closed)? {
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
            let upload = self.upload.as_ref();
            let flushed = connection.unsent.is_empty() && upload.is_none_or(|upload| upload.is_empty());
            match (flushed, upload.is_none_or(|upload| upload.ended), starved) {
                (true, true, _) => return Poll::Ready(Ok(())),
                // Waiting for the client: its task is this one, so its waker is too.
                (true, false, true) => return Poll::Pending,
                _ => {}
            }
        }
    }

    /// Whether everything that came so far is sent, and more must come.
    pub(super) fn is_waiting_for_client(&self, connection: &UpstreamConn) -> bool {
        let waits = self.upload.as_ref().is_some_and(|upload| !upload.ended && upload.is_empty());
        waits && !self.held && connection.unsent.is_empty()
    }

    /// Takes the next piece of the body over; says whether there is none yet.
    fn poll_chunk(&mut self, cx: &mut Context<'_>, connection: &mut UpstreamConn) -> Result<bool, ExchangeError> {
        let Some(upload) = &mut self.upload else { return Ok(false) };
        let frame = match self.body.poll_frame(cx) {
            Poll::Pending => return Ok(true),
            Poll::Ready(frame) => frame.transpose().map_err(ExchangeError::ClientBody)?,
        };
        match frame.map(Frame::into_data) {
            Some(Ok(data)) => {
                self.body_bytes += data.len() as u64;
                upload.put(data, connection);
            }
            Some(Err(frame)) => upload.put_end(connection, &frame.into_trailers().unwrap_or_default()),
            None => upload.put_end(connection, &HeaderMap::new()),
        }
        Ok(false)
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
