//! The client's socket as hyper sees it: through the [`Door`], and watched for deadlines.
//!
//! hyper reads when it likes; what it gets is one message at a time. What a client sends behind the current message is
//! held back until the response is out, and with it the end of its sending: a client that half-closes still gets its
//! answer, a client that resets the connection ends the request at once (unless it has sent [`MOST_HELD`] bytes ahead,
//! has ended its side before, or is still sending its body: then when something is next read or written; or its socket is
//! not watched yet: then within a sweep). hyper is told that half-closed connections
//! are fine, so that it does not look at the socket while it waits for a response (it would need a new buffer for
//! that, since the request still holds the old one); [`Socket::poll_ahead`] looks instead.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use lb_core::metrics::Rejected;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::client::Client;
use super::socket::{ClientSocket, PIECE};
use crate::door::{self, Door, MOST_HELD, Pass};

/// Room for what comes while a request is under way.
const AHEAD: usize = 2 * 1024;

/// A response up to this size leaves in one piece: copying it is cheaper than what the kernel does for several. If the
/// connection ends behind it, the end is part of the same packet if it can be, for the same reason.
const ONE_PIECE: usize = 2 * 1024;

/// The client's socket, behind the door.
pub(super) struct Socket {
    pub(super) stream: ClientSocket,
    client: Rc<Client>,
    pub(super) door: Door,
    /// How much of what is held may go on.
    due: usize,
    /// The client has ended its side.
    ended: bool,
    /// The last response is with the socket, and not yet its end.
    owes_end: bool,
}

/// hyper's end of a [`Socket`]. Borrowed only within one call, never across an `.await`.
pub(super) struct ClientStream(pub(super) Rc<RefCell<Socket>>);

impl Socket {
    pub(super) fn new(stream: ClientSocket, client: Rc<Client>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { stream, client, door: Door::default(), due: 0, ended: false, owes_end: false }))
    }

    /// Whether nothing is under way, and nothing is held back.
    pub(super) fn is_at_rest(&self) -> bool {
        let idle = !self.client.is_busy() && !self.client.is_parsing() && self.door.is_between();
        idle && self.door.held.is_empty() && self.due == 0 && !self.ended
    }

    /// Looks at the socket while a request is under way. `Ready` says that the client is gone.
    pub(super) fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.client.is_busy() || !self.door.is_between() || self.due > 0 || self.ended {
            return Poll::Pending;
        }
        if !self.stream.is_watched() && !self.client.deadline.is_long() {
            return Poll::Pending;
        }
        let mut scratch = self.client.worker.piece.borrow_mut();
        let (piece, room) = scratch.split_at_mut(PIECE);
        while self.door.held.len() < MOST_HELD {
            let mut room = ReadBuf::new(&mut room[..AHEAD]);
            if ready!(self.stream.poll_read(cx, &mut room, piece)).is_err() {
                return Poll::Ready(());
            }
            match room.filled() {
                [] => {
                    self.ended = true;
                    return if self.client.worker.shared.config.abort_on_close {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    };
                }
                ahead => self.door.held.extend_from_slice(ahead),
            }
        }
        // Full: woken by the flush.
        Poll::Pending
    }

    /// Whether the client sent something that nobody has read.
    pub(super) fn has_unread(&self) -> bool {
        !self.door.held.is_empty()
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut scratch = self.client.worker.piece.borrow_mut();
        self.stream.poll_read(cx, buf, &mut scratch[..PIECE])
    }

    /// A head, or what must not go on yet. Also what is held back is put into `buf` first: in the usual case all of it goes on.
    fn poll_head(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        loop {
            if self.client.is_busy() {
                // Woken by the flush; until then `poll_ahead` looks at the socket.
                return Poll::Pending;
            }
            if !self.door.held.is_empty() && self.release()? {
                return self.poll_due(buf);
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_read(cx, buf))?;
            let received = buf.filled().len() - start;
            if received == 0 {
                self.ended = true;
                return Poll::Ready(Ok(()));
            }
            if begins_a_head(&buf.filled()[start..]) {
                self.client.head_bytes_came();
            }
            if self.door.held.is_empty()
                && let Some(passed) = self.pass_head(&buf.filled()[start..])?
            {
                self.door.held.extend_from_slice(&buf.filled()[start + passed..]);
                buf.set_filled(start + passed);
                return Poll::Ready(Ok(()));
            }
            self.door.held.extend_from_slice(&buf.filled()[start..]);
            buf.set_filled(start);
        }
    }

    /// Shows a head to the door; `Some` is how many bytes may go on.
    fn pass_head(&mut self, received: &[u8]) -> io::Result<Option<usize>> {
        self.client.asked_for_head_only(door::is_for_head_only(received));
        match self.door.pass_head(received, &self.client.worker.shared.config.limits) {
            Ok((Pass::On(passed), Some(body))) => {
                self.client.head_passed(body, self.door.about_server);
                Ok(Some(passed))
            }
            Ok(_) => Ok(None),
            Err(reason) => {
                self.client.refuse_head(reason);
                Err(refusal(reason))
            }
        }
    }

    /// Shows what is held to the door; whether some of it may go on.
    fn release(&mut self) -> io::Result<bool> {
        let held = std::mem::take(&mut self.door.held);
        let passed = self.pass_head(&held);
        self.door.held = held;
        self.due = passed?.unwrap_or_default();
        Ok(self.due > 0)
    }

    /// Hands on what is held and due.
    fn poll_due(&mut self, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let now = self.due.min(buf.remaining());
        buf.put_slice(&self.door.held[..now]);
        self.door.held.advance(now);
        self.due -= now;
        Poll::Ready(Ok(()))
    }

    /// The rest of a body.
    fn poll_body(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let start = buf.filled().len();
        let Poll::Ready(read) = self.poll_read(cx, buf) else {
            return match self.client.body_bytes_came(None) {
                Ok(()) => Poll::Pending,
                Err(reason) => Poll::Ready(Err(self.refuse(reason))),
            };
        };
        read?;
        let received = buf.filled().len() - start;
        if received == 0 {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let judged =
            self.client.body_bytes_came(Some(received)).and_then(|()| self.door.pass_body(&buf.filled()[start..]));
        match judged {
            Ok(passed) => {
                self.door.held.extend_from_slice(&buf.filled()[start + passed..]);
                buf.set_filled(start + passed);
                Poll::Ready(Ok(()))
            }
            Err(reason) => {
                buf.set_filled(start);
                Poll::Ready(Err(self.refuse(reason)))
            }
        }
    }

    /// Refuses what belongs to a request: whoever answers that says so.
    fn refuse(&self, reason: Rejected) -> io::Error {
        self.client.reject(reason);
        refusal(reason)
    }

    /// Sends what is in one piece already. A short one that is the last leaves together with the connection's end.
    fn poll_send_piece(&mut self, cx: &mut Context<'_>, piece: &[u8]) -> Poll<io::Result<usize>> {
        if piece.len() > ONE_PIECE || !self.client.is_at_the_end() {
            return self.poll_send(piece.len(), |stream| stream.poll_write(cx, piece));
        }
        self.owes_end = true;
        self.poll_send(piece.len(), |stream| stream.poll_write_last(cx, piece))
    }

    /// Sends something of `length` bytes, and watches how it gets on.
    fn poll_send(
        &mut self,
        length: usize,
        send: impl FnOnce(&mut ClientSocket) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if self.client.is_parsing() {
            // hyper's own reply to a head it refuses, which says nothing but the status. Ours follows.
            return Poll::Ready(Ok(length));
        }
        let sent = send(&mut self.stream);
        let bytes = match &sent {
            Poll::Ready(Ok(bytes)) => Some(*bytes),
            Poll::Ready(Err(_)) => return sent,
            Poll::Pending => None,
        };
        match self.client.bytes_went(bytes) {
            Ok(()) => sent,
            Err(reason) => Poll::Ready(Err(self.refuse(reason))),
        }
    }
}

fn refusal(reason: Rejected) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.words())
}

/// Whether a head has begun: empty lines before it, which clients put behind a body (RFC 9112 §2.2), are none of it.
fn begins_a_head(received: &[u8]) -> bool {
    received.iter().any(|byte| !matches!(byte, b'\r' | b'\n'))
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.0.borrow_mut();
        if socket.due > 0 {
            socket.poll_due(buf)
        } else if socket.door.is_between() {
            socket.poll_head(cx, buf)
        } else {
            socket.poll_body(cx, buf)
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_send_piece(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = parts.iter().map(|part| part.len()).sum();
        let mut socket = self.0.borrow_mut();
        if length > ONE_PIECE {
            return socket.poll_send(length, |stream| stream.poll_write_vectored(cx, parts));
        }
        let worker = Rc::clone(&socket.client.worker);
        let mut piece = worker.scratch.borrow_mut();
        piece.clear();
        parts.iter().for_each(|part| piece.extend_from_slice(part));
        socket.poll_send_piece(cx, &piece)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes the socket once its own buffer is empty, and only then. A socket itself has nothing to flush.
        let mut socket = self.0.borrow_mut();
        if std::mem::take(&mut socket.owes_end) {
            socket.stream.end();
        }
        let waiting = socket.has_unread() || socket.ended;
        if socket.client.flushed(begins_a_head(&socket.door.held)) && waiting {
            // What was held back may go on, and nothing else will wake hyper for it.
            cx.waker().wake_by_ref();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // It is closed in the same poll, unless we owe a reply or take what the client still sends: see `super::end`.
        Poll::Ready(Ok(()))
    }
}
