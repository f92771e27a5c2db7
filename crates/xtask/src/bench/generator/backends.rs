//! The backends' side: what is said to what has come on one connection.

use std::io::{self, ErrorKind, Read, Write};

use mio::net::TcpStream;

use crate::bench::websocket;

/// What a backend does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Serves {
    /// Answers every request with so many bytes.
    Replies(usize),
    /// Answers every WebSocket message with itself.
    Echoes,
}

/// A connection that a backend serves.
pub(super) struct Served {
    pub(super) stream: TcpStream,
    speaks: Speaks,
}

enum Speaks {
    /// How much of the blank line that ends a head has come.
    Http {
        matched: usize,
    },
    WebSocket(websocket::Server),
}

/// What the backends of one thread share.
pub(super) struct Answers {
    serves: Serves,
    reply: Vec<u8>,
    /// What goes out next; kept for its memory.
    out: Vec<u8>,
}

impl Answers {
    pub(super) fn new(serves: Serves) -> Self {
        let reply = match serves {
            Serves::Replies(bytes) => reply(bytes).into_bytes(),
            Serves::Echoes => vec![],
        };
        Self { serves, reply, out: vec![] }
    }

    pub(super) fn accepted(&self, stream: TcpStream) -> Served {
        let speaks = match self.serves {
            Serves::Replies(_) => Speaks::Http { matched: 0 },
            Serves::Echoes => Speaks::WebSocket(websocket::Server::default()),
        };
        Served { stream, speaks }
    }
}

impl Served {
    /// Answers what has come.
    ///
    /// # Errors
    /// When the connection ends or breaks, or says what nobody here says.
    pub(super) fn answer(&mut self, answers: &mut Answers) -> io::Result<()> {
        let mut bytes = [0; 4096];
        loop {
            let read = match self.stream.read(&mut bytes) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            answers.out.clear();
            match &mut self.speaks {
                Speaks::Http { matched } => reply_to(&bytes[..read], matched, answers),
                Speaks::WebSocket(server) => server.receive(&bytes[..read], &mut answers.out)?,
            }
            // A connection on which everything was read has room for a few small answers.
            self.stream.write_all(&answers.out)?;
            // Less than there was room for: there is no more, and nobody need be asked.
            if read < bytes.len() {
                return Ok(());
            }
        }
    }
}

/// One reply for each head that ends in `bytes`.
fn reply_to(bytes: &[u8], matched: &mut usize, answers: &mut Answers) {
    for byte in bytes {
        *matched = match (byte, *matched) {
            (b'\r', 0 | 2) | (b'\n', 1 | 3) => *matched + 1,
            (b'\r', _) => 1,
            _ => 0,
        };
        if *matched == 4 {
            *matched = 0;
            answers.out.extend_from_slice(&answers.reply);
        }
    }
}

/// A response with the fields that servers usually send, in one piece.
fn reply(bytes: usize) -> String {
    let body = "x".repeat(bytes);
    format!(
        "HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         Content-Type: application/octet-stream\r\nContent-Length: {bytes}\r\nConnection: keep-alive\r\n\r\n{body}"
    )
}
