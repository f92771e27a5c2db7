//! Closed-loop load: keep-alive connections that each send a GET, check its answer, and send the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// An answer that takes longer has failed: above every timeout of the balancer that a test leaves at its default.
const ANSWER_PATIENCE: Duration = Duration::from_secs(40);

/// What a load run is to do.
#[derive(Clone)]
pub struct Plan {
    pub port: u16,
    pub connections: usize,
    /// All connections together.
    pub requests: u64,
    /// Whether a connection that was closed (after an answer that said so) is opened again.
    pub reconnect: bool,
}

/// A load run under way.
pub struct Load {
    tasks: JoinSet<Tally>,
    answered: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Tally {
    pub answered: u64,
    /// By the server named in `X-Served-By`.
    pub by_server: BTreeMap<String, u64>,
    /// What went wrong, in words; the first few.
    pub failures: Vec<String>,
    pub failed: u64,
    /// Connections that the balancer closed after saying so.
    pub closed: u64,
}

impl Load {
    /// Starts it.
    pub fn start(plan: &Plan) -> Self {
        let (answered, started) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..plan.connections {
            let (plan, answered, started, stop) = (plan.clone(), answered.clone(), started.clone(), stop.clone());
            tasks.spawn(async move { connection(&plan, &started, &answered, &stop).await });
        }
        Self { tasks, answered, stop }
    }

    /// Answers so far.
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether everything is done.
    pub fn is_done(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Lets each connection finish its request and stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for the end.
    pub async fn finish(mut self) -> Tally {
        let mut sum = Tally::default();
        while let Some(tally) = self.tasks.join_next().await {
            let tally = tally.expect("a load task does not panic");
            sum.answered += tally.answered;
            sum.failed += tally.failed;
            sum.closed += tally.closed;
            sum.failures.extend(tally.failures);
            for (server, count) in tally.by_server {
                *sum.by_server.entry(server).or_default() += count;
            }
        }
        sum
    }
}

/// Runs a plan to its end.
pub async fn run(plan: &Plan) -> Tally {
    Load::start(plan).finish().await
}

async fn connection(plan: &Plan, started: &AtomicU64, answered: &AtomicU64, stop: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    let mut stream: Option<TcpStream> = None;
    let mut buffer = Vec::with_capacity(4096);
    while !stop.load(Ordering::Relaxed) && started.fetch_add(1, Ordering::Relaxed) < plan.requests {
        let mut open = match stream.take() {
            Some(open) => open,
            None if tally.closed > 0 && !plan.reconnect => break,
            None => match TcpStream::connect(("127.0.0.1", plan.port)).await {
                Ok(open) => open,
                Err(error) => {
                    tally.fail(format!("connect: {error}"));
                    continue;
                }
            },
        };
        let _ = open.set_nodelay(true);
        match tokio::time::timeout(ANSWER_PATIENCE, exchange(&mut open, &mut buffer)).await {
            Ok(Ok((server, close))) => {
                tally.answered += 1;
                answered.fetch_add(1, Ordering::Relaxed);
                *tally.by_server.entry(server).or_default() += 1;
                if close {
                    tally.closed += 1;
                } else {
                    stream = Some(open);
                }
            }
            Ok(Err(words)) => tally.fail(words),
            Err(_) => tally.fail("no answer in time".to_owned()),
        }
    }
    tally
}

impl Tally {
    fn fail(&mut self, words: String) {
        self.failed += 1;
        if self.failures.len() < 5 {
            self.failures.push(words);
        }
    }
}

/// One request and its whole answer: the server's name, and whether the connection is to be closed.
async fn exchange(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(String, bool), String> {
    let sent = stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    sent.map_err(|error| format!("write: {error}"))?;
    buffer.clear();
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read_buf(buffer).await.map_err(|error| format!("read: {error}"))?;
        if read == 0 {
            return Err(format!("closed after {} bytes of an answer", buffer.len()));
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).to_ascii_lowercase();
    if !head.starts_with("http/1.1 200 ") {
        return Err(String::from_utf8_lossy(buffer).into_owned());
    }
    let field = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim().to_owned())
    };
    let length: usize = field("content-length").and_then(|n| n.parse().ok()).ok_or("no content-length")?;
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await.map_err(|error| format!("read: {error}"))? == 0 {
            return Err("closed inside a body".to_owned());
        }
    }
    if buffer.len() > head_end + length {
        return Err("more than one answer".to_owned());
    }
    let close = field("connection").is_some_and(|value| value.contains("close"));
    Ok((field("x-served-by").unwrap_or_default(), close))
}
