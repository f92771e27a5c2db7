//! The access log: one line per request, whatever became of it.

use std::io::Read as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use e2e::http::request;
use e2e::load::{self, Plan};
use e2e::origin::Origin;
use e2e::{program, raw};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A path that nothing lies at.
fn fresh_path() -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    program::scratch_dir().join(format!("access-{}.log", COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// A balancer that logs to the path.
async fn logging(backends: &[String], args: &[&str]) -> (Balancer, PathBuf) {
    let path = fresh_path();
    let text = path.display().to_string();
    let args = [&["--access-log", &text], args].concat();
    (Balancer::start(backends, &args).await, path)
}

/// Every line of the file; each must be JSON and complete.
fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).expect("the access log is there, and ASCII");
    assert!(text.is_empty() || text.ends_with('\n'), "a torn line: {text:?}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("not JSON ({e}): {line}"))).collect()
}

/// The lines, once there are `count`; no more may come in the time of two sweeps.
async fn wait_for_lines(path: &Path, count: usize) -> Vec<Value> {
    e2e::eventually(&format!("{count} lines"), async || (lines(path).len() >= count).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    let lines = lines(path);
    assert_eq!(lines.len(), count, "{lines:#?}");
    lines
}

/// The only line there is.
async fn only_line(path: &Path) -> Value {
    wait_for_lines(path, 1).await.remove(0)
}

async fn dropped(balancer: &Balancer) -> u64 {
    let metrics = http::get(balancer.admin_port(), "/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("lb_access_log_lines_dropped_total "));
    line.expect("the metric is there").parse().expect("a whole number")
}

#[tokio::test]
async fn a_line_says_everything_about_a_request() {
    let (_server, backend) = server("a").await;
    let (balancer, path) = logging(&[backend], &[]).await;
    let answer =
        http::send(balancer.port(), request(Method::POST, "/echo?q=1", &[("host", "example.com")], "hello")).await;
    let line = only_line(&path).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let keys: Vec<&str> = text.split("\":").filter_map(|part| part.rsplit('"').next()).collect();
    let expected = "time id peer client method target host version status reason pool backend attempts request_bytes \
                    response_bytes duration_us ended";
    assert_eq!(keys[..17].join(" "), expected, "{text}");
    assert_eq!(line["client"], "127.0.0.1");
    assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    assert_eq!(
        (&line["method"], &line["target"], &line["host"]),
        (&"POST".into(), &"/echo?q=1".into(), &"example.com".into())
    );
    assert_eq!((&line["version"], &line["status"], &line["reason"]), (&"1.1".into(), &200.into(), &"".into()));
    assert_eq!((&line["pool"], &line["backend"], &line["attempts"]), (&"default".into(), &"a".into(), &1.into()));
    assert_eq!((&line["request_bytes"], &line["response_bytes"]), (&5.into(), &answer.body.len().into()));
    assert_eq!(line["ended"], "complete");
    assert_eq!(line["id"].as_str().unwrap().len(), 32, "{line}");
    let duration = Duration::from_micros(line["duration_us"].as_u64().unwrap());
    assert!(duration > Duration::ZERO && duration < Duration::from_secs(10), "{line}");
    // The right day at least, and the right form.
    let now = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:"]).output().unwrap().stdout;
    let time = line["time"].as_str().unwrap();
    assert!(
        time.starts_with(std::str::from_utf8(&now).unwrap().trim()) && time.len() == 24 && time.ends_with('Z'),
        "{time}"
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[tokio::test]
async fn the_id_is_the_one_that_the_server_got() {
    let origin = Origin::start(|seen, mut stream| async move {
        let id = seen.head.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap_or("none").to_owned();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{id}", id.len());
        stream.write_all(answer.as_bytes()).await.ok().map(|()| stream)
    })
    .await;
    let (balancer, path) = logging(&[origin.address()], &[]).await;
    let answer = balancer.get("/").await.text();
    assert_eq!(only_line(&path).await["id"], answer.as_str());
}

#[tokio::test]
async fn replies_of_ours_and_what_is_no_request_have_their_lines_too() {
    let refused = format!("127.0.0.1:{}", free_port());
    let (balancer, path) = logging(std::slice::from_ref(&refused), &["--client-head-timeout", "300ms"]).await;
    balancer.wait_for_state(&refused, "down").await;
    for (number, (sent, status, reason, method, target)) in [
        (&b"GET /x HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"[..], 503, "no_backend", "GET", "/x"),
        (
            b"HEAD http://h.example/x?y HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
            503,
            "no_backend",
            "HEAD",
            "/x?y",
        ),
        (b"GET /x HTTP/1.1\r\nconnection: close\r\n\r\n", 400, "host", "GET", "/x"),
        (b"CONNECT h.example:443 HTTP/1.1\r\nhost: h.example\r\n\r\n", 405, "method", "CONNECT", "h.example:443"),
        (b"nonsense\r\n\r\n", 400, "request_line", "", ""),
        (b"GET / HTT", 408, "head_timeout", "", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let received = raw::exchange(balancer.port(), sent).await;
        assert!(received.contains(&format!(" {status} ")), "{received}");
        let line = wait_for_lines(&path, number + 1).await.remove(number);
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &reason.into()), "{line}");
        assert_eq!((&line["method"], &line["target"]), (&method.into(), &target.into()), "{line}");
        assert_eq!((&line["attempts"], &line["backend"], &line["ended"]), (&0.into(), &"".into(), &"complete".into()));
        let body = received.split_once("\r\n\r\n").map_or(0, |(_, body)| body.len());
        if !method.is_empty() {
            assert_eq!(line["response_bytes"], body, "{line} {received}");
        }
    }
}

#[tokio::test]
async fn a_request_with_several_attempts_is_one_line() {
    let (_server, alive) = server("a").await;
    let origin = Origin::hanging_up().await;
    let (balancer, path) = logging(&[alive, origin.address()], &["--workers", "1"]).await;
    for _ in 0..2 {
        assert_eq!(balancer.get("/").await.header("x-served-by"), Some("a"));
    }
    let lines = wait_for_lines(&path, 2).await;
    let attempts: Vec<_> = lines.iter().map(|line| line["attempts"].as_u64().unwrap()).collect();
    assert_eq!(attempts.iter().sum::<u64>(), 3, "{lines:#?}");
    assert!(lines.iter().all(|line| line["backend"] == "a" && line["status"] == 200), "{lines:#?}");
    // And when no attempt brings an answer: the last one is named.
    let post = http::send(balancer.port(), request(Method::POST, "/", &[], "x")).await;
    let more = http::send(balancer.port(), request(Method::POST, "/", &[], "x")).await;
    let failed = if post.status.as_u16() == 502 { 2 } else { 3 };
    assert!(post.status.as_u16() == 502 || more.status.as_u16() == 502);
    let line = wait_for_lines(&path, 4).await.remove(failed);
    assert_eq!((&line["status"], &line["reason"]), (&502.into(), &"upstream_closed".into()), "{line}");
    assert_eq!((&line["backend"], &line["attempts"]), (&origin.address().into(), &1.into()), "{line}");
    assert_eq!((&line["request_bytes"], &line["ended"]), (&1.into(), &"complete".into()), "{line}");
}

#[tokio::test]
async fn a_client_that_goes_away_has_its_line_wherever_it_went() {
    let (_server, backend) = server("a").await;
    let (balancer, path) = logging(&[backend], &["--abort-on-close", "true"]).await;
    // Before the response head, with a body that the server has taken.
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST /delay/60000 HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await.unwrap();
    in_flight(&balancer, 1).await;
    drop(client);
    let line = only_line(&path).await;
    assert_eq!(
        (&line["status"], &line["reason"], &line["ended"]),
        (&499.into(), &"client_gone".into(), &"client_gone".into())
    );
    assert_eq!(
        (&line["backend"], &line["attempts"], &line["request_bytes"]),
        (&"a".into(), &1.into(), &3.into()),
        "{line}"
    );
    // Inside its own body.
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\npart").await.unwrap();
    in_flight(&balancer, 1).await;
    drop(client);
    let line = wait_for_lines(&path, 2).await.remove(1);
    assert_eq!((&line["target"], &line["ended"]), (&"/echo".into(), &"client_gone".into()), "{line}");
    // Inside the response.
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(b"GET /bytes/1000000000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    raw::read_head(&mut client).await;
    client.read_exact(&mut vec![0; 100_000]).await.unwrap();
    drop(client);
    let line = wait_for_lines(&path, 3).await.remove(2);
    assert_eq!((&line["status"], &line["reason"], &line["ended"]), (&200.into(), &"".into(), &"client_gone".into()));
    let bytes = line["response_bytes"].as_u64().unwrap();
    assert!((100_000..1_000_000_000).contains(&bytes), "{line}");
}

async fn in_flight(balancer: &Balancer, count: u64) {
    e2e::eventually("the request is in flight", async || {
        (balancer.status().await["traffic"]["in_flight"] == count).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_response_that_broke_at_the_server_is_told_from_one_that_the_client_left() {
    let origin = Origin::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart", false).await;
    let (balancer, path) = logging(&[origin.address()], &[]).await;
    raw::exchange(balancer.port(), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let line = only_line(&path).await;
    assert_eq!((&line["status"], &line["reason"], &line["ended"]), (&200.into(), &"".into(), &"backend_broke".into()));
    assert_eq!(line["response_bytes"], 4, "{line}");
}

#[tokio::test]
async fn who_ended_a_tunnel_is_told() {
    let switching = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let handshake = "GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // Breaks when the client says `b`, and ends when it ends.
    let origin = Origin::start(move |_, mut stream| async move {
        stream.write_all(switching).await.ok()?;
        let mut byte = [0];
        if stream.read(&mut byte).await.is_ok_and(|read| read == 1) && byte == *b"b" {
            stream.set_zero_linger().ok()?;
        }
        None
    })
    .await;
    let (mut balancer, path) = logging(&[origin.address()], &["--drain-timeout", "500ms"]).await;
    let mut lines = 0;
    for (what, expected) in [("end", "complete"), ("client", "client_gone"), ("backend", "backend_broke")] {
        let mut client = raw::connect(balancer.port()).await;
        client.write_all(handshake.as_bytes()).await.unwrap();
        assert!(raw::read_head(&mut client).await.starts_with("HTTP/1.1 101 "));
        match what {
            "end" => client.shutdown().await.unwrap(),
            "client" => client.set_zero_linger().unwrap(),
            _ => client.write_all(b"b").await.unwrap(),
        }
        if what != "client" {
            raw::read_to_close(&mut client, e2e::PATIENCE).await.expect("it ends");
        }
        drop(client);
        lines += 1;
        let line = wait_for_lines(&path, lines).await.pop().unwrap();
        assert_eq!((&line["status"], &line["ended"]), (&101.into(), &expected.into()), "{what}");
    }
    let mut client = raw::connect(balancer.port()).await;
    client.write_all(handshake.as_bytes()).await.unwrap();
    raw::read_head(&mut client).await;
    balancer.program.signal("TERM");
    assert_eq!(balancer.program.wait(e2e::PATIENCE).await.code(), Some(0));
    let line = wait_for_lines(&path, lines + 1).await.pop().unwrap();
    assert_eq!((&line["status"], &line["ended"]), (&101.into(), &"drained".into()));
}

#[tokio::test]
async fn only_a_trusted_peer_may_say_who_the_client_is() {
    let (_server, backend) = server("a").await;
    for (trusted, expected) in [("127.0.0.0/8,10.0.0.0/8", "192.0.2.1"), ("10.0.0.0/8", "127.0.0.1")] {
        let (balancer, path) = logging(std::slice::from_ref(&backend), &["--trusted-proxy", trusted]).await;
        let headers = [("x-forwarded-for", "198.51.100.1, 192.0.2.1, 10.0.0.7")];
        http::send(balancer.port(), request(Method::GET, "/", &headers, "")).await;
        let line = only_line(&path).await;
        assert_eq!(line["client"], expected, "{line}");
        assert!(line["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
}

#[tokio::test]
async fn nothing_that_a_client_sends_breaks_a_line() {
    let (_server, backend) = server("a").await;
    let (balancer, path) = logging(&[backend], &["--trusted-proxy", "127.0.0.0/8"]).await;
    let mut sent = 0;
    for byte in 1..=255_u8 {
        for place in [
            "GET /\0 HTTP/1.1\r\nhost: x\r\n",
            "GET / HTTP/1.1\r\nhost: \0\r\n",
            "GET / HTTP/1.1\r\nhost: x\r\nx-request-id: \0x\r\n",
        ] {
            let mut bytes = place.replace('\0', "\u{1}").into_bytes();
            let at = bytes.iter().position(|b| *b == 1).unwrap();
            bytes[at] = byte;
            bytes.extend_from_slice(b"connection: close\r\n\r\n");
            let mut client = raw::connect(balancer.port()).await;
            client.write_all(&bytes).await.unwrap();
            let answer = raw::read_to_close(&mut client, e2e::PATIENCE).await.expect("it is closed");
            assert!(answer.starts_with("HTTP/1.1 "), "{byte}: {answer}");
            sent += 1;
        }
    }
    let lines = wait_for_lines(&path, sent).await;
    assert!(
        lines.iter().any(|line| line["id"].as_str().unwrap().contains('\u{e9}')),
        "no byte beyond ASCII came through"
    );
}

#[tokio::test]
async fn a_file_that_was_moved_away_is_opened_anew_within_a_second() {
    let (_server, backend) = server("a").await;
    let (balancer, path) = logging(&[backend], &[]).await;
    balancer.get("/before").await;
    only_line(&path).await;
    let moved = path.with_extension("1");
    std::fs::rename(&path, &moved).unwrap();
    e2e::eventually_within(Duration::from_millis(1500), "the file is there again", async || {
        path.exists().then_some(())
    })
    .await;
    balancer.get("/after").await;
    assert_eq!(only_line(&path).await["target"], "/after");
    assert_eq!(only_line(&moved).await["target"], "/before");
    // One that is cut to nothing is simply written on.
    std::fs::write(&path, "").unwrap();
    balancer.get("/truncated").await;
    assert_eq!(only_line(&path).await["target"], "/truncated");
}

#[tokio::test]
async fn nothing_is_lost_at_the_end() {
    let (_servers, backends) = servers().await;
    let (mut balancer, path) = logging(&backends, &[]).await;
    let plan = Plan { port: balancer.port(), connections: 8, requests: 3000, reconnect: true };
    let tally = load::run(&plan).await;
    assert_eq!(tally.answered, 3000, "{tally:?}");
    let mut cut = raw::connect(balancer.port()).await;
    cut.write_all(b"GET /delay/60000 HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    in_flight(&balancer, 1).await;
    balancer.program.signal("TERM");
    balancer.program.signal("INT");
    balancer.program.wait(Duration::from_secs(5)).await;
    let lines = lines(&path);
    // Not `==`: a balancer of another test may still believe that its former backend is at this port.
    assert!(lines.len() >= 3001, "{} lines", lines.len());
    assert_eq!(lines.iter().filter(|line| line["status"] == 499).count(), 1);
    let mut ids: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3001, "an id stands twice");
}

#[tokio::test]
async fn a_dash_is_standard_output() {
    let (_server, backend) = server("a").await;
    let balancer = Balancer::start_with(&[backend], &[], &[("LB_ACCESS_LOG", "-")]).await;
    balancer.get("/x").await;
    e2e::eventually("the line", async || balancer.program.stdout().contains("\"target\":\"/x\"").then_some(())).await;
    // Off unless asked for.
    let (_server, backend) = server("a").await;
    let mut silent = Balancer::start(&[backend], &[]).await;
    silent.get("/x").await;
    silent.program.signal("TERM");
    silent.program.wait(Duration::from_secs(3)).await;
    assert_eq!(silent.program.stdout().lines().count(), 1);
}

#[tokio::test]
async fn a_full_disk_costs_lines_and_nothing_else() {
    let (_servers, backends) = servers().await;
    let balancer = Balancer::start(&backends, &["--access-log", "/dev/full"]).await;
    let plan = Plan { port: balancer.port(), connections: 8, requests: 2000, reconnect: true };
    assert_eq!(load::run(&plan).await.answered, 2000);
    e2e::eventually("every line is counted", async || (dropped(&balancer).await == 2000).then_some(())).await;
    assert_eq!(balancer.program.stderr().matches("No space left on device").count(), 1);
}

#[tokio::test]
async fn a_reader_that_stops_costs_lines_that_are_counted_and_nothing_else() {
    let origin = Origin::answering(b"HTTP/1.1 204 No Content\r\n\r\n", true).await;
    let pipe = fresh_path();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // O_NONBLOCK: this end may be opened before the other.
    let reader = std::fs::OpenOptions::new().read(true).custom_flags(0o4000).open(&pipe).unwrap();
    let mut balancer = Balancer::start(&[origin.address()], &["--access-log", &pipe.display().to_string()]).await;
    // Each of them gives a line of some 12 KiB, much of it escapes; 16 MiB may wait.
    let target = format!("/{}", "\"".repeat(2000));
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (port, target) = (balancer.port(), target.clone());
        clients.push(tokio::spawn(async move {
            let bytes = format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n");
            let mut client = raw::connect(port).await;
            for _ in 0..500 {
                client.write_all(bytes.as_bytes()).await.unwrap();
                assert!(raw::read_head(&mut client).await.starts_with("HTTP/1.1 204 "));
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
    // A worker hands its last lines over with its next sweep: the count is final once it stands still for longer than that.
    let mut before = 0;
    let lost = e2e::eventually("lines are dropped, and no more of them", async || {
        let now = dropped(&balancer).await;
        let is_final = now > 0 && now == before;
        before = now;
        tokio::time::sleep(Duration::from_millis(250)).await;
        is_final.then_some(now)
    })
    .await;
    // Read as fast as they come, by a thread that waits for them: the balancer waits for its reader two seconds, and a look
    // each hundredth of a second may get no more than a pipe holds.
    let mut waiting = std::fs::File::open(&pipe).unwrap();
    drop(reader);
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        waiting.read_to_string(&mut text).map(|_| text)
    });
    balancer.program.signal("TERM");
    balancer.program.wait(Duration::from_secs(5)).await;
    let text = reading.join().unwrap().unwrap();
    let lines = text.lines().inspect(|line| drop(serde_json::from_str::<Value>(line).unwrap())).count();
    assert_eq!(lines as u64 + lost, 2000, "{lines} lines, {lost} lost");
    assert_eq!(balancer.program.stderr().matches("faster than they can be written").count(), 1);
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_said_at_the_start() {
    let args = ["--port", "0", "--admin-port", "0", "--access-log", "/nowhere/access.log"];
    let ended = program::run("loadbalancer", &args, &[], e2e::PATIENCE).await;
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    assert!(ended.stderr.contains("/nowhere/access.log") && ended.stderr.contains("--access-log"), "{}", ended.stderr);
}
