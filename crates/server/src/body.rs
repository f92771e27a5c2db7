//! Answer bodies. Carries the [`Exchange`] so that a request is in flight until its last byte is handed over.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::conn::Cut;
use crate::exchange::Exchange;

/// Between the first part of a torn body and its reset: a reset throws away what is not sent yet, and a client
/// that is to see a part needs the time to read it.
const TEAR_PAUSE: Duration = Duration::from_millis(50);

pub(crate) struct Body {
    content: Content,
    exchange: Option<Exchange>,
}

enum Content {
    Empty,
    Once(Bytes),
    Stream(Stream),
    Torn(Torn),
}

pub(crate) type Stream = Pin<Box<dyn HttpBody<Data = Bytes, Error = Cut> + Send>>;

impl Body {
    pub(crate) fn once(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let content = if bytes.is_empty() { Content::Empty } else { Content::Once(bytes) };
        Self { content, exchange: None }
    }

    pub(crate) fn stream(stream: impl HttpBody<Data = Bytes, Error = Cut> + Send + 'static) -> Self {
        Self { content: Content::Stream(Box::pin(stream)), exchange: None }
    }

    /// Half of the first piece, then a reset.
    pub(crate) fn torn(self) -> Self {
        Self { content: Content::Torn(Torn { whole: Box::new(self), pause: None }), exchange: None }
    }

    pub(crate) fn carry(&mut self, exchange: Exchange) {
        self.exchange = Some(exchange);
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match &mut self.content {
            Content::Empty => Poll::Ready(None),
            Content::Once(bytes) => {
                let frame = Frame::data(std::mem::take(bytes));
                self.content = Content::Empty;
                Poll::Ready(Some(Ok(frame)))
            }
            Content::Stream(stream) => stream.as_mut().poll_frame(cx),
            Content::Torn(torn) => torn.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Once(_) | Content::Torn(_) => false,
            Content::Stream(stream) => stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Once(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(stream) => stream.size_hint(),
            // The whole length is announced: that is what makes the tear visible.
            Content::Torn(torn) => torn.whole.size_hint(),
        }
    }
}

struct Torn {
    whole: Box<Body>,
    /// Set once the first part is out.
    pause: Option<Pin<Box<Sleep>>>,
}

impl Torn {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if let Some(pause) = &mut self.pause {
            // Being pending here is also what makes hyper flush the first part.
            ready!(pause.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Cut::Reset)));
        }
        let first = ready!(Pin::new(&mut *self.whole).poll_frame(cx));
        self.pause = Some(Box::pin(sleep(TEAR_PAUSE)));
        match first {
            Some(Ok(frame)) => {
                let mut bytes = frame.into_data().unwrap_or_default();
                // Rounded down: an answer of one byte would otherwise be complete.
                bytes.truncate(bytes.len() / 2);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            // Nothing there to tear: the reset alone, after the head had its time to leave.
            Some(Err(_)) | None => self.poll_frame(cx),
        }
    }
}
