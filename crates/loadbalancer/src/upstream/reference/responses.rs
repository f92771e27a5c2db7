//! What hyper's server writes, our exchange reads: on a real socket, cut at every byte.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use proptest::prelude::*;
use tokio::net::TcpStream;

use super::corpus::{NO_BODY, NO_HEAD, VALID};
use super::loopback::{Backend, Outcome, answered, answered_then_reset, arrived, block_on, send, with_request};
use super::{Message, Verdict, check_response, end_to_end, hyper_serves, ours, split};
use crate::upstream::{ExchangeError, UpstreamConn};

#[derive(Clone, Debug)]
enum Body {
    None,
    Full(Vec<u8>),
    Pieces(Vec<Vec<u8>>, Option<String>),
}

impl Body {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::None => Vec::new(),
            Self::Full(bytes) => bytes.clone(),
            Self::Pieces(pieces, _) => pieces.concat(),
        }
    }

    fn boxed(&self) -> BoxBody<Bytes, Infallible> {
        match self {
            Self::None => Empty::new().boxed(),
            Self::Full(bytes) => Full::from(bytes.clone()).boxed(),
            Self::Pieces(pieces, trailer) => {
                let data = pieces.iter().map(|piece| Frame::data(Bytes::from(piece.clone())));
                let trailers = trailer.iter().map(|value| {
                    let value = HeaderValue::from_str(value).unwrap();
                    Frame::trailers(HeaderMap::from_iter([(HeaderName::from_static("x-sum"), value)]))
                });
                let frames: Vec<_> = data.chain(trailers).map(Ok).collect();
                BodyExt::boxed(StreamBody::new(tokio_stream::iter(frames)))
            }
        }
    }
}

/// A response as hyper's server writes it.
fn written(request: &str, status: StatusCode, fields: &[(String, String)], body: &Body) -> Vec<u8> {
    hyper_serves(&[request.as_bytes()], async |_| {
        let mut response = Response::builder().status(status).header("trailer", "x-sum");
        for (name, value) in fields {
            response = response.header(name, value);
        }
        response.body(body.boxed()).unwrap()
    })
}

/// Reads `bytes`, cut at `cut`, through an exchange on a new connection.
async fn through_exchange(backend: &Backend, method: &Method, bytes: &[u8], cut: usize, close: bool) -> Outcome {
    let (connection, mut peer) = backend.pair().await;
    on(connection, &mut peer, method, &split(bytes, &[cut]), close).await
}

/// One exchange on a connection whose other end is `peer`.
async fn on(
    connection: Box<UpstreamConn>,
    peer: &mut TcpStream,
    method: &Method,
    pieces: &[&[u8]],
    close: bool,
) -> Outcome {
    let raw = format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n");
    with_request(raw.as_bytes(), async |request| {
        let mut exchange = send(request, connection).await;
        let sent = arrived(&mut exchange, peer).await;
        assert!(sent.starts_with(method.as_str().as_bytes()));
        answered(exchange, peer, method, pieces, close).await
    })
    .await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_response_arrives_as_it_was_meant(
        head_only in prop::bool::weighted(0.2),
        old in prop::bool::weighted(0.2),
        status in prop::sample::select(vec![200_u16, 201, 204, 205, 206, 301, 304, 404, 500, 503, 599]),
        fields in prop::collection::vec(("x-[a-z-]{1,8}", "[!-~]([ -~]{0,20}[!-~])?"), 0..6),
        body in prop_oneof![
            Just(Body::None),
            prop::collection::vec(any::<u8>(), 0..80).prop_map(Body::Full),
            (prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 0..4), prop::option::of("[!-~]{1,9}"))
                .prop_map(|(pieces, trailer)| Body::Pieces(pieces, trailer)),
        ],
    ) {
        let method = if head_only { Method::HEAD } else { Method::GET };
        let version = if old { "1.0" } else { "1.1" };
        let status = StatusCode::from_u16(status).unwrap();
        let request = format!("{method} / HTTP/{version}\r\nhost: a\r\nte: trailers\r\n\r\n");
        let bytes = written(&request, status, &fields, &body);
        let Verdict::Whole(message, 0) = check_response(&bytes, &[], &method) else { panic!("{}", bytes.escape_ascii()) };
        // What hyper was given came out.
        prop_assert_eq!(message.status, status.as_u16());
        let bodiless = head_only || matches!(status.as_u16(), 204 | 304);
        prop_assert_eq!(&message.body, &if bodiless { Vec::new() } else { body.bytes() });
        for (name, value) in &fields {
            prop_assert!(message.headers.get_all(name).iter().any(|found| found == value.as_str()), "{} is lost", name);
        }
        if let Body::Pieces(_, Some(trailer)) = &body && !bodiless && !old {
            prop_assert_eq!(&message.trailers["x-sum"], trailer.as_str());
        }
        // On a real socket, cut at every byte.
        block_on(async {
            let backend = Backend::start().await;
            for cut in 0..=bytes.len() {
                let (result, _) = through_exchange(&backend, &method, &bytes, cut, true).await;
                same(&result.unwrap(), &message, cut);
            }
        });
    }
}

/// An exchange gives out what the codec alone gives out. Whether the connection is kept is judged elsewhere: here it
/// may be closed behind the response.
fn same(found: &Message, expected: &Message, cut: usize) {
    assert_eq!(found.status, expected.status, "cut at {cut}");
    assert_eq!(found.headers, expected.headers, "cut at {cut}");
    assert_eq!(found.body, expected.body, "cut at {cut}");
    assert_eq!(found.trailers, expected.trailers, "cut at {cut}");
    assert!(expected.keep_alive || !found.keep_alive, "cut at {cut}");
    assert_eq!(found.headers, end_to_end(&found.headers), "cut at {cut}");
}

#[test]
fn an_exchange_comes_to_the_same_end_as_the_codec_alone() {
    let broken = NO_HEAD.iter().chain(NO_BODY).map(|(bytes, _)| *bytes);
    block_on(async {
        let backend = Backend::start().await;
        for bytes in VALID.iter().copied().chain(broken) {
            for cut in 0..=bytes.len() {
                let (result, _) = through_exchange(&backend, &Method::GET, bytes, cut, true).await;
                match (result, ours(&[bytes], &Method::GET, true)) {
                    (Ok(found), Verdict::Whole(expected, _)) => same(&found, &expected, cut),
                    (Err(ExchangeError::Bad(_) | ExchangeError::Body(_)), Verdict::Broken(..)) => {}
                    // Only if nothing at all has come can the close have crossed the request.
                    (Err(ExchangeError::Closed(_)), Verdict::Broken(..)) => assert!(bytes.is_empty()),
                    // Of a head that was not complete nothing has gone to the client.
                    (Err(ExchangeError::HeadCut(_)), Verdict::Broken(None, "closed inside the head")) => {
                        assert!(!bytes.is_empty());
                    }
                    (found, expected) => panic!("{}: {found:?}, {expected:?}", bytes.escape_ascii()),
                }
            }
        }
    });
}

#[test]
fn a_reset_behind_the_first_byte_of_an_answer_is_not_a_closed_connection() {
    block_on(async {
        let backend = Backend::start().await;
        for (bytes, begun) in [
            (&b""[..], false),
            (b"H", true),
            (b"HTTP/1.1 103 Early Hints\r\n\r\n", true),
            (b"HTTP/1.1 200 OK\r\n", true),
        ] {
            let (connection, mut peer) = backend.pair().await;
            let error = with_request(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", async |request| {
                let mut exchange = send(request, connection).await;
                arrived(&mut exchange, &mut peer).await;
                answered_then_reset(exchange, peer, bytes).await
            })
            .await;
            // `Closed` alone may have crossed the request.
            assert_eq!(matches!(error, ExchangeError::HeadCut(_)), begun, "{}: {error}", bytes.escape_ascii());
            assert_eq!(matches!(error, ExchangeError::Closed(_)), !begun, "{}: {error}", bytes.escape_ascii());
        }
    });
}

#[test]
fn a_connection_is_kept_exactly_when_nothing_is_left_on_it() {
    block_on(async {
        let backend = Backend::start().await;
        for (bytes, kept) in [
            (&b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..], true),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true),
            (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", true),
            (b"HTTP/1.1 204 No Content\r\n\r\n", true),
            // RFC 9112 §9.3: it is to be closed, or old.
            (b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 5\r\n\r\nhello", false),
            (b"HTTP/1.1 200 OK\r\nConnection: x\r\nConnection: y ,\tclose\r\nContent-Length: 5\r\n\r\nhello", false),
            (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", false),
            // A body that was announced where there is none may follow.
            (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", false),
            (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            // RFC 9112 §9.3 and §11.2: bytes behind the end would be taken for the next response.
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!", false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello\r\n", false),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", false),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n0\r\n\r\n", false),
            (b"HTTP/1.1 204 No Content\r\n\r\nhello", false),
        ] {
            let (connection, mut peer) = backend.pair().await;
            let (result, connection) = on(connection, &mut peer, &Method::GET, &[bytes], false).await;
            assert!(result.is_ok(), "{}: {result:?}", bytes.escape_ascii());
            // Bytes behind the end may come a moment later: an idle connection is looked at before it is used.
            let usable = connection.is_some_and(|connection| connection.is_quiet_for_sure());
            assert_eq!(usable, kept, "{}", bytes.escape_ascii());
        }
    });
}

#[test]
fn many_exchanges_on_one_connection_each_cut_elsewhere() {
    let responses = [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"[..],
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x\r\nworld\r\n0\r\nX-T: 1\r\n\r\n",
    ];
    block_on(async {
        let backend = Backend::start().await;
        let (connection, mut peer) = backend.pair().await;
        let mut connection = Some(connection);
        for bytes in responses {
            for cut in 1..bytes.len() {
                let taken = connection.take().expect("the connection is kept");
                let (result, kept) = on(taken, &mut peer, &Method::GET, &split(bytes, &[cut]), false).await;
                let Verdict::Whole(expected, 0) = ours(&[bytes], &Method::GET, false) else { panic!() };
                same(&result.unwrap(), &expected, cut);
                connection = kept;
            }
        }
    });
}
