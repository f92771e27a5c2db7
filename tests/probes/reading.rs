//! How a strict reader reads what a client sends: a second opinion, made of nothing but RFC 9112 and written apart
//! from the product. It decides what is a request, and where each ends; what a balancer may refuse beyond that
//! (sizes, methods) is not its business.

/// One request as it stands in a client's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub method: String,
    /// As sent.
    pub target: String,
    /// Names in lower case, values without the white space around them.
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether HTTP/1.1 was spoken.
    pub is_http11: bool,
}

/// Why reading stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is left, or only empty lines.
    Through,
    /// A request has begun.
    Incomplete,
    /// What comes next is none.
    Refused(&'static str),
    /// What comes next has the head of one, and its body is none: a server may answer before it sees that.
    RefusedInside(&'static str),
}

/// All requests in `bytes`, and why it ends there.
pub(crate) fn read(bytes: &[u8]) -> (Vec<Request>, End) {
    let (mut requests, mut rest) = (Vec::new(), bytes);
    loop {
        match next(rest) {
            Ok((request, length)) => {
                requests.push(request);
                rest = &rest[length..];
            }
            Err(end) => return (requests, end),
        }
    }
}

/// The first request of `bytes`, and how many it takes.
pub(crate) fn next(bytes: &[u8]) -> Result<(Request, usize), End> {
    // §2.2: empty lines before the request line are ignored.
    let mut start = 0;
    while bytes[start..].starts_with(b"\r\n") {
        start += 2;
    }
    if start == bytes.len() {
        return Err(End::Through);
    }
    let head_end = find(&bytes[start..], b"\r\n\r\n").ok_or(End::Incomplete)? + start;
    let mut lines = lines(&bytes[start..head_end])?.into_iter();
    let (method, target, is_http11) = request_line(lines.next().unwrap_or_default())?;
    let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
    host(&fields, is_http11)?;
    let (body, length) = body(&fields, is_http11, &bytes[head_end + 4..])?;
    Ok((Request { method, target, fields, body, is_http11 }, head_end + 4 + length))
}

impl Request {
    /// In origin form, as a gateway sends it on (§3.2.1, §3.2.4).
    pub(crate) fn origin_form(&self) -> String {
        let Some((_, after_scheme)) = self.target.split_once("://").filter(|_| !self.target.starts_with('/')) else {
            return self.target.clone();
        };
        match after_scheme.find(['/', '?']) {
            Some(at) if after_scheme[at..].starts_with('?') => format!("/{}", &after_scheme[at..]),
            Some(at) => after_scheme[at..].to_owned(),
            None if self.method == "OPTIONS" => "*".to_owned(),
            None => "/".to_owned(),
        }
    }
}

fn lines(head: &[u8]) -> Result<Vec<&[u8]>, End> {
    let mut lines = Vec::new();
    let mut rest = head;
    while let Some(at) = find(rest, b"\r\n") {
        lines.push(&rest[..at]);
        rest = &rest[at + 2..];
    }
    lines.push(rest);
    // §2.2: neither is the end of a line.
    if lines.iter().any(|line| line.contains(&b'\n')) {
        return Err(End::Refused("bare LF"));
    }
    if lines.iter().any(|line| line.contains(&b'\r')) {
        return Err(End::Refused("bare CR"));
    }
    Ok(lines)
}

/// §3: three words with one space between them.
fn request_line(line: &[u8]) -> Result<(String, String, bool), End> {
    let refused = End::Refused("request line");
    let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let [method, target, version] = words[..] else { return Err(refused) };
    let visible = |b: &u8| (0x21..=0x7e).contains(b) && *b != b'#';
    if !is_token(method) || target.is_empty() || !target.iter().all(visible) {
        return Err(refused);
    }
    let is_http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ => return Err(End::Refused("version")),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((text(method), text(target), is_http11))
}

/// §5.1: a token, a colon right behind it, and a value without control characters (RFC 9110 §5.5).
fn field(line: &[u8]) -> Result<(String, Vec<u8>), End> {
    let colon = line.iter().position(|b| *b == b':').ok_or(End::Refused("no colon"))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if !is_token(name) {
        return Err(End::Refused("field name"));
    }
    if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err(End::Refused("field value"));
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()))
}

/// §3.2: exactly one in HTTP/1.1, and no more than that ever. An empty one is valid: it stands for no authority.
fn host(fields: &[(String, Vec<u8>)], is_http11: bool) -> Result<(), End> {
    let hosts: Vec<&[u8]> = values(fields, "host").collect();
    match hosts[..] {
        [host] if !host.iter().any(|b| b"@/, \t?#\\".contains(b)) => Ok(()),
        [] if !is_http11 => Ok(()),
        _ => Err(End::Refused("host")),
    }
}

/// §6: the body, and how many bytes it takes with its framing.
fn body(fields: &[(String, Vec<u8>)], is_http11: bool, rest: &[u8]) -> Result<(Vec<u8>, usize), End> {
    let codings: Vec<&[u8]> = values(fields, "transfer-encoding").collect();
    let lengths: Vec<&[u8]> = values(fields, "content-length").collect();
    match (&codings[..], &lengths[..]) {
        ([], []) => Ok((Vec::new(), 0)),
        ([], [digits]) => {
            let length = number(digits, 10).ok_or(End::Refused("content length"))?;
            let length = usize::try_from(length).map_err(|_| End::Incomplete)?;
            Ok((rest.get(..length).ok_or(End::Incomplete)?.to_vec(), length))
        }
        // §6.1: one coding, the whole name, and not from HTTP/1.0.
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && is_http11 => {
            chunked(rest).map_err(|end| if let End::Refused(why) = end { End::RefusedInside(why) } else { end })
        }
        ([_, ..], []) => Err(End::Refused("transfer encoding")),
        ([], _) => Err(End::Refused("content length")),
        _ => Err(End::Refused("transfer encoding and content length")),
    }
}

/// §7.1. Chunk extensions are skipped, trailers are read and dropped.
fn chunked(bytes: &[u8]) -> Result<(Vec<u8>, usize), End> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = line(&bytes[at..], "chunk size")?;
        at += line.len() + 2;
        let size_ends = line.iter().position(|b| *b == b';').unwrap_or(line.len());
        let (size, extension) = line.split_at(size_ends);
        if extension.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
            return Err(End::Refused("chunk extension"));
        }
        // §7.1.1 allows blanks before the semicolon only; many readers take them without one.
        let size = number(size.trim_ascii_end(), 16).filter(|_| size_ends <= 20).ok_or(End::Refused("chunk size"))?;
        let size = usize::try_from(size).map_err(|_| End::Incomplete)?;
        if size == 0 {
            return Ok((body, at + trailers(&bytes[at..])?));
        }
        let end = at.checked_add(size).and_then(|end| end.checked_add(2)).ok_or(End::Incomplete)?;
        // What there is of the end of a chunk must be one, even if there is not enough of it.
        let after = bytes.get(end - 2..).unwrap_or_default();
        if !b"\r\n".starts_with(&after[..after.len().min(2)]) {
            return Err(End::Refused("end of chunk"));
        }
        body.extend_from_slice(bytes.get(at..end).ok_or(End::Incomplete)?.split_at(size).0);
        at = end;
    }
}

fn trailers(bytes: &[u8]) -> Result<usize, End> {
    let mut at = 0;
    loop {
        let line = line(&bytes[at..], "trailer")?;
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(at);
        }
        field(line)?;
    }
}

/// Up to the next CRLF. A line of a chunked body has no bare CR or LF in it.
fn line<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a [u8], End> {
    let end = bytes.iter().position(|b| b"\r\n".contains(b)).ok_or(End::Incomplete)?;
    match bytes[end..] {
        [b'\r', b'\n', ..] => Ok(&bytes[..end]),
        [b'\r'] => Err(End::Incomplete),
        _ => Err(End::Refused(what)),
    }
}

/// Digits and nothing else, as many as fit into 64 bits.
fn number(digits: &[u8], radix: u32) -> Option<u64> {
    let all_digits = !digits.is_empty() && digits.iter().all(|b| char::from(*b).is_digit(radix));
    all_digits.then(|| u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()).flatten()
}

fn values<'a>(fields: &'a [(String, Vec<u8>)], name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    fields.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_slice())
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

pub(crate) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[test]
fn requests_are_told_apart() {
    let bytes = b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\ncontent-length: 3\r\n\r\nabc\
        POST http://y?b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n3;a\r\nabc\r\n2\r\nde\r\n0\r\nt: u\r\n\r\n\
        GET * HTTP/1.0\r\n\r\nGE";
    let (requests, end) = read(bytes);
    let seen: Vec<(&str, String, &[u8])> =
        requests.iter().map(|r| (r.method.as_str(), r.origin_form(), r.body.as_slice())).collect();
    let expected: [(&str, String, &[u8]); 3] =
        [("POST", "/a".into(), b"abc"), ("POST", "/?b".into(), b"abcde"), ("GET", "*".into(), b"")];
    assert_eq!((seen.as_slice(), end), (expected.as_slice(), End::Incomplete));
}

#[test]
fn what_is_no_request_is_refused() {
    for (bytes, why) in [
        ("GET / HTTP/1.1\nHost: x\r\n\r\n", "bare LF"),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "request line"),
        ("GET / HTTP/1.1\r\nHost: x\r\n y\r\n\r\n", "no colon"),
        ("GET / HTTP/1.1\r\n\r\n", "host"),
        ("GET / HTTP/1.1\r\nHost: x\r\ncontent-length: +1\r\n\r\n", "content length"),
    ] {
        assert_eq!(read(bytes.as_bytes()), (Vec::new(), End::Refused(why)), "{bytes:?}");
    }
    for (chunks, why) in [("0x1\r\n", "chunk size"), ("1\r\nab\r\n0\r\n\r\n", "end of chunk")] {
        let bytes = format!("GET / HTTP/1.1\r\nHost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        assert_eq!(read(bytes.as_bytes()), (Vec::new(), End::RefusedInside(why)), "{bytes:?}");
    }
}
