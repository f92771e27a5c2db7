//! The request line: what stands before it, its method, its target, its version.

use super::*;

/// RFC 9112 §2.2 (item 1)
#[tokio::test]
async fn empty_lines_before_a_request_are_passed_over() {
    let rig = Rig::start().await;
    for lines in ["\r\n", "\r\n\r\n"] {
        rig.forwarded(format!("{lines}GET / HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    }
    // Old clients put one behind a body.
    let mut client = rig.connect().await;
    client.send("POST /1 HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\na\r\n").await.unwrap();
    client.send("GET /2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.message().await.unwrap().status(), 200);
    }
    assert_eq!(rig.record.take().len(), 2);
}

/// RFC 9112 §2.2 (items 1, 3)
#[tokio::test]
async fn an_empty_line_of_a_bare_lf_or_cr_is_refused() {
    let rig = Rig::start().await;
    for before in ["\n", "\r\n\n", "\r", " "] {
        rig.refuses(400, format!("{before}GET / HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    }
}

/// RFC 9112 §2.2 (item 2)
#[tokio::test]
async fn white_space_between_request_line_and_first_field_is_refused() {
    let rig = Rig::start().await;
    for gap in [" host: x", "\thost: x", " \r\nhost: x", " x: y\r\nhost: x"] {
        rig.refuses(400, format!("GET / HTTP/1.1\r\n{gap}\r\n\r\n")).await;
    }
}

/// RFC 9112 §2.2 (item 3)
#[tokio::test]
async fn a_bare_cr_or_lf_anywhere_in_a_head_is_refused() {
    let rig = Rig::start().await;
    for head in [
        "GET / HTTP/1.1\rhost: x\r\n\r\n",
        "GET / HTTP/1.1\nhost: x\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\n\n",
        "GET / HTTP/1.1\nhost: x\n\n",
        "GET / HTTP/1.1\r\nhost: x\r\nx-a: b\rc\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nx-a: b\r\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nx-a: b\nx-c: d\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: x\r\nx\r-a: b\r\n\r\n",
        "GET /\r HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        rig.refuses(400, head).await;
    }
}

/// RFC 9112 §2.3, RFC 9110 §6.2 (item 4)
#[tokio::test]
async fn each_side_gets_our_version_and_not_the_other_sides() {
    let rig = Rig::answering(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", false).await;
    let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answer.line(), "HTTP/1.1 200 OK");
    assert_eq!(rig.record.take()[0].line(), "GET / HTTP/1.1");
    let got = rig.forwarded("GET / HTTP/1.0\r\nhost: x\r\n\r\n").await;
    assert_eq!(got.line(), "GET / HTTP/1.1");
}

/// RFC 9112 §2.3, RFC 9110 §15.6.6 (item 4)
#[tokio::test]
async fn a_version_we_do_not_speak_is_505_and_what_is_none_is_400() {
    let rig = Rig::start().await;
    for version in ["HTTP/1.2", "HTTP/1.9", "HTTP/2.0", "HTTP/3.0", "HTTP/0.9", "HTTP/9.9"] {
        rig.refuses(505, format!("GET / {version}\r\nhost: x\r\n\r\n")).await;
    }
    rig.refuses(505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    for version in ["http/1.1", "HTTP/1", "HTTP/1.1.1", "HTTP/11.1", "HTTP/1.x", "HTTP/ 1.1", "HTTPS/1.1", "HTTP/1,1"] {
        rig.refuses(400, format!("GET / {version}\r\nhost: x\r\n\r\n")).await;
    }
    // HTTP/0.9: a line without a version.
    rig.refuses(400, "GET /\r\nhost: x\r\n\r\n").await;
}

/// RFC 9112 §3 (item 5)
#[tokio::test]
async fn a_target_of_8000_bytes_passes_and_a_longer_one_than_the_limit_is_414() {
    let rig = Rig::start().await;
    let target = format!("/{}", "a".repeat(7999));
    let got = rig.forwarded(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    assert_eq!(got.line(), format!("GET {target} HTTP/1.1"));
    rig.forwarded(format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(8191))).await;
    for length in [8192, 20_000, 200_000] {
        rig.refuses(414, format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(length))).await;
    }
    // The query counts too.
    rig.refuses(414, format!("GET /?{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(8191))).await;
}

/// RFC 9112 §3, RFC 9110 §9.1 (item 5)
#[tokio::test]
async fn methods_are_the_backends_business_whatever_they_are() {
    let rig = Rig::start().await;
    for method in ["PURGE", "M-SEARCH", "get", "Get", "!#$%&'*+-.^_`|~09", &"LONG".repeat(1000)] {
        let got = rig.forwarded(format!("{method} /m HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(got.line(), format!("{method} /m HTTP/1.1"));
    }
    for method in ["G(ET", "GE\"T", "GET,", "G\0T", "G\u{e9}T", "", "GET\t"] {
        rig.refuses(400, format!("{method} / HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    }
}

/// RFC 9112 §3.2.2 (item 7)
#[tokio::test]
async fn an_absolute_target_is_taken_apart_and_its_authority_is_the_host() {
    let rig = Rig::start().await;
    for (target, line, host) in [
        ("http://a.example/x?y", "GET /x?y HTTP/1.1", "a.example"),
        ("http://a.example:8080/x", "GET /x HTTP/1.1", "a.example:8080"),
        ("HTTP://a.example/x", "GET /x HTTP/1.1", "a.example"),
        ("http://[::1]:80/", "GET / HTTP/1.1", "[::1]:80"),
    ] {
        let got = rig.forwarded(format!("GET {target} HTTP/1.1\r\nhost: other\r\n\r\n")).await;
        assert_eq!((got.line(), got.field("host")), (line, Some(host)), "{target}");
        assert_eq!(got.field("x-forwarded-host"), Some(host), "{target}");
    }
}

/// RFC 9112 §3.2.2, RFC 9110 §4.2.1, §4.2.4 (items 7, 9)
#[tokio::test]
async fn an_absolute_target_that_names_nobody_or_a_user_is_refused() {
    let rig = Rig::start().await;
    for target in
        ["http:///x", "http://", "http://u@a/x", "http://u:p@a/x", "http://a,b/", "http://a:b/", "http://a b/"]
    {
        rig.refuses(400, format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    }
    // It does not make up for what is wrong with Host (§3.2).
    rig.refuses(400, "GET http://a/ HTTP/1.1\r\n\r\n").await;
    rig.refuses(400, "GET http://a/ HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n").await;
}

/// RFC 9112 §3.2.3 (item 8)
#[tokio::test]
async fn the_authority_form_is_for_connect_only() {
    let rig = Rig::start().await;
    for target in ["a.example:80", "a.example", "127.0.0.1:1", "[::1]:80"] {
        rig.refuses(400, format!("GET {target} HTTP/1.1\r\nhost: a.example:80\r\n\r\n")).await;
    }
}

/// RFC 9112 §3.2.4 (item 8)
#[tokio::test]
async fn the_asterisk_is_for_options_only() {
    let rig = Rig::start().await;
    for method in ["GET", "HEAD", "POST", "PURGE"] {
        rig.refuses(400, format!("{method} * HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    }
    let got = rig.forwarded("OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(got.line(), "OPTIONS * HTTP/1.1");
    let got = rig.forwarded("OPTIONS http://a.example HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((got.line(), got.field("host")), ("OPTIONS * HTTP/1.1", Some("a.example")));
    let got = rig.forwarded("OPTIONS http://a.example/ HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(got.line(), "OPTIONS / HTTP/1.1");
    rig.refuses(400, "OPTIONS *a HTTP/1.1\r\nhost: x\r\n\r\n").await;
}

/// RFC 9112 §3.2 (item 9)
#[tokio::test]
async fn an_invalid_target_is_refused_and_never_corrected() {
    let rig = Rig::start().await;
    for target in [
        "/a b", "/a#b", "#", "/\u{e9}", "/a\0", "/a\x01", "/a\x7f", "/a\tb", "foo", "foo/bar", "../x", "?q", "", " /",
        "/ ", "\\x", "ftp://", "http:/x", "//\0",
    ] {
        rig.refuses(400, format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    }
    let tail = b" HTTP/1.1\r\nhost: x\r\n\r\n";
    for byte in [0x80_u8, 0xff, 0xc0] {
        rig.refuses(400, [b"GET /a".as_slice(), &[byte], tail].concat()).await;
    }
    // White space other than the one space between the parts.
    for line in ["GET  / HTTP/1.1", "GET /  HTTP/1.1", "GET\t/\tHTTP/1.1", "GET / HTTP/1.1 ", "GET / HTTP/1.1 x"] {
        rig.refuses(400, format!("{line}\r\nhost: x\r\n\r\n")).await;
    }
}

/// RFC 9110 §7.7 (item 49)
#[tokio::test]
async fn path_and_query_go_on_as_they_came() {
    let rig = Rig::start().await;
    for target in ["/a//b/../c/./d", "/%2e%2e/%2F%5c", "/?", "/a?b?c=/&&;", "//x", "/a;b=c,d:e@f!$'()*~"] {
        let got = rig.forwarded(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(got.line(), format!("GET {target} HTTP/1.1"));
    }
    // Only an empty path becomes "/" (RFC 9112 §3.2.1).
    for (target, path) in [("http://a", "/"), ("http://a?q", "/?q")] {
        let got = rig.forwarded(format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(got.line(), format!("GET {path} HTTP/1.1"));
    }
}

/// RFC 9110 §9.3.6, §15.5.6 (item 55)
#[tokio::test]
async fn connect_is_405_because_a_gateway_is_no_tunnel() {
    let rig = Rig::start().await;
    for target in ["a.example:443", "127.0.0.1:22", "/", "http://a/"] {
        let request = format!("CONNECT {target} HTTP/1.1\r\nhost: a.example:443\r\n\r\n");
        let answer = rig.refuses_with(&[405, 400], request).await;
        if target.contains(':') && !target.contains('/') {
            assert_eq!(answer.status(), 405);
            let allow = answer.field("allow").expect("RFC 9110 §10.2.1: 405 says what is allowed");
            assert!(allow.contains("GET") && !allow.contains("CONNECT"), "{allow}");
        }
    }
}

/// RFC 9110 §9.3.8, §15.5.6 (item 56)
#[tokio::test]
async fn trace_is_405_so_that_no_credentials_are_reflected() {
    let rig = Rig::start().await;
    let request = "TRACE / HTTP/1.1\r\nhost: x\r\ncookie: secret\r\nauthorization: secret\r\nmax-forwards: 0\r\n\r\n";
    let answer = rig.answer(request).await;
    assert_eq!(answer.status(), 405);
    let allow = answer.field("allow").expect("RFC 9110 §10.2.1: 405 says what is allowed");
    assert!(allow.contains("GET") && !allow.contains("TRACE"), "{allow}");
    assert!(!answer.text().contains("secret") && !answer.head.contains("secret"), "{answer:?}");
    assert_eq!(rig.origin.requests(), 0);
}
