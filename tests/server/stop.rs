//! SIGTERM and SIGINT: who is still answered, what is closed, when it ends. And what systemd hears of it.

use std::time::{Duration, Instant};

use e2e::http::{self, Client, request};
use e2e::program::{Program, scratch_dir};
use e2e::raw;
use hyper::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixDatagram};

use super::server;

const SOON: Duration = Duration::from_secs(5);

async fn stopping(program: &Program) {
    e2e::eventually("the stop is logged", async || program.stderr().contains("stopping: waiting for").then_some(()))
        .await;
}

/// A client of which the server has one answer: an idle keep-alive connection.
async fn idle_connection(port: u16) -> TcpStream {
    let mut stream = raw::connect(port).await;
    stream.write_all(b"POST /echo/body HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
    let mut answer = raw::read_head(&mut stream).await;
    while !answer.ends_with("hi") {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        answer.push(char::from(byte[0]));
    }
    stream
}

#[tokio::test]
async fn an_idle_server_stops_at_once() {
    for signal in ["TERM", "INT"] {
        let (mut program, _) = server(&[]).await;
        program.signal(signal);
        assert_eq!(program.wait(SOON).await.code(), Some(0), "SIG{signal}");
    }
}

#[tokio::test]
async fn requests_in_flight_finish_and_new_connections_are_refused() {
    let (mut program, port) = server(&[]).await;
    let slow = tokio::spawn(async move { http::get(port, "/delay/1500").await });
    let stream = tokio::spawn(async move { http::get(port, "/stream/15").await });
    in_flight(port, 2).await;
    program.signal("TERM");
    stopping(&program).await;
    e2e::eventually("connects are refused", async || TcpStream::connect(("127.0.0.1", port)).await.err().map(|_| ()))
        .await;
    let slow = slow.await.expect("answered");
    assert_eq!((slow.status.as_u16(), slow.header("connection")), (200, Some("close")));
    assert_eq!(stream.await.expect("answered").text().lines().count(), 15, "the whole stream");
    assert_eq!(program.wait(SOON).await.code(), Some(0));
    assert!(program.stderr().contains("\"requests\":2"), "says what it waits for: {}", program.stderr());
}

#[tokio::test]
async fn readiness_fails_and_a_request_just_on_its_way_is_answered_with_close() {
    let (mut program, port) = server(&[]).await;
    let mut client = Client::connect(port).await.unwrap();
    client.get("/readyz").await.unwrap();
    program.signal("TERM");
    stopping(&program).await;
    let answer = client.get("/readyz").await.expect("still answered");
    assert_eq!((answer.status.as_u16(), answer.header("connection")), (503, Some("close")));
    assert!(answer.text().contains("stopping"), "{}", answer.text());
    assert_eq!(program.wait(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn connections_in_the_accept_queue_are_served() {
    let (mut program, port) = server(&["--name", "alpha"]).await;
    // Stopped, it accepts nothing, and the kernel completes the connects.
    program.signal("STOP");
    let mut clients = Vec::new();
    // More than the server accepts before it looks at its signals.
    for _ in 0..500 {
        let mut stream = raw::connect(port).await;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        clients.push(stream);
    }
    program.signal("TERM");
    program.signal("CONT");
    for mut stream in clients {
        let answer = raw::read_to_close(&mut stream, SOON).await.expect("closed");
        assert!(answer.ends_with("alpha GET /\n"), "{answer:?}");
    }
    assert_eq!(program.wait(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn idle_connections_close_after_a_linger() {
    let (mut program, port) = server(&[]).await;
    let mut idle = idle_connection(port).await;
    let mut fresh = raw::connect(port).await;
    program.signal("TERM");
    let began = Instant::now();
    assert_eq!(raw::read_to_close(&mut idle, SOON).await.as_deref(), Some(""), "a plain close");
    assert!(began.elapsed() >= Duration::from_millis(150), "not before the linger: {:?}", began.elapsed());
    assert_eq!(raw::read_to_close(&mut fresh, SOON).await.as_deref(), Some(""));
    assert_eq!(program.wait(SOON).await.code(), Some(0));
    assert!(began.elapsed() < Duration::from_millis(1_500), "our open ends hold nothing up: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_head_that_has_begun_is_not_idle() {
    let (mut program, port) = server(&["--name", "alpha"]).await;
    let mut begun = idle_connection(port).await;
    begun.write_all(b"GET / HTTP/1.1\r\nho").await.unwrap();
    let mut idle = idle_connection(port).await;
    program.signal("TERM");
    assert!(raw::read_to_close(&mut idle, SOON).await.is_some(), "idle ones are closed by now");
    begun.write_all(b"st: a\r\n\r\n").await.unwrap();
    let answer = raw::read_to_close(&mut begun, SOON).await.expect("closed");
    assert!(answer.ends_with("alpha GET /\n") && answer.contains("connection: close\r\n"), "{answer:?}");
    assert_eq!(program.wait(SOON).await.code(), Some(0));
}

#[tokio::test]
async fn what_outlives_the_drain_time_is_cut_and_counted() {
    let (mut program, port) = server(&["--drain", "600ms", "--faults", "none"]).await;
    let mut stream = raw::connect(port).await;
    stream.write_all(b"GET /stream/1000?pause_ms=50 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    raw::read_head(&mut stream).await;
    let hang = request(Method::PUT, "/admin/faults", &[], "hang=100%");
    http::send(port, hang).await;
    let mut hung = raw::connect(port).await;
    hung.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    in_flight(port, 2).await;
    let began = Instant::now();
    program.signal("TERM");
    assert_eq!(program.wait(SOON).await.code(), Some(0));
    let took = began.elapsed();
    assert!((Duration::from_millis(600)..Duration::from_secs(3)).contains(&took), "{took:?}");
    let last = e2e::eventually("it says what it cut", async || {
        program.stderr().lines().find(|line| line.contains("cut what was left")).map(str::to_owned)
    })
    .await;
    assert!(last.contains("\"requests\":2"), "{last}");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut body must not look complete");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (mut program, port) = server(&["--faults", "hang=100%"]).await;
    let mut hung = raw::connect(port).await;
    hung.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    in_flight(port, 1).await;
    program.signal("TERM");
    stopping(&program).await;
    let began = Instant::now();
    program.signal("INT");
    assert_eq!(program.wait(SOON).await.code(), Some(1), "not everyone was answered");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    e2e::eventually("it says what it cut", async || program.stderr().contains("1 requests cut").then_some(())).await;
}

#[tokio::test]
async fn systemd_hears_ready_watchdog_status_and_stopping() {
    let path = scratch_dir().join(format!("notify-server-{}", std::process::id()));
    let socket = UnixDatagram::bind(&path).unwrap();
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "400000")];
    let mut program = Program::start("server", &["--port=0"], &env).await;
    let first = message(&socket).await;
    assert!(first.contains("READY=1\n") && first.contains("STATUS=serving, ready\n"), "{first:?}");
    let began = Instant::now();
    for _ in 0..6 {
        assert_eq!(message(&socket).await, "WATCHDOG=1\n");
    }
    // Every half of the 400 ms; the first at once.
    let took = began.elapsed();
    assert!((Duration::from_millis(900)..Duration::from_millis(1_800)).contains(&took), "{took:?}");

    http::send(program.port("url"), request(Method::POST, "/admin/not-ready", &[], "")).await;
    until(&socket, "STATUS=serving, switched to not ready\n").await;
    program.signal("TERM");
    until(&socket, "STOPPING=1\n").await;
    until(&socket, "STATUS=stopping: waiting for 0 requests").await;
    assert_eq!(program.wait(SOON).await.code(), Some(0));
    std::fs::remove_file(path).unwrap();
}

async fn message(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 1024];
    let length =
        tokio::time::timeout(e2e::PATIENCE, socket.recv(&mut buffer)).await.expect("a message in time").unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

async fn until(socket: &UnixDatagram, expected: &str) {
    while !message(socket).await.contains(expected) {}
}

/// Waits until so many requests, besides the one that asks, are in flight.
async fn in_flight(port: u16, requests: u32) {
    e2e::eventually("requests are in flight", async || {
        (super::metric(port, "server_requests_in_flight").await == f64::from(requests + 1)).then_some(())
    })
    .await;
}
