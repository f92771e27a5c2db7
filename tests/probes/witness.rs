//! An origin that answers 200 to whatever is a request to a strict reader, and keeps every byte that reached it.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::reading::{self, End, Request};

/// Marks an answer of the origin's.
pub(crate) const MARK: &str = "x-witness";

/// What reached the origin.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub requests: Vec<Request>,
    /// All bytes of all connections that said anything, in lower case.
    pub wire: Vec<u8>,
    /// What was no request to it.
    pub malformed: Vec<&'static str>,
}

/// A witness; gone when dropped.
pub(crate) struct Witness {
    port: u16,
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

impl Witness {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, Arc::clone(&shared)));
            }
        });
        Self { port, seen, task }
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What was seen since this was last asked.
    pub(crate) fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen.lock().expect("no panic while writing it down"))
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let (mut buffer, mut kept) = (Vec::new(), 0);
    while matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {
        seen.lock().expect("no panic here").wire.extend(buffer[kept..].to_ascii_lowercase());
        loop {
            match reading::next(&buffer) {
                Ok((request, length)) => {
                    buffer.drain(..length);
                    let answer = answer(&request);
                    seen.lock().expect("no panic here").requests.push(request);
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
                Err(End::Through | End::Incomplete) => break,
                Err(End::Refused(why) | End::RefusedInside(why)) => {
                    seen.lock().expect("no panic here").malformed.push(why);
                    return;
                }
            }
        }
        kept = buffer.len();
    }
}

fn answer(request: &Request) -> Vec<u8> {
    let body = format!("{} {} {}", request.method, request.target, request.body.len());
    let head = format!("HTTP/1.1 200 OK\r\n{MARK}: 1\r\ncontent-length: {}\r\n\r\n", body.len());
    if request.method == "HEAD" { head.into_bytes() } else { [head, body].concat().into_bytes() }
}
