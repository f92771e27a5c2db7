//! RFC 9110 and 9112, requirement by requirement, with raw bytes on both sides. Each test names its section and its
//! numbers in the project's list of requirements (`(item 7)`); [`every_item_is_tested_or_excused`] keeps the list whole.

mod chunked;
mod connection;
mod continuation;
mod fields;
mod forwarding;
mod framing;
mod request_line;
mod responses;
mod trailers;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use e2e::origin::{Origin, Record};
use e2e::program::scratch_dir;
use e2e::wire::{End, Message, Wire};

use super::Balancer;

/// An answer that nothing is wrong with.
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What stands behind a request that is refused: must never be taken for a request.
const BEHIND: &str = "GET /behind HTTP/1.1\r\nhost: x\r\n\r\n";

/// A balancer with one worker before one backend that answers every request alike and notes it.
struct Rig {
    balancer: Balancer,
    origin: Origin,
    record: Record,
}

impl Rig {
    async fn start() -> Self {
        Self::answering(OK, true).await
    }

    async fn answering(answer: &[u8], keep: bool) -> Self {
        Self::with(answer, keep, &[]).await
    }

    async fn with(answer: &[u8], keep: bool, args: &[&str]) -> Self {
        let (origin, record) = Origin::recording(answer, keep).await;
        let balancer = before(&origin, args).await;
        Self { balancer, origin, record }
    }

    async fn connect(&self) -> Wire {
        Wire::connect(self.balancer.port()).await
    }

    /// The answer to `request`, alone on a connection of its own.
    async fn answer(&self, request: impl AsRef<[u8]>) -> Message {
        let request = request.as_ref();
        let mut client = self.connect().await;
        client.send(request).await.expect("a request can be sent");
        let answer = if request.starts_with(b"HEAD") { client.message_to_head().await } else { client.message().await };
        answer.unwrap_or_else(|| panic!("no answer to {}", shown(request)))
    }

    /// What the backend gets of `request`, which must be answered with 200.
    async fn forwarded(&self, request: impl AsRef<[u8]>) -> Message {
        let request = request.as_ref();
        let answer = self.answer(request).await;
        assert_eq!(answer.status(), 200, "{}: {}", shown(request), answer.head);
        let mut got = self.record.take();
        assert_eq!(got.len(), 1, "{}: {got:?}", shown(request));
        got.remove(0)
    }

    /// `request` is answered with `status`, the connection is closed after that answer without a reset, what stood
    /// behind it is not looked at, and no backend hears of any of it.
    async fn refuses(&self, status: u16, request: impl AsRef<[u8]>) -> Message {
        self.refuses_with(&[status], request).await
    }

    /// As [`Self::refuses`], with more than one status that the RFC allows.
    async fn refuses_with(&self, statuses: &[u16], request: impl AsRef<[u8]>) -> Message {
        let request = request.as_ref();
        let shown = shown(request);
        let (already, mut client) = (self.origin.requests(), self.connect().await);
        // It may be refused, and the connection closed, before all of it is written.
        let _ = client.send([request, BEHIND.as_bytes()].concat()).await;
        let answer = if request.starts_with(b"HEAD") { client.message_to_head().await } else { client.message().await };
        let answer = answer.unwrap_or_else(|| panic!("closed without an answer: {shown}"));
        assert!(statuses.contains(&answer.status()), "{shown}: not {statuses:?} but {}{}", answer.head, answer.text());
        assert_eq!(answer.field("connection").map(str::to_ascii_lowercase).as_deref(), Some("close"), "{shown}");
        assert_ne!(answer.end, End::Cut, "{shown}");
        let (more, clean) = client.until_closed().await;
        assert!(more.is_empty(), "{shown}: went on with {:?}", String::from_utf8_lossy(&more));
        assert!(clean, "{shown}: the reply could be lost to a reset");
        assert_eq!(self.origin.requests(), already, "a backend heard of {shown}");
        answer
    }
}

/// A balancer with one worker before `origin`.
async fn before(origin: &Origin, args: &[&str]) -> Balancer {
    Balancer::start(&[origin.address()], &[&["--workers", "1"], args].concat()).await
}

/// A configuration file of these lines; `name` tells it from those of other tests.
fn file(name: &str, text: &str) -> String {
    let path = scratch_dir().join(format!("rfc-{name}.toml"));
    std::fs::write(&path, text).expect("the temporary directory is writable");
    path.display().to_string()
}

/// For messages: the beginning, with what is invisible made visible.
fn shown(bytes: &[u8]) -> String {
    let (start, more) = bytes.split_at(bytes.len().min(160));
    format!("{:?}{}", String::from_utf8_lossy(start), if more.is_empty() { "" } else { "…" })
}

/// Items that no test names, and why.
const EXCUSED: &[(u32, &str)] = &[
    (36, "a close without close_notify is TLS's; there is no TLS on either side"),
    (64, "421 answers a wrong authority on a TLS connection; there is no TLS, and no route by host"),
];

/// How many of the list's items concern HTTP/1.
const ITEMS: u32 = 68;

#[test]
fn every_item_is_tested_or_excused() {
    let mut tested: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadbalancer/rfc");
    for entry in std::fs::read_dir(&here).expect("the sources of these tests are here") {
        let text = std::fs::read_to_string(entry.expect("readable").path()).expect("readable");
        let mut named = BTreeSet::new();
        for line in text.lines() {
            if let Some(doc) = line.strip_prefix("/// ") {
                named.extend(items(doc));
            } else if let Some(name) = line.strip_prefix("async fn ").and_then(|rest| rest.split('(').next()) {
                std::mem::take(&mut named).into_iter().for_each(|n| tested.entry(n).or_default().push(name.to_owned()));
            } else if line.is_empty() {
                named.clear();
            }
        }
    }
    let excused: BTreeSet<u32> = EXCUSED.iter().map(|(item, _)| *item).collect();
    let missing: Vec<u32> = (1..=ITEMS).filter(|n| !tested.contains_key(n) && !excused.contains(n)).collect();
    assert!(missing.is_empty(), "no test names the items {missing:?}");
    let stale: Vec<&u32> = excused.iter().filter(|n| tested.contains_key(n)).collect();
    assert!(stale.is_empty(), "tested and excused: {stale:?}");
    let strange: Vec<&u32> = tested.keys().filter(|n| !(1..=ITEMS).contains(n)).collect();
    assert!(strange.is_empty(), "there are no items {strange:?}");
}

/// The numbers in `… (item 7)` or `… (items 7, 8)`; only where a section of an RFC stands before them.
fn items(doc: &str) -> Vec<u32> {
    let Some((before, list)) = doc.rsplit_once("(item") else { return Vec::new() };
    if !before.contains("RFC 91") || !before.contains('§') {
        return Vec::new();
    }
    let list = list.trim_start_matches('s').split(')').next().unwrap_or_default();
    list.split(',').filter_map(|number| number.trim().parse().ok()).collect()
}
