//! A connection that has switched protocols (RFC 9110 §7.8): bytes both ways between a client and a backend, until one
//! side ends, nothing moves for `timeouts.tunnel`, or a drain finds a quiet moment.
//!
//! It begins when the 101 of the backend is out to the client, and not before: what the client sent behind its request
//! was held back by the door until then. Each side may end its sending without ending the other's (half-close).
//!
//! State: its row among the open [`Tunnels`](crate::tunnels::Tunnels), its backend's in-flight count (in the record), and its
//! deadline; all undone when it is dropped, wherever it stands.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use lb_core::metrics::TunnelEnd;
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop;

use super::client::Client;
use crate::deadline::{SWEEP_INTERVAL, Waiting};
use crate::proxy::Record;
use crate::tunnels::Facts;
use crate::upstream::{UpstreamConn, poll_send};

/// Pieces carried one way in one turn.
const MOST_PIECES: usize = 16;

/// A tunnel to be.
pub(crate) struct Tunnel {
    /// To the backend; may hold bytes that came behind the 101.
    upstream: Box<UpstreamConn>,
    row: Row,
}

/// A tunnel's place among the others, and its request's record. Dropped, it is out of both.
struct Row {
    facts: Arc<Facts>,
    record: RefCell<Record>,
    end: Cell<TunnelEnd>,
}

impl Tunnel {
    /// What begins when the 101 is out.
    pub(crate) fn new(upstream: Box<UpstreamConn>, record: Record, facts: Facts) -> Box<Self> {
        let worker = &record.client().worker;
        let facts = Arc::new(facts);
        worker.shared.tunnels.enter(Arc::clone(&facts));
        record.backend().shard().tunnels.add(1);
        record.backend().tunnel_opens(&record.client().deadline);
        let record = RefCell::new(record);
        Box::new(Self { upstream, row: Row { facts, record, end: Cell::new(TunnelEnd::Broken) } })
    }

    /// Carries bytes to the end. `early` is what the client sent before it was answered.
    pub(super) async fn run(self: Box<Self>, client: &Rc<Client>, mut stream: TcpStream, early: &mut BytesMut) {
        let Self { upstream, row } = *self;
        let (mut backend, received, _place) = (*upstream).into_parts();
        stay_alive(client);
        // RFC 9110 §7.8: whatever was waiting on either side belongs to the new protocol.
        let early = std::mem::take(early);
        row.to_backend(early.len());
        row.to_client(received.len());
        let (mut up, mut down) = (Direction::new(early), Direction::new(received));
        let ended = poll_fn(|cx| {
            client.deadline.watch(cx.waker());
            // Both, always: each leaves its own wake-up behind.
            let to_backend = up.poll(cx, &mut stream, &mut backend, client, |bytes| row.to_backend(bytes));
            let to_client = down.poll(cx, &mut backend, &mut stream, client, |bytes| row.to_client(bytes));
            match (to_backend, to_client) {
                (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => Poll::Ready(TunnelEnd::Broken),
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(TunnelEnd::Closed),
                _ if client.deadline.is_cut() => Poll::Ready(TunnelEnd::Drained),
                _ if !client.expired() => Poll::Pending,
                _ if client.deadline.is_hurried() => Poll::Ready(TunnelEnd::Drained),
                _ => Poll::Ready(TunnelEnd::Idle),
            }
        });
        let ended = ended.await;
        // Its row in the log says when.
        client.worker.clock.read();
        row.end.set(ended);
    }
}

/// What flows one way. It holds only what the other side does not take at once.
struct Direction {
    held: BytesMut,
    state: Flow,
    source: Source,
}

/// What is known of the socket that one way comes from. Each message of either side wakes the task that serves both: the one
/// which is waited for already is not waited for anew.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// There may be more.
    Unknown,
    /// Everything that there was has been read.
    Drained,
    /// And the task is told when something comes.
    Awaited,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// Nothing more comes; what is held goes out first.
    Ended,
    Through,
}

impl Direction {
    fn new(held: BytesMut) -> Self {
        Self { held, state: Flow::Open, source: Source::Unknown }
    }

    /// Moves what can be moved. `Ready` says that this way is at its end, which the other side has been told.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        client: &Client,
        count: impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        for _ in 0..MOST_PIECES {
            while !self.held.is_empty() {
                let written = ready!(poll_send(to, cx, &self.held))?;
                self.held.advance(written);
                stay_alive(client);
            }
            if self.held.capacity() > 0 {
                // The room that a slow reader needed is not kept.
                self.held = BytesMut::new();
            }
            match self.state {
                Flow::Open => ready!(self.poll_carry(cx, from, to, client, &count))?,
                Flow::Ended => {
                    self.state = Flow::Through;
                    // It fails only if the other side has gone, which is told by the other way.
                    let _ = socket2::SockRef::from(&*to).shutdown(std::net::Shutdown::Write);
                }
                Flow::Through => return Poll::Ready(Ok(())),
            }
        }
        // The other way, and other connections, have their turn.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// One piece, from one socket into the other.
    fn poll_carry(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut TcpStream,
        to: &mut TcpStream,
        client: &Client,
        count: impl Fn(usize),
    ) -> Poll<io::Result<()>> {
        let mut piece = client.worker.piece.borrow_mut();
        let read = ready!(self.poll_piece(cx, from, &mut piece))?;
        if read == 0 {
            self.state = Flow::Ended;
            return Poll::Ready(Ok(()));
        }
        count(read);
        stay_alive(client);
        let written = match poll_send(to, cx, &piece[..read]) {
            Poll::Pending => 0,
            Poll::Ready(written) => written?,
        };
        self.held.extend_from_slice(&piece[written..read]);
        Poll::Ready(Ok(()))
    }

    /// What has come; 0 is the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>, from: &TcpStream, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.source == Source::Drained {
                if from.poll_read_ready(cx)?.is_pending() {
                    // A task that has had more than its share of time is only told to come back: nobody waits then.
                    if coop::has_budget_remaining() {
                        self.source = Source::Awaited;
                    }
                    return Poll::Pending;
                }
                self.source = Source::Unknown;
            }
            match try_receive(from, room)? {
                Some(read) => {
                    // Less than there was room for is all that there is: the runtime tells of what comes after it.
                    self.source = if is_all(read, room) { Source::Drained } else { Source::Unknown };
                    return Poll::Ready(Ok(read));
                }
                None if self.source == Source::Awaited => return Poll::Pending,
                None => self.source = Source::Drained,
            }
        }
    }
}

/// What there is to be read, straight from the kernel (see [`poll_send`]); `None` if it has to be waited for.
fn try_receive(stream: &TcpStream, room: &mut [u8]) -> io::Result<Option<usize>> {
    let mut received = None;
    let now = || {
        let (_, read) = retry_on_intr(|| recv(stream, &mut *room, RecvFlags::empty()))?;
        received = Some(read);
        // It is how the runtime learns that it is not to be read again at once.
        if is_all(read, room) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    };
    match stream.try_io(Interest::READABLE, now) {
        Err(error) if received.is_none() && error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(received),
    }
}

/// Whether nothing more is there. The end is always there.
fn is_all(read: usize, room: &[u8]) -> bool {
    (1..room.len()).contains(&read)
}

impl Row {
    fn to_backend(&self, bytes: usize) {
        self.record.borrow_mut().sent_to_backend(count(&self.facts.to_backend, bytes));
    }

    fn to_client(&self, bytes: usize) {
        self.record.borrow_mut().sent_to_client(bytes as u64);
        count(&self.facts.to_client, bytes);
    }
}

/// Adds to what nobody else adds to; returns the sum.
fn count(total: &AtomicU64, bytes: usize) -> u64 {
    let sum = total.load(Ordering::Relaxed) + bytes as u64;
    total.store(sum, Ordering::Relaxed);
    sum
}

impl Drop for Row {
    fn drop(&mut self) {
        let record = self.record.get_mut();
        let worker = &record.client().worker;
        worker.shared.tunnels.leave(self.facts.id);
        worker.slot().shard.tunnel_ends[self.end.get() as usize].add(1);
        record.tunnel_ended(self.end.get() != TunnelEnd::Broken);
    }
}

/// Something moved: the tunnel's time starts anew. Counted from when the clock was last read, which on a worker that keeps
/// up is a sweep ago at most, so that a tunnel may be idle for up to two sweeps longer: a reading for each message would be
/// dearer than all else that is done here for one.
fn stay_alive(client: &Client) {
    client.wait_for(Waiting::Tunnel, client.worker.shared.config.timeouts.tunnel + SWEEP_INTERVAL);
}
