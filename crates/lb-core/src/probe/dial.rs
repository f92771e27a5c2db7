//! A connection for a check.
//!
//! A server on this machine, or in the next container, has answered before the system returns from `connect`, and a check
//! that only connects is over then: the runtime is not asked to watch such a socket, nor to wake anybody for it. With a thousand
//! backends there are hundreds of checks each second. (Measured beside full load, with 200 checks a second made together: 10 ms of
//! CPU a second for them, 26 when each was waited for.)

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
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_made_can_be_used_whether_it_was_waited_for_or_not() {
        for host in ["127.0.0.1", "::1"] {
            let listener = match TcpListener::bind((host, 0)) {
                Ok(listener) => listener,
                // Not every machine has IPv6.
                Err(_) if host == "::1" => continue,
                Err(error) => panic!("{error}"),
            };
            let address = listener.local_addr().unwrap();
            let at_hand = Dialled::to(address).await.unwrap();
            let waited_for = wait_for(TcpStream::connect(address).await.unwrap()).await.unwrap().0;
            for dialled in [at_hand, waited_for] {
                dialled.greet(b"hello");
                let (mut accepted, _) = listener.accept().unwrap();
                let mut said = [0; 5];
                io::Read::read_exact(&mut accepted, &mut said).unwrap();
                assert_eq!(&said, b"hello");
                assert_eq!(dialled.into_watched().unwrap().peer_addr().unwrap(), address);
            }
        }
    }

    #[tokio::test]
    async fn what_refuses_is_refused() {
        // Nobody listens there any more.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Dialled::to(address).await.map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_port_that_is_its_own_peer_is_noticed() {
        let [one, other] = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert!(is_same(Ok(one), Ok(one)) && !is_same(Ok(one), Ok(other)));
        assert!(!is_same(Err(io::ErrorKind::NotConnected.into()), Ok(one)));
    }
}
