//! One request over one connection, and what its client can know of how it ended.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::ReadHalf;

use super::super::ident::{Id, Side, fill};
use super::super::ledger::{Answer, Body, End, Why};
use crate::bench::http::field;
use crate::bench::sinks::read_head;

/// A connection to the proxy.
pub(super) struct Connection {
    stream: TcpStream,
    bytes: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(port: u16) -> std::io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, bytes: Vec::new() })
    }

    /// Whether the other side has ended it: a client looks before it uses a connection again.
    pub(super) fn is_over(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0; 1]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// Sends the request and reads its answer, of which `expected` bytes of body belong to it; whether the connection
    /// can be used again.
    pub(super) async fn ask(&mut self, id: Id, request: &[u8], expected: usize) -> (End, bool) {
        let (mut reader, mut writer) = self.stream.split();
        let mut written = false;
        let write = writer.write_all(request);
        let read = read_answer(&mut reader, &mut self.bytes, id, expected);
        tokio::pin!(write, read);
        loop {
            // An answer may come before the whole request was taken, and is an answer. An error of sending is not the
            // end: what the other side said before may still be read.
            tokio::select! {
                biased;
                (end, keep) = &mut read => return (end, keep && written),
                result = &mut write, if !written => written = result.is_ok() || {
                    return (read.await.0, false);
                },
            }
        }
    }
}

async fn read_answer(reader: &mut ReadHalf<'_>, bytes: &mut Vec<u8>, id: Id, expected: usize) -> (End, bool) {
    let before = |bytes: &Vec<u8>| if bytes.is_empty() { Why::Dropped } else { Why::Cut };
    let head = match read_head(reader, bytes).await {
        Ok(Some(head)) => head,
        Ok(None) => return (End::Failed(before(bytes), None), false),
        Err(e) if e.kind() == std::io::ErrorKind::Other => return (End::Failed(Why::Garbage, None), false),
        Err(_) => return (End::Failed(before(bytes), None), false),
    };
    let status = head.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse::<u16>().ok());
    let Some(status) = status else { return (End::Failed(Why::Garbage, None), false) };
    let body = match read_body(reader, bytes, &head, status).await {
        Ok(body) => body,
        Err(why) => return (End::Failed(why, Some(status)), false),
    };
    let expected = field(&head, "x-length").and_then(|length| length.parse().ok()).unwrap_or(expected);
    let mut right = Vec::new();
    fill(&mut right, id, Side::Response, expected);
    let body = match body {
        body if body == right => Body::Right,
        body if right.starts_with(&body) => Body::Short,
        _ => Body::Wrong,
    };
    let answer = Answer {
        status,
        id: field(&head, "x-id").and_then(Id::parse),
        heard: field(&head, "x-heard").and_then(|hash| u64::from_str_radix(hash, 16).ok()),
        body,
    };
    let keep = !field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    (End::Answered(answer), keep && bytes.is_empty())
}

/// The whole body, or why it is not whole.
async fn read_body(reader: &mut ReadHalf<'_>, bytes: &mut Vec<u8>, head: &str, status: u16) -> Result<Vec<u8>, Why> {
    if status == 204 || status == 304 {
        return Ok(Vec::new());
    }
    if field(head, "transfer-encoding").is_some() {
        return read_chunks(reader, bytes).await;
    }
    match field(head, "content-length").map(str::parse::<usize>) {
        Some(Ok(length)) => {
            need(reader, bytes, length).await?;
            Ok(bytes.drain(..length).collect())
        }
        Some(Err(_)) => Err(Why::Garbage),
        None => loop {
            match reader.read_buf(bytes).await {
                Ok(0) => return Ok(std::mem::take(bytes)),
                Ok(_) => {}
                Err(_) => return Err(Why::Cut),
            }
        },
    }
}

async fn read_chunks(reader: &mut ReadHalf<'_>, bytes: &mut Vec<u8>) -> Result<Vec<u8>, Why> {
    let mut body = Vec::new();
    loop {
        let end = line_end(reader, bytes).await?;
        let size = std::str::from_utf8(&bytes[..end]).ok().and_then(|line| line.split(';').next());
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok()).ok_or(Why::Garbage)?;
        bytes.drain(..end + 2);
        if size == 0 {
            // Trailers, to the empty line.
            loop {
                let end = line_end(reader, bytes).await?;
                bytes.drain(..end + 2);
                if end == 0 {
                    return Ok(body);
                }
            }
        }
        need(reader, bytes, size + 2).await?;
        body.extend_from_slice(&bytes[..size]);
        if &bytes[size..size + 2] != b"\r\n" {
            return Err(Why::Garbage);
        }
        bytes.drain(..size + 2);
    }
}

async fn line_end(reader: &mut ReadHalf<'_>, bytes: &mut Vec<u8>) -> Result<usize, Why> {
    loop {
        if let Some(end) = bytes.windows(2).position(|window| window == b"\r\n") {
            return Ok(end);
        }
        need(reader, bytes, bytes.len() + 1).await?;
    }
}

async fn need(reader: &mut ReadHalf<'_>, bytes: &mut Vec<u8>, length: usize) -> Result<(), Why> {
    while bytes.len() < length {
        if !matches!(reader.read_buf(bytes).await, Ok(1..)) {
            return Err(Why::Cut);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const ID: Id = Id { run: 1, number: 2 };

    /// How a client sees an origin that answers with `answer` and closes.
    fn seen(answer: Vec<u8>) -> (End, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let server = tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_head(&mut stream, &mut Vec::new()).await.unwrap();
                stream.write_all(&answer).await.unwrap();
            });
            let mut connection = Connection::open(port).await.unwrap();
            let seen = connection.ask(ID, b"GET / HTTP/1.1\r\n\r\n", 20).await;
            server.await.unwrap();
            seen
        })
    }

    fn right() -> Vec<u8> {
        let mut body = Vec::new();
        fill(&mut body, ID, Side::Response, 20);
        body
    }

    fn answer(head: &str, body: &[u8]) -> Vec<u8> {
        [format!("HTTP/1.1 200 OK\r\nX-Id: {ID}\r\n{head}\r\n").as_bytes(), body].concat()
    }

    #[test]
    fn a_whole_answer_is_known_by_its_body() {
        let chunked = [b"5\r\n", &right()[..5], b"\r\nf;x=y\r\n", &right()[5..], b"\r\n0\r\na: b\r\n\r\n"].concat();
        for (head, body) in [("Content-Length: 20\r\n", right()), ("Transfer-Encoding: chunked\r\n", chunked)] {
            let (end, keep) = seen(answer(head, &body));
            let expected = Answer { status: 200, id: Some(ID), heard: None, body: Body::Right };
            assert_eq!((end, keep), (End::Answered(expected), true), "{head}");
        }
        let body = |length: usize, bytes: &[u8]| match seen(answer(&format!("Content-Length: {length}\r\n"), bytes)).0 {
            End::Answered(answer) => answer.body,
            End::Failed(..) => panic!("it is whole"),
        };
        assert_eq!(body(10, &right()[..10]), Body::Short);
        assert_eq!(body(20, &[b'x'; 20]), Body::Wrong);
    }

    #[test]
    fn what_is_not_whole_is_not_taken_for_it() {
        let cut = |bytes| seen(bytes).0;
        assert_eq!(cut(Vec::new()), End::Failed(Why::Dropped, None));
        assert_eq!(cut(b"HTTP/1.1 2".to_vec()), End::Failed(Why::Cut, None));
        assert_eq!(cut(answer("Content-Length: 20\r\n", &right()[..19])), End::Failed(Why::Cut, Some(200)));
        let chunk = [b"14\r\n", &right()[..], b"\r\n"].concat();
        assert_eq!(cut(answer("Transfer-Encoding: chunked\r\n", &chunk)), End::Failed(Why::Cut, Some(200)));
        assert_eq!(cut(b"what?\r\n\r\n".to_vec()), End::Failed(Why::Garbage, None));
    }
}
