//! Fields of both heads: their syntax, their size, their order; and `Host`.

use super::*;

/// RFC 9112 §3.2 (item 6)
#[tokio::test]
async fn a_request_names_exactly_one_valid_host() {
    let rig = Rig::start().await;
    for hosts in [
        "",
        "host: \r\n",
        "host:\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a\r\nHost: a\r\n",
        "host: a\r\nhost:\r\n",
        "host: u@a\r\n",
        "host: a/b\r\n",
        "host: /\r\n",
        "host: a, b\r\n",
        "host: a,b\r\n",
        "host: a b\r\n",
        "host: http://a\r\n",
        "host: a?b\r\n",
        "host: a#b\r\n",
        "host: a\\b\r\n",
        "host: \"a\"\r\n",
        "host: <a>\r\n",
        "host: a\u{e9}\r\n",
        "host: a:b\r\n",
        "host: a:1:2\r\n",
        "host: :80\r\n",
        "host: [::1\r\n",
        "host: a:99999\r\n",
    ] {
        rig.refuses(400, format!("GET / HTTP/1.1\r\n{hosts}\r\n")).await;
    }
    for host in ["a", "a:8080", "[2001:db8::1]:80", "127.0.0.1", "a_b.example", "a.example.", "A.Example"] {
        let got = rig.forwarded(format!("GET / HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        assert_eq!(got.field("x-forwarded-host"), Some(host));
    }
}

/// RFC 9112 §3.2 (item 6)
#[tokio::test]
async fn an_old_client_needs_no_host_but_may_not_give_two() {
    let rig = Rig::start().await;
    let got = rig.forwarded("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(got.field("host"), Some(rig.origin.address().as_str()));
    rig.refuses(400, "GET / HTTP/1.0\r\nhost: a\r\nhost: b\r\n\r\n").await;
    rig.refuses(400, "GET / HTTP/1.0\r\nhost: a@b\r\n\r\n").await;
}

/// RFC 9112 §5.1 (item 10)
#[tokio::test]
async fn white_space_before_a_colon_is_refused() {
    let rig = Rig::start().await;
    for field in ["host : x", "host\t: x", "x-a : b", "content-length : 5", "transfer-encoding : chunked"] {
        rig.refuses(400, format!("GET / HTTP/1.1\r\nhost: x\r\n{field}\r\n\r\n")).await;
    }
}

/// RFC 9112 §5.1 (item 10): it must not go on; a backend that sends it is not believed in anything else either.
#[tokio::test]
async fn white_space_before_a_colon_in_a_response_never_goes_on() {
    let rig = Rig::answering(b"HTTP/1.1 200 OK\r\nx-a : b\r\ncontent-length: 2\r\n\r\nok", true).await;
    let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(answer.status(), 502, "{}", answer.head);
    assert!(!answer.head.contains("x-a"), "{}", answer.head);
}

/// RFC 9112 §5.2 (item 11)
#[tokio::test]
async fn a_folded_line_is_refused() {
    let rig = Rig::start().await;
    for fields in [
        "x-a: b\r\n c\r\n",
        "x-a: b\r\n\tc\r\n",
        "x-a:\r\n b\r\n",
        "content-length: 1\r\n 0\r\n",
        "x-a: b\r\n \r\n",
        "transfer-encoding:\r\n chunked\r\n",
        "expect:\r\n 100-continue\r\n",
        "connection: close\r\n , x\r\n",
    ] {
        rig.refuses(400, format!("GET / HTTP/1.1\r\nhost: x\r\n{fields}\r\n")).await;
    }
    rig.refuses(400, "GET / HTTP/1.1\r\nhost:\r\n x\r\n\r\n").await;
}

/// RFC 9112 §5.1, RFC 9110 §5.1 (item 12)
#[tokio::test]
async fn a_field_name_is_a_token_and_not_empty() {
    let rig = Rig::start().await;
    for field in
        [": b", "x a: b", "x(: b", "x\0: b", "x\u{e9}: b", "\"x\": b", "x/y: b", "no colon", "x@y: b", "x\x7f: b"]
    {
        rig.refuses(400, format!("GET / HTTP/1.1\r\nhost: x\r\n{field}\r\n\r\n")).await;
    }
    let got = rig.forwarded("GET / HTTP/1.1\r\nhost: x\r\n!#$%&'*+-.^`|~9: all\r\n\r\n").await;
    assert_eq!(got.field("!#$%&'*+-.^`|~9"), Some("all"));
}

/// RFC 9110 §5.5 (item 12)
#[tokio::test]
async fn control_characters_in_a_value_are_refused() {
    let rig = Rig::start().await;
    for byte in (0..0x20_u8).filter(|byte| *byte != b'\t').chain([0x7f]) {
        let field = [b"x-a: b".as_slice(), &[byte], b"c\r\n\r\n"].concat();
        rig.refuses(400, [b"GET / HTTP/1.1\r\nhost: x\r\n".as_slice(), &field].concat()).await;
    }
    // HTAB and obs-text are none.
    let request = b"GET / HTTP/1.1\r\nhost: x\r\nx-a: b\tc\r\nx-b: \xe9\xff\r\nx-empty:\r\n\r\n";
    let got = rig.forwarded(request).await;
    assert_eq!((got.field("x-a"), got.field("x-empty")), (Some("b\tc"), Some("")));
    assert_eq!(got.field("x-b").map(|value| value.chars().count()), Some(2));
}

/// RFC 9110 §5.3 (item 13)
#[tokio::test]
async fn fields_of_one_name_keep_their_order_and_their_lines() {
    let answer = b"HTTP/1.1 200 OK\r\nset-cookie: a=1, x\r\nx-b: 1\r\nSet-Cookie: b=2\r\nset-cookie: a=3\r\nx-b: 2\r\n\
        content-length: 0\r\n\r\n";
    let rig = Rig::answering(answer, true).await;
    let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\nx-a: 1\r\ncookie: c\r\nx-a: 3\r\nX-A: 2\r\n\r\n").await;
    assert_eq!(answer.fields("set-cookie"), ["a=1, x", "b=2", "a=3"]);
    assert_eq!(answer.fields("x-b"), ["1", "2"]);
    assert_eq!(rig.record.take()[0].fields("x-a"), ["1", "3", "2"]);
}

/// RFC 9110 §5.1, §16.3.1 (item 14)
#[tokio::test]
async fn unknown_fields_pass_both_ways() {
    let rig =
        Rig::answering(b"HTTP/1.1 200 Fine\r\nx-unheard-of: 1 , \"a\"\r\nsec: \r\ncontent-length: 0\r\n\r\n", true)
            .await;
    let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\nx-never-seen:   a  b  \r\npriority: u=1\r\n\r\n").await;
    assert_eq!((answer.field("x-unheard-of"), answer.field("sec")), (Some("1 , \"a\""), Some("")));
    let got = &rig.record.take()[0];
    assert_eq!((got.field("x-never-seen"), got.field("priority")), (Some("a  b"), Some("u=1")));
}

/// RFC 9110 §5.4, RFC 6585 §5 (item 15)
#[tokio::test]
async fn a_head_within_the_limits_goes_on_whole_and_a_larger_one_is_431() {
    let rig = Rig::start().await;
    let large = "v".repeat(31 * 1024);
    let got = rig.forwarded(format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {large}\r\n\r\n")).await;
    assert_eq!(got.field("x-large").map(str::len), Some(large.len()));
    for size in [33 * 1024, 70_000, 500_000] {
        rig.refuses(431, format!("GET / HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "v".repeat(size))).await;
    }
    // Without an end in sight.
    let endless = format!("{}x: {}", "x-more: v\r\n".repeat(90), "v".repeat(40_000));
    rig.refuses(431, format!("GET / HTTP/1.1\r\nhost: x\r\n{endless}")).await;
}

/// RFC 9110 §5.4, RFC 6585 §5 (item 15)
#[tokio::test]
async fn a_hundred_fields_pass_and_one_more_is_431() {
    let rig = Rig::start().await;
    let with = |count: usize| format!("GET / HTTP/1.1\r\nhost: x\r\n{}\r\n", "x-f: v\r\n".repeat(count - 1));
    assert_eq!(rig.forwarded(with(100)).await.fields("x-f").len(), 99);
    for count in [101, 150, 3000] {
        rig.refuses(431, with(count)).await;
    }
}

/// RFC 9110 §5.4 (item 15)
#[tokio::test]
async fn a_response_head_is_never_cut_down_to_fit() {
    let large = format!("HTTP/1.1 200 OK\r\nx-large: {}\r\ncontent-length: 0\r\n\r\n", "v".repeat(60_000));
    let rig = Rig::answering(large.as_bytes(), true).await;
    let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((answer.status(), answer.field("x-large").map(str::len)), (200, Some(60_000)));
    for too_much in [
        format!("HTTP/1.1 200 OK\r\nx-large: {}\r\ncontent-length: 0\r\n\r\n", "v".repeat(70_000)),
        format!("HTTP/1.1 200 OK\r\n{}content-length: 0\r\n\r\n", "x-f: v\r\n".repeat(100)),
    ] {
        let rig = Rig::answering(too_much.as_bytes(), true).await;
        assert_eq!(rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status(), 502);
    }
}

/// RFC 9110 §5.5, RFC 9112 §5.2, §2.2 (items 3, 11, 12)
#[tokio::test]
async fn a_response_head_with_bare_line_ends_folds_or_controls_is_502() {
    for head in [
        &b"HTTP/1.1 200 OK\nx-a: b\r\n"[..],
        b"HTTP/1.1 200 OK\r\nx-a: b\nx-c: d\r\n",
        b"HTTP/1.1 200 OK\r\nx-a: b\rc\r\n",
        b"HTTP/1.1 200 OK\rx-a: b\r\n",
        b"HTTP/1.1 200 OK\r\nx-a: b\r\n c\r\n",
        b"HTTP/1.1 200 OK\r\nx-a: b\r\n\tc\r\n",
        b"HTTP/1.1 200 OK\r\n x-a: b\r\n",
        b"HTTP/1.1 200 OK\r\nx-a: b\0c\r\n",
        b"HTTP/1.1 200 OK\r\nx-a: b\x01c\r\n",
        b"HTTP/1.1 200 OK\r\nx-a: b\x7fc\r\n",
        b"HTTP/1.1 200 O\0K\r\nx-a: b\r\n",
        b"HTTP/1.1 200 O\x01K\r\nx-a: b\r\n",
        b"HTTP/1.1 200 OK\r\n: b\r\n",
        b"HTTP/1.1 200 OK\r\nx a: b\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n",
    ] {
        let rig = Rig::answering(&[head, b"content-length: 2\r\n\r\nok"].concat(), true).await;
        for _ in 0..2 {
            let answer = rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_eq!(answer.status(), 502, "{}: {}", shown(head), answer.head);
        }
        assert_eq!(rig.origin.connections(), 2, "used again after {}", shown(head));
    }
}
