//! The responses in what a balancer sends to a client: each must be well formed to the last byte.

use super::reading::{self, Request};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub(crate) fn field(&self, name: &str) -> Option<String> {
        let found = self.fields.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    /// Whether it says that no more requests are read from this connection.
    pub(crate) fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// The final responses in `bytes`, and whether another one has begun. `methods` are those of the requests, as far as
/// they are known.
///
/// # Errors
/// What is wrong with them.
pub(crate) fn read(bytes: &[u8], methods: &[&str]) -> Result<(Vec<Answer>, bool), String> {
    let (mut answers, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let Some((answer, length)) = next(rest, methods.get(answers.len()) == Some(&"HEAD"))? else {
            return Ok((answers, true));
        };
        if answer.status >= 200 {
            answers.push(answer);
        }
        rest = &rest[length..];
    }
    Ok((answers, false))
}

/// The first response of `bytes` and its length, or `None` while it is not complete.
fn next(bytes: &[u8], to_head: bool) -> Result<Option<(Answer, usize)>, String> {
    let Some(head_end) = reading::find(bytes, b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..head_end]).map_err(|e| format!("{e} in a response head"))?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line.strip_prefix("HTTP/1.1 ").or_else(|| line.strip_prefix("HTTP/1.0 "));
    let status = status.and_then(|rest| rest.get(..3)?.parse().ok()).filter(|status| (100..1000).contains(status));
    let status: u16 = status.ok_or_else(|| format!("no status line: {line:?}"))?;
    let field = |line: &str| {
        let (name, value) = line.split_once(':').filter(|_| !line.contains(['\r', '\n', '\0']))?;
        Some((name.to_ascii_lowercase(), value.trim().as_bytes().to_vec()))
    };
    let fields = lines.map(|line| field(line).ok_or_else(|| format!("no response field: {line:?}")));
    let mut answer = Answer { status, fields: fields.collect::<Result<_, _>>()?, body: Vec::new() };
    let rest = &bytes[head_end + 4..];
    // RFC 9112 §6.3: these have no body whatever the fields say.
    if to_head || status < 200 || status == 204 || status == 304 {
        return Ok(Some((answer, head_end + 4)));
    }
    // A request with the same framing is framed in the same way: the reader of requests reads the body.
    let framing: Vec<u8> = ["content-length", "transfer-encoding"]
        .iter()
        .filter_map(|name| answer.field(name).map(|value| format!("{name}: {value}\r\n")))
        .flat_map(String::into_bytes)
        .collect();
    if framing.is_empty() && !answer.closes() {
        return Err(format!("a response without length: {head:?}"));
    }
    // RFC 9112 §6.3: then all that comes until the close is its body.
    if framing.is_empty() {
        answer.body = rest.to_vec();
        return Ok(Some((answer, bytes.len())));
    }
    let as_request = [b"GET / HTTP/1.1\r\nhost: x\r\n", framing.as_slice(), b"\r\n", rest].concat();
    match reading::next(&as_request) {
        Ok((Request { body, .. }, length)) => {
            answer.body = body;
            Ok(Some((answer, head_end + 4 + length - (as_request.len() - rest.len()))))
        }
        Err(reading::End::Incomplete) => Ok(None),
        Err(end) => Err(format!("a response body: {end:?} behind {head:?}")),
    }
}

#[test]
fn answers_are_told_apart() {
    let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n\
        HTTP/1.1 400 Bad Request\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n\
        HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n";
    let (answers, begun) = read(bytes, &["HEAD"]).unwrap();
    let seen: Vec<_> = answers.iter().map(|a| (a.status, a.body.as_slice(), a.closes())).collect();
    assert_eq!((seen.as_slice(), begun), (&[(200, &b""[..], false), (400, &b"ab"[..], true)][..], true));
    let until_close = read(b"HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nabc", &[]).unwrap();
    assert_eq!(until_close.0[0].body, b"abc");
    assert!(read(b"HTTP/1.1 200 OK\r\n\r\n", &[]).is_err() && read(b"oops\r\n\r\n", &[]).is_err());
}
