//! Where a request's body ends: every doubt is a refusal, and nothing behind it is looked at.

use super::*;

/// RFC 9112 §6.1 (item 16)
#[tokio::test]
async fn transfer_encoding_in_http_1_0_is_faulty_and_ends_the_connection() {
    let rig = Rig::start().await;
    for fields in ["", "connection: keep-alive\r\n", "content-length: 5\r\n"] {
        let head = format!("POST / HTTP/1.0\r\nhost: x\r\n{fields}transfer-encoding: chunked\r\n\r\n");
        rig.refuses(400, format!("{head}0\r\n\r\n")).await;
    }
    let answer = b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
    let rig = Rig::answering(answer, true).await;
    for _ in 0..2 {
        assert_eq!(rig.answer("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.status(), 502);
    }
    assert_eq!(rig.origin.connections(), 2);
}

/// RFC 9112 §6.1, §6.3 (item 17)
#[tokio::test]
async fn both_framings_at_once_are_refused() {
    let rig = Rig::start().await;
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n",
        "Transfer-Encoding: chunked\r\nx: y\r\nContent-Length: 0\r\n",
        "transfer-encoding: chunked\r\ncontent-length: nonsense\r\n",
        "transfer-encoding: chunked\r\ncontent-length:\r\n",
    ] {
        rig.refuses(400, format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\n0\r\n\r\n")).await;
    }
    let unknown = "transfer-encoding: identity\r\ncontent-length: 5\r\n";
    rig.refuses_with(&[400, 501], format!("POST / HTTP/1.1\r\nhost: x\r\n{unknown}\r\nhello")).await;
}

/// RFC 9112 §6.1 (item 18)
#[tokio::test]
async fn a_coding_that_is_not_understood_is_501() {
    let rig = Rig::start().await;
    for coding in ["gzip, chunked", "gzip", "compress", "x-unheard-of"] {
        rig.refuses_with(
            &[501, 400],
            format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n"),
        )
        .await;
    }
}

/// RFC 9112 §6.1, §6.3, §7 (items 21, 22)
#[tokio::test]
async fn chunked_counts_only_if_it_is_all_there_is() {
    let rig = Rig::start().await;
    for fields in [
        "transfer-encoding: chunked, chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked, identity\r\n",
        "transfer-encoding: identity, chunked\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
        "transfer-encoding: xchunked\r\n",
        "transfer-encoding: chunkedx\r\n",
        "transfer-encoding: chunked;q=1\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        "transfer-encoding: 'chunked'\r\n",
        "transfer-encoding: , chunked\r\n",
        "transfer-encoding: chunked,\r\n",
        "transfer-encoding: chunked ;\r\n",
        "transfer-encoding:\r\n",
        "transfer-encoding: identity\r\n",
        "transfer-encoding: chunked\u{b}\r\n",
        "transfer-encoding: \u{b}chunked\r\n",
        "transfer-encoding: \u{c}chunked\r\n",
        "transfer-encoding: chun\0ked\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding:\r\n",
        "transfer-encoding: ch\u{fc}nked\r\n",
    ] {
        rig.refuses_with(&[400, 501], format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\n0\r\n\r\n")).await;
    }
    for coding in ["chunked", "Chunked", "CHUNKED", "  chunked\t"] {
        let head = format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding:{coding}\r\n\r\n");
        let got = rig.forwarded(head + "5\r\nhello\r\n0\r\n\r\n").await;
        assert_eq!((got.field("transfer-encoding"), got.text().as_str()), (Some("chunked"), "hello"));
    }
}

/// RFC 9112 §6.3, RFC 9110 §8.6 (items 23, 29)
#[tokio::test]
async fn a_length_that_is_not_one_plain_number_is_refused() {
    let rig = Rig::start().await;
    for fields in [
        "content-length:\r\n",
        "content-length: \r\n",
        "content-length: a\r\n",
        "content-length: 5a\r\n",
        "content-length: +5\r\n",
        "content-length: -5\r\n",
        "content-length: -0\r\n",
        "content-length: 0x5\r\n",
        "content-length: 5.0\r\n",
        "content-length: 5e0\r\n",
        "content-length: 5 5\r\n",
        "content-length: 1_0\r\n",
        "content-length: 5,5\r\n",
        "content-length: 5, 5\r\n",
        "content-length: 5,6\r\n",
        "content-length: ,5\r\n",
        "content-length: 5,\r\n",
        "content-length: \"5\"\r\n",
        "content-length: 5;\r\n",
        "content-length: \u{665}\r\n",
        "content-length: 5\r\ncontent-length: 5\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n",
        "content-length: 5\r\ncontent-length:\r\n",
        "content-length: 5\u{b}\r\n",
        "content-length: 5\0\r\n",
        // 2^64, just above it, and so long that a number could wrap round to 5.
        "content-length: 18446744073709551616\r\n",
        "content-length: 18446744073709551621\r\n",
        "content-length: 99999999999999999999999999999999\r\n",
        "content-length: 340282366920938463463374607431768211461\r\n",
    ] {
        rig.refuses(400, format!("POST / HTTP/1.1\r\nhost: x\r\n{fields}\r\nhello")).await;
        rig.refuses(400, format!("GET / HTTP/1.1\r\nhost: x\r\n{fields}\r\nhello")).await;
    }
}

/// RFC 9112 §6.2, §6.3 (item 23)
#[tokio::test]
async fn a_plain_length_goes_on_whatever_the_method() {
    let rig = Rig::start().await;
    for method in ["POST", "PUT", "GET", "HEAD", "DELETE", "OPTIONS", "PURGE"] {
        let request = format!("{method} / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nhello");
        let got = rig.answer(request).await;
        assert_eq!(got.status(), 200, "{method}");
        let got = rig.record.take();
        assert_eq!(got.len(), 1, "{method}: {got:?}");
        assert_eq!((got[0].field("content-length"), got[0].text().as_str()), (Some("5"), "hello"), "{method}");
    }
    for method in ["GET", "HEAD", "DELETE", "OPTIONS"] {
        let request =
            format!("{method} / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(rig.answer(request).await.status(), 200, "{method}");
        let got = rig.record.take();
        assert_eq!((got.len(), got[0].text().as_str(), got[0].end), (1, "hello", End::Chunked), "{method}");
    }
    // A leading zero is valid (RFC 9110 §8.6), and octal to some: not worth the doubt.
    for zeros in ["0005", "00", "010"] {
        rig.refuses(400, format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {zeros}\r\n\r\nhello")).await;
    }
}

/// RFC 9112 §6.3 (item 23)
#[tokio::test]
async fn a_request_without_framing_has_no_body_and_one_of_length_0_says_so() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    client.send("POST /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.message().await.unwrap().status(), 200);
    }
    let got = rig.record.take();
    assert_eq!((got[0].end, got[1].line()), (End::None, "GET /2 HTTP/1.1"));
    let got = rig.forwarded("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(got.field("content-length"), Some("0"));
}

/// RFC 9110 §8.6 (item 28)
#[tokio::test]
async fn a_request_body_that_breaks_off_reaches_the_backend_as_broken() {
    let rig = Rig::start().await;
    for request in [
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\na\r\nhello",
    ] {
        let (already, mut client) = (rig.origin.connections(), rig.connect().await);
        client.send(request).await.unwrap();
        let connections = || async { (rig.origin.connections() > already).then_some(()) };
        e2e::eventually("it is at the backend", async || connections().await).await;
        drop(client);
        let got = e2e::eventually("the backend knows", async || rig.record.take().pop()).await;
        assert_eq!(got.end, End::Cut, "{request:?}");
        assert!(b"hello".starts_with(&got.body), "{request:?}: {got:?}");
    }
}

/// RFC 9110 §8.6 (item 29)
#[tokio::test]
async fn the_largest_length_that_fits_is_taken_for_what_it_says() {
    let rig = Rig::start().await;
    let mut client = rig.connect().await;
    client.send("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9223372036854775807\r\n\r\nhello").await.unwrap();
    e2e::eventually("it is at the backend", async || (rig.origin.requests() == 1).then_some(())).await;
    drop(client);
    let got = e2e::eventually("the backend knows", async || rig.record.take().pop()).await;
    assert_eq!((got.field("content-length"), got.end), (Some("9223372036854775807"), End::Cut));
}
