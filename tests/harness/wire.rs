//! An HTTP/1 connection as raw bytes that still knows where a message ends: for clients and backends that send what
//! no library would, and must read exactly what came back.
//!
//! The reader is as strict as a peer can be: framing that RFC 9112 §6 forbids is a panic, never a guess.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::PATIENCE;

/// One end of a connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    received: Vec<u8>,
}

/// How a message ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Without a body.
    None,
    Length,
    Chunked,
    /// By a regular close of the connection.
    Close,
    /// Before its end, by a close or a reset.
    Cut,
}

/// One message, whole unless `end` says otherwise.
#[derive(Clone, Debug)]
pub struct Message {
    /// Start line and fields, up to and with the empty line.
    pub head: String,
    /// Without chunk framing.
    pub body: Vec<u8>,
    /// The trailer section's lines.
    pub trailers: String,
    pub end: End,
}

impl Message {
    /// The start line.
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    /// A response's status; 0 for a request.
    pub fn status(&self) -> u16 {
        self.line().strip_prefix("HTTP/").and_then(|line| line.get(4..7)?.parse().ok()).unwrap_or(0)
    }

    /// The values of a field, line by line.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        fields(&self.head, name)
    }

    /// The one value of a field.
    ///
    /// # Panics
    /// When the field is there more than once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.fields(name);
        assert!(values.len() < 2, "{name} more than once: {}", self.head);
        values.first().copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    lines.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
}

impl Wire {
    /// To `127.0.0.1:port`. Panics when it cannot be made.
    pub async fn connect(port: u16) -> Self {
        Self::resume(crate::raw::connect(port).await, Vec::new())
    }

    /// A connection of which `received` has been read.
    pub fn resume(stream: TcpStream, received: Vec<u8>) -> Self {
        let _ = stream.set_nodelay(true);
        Self { stream, received }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Ends what we send; the other direction stays open.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("a connection can be closed for writing");
    }

    /// The connection, and what has been read beyond the last message.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.received)
    }

    /// The next head; `None` when the connection ends (or breaks) before one.
    ///
    /// # Panics
    /// When it ends inside a head, or nothing comes in time.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.received.split_off(at + 4);
                let head = std::mem::replace(&mut self.received, rest);
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if self.fill().await.unwrap_or(0) == 0 {
                assert!(self.received.is_empty(), "ended inside a head: {}", String::from_utf8_lossy(&self.received));
                return None;
            }
        }
    }

    /// The next message; `None` when the connection ends before one.
    pub async fn message(&mut self) -> Option<Message> {
        let head = self.head().await?;
        Some(self.rest_of(head, false).await)
    }

    /// The next message, the answer to a HEAD: it has no body whatever it says.
    pub async fn message_to_head(&mut self) -> Option<Message> {
        let head = self.head().await?;
        Some(self.rest_of(head, true).await)
    }

    /// The message that begins with `head`.
    pub async fn rest_of(&mut self, head: String, no_body: bool) -> Message {
        let mut message = Message { head, body: Vec::new(), trailers: String::new(), end: End::None };
        let (lengths, codings) = (message.fields("content-length"), message.fields("transfer-encoding"));
        assert!(lengths.len() + codings.len() < 2, "framed twice: {}", message.head);
        let status = message.status();
        if no_body || (100..200).contains(&status) || status == 204 || status == 304 {
            return message;
        }
        if let Some(length) = lengths.first() {
            let length = length.parse().unwrap_or_else(|_| panic!("bad length: {}", message.head));
            (message.body, message.end) =
                self.exactly(length).await.map_or_else(|part| (part, End::Cut), |all| (all, End::Length));
        } else if let Some(coding) = codings.first() {
            assert!(coding.eq_ignore_ascii_case("chunked"), "{}", message.head);
            message.end = if self.chunks(&mut message).await.is_some() { End::Chunked } else { End::Cut };
        } else if status > 0 {
            let (rest, clean) = self.until_closed().await;
            (message.body, message.end) = (rest, if clean { End::Close } else { End::Cut });
        }
        message
    }

    /// So many bytes, or those that came before the end of the connection.
    pub async fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Vec<u8>> {
        while self.received.len() < length {
            if self.fill().await.unwrap_or(0) == 0 {
                return Err(std::mem::take(&mut self.received));
            }
        }
        let rest = self.received.split_off(length);
        Ok(std::mem::replace(&mut self.received, rest))
    }

    /// Everything up to the end of the connection, and whether that was a regular close and not a reset.
    pub async fn until_closed(&mut self) -> (Vec<u8>, bool) {
        loop {
            match self.fill().await {
                Ok(0) => return (std::mem::take(&mut self.received), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.received), false),
            }
        }
    }

    /// Reads a chunked body; `None` when the connection ends inside.
    async fn chunks(&mut self, message: &mut Message) -> Option<()> {
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("not a plain chunk size: {line:?}"));
            if size == 0 {
                break;
            }
            match self.exactly(size).await {
                Ok(chunk) => message.body.extend_from_slice(&chunk),
                Err(part) => {
                    message.body.extend_from_slice(&part);
                    return None;
                }
            }
            assert_eq!(self.line().await?, "", "behind a chunk");
        }
        loop {
            match self.line().await?.as_str() {
                "" => return Some(()),
                line => {
                    message.trailers.push_str(line);
                    message.trailers.push_str("\r\n");
                }
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.received.windows(2).position(|window| window == b"\r\n") {
                let line = String::from_utf8_lossy(&self.received[..at]).into_owned();
                self.received.drain(..at + 2);
                return Some(line);
            }
            if self.fill().await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn fill(&mut self) -> io::Result<usize> {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await;
        read.unwrap_or_else(|_| panic!("nothing more came; so far: {:?}", String::from_utf8_lossy(&self.received)))
    }
}
