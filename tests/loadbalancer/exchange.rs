//! The exchange with a backend, against scripted ones that no well-behaved server would be.

use e2e::http::request;
use e2e::origin::Origin;
use e2e::raw;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A balancer before one backend that answers every request with `answer` and keeps the connection if `keep`.
async fn before(answer: &'static [u8], keep: bool) -> (Origin, Balancer) {
    let origin = Origin::answering(answer, keep).await;
    let balancer = Balancer::start(&[origin.address()], &["--workers", "1"]).await;
    (origin, balancer)
}

#[tokio::test]
async fn every_framing_of_a_body_is_understood() {
    for (answer, keep, expected) in [
        (&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"[..], true, "hello"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=1\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", true, "hello"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", false, "hello"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello", false, "hello"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true, ""),
    ] {
        let (_origin, balancer) = before(answer, keep).await;
        for _ in 0..2 {
            let got = balancer.get("/").await;
            assert_eq!((got.status.as_u16(), got.text().as_str()), (200, expected));
        }
    }
}

#[tokio::test]
async fn what_is_not_http_is_a_502_with_its_reason_and_the_connection_is_not_used_again() {
    for (answer, why) in [
        (&b"SSH-2.0-OpenSSH_9.2\r\n\r\n"[..], "malformed head"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello", "more than one Content-Length"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello", "both"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n", "other than chunked"),
    ] {
        let (origin, balancer) = before(answer, true).await;
        for _ in 0..2 {
            let got = balancer.get("/").await;
            assert_eq!(got.status.as_u16(), 502, "{why}");
            assert!(got.text().contains(why), "{}", got.text());
            assert!(got.text().contains(&origin.address()), "{}", got.text());
        }
        assert_eq!((origin.requests(), origin.connections()), (2, 2), "{why}");
    }
}

#[tokio::test]
async fn bytes_after_a_response_never_reach_the_next_client() {
    let (origin, balancer) =
        before(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", true)
            .await;
    for _ in 0..3 {
        assert_eq!(balancer.get("/").await.text(), "ok");
    }
    assert_eq!(origin.connections(), 3);
}

#[tokio::test]
async fn a_cut_response_never_looks_complete() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\nzz\r\n",
    ] {
        let (_origin, balancer) = before(answer, false).await;
        let received = raw::exchange(balancer.port(), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
        // If it breaks before anything has left, the head may be missing too; never is there a whole answer.
        assert!(received.is_empty() || received.starts_with("HTTP/1.1 200"), "{received}");
        assert!(!received.contains("\r\n0\r\n") && !received.ends_with("\r\n\r\n"), "{received}");
        assert!(received.split("\r\n\r\n").nth(1).is_none_or(|body| body.len() < 100), "{received}");
    }
}

/// A client that has got nothing of an answer may take its connection for a stale one, and send a POST once more.
#[tokio::test]
async fn what_came_before_an_answer_broke_arrives_though_it_broke_at_once() {
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    for (body, whole) in [
        ("zz\r\n".to_owned(), 0),
        (format!("{chunk}zz\r\n"), 10_000),
        (format!("{chunk}0\r\nBad Name: 1\r\n\r\n"), 10_000),
        (format!("{chunk}0\r\n{}\r\n", "x: y\r\n".repeat(65)), 10_000),
    ] {
        let answer = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
        let (_origin, balancer) = before(Box::leak(answer.into_bytes().into_boxed_slice()), true).await;
        for version in ["1.1", "1.0"] {
            let request = format!("POST / HTTP/{version}\r\nhost: x\r\ncontent-length: 0\r\n\r\n");
            let received = raw::exchange(balancer.port(), request.as_bytes()).await;
            assert!(received.starts_with(&format!("HTTP/{version} 200")), "{received:?} of {body:.20}");
            let got = received.split("\r\n\r\n").nth(1).expect("a whole head").matches('x').count();
            assert_eq!(got, whole, "{version} {body:.20}");
            assert!(!received.contains("\r\n0\r\n"), "{received:?}");
        }
    }
}

/// What ends with its connection is complete unless the connection broke (RFC 9112 §8). Whoever is sending hears of that, and
/// who is reading then finds an ordinary end.
#[tokio::test]
async fn an_answer_to_the_close_that_a_reset_cut_is_not_complete_while_its_request_is_being_sent() {
    let origin = Origin::start(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\npartial").await.ok()?;
        // Until the upload is stuck.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        stream.set_zero_linger().ok()?;
        None
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &[]).await;
    for version in ["1.1", "1.0"] {
        let client = raw::connect(balancer.port()).await;
        let (mut reader, mut writer) = client.into_split();
        let head = format!("POST / HTTP/{version}\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n");
        writer.write_all(head.as_bytes()).await.unwrap();
        let upload = tokio::spawn(async move { while writer.write_all(&[b'x'; 65_536]).await.is_ok() {} });
        let mut received = Vec::new();
        let end = tokio::time::timeout(e2e::PATIENCE, reader.read_to_end(&mut received)).await.expect("it ends");
        upload.abort();
        let text = String::from_utf8_lossy(&received);
        assert!(text.contains("partial") && !text.contains("\r\n0\r\n"), "{text}");
        assert!(version == "1.1" || end.is_err(), "ended as if whole: {text}");
    }
    let metrics = http::get(balancer.admin_port(), "/metrics").await.text();
    assert!(metrics.lines().any(|line| line.contains("kind=\"body\"") && line.ends_with(" 2")), "{metrics}");
}

#[tokio::test]
async fn an_answer_before_the_whole_request_is_passed_on_at_once() {
    let (origin, balancer) = before(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno", false).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nstart").await.unwrap();
    let head = raw::read_head(&mut client).await;
    assert!(head.starts_with("HTTP/1.1 403"), "{head}");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn a_chunked_request_is_forwarded_chunk_by_chunk_with_its_trailers() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |seen, mut stream| {
        let tell = tell.clone();
        async move {
            let mut body = seen.rest;
            while !body.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut body).await.unwrap_or(0) == 0 {
                    return None;
                }
            }
            let _ = tell.send((seen.head, String::from_utf8_lossy(&body).into_owned()));
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
            Some(stream)
        }
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &[]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n").await.unwrap();
    client.write_all(b"0a;ext=1\r\n0123456789\r\n0\r\nx-sum: 7\r\ncontent-length: 5\r\n\r\n").await.unwrap();
    let answer = raw::read_head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (head, body) = told.recv().await.unwrap();
    assert!(head.contains("transfer-encoding: chunked\r\n") && !head.contains("content-length"), "{head}");
    assert!(body.contains("a\r\n0123456789\r\n") && body.ends_with("0\r\nx-sum: 7\r\n\r\n"), "{body:?}");
}

#[tokio::test]
async fn garbage_and_wrong_hosts_get_400_and_a_closed_connection() {
    let (origin, balancer) = before(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true).await;
    for wrong in [
        &b"garbage\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a@b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: \r\n\r\n",
        b"GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        b"GET * HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let received = raw::exchange(balancer.port(), wrong).await;
        assert!(received.starts_with("HTTP/1.1 400 "), "{:?}: {received}", String::from_utf8_lossy(wrong));
    }
    let refused = raw::exchange(balancer.port(), b"CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n").await;
    assert!(refused.starts_with("HTTP/1.1 405 "), "{refused}");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_absolute_target_names_the_host_and_old_clients_need_none() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |seen, mut stream| {
        let _ = tell.send(seen.head);
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
            Some(stream)
        }
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &[]).await;
    let close = "connection: close\r\n\r\n";
    raw::exchange(balancer.port(), format!("GET http://a.example/x HTTP/1.1\r\nhost: b\r\n{close}").as_bytes()).await;
    let head = told.recv().await.unwrap();
    assert!(head.starts_with("GET /x HTTP/1.1\r\nhost: a.example\r\n"), "{head}");
    let received = raw::exchange(balancer.port(), b"GET /y HTTP/1.0\r\n\r\n").await;
    assert!(received.starts_with("HTTP/1.0 200") || received.starts_with("HTTP/1.1 200"), "{received}");
    let head = told.recv().await.unwrap();
    assert!(head.starts_with(&format!("GET /y HTTP/1.1\r\nhost: {}\r\n", origin.address())), "{head}");
}

/// A reset always means it; an end of sending only if the operator says so (RFC 9112 §9.6 allows half-closed
/// connections).
#[tokio::test]
async fn a_client_that_leaves_takes_its_request_with_it() {
    for (args, reset) in [(&[][..], true), (&["--abort-on-close", "true"][..], false)] {
        leaving_ends_the_request(args, reset).await;
    }
}

async fn leaving_ends_the_request(args: &[&str], reset: bool) {
    let (gone, mut left) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |_, mut stream| {
        let gone = gone.clone();
        async move {
            // Never answers; says when the balancer hangs up.
            let _ = stream.read(&mut [0]).await;
            let _ = gone.send(());
            None
        }
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], args).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    e2e::eventually("the request is at the backend", async || (origin.requests() == 1).then_some(())).await;
    assert_eq!(balancer.status().await["traffic"]["in_flight"], 1);
    if reset {
        client.set_zero_linger().unwrap();
    }
    drop(client);
    tokio::time::timeout(std::time::Duration::from_secs(1), left.recv()).await.expect("cancelled within a second");
    e2e::eventually("nothing is in flight", async || {
        (balancer.status().await["traffic"]["in_flight"] == 0).then_some(())
    })
    .await;
    let metrics = http::get(balancer.admin_port(), "/metrics").await.text();
    assert!(metrics.contains("lb_local_replies_total{reason=\"client_gone\",status=\"499\"} 1"), "{metrics}");
}

/// A response of unknown length ends with the connection: to a client that only ended its side, half of one must not
/// look like all of it.
#[tokio::test]
async fn a_response_that_is_cut_because_its_client_ended_its_side_does_not_look_complete() {
    let origin = Origin::start(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhalf of it").await.ok()?;
        let _ = stream.read(&mut [0]).await;
        None
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--abort-on-close", "true"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n").await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"half of it") {
        let read = tokio::time::timeout(e2e::PATIENCE, client.read_buf(&mut received)).await.expect("it comes");
        assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&received));
    }
    client.shutdown().await.unwrap();
    let ended = tokio::time::timeout(e2e::PATIENCE, client.read(&mut [0])).await.expect("it is cut");
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_post_that_met_a_backend_that_speaks_first_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let speaker = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"220 hello\r\n").await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    let balancer = Balancer::start(&[address], &["--retries", "0"]).await;
    // If it speaks only after the look, what it said is a bad answer.
    e2e::eventually("it spoke before the look", async || {
        let answer = http::send(balancer.port(), request(Method::POST, "/", &[], "pay")).await;
        assert_eq!(answer.status.as_u16(), 502);
        answer.text().contains("it spoke before anything was sent").then_some(())
    })
    .await;
    speaker.abort();
}

#[tokio::test]
async fn a_post_whose_connection_breaks_is_not_sent_twice() {
    let origin = Origin::hanging_up().await;
    let other = Origin::hanging_up().await;
    let balancer = Balancer::start(&[origin.address(), other.address()], &[]).await;
    let answer = http::send(balancer.port(), request(Method::POST, "/", &[], "pay")).await;
    assert_eq!(answer.status.as_u16(), 502);
    assert_eq!(origin.requests() + other.requests(), 1);
    // A PUT may be: idempotent, and its body is small enough to be kept. Twice in all, on two backends.
    let answer = http::send(balancer.port(), request(Method::PUT, "/", &[], "same")).await;
    assert_eq!(answer.status.as_u16(), 502);
    assert_eq!(origin.requests() + other.requests(), 3);
    assert!(answer.text().contains(&origin.address()) && answer.text().contains(&other.address()), "{}", answer.text());
}

#[tokio::test]
async fn a_body_in_tiny_pieces_takes_little_memory() {
    // A PUT, so that it is kept for a second try.
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = std::sync::Arc::clone(&taken);
    let silent = Origin::start(move |_, mut stream| {
        let counted = std::sync::Arc::clone(&counted);
        async move {
            let mut scratch = [0; 4096];
            while let Ok(read @ 1..) = stream.read(&mut scratch).await {
                counted.fetch_add(read, std::sync::atomic::Ordering::Relaxed);
            }
            None
        }
    })
    .await;
    let slow = Balancer::start(&[silent.address()], &["--workers", "1"]).await;
    let resident = || -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", slow.program.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4
    };
    let start = resident();
    let mut client = raw::connect(slow.port()).await;
    client.set_nodelay(true).unwrap();
    client.write_all(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n").await.unwrap();
    for _ in 0..10_000 {
        client.write_all(b"x").await.unwrap();
        tokio::task::yield_now().await;
    }
    e2e::eventually("most of it is through", async || {
        (taken.load(std::sync::atomic::Ordering::Relaxed) > 9000).then_some(())
    })
    .await;
    let grown = resident().saturating_sub(start);
    assert!(grown < 4096, "10,000 pieces of a byte hold {grown} KiB");
}

#[tokio::test]
async fn a_refused_upload_gets_its_answer_and_not_a_reset() {
    let balancer = Balancer::start(&[format!("127.0.0.1:{}", free_port())], &[]).await;
    let client = raw::connect(balancer.port()).await;
    let (mut read, mut write) = client.into_split();
    let upload = tokio::spawn(async move {
        write.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 30000000\r\n\r\n").await?;
        // As many HTTP libraries do: first all of the body, then the answer.
        for _ in 0..300 {
            write.write_all(&[b'x'; 100_000]).await?;
        }
        Ok::<_, std::io::Error>(())
    });
    upload.await.unwrap().expect("the upload is taken to its end");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(e2e::PATIENCE, read.read_to_end(&mut answer)).await.expect("closed");
    read.expect("no reset");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn a_cut_body_is_visible_to_an_old_client_too() {
    // The break comes after the first part has left, or there would be nothing that could look whole.
    let (go_on, gate) = tokio::sync::watch::channel(false);
    let origin = Origin::start(move |_, mut stream| {
        let mut gate = gate.clone();
        async move {
            let start = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n";
            stream.write_all(start).await.ok()?;
            gate.wait_for(|open| *open).await.ok()?;
            stream.write_all(b"zz\r\n").await.ok()?;
            None
        }
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &[]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    raw::read_head(&mut client).await;
    go_on.send_replace(true);
    // Delimited by the close of the connection, a quiet close would make it look whole.
    let mut received = Vec::new();
    let end = tokio::time::timeout(e2e::PATIENCE, client.read_to_end(&mut received)).await.expect("closed");
    assert!(end.is_err(), "ended as if whole: {}", String::from_utf8_lossy(&received));
}

#[tokio::test]
async fn a_shutdown_that_waits_no_longer_does_not_make_half_an_answer_look_whole_either() {
    let origin = Origin::start(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\npart").await.ok()?;
        let _ = stream.read(&mut [0]).await;
        None
    })
    .await;
    let mut balancer = Balancer::start(&[origin.address()], &["--drain-timeout", "300ms"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
    raw::read_head(&mut client).await;
    balancer.program.signal("TERM");
    let mut received = Vec::new();
    let end = tokio::time::timeout(e2e::PATIENCE, client.read_to_end(&mut received)).await.expect("closed");
    assert!(end.is_err(), "ended as if whole: {}", String::from_utf8_lossy(&received));
    assert_eq!(balancer.program.wait(e2e::PATIENCE).await.code(), Some(0));
}

/// The first answer of a pipelining client lies in the balancer's socket, since the client has not read yet, when the second
/// breaks: a reset would throw it away.
#[tokio::test]
async fn a_broken_answer_does_not_take_the_whole_one_before_it_with_it() {
    const WHOLE: usize = 40_000;
    let origin = Origin::start(|seen, mut stream| async move {
        if seen.number > 0 {
            // The client has sent more meanwhile, which lies in the balancer's socket unread.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await.ok()?;
            return None;
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {WHOLE}\r\n\r\n");
        stream.write_all(&[head.as_bytes(), &vec![b'x'; WHOLE]].concat()).await.ok()?;
        Some(stream)
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &[]).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut client = socket.connect(([127, 0, 0, 1], balancer.port()).into()).await.unwrap();
    client.write_all(b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\nGET /2 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    e2e::eventually("both are at the backend", async || (origin.requests() == 2).then_some(())).await;
    client.write_all(b"GET /3 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    e2e::eventually("both are done with", async || {
        let status = balancer.status().await;
        (origin.requests() == 2 && status["connections"]["open"] == 0).then_some(())
    })
    .await;
    let mut received = Vec::new();
    let end = tokio::time::timeout(e2e::PATIENCE, client.read_to_end(&mut received)).await.expect("closed");
    end.expect("no reset");
    let (_, rest) = received.split_at(received.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4);
    assert!(rest.len() >= WHOLE && rest[..WHOLE].iter().all(|byte| *byte == b'x'), "{} of {WHOLE}", rest.len());
    // Of the second there may be nothing, if it broke before its head had left.
    assert!(rest.len() < WHOLE + 200, "{}", String::from_utf8_lossy(&rest[WHOLE..]));
}

#[tokio::test]
async fn what_is_not_understood_is_refused_by_name() {
    let (origin, balancer) = before(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true).await;
    for (wrong, status) in [
        (&b"GET / HTTP/1.1\r\nhost: a\r\nexpect: miracles\r\n\r\n"[..], 417),
        (b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"GET foo HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ] {
        let received = raw::exchange(balancer.port(), wrong).await;
        assert!(received.starts_with(&format!("HTTP/1.1 {status} ")), "{received}");
    }
    assert_eq!(origin.requests(), 0);
}
