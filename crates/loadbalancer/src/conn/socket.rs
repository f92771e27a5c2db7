//! A client's socket, which the runtime watches only once it has to be waited for.
//!
//! A client that connects to ask one thing has usually asked it when it is accepted, and its answer fits into the
//! kernel's buffer: its socket is read, written and closed without anybody ever waiting for it. To watch it all the
//! same would be two system calls, an allocation and a wake-up for nothing. So each operation is tried first, and only
//! what would block has the socket watched from then on.
//!
//! While it is not watched, nobody is told that its client goes away. A request that takes long enough for that to
//! matter has its socket watched by the worker's next sweep (see [`Deadline`](crate::deadline::Deadline)).

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream as Unwatched;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;

/// Read at once while it is not watched: more than nearly all heads.
const FIRST_PIECE: usize = 2 * 1024;

/// A client's socket.
pub(super) enum ClientSocket {
    Unwatched(Unwatched),
    Watched(TcpStream),
    /// It could not be watched, for want of memory.
    Lost,
}

impl ClientSocket {
    pub(super) fn is_watched(&self) -> bool {
        !matches!(self, Self::Unwatched(_))
    }

    /// Has the runtime watch it.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub(super) fn watch(&mut self) -> io::Result<&mut TcpStream> {
        if let Self::Unwatched(_) = self
            && let Self::Unwatched(stream) = std::mem::replace(self, Self::Lost)
        {
            *self = Self::Watched(TcpStream::from_std(stream)?);
        }
        match self {
            Self::Watched(stream) => Ok(stream),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// For whoever has to wait for it.
    ///
    /// # Errors
    /// As [`Self::watch`].
    pub(super) fn into_watched(mut self) -> io::Result<TcpStream> {
        self.watch()?;
        match self {
            Self::Watched(stream) => Ok(stream),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Not watched any more.
    ///
    /// # Errors
    /// It is lost.
    pub(super) fn into_unwatched(self) -> io::Result<Unwatched> {
        match self {
            Self::Unwatched(stream) => Ok(stream),
            Self::Watched(stream) => stream.into_std(),
            Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Its close shall be a reset.
    pub(super) fn reset_at_close(&self) {
        let linger = Some(std::time::Duration::ZERO);
        // It fails only for a socket that is gone already.
        let _ = match self {
            Self::Unwatched(stream) => socket2::SockRef::from(stream).set_linger(linger),
            Self::Watched(stream) => socket2::SockRef::from(stream).set_linger(linger),
            Self::Lost => Ok(()),
        };
    }

    /// Whether something has come that nobody has been told of yet. One system call.
    pub(super) fn has_more(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = match self {
            Self::Unwatched(stream) => socket2::SockRef::from(stream).peek(&mut byte),
            Self::Watched(stream) => socket2::SockRef::from(stream).peek(&mut byte),
            Self::Lost => return false,
        };
        matches!(peeked, Ok(1))
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Self::Unwatched(stream) = self {
            let mut piece = [0; FIRST_PIECE];
            let room = buf.remaining().min(FIRST_PIECE);
            match stream.read(&mut piece[..room]) {
                Err(error) if would_block(&error) => {}
                read => return Poll::Ready(read.map(|read| buf.put_slice(&piece[..read]))),
            }
        }
        Pin::new(self.watch()?).poll_read(cx, buf)
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Self::Unwatched(stream) = self {
            match stream.write(buf) {
                Err(error) if would_block(&error) => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(self.watch()?).poll_write(cx, buf)
    }

    pub(super) fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let Self::Unwatched(stream) = self {
            match stream.write_vectored(parts) {
                Err(error) if would_block(&error) => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(self.watch()?).poll_write_vectored(cx, parts)
    }
}

/// Also for what a signal has interrupted: the runtime will try again.
fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
