//! Sends mutations through a balancer, each on a connection of its own, and looks at what comes back.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::ledger::Form;
use super::wrong::{Finding, Wrong};
use crate::probes::answers::{self, Answer};
use crate::probes::reading::{self, End, Request};

/// Connections to one balancer at a time.
const CONNECTIONS: usize = 24;

/// A balancer that neither answers nor closes for so long waits for more; what it waits for is then ended.
const QUIET: Duration = Duration::from_millis(400);

/// The longest that anything may take: several requests on one connection, each of which may run into the balancer's
/// timeout.
const HANG: Duration = Duration::from_secs(90);

/// What to send.
pub(crate) type Source = Arc<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// What came of a part of a campaign.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub sent: u64,
    pub bytes: u64,
    /// Answers of the server behind the balancer, and of the balancer.
    pub forwarded: u64,
    pub refused: u64,
    /// Answers of the server that broke off; the balancer must say the same of as many.
    pub cut: u64,
    /// By the id that the server said back.
    pub echoes: HashMap<String, Echo>,
    /// What must not be, with the number and the bytes that it came of.
    pub wrong: Wrong,
}

/// A request that was answered, as its client knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Echo {
    /// The client's end of the connection.
    pub port: u16,
    /// Of the body that a strict reader finds.
    pub body_hash: u64,
}

pub(crate) fn hash(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}

/// Sends `source(n)` for all of `numbers` to the balancer on `port`.
pub(crate) async fn run(port: u16, form: Form, numbers: Arc<Vec<u64>>, source: Source) -> Tally {
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (numbers, source, next) = (Arc::clone(&numbers), Arc::clone(&source), Arc::clone(&next));
        tasks.spawn(async move {
            let mut tally = Tally::default();
            while let Some(number) = numbers.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                let bytes = source(*number);
                match timeout(HANG, converse(port, form, &bytes, &mut tally)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(finding)) => tally.wrong(*number, &bytes, finding),
                    Err(_) => tally.wrong(*number, &bytes, ("neither answered nor closed", String::new())),
                }
            }
            tally
        });
    }
    let mut sum = Tally::default();
    while let Some(tally) = tasks.join_next().await {
        sum.add(tally.expect("a task of the campaign does not panic"));
    }
    sum
}

impl Tally {
    fn wrong(&mut self, number: u64, bytes: &[u8], (kind, words): Finding) {
        let shown = &bytes[..bytes.len().min(1500)];
        self.wrong.add((kind, format!("number {number}: {words}\n      {}", shown.escape_ascii())));
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.forwarded += other.forwarded;
        self.refused += other.refused;
        self.cut += other.cut;
        self.wrong.extend(other.wrong);
        for (id, echo) in other.echoes {
            if self.echoes.insert(id.clone(), echo).is_some() {
                self.wrong.add(("two answers with one id", id));
            }
        }
    }
}

/// One connection: everything is sent at once, everything is read.
async fn converse(port: u16, form: Form, bytes: &[u8], tally: &mut Tally) -> Result<(), Finding> {
    let (requests, end) = reading::read(bytes);
    let methods: Vec<&str> = requests.iter().map(|request| form.method_answered(&request.method)).collect();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(|e| ("cannot connect", e.to_string()))?;
    let own_port = stream.local_addr().map_err(|e| ("no local address", e.to_string()))?.port();
    // Everything is read before the end: a reset then leaves no connection behind that waits for its time.
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .map_err(|e| ("cannot set linger", e.to_string()))?;
    let received = exchange(&mut stream, bytes, &methods, end).await;
    tally.sent += 1;
    tally.bytes += bytes.len() as u64;
    let answers = read_answers(&received, &methods, tally)?;
    for (place, answer) in answers.iter().enumerate() {
        if answer.field("via").is_none() {
            judge_ours(answer, place + 1 == answers.len(), tally)?;
            continue;
        }
        tally.forwarded += 1;
        match requests.get(place) {
            Some(request) => judge_echo(form, request, answer, own_port, tally)?,
            // It may be answered before it is there as a whole, or before it is seen that its body is none.
            None if matches!(end, End::Incomplete | End::RefusedInside(_))
                && place == requests.len()
                && answer.field("x-echo").is_none() => {}
            None => {
                let echo = answer.field("x-echo");
                return Err(("an answer to what is no request", format!("{place}: {} for {echo:?}", answer.status)));
            }
        }
    }
    Ok(())
}

/// All of them, to the last byte.
fn read_answers(received: &[u8], methods: &[&str], tally: &mut Tally) -> Result<Vec<Answer>, Finding> {
    // What is no request has no method: a refusal may treat it as a HEAD, or not.
    for last in ["?", "HEAD"] {
        if let Ok((answers, false)) = answers::read(received, &[methods, &[last]].concat()) {
            return Ok(answers);
        }
    }
    let (answers, _) =
        answers::read(received, methods).map_err(|words| ("an answer that is not well formed", words))?;
    // Node resets the connection behind what it refuses, sometimes before its answer is through. An answer without a
    // length is not complete then, and must not look so.
    let last = received.windows(9).rposition(|window| window == b"HTTP/1.1 ").unwrap_or_default();
    if received[last..].windows(7).any(|window| window == b"\r\nvia: ") {
        tally.cut += 1;
        return Ok(answers);
    }
    Err(("closed inside an answer", received.escape_ascii().to_string()))
}

/// Everything that the balancer sends until it closes.
async fn exchange(stream: &mut TcpStream, bytes: &[u8], methods: &[&str], end: End) -> Vec<u8> {
    let mut received = Vec::new();
    let (mut reader, mut writer) = stream.split();
    let write = async {
        // Refused in the middle of it: what there is to say about that is in the answer.
        let _ = writer.write_all(bytes).await;
        writer
    };
    let mut early = Vec::new();
    let read = async { while matches!(reader.read_buf(&mut early).await, Ok(1..)) {} };
    let mut writer = tokio::select! {
        biased;
        writer = write => writer,
        () = read => return early,
    };
    received.append(&mut early);
    let mut ended = false;
    loop {
        let all_there = || answers::read(&received, methods).is_ok_and(|(answers, _)| answers.len() >= methods.len());
        // A strict reader expects nothing more from this: it is the client's end that is waited for.
        if !ended && !matches!(end, End::Refused(_) | End::RefusedInside(_)) && all_there() {
            let _ = writer.shutdown().await;
            ended = true;
        }
        match timeout(QUIET, reader.read_buf(&mut received)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return received,
            Err(_) if !ended => {
                let _ = writer.shutdown().await;
                ended = true;
            }
            Err(_) => {}
        }
    }
}

/// A reply of the balancer's own: behind a refusal nothing is read any more.
fn judge_ours(answer: &Answer, is_last: bool, tally: &mut Tally) -> Result<(), Finding> {
    tally.refused += 1;
    let is_refusal = (400..500).contains(&answer.status);
    match (is_refusal, answer.closes(), is_last) {
        (true, false, _) => Err(("a refusal without connection: close", answer.status.to_string())),
        (true, true, false) => Err(("an answer behind a refusal", answer.status.to_string())),
        _ => Ok(()),
    }
}

/// What the server says that it answers is what was sent there.
fn judge_echo(form: Form, sent: &Request, answer: &Answer, port: u16, tally: &mut Tally) -> Result<(), Finding> {
    // Without it the server did not like the request: it need not have read all of it.
    let Some(echo) = answer.field("x-echo") else { return Ok(()) };
    let words: Vec<&str> = echo.split(' ').collect();
    let [id, method, target] = words[..] else { return Err(("the server says something else", echo)) };
    if !form.same_method(&sent.method, method) || !form.same_target(&sent.origin_form(), target) {
        let words = format!("{echo:?}, sent was {} {}", sent.method, sent.origin_form());
        return Err(("an answer to another request", words));
    }
    match tally.echoes.insert(id.to_owned(), Echo { port, body_hash: hash(&sent.body) }) {
        None => Ok(()),
        Some(_) => Err(("two answers with one id", id.to_owned())),
    }
}
