//! An exchange on a real socket whose other end is the test.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::LazyLock;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Message;
use super::memory::Wire;
use crate::upstream::{
    Exchange, ExchangeError, Forwarding, Framing, Outgoing, Progress, RequestBody, UpstreamConn, Via, connect,
    write_head,
};

static VIA: LazyLock<Via> = LazyLock::new(|| Via::new("1.1 lb".to_owned()));

/// What the head says besides the client's own fields.
pub(super) fn facts(framing: Framing) -> Forwarding<'static> {
    Forwarding {
        host: b"example.org",
        host_named: true,
        client: "192.0.2.7",
        trusted: false,
        request_id: b"42",
        via: &VIA,
        framing,
        expects_continue: false,
        upgrade: None,
        takes_trailers: false,
        max_forwards: None,
        time_left_ms: None,
    }
}

/// Runs `future` on a runtime of its own.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A backend that the test plays.
pub(super) struct Backend {
    listener: TcpListener,
}

impl Backend {
    pub(super) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// A connection of ours and its other end.
    pub(super) async fn pair(&self) -> (Box<UpstreamConn>, TcpStream) {
        let connection = connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (peer, _) = self.listener.accept().await.unwrap();
        peer.set_nodelay(true).unwrap();
        (connection, peer)
    }
}

/// Gives `handle` the request that `raw` is to hyper's server, as `proxy` gets it.
pub(super) async fn with_request<T>(raw: &[u8], handle: impl AsyncFnOnce(Request<Incoming>) -> T) -> T {
    let (wire, _) = Wire::new(&[raw], false, false);
    let (handle, result) = (RefCell::new(Some(handle)), RefCell::new(None));
    let service = service_fn(async |request| {
        let handle = handle.take().expect("one request");
        *result.borrow_mut() = Some(handle(request).await);
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    let mut connection = pin!(hyper::server::conn::http1::Builder::new().serve_connection(wire, service));
    poll_fn(|cx| {
        let polled = connection.as_mut().poll(cx);
        match result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                assert!(polled.is_pending(), "hyper ended before the request was handled: {polled:?}");
                Poll::Pending
            }
        }
    })
    .await
}

/// A request as we send it.
pub(super) async fn send(request: Request<Incoming>, connection: Box<UpstreamConn>) -> Exchange {
    let (head, body) = request.into_parts();
    let body = RequestBody::new(body, 65_536, &Rc::default());
    let framing = body.framing(head.headers.contains_key("content-length"));
    let mut connection = connection;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    write_head(&mut connection.unsent, head.method.as_str(), target, &head.headers, &facts(framing));
    Exchange::new(connection, Outgoing::new(body, &head.headers, framing, true, false))
}

/// Sends the request and returns what arrived at `peer`.
pub(super) async fn arrived(exchange: &mut Exchange, peer: &mut TcpStream) -> Vec<u8> {
    let mut through = false;
    let mut bytes = Vec::new();
    while !through {
        poll_fn(|cx| {
            let polled =
                exchange.poll_head(cx, &Method::GET, None, |progress| through |= progress == Progress::SentAll);
            assert!(polled.is_pending(), "nobody has answered: {polled:?}");
            Poll::Ready(())
        })
        .await;
        while bytes.len() < exchange.outgoing.written as usize {
            assert!(peer.read_buf(&mut bytes).await.unwrap() > 0);
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(bytes.len() as u64, exchange.outgoing.written);
    bytes
}

/// What came out of an exchange, and its connection if that may be used again.
pub(super) type Outcome = (Result<Message, ExchangeError>, Option<Box<UpstreamConn>>);

/// Answers with `pieces`, each written only when the one before has been read, and reads them through `exchange`.
pub(super) async fn answered(
    mut exchange: Exchange,
    peer: &mut TcpStream,
    method: &Method,
    pieces: &[&[u8]],
    close: bool,
) -> Outcome {
    let mut head = None;
    let mut body = BytesMut::new();
    let mut trailers = HeaderMap::new();
    let mut pieces = pieces.iter();
    let result = loop {
        // Pending means something only once the kernel has handed everything over.
        match step(&mut exchange, method, &mut head, &mut body, &mut trailers).await {
            Some(result) => break result,
            None if !exchange.connection.is_quiet_for_sure() => tokio::task::yield_now().await,
            None => match pieces.next() {
                Some(piece) => peer.write_all(piece).await.unwrap(),
                None if close => peer.shutdown().await.unwrap(),
                None => panic!("all was sent, and more is waited for"),
            },
        }
    };
    // What is left belongs to nobody; it must be there when the connection is judged.
    for piece in pieces {
        peer.write_all(piece).await.unwrap();
    }
    if let Err(error) = result {
        return (Err(error), None);
    }
    let (status, headers) = head.expect("a body comes behind a head");
    let connection = exchange.into_connection();
    let keep_alive = connection.is_some();
    let body = body.to_vec();
    (Ok(Message { status, headers, body, trailers, keep_alive }), connection)
}

/// Answers with `bytes`, which are no whole head, and resets the connection when they have been read.
pub(super) async fn answered_then_reset(mut exchange: Exchange, mut peer: TcpStream, bytes: &[u8]) -> ExchangeError {
    let (mut head, mut body, mut trailers) = (None, BytesMut::new(), HeaderMap::new());
    peer.write_all(bytes).await.unwrap();
    let mut peer = Some(peer);
    loop {
        match step(&mut exchange, &Method::GET, &mut head, &mut body, &mut trailers).await {
            Some(result) => return result.expect_err("a connection that was reset"),
            None => tokio::task::yield_now().await,
        }
        if exchange.connection.is_quiet_for_sure()
            && let Some(peer) = peer.take()
        {
            socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        }
    }
}

/// One look; `Some` at the end.
async fn step(
    exchange: &mut Exchange,
    method: &Method,
    head: &mut Option<(u16, HeaderMap)>,
    body: &mut BytesMut,
    trailers: &mut HeaderMap,
) -> Option<Result<(), ExchangeError>> {
    poll_fn(|cx| {
        if head.is_none() {
            match exchange.poll_head(cx, method, None, |_| {}) {
                Poll::Pending => return Poll::Ready(None),
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Ok(answer)) => *head = Some((answer.status.as_u16(), answer.headers)),
            }
        }
        loop {
            match exchange.poll_body(cx, |_| {}) {
                Poll::Pending => return Poll::Ready(None),
                Poll::Ready(None) => return Poll::Ready(Some(Ok(()))),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => *trailers = frame.into_trailers().unwrap_or_default(),
                },
            }
        }
    })
    .await
}
