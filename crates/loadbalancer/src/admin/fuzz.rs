//! What the admin API is told, fed with anything: a body asks for a state only in the form that refusals name, and a
//! query for a wait only within its bounds.

use lb_core::api::{AdminState, StateChange};
use lb_fuzz::{Fuzz, Seen};
use serde_json::{Value, json};

use super::backend::{LONGEST_WAIT, wait};
use super::v1::asked_state;
use crate::config::duration;

const WORDS: &[&[u8]] = &[
    b"{\"state\":\"",
    b"\"}",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"null",
    b"true",
    b"1",
    b"\\u0064",
    b"\\",
    b" ",
    b"\n",
    b"\xff",
    b"\xef\xbb\xbf",
    b"state",
    b"ready",
    b"drain",
    b"maintenance",
    b"Drain",
    b"wait=",
    b"&",
    b"30s",
    b"50s",
    b"50.1s",
    b"500ms",
    b"1m",
    b"h",
    b"=",
    b"%20",
    b"1e1s",
    b"infs",
    b"NaNs",
    b".",
    b"-1s",
];

#[test]
fn fuzz_admin_body() {
    Fuzz::new(env!("CARGO_MANIFEST_DIR"), "admin_body").words(WORDS).run(|bytes| {
        let read = serde_json::from_slice::<Value>(bytes).ok();
        let Some(state) = asked_state(bytes) else {
            let strict = read == Some(json!({ "state": "drain" })) && bytes.len() == br#"{"state":"drain"}"#.len();
            assert!(!strict, "what is asked for as it should be is refused");
            return Seen::refused().of(&read.as_ref().map(kind));
        };
        assert_eq!(read, Some(json!({ "state": state.as_str() })), "nothing else is in it");
        let once = bytes.windows(b"state".len()).filter(|window| *window == b"state").count();
        assert!(once <= 1, "said twice, by two readings");
        let again = serde_json::to_vec(&StateChange { state }).unwrap();
        assert_eq!(asked_state(&again), Some(state));
        assert!(AdminState::ALL.contains(&state));
        Seen::taken().of(&state)
    });
}

fn kind(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(list) => 4 + u8::from(list.is_empty()),
        Value::Object(object) => 6 + u8::from(object.contains_key("state")) + u8::from(object.len() == 1),
    }
}

#[test]
fn fuzz_admin_query() {
    Fuzz::new(env!("CARGO_MANIFEST_DIR"), "admin_query").words(WORDS).longest(400).run(|bytes| {
        let query = String::from_utf8_lossy(bytes);
        let parts: Vec<&str> = query.split('&').filter(|part| !part.is_empty()).collect();
        match wait(&query) {
            Ok(found) => {
                assert!(found <= LONGEST_WAIT, "{found:?}");
                let said = parts.last().map(|last| last.strip_prefix("wait=").expect("nothing else is understood"));
                assert_eq!(found, said.map_or_else(Default::default, |text| duration(text).expect("a duration")));
                assert!(parts.iter().all(|part| part.starts_with("wait=")), "{query:?}");
                Seen::taken().of(&(parts.len().min(3), found.is_zero(), found.subsec_millis() > 0))
            }
            Err(words) => {
                assert!(parts.iter().any(|part| words.starts_with(&format!("{part:?}"))), "{words} names no part");
                assert!(words.contains("expected wait=DURATION") && !words.contains(char::is_control), "{words:?}");
                Seen::refused().of(&(query.contains("wait="), parts.len().min(3)))
            }
        }
    });
}
