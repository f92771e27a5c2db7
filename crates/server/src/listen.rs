//! The listening socket: opened at start, closed for `refuse` and at the stop, opened again on the same port.

use std::future::pending;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as BlockingStream};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// Connections that the kernel completes before they are accepted. Linux cuts it to net.core.somaxconn, which is
/// 4096 by default; less would drop connects in a burst.
const BACKLOG: i32 = 4096;

pub(crate) struct Door {
    address: SocketAddr,
    state: State,
}

enum State {
    Open(TcpListener),
    /// The socket is bound but does not listen: connects are refused, and the port stays ours.
    Closed(Option<Socket>),
}

impl Door {
    /// Listens on `bind`, or on all interfaces: both IP versions by one socket, IPv4 alone where there is no IPv6.
    ///
    /// # Errors
    /// With the address that cannot be listened on.
    pub(crate) fn open(bind: Option<IpAddr>, port: u16) -> Result<Self, (SocketAddr, io::Error)> {
        match bind {
            Some(ip) => Self::open_at(SocketAddr::new(ip, port)),
            None => Self::open_at(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)).or_else(|(address, error)| {
                match error.kind() {
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err((address, error)),
                    _ => Self::open_at(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)),
                }
            }),
        }
    }

    fn open_at(wanted: SocketAddr) -> Result<Self, (SocketAddr, io::Error)> {
        let listener = reserve(wanted).and_then(listen).map_err(|error| (wanted, error))?;
        let address = listener.local_addr().map_err(|error| (wanted, error))?;
        Ok(Self { address, state: State::Open(listener) })
    }

    /// Where it listens, with the real port.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection; never when closed.
    ///
    /// # Cancel safety
    /// As `TcpListener::accept`: no connection is lost.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        match &self.state {
            State::Open(listener) => listener.accept().await,
            State::Closed(_) => pending().await,
        }
    }

    /// Closes the listening socket and returns the connections that were waiting in its queue: their clients count
    /// as connected, a close would reset them.
    ///
    /// # Race window
    /// A connect that completes between the last accept and the close is reset. Linux has no call that closes this
    /// gap of some microseconds.
    pub(crate) fn close(&mut self) -> Vec<(BlockingStream, SocketAddr)> {
        let State::Open(listener) = std::mem::replace(&mut self.state, State::Closed(None)) else {
            return Vec::new();
        };
        let mut waiting = Vec::new();
        match listener.into_std() {
            Ok(listener) => {
                while let Ok(connection) = listener.accept() {
                    waiting.push(connection);
                }
            }
            Err(error) => warn!(%error, "cannot look into the accept queue"),
        }
        self.state = State::Closed(reserve(self.address).ok());
        waiting
    }

    /// Listens again on the same address.
    ///
    /// # Errors
    /// When someone else took the port meanwhile; it can be tried again.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        if let State::Closed(reserved) = &mut self.state {
            let socket = reserved.take().map_or_else(|| reserve(self.address), Ok)?;
            self.state = State::Open(listen(socket)?);
        }
        Ok(())
    }

    pub(crate) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }
}

fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to leave TIME_WAIT; another listener still conflicts.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // Some systems make IPv6 sockets refuse IPv4 by default (net.ipv6.bindv6only).
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};

    use super::*;

    #[tokio::test]
    async fn closing_hands_over_the_queue_and_keeps_the_port_without_listening() {
        let mut door = Door::open(Some(Ipv4Addr::LOCALHOST.into()), 0).expect("a free port");
        let address = door.address();
        for _ in 0..3 {
            let waiting = [0, 1].map(|_| BlockingStream::connect(address).expect("completed by the kernel"));
            let handed_over = door.close();
            assert_eq!(handed_over.len(), waiting.len());
            assert_eq!(handed_over[0].1, waiting[0].local_addr().expect("connected"));
            (&waiting[0]).write_all(b"x").expect("not reset");

            let refused = BlockingStream::connect(address).expect_err("closed");
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            assert!(!door.is_open() && door.close().is_empty());

            door.reopen().expect("the port was kept");
            BlockingStream::connect(address).expect("open again");
            door.accept().await.expect("accepted");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_and_not_a_reason_to_try_ipv4_alone() {
        let first = Door::open(None, 0).expect("a free port");
        let (address, error) = Door::open(None, first.address().port()).err().expect("taken");
        assert_eq!((address, error.kind()), (first.address(), ErrorKind::AddrInUse));
    }
}
