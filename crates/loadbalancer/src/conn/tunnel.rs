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
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use lb_core::metrics::TunnelEnd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::client::Client;
use crate::deadline::Waiting;
use crate::proxy::Record;
use crate::tunnels::Facts;
use crate::upstream::UpstreamConn;

/// What is read at once, each way. A tunnel at rest holds two of these.
const PIECE: usize = 8 * 1024;

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
        let (mut backend, mut received) = (*upstream).into_parts();
        stay_alive(client);
        let carried = async {
            // RFC 9110 §7.8: whatever was waiting on either side belongs to the new protocol.
            forward(client, &mut stream, &mut received, |bytes| row.to_client(bytes)).await?;
            forward(client, &mut backend, early, |bytes| row.to_backend(bytes)).await?;
            let mut near = Watched { stream, client, count: |bytes| row.to_backend(bytes) };
            let mut far = Watched { stream: backend, client, count: |bytes| row.to_client(bytes) };
            tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, PIECE, PIECE).await.map(drop)
        };
        let mut carried = pin!(carried);
        let ended = poll_fn(|cx| {
            client.worker.clock.read();
            client.deadline.watch(cx.waker());
            match carried.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => Poll::Ready(TunnelEnd::Closed),
                Poll::Ready(Err(_)) => Poll::Ready(TunnelEnd::Broken),
                Poll::Pending if !client.expired() => Poll::Pending,
                Poll::Pending if client.deadline.is_hurried() => Poll::Ready(TunnelEnd::Drained),
                Poll::Pending => Poll::Ready(TunnelEnd::Idle),
            }
        });
        let ended = ended.await;
        row.end.set(ended);
    }
}

impl Row {
    fn to_backend(&self, bytes: usize) {
        let sent = self.facts.to_backend.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        self.record.borrow_mut().sent_to_backend(sent);
    }

    fn to_client(&self, bytes: usize) {
        self.record.borrow_mut().sent_to_client(bytes as u64);
        self.facts.to_client.fetch_add(bytes as u64, Ordering::Relaxed);
    }
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

/// Something moved: the tunnel's time starts anew.
fn stay_alive(client: &Client) {
    client.wait_for(Waiting::Tunnel, client.worker.shared.config.timeouts.tunnel);
}

async fn forward(client: &Client, to: &mut TcpStream, bytes: &mut BytesMut, count: impl Fn(usize)) -> io::Result<()> {
    while bytes.has_remaining() {
        count(to.write_buf(bytes).await?);
        stay_alive(client);
    }
    Ok(())
}

/// One side's socket: what is read from it counts, and shows that the tunnel is alive.
struct Watched<'a, F> {
    stream: TcpStream,
    client: &'a Client,
    count: F,
}

impl<F: Fn(usize) + Unpin> AsyncRead for Watched<'_, F> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let bytes = buf.filled().len() - before;
        if bytes > 0 {
            (self.count)(bytes);
            stay_alive(self.client);
        }
        Poll::Ready(Ok(()))
    }
}

impl<F: Unpin> AsyncWrite for Watched<'_, F> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            stay_alive(self.client);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
