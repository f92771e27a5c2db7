//! A connection for a check.
//!
//! A server on this machine, or in the next container, has answered before the system returns from `connect`, and a check
//! that only connects is over then: the runtime is not asked to watch such a socket, nor to wake anybody for it. That is half
//! of what such a check costs, and with a thousand backends there are hundreds each second. (Measured, all of the control
//! thread's work for 1,000 backends and 200 checks a second: `docs/benchmarks.md` of the load balancer.)

use std::io;
use std::net::{SocketAddr, TcpStream as Unwatched};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use tokio::net::TcpStream;

use super::is_same;

/// A connection that has been made.
pub(super) enum Dialled {
    /// At once.
    Unwatched(Unwatched),
    /// It had to be waited for.
    Watched(TcpStream),
}

impl Dialled {
    /// Makes one.
    ///
    /// # Errors
    /// As of `connect`; also [`io::ErrorKind::ConnectionRefused`] where a port was connected to itself.
    ///
    /// # Cancel safety
    /// Dropping the future closes the socket.
    pub(super) async fn to(address: SocketAddr) -> io::Result<Self> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = Unwatched::from(socket_with(family, SocketType::STREAM, flags, None)?);
        let (dialled, peer) = match connect(&socket, &address) {
            // As long as the other side has not answered, it has no name.
            Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => match socket.peer_addr() {
                Ok(peer) => (Self::Unwatched(socket), peer),
                Err(_) => wait_for(TcpStream::from_std(socket)?).await?,
            },
            Err(error) => return Err(error.into()),
        };
        if is_same(dialled.local_addr(), Ok(peer)) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        Ok(dialled)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Unwatched(stream) => stream.local_addr(),
            Self::Watched(stream) => stream.local_addr(),
        }
    }

    /// For whoever has to wait for what it brings.
    ///
    /// # Errors
    /// The system has no memory for it.
    pub(super) fn into_watched(self) -> io::Result<TcpStream> {
        match self {
            Self::Unwatched(stream) => TcpStream::from_std(stream),
            Self::Watched(stream) => Ok(stream),
        }
    }

    /// Sends what a new socket's buffer takes at once. What the other side does with it is no part of a check.
    pub(super) fn greet(&self, greeting: &[u8]) {
        if greeting.is_empty() {
            return;
        }
        let _ = match self {
            Self::Unwatched(stream) => io::Write::write(&mut &*stream, greeting),
            Self::Watched(stream) => stream.try_write(greeting),
        };
    }
}

/// Until it is connected, or cannot be.
async fn wait_for(stream: TcpStream) -> io::Result<(Dialled, SocketAddr)> {
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    let peer = stream.peer_addr()?;
    Ok((Dialled::Watched(stream), peer))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[tokio::test]
    async fn on_this_machine_nobody_waits() {
        for host in ["127.0.0.1", "::1"] {
            let listener = TcpListener::bind((host, 0)).unwrap();
            let dialled = Dialled::to(listener.local_addr().unwrap()).await.unwrap();
            assert!(matches!(dialled, Dialled::Unwatched(_)));
            dialled.greet(b"hello");
            let (mut accepted, _) = listener.accept().unwrap();
            let mut said = [0; 5];
            io::Read::read_exact(&mut accepted, &mut said).unwrap();
            assert_eq!(&said, b"hello");
            assert!(dialled.into_watched().unwrap().peer_addr().is_ok());
        }
    }

    #[tokio::test]
    async fn what_refuses_is_refused_and_so_is_a_port_connected_to_itself() {
        // Held by a socket of another kind, so that nobody else listens there.
        let held = UdpSocket::bind("127.0.0.1:0").unwrap();
        let error = Dialled::to(held.local_addr().unwrap()).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
