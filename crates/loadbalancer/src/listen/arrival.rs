//! From an accepted socket to a connection that is served: who is at the other end, and may it come in?

use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use lb_core::metrics::{LocalReply, Rejected};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Open;
use super::per_client::Counted;
use crate::access;
use crate::conn;
use crate::deadline::Waiting;
use crate::proxy_protocol::{Ends, MOST_BYTES, Parsed, parse};
use crate::worker::Worker;

/// What a connection holds for as long as it lives.
pub(crate) struct Seat {
    _open: Open,
    /// Few have it, and there may be many connections.
    _counted: Option<Box<Counted>>,
}

/// The other end of a client connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    /// Of the socket: it cannot be made up.
    pub socket: SocketAddr,
    /// Who the connection is for: the socket's, unless a PROXY header named another.
    pub client: SocketAddr,
    /// Where that client connected to. Known if a PROXY header named it, or backends are to be told.
    pub destination: Option<SocketAddr>,
}

impl Peer {
    /// Both ends of the client's connection, if both are known.
    pub(crate) fn ends(&self) -> Option<Ends> {
        self.destination.map(|destination| Ends { source: self.client, destination })
    }
}

/// How long bytes of a client that was turned away are still taken: enough for a reply to reach it, and little enough
/// that turning away costs less than serving.
const TURNED_AWAY_LINGER: Duration = Duration::from_secs(1);

/// The reply to a connection too many. Nothing was read, so nothing more can be said.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 1\r\n\
    content-type: text/plain\r\ncontent-length: 70\r\n\r\n\
    too many connections from your address; close one, or try again later\n";

/// The reply while memory is nearly used up.
const OVERLOADED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 2\r\n\
    content-type: text/plain\r\ncontent-length: 56\r\n\r\n\
    the load balancer has too much to do; try again shortly\n";

/// Connections of one worker, refused for whatever reason, that wait for their reply to arrive. Beyond, a reply may be lost
/// to a reset: what is left of memory and places is worth more than the words to who gets neither.
const MOST_TURNED_AWAY: u32 = 64;

/// One of [`MOST_TURNED_AWAY`]; free again when dropped.
struct Lingering(Rc<Worker>);

impl Lingering {
    fn enter(worker: &Rc<Worker>) -> Option<Self> {
        let lingering = worker.turned_away.get();
        (lingering < MOST_TURNED_AWAY).then(|| {
            worker.turned_away.set(lingering + 1);
            Self(Rc::clone(worker))
        })
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.0.turned_away.set(self.0.turned_away.get() - 1);
    }
}

/// Answers a connection that there is no memory for.
pub(super) fn refuse(worker: &Rc<Worker>, stream: std::net::TcpStream, socket: SocketAddr, open: Open) {
    let reason = LocalReply::Overloaded;
    worker.count_local(reason);
    access::rejected(worker, &Peer { socket, client: socket, destination: None }, reason.status(), reason.as_str());
    let Some(lingering) = Lingering::enter(worker) else { return say_at_once(&stream, OVERLOADED) };
    tokio::task::spawn_local(async move {
        let _held = (open, lingering);
        turn_away(stream, OVERLOADED).await;
    });
}

/// Takes a connection in, and serves it to its end.
pub(super) async fn receive(worker: Rc<Worker>, stream: std::net::TcpStream, socket: SocketAddr, open: Open) {
    let address = socket.ip().to_canonical();
    if worker.shared.config.proxy_protocol_from.iter().any(|network| network.contains(&address)) {
        return Box::pin(receive_announced(worker, stream, socket, open)).await;
    }
    match take_in(&worker, &stream, Peer { socket, client: socket, destination: None }, open) {
        Ok((peer, seat)) => conn::serve(worker, stream, peer, seat).await,
        Err(open) => Box::pin(refuse_one_too_many(worker, stream, open)).await,
    }
}

/// The same, for a peer that says first whom it speaks for.
async fn receive_announced(worker: Rc<Worker>, stream: std::net::TcpStream, socket: SocketAddr, open: Open) {
    let mut peer = Peer { socket, client: socket, destination: None };
    let Ok(mut watched) = TcpStream::from_std(stream) else { return };
    match read_header(&worker, &mut watched).await {
        Ok(Some(Ends { source, destination })) => (peer.client, peer.destination) = (source, Some(destination)),
        Ok(None) => {}
        Err(why) => {
            turned_away(&worker, &peer, Rejected::ProxyHeader);
            return tracing::debug!(peer = %socket, "connection closed, no PROXY header: {why}");
        }
    }
    let Ok(stream) = watched.into_std() else { return };
    match take_in(&worker, &stream, peer, open) {
        Ok((peer, seat)) => conn::serve(worker, stream, peer, seat).await,
        Err(open) => refuse_one_too_many(worker, stream, open).await,
    }
}

/// A place for a client's connection; or what was given for one, counted and logged, if the client has as many as it may.
fn take_in(worker: &Worker, stream: &std::net::TcpStream, mut peer: Peer, open: Open) -> Result<(Peer, Seat), Open> {
    let config = &worker.shared.config;
    if config.upstream.proxy_protocol.is_some() && peer.destination.is_none() {
        peer.destination = stream.local_addr().ok();
    }
    let client = peer.client.ip().to_canonical();
    let limit = worker.shared.admission.per_client.as_ref();
    // A trusted proxy's connections are those of many clients.
    let limit = limit.filter(|_| !config.trusted_proxies.iter().any(|network| network.contains(&client)));
    match limit.map(|limit| limit.enter(client)) {
        Some(None) => {
            turned_away(worker, &peer, Rejected::ClientConnections);
            Err(open)
        }
        counted => Ok((peer, Seat { _open: open, _counted: counted.flatten().map(Box::new) })),
    }
}

/// It keeps its place among all connections for as long as it lingers.
async fn refuse_one_too_many(worker: Rc<Worker>, stream: std::net::TcpStream, _open: Open) {
    let Some(_lingering) = Lingering::enter(&worker) else { return say_at_once(&stream, TOO_MANY) };
    turn_away(stream, TOO_MANY).await;
}

/// Counts and logs a connection that is not served.
fn turned_away(worker: &Worker, peer: &Peer, reason: Rejected) {
    worker.count_rejected(reason);
    access::rejected(worker, peer, reason.status(), reason.as_str());
}

/// Reads a PROXY header and not a byte more, within the time of a request head.
///
/// Bytes are looked at where they lie in the kernel's buffer, and then taken up to where the header is known to reach.
async fn read_header(worker: &Worker, stream: &mut TcpStream) -> Result<Option<Ends>, String> {
    // Like a first request without a byte of it: a shutdown does not wait for it.
    let until = worker.clock.read().plus(worker.shared.config.timeouts.client_head);
    let deadline = worker.sweep.enter(Waiting::FirstRequest, until);
    let mut read = pin!(take_header(stream));
    poll_fn(|cx| {
        deadline.watch(cx.waker());
        match read.as_mut().poll(cx) {
            Poll::Pending if deadline.expired() => Poll::Ready(Err("it did not come in time".to_owned())),
            read => read,
        }
    })
    .await
}

async fn take_header(stream: &mut TcpStream) -> Result<Option<Ends>, String> {
    let mut bytes = [0; MOST_BYTES];
    let mut taken = 0;
    let broken = |error: io::Error| error.to_string();
    loop {
        // Never empty: with so many bytes taken, the header was whole or wrong.
        let seen = taken + stream.peek(&mut bytes[taken..]).await.map_err(broken)?;
        if seen == taken {
            return Err("closed before its end".to_owned());
        }
        let (upto, whole) = match parse(&bytes[..seen]) {
            Parsed::Partial => (seen, None),
            Parsed::Whole { length, ends } => (length, Some(ends)),
            Parsed::Wrong(why) => return Err(why.to_owned()),
        };
        stream.read_exact(&mut bytes[taken..upto]).await.map_err(broken)?;
        taken = upto;
        if let Some(ends) = whole {
            return Ok(ends);
        }
    }
}

/// Says why, as far as that goes without waiting: the reply is lost if bytes of the client are on their way.
fn say_at_once(mut stream: &std::net::TcpStream, reply: &[u8]) {
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write(reply);
}

/// Says why, and takes for a moment what the client still sends: a close with bytes unread would reset the connection
/// and lose the reply (RFC 9112 §9.6).
async fn turn_away(stream: std::net::TcpStream, reply: &[u8]) {
    let Ok(mut stream) = TcpStream::from_std(stream) else { return };
    let discard = async {
        let mut scratch = vec![0; 4096];
        // Not only tried: of a new socket the runtime may not have heard yet that it can be written to.
        let _ = stream.write_all(reply).await;
        let _ = stream.shutdown().await;
        while matches!(stream.read(&mut scratch).await, Ok(1..)) {}
    };
    let _ = tokio::time::timeout(TURNED_AWAY_LINGER, discard).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_is_as_long_as_it_says() {
        for reply in [TOO_MANY, OVERLOADED] {
            let reply = std::str::from_utf8(reply).unwrap();
            let (head, body) = reply.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        }
    }
}
