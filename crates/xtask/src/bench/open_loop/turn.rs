//! The sockets of clients and backends, and one turn after the other over all of them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use super::plan::{Book, Plan};
use super::{Outcome, SPARE};
use crate::bench::http::{Head, connect};
use crate::bench::work::Http;

/// Tokens: the waker, then listeners, then connections to backends from here on, then clients from there on.
const WAKER: Token = Token(0);
const FIRST_BACKEND: usize = 1 << 16;
const FIRST_CLIENT: usize = 1 << 24;

/// Looked at before what is due is looked at again: it bounds how late a request leaves.
const EVENTS: usize = 16;

pub(super) struct Turn {
    poll: Poll,
    events: Events,
    listeners: Vec<TcpListener>,
    /// Connections to the backends, by token; they are closed by the other side.
    backends: Vec<Option<Served>>,
    answer: Vec<u8>,
}

/// A connection that a backend serves.
struct Served {
    stream: TcpStream,
    /// How much of the blank line that ends a head has come.
    matched: usize,
}

/// A client's connection.
struct Client {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Turn {
    pub(super) fn new(backends: usize, reply: usize) -> io::Result<(Self, Waker, Vec<String>)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for number in 0..backends {
            let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            addresses.push(listener.local_addr()?.to_string());
            poll.registry().register(&mut listener, Token(1 + number), Interest::READABLE)?;
            listeners.push(listener);
        }
        let answer = answer(reply);
        let events = Events::with_capacity(EVENTS);
        let turn = Self { poll, events, listeners, backends: Vec::new(), answer: answer.into_bytes() };
        Ok((turn, waker, addresses))
    }

    /// Serves the backends until something has happened.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.look(None, |_, _| Ok(())).map_err(io::Error::other)
    }

    /// Carries out a plan.
    pub(super) fn load(&mut self, port: u16, http: &Http, plan: Plan) -> Result<Outcome, String> {
        let mut clients = self.connect(port, http.connections)?;
        let request = format!("GET {} HTTP/1.1\r\nHost: bench\r\n\r\n", http.path);
        let mut book = Book::open(plan, http.connections, Instant::now());
        loop {
            let now = Instant::now();
            if book.is_over(now) {
                let (per_s, latencies) = book.close();
                return if latencies.count == 0 {
                    Err("no request was answered".to_owned())
                } else {
                    Ok(Outcome { per_s, latencies })
                };
            }
            if let Some(missing) = book.missing(now, SPARE) {
                return Err(missing);
            }
            while let Some(connection) = book.next(now) {
                send(&mut clients[connection].stream, request.as_bytes())?;
            }
            self.look(Some(Duration::ZERO), |connection, now| {
                if clients[connection].read(http.reply)? {
                    book.answered(connection, now);
                }
                Ok(())
            })?;
        }
    }

    fn connect(&self, port: u16, count: usize) -> Result<Vec<Client>, String> {
        let connect = |number| -> io::Result<Client> {
            let stream = connect(port)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            self.poll.registry().register(&mut stream, Token(FIRST_CLIENT + number), Interest::READABLE)?;
            Ok(Client { stream, bytes: Vec::with_capacity(4096) })
        };
        (0..count).map(connect).collect::<Result<_, _>>().map_err(|e| format!("port {port}: {e}"))
    }

    /// One look at all sockets. `answer` is called for a client that can be read.
    fn look(
        &mut self,
        timeout: Option<Duration>,
        mut answer: impl FnMut(usize, Instant) -> Result<(), String>,
    ) -> Result<(), String> {
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            polled => polled.map_err(|e| e.to_string())?,
        }
        let ready: Vec<usize> = self.events.iter().map(|event| event.token().0).collect();
        for token in ready {
            if token >= FIRST_CLIENT {
                answer(token - FIRST_CLIENT, Instant::now())?;
            } else if token >= FIRST_BACKEND {
                self.serve(token - FIRST_BACKEND);
            } else if token > WAKER.0 {
                self.accept(token - 1).map_err(|e| format!("a backend cannot accept: {e}"))?;
            }
        }
        Ok(())
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        loop {
            let mut stream = match self.listeners[listener].accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let free = self.backends.iter().position(Option::is_none).unwrap_or(self.backends.len());
            self.poll.registry().register(&mut stream, Token(FIRST_BACKEND + free), Interest::READABLE)?;
            let served = Some(Served { stream, matched: 0 });
            if free == self.backends.len() {
                self.backends.push(served);
            } else {
                self.backends[free] = served;
            }
        }
    }

    /// Answers the requests that have come. A connection that ends or breaks is forgotten: whoever had asked notices.
    fn serve(&mut self, place: usize) {
        let Some(served) = &mut self.backends[place] else { return };
        if served.answer(&self.answer).is_err() {
            self.backends[place] = None;
        }
    }
}

impl Served {
    fn answer(&mut self, answer: &[u8]) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let read = match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            for byte in &bytes[..read] {
                self.matched = match (byte, self.matched) {
                    (b'\r', 0 | 2) | (b'\n', 1 | 3) => self.matched + 1,
                    (b'\r', _) => 1,
                    _ => 0,
                };
                if self.matched == 4 {
                    self.matched = 0;
                    // A connection on which everything was read has room for one small answer.
                    self.stream.write_all(answer)?;
                }
            }
            // Less than there was room for: there is no more, and nobody need be asked.
            if read < bytes.len() {
                return Ok(());
            }
        }
    }
}

impl Client {
    /// Whether a whole answer, and nothing else, has come.
    fn read(&mut self, reply: usize) -> Result<bool, String> {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => return Err("no answer: the connection was closed".to_owned()),
            Ok(read) => self.bytes.extend_from_slice(&bytes[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(format!("no answer: {error}")),
        }
        let Some(head) = Head::parse(&self.bytes)? else { return Ok(false) };
        if (head.status, head.body) != (200, reply) || self.bytes.len() > head.head + head.body {
            return Err(format!("a wrong answer: status {}, {} bytes", head.status, head.body));
        }
        let whole = self.bytes.len() == head.head + head.body;
        if whole {
            self.bytes.clear();
        }
        Ok(whole)
    }
}

/// A response with the fields that servers usually send, in one piece.
fn answer(bytes: usize) -> String {
    let body = "x".repeat(bytes);
    format!(
        "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {bytes}\r\nConnection: keep-alive\r\n\r\n{body}"
    )
}

/// A connection on which everything was answered has room for one small request.
fn send(stream: &mut TcpStream, request: &[u8]) -> Result<(), String> {
    match stream.write(request) {
        Ok(sent) if sent == request.len() => Ok(()),
        Ok(_) => Err("a request did not go out whole".to_owned()),
        Err(e) => Err(format!("cannot send a request: {e}")),
    }
}
