//! One client connection: hyper reads requests off it and writes responses to it, under our own deadlines.
//!
//! hyper has no timeout without a timer, and with one it counts the wait for a next request as time of its head. So
//! the connection's socket is watched from below ([`stream`]): the first byte after a response starts the time of a
//! head, and every write that gets on restarts the time of a body. What a connection knows of its client is in
//! [`client`]; after a 101 it goes on as a [`tunnel`], and after a second without a request it is at [`rest`]. Tunnels and
//! connections at rest are watched by the worker's own [`poller`].

mod carrier;
mod client;
mod poller;
mod refusal;
mod request_time;
mod rest;
mod socket;
mod stream;
mod tunnel;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use lb_core::metrics::Rejected;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub(crate) use carrier::Carrier;
pub(crate) use client::Client;
pub(crate) use poller::{Poller, watch as watch_many};
pub(crate) use request_time::Overdue;
pub(crate) use rest::Rest;
pub(crate) use tunnel::Tunnel;

use crate::deadline::Waiting;
use crate::door;
use crate::listen::{Peer, Seat};
use crate::proxy;
use crate::worker::Worker;
use rest::{Past, Sleeper};
use socket::ClientSocket;
use stream::{ClientStream, Socket};

/// hyper's read buffer: room for a whole head, since it gets nothing less, and for a good piece of a body.
const LEAST_BUFFERED: usize = 64 * 1024;

/// hyper's own bound on fields; any other costs it an allocation per request.
const HYPER_FIELDS: usize = 100;

/// How long the bytes of a client that was already answered are still taken, in all and between two of them. NGINX's
/// 30 s and 5 s are for slower networks than the one in front of a balancer, and would hold a shutdown up.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_QUIET: Duration = Duration::from_secs(1);

/// The kernel tells at the next look.
const TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Serves a new connection to its end, or until it has been at rest for a while: then it goes on in [`rest`].
pub(crate) fn serve(
    worker: Rc<Worker>,
    stream: std::net::TcpStream,
    peer: Peer,
    seat: Seat,
) -> impl Future<Output = ()> {
    let past = Past::new(&worker);
    go_on(worker, stream, peer, seat, past)
}

/// Serves a connection that may have had requests already.
fn go_on(
    worker: Rc<Worker>,
    stream: std::net::TcpStream,
    peer: Peer,
    seat: Seat,
    past: Past,
) -> impl Future<Output = ()> {
    let client = Client::new(worker, peer, past);
    let socket = Socket::new(ClientSocket::Unwatched(stream), Rc::clone(&client));
    run(client, socket, seat)
}

async fn run(client: Rc<Client>, socket: Rc<RefCell<Socket>>, seat: Seat) {
    let _untied = Untied(Rc::clone(&client));
    // A tunnel, which may live long, keeps nothing of it.
    let (served, unparsed) = Box::pin(awake(&client, &socket)).await;
    // hyper's end of it went with its connection.
    let Some(socket) = Rc::into_inner(socket).map(RefCell::into_inner) else { return };
    if matches!(served, Err(Broken::Resting)) {
        return fall_asleep(&client, socket, seat);
    }
    let is_plain = matches!(served, Ok(())) && client.tunnel.borrow().is_none() && !client.is_busy();
    if !(is_plain && !client.owes_refusal() && !client.unread.get() && !socket.has_unread()) {
        Box::pin(end(&client, socket, served, unparsed)).await;
    }
}

fn fall_asleep(client: &Client, socket: Socket, seat: Seat) {
    client.worker.has_freed();
    match socket.stream.into_unwatched() {
        Ok(stream) => rest::enter(&client.worker, Sleeper::new(stream, client.peer, seat, client.past())),
        Err(error) => tracing::warn!(%error, client = %client.address, "connection lost on its way to rest"),
    }
}

/// A client's tunnel knows its client. Dropped before it has begun, it must not keep both alive.
struct Untied(Rc<Client>);

impl Drop for Untied {
    fn drop(&mut self) {
        drop(self.0.tunnel.take());
    }
}

/// A connection whose task is dropped, at the end of a shutdown or by a panic: half a response must not look complete.
struct Cut<'a> {
    client: &'a Client,
    socket: &'a RefCell<Socket>,
    armed: bool,
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        if self.armed && self.client.is_busy() && self.client.believes_an_end() {
            // Nobody borrows it but what was dropped with this.
            let _ = self.socket.try_borrow().map(|socket| socket.stream.reset_at_close());
        }
    }
}

/// Serves requests until the connection ends, or has been at rest for a while.
async fn awake(client: &Rc<Client>, socket: &Rc<RefCell<Socket>>) -> (Result<(), Broken>, Bytes) {
    let limits = &client.worker.shared.config.limits;
    let mut cut = Cut { client, socket, armed: true };
    let io = TokioIo::new(ClientStream(Rc::clone(socket)));
    let service = service_fn(|request| proxy::call(client, request));
    let mut connection = {
        let mut builder = Builder::new();
        builder.max_buf_size(LEAST_BUFFERED.max(limits.head + 8 * 1024)).header_read_timeout(None).half_close(true);
        if limits.fields != HYPER_FIELDS {
            builder.max_headers(limits.fields);
        }
        builder.serve_connection(io, service)
    };
    let served = poll_fn(|cx| poll_connection(Pin::new(&mut connection), socket, client, cx)).await;
    cut.armed = false;
    let unparsed = match &served {
        Err(Broken::Hyper(error)) if error.is_parse() => connection.into_parts().read_buf,
        _ => Bytes::new(),
    };
    (served, unparsed)
}

/// What follows when hyper is done with a connection, or the client with us.
async fn end(client: &Rc<Client>, mut io: Socket, served: Result<(), Broken>, unparsed: Bytes) {
    let tunnel = client.tunnel.take();
    match (served, tunnel) {
        (Ok(()), Some(tunnel)) => {
            let Ok(stream) = io.stream.into_unwatched() else { return };
            return tunnel.run(client, stream, &mut io.door.held).await;
        }
        // The response body broke. A reset would take with it what the client has not got yet, which may be a whole response
        // before: only a client that would not miss the rest needs one.
        (Err(Broken::Hyper(error)), _) if error.is_user() && client.believes_an_end() => {
            return io.stream.reset_at_close();
        }
        (Err(Broken::Hyper(error)), _) if error.is_user() => {
            if has_sent_more(client, &io) {
                linger(io.stream).await;
            }
            return;
        }
        (Err(Broken::Hyper(error)), _) if client.is_parsing() && client.rejected().is_none() && error.is_parse() => {
            client.refuse_head(door::diagnose(&unparsed));
        }
        (Err(Broken::Hyper(error)), _) => tracing::trace!(%error, client = %client.address, "connection ended"),
        (Err(Broken::TooSlow(waiting)), _) => {
            tracing::debug!(?waiting, client = %client.address, "connection closed: too slow");
            if waiting == Waiting::ClientHead {
                client.refuse_head(Rejected::HeadTimeout);
            }
        }
        (Err(Broken::Gone), _) => {
            // It may only have ended its side and be reading still (`proxy.abort_on_close`): a response that ends with
            // the connection must not look complete (RFC 9112 §6.3).
            if client.is_busy() {
                io.stream.reset_at_close();
            }
            return;
        }
        (Err(Broken::Resting), _) => return,
        (Ok(()), None) => {}
    }
    if client.is_busy() && !client.owes_refusal() {
        // Not all of a response is out: as above.
        io.stream.reset_at_close();
    } else if client.owes_refusal() {
        refusal::write(client, &io.stream);
        linger(io.stream).await;
    } else if has_sent_more(client, &io) {
        linger(io.stream).await;
    }
}

/// Whether bytes of the client's are left that nobody has read, here or in the kernel.
fn has_sent_more(client: &Client, io: &Socket) -> bool {
    client.unread.get() || io.has_unread() || io.stream.has_more()
}

/// Closes our side and takes what the client still sends, for a moment: a close with bytes unread would reset the
/// connection, and the client would lose the reply that was just written (RFC 9112 §9.6).
async fn linger(stream: ClientSocket) {
    let Ok(mut stream) = stream.into_watched() else { return };
    let discard = async {
        let mut scratch = vec![0; 16 * 1024];
        let _ = stream.shutdown().await;
        while matches!(tokio::time::timeout(LINGER_QUIET, stream.read(&mut scratch)).await, Ok(Ok(1..))) {}
    };
    let _ = tokio::time::timeout(LINGER, discard).await;
}

/// Why a connection was ended from our side.
enum Broken {
    Hyper(hyper::Error),
    /// The client reset the connection, or ended it where that means the same.
    Gone,
    TooSlow(Waiting),
    /// It is not broken, but nothing has happened for a while.
    Resting,
}

fn poll_connection<S>(
    connection: Pin<&mut Connection<TokioIo<ClientStream>, S>>,
    socket: &RefCell<Socket>,
    client: &Client,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Broken>>
where
    Connection<TokioIo<ClientStream>, S>: Future<Output = hyper::Result<()>>,
    S: HttpService<hyper::body::Incoming>,
{
    client.deadline.watch(cx.waker());
    let begins = !client.is_busy() && !client.expired() && !client.deadline.is_at_rest();
    if begins && !client.worker.turns.may_begin(&client.deadline) {
        return Poll::Pending;
    }
    client.worker.clock.read();
    if let Poll::Ready(done) = connection.poll(cx) {
        return Poll::Ready(done.map_err(Broken::Hyper));
    }
    let mut socket = socket.borrow_mut();
    if socket.poll_ahead(cx).is_ready() {
        return Poll::Ready(Err(Broken::Gone));
    }
    if client.deadline.is_at_rest() && !client.expired() && socket.is_at_rest() {
        return Poll::Ready(Err(Broken::Resting));
    }
    // An exchange with a backend has just had its chance to turn its own timeout into a reply. What is still expired
    // is the client's: it does not send, or does not take what it is sent. The same goes for what is cut.
    if client.expired() || client.deadline.is_cut() {
        let waiting = client.deadline.waiting();
        if matches!(waiting, Waiting::FirstRequest | Waiting::NextRequest) && socket.stream.has_more() {
            // A request that has come at the last moment is not thrown away: we are about to be told of it.
            client.wait_for(waiting, TOLD_WITHIN);
            return Poll::Pending;
        }
        return Poll::Ready(Err(Broken::TooSlow(waiting)));
    }
    Poll::Pending
}
