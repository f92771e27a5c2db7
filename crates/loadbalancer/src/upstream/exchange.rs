//! One request and its response on one connection.
//!
//! An exchange owns its connection. It goes back to the cache only through [`Exchange::into_connection`], which gives
//! it out only when request and response are completely through and nothing is left in its buffer; dropped anywhere
//! else, it is closed. So a future that is dropped at any `.await` cannot leave half an exchange behind.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body::Frame;

use super::head::{BodyFraming, Parsed, ResponseHead, parse};
use super::send::cut_short;
use super::{ExchangeError, Outgoing, RequestBody, UpstreamConn};

/// Interim responses taken before the final one; more is a flood.
const MOST_INTERIM: u32 = 8;

/// A request under way on a connection.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(super) connection: Box<UpstreamConn>,
    pub outgoing: Outgoing,
    sending: Sending,
    framing: BodyFraming,
    keep_alive: bool,
    /// The response had no body by its kind.
    bodiless: bool,
    interim: u32,
}

/// A response head, and what it tells beside the response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The backend speaks HTTP/1.0.
    pub old: bool,
    /// After how long idle it will close the connection, if it says so.
    pub idle: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    UnderWay,
    Through,
    /// The backend does not take the rest. It may have answered early, so reading goes on. `ended` is whether it had ended its
    /// own side before.
    Broken {
        ended: bool,
    },
}

/// What the exchange is waiting for, and that it got on; for deadlines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// A piece of the request was sent.
    Sent,
    /// All of the request was sent.
    SentAll,
    /// The backend has asked for the request's body, which was held back until then.
    Asked,
    /// A piece of the response body came.
    Received,
}

impl Exchange {
    /// An exchange whose request head stands in the connection's `unsent`.
    pub(crate) fn new(connection: Box<UpstreamConn>, outgoing: Outgoing) -> Self {
        let (sending, framing) = (Sending::UnderWay, BodyFraming::None);
        Self { connection, outgoing, sending, framing, keep_alive: false, bodiless: false, interim: 0 }
    }

    /// Whose fault it is that nothing moves any more: while the request is being sent and the kernel has taken all
    /// that came from the client, the client's; else the backend's.
    pub(crate) fn stalled(&self) -> ExchangeError {
        if self.sending == Sending::UnderWay && self.outgoing.is_waiting_for_client(&self.connection) {
            ExchangeError::ClientStalled
        } else {
            ExchangeError::HeadTimeout
        }
    }

    /// Whether the body waits for the backend to ask for it.
    pub(crate) fn holds_body(&self) -> bool {
        self.outgoing.held
    }

    /// The body goes out without having been asked for.
    pub(crate) fn release_body(&mut self) {
        self.outgoing.held = false;
    }

    /// Whether the whole request is out.
    pub(crate) fn is_sent(&self) -> bool {
        self.sending == Sending::Through
    }

    /// No other request goes over its connection. Behind an offer to switch that was not taken up, some servers (Node 20)
    /// never answer again.
    pub(crate) fn forget_connection(&mut self) {
        self.keep_alive = false;
    }

    /// The connection after a 101, with what came behind it.
    pub(crate) fn into_tunnel(self) -> Box<UpstreamConn> {
        self.connection
    }

    /// For how long the connection had been idle when it was last seen open, before it was used for this.
    pub(crate) fn last_open(&self) -> Duration {
        self.connection.last_open
    }

    /// Whether the connection had carried an exchange before.
    pub(crate) fn reused(&self) -> bool {
        self.connection.reused
    }

    /// Sends the request and reads the response head, at the same time: a backend may answer before it has read all. What
    /// is kept of the request's body stays so until the caller forgets it.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: &Method,
        offered: Option<&str>,
        mut progress: impl FnMut(Progress),
    ) -> Poll<Result<Answer, ExchangeError>> {
        let mut broken = self.poll_sending(cx, &mut progress)?;
        loop {
            if !self.connection.received.is_empty() {
                match parse(&mut self.connection.received, method, offered).map_err(ExchangeError::Bad)? {
                    Parsed::Partial => {}
                    Parsed::Interim(status) => {
                        self.interim += 1;
                        if self.interim > MOST_INTERIM {
                            return Poll::Ready(Err(ExchangeError::Bad("too many interim responses")));
                        }
                        // RFC 9110 §10.1.1: the backend asks for the body. Polling it makes hyper ask the client.
                        if status == StatusCode::CONTINUE && std::mem::take(&mut self.outgoing.held) {
                            progress(Progress::Asked);
                            broken = self.poll_sending(cx, &mut progress)?;
                        }
                        continue;
                    }
                    Parsed::Switched(_) if self.sending != Sending::Through => {
                        return Poll::Ready(Err(ExchangeError::Bad("101 before it had the request")));
                    }
                    Parsed::Switched(head) | Parsed::Final(head) => {
                        self.keep_alive = head.keep_alive;
                        self.bodiless = matches!(head.framing, BodyFraming::None);
                        self.framing = head.framing;
                        let ResponseHead { status, headers, old, idle, .. } = head;
                        return Poll::Ready(Ok(Answer { status, headers, old, idle }));
                    }
                }
            }
            let begun = self.has_begun();
            match self.connection.poll_receive(cx, 0) {
                Poll::Pending => return Poll::Pending,
                // Part of an answer has come, so the request was worked on: this is no close that crossed it.
                Poll::Ready(Ok(0)) if begun => return Poll::Ready(Err(ExchangeError::HeadCut(cut_short()))),
                Poll::Ready(Err(error)) if begun => return Poll::Ready(Err(ExchangeError::HeadCut(error))),
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(Err(ExchangeError::Closed(broken.unwrap_or_else(cut_short))));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(ExchangeError::Closed(error))),
            }
        }
    }

    /// The next piece of the response body; the rest of the request is sent along the way.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        mut progress: impl FnMut(Progress),
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        if let Err(error) = self.poll_sending(cx, &mut progress) {
            // The client broke off its own request. Its response is cut too.
            return Poll::Ready(Some(Err(error)));
        }
        let to_the_close = matches!(self.framing, BodyFraming::Close);
        let frame = self.framing.poll_frame(cx, &mut self.connection);
        match &frame {
            Poll::Ready(Some(Ok(_))) => progress(Progress::Received),
            // RFC 9112 §8: complete unless the connection broke; and that it did, our write was told, once, and the read was not.
            Poll::Ready(None) if to_the_close && self.sending == (Sending::Broken { ended: false }) => {
                let reset = std::io::Error::new(std::io::ErrorKind::ConnectionReset, "reset within the response body");
                return Poll::Ready(Some(Err(ExchangeError::Body(reset))));
            }
            _ => {}
        }
        frame
    }

    /// Whether the response body is complete.
    pub(crate) fn is_through(&self) -> bool {
        self.framing.is_through()
    }

    /// How many bytes of the response body are still to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.framing {
            BodyFraming::None => Some(0),
            BodyFraming::Length(left) => Some(left),
            BodyFraming::Chunked(_) | BodyFraming::Close => None,
        }
    }

    /// Whether a byte of the response has come.
    pub(crate) fn has_begun(&self) -> bool {
        self.interim > 0 || !self.connection.received.is_empty()
    }

    /// The request's body, and the connection as of [`Self::into_connection`].
    pub(crate) fn into_parts(mut self) -> (RequestBody, Option<Box<UpstreamConn>>) {
        let clean = self.is_clean();
        self.connection.doubtful = self.bodiless;
        (self.outgoing.into_body(), clean.then_some(self.connection))
    }

    /// The connection, if another exchange may follow on it: both sides through, kept alive, nothing left over
    /// (RFC 9112 §9.3; stray bytes would be taken for the next response).
    pub(crate) fn into_connection(mut self) -> Option<Box<UpstreamConn>> {
        self.connection.doubtful = self.bodiless;
        self.is_clean().then_some(self.connection)
    }

    fn is_clean(&self) -> bool {
        self.keep_alive && self.is_through() && self.sending == Sending::Through && self.connection.received.is_empty()
    }

    /// Sends on. An error is the client's; the backend's is returned as `Ok(Some)`, once.
    fn poll_sending(
        &mut self,
        cx: &mut Context<'_>,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Option<std::io::Error>, ExchangeError> {
        if self.sending != Sending::UnderWay {
            return Ok(None);
        }
        match self.outgoing.poll_send(cx, &mut self.connection, || progress(Progress::Sent)) {
            Poll::Pending => Ok(None),
            Poll::Ready(Ok(())) => {
                self.sending = Sending::Through;
                progress(Progress::SentAll);
                Ok(None)
            }
            Poll::Ready(Err(ExchangeError::Closed(error))) => {
                // Linux says EPIPE to whoever writes behind an end and a reset, in that order, and ECONNRESET if the end was missing.
                self.sending = Sending::Broken { ended: error.kind() == std::io::ErrorKind::BrokenPipe };
                Ok(Some(error))
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }
}
