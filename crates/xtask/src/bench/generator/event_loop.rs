//! The sockets of clients and backends, and one turn after the other over all of them.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use super::SPARE;
use super::backends::{Answers, Served, Serves};
use super::clients::{Client, Clients};
use super::pace::{Book, Outcome, Pace};

/// Tokens: the waker, then listeners, then connections to backends from here on, then clients from there on.
const WAKER: Token = Token(0);
const FIRST_BACKEND: usize = 1 << 16;
const FIRST_CLIENT: usize = 1 << 24;

/// Looked at before what is due is looked at again: it bounds how late a request leaves.
const EVENTS: usize = 16;

pub(super) struct EventLoop {
    poll: Poll,
    events: Events,
    /// Tokens of one look; kept for its memory.
    ready: Vec<usize>,
    listeners: Vec<TcpListener>,
    /// Connections to the backends, by token; they are closed by the other side.
    backends: Vec<Option<Served>>,
    answers: Answers,
}

impl EventLoop {
    pub(super) fn new(serves: Serves, backends: usize) -> io::Result<(Self, Waker, Vec<String>)> {
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
        let (events, answers) = (Events::with_capacity(EVENTS), Answers::new(serves));
        Ok((Self { poll, events, ready: vec![], listeners, backends: vec![], answers }, waker, addresses))
    }

    /// Serves the backends until something has happened.
    pub(super) fn wait(&mut self) -> io::Result<()> {
        self.look(None, |_, _| Ok(())).map_err(io::Error::other)
    }

    /// Has the clients ask at this pace.
    pub(super) fn load(&mut self, clients: &mut Clients, pace: Pace) -> Result<Outcome, String> {
        let clients = &mut clients.all;
        for (number, client) in clients.iter_mut().enumerate() {
            let token = Token(FIRST_CLIENT + number);
            let registered = self.poll.registry().register(&mut client.stream, token, Interest::READABLE);
            registered.map_err(|e| format!("cannot watch a connection: {e}"))?;
        }
        let outcome = self.make(clients, pace)?;
        for client in clients {
            let forgotten = self.poll.registry().deregister(&mut client.stream);
            forgotten.map_err(|e| format!("cannot let go of a connection: {e}"))?;
        }
        Ok(outcome)
    }

    fn make(&mut self, clients: &mut [Client], pace: Pace) -> Result<Outcome, String> {
        let mut book = Book::new(pace, clients.len(), Instant::now());
        loop {
            let now = Instant::now();
            if book.is_over(now) {
                let outcome = book.close();
                return if outcome.per_s > 0.0 { Ok(outcome) } else { Err("no request was answered".to_owned()) };
            }
            if let Some(missing) = book.missing(now, SPARE) {
                return Err(missing);
            }
            while let Some(connection) = book.next(now) {
                clients[connection].send()?;
            }
            self.look(Some(Duration::ZERO), |connection, now| {
                if clients[connection].read()? { book.answered(connection, now) } else { Ok(()) }
            })?;
        }
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
        self.ready.clear();
        self.ready.extend(self.events.iter().map(|event| event.token().0));
        // Each is told once. So an error waits until all have been looked at: a backend that is passed over would never answer.
        let mut outcome = Ok(());
        for at in 0..self.ready.len() {
            let token = self.ready[at];
            let done = if token >= FIRST_CLIENT {
                answer(token - FIRST_CLIENT, Instant::now())
            } else if token >= FIRST_BACKEND {
                self.serve(token - FIRST_BACKEND);
                Ok(())
            } else if token > WAKER.0 {
                self.accept(token - 1).map_err(|e| format!("a backend cannot accept: {e}"))
            } else {
                Ok(())
            };
            outcome = outcome.and(done);
        }
        outcome
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
            let served = Some(self.answers.accepted(stream));
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
        if served.answer(&mut self.answers).is_err() {
            self.backends[place] = None;
        }
    }
}
