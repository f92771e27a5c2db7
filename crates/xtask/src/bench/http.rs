//! As much of an HTTP/1.1 client as it takes to see that an answer is right: status, and a body of the stated length.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// For an answer to come: everything here runs on one machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Largest head that is read.
pub(super) const MAX_HEAD: usize = 16 << 10;

/// A response's head, from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    /// Bytes of the head itself.
    pub(super) head: usize,
    /// Bytes of the body.
    pub(super) body: usize,
}

impl Head {
    /// `None` while it is not complete.
    ///
    /// # Errors
    /// When it says no status or no length: what is measured here always does.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some(end) = end_of_head(bytes)? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes[..end]);
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| format!("no status in {text:?}"))?;
        let body = field(&text, "content-length").and_then(|length| length.parse().ok());
        let body = body.ok_or_else(|| format!("no length in {text:?}"))?;
        Ok(Some(Self { status, head: end + 4, body }))
    }
}

/// Where the blank line begins.
fn end_of_head(bytes: &[u8]) -> Result<Option<usize>, String> {
    match bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        None if bytes.len() > MAX_HEAD => Err("an endless head".to_owned()),
        end => Ok(end),
    }
}

/// The next head, without its last two line ends, which are taken off `bytes`.
///
/// # Errors
/// When it does not end.
pub(super) fn take_head(bytes: &mut Vec<u8>) -> io::Result<Option<String>> {
    let Some(end) = end_of_head(bytes).map_err(io::Error::other)? else { return Ok(None) };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    bytes.drain(..end + 4);
    Ok(Some(head))
}

/// The value of a field of a head.
pub(crate) fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (own, value) = line.split_once(':')?;
        own.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

/// A connection to a port of this machine on which no read waits for ever.
pub(crate) fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    Ok(stream)
}

/// Sends one request and reads its whole answer; the connection stays usable.
///
/// # Errors
/// When the answer is anything but 200 with `length` bytes.
pub(crate) fn ask(stream: &mut TcpStream, path: &str, upload: usize, length: usize) -> Result<(), String> {
    send(stream, path, upload)?;
    expect(stream, path, length)
}

pub(super) fn send(stream: &mut TcpStream, path: &str, upload: usize) -> Result<(), String> {
    let request = if upload == 0 {
        format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n").into_bytes()
    } else {
        let head = format!("POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {upload}\r\n\r\n");
        [head.as_bytes(), &vec![b'x'; upload]].concat()
    };
    stream.write_all(&request).map_err(|e| format!("{path}: cannot send: {e}"))
}

/// Reads one whole answer.
///
/// # Errors
/// As [`ask`].
pub(super) fn expect(stream: &mut TcpStream, path: &str, length: usize) -> Result<(), String> {
    let mut bytes = Vec::with_capacity(4096);
    let mut chunk = [0; 4096];
    loop {
        let head = Head::parse(&bytes).map_err(|e| format!("{path}: {e}"))?;
        if let Some(head) = head.filter(|head| bytes.len() >= head.head + head.body) {
            let surplus = bytes.len() - head.head - head.body;
            if (head.status, head.body, surplus) == (200, length, 0) {
                return Ok(());
            }
            return Err(format!("{path}: status {}, {} bytes, {surplus} after them", head.status, head.body));
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Err(format!("{path}: the connection ended before the answer")),
            Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            Err(e) => return Err(format!("{path}: no answer: {e}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_head_is_status_and_length() {
        let text = b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 5\r\n\r\nhello";
        assert_eq!(Head::parse(text), Ok(Some(Head { status: 200, head: 38, body: 5 })));
        assert_eq!(Head::parse(&text[..20]), Ok(None));
        assert!(Head::parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Head::parse(&vec![b'x'; MAX_HEAD + 1]).is_err());
    }

    /// What `ask` says to a server that answers the first request with `answer`.
    fn asked(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let result = ask(&mut connect(port).unwrap(), "/", 0, 2);
        server.join().unwrap();
        result
    }

    #[test]
    fn only_the_right_answer_is_right() {
        assert_eq!(asked("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), Ok(()));
        for wrong in [
            "HTTP/1.1 502 No\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok!",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok?",
        ] {
            assert!(asked(wrong).is_err(), "{wrong:?}");
        }
    }
}
