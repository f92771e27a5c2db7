//! Next to nothing: read, choose a server's connection, write, and the same back. What it costs more with more servers, every
//! proxy pays as well: the kernel's part of so many connections.
//!
//! Not a proxy. Nothing is parsed, checked, counted or bounded in time: what is read at once is taken for a whole message,
//! which it is for short ones on this machine, and whatever is not as expected ends it, so that there is no figure.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::contender::{Origin, Proxy};
use super::process::{Process, free_ports};
use crate::Error;

/// As it is called beside the proxies.
pub(super) const NAME: &str = "bare relay";

/// Longer messages are none of its business.
const MOST: usize = 16 * 1024;

/// Options of `relay`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    port: u16,

    #[arg(long, required = true, value_delimiter = ',')]
    backends: Vec<SocketAddr>,
}

/// Starts one, and waits until it answers rightly.
pub(super) fn start(dir: &Path, cores: &str, backends: &[String]) -> Result<Proxy, Error> {
    let ourselves = std::env::current_exe().map_err(|e| Error::Failed(format!("what program is this: {e}")))?;
    let [port] = free_ports()?;
    let process = Process::start(dir, cores, &ourselves, |command| {
        command.args(["relay", "--port", &port.to_string(), "--backends", &backends.join(",")])
    })?;
    Proxy::ready(port, process, Origin::Replies).map_err(|e| Error::Failed(format!("{NAME}: {e}")))
}

const LISTENER: Token = Token(usize::MAX - 1);

struct Loop {
    poll: Poll,
    listener: TcpListener,
    backends: Vec<Backend>,
    /// Of the next request.
    turn: usize,
    /// By token: clients and connections to backends.
    ends: Vec<Option<End>>,
    free: Vec<usize>,
    room: Vec<u8>,
}

struct Backend {
    address: SocketAddr,
    /// Connections that nobody uses.
    idle: Vec<usize>,
}

struct End {
    stream: TcpStream,
    /// The backend that it leads to.
    backend: Option<usize>,
    /// The client whose request is there; none is the largest number.
    client: usize,
}

/// Relays until it is killed.
///
/// # Errors
/// Something was not as expected.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], args.port)))?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let backends = args.backends.iter().map(|address| Backend { address: *address, idle: vec![] }).collect();
    let room = vec![0; MOST];
    let mut relay = Loop { poll, listener, backends, turn: 0, ends: vec![], free: vec![], room };
    let mut events = Events::with_capacity(1024);
    loop {
        match relay.poll.poll(&mut events, None) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTENER => relay.accept()?,
                Token(end) if event.is_readable() => relay.carry(end)?,
                _ => {}
            }
        }
    }
}

impl Loop {
    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.enter(stream, None).map(drop)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn enter(&mut self, mut stream: TcpStream, backend: Option<usize>) -> io::Result<usize> {
        stream.set_nodelay(true)?;
        let end = self.free.pop().unwrap_or_else(|| {
            self.ends.push(None);
            self.ends.len() - 1
        });
        self.poll.registry().register(&mut stream, Token(end), Interest::READABLE)?;
        self.ends[end] = Some(End { stream, backend, client: usize::MAX });
        Ok(end)
    }

    /// What has come from one side goes to the other.
    fn carry(&mut self, end: usize) -> io::Result<()> {
        let Some(from) = &mut self.ends[end] else { return Ok(()) };
        let (backend, client) = (from.backend, from.client);
        let read = match from.stream.read(&mut self.room) {
            Ok(0) => return self.leave(end),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // wrk ends with resets.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return self.leave(end),
            Err(error) => return Err(error),
        };
        from.client = usize::MAX;
        let to = match backend {
            Some(_) if client == usize::MAX => return Err(io::Error::other("nobody has asked for this")),
            Some(backend) => {
                self.backends[backend].idle.push(end);
                client
            }
            None => self.backend_for(end)?,
        };
        // A client that has gone meanwhile is not told.
        let Some(to) = &mut self.ends[to] else { return Ok(()) };
        if to.stream.write(&self.room[..read])? == read { Ok(()) } else { Err(io::Error::other("it does not fit")) }
    }

    /// A connection to the backend whose turn it is.
    fn backend_for(&mut self, client: usize) -> io::Result<usize> {
        let backend = self.turn;
        self.turn = (backend + 1) % self.backends.len();
        let end = match self.backends[backend].idle.pop() {
            Some(end) => end,
            None => {
                let stream = std::net::TcpStream::connect(self.backends[backend].address)?;
                stream.set_nonblocking(true)?;
                self.enter(TcpStream::from_std(stream), Some(backend))?
            }
        };
        if let Some(end) = &mut self.ends[end] {
            end.client = client;
        }
        Ok(end)
    }

    fn leave(&mut self, end: usize) -> io::Result<()> {
        if self.ends[end].take().is_some_and(|end| end.backend.is_some()) {
            return Err(io::Error::other("a backend has closed its connection"));
        }
        self.free.push(end);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_has_its_turn_on_a_connection_that_is_kept() {
        let backends: Vec<_> = (0..2).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses = backends.iter().map(|listener| listener.local_addr().unwrap()).collect();
        for (listener, name) in backends.into_iter().zip(["a", "b"]) {
            std::thread::spawn(move || {
                // One connection, however many requests.
                let (mut stream, _) = listener.accept().unwrap();
                while let Ok(1..) = stream.read(&mut [0; 64]) {
                    stream.write_all(name.as_bytes()).unwrap();
                }
            });
        }
        let [port] = free_ports().unwrap();
        std::thread::spawn(move || run(&Args { port, backends: addresses }).unwrap());
        let connect = || loop {
            match std::net::TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => break stream,
                Err(_) => std::thread::yield_now(),
            }
        };
        let mut clients = [connect(), connect()];
        for turn in 0..6 {
            let client = &mut clients[turn / 2 % 2];
            client.write_all(b"ask").unwrap();
            let mut answer = [0];
            client.read_exact(&mut answer).unwrap();
            assert_eq!(answer, [b"ab"[turn % 2]]);
        }
    }
}
