//! Trailer sections pass both ways, except for what has no place in them; `TE` says who wants them.

use super::*;

/// Names that decide about framing, routing, access or what the body is (RFC 9110 §6.5.1), or that we write.
const FORBIDDEN: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "authorization",
    "proxy-authorization",
    "proxy-authenticate",
    "www-authenticate",
    "cookie",
    "set-cookie",
    "content-type",
    "content-encoding",
    "content-range",
    "cache-control",
    "expect",
    "max-forwards",
    "range",
    "via",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "forwarded",
    "x-request-id",
];

/// RFC 9110 §6.5, §6.5.1 (item 33)
#[tokio::test]
async fn request_trailers_go_on_as_trailers_without_what_is_no_trailer() {
    let rig = Rig::start().await;
    let forbidden: String = FORBIDDEN.iter().map(|name| format!("{name}: 1\r\n")).collect();
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
    let got = rig.forwarded(format!("{head}5\r\nhello\r\n0\r\nx-sum: 7\r\n{forbidden}x-sum: 8\r\n\r\n")).await;
    assert_eq!((got.trailers.as_str(), got.text().as_str()), ("x-sum: 7\r\nx-sum: 8\r\n", "hello"));
    // Not merged into the head either.
    assert_eq!((got.field("x-sum"), got.field("host"), got.field("authorization")), (None, Some("x"), None));
    assert_eq!(got.field("trailer"), Some("x-sum"));
}

/// RFC 9110 §6.5.1 (item 33)
#[tokio::test]
async fn a_trailer_under_an_alias_of_ours_does_not_go_on() {
    let rig = Rig::start().await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    let aliases = "x_forwarded_for: 6.6.6.6\r\ncontent_length: 1\r\nX-Forwarded_Proto: https\r\n";
    let got = rig.forwarded(format!("{head}5\r\nhello\r\n0\r\n{aliases}x_mine: 1\r\n\r\n")).await;
    assert_eq!(got.trailers, "x_mine: 1\r\n");
}

/// RFC 9110 §6.5, §6.5.1 (item 33)
#[tokio::test]
async fn response_trailers_reach_a_client_that_takes_them() {
    let forbidden: String = FORBIDDEN.iter().map(|name| format!("{name}: 1\r\n")).collect();
    let names = FORBIDDEN.join(", ");
    let answer = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, {names}\r\n\r\n2\r\nok\r\n0\r\n\
         x-sum: 7\r\n{forbidden}x-sum: 8\r\n\r\n"
    );
    let rig = Rig::answering(answer.as_bytes(), true).await;
    for _ in 0..2 {
        let got = rig.answer("GET / HTTP/1.1\r\nhost: x\r\nte: trailers\r\nconnection: te\r\n\r\n").await;
        assert_eq!((got.text().as_str(), got.trailers.as_str()), ("ok", "x-sum: 7\r\nx-sum: 8\r\n"));
        assert_eq!(got.field("x-sum"), None);
    }
    assert_eq!(rig.origin.connections(), 1, "a trailer section does not spoil a connection");
}

/// RFC 9110 §6.5.1, §10.1.4 (items 33, 34)
#[tokio::test]
async fn response_trailers_do_not_disturb_a_client_that_did_not_ask() {
    let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n";
    let rig = Rig::answering(answer, true).await;
    let mut client = rig.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let got = client.message().await.unwrap();
        assert_eq!((got.text().as_str(), got.end, got.field("x-sum")), ("ok", End::Chunked, None));
    }
}

/// RFC 9112 §7.4, RFC 9110 §10.1.4 (item 34)
#[tokio::test]
async fn te_goes_on_as_trailers_and_nothing_else() {
    let rig = Rig::start().await;
    for te in ["trailers", "Trailers", "gzip, trailers", "trailers, deflate;q=0.1", "deflate\r\nte: trailers"] {
        let got = rig.forwarded(format!("GET / HTTP/1.1\r\nhost: x\r\nte: {te}\r\nconnection: te\r\n\r\n")).await;
        assert_eq!(got.field("te").map(str::to_ascii_lowercase).as_deref(), Some("trailers"), "{te}");
        // RFC 9110 §10.1.4: whoever sends TE names it in Connection.
        assert_eq!(got.field("connection").map(str::to_ascii_lowercase).as_deref(), Some("te"), "{te}");
    }
    for te in ["gzip", "chunked", "gzip;q=0.5, deflate", "x-trailers", "", "trailersx"] {
        let got = rig.forwarded(format!("GET / HTTP/1.1\r\nhost: x\r\nte: {te}\r\nconnection: te\r\n\r\n")).await;
        assert_eq!((got.field("te"), got.field("connection")), (None, None), "{te}");
    }
}
