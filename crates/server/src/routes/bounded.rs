//! `/bytes/{n}` and `/status/{code}`: answers of a chosen length and a chosen status.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::header::HeaderValue;

use super::number;
use crate::app::App;
use crate::body::Body;
use crate::conn::Cut;
use crate::reply::{self, Reply};

/// More than any proxy buffers in memory or on disk, and more than 32 bits count.
const BYTES_MAX: u64 = 10 << 30;

/// A prime: no power-of-two buffer size lines up with it, so that a piece that is lost, repeated or out of place
/// changes the content.
const PERIOD: usize = 251;

/// Whole periods in one piece: 64,256 bytes, about what a socket takes at a time.
static PATTERN: [u8; PERIOD * 256] = pattern();

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");

pub(super) fn bytes(n: Option<&str>) -> Result<Reply, String> {
    let n = number("/bytes/{n}: n", n.unwrap_or_default(), 0..=BYTES_MAX)?;
    Ok(reply::with_body(StatusCode::OK, OCTETS, Body::stream(Pattern { left: n })))
}

pub(super) fn status(app: &App, code: Option<&str>) -> Result<Reply, String> {
    let code = code.unwrap_or_default();
    if code.len() == 3 && code.starts_with('1') {
        return Err(format!(
            "/status/{{code}}: code={code}: expected 200 to 599; a 1xx status is not an answer, one has to follow it"
        ));
    }
    let number = number("/status/{code}: code", code, 200..=599)?;
    let status = u16::try_from(number).ok().and_then(|number| StatusCode::from_u16(number).ok());
    let status = status.expect("200 to 599 are status codes");
    if matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED) {
        // RFC 9110 §15.3.5, §15.3.6, §15.4.5: these have no content.
        let mut reply = Reply::new(Body::once(""));
        *reply.status_mut() = status;
        return Ok(reply);
    }
    Ok(reply::text(status, format!("{} {status}\n", app.name())))
}

struct Pattern {
    left: u64,
}

impl HttpBody for Pattern {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.left).map_or(PATTERN.len(), |left| left.min(PATTERN.len()));
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&PATTERN[..length])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

const fn pattern() -> [u8; PERIOD * 256] {
    let mut pattern = [0; PERIOD * 256];
    let mut i = 0;
    while i < pattern.len() {
        pattern[i] = (i % PERIOD) as u8;
        i += 1;
    }
    pattern
}
