//! The response body, by its framing.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::Frame;

use super::chunked::Decoded;
use super::head::BodyFraming;
use super::send::cut_short;
use super::{ExchangeError, UpstreamConn};

/// What the bytes that have arrived hold.
#[derive(Debug)]
pub(super) enum Piece {
    /// More must arrive first.
    NeedMore,
    Frame(Frame<Bytes>),
    /// The body is complete. What is left in the buffer does not belong to it.
    End,
}

impl BodyFraming {
    /// Whether nothing is left.
    pub(super) fn is_through(&self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// Takes the next piece off the front of `received`. Knows nothing of the connection, so that the same code can be
    /// fed with any bytes in any pieces.
    ///
    /// # Errors
    /// Why it is not valid.
    pub(super) fn take(&mut self, received: &mut BytesMut) -> Result<Piece, &'static str> {
        match self {
            // RFC 9112 §6.3, rule 1.
            Self::None | Self::Length(0) => Ok(Piece::End),
            // Rule 6: exactly so many bytes.
            Self::Length(left) if !received.is_empty() => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(received.len());
                *left -= here as u64;
                Ok(Piece::Frame(Frame::data(received.split_to(here).freeze())))
            }
            // Rule 8: all that comes.
            Self::Close if !received.is_empty() => Ok(Piece::Frame(Frame::data(received.split().freeze()))),
            // Rule 4.
            Self::Chunked(decoder) => match decoder.decode(received)? {
                Decoded::NeedMore => Ok(Piece::NeedMore),
                Decoded::Data(piece) => Ok(Piece::Frame(Frame::data(piece))),
                Decoded::End(trailers) => {
                    *self = Self::None;
                    if trailers.is_empty() { Ok(Piece::End) } else { Ok(Piece::Frame(Frame::trailers(trailers))) }
                }
            },
            Self::Length(_) | Self::Close => Ok(Piece::NeedMore),
        }
    }

    /// The connection is closed, and all that had arrived is taken. RFC 9112 §8: only a close-delimited body may end
    /// here; any other is incomplete.
    pub(super) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Close | Self::None | Self::Length(0) => {
                *self = Self::None;
                Ok(())
            }
            Self::Length(_) | Self::Chunked(_) => Err(cut_short()),
        }
    }

    /// The next piece. After `None` the body is complete; every other end is an error.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut UpstreamConn,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        loop {
            match self.take(&mut connection.received) {
                Err(why) => return Poll::Ready(Some(Err(ExchangeError::Bad(why)))),
                Ok(Piece::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Piece::End) => return Poll::Ready(None),
                Ok(Piece::NeedMore) => {}
            }
            let expected = match self {
                Self::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX),
                _ => 0,
            };
            let ended = match ready!(connection.poll_receive(cx, expected)) {
                Ok(0) => self.close(),
                received => received.map(drop),
            };
            match ended {
                Err(error) => return Poll::Ready(Some(Err(ExchangeError::Body(error)))),
                Ok(()) if self.is_through() => return Poll::Ready(None),
                Ok(()) => {}
            }
        }
    }
}
