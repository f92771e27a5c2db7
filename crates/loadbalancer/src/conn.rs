//! One client connection: hyper reads requests off it and writes responses to it, under our own deadlines.
//!
//! hyper has no timeout without a timer, and with one it counts the wait for a next request as time of its head. So
//! the connection's socket is watched from below ([`ClientStream`]): the first byte after a response starts the time
//! of a head, and every write that gets on restarts the time of a body.

use std::cell::Cell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::server::conn::http1::{Builder, Connection};
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use lb_core::metrics::LocalReply;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use crate::deadline::{Deadline, Waiting};
use crate::proxy;
use crate::worker::Worker;

/// hyper's read buffer, and with it the most that a request head may take; the rest of the head's limits follow with
/// the strict checks at the door.
const MOST_BUFFERED: usize = 64 * 1024;

/// How long the bytes of a client that was already answered are still taken, in all and between two of them. NGINX's
/// 30 s and 5 s are for slower networks than the one in front of a balancer, and would hold a shutdown up.
const LINGER: Duration = Duration::from_secs(5);
const LINGER_QUIET: Duration = Duration::from_secs(1);

/// The one reply that is made without hyper: there is no request to reply to yet.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 50\r\n\r\nthe request head did not come in time; try again\r\n";

/// What everything on one client connection knows of it.
pub(crate) struct Client {
    pub worker: Rc<Worker>,
    /// IPv4 addresses as such, also on a socket for both.
    pub address: IpAddr,
    /// The same as text, made once.
    pub address_text: String,
    /// Whether its forwarding fields are believed.
    pub trusted: bool,
    deadline: Rc<Deadline>,
    /// Whether a byte of the current head has come.
    head_begun: Cell<bool>,
    /// Whether a request body was given up before its end: what is left of it must still be taken before a close.
    pub unread: Rc<Cell<bool>>,
    /// Whether a complete response waits to be flushed.
    answered: Cell<bool>,
}

impl Client {
    fn new(worker: Rc<Worker>, peer: SocketAddr) -> Rc<Self> {
        let config = &worker.shared.config;
        let address = peer.ip().to_canonical();
        let trusted = config.trusted_proxies.iter().any(|network| network.contains(&address));
        let until = worker.clock.read().plus(config.timeouts.client_head);
        let deadline = worker.sweep.enter(Waiting::FirstRequest, until);
        let address_text = address.to_string();
        Rc::new(Self {
            address,
            address_text,
            trusted,
            deadline,
            head_begun: Cell::new(false),
            unread: Rc::default(),
            answered: Cell::new(false),
            worker,
        })
    }

    /// Waits for `waiting` for as long as `limit` from now.
    pub(crate) fn wait_for(&self, waiting: Waiting, limit: Duration) {
        self.deadline.set(waiting, self.worker.clock.now().plus(limit));
    }

    /// Whether what is waited for did not come in time.
    pub(crate) fn expired(&self) -> bool {
        self.deadline.expired()
    }

    /// The response is complete, but perhaps not yet taken by the client: until it is flushed, its body's time runs.
    pub(crate) fn response_done(&self) {
        self.answered.set(true);
        self.wait_for(Waiting::ResponseBody, self.worker.shared.config.timeouts.body_stall);
    }

    fn flushed(&self) {
        if self.answered.replace(false) {
            self.head_begun.set(false);
            self.wait_for(Waiting::NextRequest, self.worker.shared.config.timeouts.keep_alive);
        }
    }

    /// A request has come; a response that was made before it is still on its way if it was pipelined.
    pub(crate) fn request_begins(&self) {
        self.answered.set(false);
    }

    fn bytes_came(&self) {
        if self.head_begun.replace(true) {
            return;
        }
        match self.deadline.waiting() {
            Waiting::FirstRequest => self.deadline.go_on(Waiting::ClientHead),
            Waiting::NextRequest => {
                self.wait_for(Waiting::ClientHead, self.worker.shared.config.timeouts.client_head);
            }
            _ => {}
        }
    }

    fn bytes_went(&self) {
        if self.deadline.waiting() == Waiting::ResponseBody {
            self.wait_for(Waiting::ResponseBody, self.worker.shared.config.timeouts.body_stall);
        }
    }
}

/// Serves one connection to its end.
pub(crate) async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let client = Client::new(worker, peer);
    let io = TokioIo::new(ClientStream { stream, client: Rc::clone(&client) });
    let service = service_fn(|request| {
        let client = Rc::clone(&client);
        async move { Ok::<_, Infallible>(proxy::call(client, request).await) }
    });
    let mut connection =
        Builder::new().max_buf_size(MOST_BUFFERED).header_read_timeout(None).serve_connection(io, service);
    let served = poll_fn(|cx| poll_connection(Pin::new(&mut connection), &client, cx)).await;
    match served {
        Ok(()) if client.unread.get() => linger(connection.into_parts().io.into_inner().stream).await,
        Ok(()) => {}
        // The response body broke: an end that a client could take for a regular one must not follow.
        Err(Broken::Hyper(error)) if error.is_user() => {
            let stream = connection.into_parts().io.into_inner().stream;
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        Err(Broken::Hyper(error)) if error.is_parse() => {
            client.worker.count_local(LocalReply::BadRequest);
            linger(connection.into_parts().io.into_inner().stream).await;
        }
        Err(Broken::Hyper(error)) => tracing::trace!(%error, client = %client.address, "connection ended"),
        Err(Broken::TooSlow(waiting)) => {
            tracing::debug!(?waiting, client = %client.address, "connection closed: too slow");
            if waiting == Waiting::ClientHead {
                client.worker.count_local(LocalReply::RequestTimeout);
                let stream = connection.into_parts().io.into_inner().stream;
                // Best effort: the socket's buffer is empty unless the client is up to something.
                let _ = stream.try_write(REQUEST_TIMEOUT);
                linger(stream).await;
            }
        }
    }
}

/// Closes our side and takes what the client still sends, for a moment: a close with bytes unread would reset the
/// connection, and the client would lose the reply that was just written (RFC 9112 §9.6).
async fn linger(mut stream: TcpStream) {
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
    TooSlow(Waiting),
}

fn poll_connection<S>(
    connection: Pin<&mut Connection<TokioIo<ClientStream>, S>>,
    client: &Client,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Broken>>
where
    Connection<TokioIo<ClientStream>, S>: Future<Output = hyper::Result<()>>,
    S: HttpService<hyper::body::Incoming>,
{
    client.worker.clock.read();
    client.deadline.watch(cx.waker());
    if let Poll::Ready(done) = connection.poll(cx) {
        return Poll::Ready(done.map_err(Broken::Hyper));
    }
    // An exchange with a backend has just had its chance to turn its own timeout into a reply. What is still expired
    // is the client's: it does not send, or does not take what it is sent.
    if client.expired() { Poll::Ready(Err(Broken::TooSlow(client.deadline.waiting()))) } else { Poll::Pending }
}

/// The client's socket, watched.
struct ClientStream {
    stream: TcpStream,
    client: Rc<Client>,
}

impl AsyncRead for ClientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.client.bytes_came();
        }
        read
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if written.is_ready() {
            self.client.bytes_went();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        if written.is_ready() {
            self.client.bytes_went();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes the socket once its own buffer is empty, and only then.
        self.client.flushed();
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
