//! Times for a whole request and for one try.

use std::time::Duration;

use e2e::http::{Client, request};
use e2e::origin::Origin;
use e2e::raw;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

const NAME: &str = "x-request-timeout-ms";

/// Longer than any test's deadline with its lateness, shorter than the other times that could end a wait.
const SOON: Duration = Duration::from_secs(10);

/// Takes requests and never says a word.
async fn silent() -> Origin {
    Origin::start(|_, stream| async {
        let _kept = stream;
        std::future::pending().await
    })
    .await
}

async fn counts(balancer: &Balancer, line: &str) -> bool {
    http::get(balancer.admin_port(), "/metrics").await.text().lines().any(|found| found == line)
}

#[tokio::test]
async fn a_request_whose_time_has_passed_is_answered_504_and_nobody_is_blamed() {
    let origin = silent().await;
    let balancer = Balancer::start(&[origin.address()], &["--request-timeout", "300ms"]).await;
    for method in [Method::GET, Method::POST] {
        let started = Instant::now();
        let answer = http::send(balancer.port(), request(method, "/", &[], "x")).await;
        assert_eq!(answer.status.as_u16(), 504);
        assert!((Duration::from_millis(300)..SOON).contains(&started.elapsed()), "{:?}", started.elapsed());
        let text = answer.text();
        assert!(text.contains("the time for this request has passed") && text.contains(&origin.address()), "{text}");
    }
    assert_eq!(origin.requests(), 2, "there was no time for another try");
    assert!(counts(&balancer, "lb_local_replies_total{reason=\"deadline\",status=\"504\"} 2").await);
    let row = balancer.backend(&origin.address()).await;
    assert_eq!(row["traffic"]["failures_total"], 0, "{row}");
}

#[tokio::test]
async fn a_response_that_is_not_through_in_time_is_cut_however_steadily_it_comes() {
    let origin = Origin::start(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await.ok()?;
        while stream.write_all(b"a piece").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        None
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--request-timeout", "400ms", "--access-log", "-"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let started = Instant::now();
    let text = raw::read_to_close(&mut client, SOON).await.expect("it is cut");
    assert!(started.elapsed() >= Duration::from_millis(400), "{:?}", started.elapsed());
    assert!(text.starts_with("HTTP/1.1 200") && text.len() < 1_000_000);
    let counted = async || counts(&balancer, "lb_responses_cut_by_deadline_total 1").await.then_some(());
    e2e::eventually("it is counted", counted).await;
    let logged = || balancer.program.stdout().contains("\"ended\":\"deadline\"");
    e2e::eventually("its line says so", async || logged().then_some(())).await;
}

#[tokio::test]
async fn a_client_that_takes_its_response_too_slowly_is_cut_too() {
    let body = vec![b'x'; 64 << 20];
    let origin = Origin::start(move |_, mut stream| {
        let body = body.clone();
        async move {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).await.ok()?;
            let _ = stream.write_all(&body).await;
            None
        }
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--request-timeout", "400ms"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let counted = async || counts(&balancer, "lb_responses_cut_by_deadline_total 1").await.then_some(());
    e2e::eventually("it is cut, though nobody reads", counted).await;
}

#[tokio::test]
async fn a_request_body_that_takes_too_long_ends_with_the_request() {
    let origin = silent().await;
    let balancer = Balancer::start(&[origin.address()], &["--request-timeout", "400ms"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
    let (mut reading, mut writing) = client.into_split();
    let trickle = tokio::spawn(async move {
        while writing.write_all(b"a piece").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = [0; 12];
    tokio::time::timeout(SOON, reading.read_exact(&mut answer)).await.expect("in time").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
    trickle.abort();
}

#[tokio::test]
async fn what_is_left_travels_on_and_only_a_trusted_proxy_can_shorten_it() {
    let (origin, record) = Origin::recording(OK, true).await;
    let seen = async |balancer: &Balancer, said: &[(&str, &str)]| -> Option<u64> {
        assert_eq!(http::send(balancer.port(), request(Method::GET, "/", said, "")).await.status.as_u16(), 200);
        let message = record.take().pop().expect("it arrived");
        assert!(message.fields(NAME).len() < 2, "{}", message.text());
        message.field(NAME).map(|left| left.parse().expect("milliseconds"))
    };
    let (off, on) = (&[][..], &["--request-timeout", "60s"][..]);
    let stranger = Balancer::start(&[origin.address()], off).await;
    assert_eq!(seen(&stranger, &[]).await, None, "without an end there is nothing to tell");
    assert_eq!(seen(&stranger, &[(NAME, "5000")]).await, None, "nobody believes a stranger");
    let stranger = Balancer::start(&[origin.address()], on).await;
    assert!((40_000..=60_000).contains(&seen(&stranger, &[(NAME, "5000")]).await.unwrap()));
    let trusted = ["--trusted-proxy", "127.0.0.0/8"];
    let balancer = Balancer::start(&[origin.address()], &trusted).await;
    assert_eq!(seen(&balancer, &[]).await, None);
    assert!((20_000..=30_000).contains(&seen(&balancer, &[(NAME, "30000")]).await.unwrap()));
    for nonsense in ["", "soon", "-1", "99999999999999"] {
        assert_eq!(seen(&balancer, &[(NAME, nonsense)]).await, None, "{nonsense:?}");
    }
    let balancer = Balancer::start(&[origin.address()], &[&trusted[..], on].concat()).await;
    assert!((20_000..=30_000).contains(&seen(&balancer, &[(NAME, "30000")]).await.unwrap()));
    assert!((40_000..=60_000).contains(&seen(&balancer, &[(NAME, "90000")]).await.unwrap()), "never longer");
    // Nothing is left: no backend is troubled with it.
    let late = http::send(balancer.port(), request(Method::GET, "/", &[(NAME, "0")], "")).await;
    assert_eq!((late.status.as_u16(), record.take().len()), (504, 0), "{}", late.text());
}

#[tokio::test]
async fn a_try_that_takes_too_long_goes_to_another_server_if_it_may() {
    let (silent, alive) = (silent().await, Origin::answering(OK, true).await);
    let balancer = Balancer::start(&[silent.address(), alive.address()], &["--try-timeout", "300ms"]).await;
    for _ in 0..4 {
        assert_eq!(balancer.get("/").await.text(), "ok");
    }
    assert_eq!(silent.requests(), 2);
    assert!(counts(&balancer, "lb_retries_by_cause_total{cause=\"try_timeout\"} 2").await);
    let row = balancer.backend(&silent.address()).await;
    assert_eq!(row["traffic"]["failures_total"], 2, "it was the backend's fault: {row}");
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(http::send(balancer.port(), request(Method::POST, "/", &[], "x")).await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
    assert_eq!((silent.requests(), alive.requests()), (3, 5), "a POST is sent once");
}

#[tokio::test]
async fn a_head_that_begins_and_does_not_end_is_no_answer_in_time() {
    let trickling = Origin::start(|_, mut stream: TcpStream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await.ok()?;
        tokio::time::sleep(Duration::from_secs(60)).await;
        None
    })
    .await;
    let alive = Origin::answering(OK, true).await;
    let backends = [trickling.address(), alive.address()];
    let balancer = Balancer::start(&backends, &["--try-timeout", "300ms"]).await;
    for _ in 0..4 {
        assert_eq!(balancer.get("/").await.text(), "ok");
    }
    assert_eq!(trickling.requests(), 2);
}

#[tokio::test]
async fn the_time_that_a_client_takes_to_send_is_not_that_of_the_try() {
    let (origin, _) = Origin::recording(OK, true).await;
    let balancer = Balancer::start(&[origin.address()], &["--try-timeout", "300ms"]).await;
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 10\r\n\r\n").await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(70)).await;
        client.write_all(b"x").await.unwrap();
    }
    let answer = raw::read_to_close(&mut client, SOON).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn times_end_with_their_request() {
    let origin = Origin::answering(OK, true).await;
    let args = ["--request-timeout", "300ms", "--try-timeout", "300ms"];
    let balancer = Balancer::start(&[origin.address()], &args).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(client.get("/").await.expect("the connection lives on").text(), "ok");
        tokio::time::sleep(Duration::from_millis(700)).await;
    }
}

#[tokio::test]
async fn a_tunnel_has_no_deadline() {
    let origin = Origin::start(|_, mut stream: TcpStream| async move {
        stream.write_all(b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.ok()?;
        let (mut reading, mut writing) = stream.split();
        let _ = tokio::io::copy(&mut reading, &mut writing).await;
        None
    })
    .await;
    let balancer = Balancer::start(&[origin.address()], &["--request-timeout", "300ms"]).await;
    let mut client = raw::connect(balancer.port()).await;
    let sent = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(sent).await.unwrap();
    assert!(raw::read_head(&mut client).await.starts_with("HTTP/1.1 101"));
    tokio::time::sleep(Duration::from_millis(700)).await;
    client.write_all(b"still here").await.unwrap();
    let mut echo = [0; 10];
    tokio::time::timeout(SOON, client.read_exact(&mut echo)).await.expect("in time").unwrap();
    assert_eq!(&echo, b"still here");
}
