//! The way out of a server: what is under way there, when it is safe to stop, and what happens at the deadline.

use std::time::{Duration, Instant};

use e2e::load::{Load, Plan};
use e2e::origin::Origin;
use e2e::program::{Ended, run, scratch_dir};
use e2e::raw;
use lb_core::metrics::STREAM_AFTER;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const A: &str = "/v1/pools/default/backends/a/drain";

async fn drain(balancer: &Balancer, path: &str) -> Value {
    let answer = balancer.admin(Method::GET, path, "").await;
    assert_eq!(answer.status.as_u16(), 200, "{}", answer.text());
    answer.json()
}

async fn wait_until_safe(balancer: &Balancer, name: &str) {
    let path = format!("/v1/pools/default/backends/{name}/drain?wait=20s");
    assert_eq!(drain(balancer, &path).await["safe_to_stop"], true, "{name}");
}

/// Events of one kind, in words.
async fn events(balancer: &Balancer, kind: &str) -> Vec<String> {
    let events = balancer.status().await["events"].as_array().unwrap().clone();
    let of_kind = events.iter().filter(|event| event["kind"] == kind);
    of_kind.map(|event| event["message"].as_str().unwrap().to_owned()).collect()
}

async fn sample(balancer: &Balancer, start: &str) -> f64 {
    let page = http::get(balancer.admin_port(), "/metrics").await.text();
    let value = page.lines().find_map(|line| line.strip_prefix(start)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {start} in\n{page}"))
}

/// A server by what is asked of it: `/events` for ever, `/hold` never answers, an offer to switch is taken up and what
/// comes is sent back, all else is answered at once.
async fn odd(name: &'static str) -> (Origin, String) {
    let origin = Origin::start(move |seen, mut stream: TcpStream| async move {
        if seen.head.to_ascii_lowercase().contains("\r\nupgrade: websocket\r\n") {
            let head = b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
            stream.write_all(head).await.ok()?;
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        } else if seen.head.contains(" /events ") {
            let head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head).await.ok()?;
            while stream.write_all(b"6\r\n: hi\n\n\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        } else if seen.head.contains(" /hold ") {
            let _ = stream.read(&mut [0]).await;
        } else {
            let answer = format!("HTTP/1.1 200 OK\r\nX-Served-By: {name}\r\nContent-Length: 2\r\n\r\nok");
            stream.write_all(answer.as_bytes()).await.ok()?;
            return Some(stream);
        }
        None
    })
    .await;
    let backend = format!("{},name={name}", origin.address());
    (origin, backend)
}

/// A connection on which this was sent.
async fn sent(balancer: &Balancer, request: &str) -> TcpStream {
    let mut stream = raw::connect(balancer.port()).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

const TO_SWITCH: &str = "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
const FOR_EVENTS: &str = "GET /events HTTP/1.1\r\nHost: x\r\n\r\n";

#[tokio::test]
async fn a_server_that_does_nothing_is_safe_to_stop_at_once_and_everybody_is_told() {
    let (_a, first) = server("a").await;
    let (_b, second) = server("b").await;
    let balancer = Balancer::start(&[first, second], &[]).await;
    let before = drain(&balancer, &format!("{A}?wait=20s")).await;
    assert_eq!(
        (&before["safe_to_stop"], &before["drain"], &before["admin"]),
        (&false.into(), &Value::Null, &"ready".into())
    );
    assert!(before["words"].as_str().unwrap().contains("a is not draining"), "{before}");
    balancer.set_state("a", "drain").await;
    wait_until_safe(&balancer, "a").await;
    let row = balancer.backend("a").await;
    assert_eq!((&row["drain"]["safe_to_stop"], &row["drain"]["overdue"]), (&true.into(), &false.into()));
    assert!(row["drain"]["deadline_unix_ms"].as_u64() > row["drain"]["since_unix_ms"].as_u64(), "{row}");
    let told = events(&balancer, "drain").await;
    assert!(told.len() == 1 && told[0].starts_with("safe to stop now"), "{told:?}");
    let safe = "lb_backend_safe_to_stop{pool=\"default\",backend=\"a\"}";
    assert_eq!(sample(&balancer, safe).await, 1.0);
    balancer.set_state("a", "ready").await;
    assert_eq!(sample(&balancer, safe).await, 0.0);
    assert_eq!(drain(&balancer, A).await["drain"], Value::Null);
}

#[tokio::test]
async fn a_wait_ends_when_the_last_request_does_and_never_later_than_asked() {
    let (_a, first) = server("a").await;
    let balancer = Balancer::start(&[first], &[]).await;
    let port = balancer.port();
    let slow = tokio::spawn(async move { http::get(port, "/delay/2000").await.status.as_u16() });
    e2e::eventually("it is at a", async || (drain(&balancer, A).await["in_flight"]["requests"] == 1).then_some(()))
        .await;
    balancer.set_state("a", "drain").await;
    let started = Instant::now();
    let short = drain(&balancer, &format!("{A}?wait=300ms")).await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_eq!((&short["safe_to_stop"], &short["in_flight"]["requests"]), (&false.into(), &1.into()));
    assert!(short["words"].as_str().unwrap().starts_with("1 request in flight"), "{short}");
    wait_until_safe(&balancer, "a").await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert_eq!(slow.await.unwrap(), 200);
}

#[tokio::test]
async fn a_wait_ends_when_the_server_is_wanted_again() {
    let (_a, first) = odd("a").await;
    let balancer = Balancer::start(&[first], &[]).await;
    let _stream = sent(&balancer, FOR_EVENTS).await;
    e2e::eventually("it is at a", async || (drain(&balancer, A).await["in_flight"]["requests"] != 0).then_some(()))
        .await;
    balancer.set_state("a", "drain").await;
    let path = format!("{A}?wait=40s");
    let waiting = async {
        let started = Instant::now();
        let report = drain(&balancer, &path).await;
        (report["admin"] == "ready", started.elapsed() < Duration::from_secs(30))
    };
    let taken_back = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        balancer.set_state("a", "ready").await;
    };
    assert_eq!(tokio::join!(waiting, taken_back).0, (true, true));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_asking_changes_nothing() {
    let (_a, first) = server("a").await;
    let balancer = Balancer::start(&[first], &[]).await;
    for (method, path, status) in [
        (Method::GET, "/v1/pools/default/backends/z/drain", 404),
        (Method::GET, "/v1/pools/default/backends/z/drain?wait=20s", 404),
        (Method::GET, "/v1/pools/default/backends/a/drain?wait=1h", 400),
        (Method::GET, "/v1/pools/default/backends/a/drain?wait=20", 400),
        (Method::PUT, A, 405),
        (Method::POST, A, 405),
    ] {
        assert_eq!(balancer.admin(method, path, "").await.status.as_u16(), status, "{path}");
    }
    assert_eq!(http::get(balancer.admin_port(), A).await.status.as_u16(), 401);
    assert_eq!(balancer.backend("a").await["state"], "ready");
}

#[tokio::test]
async fn waits_are_bounded_and_leave_room_for_others() {
    let (_a, first) = odd("a").await;
    let balancer = Balancer::start(&[first], &[]).await;
    let _stream = sent(&balancer, FOR_EVENTS).await;
    e2e::eventually("it is at a", async || (balancer.backend("a").await["traffic"]["in_flight"] == 1).then_some(()))
        .await;
    balancer.set_state("a", "drain").await;
    let ask = format!("GET {A}?wait=5s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    let mut waiting = Vec::new();
    for _ in 0..64 {
        let mut stream = raw::connect(balancer.admin_port()).await;
        stream.write_all(ask.as_bytes()).await.unwrap();
        waiting.push(stream);
    }
    e2e::eventually("no place is left to wait", async || {
        (balancer.admin(Method::GET, &format!("{A}?wait=10ms"), "").await.status.as_u16() == 503).then_some(())
    })
    .await;
    assert_eq!(drain(&balancer, A).await["safe_to_stop"], false);
    for mut stream in waiting {
        assert!(raw::read_head(&mut stream).await.starts_with("HTTP/1.1 200"));
    }
}

#[tokio::test]
async fn requests_streams_and_tunnels_are_told_apart_with_the_age_of_the_oldest() {
    let (_a, first) = odd("a").await;
    // A client that only ends its side still gets its answer.
    let balancer = Balancer::start(&[first], &["--abort-on-close", "true"]).await;
    let mut tunnel = sent(&balancer, TO_SWITCH).await;
    assert!(raw::read_head(&mut tunnel).await.starts_with("HTTP/1.1 101"));
    let _stream = sent(&balancer, FOR_EVENTS).await;
    let _request = sent(&balancer, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let row = e2e::eventually("one of each", async || {
        let found = balancer.backend("a").await["in_flight"].clone();
        let each = [&found["requests"], &found["streams"], &found["tunnels"]].map(|count| count.as_u64().unwrap());
        (each == [1, 1, 1] && found["oldest_ms"].as_u64() >= Some(1000)).then_some(found)
    })
    .await;
    // Before age alone makes a stream of a response: its type has.
    assert!(row["oldest_ms"].as_u64().unwrap() < STREAM_AFTER.as_millis() as u64, "{row}");
    for kind in ["request", "stream", "tunnel"] {
        let name = format!("lb_in_flight_by_kind{{pool=\"default\",backend=\"a\",kind=\"{kind}\"}}");
        assert_eq!(sample(&balancer, &name).await, 1.0);
    }
    drop((tunnel, _stream, _request));
    e2e::eventually("nothing is left", async || {
        let found = balancer.backend("a").await["in_flight"].clone();
        (found == serde_json::json!({"requests": 0, "streams": 0, "tunnels": 0, "oldest_ms": null})).then_some(())
    })
    .await;
}

#[tokio::test]
async fn at_its_deadline_what_is_left_is_closed_if_somebody_said_so() {
    let (a, first) = odd("a").await;
    let log = scratch_dir().join("drain-closed.log");
    let log_path = log.display().to_string();
    let args = ["--drain-deadline", "1s", "--drain-at-deadline", "close", "--access-log", &log_path];
    // Only `a` at first: everything goes there.
    let (b, second) = odd("b").await;
    let balancer = Balancer::start(&[first, second], &args).await;
    balancer.set_state("b", "maintenance").await;
    let mut tunnel = sent(&balancer, TO_SWITCH).await;
    assert!(raw::read_head(&mut tunnel).await.starts_with("HTTP/1.1 101"));
    let mut stream = sent(&balancer, FOR_EVENTS).await;
    raw::read_head(&mut stream).await;
    let mut get = sent(&balancer, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let mut post = sent(&balancer, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await;
    e2e::eventually("four are at a", async || (a.requests() == 4).then_some(())).await;
    balancer.set_state("a", "drain").await;
    // A tunnel that is never quiet is not closed before the deadline.
    let talk = tokio::spawn(async move {
        let started = Instant::now();
        let mut buffer = [0; 64];
        while tunnel.write_all(b"x").await.is_ok() && matches!(tunnel.read(&mut buffer).await, Ok(1..)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        started.elapsed()
    });
    wait_until_safe(&balancer, "a").await;
    assert!(talk.await.unwrap() > Duration::from_millis(700), "the tunnel did not last to the deadline");
    let rest = raw::read_to_close(&mut stream, e2e::PATIENCE).await.expect("the stream is closed");
    assert!(!rest.ends_with("0\r\n\r\n"), "a stream that was cut must not look complete");
    let refused = raw::read_head(&mut post).await;
    assert!(refused.starts_with("HTTP/1.1 502") && refused.contains("drain is past its deadline"), "{refused}");
    // `b` came back no earlier, so that the GET had nowhere to go either.
    assert!(raw::read_head(&mut get).await.starts_with("HTTP/1.1 502"));
    assert_eq!(b.requests(), 0);
    for (kind, count) in [("request", 2.0), ("stream", 1.0), ("tunnel", 1.0)] {
        assert_eq!(sample(&balancer, &format!("lb_drain_closed_total{{kind=\"{kind}\"}}")).await, count, "{kind}");
    }
    // Nobody is to blame.
    assert_eq!(balancer.backend("a").await["traffic"]["failures_total"], 0);
    let told = events(&balancer, "drain").await;
    assert!(
        told.iter().any(|told| told.contains("deadline of 1s has come with 2 requests, 1 stream and 1 tunnel")),
        "{told:?}"
    );
    assert!(told.iter().any(|told| told.starts_with("safe to stop now")), "{told:?}");
    e2e::eventually("the cut stream is in the log", async || {
        let lines = std::fs::read_to_string(&log).unwrap_or_default();
        lines.lines().any(|line| line.contains("/events") && line.contains("\"drained\"")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_may_be_repeated_goes_to_another_server_at_the_deadline() {
    let (a, first) = odd("a").await;
    let second = Origin::answering(b"HTTP/1.1 200 OK\r\nX-Served-By: b\r\nContent-Length: 2\r\n\r\nok", true).await;
    let backends = [first, format!("{},name=b", second.address())];
    let balancer = Balancer::start(&backends, &["--drain-deadline", "500ms", "--drain-at-deadline", "close"]).await;
    let mut held = sent(&balancer, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n").await;
    e2e::eventually("it is at a", async || (a.requests() == 1).then_some(())).await;
    balancer.set_state("a", "drain").await;
    let answer = raw::read_head(&mut held).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_ascii_lowercase().contains("x-served-by: b"), "{answer}");
    wait_until_safe(&balancer, "a").await;
    assert_eq!(a.requests(), 1);
}

#[tokio::test]
async fn at_its_deadline_what_is_left_is_waited_for_unless_somebody_said_otherwise() {
    let (_a, first) = odd("a").await;
    let balancer = Balancer::start(&[first], &["--drain-deadline", "300ms"]).await;
    let mut stream = sent(&balancer, FOR_EVENTS).await;
    raw::read_head(&mut stream).await;
    balancer.set_state("a", "drain").await;
    let told = e2e::eventually("the deadline is told", async || {
        let told = events(&balancer, "drain").await;
        (!told.is_empty()).then_some(told)
    })
    .await;
    assert!(told[0].contains("has come with 1 ") && told[0].contains("waiting on"), "{told:?}");
    let report = drain(&balancer, A).await;
    assert_eq!((&report["safe_to_stop"], &report["drain"]["overdue"]), (&false.into(), &true.into()));
    let before = stream.read(&mut [0; 4096]).await.unwrap();
    assert!(before > 0);
    drop(stream);
    wait_until_safe(&balancer, "a").await;
    assert_eq!(events(&balancer, "drain").await.len(), 2);
}

#[tokio::test]
async fn what_is_safe_to_stop_gets_no_request_any_more() {
    let mut origins = Vec::new();
    let mut backends = Vec::new();
    for name in ["a", "b"] {
        let origin = Origin::answering(b"HTTP/1.1 200 OK\r\nX-Served-By: x\r\nContent-Length: 2\r\n\r\nok", true).await;
        backends.push(format!("{},name={name}", origin.address()));
        origins.push(origin);
    }
    let balancer = Balancer::start(&backends, &[]).await;
    let plan = Plan { port: balancer.port(), connections: 16, requests: u64::MAX, reconnect: true };
    let load = Load::start(&plan);
    for round in 0..8 {
        let seen = origins[1].requests();
        e2e::eventually("b has requests", async || (origins[1].requests() > seen + 50).then_some(())).await;
        balancer.set_state("b", "drain").await;
        wait_until_safe(&balancer, "b").await;
        let safe = origins[1].requests();
        let answered = load.answered();
        e2e::eventually("others are served", async || (load.answered() > answered + 100).then_some(())).await;
        assert_eq!(origins[1].requests(), safe, "round {round}");
        balancer.set_state("b", "ready").await;
    }
    load.stop();
    let tally = load.finish().await;
    assert_eq!(tally.failed, 0, "{:?}", tally.failures);
}

#[tokio::test]
async fn a_request_from_before_the_drain_is_not_repeated_there() {
    // It holds the first request until it is told to hang up.
    let (hang_up, _) = tokio::sync::broadcast::channel::<()>(1);
    let told = hang_up.clone();
    let first = Origin::start(move |_, stream| {
        let mut told = told.subscribe();
        async move {
            let _ = told.recv().await;
            drop(stream);
            None
        }
    })
    .await;
    let second = Origin::answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true).await;
    let backends = [format!("{},name=a", first.address()), format!("{},name=b", second.address())];
    let balancer = Balancer::start(&backends, &[]).await;
    let mut held = sent(&balancer, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    e2e::eventually("it is at a", async || (first.requests() == 1).then_some(())).await;
    balancer.set_state("b", "drain").await;
    wait_until_safe(&balancer, "b").await;
    hang_up.send(()).unwrap();
    // Where else, when no other takes requests?
    e2e::eventually("it is at a again", async || (first.requests() == 2).then_some(())).await;
    hang_up.send(()).unwrap();
    assert!(raw::read_head(&mut held).await.starts_with("HTTP/1.1 502"));
    assert_eq!(second.requests(), 0, "it was said to be safe to stop");
}

#[tokio::test]
async fn a_script_can_wait_and_is_told_how_it_ended() {
    let (_a, first) = odd("a").await;
    let (_b, second) = odd("b").await;
    let balancer = Balancer::start(&[first, second], &[]).await;
    let url = format!("http://localhost:{}", balancer.admin_port());
    let wait = async |args: &[&str], env: &[(&str, &str)]| -> Ended {
        let args = [&["wait-drained", "--admin-url", &url], args].concat();
        run("loadbalancer", &args, env, e2e::PATIENCE).await
    };
    let token = [("ADMIN_TOKEN", TOKEN)];
    let ready = wait(&["--backend", "a", "--timeout", "5s"], &token).await;
    assert_eq!(ready.code, Some(3), "{}", ready.stderr);
    assert!(ready.stderr.contains("a is not draining"), "{}", ready.stderr);

    let mut stream = sent(&balancer, FOR_EVENTS).await;
    raw::read_head(&mut stream).await;
    balancer.set_state("a", "drain").await;
    let late = wait(&["--backend", "a", "--timeout", "300ms"], &token).await;
    assert_eq!(late.code, Some(1), "{}", late.stderr);
    assert!(late.stderr.contains("not drained within 300ms: 1 "), "{}", late.stderr);

    let waiting = wait(&["--backend", "a", "--pool", "default", "--timeout", "15s"], &token);
    let ending = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(stream);
    };
    let (drained, ()) = tokio::join!(waiting, ending);
    assert_eq!((drained.code, drained.stderr.as_str()), (Some(0), ""));
    assert!(drained.stdout.contains("backend a of pool default is safe to stop"), "{}", drained.stdout);

    let file = scratch_dir().join("wait-drained.token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let by_file = wait(&["--backend", "a", "--admin-token-file", file.to_str().unwrap()], &[]).await;
    assert_eq!(by_file.code, Some(0), "{}", by_file.stderr);
    for (args, env, code, words) in [
        (&["--backend", "z"][..], &token[..], 4, "has no backend \"z\""),
        (&["--backend", "a", "--pool", "z"], &token, 4, "there is no pool \"z\""),
        (&["--backend", "a"], &[("ADMIN_TOKEN", "0123456789abcdefX")], 77, "refuses the token"),
        (&["--backend", "a", "--admin-token-file", "/nowhere"], &[], 77, "cannot be read from /nowhere"),
        (&["--timeout", "5s"], &token, 2, "--backend"),
        (&["--backend", "a", "--timeout", "soon"], &token, 2, "expected a duration"),
        (&["--backend", "a", "--admin-url", "localhost"], &token, 2, "expected http://HOST"),
    ] {
        let ended =
            run("loadbalancer", &[&["wait-drained", "--admin-url", &url], args].concat(), env, e2e::PATIENCE).await;
        assert_eq!(ended.code, Some(code), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(words) && !ended.stderr.contains(TOKEN), "{args:?}: {}", ended.stderr);
    }
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let args = ["wait-drained", "--backend", "a", "--admin-url", &nobody];
    let ended = run("loadbalancer", &args, &token, e2e::PATIENCE).await;
    assert_eq!(ended.code, Some(69), "{}", ended.stderr);
}
