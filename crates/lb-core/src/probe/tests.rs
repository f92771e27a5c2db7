//! Checks against scripted servers on this machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Long enough for a busy machine, short enough to be waited for.
const LIMIT: Duration = Duration::from_millis(400);

fn http(text: Option<&str>) -> CheckKind {
    CheckKind::Http(HttpCheck {
        method: CheckMethod::Get,
        target: "/health?deep=1".to_owned(),
        host: None,
        statuses: "200-299".parse().unwrap(),
        text: text.map(str::to_owned),
    })
}

/// A server that does `act` with each connection after it has read a request head, and how many there were.
async fn server<F, A>(act: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(TcpStream) -> A + Send + Sync + 'static,
    A: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, act) = (Arc::clone(&connections), Arc::new(act));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let act = Arc::clone(&act);
            tokio::spawn(async move { act(stream).await });
        }
    });
    (address, connections)
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn probe(address: SocketAddr, kind: &CheckKind, reuse: bool) -> Probe {
    let name = HostPort { host: address.ip().to_string(), port: address.port() };
    Probe::new(&name, kind, None, Vec::new(), reuse)
}

async fn check(probe: &mut Probe, address: SocketAddr) -> Outcome {
    let started = Instant::now();
    let (outcome, _) = probe.check(&[address], started + LIMIT).await;
    assert!(started.elapsed() < LIMIT + Duration::from_millis(300), "{:?}", started.elapsed());
    outcome
}

/// The class of the failure, and its words.
async fn failure(address: SocketAddr, kind: &CheckKind) -> (ReasonCode, String) {
    match check(&mut probe(address, kind, false), address).await {
        Outcome::Failed(failure) => (failure.code, failure.in_full()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_request_is_sent_as_it_should_be_and_the_answer_judged() {
    let (address, _) = server(|mut stream| async move {
        let head = head(&mut stream).await.unwrap();
        let own = format!("Host: {}\r\n", stream.local_addr().unwrap());
        let good = head.starts_with("GET /health?deep=1 HTTP/1.1\r\n") && head.contains(&own);
        let status = if good && head.contains("\r\nConnection: close\r\n") { 200 } else { 400 };
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{head}", head.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let mut found = probe(address, &http(Some("loadbalancer-check/")), false);
    let outcome = check(&mut found, address).await;
    assert!(matches!(outcome, Outcome::Passed(Pass { status: Some(200), .. })), "{outcome:?}");
    assert_eq!(failure(address, &http(Some("no such text"))).await.0, ReasonCode::WrongBody);
}

#[tokio::test]
async fn whatever_a_server_does_is_a_failure_with_its_class_and_never_a_hang() {
    let forever = Duration::from_secs(3600);
    let drip = |beginning: &'static [u8]| {
        server(move |mut stream: TcpStream| async move {
            head(&mut stream).await;
            let _ = stream.write_all(beginning).await;
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    };
    let flood = |beginning: &'static [u8]| {
        server(move |mut stream: TcpStream| async move {
            let _ = stream.write_all(beginning).await;
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        })
    };
    let silent = server(move |stream| async move {
        tokio::time::sleep(forever).await;
        drop(stream);
    });
    let resets = server(|mut stream| async move {
        head(&mut stream).await;
        stream.set_zero_linger().unwrap();
    });
    let closes = server(|mut stream| async move { drop(head(&mut stream).await) });
    let sick = server(|mut stream| async move {
        head(&mut stream).await;
        // The body never comes: the status says enough.
        let _ = stream.write_all(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n").await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
    });
    use ReasonCode::{BadResponse, Closed, Reset, ResponseTimeout, TooLong, WrongStatus};
    for (what, (address, _), code) in [
        ("silent", silent.await, ResponseTimeout),
        ("1 byte at a time, head", drip(b"HTTP/1.1 200 OK\r\nX: ").await, ResponseTimeout),
        ("1 byte at a time, body", drip(b"HTTP/1.1 200 OK\r\n\r\n").await, ResponseTimeout),
        ("endless head", flood(b"HTTP/1.1 200 OK\r\nX: ").await, TooLong),
        ("endless body", flood(b"HTTP/1.1 200 OK\r\n\r\n").await, TooLong),
        ("garbage", flood(b"").await, BadResponse),
        ("resets", resets.await, Reset),
        ("closes", closes.await, Closed),
        ("sick", sick.await, WrongStatus),
    ] {
        let (found, words) = failure(address, &http(None)).await;
        assert_eq!(found, code, "{what}: {words}");
    }
}

#[tokio::test]
async fn nobody_there_is_refused_or_too_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    for kind in [CheckKind::Tcp, http(None)] {
        assert_eq!(failure(address, &kind).await.0, ReasonCode::ConnectionRefused);
    }
    let mut nowhere = probe(address, &CheckKind::Tcp, false);
    let (outcome, address) = nowhere.check(&[], Instant::now() + LIMIT).await;
    assert!(matches!(outcome, Outcome::Failed(Failure { code: ReasonCode::NotResolved, .. })) && address.is_none());
}

#[tokio::test]
async fn another_port_can_be_checked_and_the_address_stays_that_of_requests() {
    let (address, connections) = server(|stream| async move { drop(stream) }).await;
    let traffic = SocketAddr::new(address.ip(), 1);
    let name = HostPort { host: "localhost".to_owned(), port: 1 };
    let mut probe = Probe::new(&name, &CheckKind::Tcp, Some(address.port()), Vec::new(), false);
    let (outcome, found) = probe.check(&[traffic], Instant::now() + LIMIT).await;
    assert!(matches!(outcome, Outcome::Passed(Pass { status: None, .. })), "{outcome:?}");
    assert_eq!(found, Some(traffic));
    while connections.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_is_kept_only_when_asked_and_a_closed_one_is_no_failure() {
    // Each connection serves two answers and is closed with the third request.
    let (address, connections) = server(|mut stream| async move {
        for _ in 0..2 {
            if head(&mut stream).await.is_none() {
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
        head(&mut stream).await;
    })
    .await;
    for (reuse, made) in [(true, 3), (false, 6)] {
        connections.store(0, Ordering::SeqCst);
        let mut probe = probe(address, &http(None), reuse);
        for _ in 0..6 {
            let outcome = check(&mut probe, address).await;
            assert!(matches!(outcome, Outcome::Passed(_)), "{outcome:?}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), made, "with reuse {reuse}");
    }
}
