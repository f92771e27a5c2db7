//! Request bodies: read, thrown away or sent back, never waited for without a bound.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::header::{CONNECTION, HeaderValue};
use tracing::debug;

use crate::conn::Cut;
use crate::conn::phase::Phases;
use crate::reply::{self, Reply};

/// A client that announced a body and sends nothing of it for this long gets 408. As the load balancer's own body
/// stall.
const STALL: Duration = Duration::from_secs(60);

pub(crate) struct Upload {
    incoming: Incoming,
    phases: Arc<Phases>,
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

impl Upload {
    pub(crate) fn new(incoming: Incoming, phases: &Arc<Phases>) -> Self {
        if !incoming.is_end_stream() {
            phases.upload_began();
        }
        Self { incoming, phases: Arc::clone(phases) }
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
        // The common request has no body: no timer for it.
        if self.incoming.is_end_stream() {
            self.phases.upload_ended();
            return Ok(None);
        }
        let frame = std::future::poll_fn(|cx| Pin::new(&mut self.incoming).poll_frame(cx));
        match tokio::time::timeout(STALL, frame).await {
            Err(_) => Err(UploadError::Stalled),
            Ok(None) => {
                self.phases.upload_ended();
                Ok(None)
            }
            // Trailers are no part of the content.
            Ok(Some(Ok(frame))) => Ok(Some(frame.into_data().unwrap_or_default())),
            Ok(Some(Err(error))) => Err(UploadError::Broken(error)),
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
impl HttpBody for Upload {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match ready!(Pin::new(&mut self.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => {
                debug!(%error, "the request body that is being echoed broke off");
                // The head is out: a cut is the only honest end.
                Poll::Ready(Some(Err(Cut::Close)))
            }
            None => {
                self.phases.upload_ended();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
