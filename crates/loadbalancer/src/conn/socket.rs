//! A client's socket, which the runtime watches only once it has to be waited for.
//!
//! A client that connects to ask one thing has usually asked it when it is accepted, and its answer fits into the
//! kernel's buffer: its socket is read, written and closed without anybody ever waiting for it. To watch it all the
//! same would be two system calls, an allocation and a wake-up for nothing. So each operation is tried first, and only
//! what would block has the socket watched from then on.
//!
//! What nearly all of them are waited for is the request. A socket that is watched for that alone is not told at once that
//! it can be written to, as every new one can: another wake-up for nothing. Only one that does not take a response, or
//! sends more than a head, is watched both ways.
//!
//! While it is not watched, nobody is told that its client goes away. A request that takes long enough for that to
//! matter has its socket watched by the worker's next sweep (see [`Deadline`](crate::deadline::Deadline)).

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream as Unwatched;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Read at once until it is watched both ways: more than nearly all heads.
const PIECE: usize = 2 * 1024;

/// A client's socket.
pub(super) enum ClientSocket {
    Unwatched(Unwatched),
    /// Watched for what it sends.
    Heard(AsyncFd<Unwatched>),
    /// Not watched, until it is read again: it has sent more than a head.
    Pours(Unwatched),
    Watched(TcpStream),
    /// It could not be watched, for want of memory.
    Lost,
}

impl ClientSocket {
    pub(super) fn is_watched(&self) -> bool {
        !matches!(self, Self::Unwatched(_) | Self::Pours(_))
    }

    /// Has the runtime watch it for what it sends.
    fn hear(&mut self) -> io::Result<()> {
        if let Self::Unwatched(_) = self
            && let Self::Unwatched(stream) = std::mem::replace(self, Self::Lost)
        {
            #[expect(
                deprecated,
                reason = "unsound only for what may close its descriptor early: a stream keeps its own"
            )]
            let heard = AsyncFd::with_interest(stream, Interest::READABLE)?;
            *self = Self::Heard(heard);
        }
        Ok(())
    }

    /// Has the runtime watch it both ways.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub(super) fn watch(&mut self) -> io::Result<&mut TcpStream> {
        if let Self::Unwatched(_) | Self::Heard(_) | Self::Pours(_) = self {
            let stream = std::mem::replace(self, Self::Lost).into_unwatched()?;
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
            Self::Unwatched(stream) | Self::Pours(stream) => Ok(stream),
            Self::Heard(heard) => Ok(heard.into_inner()),
            Self::Watched(stream) => stream.into_std(),
            Self::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Its close shall be a reset.
    pub(super) fn reset_at_close(&self) {
        let linger = Some(std::time::Duration::ZERO);
        // It fails only for a socket that is gone already.
        let _ = match self {
            Self::Unwatched(stream) | Self::Pours(stream) => socket2::SockRef::from(stream).set_linger(linger),
            Self::Heard(heard) => socket2::SockRef::from(heard.get_ref()).set_linger(linger),
            Self::Watched(stream) => socket2::SockRef::from(stream).set_linger(linger),
            Self::Lost => Ok(()),
        };
    }

    /// Whether something has come that nobody has been told of yet. One system call.
    pub(super) fn has_more(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        let peeked = match self {
            Self::Unwatched(stream) | Self::Pours(stream) => socket2::SockRef::from(stream).peek(&mut byte),
            Self::Heard(heard) => socket2::SockRef::from(heard.get_ref()).peek(&mut byte),
            Self::Watched(stream) => socket2::SockRef::from(stream).peek(&mut byte),
            Self::Lost => return false,
        };
        matches!(peeked, Ok(1))
    }

    /// What is watched no more than it must be, for operations that are tried first.
    fn unwatched(&mut self) -> Option<&mut Unwatched> {
        match self {
            Self::Unwatched(stream) | Self::Pours(stream) => Some(stream),
            Self::Heard(heard) => Some(heard.get_mut()),
            _ => None,
        }
    }

    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Self::Unwatched(stream) = self {
            match read_piece(stream, buf) {
                Err(error) if would_block(&error) => self.hear()?,
                read => return Poll::Ready(read.and_then(|piece| self.expect_more(piece))),
            }
        }
        while let Self::Heard(heard) = self {
            let mut ready = ready!(heard.poll_read_ready_mut(cx))?;
            match read_piece(ready.get_inner_mut(), buf) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if would_block(&error) => ready.clear_ready(),
                read => {
                    // All that was there: the runtime tells of what comes after it.
                    if let Ok(Piece::Part) = read {
                        ready.clear_ready();
                    }
                    return Poll::Ready(read.and_then(|piece| self.expect_more(piece)));
                }
            }
        }
        Pin::new(self.watch()?).poll_read(cx, buf)
    }

    /// Whoever sends a whole piece sends more of them. Not watched at once: the runtime could not say yet that it can be
    /// written to, and what was read may be refused.
    fn expect_more(&mut self, piece: Piece) -> io::Result<()> {
        if let Piece::Whole = piece {
            *self = Self::Pours(std::mem::replace(self, Self::Lost).into_unwatched()?);
        }
        Ok(())
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(stream) = self.unwatched() {
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
        if let Some(stream) = self.unwatched() {
            match stream.write_vectored(parts) {
                Err(error) if would_block(&error) => {}
                written => return Poll::Ready(written),
            }
        }
        Pin::new(self.watch()?).poll_write_vectored(cx, parts)
    }
}

/// What was read.
enum Piece {
    Whole,
    Part,
    End,
}

fn read_piece(stream: &mut Unwatched, buf: &mut ReadBuf<'_>) -> io::Result<Piece> {
    let length = buf.remaining().min(PIECE);
    let read = stream.read(buf.initialize_unfilled_to(length))?;
    buf.advance(read);
    Ok(match read {
        0 => Piece::End,
        read if read == length => Piece::Whole,
        _ => Piece::Part,
    })
}

/// Also for what a signal has interrupted: the runtime will try again.
fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
