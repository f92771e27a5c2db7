//! A WebSocket of one kind of frame (RFC 6455 §5.2): binary, whole, shorter than 126 bytes. After the 101 every proxy
//! is only a tunnel, so this is all that it takes to load one.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::origin::read_head;

/// The key and its answer that RFC 6455 §1.3 gives as an example. Everybody here uses them, so nobody has to hash.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// FIN, and opcode 2.
const WHOLE_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// What a frame with a length of one byte can carry.
const MAX_PAYLOAD: usize = 125;

/// For one message to come back, or one handshake: everything is on one machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The server's side of one connection: answers the handshake, then sends every message back.
pub(super) async fn echo(mut stream: TcpStream) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4096);
    let Some(head) = read_head(&mut stream, &mut bytes).await? else { return Ok(()) };
    let head = head.to_ascii_lowercase();
    let key = format!("sec-websocket-key: {}", KEY.to_ascii_lowercase());
    if !["upgrade: websocket", &key].iter().all(|wanted| head.lines().any(|line| line.trim_end() == *wanted)) {
        return stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    }
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let mut out = Vec::with_capacity(4096);
    loop {
        out.clear();
        let taken = unmask_all(&bytes, &mut out)?;
        bytes.drain(..taken);
        if !out.is_empty() {
            stream.write_all(&out).await?;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
    }
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

/// One client, through the proxy.
pub(super) struct Client {
    stream: TcpStream,
    message: Vec<u8>,
    echo: Vec<u8>,
    answer: Vec<u8>,
}

impl Client {
    /// Connects and shakes hands; messages of client `number` have `bytes` bytes.
    pub(super) async fn connect(port: u16, number: usize, bytes: usize) -> Result<Self, String> {
        assert!(bytes <= MAX_PAYLOAD, "the length fits into one byte");
        let payload: Vec<u8> = (0..bytes).map(|at| (number + at) as u8).collect();
        let echo = [&[WHOLE_BINARY, bytes as u8], payload.as_slice()].concat();
        let handshake = async {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let request = format!(
                "GET /echo HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await?;
            let mut bytes = Vec::new();
            let head = read_head(&mut stream, &mut bytes).await?;
            Ok::<_, io::Error>((stream, head.unwrap_or_default(), bytes))
        };
        let (stream, head, rest) = timeout(ANSWER_WITHIN, handshake)
            .await
            .map_err(|_| "no answer to a WebSocket handshake".to_owned())?
            .map_err(|e| format!("WebSocket handshake: {e}"))?;
        if !head.starts_with("HTTP/1.1 101 ") || !head.contains(ACCEPT) || !rest.is_empty() {
            let status = head.lines().next().unwrap_or("the end of the connection");
            return Err(format!("the answer to a WebSocket handshake was not 101 but: {status}"));
        }
        Ok(Self { stream, message: masked(&payload), answer: vec![0; echo.len()], echo })
    }

    /// Sends the message and waits until it is back, again and again until `end`; says how often.
    async fn chat(&mut self, end: Instant) -> Result<u64, String> {
        let mut messages = 0;
        while Instant::now() < end {
            self.stream.write_all(&self.message).await.map_err(|e| format!("cannot send a message: {e}"))?;
            self.stream.read_exact(&mut self.answer).await.map_err(|e| format!("a message did not come back: {e}"))?;
            if self.answer != self.echo {
                return Err("another message came back than was sent".to_owned());
            }
            messages += 1;
        }
        Ok(messages)
    }
}

/// Whether one message comes back.
pub(super) fn try_once(port: u16) -> Result<(), String> {
    let runtime = runtime()?;
    runtime.block_on(async {
        let mut clients = vec![Client::connect(port, 0, MAX_PAYLOAD).await?];
        chat(&mut clients, Duration::from_millis(1)).await.map(|_| ())
    })
}

/// One thread: the load has one core on a machine with two.
pub(super) fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|e| format!("cannot start a runtime: {e}"))
}

/// Lets all clients chat for `duration`; says how many messages came back.
pub(super) async fn chat(clients: &mut Vec<Client>, duration: Duration) -> Result<u64, String> {
    let end = Instant::now() + duration;
    let mut chats = JoinSet::new();
    for mut client in clients.drain(..) {
        chats.spawn(async move { client.chat(end).await.map(|messages| (client, messages)) });
    }
    let mut messages = 0;
    let all = async {
        while let Some(chat) = chats.join_next().await {
            let (client, count) = chat.map_err(|e| format!("a client broke: {e}"))??;
            clients.push(client);
            messages += count;
        }
        Ok::<_, String>(())
    };
    timeout(duration + ANSWER_WITHIN, all).await.map_err(|_| "a message never came back".to_owned())??;
    Ok(messages)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::origin::Origins;

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

    #[tokio::test]
    async fn clients_chat_with_the_echo() {
        let origins = Origins::start().unwrap();
        let port = origins.echoes[0].rsplit_once(':').unwrap().1.parse().unwrap();
        let mut clients =
            vec![Client::connect(port, 1, 100).await.unwrap(), Client::connect(port, 2, 100).await.unwrap()];
        let messages = chat(&mut clients, Duration::from_millis(20)).await.unwrap();
        assert!(messages >= 2, "{messages}");
        assert_eq!(clients.len(), 2, "they can go on");
    }

    #[tokio::test]
    async fn who_does_not_switch_protocols_fails() {
        let origins = Origins::start().unwrap();
        let port = origins.sinks[0].rsplit_once(':').unwrap().1.parse().unwrap();
        let error = Client::connect(port, 1, 100).await.err().unwrap();
        assert!(error.ends_with("HTTP/1.1 411 Length Required"), "{error}");
    }

    #[tokio::test]
    async fn a_message_that_comes_back_changed_fails() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream, &mut Vec::new()).await.unwrap();
            let answer = format!("HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
            stream.write_all(b"\x82\x03\x01\x02\x04").await.unwrap();
            // Until the client is gone.
            let _ = stream.read(&mut [0; 64]).await;
        });
        let mut clients = vec![Client::connect(port, 1, 3).await.unwrap()];
        let error = chat(&mut clients, Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error, "another message came back than was sent");
        server.await.unwrap();
    }
}
