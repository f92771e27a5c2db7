//! Raw bytes over TCP: for what a well-behaved client would never send, and for scripted backends.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::PATIENCE;

/// Sends `bytes` to `127.0.0.1:port` and reads until the other side closes.
///
/// # Panics
/// When the other side does not close in time, or the connection breaks before it is established.
pub async fn exchange(port: u16, bytes: &[u8]) -> String {
    let mut stream = connect(port).await;
    stream.write_all(bytes).await.expect("the request can be written");
    read_to_close(&mut stream, PATIENCE).await.expect("the other side closes")
}

/// A connection to `127.0.0.1:port`. Panics when it cannot be made.
pub async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap_or_else(|e| panic!("cannot connect to {port}: {e}"))
}

/// Everything up to the close by the other side, or `None` if it is still open after `patience`. A reset counts as
/// a close.
pub async fn read_to_close(stream: &mut TcpStream, patience: Duration) -> Option<String> {
    let mut received = Vec::new();
    tokio::time::timeout(patience, stream.read_to_end(&mut received)).await.ok().map(|_| ())?;
    Some(String::from_utf8_lossy(&received).into_owned())
}

/// Reads until the head of one message is complete, and returns everything read so far.
///
/// # Panics
/// When no whole head arrives in time.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    while !received.windows(4).any(|window| window == b"\r\n\r\n") {
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.expect("a head in time");
        let read = read.expect("the connection holds");
        assert!(read > 0, "closed inside a head: {}", String::from_utf8_lossy(&received));
        received.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&received).into_owned()
}

/// Ends a connection with a reset, as a crash does.
pub fn reset(stream: TcpStream) {
    let _ = stream.set_zero_linger();
}
