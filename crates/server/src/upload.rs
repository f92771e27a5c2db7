//! Request bodies: read, thrown away or sent back, never waited for without a bound.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use tokio::time::{Sleep, sleep};

use crate::conn::Cut;
use crate::conn::phase::Phases;
use crate::reply::{self, Reply};

/// A client that announced a body and sends nothing of it for this long gets 408. As the load balancer's own body
/// stall.
const STALL: Duration = Duration::from_secs(60);

/// Generic only for its tests: hyper's body cannot be made by hand.
pub(crate) struct Upload<B = Incoming> {
    incoming: B,
    phases: Arc<Phases>,
    /// Armed while we wait for the client; a body that is all there needs no timer.
    stall: Option<Pin<Box<Sleep>>>,
}

/// Why a request body was not read to its end.
pub(crate) enum UploadError {
    TooLarge {
        limit: usize,
    },
    Stalled,
    /// Broken framing, or the client left.
    Broken(hyper::Error),
}

impl<B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin> Upload<B> {
    pub(crate) fn new(incoming: B, phases: &Arc<Phases>) -> Self {
        if !incoming.is_end_stream() {
            phases.upload_began();
        }
        Self { incoming, phases: Arc::clone(phases), stall: None }
    }

    /// Reads it to its end and forgets it, so that the connection can be used again.
    ///
    /// # Errors
    /// Never [`UploadError::TooLarge`].
    pub(crate) async fn discard(mut self) -> Result<(), UploadError> {
        while self.next().await?.is_some() {}
        Ok(())
    }

    /// The whole body.
    ///
    /// # Errors
    /// As soon as it is clear that it is longer than `limit`; the rest is left unread.
    pub(crate) async fn collect(mut self, limit: usize) -> Result<Bytes, UploadError> {
        if self.incoming.size_hint().lower() > limit as u64 {
            return Err(UploadError::TooLarge { limit });
        }
        let mut collected = BytesMut::new();
        while let Some(bytes) = self.next().await? {
            if collected.len() + bytes.len() > limit {
                return Err(UploadError::TooLarge { limit });
            }
            collected.extend_from_slice(&bytes);
        }
        Ok(collected.freeze())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, UploadError> {
        // Trailers are no part of the content.
        let frame = std::future::poll_fn(|cx| self.poll_next(cx)).await.transpose()?;
        Ok(frame.map(|frame| frame.into_data().unwrap_or_default()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Pending => {
                let stall = self.stall.get_or_insert_with(|| Box::pin(sleep(STALL)));
                stall.as_mut().poll(cx).map(|()| Some(Err(UploadError::Stalled)))
            }
            Poll::Ready(frame) => {
                self.stall = None;
                // Whoever reads it may stop at the last frame, without asking for the end.
                if self.incoming.is_end_stream() || frame.is_none() {
                    self.phases.upload_ended();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(UploadError::Broken)))
            }
        }
    }
}

impl UploadError {
    /// The answer; the connection ends with it, because the rest of the body is still on it.
    pub(crate) fn into_reply(self) -> Reply {
        let mut reply = match self {
            Self::TooLarge { limit } => reply::text(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the request body is longer than {limit} bytes; /echo/body takes any length\n"),
            ),
            Self::Stalled => reply::text(
                StatusCode::REQUEST_TIMEOUT,
                format!("nothing of the request body came for {} s\n", STALL.as_secs()),
            ),
            Self::Broken(error) => {
                reply::text(StatusCode::BAD_REQUEST, format!("the request body cannot be read: {error}\n"))
            }
        };
        reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        reply
    }
}

/// As an answer's body: what comes in goes out, at the pace of the slower side.
impl<B: HttpBody<Data = Bytes, Error = hyper::Error> + Unpin> HttpBody for Upload<B> {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = ready!(self.poll_next(cx));
        // The head is out: a cut is the only honest end.
        Poll::Ready(frame.map(|frame| frame.map_err(|_| Cut::Close)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// Pieces of one byte, each after a pause, then silence.
    struct Slow {
        pieces: usize,
        pause: Duration,
        waiting: Pin<Box<Sleep>>,
    }

    impl Slow {
        fn new(pieces: usize, pause: Duration) -> Self {
            Self { pieces, pause, waiting: Box::pin(sleep(pause)) }
        }
    }

    impl HttpBody for Slow {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            if self.pieces == 0 {
                return Poll::Pending;
            }
            ready!(self.waiting.as_mut().poll(cx));
            self.pieces -= 1;
            let pause = self.pause;
            self.waiting = Box::pin(sleep(pause));
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_is_read_and_a_silent_one_given_up() {
        let began = Instant::now();
        let phases = Arc::new(Phases::new(began));
        let slow = Upload::new(Slow::new(5, Duration::from_secs(50)), &phases);
        assert!(matches!(slow.discard().await, Err(UploadError::Stalled)));
        assert_eq!(began.elapsed(), Duration::from_secs(5 * 50) + STALL);
        assert!(phases.is_upload_open(), "the rest may still come: the connection cannot be used again");

        let mut echo = Upload::new(Slow::new(0, STALL), &phases);
        let end = std::future::poll_fn(|cx| Pin::new(&mut echo).poll_frame(cx)).await;
        assert!(matches!(end, Some(Err(Cut::Close))), "what is echoed is cut");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_over_the_limit_is_not_read_on() {
        let phases = Arc::new(Phases::new(Instant::now()));
        let endless = Upload::new(Slow::new(usize::MAX, Duration::ZERO), &phases);
        assert!(matches!(endless.collect(10).await, Err(UploadError::TooLarge { limit: 10 })));
    }
}
