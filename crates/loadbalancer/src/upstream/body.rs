//! The response body, by its framing.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;

use super::chunked::Decoded;
use super::head::BodyFraming;
use super::send::cut_short;
use super::{ExchangeError, UpstreamConn};

impl BodyFraming {
    /// Whether nothing is left.
    pub(super) fn is_through(&self) -> bool {
        matches!(self, Self::None | Self::Length(0))
    }

    /// The next piece. After `None` the body is complete; every other end is an error.
    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
        connection: &mut UpstreamConn,
    ) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
        loop {
            match self {
                Self::None | Self::Length(0) => return Poll::Ready(None),
                Self::Length(left) if !connection.received.is_empty() => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(connection.received.len());
                    *left -= here as u64;
                    return data(connection.received.split_to(here).freeze());
                }
                Self::Close if !connection.received.is_empty() => {
                    return data(connection.received.split().freeze());
                }
                Self::Chunked(decoder) => match decoder.decode(&mut connection.received) {
                    Err(why) => return Poll::Ready(Some(Err(ExchangeError::Bad(why)))),
                    Ok(Decoded::Data(piece)) => return data(piece),
                    Ok(Decoded::End(trailers)) => {
                        *self = Self::None;
                        if trailers.is_empty() {
                            return Poll::Ready(None);
                        }
                        return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                    }
                    Ok(Decoded::NeedMore) => {}
                },
                Self::Length(_) | Self::Close => {}
            }
            let expected = match self {
                Self::Length(left) => usize::try_from(*left).unwrap_or(usize::MAX),
                _ => 0,
            };
            match ready!(connection.poll_receive(cx, expected)).map_err(ExchangeError::Body) {
                Err(error) => return Poll::Ready(Some(Err(error))),
                // RFC 9112 §8: only a close-delimited body may end here; any other is incomplete.
                Ok(0) if matches!(self, Self::Close) => {
                    *self = Self::None;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(ExchangeError::Body(cut_short())))),
                Ok(_) => {}
            }
        }
    }
}

fn data(piece: Bytes) -> Poll<Option<Result<Frame<Bytes>, ExchangeError>>> {
    Poll::Ready(Some(Ok(Frame::data(piece))))
}
