use bytes::BytesMut;
use proptest::prelude::*;

use super::super::write;
use super::*;
use crate::config::ProxyVersion;

fn whole(bytes: &[u8]) -> (usize, Option<Ends>) {
    match parse(bytes) {
        Parsed::Whole { length, ends } => (length, ends),
        other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
    }
}

fn wrong(bytes: &[u8]) -> &'static str {
    match parse(bytes) {
        Parsed::Wrong(why) => why,
        other => panic!("{other:?}: {}", String::from_utf8_lossy(bytes)),
    }
}

fn binary_header(command: u8, family: u8, length: u16, rest: &[u8]) -> Vec<u8> {
    [&SIGNATURE[..], &[command, family], &length.to_be_bytes(), rest].concat()
}

#[test]
fn lines_of_version_1() {
    let (length, ends) = whole(b"PROXY TCP4 192.0.2.1 198.51.100.2 1 65535\r\nGET / HTTP/1.1\r\n");
    let ends = ends.unwrap();
    assert_eq!((length, ends.source.to_string().as_str()), (43, "192.0.2.1:1"));
    assert_eq!(ends.destination.to_string(), "198.51.100.2:65535");
    let (_, ends) = whole(b"PROXY TCP6 2001:db8::1 ::1 0 80\r\n");
    assert_eq!(ends.unwrap().source.to_string(), "[2001:db8::1]:0");
    assert_eq!(whole(b"PROXY UNKNOWN\r\n"), (15, None));
    assert_eq!(whole(b"PROXY UNKNOWN ffff:: anything at all\r\n\r\n"), (38, None));
    assert_eq!(whole(b"PROXY UNKNOWN \xff\0\r\n"), (18, None));
    let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MOST_TEXT - 16));
    assert_eq!(whole(longest.as_bytes()), (MOST_TEXT, None));
}

#[test]
fn what_is_no_line_of_version_1() {
    let too_long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(MOST_TEXT - 15));
    for line in [
        "GET / HTTP/1.1\r\n",
        "PROXIED",
        "PRI * HTTP/2.0\r\n",
        "PROXY\tTCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN\r \r\n",
        "PROXY \r\n",
        "PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
        too_long.as_str(),
    ] {
        wrong(line.as_bytes());
    }
    wrong(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\xff\r\n");
}

#[test]
fn headers_of_version_2() {
    let addresses = [192, 0, 2, 1, 198, 51, 100, 2, 1, 2, 0, 80];
    let with_tlv = [&addresses[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
    let (length, ends) = whole(&binary_header(0x21, 0x11, 19, &[&with_tlv[..], b"GET"].concat()));
    let ends = ends.unwrap();
    assert_eq!((length, ends.source.to_string().as_str()), (35, "192.0.2.1:258"));
    assert_eq!(ends.destination.to_string(), "198.51.100.2:80");
    assert_eq!(whole(&binary_header(0x20, 0x00, 0, b"")), (16, None));
    assert_eq!(whole(&binary_header(0x20, 0xff, 2, b"xy")), (18, None));
    assert_eq!(whole(&binary_header(0x21, 0x00, 3, b"xyzGET")), (19, None));
    assert_eq!(whole(&binary_header(0x21, 0x31, 216, &[7; 216])), (232, None));
    assert_eq!(whole(&binary_header(0x20, 0, 536, &[7; 536])), (MOST_BYTES, None));
}

#[test]
fn what_is_no_header_of_version_2() {
    assert!(wrong(&binary_header(0x20, 0, 537, &[])).contains("too long"));
    assert!(wrong(&binary_header(0x21, 0x11, 11, &[])).contains("too short"));
    assert!(wrong(&binary_header(0x21, 0x21, 35, &[])).contains("too short"));
    assert!(wrong(&binary_header(0x21, 0x31, 215, &[])).contains("too short"));
    assert!(wrong(&binary_header(0x21, 0x41, 0, &[])).contains("family"));
    for command in [0x00, 0x11, 0x22, 0x31, 0xff] {
        assert!(wrong(&binary_header(command, 0x11, 12, &[0; 12])).contains("command"), "{command:x}");
    }
    assert!(wrong(b"\r\n\r\n\0\r\nQUIT\r").contains("signature"));
    assert!(wrong(b"\0").contains("signature"));
}

/// Bytes that are, nearly are, or are not headers.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let line = "PROXY (TCP4|TCP6|UNKNOWN|X)( ?[0-9a-f.:]{0,12}){0,4}( [0-9+]{0,6}){0,3}(\r\n|\n|\r)?.{0,9}";
    let binary = (any::<u8>(), prop::sample::select(vec![0x20, 0x21, 0x11]), prop::collection::vec(any::<u8>(), 0..64))
        .prop_map(|(family, command, rest)| binary_header(command, family, u16::from(family) / 4, &rest));
    let known = (prop::sample::select(vec![0x11u8, 0x21]), 0u16..64, prop::collection::vec(any::<u8>(), 0..120))
        .prop_map(|(family, length, rest)| binary_header(0x21, family, length, &rest));
    prop_oneof![
        line.prop_map(String::into_bytes),
        binary,
        known,
        prop::collection::vec(any::<u8>(), 0..700),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|rest| [b"PROXY ", &rest[..]].concat()),
    ]
}

fn ends() -> impl Strategy<Value = Option<Ends>> {
    let address = || (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port));
    prop::option::of((address(), address()).prop_map(|(source, destination)| Ends { source, destination }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Never a panic; and a boundary, once found, depends on nothing behind it and was not there a byte earlier.
    #[test]
    fn any_bytes_have_one_boundary(bytes in bytes()) {
        match parse(&bytes) {
            Parsed::Whole { length, ends } => {
                prop_assert!(length <= bytes.len() && length <= MOST_BYTES);
                for at in 0..length {
                    prop_assert_eq!(parse(&bytes[..at]), Parsed::Partial);
                }
                for at in length..bytes.len() {
                    prop_assert_eq!(parse(&bytes[..at]), Parsed::Whole { length, ends });
                }
            }
            Parsed::Partial => {
                prop_assert!(bytes.len() < MOST_BYTES);
                for at in 0..bytes.len() {
                    prop_assert_eq!(parse(&bytes[..at]), Parsed::Partial);
                }
            }
            // What was wrong stays wrong whatever follows.
            Parsed::Wrong(why) => prop_assert_eq!(parse(&[&bytes[..], b"\r\n\r\n"].concat()), Parsed::Wrong(why)),
        }
    }

    /// What is written is read, both versions, at every split.
    #[test]
    fn written_headers_are_read(ends in ends(), second in any::<bool>(), rest in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut out = BytesMut::new();
        write(if second { ProxyVersion::V2 } else { ProxyVersion::V1 }, ends, &mut out);
        let header = out.len();
        out.extend_from_slice(&rest);
        for at in 0..header {
            prop_assert_eq!(parse(&out[..at]), Parsed::Partial);
        }
        let Parsed::Whole { length, ends: read } = parse(&out) else { panic!("{:?}", parse(&out)) };
        let plain = |address: SocketAddr| (address.ip().to_canonical(), address.port());
        let plain = |ends: Ends| (plain(ends.source), plain(ends.destination));
        prop_assert_eq!((length, read.map(plain)), (header, ends.map(plain)));
    }
}
