//! The bytes of a request head: where it ends, and what in it two implementations could read differently.
//!
//! Only what the parser behind would let pass, or would repair, is looked for here: line ends, the framing fields, the
//! target's bytes, the version, sizes. Names and values are the parser's; when it refuses a head, [`diagnose`] finds
//! the words for it.

use lb_core::metrics::Rejected;
use memchr::{memchr, memchr_iter, memmem};

use crate::config::Limits;

/// How the body is delimited, as announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Body {
    #[default]
    None,
    Length(u64),
    Chunked,
}

/// RFC 9112 §2.2: empty lines before the request line are ignored; they must be CRLF, and few.
pub(super) fn skip_empty_lines(received: &[u8], most: usize) -> Result<usize, Rejected> {
    let lines = received.chunks_exact(2).take_while(|line| *line == b"\r\n").count();
    if lines > most { Err(Rejected::RequestLine) } else { Ok(lines * 2) }
}

/// Whether a line of the head comes to its end in `received`.
pub(super) fn ends_a_line(received: &[u8]) -> bool {
    memchr(b'\n', received).is_some()
}

/// Judges a head that is not complete, so that what can never become one is not waited for.
pub(super) fn judge_part(received: &[u8], judged: usize, limits: &Limits) -> Result<(), Rejected> {
    if received.len() > limits.head {
        return Err(too_large(received, limits));
    }
    for (at, byte) in received.iter().enumerate().skip(judged) {
        match byte {
            b'\n' if at == 0 || received[at - 1] != b'\r' => return Err(Rejected::BareLf),
            b'\n' | b'\r' | b'\t' => {}
            0..=0x1f | 0x7f if memchr(b'\n', &received[..at]).is_none() => return Err(Rejected::RequestLine),
            0..=0x1f | 0x7f => return Err(Rejected::FieldValue),
            _ => {}
        }
    }
    // RFC 9110 §5.6.2: a method is a token. What is not even that at its first byte (TLS, say) is no request.
    if received.first().is_some_and(|first| *first != b'\r' && !is_token_byte(*first)) {
        return Err(Rejected::RequestLine);
    }
    Ok(())
}

fn too_large(head: &[u8], limits: &Limits) -> Rejected {
    let line = memchr(b'\n', head).unwrap_or(head.len());
    let target = memchr(b' ', &head[..line]).map_or(0, |method| line - method);
    if target > limits.target { Rejected::TargetTooLong } else { Rejected::HeadTooLarge }
}

/// Judges a head from its request line to its empty line; `None` when that has not come. Its length, and the body that
/// follows.
pub(super) fn judge(received: &[u8], limits: &Limits) -> Result<Option<(usize, Body)>, Rejected> {
    let mut framing = Framing::default();
    let (mut start, mut lines) = (0, 0);
    let mut modern = true;
    for end in memchr_iter(b'\n', received) {
        // RFC 9112 §2.2 lets a recipient take a lone LF for a line end; peers differ in it, so we do not.
        let Some(line) = received[start..end].strip_suffix(b"\r") else { return Err(Rejected::BareLf) };
        start = end + 1;
        if line.last() == Some(&b'\r') {
            // Else an empty line with one CR too many would be waited behind for ever.
            return Err(Rejected::BareCr);
        }
        if line.is_empty() {
            if start > limits.head {
                return Err(too_large(received, limits));
            }
            return framing.judge(modern, limits).map(|body| Some((start, body)));
        }
        if lines == 0 {
            modern = request_line(line, limits)?;
        } else {
            match line.first() {
                // RFC 9112 §5.2: a proxy must refuse a folded field, or unfold it. Folding was always an error.
                Some(b' ' | b'\t') if lines == 1 => return Err(Rejected::FieldName),
                Some(b' ' | b'\t') => return Err(Rejected::ObsFold),
                Some(b'c' | b'C') => framing.content_length(line)?,
                Some(b't' | b'T') => framing.transfer_encoding(line)?,
                _ => {}
            }
        }
        lines += 1;
        // The request line is no field.
        if lines > limits.fields + 1 {
            return Err(Rejected::TooManyFields);
        }
    }
    Ok(None)
}

/// RFC 9112 §3: `method SP request-target SP HTTP-version`. Whether it is HTTP/1.1.
fn request_line(line: &[u8], limits: &Limits) -> Result<bool, Rejected> {
    let modern = match line.last_chunk::<9>() {
        Some(b" HTTP/1.1") => true,
        Some(b" HTTP/1.0") => false,
        Some([b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            return Err(Rejected::Version);
        }
        _ => return Err(Rejected::RequestLine),
    };
    let line = &line[..line.len() - 9];
    let method = memchr(b' ', line).ok_or(Rejected::RequestLine)?;
    let target = &line[method + 1..];
    if method == 0 || target.is_empty() {
        return Err(Rejected::RequestLine);
    }
    if target.len() > limits.target {
        return Err(Rejected::TargetTooLong);
    }
    // RFC 9112 §3.2: no white space. RFC 3986 §2: ASCII only. A fragment (§3.5) is never sent; the parser would cut it
    // off, and another one would not.
    let wrong = |byte: &u8| *byte <= b' ' || *byte >= 0x7f || *byte == b'#';
    // No early return: this way the compiler looks at many bytes at once.
    if target.iter().fold(false, |found, byte| found | wrong(byte)) {
        return Err(if target.contains(&b' ') { Rejected::RequestLine } else { Rejected::Target });
    }
    Ok(modern)
}

/// RFC 9112 §3.2.4: `OPTIONS http://host` with neither path nor query asks about the server as a whole. Behind here the
/// empty path of a URL is `/`.
pub(super) fn asks_about_server(head: &[u8]) -> bool {
    let Some(line) = head.strip_prefix(b"OPTIONS ") else { return false };
    let target = &line[..memchr(b' ', line).unwrap_or(line.len())];
    let Some(scheme) = memmem::find(target, b"://") else { return false };
    !target.starts_with(b"/") && !target[scheme + 3..].iter().any(|byte| matches!(byte, b'/' | b'?'))
}

/// What the two framing fields say.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    coding: Option<Coding>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Coding {
    Chunked,
    Unknown,
}

impl Framing {
    /// RFC 9110 §8.6: one field of digits. A list of equal numbers may be accepted there; whoever sends one is up to
    /// something.
    fn content_length(&mut self, line: &[u8]) -> Result<(), Rejected> {
        let Some(value) = value_of(line, b"content-length") else { return Ok(()) };
        // A leading zero is valid, and octal to some.
        if self.length.is_some() || matches!(value, [] | [b'0', _, ..]) {
            return Err(Rejected::ContentLength);
        }
        let digit = |digit: &u8| digit.is_ascii_digit().then(|| u64::from(digit - b'0'));
        let length = value.iter().try_fold(0_u64, |n, byte| n.checked_mul(10)?.checked_add(digit(byte)?));
        self.length = Some(length.ok_or(Rejected::ContentLength)?);
        Ok(())
    }

    /// RFC 9112 §6.1: `chunked`, once. A sender must not apply it twice, and other codings are not understood (501).
    fn transfer_encoding(&mut self, line: &[u8]) -> Result<(), Rejected> {
        let Some(value) = value_of(line, b"transfer-encoding") else { return Ok(()) };
        if self.coding.is_some() {
            return Err(Rejected::TransferEncoding);
        }
        let chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
        if chunked(value) {
            self.coding = Some(Coding::Chunked);
            return Ok(());
        }
        let mut codings = value.rsplit(|byte| *byte == b',').map(trim);
        let last = codings.next().unwrap_or_default();
        let others: Vec<&[u8]> = codings.collect();
        let is_coding = |coding: &&[u8]| !coding.is_empty() && coding.iter().all(|byte| is_token_byte(*byte));
        // §6.1: chunked once and last. Anything but a list of names is no coding that could be unknown.
        if !is_coding(&last) || !others.iter().all(is_coding) || others.iter().any(|coding| chunked(coding)) {
            return Err(Rejected::TransferEncoding);
        }
        self.coding = Some(Coding::Unknown);
        Ok(())
    }

    fn judge(self, modern: bool, limits: &Limits) -> Result<Body, Rejected> {
        match (self.coding, self.length) {
            // RFC 9112 §6.1: may be taken by its coding, but "ought to be handled as an error".
            (Some(_), Some(_)) => Err(Rejected::TeAndCl),
            // RFC 9112 §6.1: faulty in HTTP/1.0.
            (Some(_), None) if !modern => Err(Rejected::TransferEncoding),
            (Some(Coding::Unknown), None) => Err(Rejected::UnknownCoding),
            (Some(Coding::Chunked), None) => Ok(Body::Chunked),
            (None, Some(length)) if length > limits.body => Err(Rejected::BodyTooLarge),
            // RFC 9112 §6.3: a request is never delimited by the close.
            (None, Some(0) | None) => Ok(Body::None),
            (None, Some(length)) => Ok(Body::Length(length)),
        }
    }
}

/// The value of a field, if its name is `name` (in lower case).
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(name.len())?;
    let [b':', value @ ..] = rest else { return None };
    start.eq_ignore_ascii_case(name).then(|| trim(value))
}

/// RFC 9110 §5.6.3: optional white space is SP and HTAB, nothing else.
fn trim(value: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| *byte == b' ' || *byte == b'\t';
    let Some(start) = value.iter().position(|byte| !is_space(byte)) else { return b"" };
    let end = value.iter().rposition(|byte| !is_space(byte)).unwrap_or(start);
    &value[start..=end]
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether the request that begins here is a HEAD, whatever else is wrong with it.
pub(crate) fn is_for_head_only(received: &[u8]) -> bool {
    received.trim_ascii_start().starts_with(b"HEAD ")
}

/// Why the parser refused `head`, which was let pass here. It has taken the head away when only the target was wrong.
pub(crate) fn diagnose(head: &[u8]) -> Rejected {
    if head.is_empty() {
        return Rejected::Target;
    }
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    let method = request_line.split(|byte| *byte == b' ').next().unwrap_or_default();
    if method.is_empty() || !method.iter().all(|byte| is_token_byte(*byte)) {
        return Rejected::RequestLine;
    }
    for line in lines.take_while(|line| !line.is_empty()) {
        if line.contains(&b'\r') {
            return Rejected::BareCr;
        }
        let Some(colon) = memchr(b':', line) else { return Rejected::FieldName };
        if colon == 0 || !line[..colon].iter().all(|byte| is_token_byte(*byte)) {
            return Rejected::FieldName;
        }
        if line[colon + 1..].iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Rejected::FieldValue;
        }
    }
    Rejected::Target
}
