//! Lines of the access log made of anything: each is one JSON object on one line, in plain ASCII, that gives the bytes
//! back, so that what a client sends can forge neither a line nor a value, and reaches no terminal.

use std::time::Duration;

use lb_fuzz::{Fuzz, Seen, pieces_of, seed_of};
use serde_json::Value;

use super::line::{Ended, Facts, Head};

const WORDS: &[&[u8]] = &[
    b"\"",
    b"\\",
    b"\\\"",
    b"\\u0022",
    b"\n",
    b"\r\n",
    b"\0",
    b"\x1b[2J",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xc3\xa4",
    b"\xe2\x80\xa8",
    b"\",\"status\":200,\"x\":\"",
    b"\"}\n{\"time\":\"",
    b"'",
    b"<",
    b"&",
    b"/",
    b"?",
    b"[",
    b":",
];

const KEYS: [&str; 17] = [
    "time",
    "id",
    "peer",
    "client",
    "method",
    "target",
    "host",
    "version",
    "status",
    "reason",
    "pool",
    "backend",
    "attempts",
    "request_bytes",
    "response_bytes",
    "duration_us",
    "ended",
];

#[test]
fn fuzz_access_line() {
    let mut out = Vec::new();
    let mut facts = Facts::default();
    Fuzz::new(env!("CARGO_MANIFEST_DIR"), "access_line").words(WORDS).takes_all().run(|bytes| {
        let pieces = pieces_of(bytes);
        let text = |at: usize| pieces[at % pieces.len()];
        let number = seed_of(bytes);
        let address = if number.is_multiple_of(2) { "::1" } else { "192.0.2.1" };
        let head = Head {
            peer: (address, number as u16),
            client: text(0),
            method: text(1),
            target: text(2),
            host: text(3),
            version: "1.1",
        };
        // Used again, as a worker does.
        facts.clear();
        head.put(&mut facts.head);
        facts.id.extend_from_slice(text(4));
        facts.pool.extend_from_slice(text(5));
        facts.backend.extend_from_slice(text(6));
        (facts.status, facts.attempts) = (number as u16, number as u32);
        (facts.request_bytes, facts.response_bytes) = (number, number.rotate_left(7));
        facts.ended = Ended::Complete;
        let took = Duration::from_micros(number >> 8);
        let before = out.len();
        facts.put(&mut out, b"2026-07-02T10:11:12.345Z", took);
        let line = out[before..].strip_suffix(b"\n").expect("a line's end");
        assert!(line.iter().all(|byte| (0x20..0x7f).contains(byte)), "{}", line.escape_ascii());
        let value: Value = serde_json::from_slice(line).expect("JSON");
        let object = value.as_object().expect("an object");
        assert_eq!(object.len(), KEYS.len());
        for (key, at) in
            [("client", 0), ("method", 1), ("target", 2), ("host", 3), ("id", 4), ("pool", 5), ("backend", 6)]
        {
            let back: Option<Vec<u8>> =
                value[key].as_str().unwrap().chars().map(|c| u8::try_from(u32::from(c)).ok()).collect();
            assert_eq!(back.as_deref(), Some(text(at)), "{key}");
        }
        let numbers =
            ["status", "attempts", "request_bytes", "response_bytes", "duration_us"].map(|key| value[key].as_u64());
        let sent = [(number as u16).into(), (number as u32).into(), number, number.rotate_left(7), number >> 8];
        assert_eq!(numbers, sent.map(Some));
        in_order(line);
        // The line before is as it was: nothing is written but behind it.
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), if before == 0 { 1 } else { 2 });
        out.drain(..before);
        let kinds = [b'"', b'\\', b'\n', 0x1b, 0x7f, 0xc3].map(|byte| bytes.contains(&byte));
        kinds
            .iter()
            .enumerate()
            .filter(|(_, has)| **has)
            .fold(Seen::taken().of(&pieces.len().min(3)), |seen, kind| seen.of(&kind))
    });
}

/// The keys stand in their order, which tools that cut lines rely on, and each value ends before the next key.
fn in_order(line: &[u8]) {
    let mut rest = std::str::from_utf8(line).unwrap();
    for (at, key) in KEYS.iter().enumerate() {
        let start = format!("{}\"{key}\":", if at == 0 { '{' } else { ',' });
        rest = rest.strip_prefix(&start).unwrap_or_else(|| panic!("{key} does not stand before {rest}"));
        // Nothing is escaped but by \u00XX: a quote always ends a text.
        let end = match rest.strip_prefix('"') {
            Some(text) => 2 + text.find('"').unwrap(),
            None => rest.find([',', '}']).unwrap(),
        };
        rest = &rest[end..];
    }
    assert_eq!(rest, "}");
}
