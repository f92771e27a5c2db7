//! Open-loop load: requests leave at a fixed rate whatever the answers do, and latency counts from when a request
//! was due, not from when it could be sent. So a proxy that stalls is charged for everything that had to wait
//! (a closed loop would politely stop asking: coordinated omission).
//!
//! Clients and backends are one thread that never sleeps while it measures ([`turn`]): beside the proxy's core there
//! may be only one other, and two processes that share it are switched every few milliseconds, which would be all that
//! a 99th percentile shows. For the same reason the contender's own maximum is what this same thread gets out of it.

mod plan;
mod turn;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Waker;

use super::work::Http;
use crate::Error;
pub(super) use plan::Latencies;
use plan::Plan;
use turn::Turn;

/// For all answers to be there after the last request was due.
const SPARE: Duration = Duration::from_secs(10);

/// The thread: backends at any time, clients when asked.
pub(crate) struct OpenLoop {
    /// Backends, as HOST:PORT.
    pub(crate) addresses: Vec<String>,
    orders: mpsc::Sender<Order>,
    waker: Waker,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A load to be made, and where to say what came of it.
struct Order {
    port: u16,
    http: Http,
    plan: Plan,
    reply: mpsc::Sender<Result<Outcome, String>>,
}

/// What came of a load.
#[derive(Debug)]
struct Outcome {
    per_s: f64,
    latencies: Latencies,
}

impl OpenLoop {
    /// Starts the thread with `backends` backends, each of which answers every request with `reply` bytes.
    pub(crate) fn start(backends: usize, reply: usize) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::Failed(format!("cannot start the open loop: {e}"));
        let (turn, waker, addresses) = Turn::new(backends, reply).map_err(failed)?;
        let (orders, received) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("open-loop".to_owned())
            .spawn(move || serve(turn, &received, &stopped))
            .map_err(failed)?;
        Ok(Self { addresses, orders, waker, stop, thread: Some(thread) })
    }

    /// How many requests a second the proxy on `port` answers when each connection asks again at once.
    ///
    /// # Errors
    /// When an answer is wrong, or there is none.
    pub(super) fn most_per_s(&self, port: u16, http: &Http, seconds: u32) -> Result<f64, String> {
        self.load(port, http, Plan::closed(seconds)).map(|outcome| outcome.per_s)
    }

    /// Sends `per_s` requests a second for `seconds`, after a moment that does not count.
    ///
    /// # Errors
    /// When an answer is wrong, or does not come.
    pub(super) fn measure(&self, port: u16, http: &Http, per_s: f64, seconds: u32) -> Result<Latencies, String> {
        self.load(port, http, Plan::open(per_s, seconds)?).map(|outcome| outcome.latencies)
    }

    fn load(&self, port: u16, http: &Http, plan: Plan) -> Result<Outcome, String> {
        let (reply, outcome) = mpsc::channel();
        let ended = |_| "the open loop has ended".to_owned();
        let limit = plan.lasts() + SPARE;
        self.orders.send(Order { port, http: *http, plan, reply }).map_err(|_| ended(()))?;
        self.waker.wake().map_err(|e| e.to_string())?;
        // It keeps the time itself; this is for a thread that broke.
        outcome.recv_timeout(limit + SPARE).map_err(|_| ended(()))?
    }
}

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Backends until the end; clients as ordered.
fn serve(mut turn: Turn, orders: &mpsc::Receiver<Order>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(order) = orders.try_recv() {
            let outcome = turn.load(order.port, &order.http, order.plan);
            // Who asked may have given up.
            let _ = order.reply.send(outcome);
        } else if turn.wait().is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::work::SMALL_REPLIES;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

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
        let open_loop = OpenLoop::start(1, 128).unwrap();
        let latencies = open_loop.measure(port, &http, 100.0, 1).unwrap();
        assert_eq!(latencies.count, 100);
        assert!(latencies.p99_us > 200_000.0, "{latencies:?}");
        assert!(latencies.p50_us < latencies.p99_us, "{latencies:?}");
    }

    #[test]
    fn its_backends_answer_its_clients() {
        let open_loop = OpenLoop::start(2, 128).unwrap();
        for address in &open_loop.addresses {
            let port = address.rsplit_once(':').unwrap().1.parse().unwrap();
            assert!(open_loop.most_per_s(port, &SMALL_REPLIES, 1).unwrap() > 64.0);
            let latencies = open_loop.measure(port, &SMALL_REPLIES, 1000.0, 1).unwrap();
            assert_eq!(latencies.count, 1000);
        }
    }

    #[test]
    fn a_wrong_answer_or_a_lost_connection_spoils_it() {
        let http = Http { connections: 1, ..SMALL_REPLIES };
        let open_loop = OpenLoop::start(1, 128).unwrap();
        let wrong = server(answer(127), 1, 9, Duration::ZERO);
        assert!(open_loop.measure(wrong, &http, 100.0, 1).unwrap_err().contains("127 bytes"));
        let short = server(answer(128), 1, 9, Duration::ZERO);
        assert!(open_loop.measure(short, &http, 100.0, 1).is_err());
        assert!(open_loop.measure(1, &http, 0.0, 1).is_err());
    }
}
