//! One connection to a balancer: raw bytes in, and everything that comes back.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::answers::{self, Answer};

/// The longest wait for a final status.
pub(crate) const PATIENCE: Duration = Duration::from_millis(2500);

/// A connection, and what was received on it.
pub(crate) struct Conversation {
    stream: TcpStream,
    methods: Vec<String>,
    received: Vec<u8>,
    closed: bool,
}

impl Conversation {
    /// Connects and sends `bytes`, whose requests have these methods.
    pub(crate) async fn start(port: u16, bytes: &[u8], methods: Vec<String>) -> Self {
        let stream = e2e::raw::connect(port).await;
        let mut conversation = Self { stream, methods, received: Vec::new(), closed: false };
        conversation.send(bytes).await;
        conversation
    }

    /// Sends on, and takes what comes meanwhile: a refusal may come before everything is sent.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        let (mut reader, mut writer) = self.stream.split();
        let write = async {
            // Refused in the middle of it: what there is to say about that is in the answer.
            let _ = writer.write_all(bytes).await;
        };
        let read = async { while matches!(reader.read_buf(&mut self.received).await, Ok(1..)) {} };
        tokio::select! {
            biased;
            () = write => {}
            () = read => self.closed = true,
        }
    }

    /// Waits until there are `count` final answers, or the other side closes, or it takes too long.
    ///
    /// # Errors
    /// What is not well formed in what came.
    pub(crate) async fn answers(&mut self, count: usize) -> Result<Vec<Answer>, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answers = self.parsed()?;
            if answers.len() >= count || self.closed || !self.read(deadline).await {
                return Ok(answers);
            }
        }
    }

    /// Whether the other side closes, without another byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let (deadline, before) = (Instant::now() + PATIENCE, self.received.len());
        while !self.closed && self.read(deadline).await {}
        self.closed && self.received.len() == before
    }

    fn parsed(&self) -> Result<Vec<Answer>, String> {
        let methods: Vec<&str> = self.methods.iter().map(String::as_str).collect();
        let (answers, begun) = answers::read(&self.received, &methods)?;
        if begun && self.closed {
            return Err(format!("closed inside an answer: {}", String::from_utf8_lossy(&self.received)));
        }
        Ok(answers)
    }

    /// Reads once; whether there may be more.
    async fn read(&mut self, deadline: Instant) -> bool {
        match timeout_at(deadline, self.stream.read_buf(&mut self.received)).await {
            Ok(Ok(1..)) => true,
            Ok(_) => {
                self.closed = true;
                true
            }
            Err(_) => false,
        }
    }
}
