//! Carries the bytes of a worker's tunnels.
//!
//! A tunnel has a task, which waits for its end: its time, a drain, or what it is told here. A message does not wake it: whoever
//! looks at the worker's [`poller`](super::poller) carries the message on at once, and the task is woken only when there may be more
//! than one piece to carry, when a side has ended, or when the tunnel broke. So a tunnel with short messages costs what its system
//! calls cost (measured: see `docs/benchmarks.md`), and one with a bulk has its turn like everybody else.
//!
//! State: the [`Pair`]s of open tunnels. Entered and left by their tasks; both these and the poller's task carry. No
//! borrow is held across an `.await`, and neither runs within the other.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::TcpStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use mio::event::Event;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use slab::Slab;

use super::client::Client;
use super::poller::Place;
use super::tunnel::{Row, stay_alive};
use crate::worker::Worker;

/// Pieces that are carried one way when something is told: what is more, is for the task.
const PIECES_WHEN_TOLD: usize = 1;

/// Pieces carried one way in one turn of the task, and the last ones of a side while the other breaks.
pub(super) const MOST_PIECES: usize = 16;

/// One of a tunnel's sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
}

/// The open tunnels of one worker.
#[derive(Default)]
pub(crate) struct Carrier {
    pairs: RefCell<Slab<Rc<Pair>>>,
}

/// The two sockets of a tunnel, and what flows between them.
pub(super) struct Pair {
    pub(super) client: Rc<Client>,
    /// Dropped before the row: a backend is free of a tunnel once its socket is closed.
    flow: RefCell<Flow>,
    pub(super) row: Row,
    broken: Cell<bool>,
}

struct Flow {
    client: End,
    backend: End,
    to_backend: Way,
    to_client: Way,
}

/// How far it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Everything: the rest will be told of.
    All,
    /// As much as it should. There is more.
    Most,
    /// Both ways are at their end.
    Ended,
    /// A socket broke.
    Broken,
}

/// A tunnel's place. Left when dropped.
pub(super) struct Entered {
    worker: Rc<Worker>,
    key: usize,
}

impl Drop for Entered {
    fn drop(&mut self) {
        // What its row does at its end is none of the carrier's business.
        let left = self.worker.carrier.pairs.borrow_mut().try_remove(self.key);
        drop(left);
    }
}

impl Carrier {
    /// Has both sockets watched, until what is returned is dropped.
    ///
    /// # Errors
    /// They cannot be watched.
    pub(super) fn enter(&self, worker: &Rc<Worker>, pair: &Rc<Pair>) -> io::Result<Entered> {
        let key = self.pairs.borrow_mut().insert(Rc::clone(pair));
        let entered = Entered { worker: Rc::clone(worker), key };
        let flow = pair.flow.borrow();
        worker.poller.add(&flow.client.stream, Place::Tunnel(key, Side::Client))?;
        worker.poller.add(&flow.backend.stream, Place::Tunnel(key, Side::Backend))?;
        Ok(entered)
    }

    /// Something has come, there is room again, or a side has gone.
    pub(super) fn tell(&self, worker: &Worker, key: usize, side: Side, event: &Event) {
        let pairs = self.pairs.borrow();
        let Some(pair) = pairs.get(key) else { return };
        pair.note(side, event);
        // This task serves all tunnels: one that cannot be carried on must not take the others with it.
        let carried = catch_unwind(AssertUnwindSafe(|| pair.carry(PIECES_WHEN_TOLD))).unwrap_or_else(|_| {
            worker.slot().shard.panics.add(1);
            pair.broken.set(true);
            Carried::Broken
        });
        if carried != Carried::All {
            pair.client.deadline.wake();
        }
    }

    /// Nothing is told any more.
    pub(super) fn break_all(&self) {
        for (_, pair) in &*self.pairs.borrow() {
            pair.broken.set(true);
            pair.client.deadline.wake();
        }
    }
}

impl Pair {
    /// `early` and `received` have come already, from the client and from the backend.
    pub(super) fn new(
        client: Rc<Client>,
        row: Row,
        [of_client, of_backend]: [TcpStream; 2],
        [early, received]: [BytesMut; 2],
    ) -> Rc<Self> {
        let flow = Flow {
            client: End::new(of_client),
            backend: End::new(of_backend),
            to_backend: Way::new(early),
            to_client: Way::new(received),
        };
        Rc::new(Self { client, flow: RefCell::new(flow), row, broken: Cell::new(false) })
    }

    fn note(&self, side: Side, event: &Event) {
        let Flow { client, backend, .. } = &mut *self.flow.borrow_mut();
        if side == Side::Client { client.note(event) } else { backend.note(event) }
    }

    /// Carries what there is, `most` pieces each way.
    pub(super) fn carry(&self, most: usize) -> Carried {
        if self.broken.get() {
            return Carried::Broken;
        }
        let Flow { client, backend, to_backend, to_client } = &mut *self.flow.borrow_mut();
        let piece = &mut **self.client.worker.piece.borrow_mut();
        let moved = || stay_alive(&self.client);
        let (sent, received) = (|bytes| self.row.to_backend(bytes), |bytes| self.row.to_client(bytes));
        let up = to_backend.carry(client, backend, piece, most, moved, sent);
        let down = to_client.carry(backend, client, piece, most, moved, received);
        // One that has ended its sending, and is gone altogether by now: nobody would read that any more.
        let is_lost = |way: &io::Result<Carried>, end: &End| matches!(way, Ok(Carried::Ended)) && end.gone;
        let lost = is_lost(&up, client) || is_lost(&down, backend);
        match (up, down) {
            (Ok(Carried::Ended), Ok(Carried::Ended)) => Carried::Ended,
            (Ok(Carried::Most), Ok(_)) | (Ok(_), Ok(Carried::Most)) if !lost => Carried::Most,
            (Ok(_), Ok(_)) if !lost => Carried::All,
            (up, down) => {
                self.broken.set(true);
                self.row.broken_by(if client.gone { Side::Client } else { Side::Backend });
                // What one side has sent before the other broke still goes out, also if it was not told of yet: as much of it as
                // the socket takes at once.
                (client.readable, backend.readable) = (true, true);
                let _ = up.and_then(|_| to_backend.carry(client, backend, piece, MOST_PIECES, moved, sent));
                let _ = down.and_then(|_| to_client.carry(backend, client, piece, MOST_PIECES, moved, received));
                Carried::Broken
            }
        }
    }
}

/// A socket, and what was told of it and has not been seen to be over.
struct End {
    stream: TcpStream,
    readable: bool,
    /// Its last byte has come, which is told only once.
    last: bool,
    /// It is broken, which is told or found only once, too, and not said again by a read that finds the end before it.
    gone: bool,
    writable: bool,
}

impl End {
    fn new(stream: TcpStream) -> Self {
        Self { stream, readable: true, last: false, gone: false, writable: true }
    }

    fn note(&mut self, event: &Event) {
        self.gone |= event.is_error();
        self.last |= event.is_read_closed() || self.gone;
        self.readable |= event.is_readable() || self.last;
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// `None` if there is nothing; 0 is the end.
    fn receive(&mut self, room: &mut [u8]) -> io::Result<Option<usize>> {
        match retry_on_intr(|| recv(&self.stream, &mut *room, RecvFlags::empty())) {
            Ok((_, read)) => {
                self.readable = read == room.len() || self.last;
                Ok(Some(read))
            }
            Err(Errno::AGAIN) => {
                self.readable = false;
                Ok(None)
            }
            Err(error) => Err(self.breaks(error)),
        }
    }

    /// As much as it takes now.
    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match retry_on_intr(|| send(&self.stream, bytes, SendFlags::NOSIGNAL)) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN) => {
                self.writable = false;
                Ok(0)
            }
            Err(error) => Err(self.breaks(error)),
        }
    }

    fn breaks(&mut self, error: Errno) -> io::Error {
        self.gone = true;
        error.into()
    }
}

/// What flows one way. It holds only what the other side does not take at once.
struct Way {
    held: BytesMut,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// Nothing more comes; what is held goes out first.
    Ended,
    /// And the other side has been told.
    Through,
}

impl Way {
    fn new(held: BytesMut) -> Self {
        Self { held, state: State::Open }
    }

    /// Moves what can be moved, `most` pieces of it. `Ended` says that this way is at its end, which the other side has been told.
    fn carry(
        &mut self,
        from: &mut End,
        to: &mut End,
        piece: &mut [u8],
        most: usize,
        moved: impl Fn(),
        count: impl Fn(usize),
    ) -> io::Result<Carried> {
        let mut carried = 0;
        loop {
            while !self.held.is_empty() {
                if !to.writable {
                    return Ok(Carried::All);
                }
                let sent = to.send(&self.held)?;
                self.held.advance(sent);
                if sent > 0 {
                    moved();
                }
            }
            if self.held.capacity() > 0 {
                // The room that a slow reader needed is not kept.
                self.held = BytesMut::new();
            }
            match self.state {
                State::Open if !from.readable => return Ok(Carried::All),
                State::Open if carried == most => return Ok(Carried::Most),
                State::Open => {
                    carried += 1;
                    match from.receive(piece)? {
                        None => {}
                        Some(0) => self.state = State::Ended,
                        Some(read) => {
                            count(read);
                            moved();
                            let sent = to.send(&piece[..read])?;
                            self.held.extend_from_slice(&piece[sent..read]);
                        }
                    }
                }
                State::Ended => {
                    self.state = State::Through;
                    // It fails only if the other side has gone, which is told by the other way.
                    let _ = shutdown(&to.stream, Shutdown::Write);
                }
                State::Through => return Ok(Carried::Ended),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// One of a tunnel's sockets, and whoever is at its other end.
    fn end() -> (End, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (ours, _) = listener.accept().unwrap();
        ours.set_nonblocking(true).unwrap();
        (End::new(ours), peer)
    }

    /// Carries and says how many bytes were read.
    fn carry(way: &mut Way, from: &mut End, to: &mut End, most: usize) -> (io::Result<Carried>, usize) {
        let read = Cell::new(0);
        let carried = way.carry(from, to, &mut [0; 1000], most, || {}, |bytes| read.set(read.get() + bytes));
        (carried, read.get())
    }

    /// Loopback delivers before `write` returns.
    #[test]
    fn what_has_come_is_carried_and_no_system_call_is_made_for_what_has_not() {
        let ((mut from, mut sender), (mut to, mut receiver)) = (end(), end());
        let mut way = Way::new(BytesMut::from(&b"early "[..]));
        sender.write_all(b"message").unwrap();
        assert!(matches!(carry(&mut way, &mut from, &mut to, 1), (Ok(Carried::All), 7)));
        let mut bytes = [0; 13];
        receiver.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"early message");
        assert!(!from.readable, "less than there was room for: there is no more");
        sender.write_all(b"not told yet").unwrap();
        assert!(matches!(carry(&mut way, &mut from, &mut to, 1), (Ok(Carried::All), 0)));
        from.readable = true;
        assert!(matches!(carry(&mut way, &mut from, &mut to, 9), (Ok(Carried::All), 12)));
    }

    #[test]
    fn a_bulk_has_turns_and_a_slow_reader_is_waited_for_with_a_piece_in_hand() {
        let ((mut from, mut sender), (mut to, mut receiver)) = (end(), end());
        let mut way = Way::new(BytesMut::new());
        sender.write_all(&[b'x'; 10_000]).unwrap();
        assert!(matches!(carry(&mut way, &mut from, &mut to, 4), (Ok(Carried::Most), 4000)));
        assert!(matches!(carry(&mut way, &mut from, &mut to, 99), (Ok(Carried::All), 6000)));
        // Until nobody takes any more.
        let (mut sent, mut read) = (10_000, 10_000);
        sender.set_nonblocking(true).unwrap();
        while to.writable || from.readable {
            sent += sender.write(&[b'x'; 64 * 1024]).unwrap_or_default();
            from.readable = true;
            read += carry(&mut way, &mut from, &mut to, 99).1;
            if !to.writable {
                break;
            }
        }
        assert!((1..=1000).contains(&way.held.len()), "one piece, not more: {}", way.held.len());
        assert!(matches!(carry(&mut way, &mut from, &mut to, 99), (Ok(Carried::All), 0)));
        // And then somebody does.
        drop(sender);
        (from.last, from.readable) = (true, true);
        receiver.set_nonblocking(true).unwrap();
        let (mut taken, mut room) = (0, vec![0; 1 << 20]);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while way.state != State::Through && std::time::Instant::now() < until {
            taken += receiver.read(&mut room).unwrap_or_default();
            (to.writable, from.readable) = (true, true);
            let carried = carry(&mut way, &mut from, &mut to, 99).1;
            read += carried;
            if carried == 0 {
                std::thread::yield_now();
            }
        }
        assert!(way.state == State::Through, "{taken} of {sent} bytes");
        receiver.set_nonblocking(false).unwrap();
        taken += receiver.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!((taken, read), (sent, sent), "every byte, and then the end");
        assert_eq!(way.held.capacity(), 0);
    }

    #[test]
    fn an_end_that_was_told_with_the_last_bytes_is_not_waited_for() {
        let ((mut from, mut sender), (mut to, mut receiver)) = (end(), end());
        let mut way = Way::new(BytesMut::new());
        sender.write_all(b"last").unwrap();
        drop(sender);
        (from.last, from.readable) = (true, true);
        assert!(matches!(carry(&mut way, &mut from, &mut to, 1), (Ok(Carried::Most), 4)));
        assert!(matches!(carry(&mut way, &mut from, &mut to, 1), (Ok(Carried::Ended), 0)));
        let mut bytes = Vec::new();
        receiver.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"last");
        assert!(matches!(carry(&mut way, &mut from, &mut to, 1), (Ok(Carried::Ended), 0)));
    }

    #[test]
    fn a_reset_breaks_the_way() {
        let ((mut from, sender), (mut to, _receiver)) = (end(), end());
        socket2::SockRef::from(&sender).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(sender);
        let mut way = Way::new(BytesMut::new());
        assert!(carry(&mut way, &mut from, &mut to, 1).0.is_err());
    }
}
