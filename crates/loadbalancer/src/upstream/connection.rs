//! A connection to a backend: the socket and its two buffers, which it [borrows](super::lent).

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use lb_core::probe::is_to_itself;
use rustix::net::{SendFlags, send};
use tokio::io::{AsyncReadExt, AsyncWrite, Interest};
use tokio::net::TcpStream;

use super::{Opened, lent};
use crate::clock::Tick;
use crate::proxy_protocol::Ends;

/// First read of a response: most heads with a small body fit.
const HEAD_READ: usize = lent::SIZE;

/// Most that is read at once of a large body: enough that system calls do not count, small enough that a slow client
/// holds little memory.
const BODY_READ: usize = 128 * 1024;

/// A connection to a backend. In this order, and on lines of the cache of its own, since what the next request looks at first
/// comes first: with many backends it has left the caches by then.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct UpstreamConn {
    stream: TcpStream,
    /// The client that the backend was told of, if it was told: nobody else may use it.
    pub on_behalf: Option<Box<Ends>>,
    /// When it became idle.
    pub idle_since: Tick,
    /// `received` was made larger for a large body: it is this connection's own.
    grown: bool,
    /// Whether it has carried an exchange before: only then can a close be a mere keep-alive timeout.
    pub reused: bool,
    /// Whether to ask the kernel before it is used again: its last response had no body by its kind (HEAD, 204, 304),
    /// and a backend that sends one all the same would have it taken for the next response.
    pub doubtful: bool,
    /// Received and not yet used.
    pub received: BytesMut,
    /// To be sent.
    pub unsent: BytesMut,
    /// Why it cannot be written to, for the next who tries.
    failed: Option<io::Error>,
    /// For how long it had been idle when it was last seen open.
    pub last_open: Duration,
    /// Where it leads.
    pub address: SocketAddr,
    /// Its part of the count of all that are open.
    pub place: Option<Opened>,
}

/// Opens a connection.
///
/// # Errors
/// Those of `connect`.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<Box<UpstreamConn>> {
    let stream = TcpStream::connect(address).await?;
    if is_to_itself(&stream) {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    // A request is written at once; waiting for more (Nagle) only adds delay.
    stream.set_nodelay(true)?;
    Ok(Box::new(UpstreamConn {
        stream,
        received: BytesMut::new(),
        unsent: BytesMut::new(),
        failed: None,
        grown: false,
        reused: false,
        idle_since: Tick::default(),
        last_open: Duration::ZERO,
        doubtful: false,
        on_behalf: None,
        address,
        place: None,
    }))
}

impl UpstreamConn {
    /// The socket, what was received and not used, and its place among all that are open.
    pub(crate) fn into_parts(self) -> (TcpStream, BytesMut, Option<Opened>) {
        (self.stream, self.received, self.place)
    }

    /// Whether nothing is known to have happened on it while it was idle. A close or stray bytes make it useless. Costs
    /// no system call: the runtime remembers what it was last told of the socket.
    ///
    /// # Race window
    /// The backend may close between this look and our write. What follows is a reset before the response head, which
    /// is sent again if the request allows it.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Asks the kernel itself, which knows of a close before the runtime does. One system call, worth it only for a
    /// request that cannot be sent again.
    pub(crate) fn is_quiet_for_sure(&self) -> bool {
        self.heard().is_ok()
    }

    /// The same, with what was heard in words. The kernel tells of a reset only once.
    ///
    /// # Errors
    /// It is closed, reset, or has something to say.
    pub(crate) fn heard(&self) -> io::Result<()> {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let (kind, words) = match socket2::SockRef::from(&self.stream).peek(&mut byte) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
            Ok(0) => (io::ErrorKind::UnexpectedEof, "closed before anything was sent"),
            Ok(_) => (io::ErrorKind::InvalidData, "it spoke before anything was sent"),
        };
        Err(io::Error::new(kind, words))
    }

    /// Where what is to be sent next is put.
    pub(crate) fn sending(&mut self) -> &mut BytesMut {
        lent::borrow(&lent::SENDING, &mut self.unsent);
        &mut self.unsent
    }

    /// Gives back what it borrowed and does not need.
    pub(super) fn lend_no_more(&mut self) {
        lent::give_back(&lent::SENDING, &mut self.unsent);
        if !self.grown {
            lent::give_back(&lent::RECEIVING, &mut self.received);
        }
    }

    /// Drops its own buffers; they are empty while it is idle.
    pub(crate) fn drop_buffers(&mut self) {
        if self.received.is_empty() && self.unsent.is_empty() {
            (self.received, self.unsent, self.grown) = (BytesMut::new(), BytesMut::new(), false);
        }
    }

    /// Reads more into [`Self::received`]; 0 is the end. `expected` is how much is known to be coming.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>, expected: usize) -> Poll<io::Result<usize>> {
        lent::borrow(&lent::RECEIVING, &mut self.received);
        let room = self.received.capacity() - self.received.len();
        let wanted = expected.clamp(HEAD_READ, BODY_READ);
        if room < wanted.min(HEAD_READ / 2) || (wanted > HEAD_READ && room < wanted) {
            self.received.reserve(wanted);
            self.grown |= wanted > HEAD_READ;
        }
        // The future holds no state of its own: making it anew at each poll is the documented use.
        let read = pin!(self.stream.read_buf(&mut self.received)).poll(cx);
        // While a client does not take what it was sent, the next pieces come behind that: each in a buffer of its own would
        // hold on to all of one.
        if !self.grown && self.received.is_empty() && self.received.try_reclaim(lent::SIZE) {
            lent::give_back(&lent::RECEIVING, &mut self.received);
        }
        read
    }

    /// Writes [`Self::unsent`], then `chunk`, then `tail`. Returns how much was written in all.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        chunk: &mut Bytes,
        tail: &mut &'static [u8],
    ) -> Poll<io::Result<usize>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        let mut written = 0;
        while !self.unsent.is_empty() || !chunk.is_empty() || !tail.is_empty() {
            let sent = if chunk.is_empty() && tail.is_empty() {
                poll_send(&mut self.stream, cx, &self.unsent)
            } else {
                let parts = [&self.unsent[..], &chunk[..], tail].map(io::IoSlice::new);
                Pin::new(&mut self.stream).poll_write_vectored(cx, &parts)
            };
            let mut sent = match sent {
                // What was written must be known even if the next write fails: it decides about a retry. The error is for the
                // next call: the kernel would not say again that it was a reset.
                Poll::Pending | Poll::Ready(Err(_)) if written > 0 => {
                    if let Poll::Ready(Err(error)) = sent {
                        self.failed = Some(error);
                    }
                    lent::give_back(&lent::SENDING, &mut self.unsent);
                    return Poll::Ready(Ok(written));
                }
                sent => ready!(sent)?,
            };
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            written += sent;
            for part in [&mut self.unsent as &mut dyn Buf, chunk, tail] {
                let done = part.remaining().min(sent);
                part.advance(done);
                sent -= done;
            }
        }
        lent::give_back(&lent::SENDING, &mut self.unsent);
        Poll::Ready(Ok(written))
    }
}

/// As `poll_write`, at less cost where it need not be waited for: straight from here to the kernel, past what the C library
/// does for threads that can be cancelled.
fn poll_send(stream: &mut TcpStream, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
    let now = || send(&*stream, bytes, SendFlags::NOSIGNAL).map_err(io::Error::from);
    match stream.try_io(Interest::WRITABLE, now) {
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        sent => return Poll::Ready(sent),
    }
    Pin::new(stream).poll_write(cx, bytes)
}
