//! `/echo` describes the request, `/echo/body` sends its body back.

use std::sync::Arc;

use hyper::header::CONTENT_TYPE;
use hyper::{Request, StatusCode};
use serde_json::{Value, json};

use crate::app::App;
use crate::body::Body;
use crate::conn::Peer;
use crate::reply::{self, Reply};
use crate::upload::Upload;

/// The body is held in memory to be described; `/echo/body` has no bound because it holds nothing.
const BODY_MAX: usize = 1 << 20;

/// Headers keep the order of arrival, except that the values of one name stand together where the first stood: that
/// is how hyper keeps them. What is not UTF-8 is shown with replacement characters; the checksum is of the bytes.
pub(super) async fn describe(app: &Arc<App>, peer: &Peer, request: Request<Upload>) -> Reply {
    let (head, upload) = request.into_parts();
    let body = match upload.collect(BODY_MAX).await {
        Ok(body) => body,
        Err(error) => return error.into_reply(),
    };
    let headers: Vec<Value> = head
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    reply::json(&json!({
        "server": app.name(),
        "peer": peer.address.to_string(),
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "version": format!("{:?}", head.version),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
        "body_bytes": body.len(),
        "body_crc32": format!("{:08x}", crc32(&body)),
    }))
}

pub(super) fn send_back(request: Request<Upload>) -> Reply {
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let mut reply = reply::with_body(StatusCode::OK, reply::TEXT, Body::stream(request.into_body()));
    match content_type {
        Some(content_type) => reply.headers_mut().insert(CONTENT_TYPE, content_type),
        None => reply.headers_mut().remove(CONTENT_TYPE),
    };
    reply
}

/// The CRC-32 of zlib, gzip and Ethernet (reflected polynomial 0xEDB88320), bit by bit: 1 MiB takes some 10 ms, and
/// `python3 -c 'import zlib'` or `crc32` on the other side compute the same.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32;

    #[test]
    fn the_checksum_is_the_common_crc32() {
        assert_eq!(crc32(b""), 0);
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }
}
