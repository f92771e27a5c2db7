//! hyper over bytes in memory: no socket, no runtime, the same result each time.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body::Body;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::service::service_fn;
use hyper::{Request, Response};

use super::{Message, Verdict};

/// Polls without anything happening after which nothing more will: hyper passes a message on within two.
const QUIET_ROUNDS: u32 = 8;

/// The other side's bytes, and what was written back.
pub(super) struct Wire {
    pieces: std::vec::IntoIter<Vec<u8>>,
    current: Vec<u8>,
    /// Whether it is closed behind the last piece, or just silent.
    closed: bool,
    written: Rc<RefCell<Vec<u8>>>,
    /// An answer comes behind its request: nothing is read before something was written.
    answers: bool,
    /// Whether anything moved since the last look.
    moved: Rc<RefCell<bool>>,
}

impl Wire {
    pub(super) fn new(pieces: &[&[u8]], closed: bool, answers: bool) -> (Self, Rc<RefCell<Vec<u8>>>) {
        let written = Rc::new(RefCell::new(Vec::new()));
        let pieces: Vec<Vec<u8>> = pieces.iter().filter(|p| !p.is_empty()).map(|piece| piece.to_vec()).collect();
        let (pieces, current) = (pieces.into_iter(), Vec::new());
        (Self { pieces, current, closed, written: Rc::clone(&written), answers, moved: Rc::default() }, written)
    }
}

impl Read for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.answers && this.written.borrow().is_empty() {
            return Poll::Pending;
        }
        if this.current.is_empty() {
            match this.pieces.next() {
                Some(piece) => this.current = piece,
                None if this.closed => return Poll::Ready(Ok(())),
                None => return Poll::Pending,
            }
        }
        *this.moved.borrow_mut() = true;
        cx.waker().wake_by_ref();
        let here = this.current.len().min(buf.remaining());
        buf.put_slice(&this.current[..here]);
        this.current.drain(..here);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written.borrow_mut().extend_from_slice(buf);
        *self.moved.borrow_mut() = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What hyper's client makes of `bytes` as the answer to a request with `method`.
pub(super) fn hyper_reads_response(bytes: &[u8], method: &Method, closed: bool) -> Verdict {
    let mut cx = Context::from_waker(Waker::noop());
    let (wire, _) = Wire::new(&[bytes], closed, true);
    let moved = Rc::clone(&wire.moved);
    let handshake = pin!(hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(wire));
    let Poll::Ready(Ok((mut sender, connection))) = handshake.poll(&mut cx) else { panic!("nothing to wait for") };
    let mut connection = pin!(connection);
    let request = Request::builder().method(method).uri("/").header("host", "a").body(Empty::new()).unwrap();
    let mut response = pin!(sender.send_request(request));
    let (mut head, mut incoming): (Option<(u16, HeaderMap)>, Option<Incoming>) = (None, None);
    let (mut body, mut trailers) = (Vec::new(), HeaderMap::new());
    let mut ended = false;
    let mut quiet = 0;
    while quiet < QUIET_ROUNDS {
        quiet += 1;
        if !ended {
            ended = connection.as_mut().poll(&mut cx).is_ready();
        }
        if head.is_none() {
            match response.as_mut().poll(&mut cx) {
                Poll::Pending => {}
                Poll::Ready(Err(_)) => return Verdict::Broken(None, "hyper"),
                Poll::Ready(Ok(response)) => {
                    let (parts, found) = response.into_parts();
                    head = Some((parts.status.as_u16(), parts.headers));
                    incoming = Some(found);
                }
            }
        }
        while let Some(reading) = &mut incoming {
            let polled = Pin::new(reading).poll_frame(&mut cx);
            if polled.is_ready() {
                quiet = 0;
            }
            match polled {
                Poll::Pending => break,
                Poll::Ready(Some(Err(_))) => return Verdict::Broken(head, "hyper"),
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => body.extend_from_slice(&data),
                    Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
                },
                Poll::Ready(None) => incoming = None,
            }
        }
        if std::mem::take(&mut *moved.borrow_mut()) {
            quiet = 0;
        }
    }
    match (head, incoming) {
        (Some((status, headers)), None) => {
            let keep_alive = !ended;
            Verdict::Whole(Message { status, headers, body, trailers, keep_alive }, 0)
        }
        _ => Verdict::Waiting,
    }
}

/// Runs hyper's server over `pieces`; `answer` gets each request. Returns what the server wrote.
pub(crate) fn hyper_serves<F, B>(pieces: &[&[u8]], answer: impl Fn(Request<Incoming>) -> F) -> Vec<u8>
where
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    let mut cx = Context::from_waker(Waker::noop());
    let (wire, written) = Wire::new(pieces, false, false);
    let moved = Rc::clone(&wire.moved);
    let service = service_fn(|request| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let mut connection = pin!(hyper::server::conn::http1::Builder::new().serve_connection(wire, service));
    let mut quiet = 0;
    while quiet < QUIET_ROUNDS {
        quiet += 1;
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
        if std::mem::take(&mut *moved.borrow_mut()) {
            quiet = 0;
        }
    }
    written.take()
}
