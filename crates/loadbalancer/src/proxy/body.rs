//! The response body on its way to the client: the backend's, streamed with backpressure (it is read only when the
//! client's side asks for more), or a text of ours.
//!
//! At its end the backend connection goes back to the cache and the record is closed. If it breaks, it ends in an
//! error, and hyper cuts the client's connection so that what was sent cannot look complete. Hyper throws away what it has not
//! written yet then, so an error waits until what came before it is out: a client that has got nothing of
//! an answer may take the connection for a stale one, and send a POST again. A backend is blamed for what it
//! did not send, not for what its client did not: an upload that stands still behind an early response head is the client's.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use lb_core::metrics::FailureKind;

use super::record::Record;
use crate::conn::Client;
use crate::deadline::Waiting;
use crate::upstream::{Exchange, ExchangeError, Progress};

/// A response body.
pub(crate) enum ProxyBody {
    Upstream(Streaming),
    Text(Bytes),
    /// It has broken, and what came before that is on its way.
    Broken(Option<ExchangeError>, Unwritten),
    Done,
}

/// A backend's response body, and all that lives until its end.
pub(crate) struct Streaming {
    exchange: Exchange,
    record: Record,
    /// Of what hyper was given last.
    flushes: u32,
}

/// What hyper has been given and may not have written yet.
pub(crate) struct Unwritten {
    client: Rc<Client>,
    /// How often it had written everything when it was given.
    flushes: u32,
}

impl ProxyBody {
    /// The body of a response whose head has been read.
    pub(super) fn streaming(exchange: Exchange, record: Record, headers: &HeaderMap) -> Self {
        let client = record.client();
        client.wait_for(Waiting::ResponseBody, client.worker.shared.config.timeouts.body_stall);
        let flushes = client.flushes();
        let mut streaming = Streaming { exchange, record, flushes };
        streaming.count_request();
        if streaming.exchange.is_through() {
            streaming.finish();
            return Self::Done;
        }
        if streaming.exchange.left().is_none() && is_event_stream(headers) {
            streaming.record.client().deadline.is_event_stream();
        }
        Self::Upstream(streaming)
    }

    pub(super) fn text(text: String) -> Self {
        Self::Text(text.into())
    }
}

/// A body of unknown length whose type says that it may go on for ever (HTML, server-sent events).
fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

impl Streaming {
    fn count_request(&mut self) {
        self.record.sent_to_backend(self.exchange.outgoing.body_bytes);
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if self.record.client().overdue().is_some() {
            // However fast it comes.
            self.record.overdue();
            return Poll::Ready(Some(Err(ExchangeError::Overdue)));
        }
        let (exchange, client) = (&mut self.exchange, self.record.client());
        if client.deadline.is_cut() {
            self.record.cut();
            return Poll::Ready(Some(Err(ExchangeError::Drained)));
        }
        let stall = client.worker.shared.config.timeouts.body_stall;
        let frame = exchange.poll_body(cx, |progress| {
            if progress != Progress::SentAll {
                client.wait_for(Waiting::ResponseBody, stall);
            }
        });
        let expired = client.expired();
        self.count_request();
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.record.sent_to_client(data.len() as u64);
                }
            }
            Poll::Ready(Some(Err(error))) => {
                // Without a failure of the backend's it stays unsettled, and is counted as cut by the client.
                if let Some(kind) = error.failure() {
                    self.record.failed(kind);
                }
            }
            Poll::Pending if expired => {
                if let ExchangeError::ClientStalled = self.exchange.stalled() {
                    // It answered early, and waits for the rest of the request as we do: the client's business, as above.
                    return Poll::Ready(Some(Err(ExchangeError::ClientStalled)));
                }
                self.record.failed(FailureKind::Body);
                let error = std::io::Error::new(std::io::ErrorKind::TimedOut, "the response body stood still");
                return Poll::Ready(Some(Err(ExchangeError::Body(error))));
            }
            Poll::Ready(None) | Poll::Pending => {}
        }
        frame
    }

    /// Everything is through: the connection may serve another request.
    fn finish(mut self) {
        self.record.complete();
        if let Some(connection) = self.exchange.into_connection() {
            let (worker, backend) = (&self.record.client().worker, self.record.backend());
            backend.keep(connection, worker.clock.now(), worker.shared.config.upstream.max_idle);
        }
    }
}

impl Body for ProxyBody {
    type Data = Bytes;
    type Error = ExchangeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        match &mut *self {
            Self::Done => Poll::Ready(None),
            // Hyper asks again when it has written what it holds. The time that a client has to take it runs.
            Self::Broken(_, unwritten) if unwritten.flushes == unwritten.client.flushes() => Poll::Pending,
            Self::Broken(error, _) => {
                let error = error.take();
                *self = Self::Done;
                Poll::Ready(error.map(Err))
            }
            Self::Text(text) => {
                let text = std::mem::take(text);
                *self = Self::Done;
                Poll::Ready(Some(Ok(Frame::data(text))))
            }
            Self::Upstream(streaming) => {
                let frame = std::task::ready!(streaming.poll_frame(cx));
                let through = match &frame {
                    None => true,
                    Some(Ok(_)) => streaming.exchange.is_through(),
                    Some(Err(_)) => {
                        let client = Rc::clone(streaming.record.client());
                        let unwritten = Unwritten { client, flushes: streaming.flushes };
                        *self = Self::Broken(frame.and_then(Result::err), unwritten);
                        return self.poll_frame(cx);
                    }
                };
                streaming.flushes = streaming.record.client().flushes();
                // The last piece ends it here and now: hyper need not ask again, and the connection is free at once.
                if through && let Self::Upstream(streaming) = std::mem::replace(&mut *self, Self::Done) {
                    streaming.finish();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Done => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.len() as u64),
            Self::Broken(..) => SizeHint::default(),
            Self::Upstream(streaming) => streaming.exchange.left().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
