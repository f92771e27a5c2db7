//! Raw requests in text files: how they are written down, and reading them.
//!
//! A probe is a line `@ id | column | column …` and below it the bytes, over as many lines as are good to read: the
//! ends of lines in the file mean nothing. In the bytes `\r \n \t \xHH` stand for what they do everywhere, `\\ \{ \}`
//! for themselves. `{get}`, `{post}` and `{chunked}` are the usual beginnings ([`shorthand`]), and `{text*N}` is the
//! text N times, with `#` in it replaced by 0, 1, 2 … A line that starts with `# ` is a comment.

/// A raw request, or something that is none.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub id: &'static str,
    /// The columns behind the id.
    pub columns: Vec<&'static str>,
    pub bytes: Vec<u8>,
}

/// Facts from the Http11Probe project (MIT licence): the columns are RFC section and accepted outcomes.
pub(crate) fn http11probe() -> Vec<Probe> {
    read(include_str!("http11probe.txt"))
}

/// Our own: the columns are what it is about, the outcome, and the reason that counts a refusal.
pub(crate) fn ours() -> Vec<Probe> {
    let files = [
        include_str!("framing.txt"),
        include_str!("chunks.txt"),
        include_str!("fields.txt"),
        include_str!("start_line.txt"),
        include_str!("semantics.txt"),
    ];
    files.into_iter().flat_map(read).collect()
}

/// Reads a file of probes.
///
/// # Panics
/// When it is not written as the module says.
fn read(text: &'static str) -> Vec<Probe> {
    let mut probes: Vec<(Probe, String)> = Vec::new();
    for line in text.lines() {
        if let Some(head) = line.strip_prefix("@ ") {
            let mut columns = head.split('|').map(str::trim);
            let id = columns.next().unwrap_or_default();
            probes.push((Probe { id, columns: columns.collect(), bytes: Vec::new() }, String::new()));
        } else if !line.starts_with("# ") && !line.is_empty() {
            probes.last_mut().unwrap_or_else(|| panic!("bytes before the first probe: {line}")).1.push_str(line);
        }
    }
    let filled = |(mut probe, written): (Probe, String)| {
        probe.bytes = bytes(probe.id, &written);
        probe
    };
    probes.into_iter().map(filled).collect()
}

/// The bytes that `written` stands for.
pub(crate) fn bytes(id: &str, written: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = written;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let (byte, taken) = escape(rest).unwrap_or_else(|| panic!("{id}: no escape: \\{rest}"));
                out.push(byte);
                rest = &rest[taken..];
            }
            '{' => {
                let end = closing(rest).unwrap_or_else(|| panic!("{id}: a brace is not closed"));
                out.extend(group(id, &rest[..end]));
                rest = &rest[end + 1..];
            }
            c => out.extend(c.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    out
}

/// The byte of an escape behind its backslash, and how many characters it takes.
fn escape(rest: &str) -> Option<(u8, usize)> {
    Some(match *rest.as_bytes().first()? {
        b'r' => (b'\r', 1),
        b'n' => (b'\n', 1),
        b't' => (b'\t', 1),
        b'x' => (u8::from_str_radix(rest.get(1..3)?, 16).ok()?, 3),
        itself @ (b'\\' | b'{' | b'}') => (itself, 1),
        _ => return None,
    })
}

/// Where the group ends that began just before `rest`; groups nest.
fn closing(rest: &str) -> Option<usize> {
    let (mut depth, mut escaped) = (0, false);
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'{' => depth += 1,
            b'}' if depth == 0 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What stands between braces: a name, or a repetition.
fn group(id: &str, group: &str) -> Vec<u8> {
    if let Some(known) = shorthand(group) {
        return known.into();
    }
    let (text, count) = group.rsplit_once('*').unwrap_or_else(|| panic!("{id}: no such shorthand: {group}"));
    let count: usize = count.parse().unwrap_or_else(|e| panic!("{id}: {group}: {e}"));
    (0..count).flat_map(|n| bytes(id, &text.replace('#', &n.to_string()))).collect()
}

fn shorthand(name: &str) -> Option<&'static str> {
    Some(match name {
        "get" => "GET / HTTP/1.1\r\nHost: localhost:8080\r\n",
        "post" => "POST / HTTP/1.1\r\nHost: localhost:8080\r\n",
        "chunked" => "POST / HTTP/1.1\r\nHost: localhost:8080\r\nTransfer-Encoding: chunked\r\n\r\n",
        _ => return None,
    })
}

#[test]
fn what_is_written_stands_for_these_bytes() {
    let text = "# a comment\n@ one | a | b c\n{get}X: \\x00\\\\\\{\n\\t\\r\\n{n#;*3}{a*2}{{b*2}c*2}\n@ two\n{post}\n";
    let probes = read(text);
    assert_eq!((probes[0].id, &probes[0].columns[..]), ("one", &["a", "b c"][..]));
    assert_eq!(probes[0].bytes, b"GET / HTTP/1.1\r\nHost: localhost:8080\r\nX: \0\\{\t\r\nn0;n1;n2;aabbcbbc");
    assert_eq!((probes[1].id, probes[1].bytes.len()), ("two", 39));
}
