//! A WebSocket of one kind of frame (RFC 6455 §5.2): binary, whole, shorter than 126 bytes. After the 101 every proxy
//! is only a tunnel, so this is all that it takes to load one.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use super::http;

/// The key and its answer that RFC 6455 §1.3 gives as an example. Everybody here uses them, so nobody has to hash.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// FIN, and opcode 2.
const WHOLE_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a frame with a length of one byte can carry.
const MAX_PAYLOAD: usize = 125;

/// The server's side of one connection: answers the handshake, then sends every message back.
#[derive(Default)]
pub(super) struct Server {
    /// What has come and is not a whole head or frame yet.
    bytes: Vec<u8>,
    is_open: bool,
}

impl Server {
    /// Takes what has come, and adds to `out` what is to be said.
    ///
    /// # Errors
    /// When it is nothing that anybody here sends.
    pub(super) fn receive(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        self.bytes.extend_from_slice(bytes);
        if !self.is_open {
            let Some(head) = http::take_head(&mut self.bytes)? else { return Ok(()) };
            self.is_open = asks_for_websocket(&head);
            out.extend_from_slice(&answer(self.is_open));
        }
        if self.is_open {
            let taken = unmask_all(&self.bytes, out)?;
            self.bytes.drain(..taken);
        }
        Ok(())
    }
}

fn asks_for_websocket(head: &str) -> bool {
    let is = |name, value: &str| http::field(head, name).is_some_and(|own| own.eq_ignore_ascii_case(value));
    is("upgrade", "websocket") && is("sec-websocket-key", KEY)
}

fn answer(is_open: bool) -> Vec<u8> {
    let text = if is_open {
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
        )
    } else {
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_owned()
    };
    text.into_bytes()
}

/// Turns every complete masked frame of `bytes` into one without a mask; says how many bytes that were.
fn unmask_all(bytes: &[u8], out: &mut Vec<u8>) -> io::Result<usize> {
    let mut at = 0;
    while let [first, second, m0, m1, m2, m3, rest @ ..] = &bytes[at..] {
        let length = usize::from(second & !MASKED);
        if *first != WHOLE_BINARY || second & MASKED == 0 || length > MAX_PAYLOAD {
            return Err(io::Error::other("a frame that nobody here sends"));
        }
        let Some(payload) = rest.get(..length) else { break };
        let mask = [m0, m1, m2, m3];
        out.extend([WHOLE_BINARY, second & !MASKED]);
        out.extend(payload.iter().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask));
        at += 6 + length;
    }
    Ok(at)
}

/// A frame as a client sends it.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![WHOLE_BINARY, MASKED | payload.len() as u8];
    frame.extend(MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A message of `bytes` bytes that is client `number`'s own, as it leaves and as it comes back.
pub(super) fn message(number: usize, bytes: usize) -> (Vec<u8>, Vec<u8>) {
    assert!(bytes <= MAX_PAYLOAD, "the length fits into one byte");
    let payload: Vec<u8> = (0..bytes).map(|at| (number + at) as u8).collect();
    (masked(&payload), [&[WHOLE_BINARY, bytes as u8], payload.as_slice()].concat())
}

/// A connection to a port of this machine that has become a WebSocket.
///
/// # Errors
/// When it has not.
pub(super) fn connect(port: u16) -> Result<TcpStream, String> {
    let broken = |e| format!("WebSocket handshake on port {port}: {e}");
    let mut stream = http::connect(port).map_err(broken)?;
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(broken)?;
    let (mut bytes, mut chunk) = (Vec::new(), [0; 1024]);
    let head = loop {
        match stream.read(&mut chunk).map_err(broken)? {
            0 => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
        if let Some(head) = http::take_head(&mut bytes).map_err(broken)? {
            break head;
        }
    };
    if !head.starts_with("HTTP/1.1 101 ") || http::field(&head, "sec-websocket-accept") != Some(ACCEPT) {
        let status = head.lines().next().unwrap_or_default();
        return Err(format!("the answer to a WebSocket handshake was not 101 but: {status}"));
    }
    // The server speaks when it is spoken to.
    if bytes.is_empty() { Ok(stream) } else { Err("something came before anything was sent".to_owned()) }
}

/// Whether one message comes back.
pub(super) fn try_once(port: u16) -> Result<(), String> {
    let broken = |e| format!("a message did not come back: {e}");
    let mut stream = connect(port)?;
    let (message, echo) = message(0, MAX_PAYLOAD);
    let mut back = vec![0; echo.len()];
    stream.write_all(&message).and_then(|()| stream.read_exact(&mut back)).map_err(broken)?;
    if back == echo { Ok(()) } else { Err("another message came back than was sent".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    #[test]
    fn a_frame_comes_out_of_its_mask_whole_and_in_order() {
        let frames = [masked(b"hello"), masked(b""), masked(&[7; 100])].concat();
        let expected = [b"\x82\x05hello".as_slice(), b"\x82\x00", b"\x82\x64", &[7; 100]].concat();
        for cut in 0..=frames.len() {
            let mut out = Vec::new();
            let taken = unmask_all(&frames[..cut], &mut out).unwrap();
            let rest = unmask_all(&frames[taken..], &mut out).unwrap();
            assert_eq!((taken + rest, &out), (frames.len(), &expected), "cut at {cut}");
        }
        assert!(unmask_all(b"\x82\x05hello?", &mut Vec::new()).is_err(), "no mask");
        assert!(unmask_all(b"\x82\xfe\x00\x80....", &mut Vec::new()).is_err(), "a longer length");
    }

    #[test]
    fn a_server_shakes_hands_and_echoes_wherever_what_comes_is_cut() {
        let head = format!("GET / HTTP/1.1\r\nupgrade: WebSocket\r\nSec-WebSocket-Key: {KEY}\r\n\r\n");
        let (message, echo) = message(3, 100);
        let all = [head.as_bytes(), &message, &message].concat();
        let expected = [answer(true), echo.clone(), echo].concat();
        for cut in 0..=all.len() {
            let (mut server, mut out) = (Server::default(), Vec::new());
            server.receive(&all[..cut], &mut out).unwrap();
            server.receive(&all[cut..], &mut out).unwrap();
            assert_eq!(out, expected, "cut at {cut}");
        }
        let mut out = Vec::new();
        Server::default().receive(b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", &mut out).unwrap();
        assert_eq!(out, answer(false));
        assert!(Server::default().receive(&vec![b'x'; http::MAX_HEAD + 1], &mut out).is_err());
    }

    /// What `try_once` says of a server that says `answer`, and `second` to what comes then.
    fn tried(answer: &[u8], second: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = answer.to_vec();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in [&answer, second] {
                // Until the client gives up.
                if stream.read(&mut [0; 4096]).unwrap() > 0 {
                    stream.write_all(answer).unwrap();
                }
            }
        });
        let error = try_once(port).unwrap_err();
        server.join().unwrap();
        error
    }

    #[test]
    fn only_an_echo_is_an_echo() {
        assert!(tried(&answer(false), b"").ends_with("not 101 but: HTTP/1.1 400 Bad Request"));
        assert!(tried(&[&answer(true)[..], b"!"].concat(), b"").starts_with("something came"));
        assert_eq!(tried(&answer(true), &[b'x'; 127]), "another message came back than was sent");
        assert!(tried(&answer(true), b"short").starts_with("a message did not come back"));
    }
}
