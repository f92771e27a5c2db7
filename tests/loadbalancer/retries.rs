//! What is sent again, what is not, and how much of it.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::http::{Client, request};
use e2e::origin::{Origin, Record, Seen};
use e2e::raw;
use e2e::wire::Wire;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Checks that notice nothing while a test runs: only live traffic can.
const RARE_CHECKS: [&str; 4] = ["--check-interval", "60s", "--check-fast-interval", "60s"];

/// A balancer whose options come from a file, too.
async fn balancer(backends: &[&Origin], file: &str, args: &[&str]) -> Balancer {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!("retries-{}-{}.toml", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
    let path = e2e::program::scratch_dir().join(name);
    std::fs::write(&path, file).unwrap();
    let path = path.display().to_string();
    let backends: Vec<String> = backends.iter().map(|origin| origin.address()).collect();
    // Or the origins would be ejected for what these tests have them do.
    let steady = ["--outlier-detection", "false", "--config", &path];
    Balancer::start(&backends, &[&RARE_CHECKS[..], &steady, args].concat()).await
}

const SHOWN: &str = "[retry]\nshow_attempts = true\n";

/// Reads the whole request, notes it, and closes.
async fn swallowing() -> (Origin, Record) {
    let record = Record::default();
    let noted = record.clone();
    let origin = Origin::start(move |seen, stream| {
        let noted = noted.clone();
        async move {
            let mut wire = Wire::resume(stream, seen.rest);
            let message = wire.rest_of(seen.head, false).await;
            noted.note(message);
            None
        }
    })
    .await;
    (origin, record)
}

async fn metric(balancer: &Balancer, name: &str) -> u64 {
    let page = http::get(balancer.admin_port(), "/metrics").await.text();
    let line = page.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
    line.unwrap_or_else(|| panic!("no {name} in {page}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_failed_connect_is_repeated_twice_whatever_the_method_each_time_elsewhere() {
    let origins = [Origin::hanging_up().await, Origin::hanging_up().await, Origin::hanging_up().await];
    let more = [Origin::hanging_up().await, Origin::hanging_up().await];
    let names: Vec<String> = origins.iter().chain(&more).map(Origin::address).collect();
    let all: Vec<&Origin> = origins.iter().chain(&more).collect();
    let balancer = balancer(&all, SHOWN, &[]).await;
    drop((origins, more));
    for method in [Method::POST, Method::GET] {
        let answer = http::send(balancer.port(), request(method, "/", &[], "x")).await;
        assert_eq!((answer.status.as_u16(), answer.header("x-lb-attempts")), (502, Some("3")));
        let text = answer.text();
        let tried: Vec<&String> = names.iter().filter(|name| text.contains(&format!("tried {name}:"))).collect();
        assert_eq!(tried.len(), 3, "three different ones: {text}");
    }
    assert_eq!(metric(&balancer, "lb_retries_by_cause_total{cause=\"connect\"}").await, 4);
    assert_eq!(metric(&balancer, "lb_retries_refused_total{by=\"recent\"}").await, 0);
}

#[tokio::test]
async fn a_single_server_that_cannot_be_reached_is_tried_again() {
    let port = free_port();
    let (mut dying, backend) = server_on("a", port).await;
    let balancer = Balancer::start(&[backend], &[&RARE_CHECKS[..], &["--check-fall", "100"]].concat()).await;
    dying.kill().await;
    let answer = balancer.get("/").await;
    assert_eq!(answer.text().matches("tried a: connection refused").count(), 3, "{}", answer.text());
}

#[tokio::test]
async fn what_was_sent_is_sent_again_once_and_only_if_it_is_idempotent() {
    let origins = [Origin::hanging_up().await, Origin::hanging_up().await, Origin::hanging_up().await];
    let balancer = balancer(&origins.iter().collect::<Vec<_>>(), SHOWN, &[]).await;
    let mut expected = 0;
    for (method, attempts) in [
        (Method::GET, 2),
        (Method::PUT, 2),
        (Method::DELETE, 2),
        (Method::HEAD, 2),
        (Method::OPTIONS, 2),
        (Method::POST, 1),
        (Method::PATCH, 1),
    ] {
        let answer = http::send(balancer.port(), request(method.clone(), "/", &[], "")).await;
        assert_eq!(answer.status.as_u16(), 502);
        assert_eq!(answer.header("x-lb-attempts"), Some(attempts.to_string().as_str()), "{method}");
        expected += attempts;
        assert_eq!(origins.iter().map(Origin::requests).sum::<usize>(), expected, "{method}");
    }
    assert!(origins.iter().all(|origin| origin.requests() >= 3), "each time another one");
}

#[tokio::test]
async fn a_body_is_sent_again_whole_as_long_as_it_fits_the_buffer() {
    let (first, swallowed) = swallowing().await;
    let (second, answered) = Origin::recording(OK, true).await;
    let balancer = balancer(&[&first, &second], "[retry]\nbuffer = \"64KiB\"\n", &["--workers", "1"]).await;
    let body = |length: usize| -> Vec<u8> { (0..length).map(|at| (at % 251) as u8).collect() };
    for length in [1, 1000, 65_536] {
        // One of two begins at the first.
        for _ in 0..2 {
            let put = request(Method::PUT, "/", &[], body(length));
            assert_eq!(http::send(balancer.port(), put).await.status.as_u16(), 200, "{length}");
            let message = answered.take().pop().expect("the second got it");
            assert!(message.body == body(length), "{length} bytes, {} arrived", message.body.len());
        }
        assert_eq!(swallowed.take().len(), 1, "{length}");
    }
    let mut statuses = Vec::new();
    for _ in 0..2 {
        let put = request(Method::PUT, "/", &[], body(65_537));
        statuses.push(http::send(balancer.port(), put).await.status.as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 502], "too large to be kept: sent once each");
    assert_eq!((swallowed.take().len(), answered.take().len()), (1, 1));
}

#[tokio::test]
async fn a_chunked_body_is_kept_as_far_as_it_came() {
    let (first, swallowed) = swallowing().await;
    let (second, answered) = Origin::recording(OK, true).await;
    let balancer = balancer(&[&first, &second], "", &["--workers", "1"]).await;
    for _ in 0..2 {
        let sent = b"PUT / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let answer = raw::exchange(balancer.port(), sent).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(answered.take().pop().expect("the second got it").body, b"abcde");
    }
    assert_eq!(swallowed.take().pop().expect("the first got it first").body, b"abcde");
}

#[tokio::test]
async fn a_response_that_is_cut_inside_its_head_is_asked_for_elsewhere_once() {
    let (first, last) = (b"H", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n");
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n";
    for cut in [&first[..], last, interim] {
        let (cutting, whole) = (Origin::answering(cut, false).await, Origin::answering(OK, true).await);
        let balancer = balancer(&[&cutting, &whole], SHOWN, &["--workers", "1"]).await;
        for _ in 0..4 {
            assert_eq!(balancer.get("/").await.text(), "ok", "{:?}", String::from_utf8_lossy(cut));
        }
        assert_eq!((cutting.requests(), whole.requests()), (2, 4));
        assert_eq!(metric(&balancer, "lb_retries_by_cause_total{cause=\"closed\"}").await, 2);
        let mut posted = Vec::new();
        for _ in 0..2 {
            let answer = http::send(balancer.port(), request(Method::POST, "/", &[], "x")).await;
            assert_eq!(answer.header("x-lb-attempts"), Some("1"));
            posted.push((answer.status.as_u16(), answer.text().contains("closed inside the response head")));
        }
        posted.sort_unstable();
        assert_eq!(posted, [(200, false), (502, true)], "a POST may have been executed");
    }
}

#[tokio::test]
async fn where_all_cut_their_heads_two_are_asked_and_no_more() {
    let cutting = [Origin::answering(b"HTTP/1.1 2", false).await, Origin::answering(b"H", false).await];
    let third = Origin::answering(b"HTTP/1.1 200 OK\r\n", false).await;
    let balancer = balancer(&[&cutting[0], &cutting[1], &third], SHOWN, &[]).await;
    for _ in 0..6 {
        let answer = balancer.get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-lb-attempts")), (502, Some("2")));
    }
    assert_eq!(cutting.iter().map(Origin::requests).sum::<usize>() + third.requests(), 12);
}

#[tokio::test]
async fn an_answer_that_is_there_but_is_none_is_not_asked_for_again() {
    // The server has answered as it always will; and what it means by it nobody knows.
    let wrong =
        [Origin::answering(b"HTTP/1.1 2x0 OK\r\n\r\n", false).await, Origin::answering(b"SSH-2.0-x\r\n", false).await];
    const CUT: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort";
    let cut = [Origin::answering(CUT, false).await, Origin::answering(CUT, false).await];
    let balancer = balancer(&[&wrong[0], &wrong[1]], SHOWN, &[]).await;
    for _ in 0..4 {
        let answer = balancer.get("/").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-lb-attempts")), (502, Some("1")));
    }
    assert_eq!(wrong.iter().map(Origin::requests).sum::<usize>(), 4);
    let balancer = self::balancer(&[&cut[0], &cut[1]], "", &[]).await;
    let got = raw::exchange(balancer.port(), b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(!got.starts_with("HTTP/1.1 5"), "{got}");
    assert_eq!(cut.iter().map(Origin::requests).sum::<usize>(), 1, "its head was on its way to the client");
}

/// Holds each request until `phase` is at least what `at` says of its number, and closes.
async fn holding(phase: &watch::Sender<usize>, count: &Arc<AtomicUsize>, at: fn(usize) -> usize) -> Origin {
    let (phase, count) = (phase.subscribe(), Arc::clone(count));
    Origin::start(move |_: Seen, stream| {
        let (mut phase, number) = (phase.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            let _ = phase.wait_for(|now| *now >= at(number)).await;
            drop(stream);
            None
        }
    })
    .await
}

#[tokio::test]
async fn nothing_is_sent_again_for_a_client_that_has_gone() {
    let (phase, count) = (watch::Sender::new(0), Arc::new(AtomicUsize::new(0)));
    let origins = [holding(&phase, &count, |n| n + 1).await, holding(&phase, &count, |n| n + 1).await];
    let balancer = balancer(&[&origins[0], &origins[1]], "", &["--workers", "1"]).await;
    for number in 0..20 {
        let mut client = raw::connect(balancer.port()).await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        e2e::eventually("it waits at a backend", async || (count.load(Ordering::SeqCst) > number).then_some(())).await;
        // Both at once, so that the balancer may well see the backend's end first.
        raw::reset(client);
        phase.send_replace(number + 1);
        let gone = "lb_local_replies_total{reason=\"client_gone\",status=\"499\"}";
        e2e::eventually("it is over", async || (metric(&balancer, gone).await > number as u64).then_some(())).await;
    }
    assert_eq!(count.load(Ordering::SeqCst), 20, "each was sent once");
}

#[tokio::test]
async fn repeats_under_way_are_bounded_by_the_requests_under_way() {
    const CLIENTS: usize = 40;
    let (phase, count) = (watch::Sender::new(0), Arc::new(AtomicUsize::new(0)));
    let at = |number| if number < CLIENTS { 1 } else { 2 };
    let origins = [holding(&phase, &count, at).await, holding(&phase, &count, at).await];
    let balancer = balancer(&[&origins[0], &origins[1]], "", &[]).await;
    let port = balancer.port();
    let clients: Vec<_> = (0..CLIENTS).map(|_| tokio::spawn(async move { http::get(port, "/").await })).collect();
    let all = async || (count.load(Ordering::SeqCst) == CLIENTS).then_some(());
    e2e::eventually("all wait at a backend", all).await;
    phase.send_replace(1);
    // Those that were refused have their answer; those that were not wait again.
    let refused = "lb_retries_refused_total{by=\"active\"}";
    let settled = async || {
        let repeats = count.load(Ordering::SeqCst) - CLIENTS;
        (metric(&balancer, refused).await as usize + repeats == CLIENTS).then_some(repeats)
    };
    let repeats = e2e::eventually("each was repeated or refused", settled).await;
    // A fifth of forty, or of what was left of them when their turn came, but three at least.
    assert!((3..=8).contains(&repeats), "{repeats} repeats at once");
    assert_eq!(metric(&balancer, "lb_retries_active").await as usize, repeats);
    phase.send_replace(2);
    let mut told = 0;
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!(answer.status.as_u16(), 502);
        told += usize::from(answer.text().contains("not tried again: as many retries are under way"));
    }
    assert_eq!(told, CLIENTS - repeats);
    assert_eq!(metric(&balancer, "lb_retries_active").await, 0);
}

#[tokio::test]
async fn a_repeat_at_the_same_server_waits_a_moment() {
    let times = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&times);
    let origin = Origin::start(move |_, _| {
        noted.lock().unwrap().push(Instant::now());
        async { None }
    })
    .await;
    let balancer = balancer(&[&origin], "", &[]).await;
    assert_eq!(balancer.get("/").await.status.as_u16(), 502);
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 2);
    assert!(times[1] - times[0] >= Duration::from_millis(12), "{times:?}");
}

const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy";

#[tokio::test]
async fn chosen_statuses_are_repeated_and_the_connection_lives_on() {
    let busy = Origin::answering(BUSY, true).await;
    let (idle, _) = Origin::recording(OK, true).await;
    let balancer = balancer(&[&busy, &idle], SHOWN, &["--retry-statuses", "429,503", "--workers", "1"]).await;
    let mut attempts = HashSet::new();
    let mut client = Client::connect(balancer.port()).await.unwrap();
    for _ in 0..20 {
        let answer = client.get("/").await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"));
        attempts.insert(answer.header("x-lb-attempts").unwrap().to_owned());
    }
    assert_eq!(attempts, HashSet::from(["1".to_owned(), "2".to_owned()]));
    assert_eq!((busy.requests(), busy.connections()), (10, 1), "its connection was used again");
    assert_eq!(metric(&balancer, "lb_retries_by_cause_total{cause=\"status\"}").await, 10);
    let mut statuses = HashSet::new();
    for _ in 0..4 {
        let posted = client.send(request(Method::POST, "/", &[], "x")).await.unwrap();
        statuses.insert((posted.status.as_u16(), posted.text()));
    }
    let expected = [(200, "ok"), (503, "busy")].map(|(status, text)| (status, text.to_owned()));
    assert_eq!(statuses, HashSet::from(expected), "what is not idempotent gets the answer there is");
}

#[tokio::test]
async fn an_answer_that_nothing_better_follows_is_the_answer() {
    let origins = [Origin::answering(BUSY, true).await, Origin::answering(BUSY, true).await];
    let balancer = balancer(&[&origins[0], &origins[1]], SHOWN, &["--retry-statuses", "503"]).await;
    let answer = balancer.get("/").await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (503, "busy"));
    assert_eq!(answer.header("x-lb-attempts"), Some("2"));
}

#[tokio::test]
async fn what_is_left_of_a_discarded_answer_holds_nobody_up_and_reaches_nobody() {
    // Announces more than it ever sends.
    let slow = Origin::answering(b"HTTP/1.1 503 Busy\r\ncontent-length: 1000000\r\n\r\nlong", true).await;
    let (idle, _) = Origin::recording(OK, true).await;
    let balancer = balancer(&[&slow, &idle], "", &["--retry-statuses", "503", "--workers", "1"]).await;
    for _ in 0..6 {
        assert_eq!(balancer.get("/").await.text(), "ok");
    }
    assert_eq!((slow.requests(), slow.connections()), (3, 3), "none of its connections was used again");
}

#[tokio::test]
async fn attempts_are_told_only_if_asked_for_but_logged_in_any_case() {
    let (breaking, alive) = (Origin::hanging_up().await, Origin::answering(OK, false).await);
    let balancer = balancer(&[&breaking, &alive], "", &["--access-log", "-"]).await;
    for _ in 0..2 {
        assert_eq!(balancer.get("/").await.header("x-lb-attempts"), None);
    }
    let logged = || balancer.program.stdout().contains("\"attempts\":2");
    e2e::eventually("a line with two attempts", async || logged().then_some(())).await;
}

#[tokio::test]
async fn requests_that_break_together_wait_for_each_other_rather_than_fail() {
    const CLIENTS: usize = 40;
    let (phase, count) = (watch::Sender::new(0), Arc::new(AtomicUsize::new(0)));
    let breaking = holding(&phase, &count, |_| 1).await;
    let alive = Origin::answering(OK, true).await;
    let balancer = balancer(&[&breaking, &alive], "", &["--workers", "1"]).await;
    let port = balancer.port();
    let clients: Vec<_> = (0..2 * CLIENTS).map(|_| tokio::spawn(async move { http::get(port, "/").await })).collect();
    let half = async || (count.load(Ordering::SeqCst) == CLIENTS).then_some(());
    e2e::eventually("half of them wait at the one", half).await;
    phase.send_replace(1);
    for client in clients {
        let answer = client.await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"));
    }
    assert_eq!(metric(&balancer, "lb_retries_by_cause_total{cause=\"closed\"}").await, CLIENTS as u64);
}

#[tokio::test]
async fn who_hangs_up_with_a_request_in_hand_is_not_excused_by_a_kept_connection() {
    // Answers the first request of each connection, and takes the second for long enough to have worked on it.
    let origin = Origin::start(|seen, mut stream| async move {
        if seen.head.starts_with("GET /first ") {
            stream.write_all(OK).await.ok()?;
            return Some(stream);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        None
    })
    .await;
    let balancer = balancer(&[&origin], SHOWN, &["--workers", "1"]).await;
    let mut client = Client::connect(balancer.port()).await.unwrap();
    assert_eq!(client.get("/first").await.unwrap().status.as_u16(), 200);
    assert_eq!(client.get("/second").await.unwrap().status.as_u16(), 502);
    assert_eq!(origin.connections(), 2, "the first was kept");
    assert_eq!(metric(&balancer, "lb_retries_by_cause_total{cause=\"stale\"}").await, 0);
    assert_eq!(metric(&balancer, "lb_retries_by_cause_total{cause=\"closed\"}").await, 1);
}
