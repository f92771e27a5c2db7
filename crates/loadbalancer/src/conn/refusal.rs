//! The reply to what never became a request: written straight to the socket, since hyper has nothing to answer.

use std::fmt::Write as _;
use std::time::SystemTime;

use http::StatusCode;

use super::client::Client;
use super::socket::ClientSocket;

/// Answers with why the connection ends.
pub(super) fn write(client: &Client, stream: &ClientSocket) {
    let Some(reason) = client.rejected() else { return };
    tracing::debug!(reason = reason.as_str(), client = %client.address, "refused");
    let status = StatusCode::from_u16(reason.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let phrase = status.canonical_reason().unwrap_or_default();
    let status = status.as_u16();
    let mut text = format!("{status} {phrase}: {}\n", reason.words());
    if client.worker.shared.config.explain_errors {
        let _ = writeln!(text, "\nreason: {}", reason.as_str());
    }
    let length = text.len();
    let reply = format!(
        "HTTP/1.1 {status} {phrase}\r\ndate: {}\r\nconnection: close\r\n\
         content-type: text/plain; charset=utf-8\r\ncontent-length: {length}\r\n\r\n{}",
        // RFC 9110 §6.6.1: who has a clock says when.
        httpdate::fmt_http_date(SystemTime::now()),
        if client.wants_head_only() { "" } else { &text }
    );
    // Best effort: the socket's buffer is empty unless the client is up to something.
    stream.send_at_once(reply.as_bytes());
}
