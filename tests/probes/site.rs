//! A balancer before a witness, and the trial of one probe there.

use std::collections::BTreeMap;

use e2e::http;
use e2e::program::Program;

use super::answers::Answer;
use super::conversation::Conversation;
use super::corpus::Probe;
use super::reading;
use super::witness::{MARK, Seen, Witness};

/// Sent behind a probe that left the connection open: the next answer must be to this.
const CANARY: &[u8] = b"GET /canary HTTP/1.1\r\nHost: canary\r\n\r\n";
/// Sent together with a probe that is refused: nobody may ever read it.
const BEHIND: &[u8] = b"GET /behind HTTP/1.1\r\nHost: behind\r\n\r\n";

pub(crate) struct Site {
    balancer: Program,
    witness: Witness,
}

/// What came of one probe.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    pub answers: Vec<Answer>,
    /// Whether the connection was closed behind them.
    pub closed: bool,
    /// By how much which `lb_rejected_total` grew.
    pub reasons: BTreeMap<String, u64>,
    /// What reached the origin, in lower case.
    pub wire: Vec<u8>,
    /// What must not be, whatever the probe.
    pub wrong: Vec<String>,
}

impl Exchange {
    pub(crate) fn statuses(&self) -> Vec<u16> {
        self.answers.iter().map(|answer| answer.status).collect()
    }

    /// Whether it ends with a reply of the balancer's own.
    pub(crate) fn refused(&self) -> bool {
        self.answers.last().is_some_and(is_ours)
    }
}

impl Site {
    pub(crate) async fn start() -> Self {
        let witness = Witness::start().await;
        let args = ["--port", "0", "--admin-port", "0", "--workers", "1", "--retries", "0", "--backend"];
        let balancer = Program::start("loadbalancer", &[&args[..], &[&witness.address()]].concat(), &[]).await;
        Self { balancer, witness }
    }

    /// Sends a probe, and if it is refused, again with a request behind it.
    pub(crate) async fn try_probe(&self, probe: &Probe) -> Exchange {
        let count = probe.columns[1].split(' ').take_while(|word| !word.contains("none")).count();
        let is_ours = probe.columns.len() > 2;
        let count = if is_ours { count } else { 1 };
        let before = self.reasons().await;
        let mut exchange = self.converse(&probe.bytes, count).await;
        exchange.reasons = grown(&before, &self.reasons().await);
        if exchange.refused() && exchange.closed {
            let again = self.converse(&[&probe.bytes, BEHIND].concat(), exchange.answers.len()).await;
            exchange.wrong.extend(again.wrong.iter().map(|words| format!("with a request behind it: {words}")));
            if again.statuses() != exchange.statuses() {
                exchange.wrong.push(format!("with a request behind it: {:?}", again.statuses()));
            }
            if reading::find(&again.wire, b"/behind").is_some() {
                exchange.wrong.push("a request behind the refused one was read".to_owned());
            }
        }
        exchange
    }

    /// The balancer is still the one that was started, and ends as it should.
    pub(crate) async fn finish(mut self) {
        self.balancer.signal("TERM");
        assert_eq!(self.balancer.wait(e2e::PATIENCE).await.code(), Some(0));
    }

    async fn converse(&self, bytes: &[u8], count: usize) -> Exchange {
        let (requests, _) = reading::read(bytes);
        let mut methods: Vec<String> = requests.iter().map(|request| request.method.clone()).collect();
        // To what is no request there may be an answer nevertheless: without a body if the balancer saw a HEAD.
        methods.push(if bytes.starts_with(b"HEAD ") && requests.is_empty() { "HEAD" } else { "?" }.to_owned());
        let mut conversation = Conversation::start(self.balancer.port("proxy"), bytes, methods).await;
        let mut exchange = Exchange::default();
        // More of them than expected are of interest too.
        match conversation.answers(count.max(requests.len()).max(1)).await {
            Ok(answers) => exchange.answers = answers,
            Err(words) => exchange.wrong.push(words),
        }
        match exchange.answers.last() {
            Some(last) if last.closes() || is_ours(last) || ends(&requests, exchange.answers.len()) => {
                exchange.closed = conversation.is_closed().await;
                if is_ours(last) && !last.closes() {
                    exchange.wrong.push(format!("{} without connection: close", last.status));
                }
                if !exchange.closed {
                    exchange.wrong.push(format!("not closed behind {}", last.status));
                }
            }
            Some(_) if exchange.answers.len() >= requests.len() => {
                exchange.wrong.extend(canary(&mut conversation, exchange.answers.len()).await);
            }
            Some(_) => {}
            None => exchange.closed = conversation.is_closed().await,
        }
        let seen = self.witness.take();
        exchange.wrong.extend(wrong_at_origin(&requests, &exchange, &seen));
        exchange.wire = seen.wire;
        exchange
    }

    async fn reasons(&self) -> BTreeMap<String, u64> {
        let text = http::get(self.balancer.port("admin"), "/metrics").await.text();
        let line = |line: &str| {
            let (labels, count) = line.strip_prefix("lb_rejected_total{reason=\"")?.split_once("} ")?;
            Some((labels.split('"').next()?.to_owned(), count.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }
}

/// RFC 9112 §9.3: behind the answer to this request there is no other, because its client speaks HTTP/1.0.
fn ends(requests: &[reading::Request], answered: usize) -> bool {
    requests.get(answered - 1).is_some_and(|request| !request.is_http11)
}

fn is_ours(answer: &Answer) -> bool {
    answer.field(MARK).is_none()
}

/// The next request on an open connection gets its own answer.
async fn canary(conversation: &mut Conversation, before: usize) -> Option<String> {
    conversation.send(CANARY).await;
    match conversation.answers(before + 1).await {
        Ok(answers) if answers.len() == before + 1 && answers[before].body == b"GET /canary 0" => None,
        Ok(answers) => Some(format!("the next request's answer: {:?}", answers.get(before..))),
        Err(words) => Some(format!("the next request's answer: {words}")),
    }
}

/// The origin has seen exactly the requests that it answered, and they are those that a strict reader finds.
fn wrong_at_origin(sent: &[reading::Request], exchange: &Exchange, seen: &Seen) -> Option<String> {
    if let Some(why) = seen.malformed.first() {
        return Some(format!("the origin got no request ({why}): {:?}", String::from_utf8_lossy(&seen.wire)));
    }
    let seen: Vec<_> = seen.requests.iter().filter(|request| request.target != "/canary").collect();
    let answered = exchange.answers.iter().filter(|answer| !is_ours(answer)).count();
    if seen.len() != answered {
        return Some(format!("{answered} answers of the origin, which saw {}", brief(seen)));
    }
    let alike = |(sent, seen): (&reading::Request, &&reading::Request)| {
        sent.method == seen.method && sent.origin_form() == seen.target && sent.body == seen.body
    };
    let first = &sent[..seen.len().min(sent.len())];
    (first.len() < seen.len() || !first.iter().zip(&seen).all(alike))
        .then(|| format!("sent were {}, the origin saw {}", brief(sent), brief(seen)))
}

fn brief<'a>(requests: impl IntoIterator<Item = &'a reading::Request>) -> String {
    let brief = |r: &reading::Request| format!("{} {} ({} bytes)", r.method, r.origin_form(), r.body.len());
    format!("{:?}", requests.into_iter().map(brief).collect::<Vec<_>>())
}

fn grown(before: &BTreeMap<String, u64>, after: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let growth = |(reason, count): (&String, &u64)| (reason.clone(), count - before.get(reason).unwrap_or(&0));
    after.iter().map(growth).filter(|(_, count)| *count > 0).collect()
}
