//! What a server says it has read: one line per request with id, status, method, target and body.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use super::servers::Server;

/// How a server writes its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// As it is, the body in hexadecimal digits.
    Plain,
    /// As plain, but an empty query cannot be told from none (ASGI has `query_string`, which is empty for both).
    Asgi,
    /// As ASGI, and methods are in upper case, as its specification has them.
    AsgiUpperCase,
    /// Bytes that are not printable, quotes and backslashes as `\xHH`, also in the body.
    Nginx,
    /// Quotes and backslashes behind a backslash, the version behind the target, the body in hexadecimal digits.
    RequestLine,
}

/// A request that a server has read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Empty when the server did not read that far.
    pub id: String,
    pub status: u16,
    pub method: String,
    pub target: String,
    pub body: Vec<u8>,
}

impl Row {
    /// Whether the server took it for a request, and one that it could answer.
    pub(crate) fn is_answered(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// All rows of a server that has ended.
///
/// # Panics
/// When a line is none.
pub(crate) fn rows(server: &Server) -> Vec<Row> {
    read(&server.ledger, server.kind.form)
}

fn read(path: &Path, form: Form) -> Vec<Row> {
    let file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let lines = BufReader::new(file).split(b'\n').map(|line| line.expect("a ledger can be read"));
    lines.map(|line| row(&line, form).unwrap_or_else(|| panic!("{form:?}: {}", line.escape_ascii()))).collect()
}

fn row(line: &[u8], form: Form) -> Option<Row> {
    let mut words = line.split(|b| *b == b' ');
    let mut text = || words.next().map(|word| String::from_utf8_lossy(word).into_owned());
    let (id, status, method, target) = (text()?, text()?, text()?, text()?);
    let mut rest: Vec<&[u8]> = words.collect();
    // What was no request to the server may have no version.
    if form == Form::RequestLine && rest.first().is_some_and(|word| word.starts_with(b"HTTP/")) {
        rest.remove(0);
    }
    let body = rest.join(&b' ');
    let body = match form {
        _ if body == b"-" => Vec::new(),
        Form::Nginx => unescape(&body),
        _ => (0..body.len()).step_by(2).map(|at| digits(body.get(at..at + 2)?)).collect::<Option<_>>()?,
    };
    let target = match form {
        Form::Plain | Form::Asgi | Form::AsgiUpperCase => target,
        _ => String::from_utf8_lossy(&unescape(target.as_bytes())).into_owned(),
    };
    Some(Row { id: if id == "-" { String::new() } else { id }, status: status.parse().ok()?, method, target, body })
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match (byte, rest) {
            (b'\\', [b'x', ..]) if rest.get(1..3).and_then(digits).is_some() => {
                out.extend(rest.get(1..3).and_then(digits));
                rest = &rest[3..];
            }
            (b'\\', [escaped @ (b'"' | b'\\'), behind @ ..]) => {
                out.push(*escaped);
                rest = behind;
            }
            (byte, _) => out.push(*byte),
        }
    }
    out
}

fn digits(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

impl Form {
    /// Whether `seen` is how such a server sees the target `sent`.
    pub(crate) fn same_target(self, sent: &str, seen: &str) -> bool {
        let is_asgi = matches!(self, Self::Asgi | Self::AsgiUpperCase);
        sent == seen || is_asgi && sent.strip_suffix('?') == Some(seen)
    }

    /// Whether `seen` is how such a server sees the method `sent`.
    pub(crate) fn same_method(self, sent: &str, seen: &str) -> bool {
        sent == seen || self == Self::AsgiUpperCase && sent.to_ascii_uppercase() == seen
    }

    /// The method that such a server answers to: it leaves the body out when it sees HEAD.
    pub(crate) fn method_answered(self, sent: &str) -> &str {
        if self.same_method(sent, "HEAD") { "HEAD" } else { sent }
    }

    /// Whether `row` is how such a server sees a body of `length` bytes. nginx writes the same for an empty one and for a
    /// hyphen; Apache and lighttpd answer `OPTIONS *` themselves, and drop its body before it can be written down.
    pub(crate) fn same_length(self, length: u64, row: &Row) -> bool {
        let untold = match self {
            Self::Nginx => length == 1,
            Self::RequestLine => row.target == "*",
            Self::Plain | Self::Asgi | Self::AsgiUpperCase => false,
        };
        length == row.body.len() as u64 || untold && row.body.is_empty()
    }
}

#[test]
fn lines_are_read_in_each_form() {
    for (form, line, target, body) in [
        (Form::Plain, &b"i 200 POST /a?\"\\ 00ff"[..], "/a?\"\\", &b"\0\xff"[..]),
        (Form::Nginx, br"i 200 POST /a?\x22\x5C a b\x00\x5C", r#"/a?"\"#, b"a b\0\\"),
        (Form::RequestLine, br#"i 200 POST /a?\"\\ HTTP/1.1 6162"#, r#"/a?"\"#, b"ab"),
    ] {
        let expected =
            Row { id: "i".into(), status: 200, method: "POST".into(), target: target.into(), body: body.into() };
        assert_eq!(row(line, form), Some(expected));
    }
    assert_eq!(row(b"- 501   HTTP/1.1 -", Form::RequestLine).map(|row| row.id), Some(String::new()));
    assert!(row(b"i 200 GET", Form::Plain).is_none() && row(b"i 200 GET / 0g", Form::Plain).is_none());
}
