//! Scripted backends: a listener that reads request heads and lets a script answer with raw bytes.
//!
//! Connections that close without sending anything (the balancer's health checks) are not counted.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::wire::{Message, Wire};

/// A request as a scripted backend sees it.
pub struct Seen {
    /// Up to and with the empty line.
    pub head: String,
    /// What came in the same reads behind it.
    pub rest: Vec<u8>,
    /// 0 for the first request on this origin.
    pub number: usize,
    /// 0 for the first request on its connection.
    pub on_connection: usize,
}

/// A scripted backend; gone when dropped.
pub struct Origin {
    port: u16,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Origin {
    /// Starts one whose `script` answers each request. It gives the connection back if it stays open.
    pub async fn start<F, A>(script: F) -> Self
    where
        F: Fn(Seen, TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = Option<TcpStream>> + Send,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port can be had");
        let port = listener.local_addr().expect("a bound listener has an address").port();
        let (requests, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (script, counted, opened) = (Arc::new(script), Arc::clone(&requests), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, counted, opened) = (Arc::clone(&script), Arc::clone(&counted), Arc::clone(&opened));
                tokio::spawn(async move { converse(stream, &*script, &counted, &opened).await });
            }
        });
        Self { port, requests, connections, task }
    }

    /// One that sends `answer` to every request, and keeps the connection if `keep`.
    pub async fn answering(answer: &'static [u8], keep: bool) -> Self {
        Self::start(
            move |_, mut stream| async move { (stream.write_all(answer).await.is_ok() && keep).then_some(stream) },
        )
        .await
    }

    /// One that closes the connection when a request has come.
    pub async fn hanging_up() -> Self {
        Self::answering(b"", false).await
    }

    /// One that reads each request to its end, notes it, sends `answer`, and keeps the connection if `keep`.
    pub async fn recording(answer: &[u8], keep: bool) -> (Self, Record) {
        let (record, answer) = (Record::default(), answer.to_vec());
        let noted = record.clone();
        let origin = Self::start(move |seen, stream| {
            let (noted, answer) = (noted.clone(), answer.clone());
            async move {
                let mut wire = Wire::resume(stream, seen.rest);
                let message = wire.rest_of(seen.head, false).await;
                noted.note(message);
                wire.send(&answer).await.ok()?;
                let (stream, rest) = wire.into_parts();
                assert!(rest.is_empty(), "behind a request: {:?}", String::from_utf8_lossy(&rest));
                keep.then_some(stream)
            }
        })
        .await;
        (origin, record)
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Requests seen.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    /// Connections that carried a request.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// What a recording backend got.
#[derive(Clone, Debug, Default)]
pub struct Record(Arc<Mutex<Vec<Message>>>);

impl Record {
    /// For scripts of their own.
    pub fn note(&self, message: Message) {
        self.0.lock().expect("no panic while noting").push(message);
    }

    /// All that has come since the last call.
    pub fn take(&self) -> Vec<Message> {
        std::mem::take(&mut *self.0.lock().expect("no panic while noting"))
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn converse<F, A>(mut stream: TcpStream, script: &F, requests: &AtomicUsize, connections: &AtomicUsize)
where
    F: Fn(Seen, TcpStream) -> A,
    A: Future<Output = Option<TcpStream>>,
{
    let mut on_connection = 0;
    while let Some((head, rest)) = read_request(&mut stream).await {
        if on_connection == 0 {
            connections.fetch_add(1, Ordering::SeqCst);
        }
        let number = requests.fetch_add(1, Ordering::SeqCst);
        match script(Seen { head, rest, number, on_connection }, stream).await {
            Some(open) => (stream, on_connection) = (open, on_connection + 1),
            None => return,
        }
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut received = Vec::new();
    loop {
        if let Some(at) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = received.split_off(at + 4);
            return Some((String::from_utf8_lossy(&received).into_owned(), rest));
        }
        if stream.read_buf(&mut received).await.ok()? == 0 {
            return None;
        }
    }
}
