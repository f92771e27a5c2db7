//! The clients' side: connections through one proxy, and what each asks again and again.

use std::io::{ErrorKind, Read, Write};

use mio::net::TcpStream;

use crate::bench::http::{Head, connect};
use crate::bench::websocket;
use crate::bench::work::Http;

/// Connections through one proxy. They stay open from one load to the next.
#[derive(Default)]
pub(in crate::bench) struct Clients {
    pub(super) all: Vec<Client>,
}

/// One connection.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    request: Vec<u8>,
    expects: Expects,
    /// What has come of the answer.
    bytes: Vec<u8>,
}

enum Expects {
    /// A response of status 200 with so long a body.
    Reply(usize),
    /// Exactly this.
    Bytes(Vec<u8>),
}

impl Clients {
    /// Clients that ask for `http.path`.
    ///
    /// # Errors
    /// When a connection cannot be made.
    pub(in crate::bench) fn http(port: u16, http: &Http) -> Result<Self, String> {
        let request = format!("GET {} HTTP/1.1\r\nHost: bench\r\n\r\n", http.path).into_bytes();
        let client = |_| {
            let stream = connect(port).map_err(|e| format!("port {port}: {e}"))?;
            Client::new(stream, request.clone(), Expects::Reply(http.reply))
        };
        (0..http.connections).map(client).collect::<Result<_, _>>().map(|all| Self { all })
    }

    /// Clients of a WebSocket that echoes: each sends a message of its own of `bytes` bytes.
    ///
    /// # Errors
    /// When a connection cannot be made, or does not become a WebSocket.
    pub(in crate::bench) fn websocket(port: u16, connections: usize, bytes: usize) -> Result<Self, String> {
        let client = |number| {
            let stream = websocket::connect(port)?;
            let (message, echo) = websocket::message(number, bytes);
            Client::new(stream, message, Expects::Bytes(echo))
        };
        (0..connections).map(client).collect::<Result<_, _>>().map(|all| Self { all })
    }
}

impl Client {
    fn new(stream: std::net::TcpStream, request: Vec<u8>, expects: Expects) -> Result<Self, String> {
        let set = stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true));
        set.map_err(|e| format!("cannot set up a connection: {e}"))?;
        Ok(Self { stream: TcpStream::from_std(stream), request, expects, bytes: Vec::with_capacity(4096) })
    }

    /// A connection on which everything was answered has room for one small request.
    pub(super) fn send(&mut self) -> Result<(), String> {
        match self.stream.write(&self.request) {
            Ok(sent) if sent == self.request.len() => Ok(()),
            Ok(_) => Err("a request did not go out whole".to_owned()),
            Err(e) => Err(format!("cannot send a request: {e}")),
        }
    }

    /// Whether a whole answer, and nothing else, has come.
    pub(super) fn read(&mut self) -> Result<bool, String> {
        let mut bytes = [0; 4096];
        loop {
            let read = match self.stream.read(&mut bytes) {
                Ok(0) => return Err("no answer: the connection was closed".to_owned()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(format!("no answer: {error}")),
            };
            self.bytes.extend_from_slice(&bytes[..read]);
            // Less than there was room for: what comes after it is told anew.
            if read < bytes.len() {
                break;
            }
        }
        let whole = self.expects.is_whole(&self.bytes)?;
        if whole {
            self.bytes.clear();
        }
        Ok(whole)
    }
}

impl Expects {
    fn is_whole(&self, bytes: &[u8]) -> Result<bool, String> {
        match self {
            Self::Reply(length) => {
                let Some(head) = Head::parse(bytes)? else { return Ok(false) };
                let whole = head.head + head.body;
                if (head.status, head.body) != (200, *length) || bytes.len() > whole {
                    return Err(format!("a wrong answer: status {}, {} bytes", head.status, head.body));
                }
                Ok(bytes.len() == whole)
            }
            Self::Bytes(expected) if expected.starts_with(bytes) => Ok(bytes.len() == expected.len()),
            Self::Bytes(_) => Err("another message came back than was sent".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_wrong_or_not_there_yet() {
        let reply = Expects::Reply(2);
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(reply.is_whole(text), Ok(true));
        for cut in 0..text.len() {
            assert_eq!(reply.is_whole(&text[..cut]), Ok(false), "{cut}");
        }
        let wrong = |text: &[u8]| reply.is_whole(text).unwrap_err();
        assert_eq!(wrong(&[text, &b"!"[..]].concat()), "a wrong answer: status 200, 2 bytes");
        assert_eq!(wrong(b"HTTP/1.1 502 No\r\nContent-Length: 2\r\n\r\nok"), "a wrong answer: status 502, 2 bytes");
        assert_eq!(wrong(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"), "a wrong answer: status 200, 3 bytes");
        let echo = Expects::Bytes(b"abc".to_vec());
        assert_eq!([&b""[..], b"ab", b"abc"].map(|bytes| echo.is_whole(bytes)), [Ok(false), Ok(false), Ok(true)]);
        for wrong in [&b"x"[..], b"abd", b"abcd"] {
            assert!(echo.is_whole(wrong).is_err(), "{wrong:?}");
        }
    }
}
