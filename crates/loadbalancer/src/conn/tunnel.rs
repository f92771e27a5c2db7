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
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

use bytes::BytesMut;
use lb_core::metrics::TunnelEnd;

use super::carrier::{Carried, MOST_PIECES, Pair, Side};
use super::client::Client;
use crate::deadline::{SWEEP_INTERVAL, Waiting};
use crate::proxy::Record;
use crate::tunnels::Facts;
use crate::upstream::UpstreamConn;

/// A tunnel to be.
pub(crate) struct Tunnel {
    /// To the backend; may hold bytes that came behind the 101.
    upstream: Box<UpstreamConn>,
    row: Row,
}

/// A tunnel's place among the others, and its request's record. Dropped, it is out of both.
pub(super) struct Row {
    facts: Arc<Facts>,
    record: RefCell<Record>,
    end: Cell<TunnelEnd>,
    /// Who broke it off, if one of the two did.
    broken_by: Cell<Option<Side>>,
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
        let (end, broken_by) = (Cell::new(TunnelEnd::Broken), Cell::default());
        Box::new(Self { upstream, row: Row { facts, record, end, broken_by } })
    }

    /// Carries bytes to the end, or has them carried (see [`carrier`](super::carrier)). `early` is what the client sent before
    /// it was answered.
    pub(super) async fn run(self: Box<Self>, client: &Rc<Client>, stream: TcpStream, early: &mut BytesMut) {
        let Self { upstream, row } = *self;
        let (backend, received, _place) = (*upstream).into_parts();
        stay_alive(client);
        // RFC 9110 §7.8: whatever was waiting on either side belongs to the new protocol.
        let early = std::mem::take(early);
        row.to_backend(early.len());
        row.to_client(received.len());
        let backend = match backend.into_std() {
            Ok(backend) => backend,
            Err(error) => return tracing::debug!(%error, client = %client.address, "tunnel lost as it began"),
        };
        let pair = Pair::new(Rc::clone(client), row, [stream, backend], [early, received]);
        let _entered = match client.worker.carrier.enter(&client.worker, &pair) {
            Ok(entered) => entered,
            Err(error) => return tracing::warn!(%error, client = %client.address, "a tunnel cannot be watched"),
        };
        // Nobody but a shutdown or a panic drops it from here on.
        pair.row.end.set(TunnelEnd::Drained);
        let ended = poll_fn(|cx| {
            client.deadline.watch(cx.waker());
            match pair.carry(MOST_PIECES) {
                Carried::Broken => return Poll::Ready(TunnelEnd::Broken),
                Carried::Ended => return Poll::Ready(TunnelEnd::Closed),
                // Other connections have their turn.
                Carried::Most => cx.waker().wake_by_ref(),
                Carried::All => {}
            }
            match () {
                () if client.deadline.is_cut() => Poll::Ready(TunnelEnd::Drained),
                () if !client.expired() => Poll::Pending,
                () if client.deadline.is_hurried() => Poll::Ready(TunnelEnd::Drained),
                () => Poll::Ready(TunnelEnd::Idle),
            }
        });
        let ended = ended.await;
        // Its row in the log says when.
        client.worker.clock.read();
        pair.row.end.set(ended);
    }
}

impl Row {
    pub(super) fn broken_by(&self, side: Side) {
        self.broken_by.set(Some(side));
    }

    pub(super) fn to_backend(&self, bytes: usize) {
        self.record.borrow_mut().sent_to_backend(count(&self.facts.to_backend, bytes));
    }

    pub(super) fn to_client(&self, bytes: usize) {
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
        if std::thread::panicking() {
            self.end.set(TunnelEnd::Broken);
        }
        match (self.end.get(), self.broken_by.get()) {
            (TunnelEnd::Closed | TunnelEnd::Idle, _) => record.tunnel_ended(),
            (TunnelEnd::Drained, _) => record.cut(),
            (TunnelEnd::Broken, Some(Side::Backend)) => record.tunnel_broken(),
            (TunnelEnd::Broken, _) => record.settle(),
        }
    }
}

/// Something moved: the tunnel's time starts anew. Counted from when the clock was last read, which on a worker that keeps
/// up is a sweep ago at most, so that a tunnel may be idle for up to two sweeps longer: a reading for each message would be
/// dearer than all else that is done here for one.
pub(super) fn stay_alive(client: &Client) {
    client.wait_for(Waiting::Tunnel, client.worker.shared.config.timeouts.tunnel + SWEEP_INTERVAL);
}
