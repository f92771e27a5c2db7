//! Load from a thread that never sleeps while it measures, closed loop and open loop.
//!
//! Closed: each connection asks again at its answer. Open: requests leave at a fixed rate whatever the answers do, and
//! latency counts from when a request was due, not from when it could be sent. So a proxy that stalls is charged for
//! everything that had to wait (a closed loop would politely stop asking: coordinated omission).
//!
//! Clients and backends are one thread ([`event_loop`]): beside the proxy's core there may be only one other, and two threads
//! that share it are switched every few milliseconds, which would be all that a 99th percentile shows, and while they
//! sleep and wake each other a cheap proxy has nothing to do.

mod backends;
mod clients;
mod event_loop;
mod pace;

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Waker;

use crate::{Error, say};
pub(crate) use backends::Serves;
pub(super) use clients::Clients;
use event_loop::EventLoop;
use pace::Outcome;
pub(super) use pace::{Pace, quantile_us};

/// For all answers to be there after the last request was due.
const SPARE: Duration = Duration::from_secs(10);

/// The thread: backends at any time, clients when asked.
pub(crate) struct Generator {
    /// Backends, as HOST:PORT.
    pub(crate) addresses: Vec<String>,
    orders: mpsc::Sender<Order>,
    waker: Waker,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// A load to be made, and where to say what came of it.
struct Order {
    clients: Clients,
    pace: Pace,
    reply: mpsc::Sender<Result<(Clients, Outcome), String>>,
}

impl Generator {
    /// Starts the thread with `backends` backends.
    pub(crate) fn start(serves: Serves, backends: usize) -> Result<Self, Error> {
        let failed = |e: io::Error| Error::Failed(format!("cannot start the load generator: {e}"));
        let (events, waker, addresses) = EventLoop::new(serves, backends).map_err(failed)?;
        let (orders, received) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn(move || serve(events, &received, &stopped))
            .map_err(failed)?;
        Ok(Self { addresses, orders, waker, stop, thread: Some(thread) })
    }

    /// Has `clients` ask at this pace. They can go on afterwards: nothing is under way on them.
    ///
    /// # Errors
    /// When an answer is wrong, or does not come; there are no clients any more then.
    pub(super) fn load(&self, clients: &mut Clients, pace: Pace) -> Result<Outcome, String> {
        let (reply, outcome) = mpsc::channel();
        let ended = || "the load generator has ended".to_owned();
        let limit = pace.lasts() + SPARE;
        self.orders.send(Order { clients: mem::take(clients), pace, reply }).map_err(|_| ended())?;
        self.waker.wake().map_err(|e| e.to_string())?;
        // It keeps the time itself; this is for a thread that broke.
        let outcome = outcome.recv_timeout(limit + SPARE).map_err(|e| match e {
            RecvTimeoutError::Timeout => "the load generator did not end in time".to_owned(),
            RecvTimeoutError::Disconnected => ended(),
        });
        let (back, outcome) = outcome??;
        *clients = back;
        Ok(outcome)
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Backends until the end; clients as ordered.
fn serve(mut events: EventLoop, orders: &mpsc::Receiver<Order>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        if let Ok(Order { mut clients, pace, reply }) = orders.try_recv() {
            let outcome = events.load(&mut clients, pace);
            // Who asked may have given up.
            let _ = reply.send(outcome.map(|outcome| (clients, outcome)));
        } else if let Err(error) = events.wait() {
            return say(&format!("the load generator ends: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::work::{Http, SMALL_REPLIES};
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: Http = Http { connections: 1, ..SMALL_REPLIES };

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

    fn generator(serves: Serves) -> Generator {
        Generator::start(serves, 2).unwrap()
    }

    fn ports(generator: &Generator) -> Vec<u16> {
        generator.addresses.iter().map(|address| address.rsplit_once(':').unwrap().1.parse().unwrap()).collect()
    }

    #[test]
    fn who_stalls_once_is_charged_for_all_that_waited() {
        // 100 a second for 1.02 s; request 60 of one connection takes 0.3 s, so some 30 requests wait behind it.
        let port = server(answer(128), 102, 60, Duration::from_millis(300));
        let mut clients = Clients::http(port, &ONE).unwrap();
        let pace = Pace::open(100.0, SECOND).unwrap();
        let mut outcome = generator(Serves::Replies(128)).load(&mut clients, pace).unwrap();
        assert_eq!((outcome.answered, outcome.latencies.len()), (102, 100), "{outcome:?}");
        let p99_us = quantile_us(&mut outcome.latencies, 0.99);
        assert!(p99_us > 200_000.0, "{p99_us}");
    }

    #[test]
    fn its_backends_answer_its_clients_again_and_again() {
        let generator = generator(Serves::Replies(128));
        for port in ports(&generator) {
            let mut clients = Clients::http(port, &SMALL_REPLIES).unwrap();
            let closed = generator.load(&mut clients, Pace::closed(SECOND)).unwrap();
            assert!(closed.answered > 64, "{closed:?}");
            let open = generator.load(&mut clients, Pace::open(1000.0, SECOND / 10).unwrap()).unwrap();
            assert_eq!((open.latencies.len(), open.per_s), (100, 1000.0));
        }
    }

    #[test]
    fn its_echoes_answer_its_websockets_again_and_again() {
        let generator = generator(Serves::Echoes);
        for port in ports(&generator) {
            let mut clients = Clients::websocket(port, 3, 100).unwrap();
            for _ in 0..2 {
                assert!(generator.load(&mut clients, Pace::closed(SECOND)).unwrap().per_s > 0.0);
            }
        }
        let error = Clients::http(ports(&generator)[0], &ONE)
            .and_then(|mut clients| generator.load(&mut clients, Pace::closed(SECOND)))
            .unwrap_err();
        assert!(error.contains("status 400"), "{error}");
    }

    #[test]
    fn one_that_fails_does_not_spoil_the_next() {
        let generator = generator(Serves::Replies(128));
        let mut good = Clients::http(ports(&generator)[0], &SMALL_REPLIES).unwrap();
        for _ in 0..3 {
            let mut wrong = Clients::http(server(answer(127), 1, 9, Duration::ZERO), &ONE).unwrap();
            assert!(generator.load(&mut wrong, Pace::closed(SECOND)).is_err());
            assert!(generator.load(&mut good, Pace::closed(SECOND / 10)).is_ok());
        }
    }

    #[test]
    fn a_wrong_answer_or_a_lost_connection_spoils_it() {
        let generator = generator(Serves::Replies(128));
        let load = |port, per_s| {
            let mut clients = Clients::http(port, &ONE)?;
            generator.load(&mut clients, Pace::open(per_s, SECOND)?)
        };
        let wrong = server(answer(127), 1, 9, Duration::ZERO);
        assert!(load(wrong, 100.0).unwrap_err().contains("127 bytes"));
        let short = server(answer(128), 1, 9, Duration::ZERO);
        assert!(load(short, 100.0).is_err());
        assert!(load(ports(&generator)[0], 0.0).unwrap_err().contains("cannot be sent"));
        assert!(Clients::websocket(ports(&generator)[0], 1, 100).is_err(), "it answers, and does not switch protocols");
    }
}
