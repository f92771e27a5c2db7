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

use std::io::{self, Write as _};
use std::net::{Shutdown, TcpStream as Unwatched};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead as _, AsyncWrite as _, Interest, ReadBuf};
use tokio::net::TcpStream;

/// Read at once until it is watched both ways: more than nearly all heads.
pub(super) const PIECE: usize = 2 * 1024;

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

    fn socket(&self) -> Option<SockRef<'_>> {
        match self {
            Self::Unwatched(stream) | Self::Pours(stream) => Some(stream.into()),
            Self::Heard(heard) => Some(heard.get_ref().into()),
            Self::Watched(stream) => Some(stream.into()),
            Self::Lost => None,
        }
    }

    /// Its close shall be a reset.
    pub(super) fn reset_at_close(&self) {
        // It fails only for a socket that is gone already.
        let _ = self.socket().map(|socket| socket.set_linger(Some(std::time::Duration::ZERO)));
    }

    /// Whether something has come that nobody has been told of yet. One system call.
    pub(super) fn has_more(&self) -> bool {
        let mut byte = [std::mem::MaybeUninit::uninit()];
        self.socket().is_some_and(|socket| matches!(socket.peek(&mut byte), Ok(1)))
    }

    /// Sends what the socket takes now. The runtime is not asked: it may not know yet that one which it has just begun to
    /// watch can be written to.
    pub(super) fn send_at_once(&self, bytes: &[u8]) {
        let _ = self.socket().map(|socket| socket.send(bytes));
    }

    /// As [`Self::watch`], for who waits to write. Whoever waits to read was to be told by the former registration: it is
    /// the same task, and looks again.
    fn watch_writer(&mut self, cx: &Context<'_>) -> io::Result<&mut TcpStream> {
        if let Self::Heard(_) = self {
            cx.waker().wake_by_ref();
        }
        self.watch()
    }

    /// What is watched no more than it must be, for operations that are tried first.
    fn unwatched(&mut self) -> Option<&mut Unwatched> {
        match self {
            Self::Unwatched(stream) | Self::Pours(stream) => Some(stream),
            Self::Heard(heard) => Some(heard.get_mut()),
            _ => None,
        }
    }

    /// `piece` is room for [`PIECE`] bytes to read into by the way: it is at hand, while `buf` may never have been written to, and
    /// would have to be cleared first.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        piece: &mut [u8],
    ) -> Poll<io::Result<()>> {
        if let Self::Unwatched(stream) = self {
            match read_piece(stream, buf, piece) {
                Err(error) if would_block(&error) => self.hear()?,
                read => return Poll::Ready(read.and_then(|piece| self.expect_more(piece))),
            }
        }
        while let Self::Heard(heard) = self {
            let mut ready = ready!(heard.poll_read_ready_mut(cx))?;
            match read_piece(ready.get_inner_mut(), buf, piece) {
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
        self.poll_send(cx, buf, SendFlags::NOSIGNAL)
    }

    /// As [`Self::poll_write`], for the last that is sent: it is kept until [`Self::end`], which must follow, and both leave in
    /// one packet. One that is watched both ways, for much that it sends or does not take, sends it at once.
    pub(super) fn poll_write_last(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, buf, SendFlags::MORE | SendFlags::NOSIGNAL)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, buf: &[u8], flags: SendFlags) -> Poll<io::Result<usize>> {
        if let Some(stream) = self.unwatched() {
            match send(stream, buf, flags).map_err(io::Error::from) {
                Err(error) if would_block(&error) => {}
                sent => return Poll::Ready(sent),
            }
        }
        Pin::new(self.watch_writer(cx)?).poll_write(cx, buf)
    }

    /// Says that nothing more is sent.
    pub(super) fn end(&self) {
        // It fails only for a socket that is gone already.
        let _ = self.socket().map(|socket| socket.shutdown(Shutdown::Write));
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
        Pin::new(self.watch_writer(cx)?).poll_write_vectored(cx, parts)
    }
}

/// What was read.
enum Piece {
    Whole,
    Part,
    End,
}

/// Straight from the kernel, as what is written in one piece goes there: the C library's functions are points at which
/// threads can be cancelled, and with more than one thread that costs each call some nanoseconds.
fn read_piece(stream: &Unwatched, buf: &mut ReadBuf<'_>, piece: &mut [u8]) -> io::Result<Piece> {
    let length = buf.remaining().min(piece.len());
    let (_, read) = recv(stream, &mut piece[..length], RecvFlags::empty())?;
    buf.put_slice(&piece[..read]);
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

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Ours, and the client's end.
    fn pair() -> (ClientSocket, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ClientSocket::Unwatched(ours), client)
    }

    async fn read(socket: &mut ClientSocket) -> Vec<u8> {
        let mut room = vec![0; 8 * PIECE];
        std::future::poll_fn(|cx| {
            let mut buf = ReadBuf::new(&mut room);
            socket.poll_read(cx, &mut buf, &mut [0; PIECE]).map(|read| read.map(|()| buf.filled().to_vec()))
        })
        .await
        .unwrap()
    }

    #[tokio::test]
    async fn a_socket_is_watched_no_more_than_it_must_be() {
        let (mut socket, mut client) = pair();
        client.write_all(b"at once").unwrap();
        assert_eq!(read(&mut socket).await, b"at once");
        assert!(matches!(socket, ClientSocket::Unwatched(_)) && !socket.has_more());
        // Twice: the second is told of as well.
        for late in [b"late", b"next"] {
            let sends = async {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                client.write_all(late).unwrap();
            };
            assert_eq!(tokio::join!(read(&mut socket), sends).0, late);
            assert!(matches!(socket, ClientSocket::Heard(_)));
        }
        client.write_all(&[b'x'; 3 * PIECE]).unwrap();
        assert_eq!(read(&mut socket).await.len(), PIECE);
        assert!(matches!(socket, ClientSocket::Pours(_)) && socket.has_more());
        assert_eq!(read(&mut socket).await.len(), 2 * PIECE);
        assert!(matches!(socket, ClientSocket::Watched(_)) && !socket.has_more());
        socket.send_at_once(b"no");
        drop(socket);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "no");
    }

    #[tokio::test]
    async fn whoever_waits_to_read_is_woken_when_a_write_changes_how_it_is_watched() {
        let (mut socket, _client) = pair();
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut room = [0; PIECE];
        assert!(socket.poll_read(&mut cx, &mut ReadBuf::new(&mut room), &mut [0; PIECE]).is_pending());
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        while socket.poll_write(&mut cx, &[0; 64 * 1024]).is_ready() {}
        assert!(matches!(socket, ClientSocket::Watched(_)));
        assert!(woken.0.load(Ordering::SeqCst) > 0);
    }
    #[tokio::test]
    async fn the_last_piece_leaves_with_the_end() {
        let (mut socket, mut client) = pair();
        client.set_nonblocking(true).unwrap();
        let sent = std::future::poll_fn(|cx| socket.poll_write_last(cx, b"the last")).await.unwrap();
        assert_eq!(sent, 8);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        assert_eq!(client.read(&mut [0; 9]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "it is kept");
        socket.end();
        client.set_nonblocking(false).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "the last");
    }
}
