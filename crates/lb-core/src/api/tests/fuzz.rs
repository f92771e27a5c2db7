//! Answers of the admin API that our own command line reads, fed with anything: what is read is written as the same.

use std::fmt::Debug;

use lb_fuzz::{Fuzz, Seen};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{DrainReport, Event, Problem};

const WORDS: &[&[u8]] = &[
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"false",
    b"0",
    b"-1",
    b"1.5",
    b"18446744073709551615",
    b"\\u0000",
    b"\\ud800",
    b"\\n",
    b"\xff",
    b" ",
    b"\"pool\"",
    b"\"backend\"",
    b"\"admin\"",
    b"\"ready\"",
    b"\"drain\"",
    b"\"safe_to_stop\"",
    b"\"in_flight\"",
    b"\"requests\"",
    b"\"at_deadline\"",
    b"\"wait\"",
    b"\"words\"",
    b"\"type\"",
    b"\"status\"",
    b"\"detail\"",
];

fn again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let text = serde_json::to_string(&read).expect("what was read can be written");
    assert_eq!(serde_json::from_str::<T>(&text).as_ref().ok(), Some(&read), "{text}");
    Some(read)
}

#[test]
fn fuzz_api_answers() {
    Fuzz::new(env!("CARGO_MANIFEST_DIR"), "api_answer").words(WORDS).run(|bytes| {
        if let Some(report) = again::<DrainReport>(bytes) {
            let flight = report.in_flight;
            return Seen::taken().of(&(report.safe_to_stop, report.drain.is_some(), flight.oldest_ms.is_some()));
        }
        if let Some(problem) = again::<Problem>(bytes) {
            return Seen::taken().of(&(problem.status == 404));
        }
        if let Some(event) = again::<Event>(bytes) {
            return Seen::taken().of(&(event.pool.is_some(), event.backend.is_some()));
        }
        Seen::refused().of(&serde_json::from_slice::<serde_json::Value>(bytes).is_ok())
    });
}
