//! Open-loop load: requests leave at a fixed rate whatever the answers do, and latency counts from when a request
//! was due, not from when it could be sent. So a proxy that stalls is charged for everything that had to wait
//! (a closed loop would politely stop asking: coordinated omission).
//!
//! One thread lets requests fall due, the calling one reads answers. A request goes out on an idle connection; if
//! there is none, it waits, and its clock runs.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::http::{Head, connect};
use super::websocket::runtime;
use super::work::Http;

/// The sender sleeps at most this long between looks at what is due: far below a latency worth measuring, and no
/// burden on a core that the backends share.
const STEP: Duration = Duration::from_micros(50);

/// At the beginning, requests are sent and not counted.
const SETTLE: Duration = Duration::from_millis(500);

/// For all answers to be there after the last request was due.
const SPARE: Duration = Duration::from_secs(10);

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latencies {
    pub(super) count: u64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    /// How late the sender itself was at the 99th percentile: below this, latencies say nothing.
    pub(super) late_p99_us: f64,
}

/// What both threads look at. The lock is held for some nanoseconds, and both are on the load's cores.
struct Desk {
    idle: VecDeque<usize>,
    /// For each connection, when its request was due.
    due: Vec<Instant>,
    /// Requests that found no idle connection.
    waiting: VecDeque<Instant>,
    answered: u64,
    /// Nobody reads answers any more.
    is_over: bool,
    latencies: Vec<Duration>,
    lateness: Vec<Duration>,
}

/// The plan of one measurement.
#[derive(Clone, Copy)]
struct Plan {
    start: Instant,
    per_s: f64,
    total: u64,
    counted_from: Instant,
}

impl Plan {
    fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.per_s)
    }
}

/// Sends `per_s` requests a second for `seconds`, after half a second that does not count.
///
/// # Errors
/// When an answer is wrong, or does not come.
pub(super) fn measure(port: u16, http: &Http, per_s: f64, seconds: u32) -> Result<Latencies, String> {
    if !(per_s.is_finite() && per_s >= 1.0) {
        return Err(format!("{per_s} requests a second cannot be sent"));
    }
    let duration = SETTLE + Duration::from_secs(seconds.into());
    let total = (duration.as_secs_f64() * per_s) as u64;
    let mut senders = Vec::with_capacity(http.connections);
    let mut readers = Vec::with_capacity(http.connections);
    for _ in 0..http.connections {
        let stream = connect(port).map_err(|e| format!("port {port}: {e}"))?;
        stream.set_nodelay(true).and_then(|()| stream.set_nonblocking(true)).map_err(|e| e.to_string())?;
        senders.push(stream.try_clone().map_err(|e| e.to_string())?);
        readers.push(stream);
    }
    let senders = Arc::new(senders);
    let request: Arc<[u8]> = format!("GET {} HTTP/1.1\r\nHost: bench\r\n\r\n", http.path).into_bytes().into();
    let start = Instant::now() + Duration::from_millis(10);
    let plan = Plan { start, per_s, total, counted_from: start + SETTLE };
    let desk = Arc::new(Mutex::new(Desk {
        idle: (0..http.connections).collect(),
        due: vec![start; http.connections],
        waiting: VecDeque::new(),
        answered: 0,
        is_over: false,
        latencies: Vec::with_capacity(total as usize),
        lateness: Vec::with_capacity(total as usize),
    }));
    let sender = {
        let (senders, request, desk) = (Arc::clone(&senders), Arc::clone(&request), Arc::clone(&desk));
        thread::spawn(move || send_all(&senders, &request, &desk, plan))
    };
    let read = runtime()?.block_on(async {
        let all = read_all(readers, &senders, &request, &desk, plan, http.reply);
        timeout(duration + SPARE, all).await.unwrap_or_else(|_| {
            let answered = lock(&desk).answered;
            Err(format!("after {} s only {answered} of {total} requests were answered", (duration + SPARE).as_secs()))
        })
    });
    lock(&desk).is_over = true;
    let sent = sender.join().unwrap_or_else(|_| Err("the sender broke".to_owned()));
    read.and(sent)?;
    let mut desk = lock(&desk);
    let desk = &mut *desk;
    Ok(Latencies {
        count: desk.latencies.len() as u64,
        p50_us: quantile_us(&mut desk.latencies, 0.50),
        p99_us: quantile_us(&mut desk.latencies, 0.99),
        late_p99_us: quantile_us(&mut desk.lateness, 0.99),
    })
}

/// Nobody panics with the lock held, and what it guards is whole at every moment.
fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets every request fall due in its time.
fn send_all(streams: &[TcpStream], request: &[u8], desk: &Mutex<Desk>, plan: Plan) -> Result<(), String> {
    for number in 0..plan.total {
        let due = plan.due(number);
        loop {
            let now = Instant::now();
            if now >= due {
                if due >= plan.counted_from {
                    lock(desk).lateness.push(now - due);
                }
                break;
            }
            thread::sleep((due - now).min(STEP));
        }
        let connection = {
            let mut desk = lock(desk);
            if desk.is_over {
                return Ok(());
            }
            let idle = desk.idle.pop_front();
            match idle {
                Some(connection) => desk.due[connection] = due,
                None => desk.waiting.push_back(due),
            }
            idle
        };
        if let Some(connection) = connection {
            send(&streams[connection], request)?;
        }
    }
    Ok(())
}

/// A connection on which everything was answered has room for one small request.
fn send(mut stream: &TcpStream, request: &[u8]) -> Result<(), String> {
    match stream.write(request) {
        Ok(sent) if sent == request.len() => Ok(()),
        Ok(_) => Err("a request did not go out whole".to_owned()),
        Err(e) => Err(format!("cannot send a request: {e}")),
    }
}

async fn read_all(
    readers: Vec<TcpStream>,
    senders: &Arc<Vec<TcpStream>>,
    request: &Arc<[u8]>,
    desk: &Arc<Mutex<Desk>>,
    plan: Plan,
    reply: usize,
) -> Result<(), String> {
    let mut all = JoinSet::new();
    for (connection, stream) in readers.into_iter().enumerate() {
        let (senders, request, desk) = (Arc::clone(senders), Arc::clone(request), Arc::clone(desk));
        all.spawn(async move {
            let mut stream = tokio::net::TcpStream::from_std(stream).map_err(|e| e.to_string())?;
            let mut bytes = Vec::with_capacity(4096);
            loop {
                read_one(&mut stream, &mut bytes, reply).await?;
                let (next, is_last) = note(&desk, connection, plan);
                if next {
                    send(&senders[connection], &request)?;
                }
                if is_last {
                    return Ok::<_, String>(());
                }
            }
        });
    }
    // Whoever reads the last answer is the first to end, unless something is wrong.
    match all.join_next().await {
        Some(ended) => ended.unwrap_or_else(|e| Err(format!("a reader broke: {e}"))),
        None => Err("there are no connections".to_owned()),
    }
}

/// One whole answer, and nothing else: `bytes` is empty again afterwards.
async fn read_one(stream: &mut tokio::net::TcpStream, bytes: &mut Vec<u8>, reply: usize) -> Result<(), String> {
    bytes.clear();
    loop {
        match stream.read_buf(bytes).await {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).to_string()),
            Ok(_) => {}
            Err(e) => return Err(format!("no answer: {e}")),
        }
        let Some(head) = Head::parse(bytes)? else { continue };
        if (head.status, head.body) != (200, reply) || bytes.len() > head.head + head.body {
            return Err(format!("a wrong answer: status {}, {} bytes", head.status, head.body));
        }
        if bytes.len() == head.head + head.body {
            return Ok(());
        }
    }
}

/// Notes an answer. Whether a request that waits goes out now, and whether this was the last answer.
fn note(desk: &Mutex<Desk>, connection: usize, plan: Plan) -> (bool, bool) {
    let now = Instant::now();
    let mut desk = lock(desk);
    let due = desk.due[connection];
    if due >= plan.counted_from {
        desk.latencies.push(now.saturating_duration_since(due));
    }
    desk.answered += 1;
    let next = desk.waiting.pop_front();
    match next {
        Some(due) => desk.due[connection] = due,
        None => desk.idle.push_back(connection),
    }
    (next.is_some(), desk.answered == plan.total)
}

/// Nearest rank.
fn quantile_us(latencies: &mut [Duration], share: f64) -> f64 {
    latencies.sort_unstable();
    let rank = (latencies.len() as f64 * share).ceil() as usize;
    latencies.get(rank.saturating_sub(1)).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::work::SMALL_REPLIES;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn quantiles_are_those_of_the_nearest_rank() {
        let mut latencies: Vec<_> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!(quantile_us(&mut latencies, 0.99), 198.0);
        assert_eq!(quantile_us(&mut latencies, 0.5), 100.0);
        assert_eq!(quantile_us(&mut [], 0.99), 0.0);
    }

    /// A server for one connection that answers `count` requests with `answer`, and the `stalls`th late.
    fn server(answer: String, count: usize, stalls: usize, stall: Duration) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for number in 0..count {
                if stream.read(&mut [0; 1024]).is_ok_and(|read| read == 0) {
                    return;
                }
                if number == stalls {
                    thread::sleep(stall);
                }
                let _ = stream.write_all(answer.as_bytes());
            }
            let _ = stream.read(&mut [0; 1024]);
        });
        port
    }

    fn answer(bytes: usize) -> String {
        format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n{}", "x".repeat(bytes))
    }

    #[test]
    fn who_stalls_once_is_charged_for_all_that_waited() {
        // 100 a second for 1.5 s; request 100 of one connection takes 0.3 s, so some 30 requests wait behind it.
        let port = server(answer(128), 150, 100, Duration::from_millis(300));
        let http = Http { connections: 1, ..SMALL_REPLIES };
        let latencies = measure(port, &http, 100.0, 1).unwrap();
        assert_eq!(latencies.count, 100);
        assert!(latencies.p99_us > 200_000.0, "{latencies:?}");
        assert!(latencies.p50_us < latencies.p99_us, "{latencies:?}");
    }

    #[test]
    fn a_wrong_answer_or_a_lost_connection_spoils_it() {
        let http = Http { connections: 1, ..SMALL_REPLIES };
        let wrong = server(answer(127), 1, 9, Duration::ZERO);
        assert!(measure(wrong, &http, 100.0, 1).unwrap_err().contains("127 bytes"));
        let short = server(answer(128), 1, 9, Duration::ZERO);
        assert!(measure(short, &http, 100.0, 1).is_err());
        assert!(measure(1, &http, 0.0, 1).is_err());
    }
}
