//! A request body that is to be sent again: what is kept of it, and what is put back.

use std::future::poll_fn;
use std::rc::Rc;

use http::Method;
use http::request::Parts;
use hyper::Request;
use hyper::body::Incoming;

use super::loopback::{Backend, arrived, block_on, facts, with_request};
use crate::upstream::{Exchange, ExchangeError, Framing, Outgoing, RequestBody, UpstreamConn, write_head};

fn raw(length: usize) -> Vec<u8> {
    let mut raw = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    raw.extend((0..length).map(|at| b'a' + (at % 26) as u8));
    raw
}

fn sending(
    request: &Parts,
    (body, framing): (RequestBody, Framing),
    repeatable: bool,
    mut to: Box<UpstreamConn>,
) -> Exchange {
    write_head(&mut to.unsent, "POST", "/", &request.headers, &facts(framing));
    Exchange::new(to, Outgoing::new(body, &request.headers, framing, repeatable, false))
}

/// Sends over a connection that was reset before, and then over a good one; what arrived there.
async fn sent_twice(request: Request<Incoming>, most_kept: usize, repeatable: bool) -> Vec<u8> {
    let backend = Backend::start().await;
    let (request, body) = request.into_parts();
    let body = RequestBody::new(body, most_kept, &Rc::default());
    // Once, as the attempt loop does it: of what has been taken out, the body itself says nothing any more.
    let framing = body.framing(true);
    let (dead, peer) = backend.pair().await;
    socket2::SockRef::from(&peer).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(peer);
    while dead.is_quiet_for_sure() {
        tokio::task::yield_now().await;
    }
    let mut exchange = sending(&request, (body, framing), repeatable, dead);
    let error = poll_fn(|cx| exchange.poll_head(cx, &Method::POST, None, |_| {})).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Closed(_)), "{error}");
    assert_eq!(exchange.outgoing.written, 0, "known to be unsent");
    let mut body = exchange.outgoing.into_body();
    assert!(body.is_replayable());
    body.rewind();
    let (alive, mut peer) = backend.pair().await;
    arrived(&mut sending(&request, (body, framing), repeatable, alive), &mut peer).await
}

#[test]
fn what_met_a_dead_connection_unsent_is_sent_elsewhere_whole() {
    for length in [1, 1000, 300_000] {
        for (most_kept, repeatable) in [(65_536, true), (65_536, false), (0, true), (0, false)] {
            let sent = raw(length);
            let arrived =
                block_on(with_request(&sent, async |request| sent_twice(request, most_kept, repeatable).await));
            let body = sent.len() - length;
            assert!(arrived.ends_with(&sent[body..]), "{length} bytes, {most_kept} kept, {} came", arrived.len());
        }
    }
}

#[test]
fn a_body_that_went_out_can_be_sent_again_only_if_it_was_kept() {
    for (length, most_kept, repeatable, expected) in [
        (1000, 65_536, true, true),
        (1000, 1000, true, true),
        (1000, 999, true, false),
        (1000, 65_536, false, false),
        (0, 0, true, true),
    ] {
        let sent = raw(length);
        let replayable = block_on(with_request(&sent, async |request| {
            let backend = Backend::start().await;
            let (connection, mut peer) = backend.pair().await;
            let (request, body) = request.into_parts();
            let body = RequestBody::new(body, most_kept, &Rc::default());
            let framing = body.framing(true);
            let mut exchange = sending(&request, (body, framing), repeatable, connection);
            arrived(&mut exchange, &mut peer).await;
            exchange.outgoing.into_body().is_replayable()
        }));
        assert_eq!(replayable, expected, "{length} bytes, {most_kept} kept, repeatable: {repeatable}");
    }
}
