//! Single values fed with anything: what is read can be written and read again, and is within its bounds.

use std::time::Duration;

use lb_fuzz::{Fuzz, Seen};

use super::{parse, wait};

const WORDS: &[&[u8]] = &[
    b"ms",
    b"s",
    b"m",
    b"h",
    b"d",
    b" ",
    b".",
    b"-",
    b"+",
    b"e",
    b"B",
    b"KiB",
    b"MiB",
    b"GiB",
    b"TiB",
    b"kB",
    b"true",
    b"off",
    b"127.0.0.1",
    b"::1",
    b"[::1]",
    b":",
    b":80",
    b",",
    b"weight=",
    b",weight=2",
    b"name=",
    b",name=x",
    b"/",
    b"/8",
    b"/128",
    b"http://",
    b"https://",
    b"@",
    b"?",
    b"#",
    b"%",
    b"fe80::1%1",
    b"::ffff:1.2.3.4",
    b"\xc3\xa4",
    b"\0",
    b"1/2",
    b"01.2.3.4",
];

#[test]
fn fuzz_single_values() {
    Fuzz::new(env!("CARGO_MANIFEST_DIR"), "value").words(WORDS).longest(600).run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim();
        let read = [
            duration(text),
            size(text),
            parse::switch(text).inspect(|on| assert_eq!(parse::switch(&on.to_string()), Some(*on))).is_some(),
            network(text),
            parse::is_token(text) && !text.contains([' ', ',', '"', '\n']) && text.is_ascii(),
            backends(text),
            admin_address(text),
        ];
        if read.contains(&true) { Seen::taken().of(&read) } else { Seen::refused().of(&why(text)) }
    });
}

fn duration(text: &str) -> bool {
    let Some(read) = parse::duration(text) else { return false };
    // Words are in whole milliseconds; and what a number has beyond its fifteen digits is not said.
    let near = Duration::from_millis(1) + read.div_f64(1e15);
    let again = parse::duration(&parse::words(read)).unwrap_or_else(|| panic!("{}", parse::words(read)));
    assert!(again <= read + near && read <= again + near, "{read:?} {again:?}");
    assert!(text.ends_with(['s', 'm', 'h']) && text.starts_with(|c: char| c.is_ascii_digit() || c == '.'), "{text:?}");
    true
}

fn size(text: &str) -> bool {
    let Some(read) = parse::size(text) else { return false };
    assert_eq!(parse::size(&parse::size_words(read)), Some(read));
    true
}

fn network(text: &str) -> bool {
    let Some(read) = parse::network(text) else { return false };
    assert_eq!(parse::network(&read.to_string()), Some(read));
    assert!(read.contains(&read.addr()) && read.prefix_len() <= read.max_prefix_len());
    true
}

fn backends(text: &str) -> bool {
    let list = parse::split_backends(text);
    assert_eq!(parse::split_backends(&list.join(",")), list, "splitting is done once");
    let mut good = !list.is_empty();
    for one in &list {
        match parse::backend(one) {
            Ok(spec) => {
                let said = format!("{},name={},weight={}", spec.address, spec.name, spec.weight);
                assert_eq!(parse::backend(&said), Ok(spec), "{one:?}");
                assert_eq!(parse::split_backends(&said), [said]);
            }
            Err(words) => {
                good = false;
                assert!(words.contains(" is ") || words.contains(" has ") || words.contains(" needs "), "{words}");
                assert!(!words.contains(char::is_control), "{words:?}");
            }
        }
    }
    good
}

fn admin_address(text: &str) -> bool {
    let Ok(read) = wait::address(text) else { return false };
    assert_eq!(wait::address(&read.to_string()), Ok(read.clone()), "{text:?}");
    // It goes into a request as it is.
    assert!(read.path.bytes().all(|b| b > b' ' && b != 0x7f), "{read:?}");
    assert!(read.authority().bytes().all(|b| b.is_ascii_graphic()), "{read:?}");
    true
}

/// Why it is no backend, without the value itself.
fn why(text: &str) -> Option<String> {
    let words = parse::backend(text).err()?;
    words.rsplit_once('"').map(|(_, words)| words.chars().filter(|c| !c.is_ascii_digit()).collect())
}
