//! Answers that take time: `/delay/{ms}`, `/stream/{n}` and `/sse`.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame};
use hyper::header::{CACHE_CONTROL, HeaderValue};
use tokio::time::{Sleep, sleep};

use super::{Query, number};
use crate::app::App;
use crate::body::Body;
use crate::conn::Cut;
use crate::reply::{self, Reply};

/// Twice the response head timeout of the load balancer, so that both sides of it can be tried.
const DELAY_MAX_MS: u64 = 60_000;
const PIECES_MAX: u64 = 10_000;
const PAUSE_MAX_MS: u64 = 10_000;
const STREAM_PAUSE_MS: u64 = 100;
const SSE_PAUSE_MS: u64 = 1_000;

pub(super) async fn delay(app: &App, ms: Option<&str>) -> Result<Reply, String> {
    let ms = number("/delay/{ms}: ms", ms.unwrap_or_default(), 0..=DELAY_MAX_MS)?;
    sleep(Duration::from_millis(ms)).await;
    Ok(reply::text(StatusCode::OK, format!("{} waited {ms} ms\n", app.name())))
}

pub(super) fn stream(app: &App, n: Option<&str>, query: Query<'_>) -> Result<Reply, String> {
    let n = number("/stream/{n}: n", n.unwrap_or_default(), 0..=PIECES_MAX)?;
    let pause = pause(query, STREAM_PAUSE_MS)?;
    let name = app.name().to_owned();
    let chunks = Paced::new(n, pause, move |i| format!("{name} chunk {i} of {n}\n"));
    Ok(reply::with_body(StatusCode::OK, reply::TEXT, Body::stream(chunks)))
}

pub(super) fn events(query: Query<'_>) -> Result<Reply, String> {
    const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
    let n = bounded(query, "n", PIECES_MAX, PIECES_MAX)?;
    let pause = pause(query, SSE_PAUSE_MS)?;
    let events = Paced::new(n, pause, |i| format!("id: {i}\nevent: tick\ndata: {i}\n\n"));
    let mut reply = reply::with_body(StatusCode::OK, EVENTS, Body::stream(events));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(reply)
}

fn pause(query: Query<'_>, default_ms: u64) -> Result<Duration, String> {
    bounded(query, "pause_ms", default_ms, PAUSE_MAX_MS).map(Duration::from_millis)
}

fn bounded(query: Query<'_>, key: &str, default: u64, most: u64) -> Result<u64, String> {
    query.value(key).map_or(Ok(default), |text| number(key, text, 0..=most))
}

/// Pieces 1 to `count`, a pause before each but the first.
struct Paced<F> {
    next: u64,
    count: u64,
    pause: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    piece: F,
}

impl<F: Fn(u64) -> String> Paced<F> {
    fn new(count: u64, pause: Duration, piece: F) -> Self {
        Self { next: 1, count, pause, waiting: None, piece }
    }
}

impl<F: Fn(u64) -> String + Unpin> HttpBody for Paced<F> {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        let piece = (self.piece)(self.next);
        self.next += 1;
        if !self.pause.is_zero() {
            self.waiting = Some(Box::pin(sleep(self.pause)));
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.next > self.count
    }
}
