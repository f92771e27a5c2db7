//! The form of a line: which keys in which order, and text that stays JSON whatever a client sends.

use std::time::Duration;

/// What a line says of a request; the rest is known when it is written.
#[derive(Debug, Default)]
pub(super) struct Facts {
    /// The request's id.
    pub id: Vec<u8>,
    /// From `"peer"` to the value of `"version"`, ready to be printed: the head that says it does not live until the end.
    pub head: Vec<u8>,
    /// 0 until there is a response.
    pub status: u16,
    /// Why the response is ours; empty when it is a backend's.
    pub reason: &'static str,
    pub pool: Vec<u8>,
    /// The last one that was tried.
    pub backend: Vec<u8>,
    pub attempts: u32,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub ended: Ended,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Ended {
    /// The response was handed over to its last byte.
    Complete,
    /// The client did not stay for it.
    #[default]
    ClientGone,
    /// The response broke off at the backend.
    BackendBroke,
    /// It was cut when the request's time had passed.
    Overdue,
    /// It was cut off at the deadline of its backend's drain; or it was a tunnel, and a drain or a shutdown ended it.
    Drained,
}

impl Ended {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::ClientGone => "client_gone",
            Self::BackendBroke => "backend_broke",
            Self::Overdue => "deadline",
            Self::Drained => "drained",
        }
    }
}

/// What the head of a request says, in the order it is printed.
pub(super) struct Head<'a> {
    pub peer: (&'a str, u16),
    pub client: &'a [u8],
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub host: &'a [u8],
    pub version: &'a str,
}

impl Head<'_> {
    /// The part of a line that needs the request head.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let (address, port) = self.peer;
        // An IPv6 address contains colons, and only there brackets tell it from the port.
        let brackets = if address.contains(':') { ["[", "]:"] } else { ["", ":"] };
        for part in ["\"peer\":\"", brackets[0], address, brackets[1]] {
            out.extend_from_slice(part.as_bytes());
        }
        put_number(out, u64::from(port));
        put_text(out, b"\",\"client\":\"", self.client);
        put_text(out, b"\",\"method\":\"", self.method);
        put_text(out, b"\",\"target\":\"", self.target);
        put_text(out, b"\",\"host\":\"", self.host);
        put_word(out, b"\",\"version\":\"", self.version);
    }
}

impl Facts {
    /// Forgets everything but the room that was made.
    pub(super) fn clear(&mut self) {
        let texts = [&mut self.id, &mut self.head, &mut self.pool, &mut self.backend];
        let [id, head, pool, backend] = texts.map(std::mem::take).map(|mut text| {
            text.clear();
            text
        });
        *self = Self { id, head, pool, backend, ..Self::default() };
    }

    /// The whole line.
    pub(super) fn put(&self, out: &mut Vec<u8>, time: &[u8], took: Duration) {
        // What stands between two values is joined with both their quotes: one piece for each.
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(time);
        put_text(out, b"\",\"id\":\"", &self.id);
        out.extend_from_slice(b"\",");
        out.extend_from_slice(&self.head);
        put_count(out, b"\",\"status\":", u64::from(self.status));
        put_word(out, b",\"reason\":\"", self.reason);
        put_text(out, b"\",\"pool\":\"", &self.pool);
        put_text(out, b"\",\"backend\":\"", &self.backend);
        put_count(out, b"\",\"attempts\":", u64::from(self.attempts));
        put_count(out, b",\"request_bytes\":", self.request_bytes);
        put_count(out, b",\"response_bytes\":", self.response_bytes);
        put_count(out, b",\"duration_us\":", u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        put_word(out, b",\"ended\":\"", self.ended.as_str());
        out.extend_from_slice(b"\"}\n");
    }
}

/// A word of ours, behind `before`: nothing in it needs an escape.
fn put_word(out: &mut Vec<u8>, before: &[u8], word: &str) {
    out.extend_from_slice(before);
    out.extend_from_slice(word.as_bytes());
}

fn put_count(out: &mut Vec<u8>, before: &[u8], number: u64) {
    out.extend_from_slice(before);
    put_number(out, number);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Whether a byte stands for itself: printable ASCII without the quote and the backslash (RFC 8259 §7). What a terminal
/// or a line reader could take for a command (CVE-2009-4487) does not.
fn is_plain(byte: u8) -> bool {
    (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\'
}

/// Text of anybody's, behind `before`. Every byte that is not plain becomes `\u00XX`: what a client sends need not be
/// UTF-8, and its bytes can be told from the line.
fn put_text(out: &mut Vec<u8>, before: &[u8], text: &[u8]) {
    out.extend_from_slice(before);
    // No early end: this way the compiler looks at many bytes at once.
    if text.iter().fold(true, |plain, byte| plain & is_plain(*byte)) {
        out.extend_from_slice(text);
    } else {
        put_escaped(out, text);
    }
}

#[cold]
fn put_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let digit = |number: u8| b"0123456789abcdef"[usize::from(number)];
    for byte in text {
        if is_plain(*byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn line(head: &Head<'_>, facts: &mut Facts) -> Vec<u8> {
        head.put(&mut facts.head);
        let mut out = Vec::new();
        facts.put(&mut out, b"2026-07-02T10:11:12.345Z", Duration::from_micros(1234));
        out
    }

    #[test]
    fn a_line_has_its_keys_in_their_order() {
        let head = Head {
            peer: ("::1", 4711),
            client: b"192.0.2.7",
            method: b"GET",
            target: b"/a?b=\"c\"",
            host: b"example.com",
            version: "1.1",
        };
        let mut facts = Facts {
            id: b"abc".to_vec(),
            status: 200,
            pool: b"default".to_vec(),
            backend: b"a".to_vec(),
            attempts: 2,
            request_bytes: 10,
            response_bytes: u64::MAX,
            ended: Ended::Complete,
            ..Facts::default()
        };
        let expected = concat!(
            r#"{"time":"2026-07-02T10:11:12.345Z","id":"abc","peer":"[::1]:4711","client":"192.0.2.7","#,
            r#""method":"GET","target":"/a?b=\u0022c\u0022","host":"example.com","version":"1.1","status":200,"#,
            r#""reason":"","pool":"default","backend":"a","attempts":2,"request_bytes":10,"#,
            r#""response_bytes":18446744073709551615,"duration_us":1234,"ended":"complete"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line(&head, &mut facts)).unwrap(), expected);
    }

    #[test]
    fn what_is_used_again_says_nothing_of_its_former_use() {
        let mut facts = Facts {
            id: vec![1],
            head: vec![2],
            status: 200,
            reason: "x",
            pool: vec![3],
            backend: vec![4],
            attempts: 1,
            request_bytes: 1,
            response_bytes: 1,
            ended: Ended::Complete,
        };
        facts.clear();
        assert_eq!(format!("{facts:?}"), format!("{:?}", Facts::default()));
    }

    /// A value's text, byte for byte as it was sent.
    fn bytes(value: &Value) -> Vec<u8> {
        let text = value.as_str().unwrap();
        text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        /// Log injection: no byte of a client's can end a line, a value, or reach a terminal.
        #[test]
        fn every_line_is_one_json_object_that_gives_the_bytes_back(
            id in vec(any::<u8>(), 0..40),
            client in vec(any::<u8>(), 0..40),
            method in vec(any::<u8>(), 0..40),
            target in vec(any::<u8>(), 0..200),
            host in vec(any::<u8>(), 0..40),
        ) {
            let head = Head {
                peer: ("192.0.2.1", 65535),
                client: &client,
                method: &method,
                target: &target,
                host: &host,
                version: "1.0",
            };
            let mut facts = Facts { id: id.clone(), ..Facts::default() };
            let line = line(&head, &mut facts);
            let (newline, text) = line.split_last().unwrap();
            prop_assert_eq!(*newline, b'\n');
            prop_assert!(text.iter().all(|byte| (0x20..0x7f).contains(byte)));
            let value: Value = serde_json::from_slice(text).unwrap();
            prop_assert_eq!(value.as_object().unwrap().len(), 17);
            for (key, sent) in
                [("id", &id), ("client", &client), ("method", &method), ("target", &target), ("host", &host)]
            {
                prop_assert_eq!(&bytes(&value[key]), sent, "{}", key);
            }
            prop_assert_eq!(&value["peer"], "192.0.2.1:65535");
        }

        #[test]
        fn numbers_are_decimal(number in any::<u64>()) {
            let mut out = Vec::new();
            put_number(&mut out, number);
            prop_assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }
}
