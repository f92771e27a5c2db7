//! Many clients at a given pace, on a thread of their own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::super::ident::{Id, Numbers, Side, fill, hash};
use super::super::ledger::{Asked, End, Why};
use super::ask::Connection;
use crate::Error;

/// After a connection was refused, so that clients do not spin.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);

/// Shortest answer that is asked for: it can be cut in two anywhere.
const LEAST_ANSWER: u64 = 16;

/// What the clients do.
#[derive(Clone, Debug)]
pub(in super::super) struct Plan {
    pub(in super::super) port: u16,
    pub(in super::super) clients: usize,
    /// Of all clients together; as fast as it goes without.
    pub(in super::super) per_s: Option<f64>,
    /// Most bytes of a POST's body, and of an answer's.
    pub(in super::super) body: u64,
    pub(in super::super) answer: u64,
    /// What marks this run's ids, and what they begin with.
    pub(in super::super) run: u64,
    pub(in super::super) first: u64,
    /// Longer than this is for ever.
    pub(in super::super) patience: Duration,
    /// What times are counted from.
    pub(in super::super) epoch: std::time::Instant,
}

/// What can be seen while it goes on.
#[derive(Default)]
struct Live {
    asked: AtomicU64,
    well: AtomicU64,
    paused: AtomicBool,
    stop: AtomicBool,
}

/// The clients at work.
pub(in super::super) struct Load {
    live: Arc<Live>,
    thread: Option<JoinHandle<Vec<Asked>>>,
}

impl Load {
    pub(in super::super) fn start(plan: Plan) -> Result<Self, Error> {
        let failed = |e| Error::Failed(format!("cannot start the clients: {e}"));
        let live = Arc::new(Live::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let own = Arc::clone(&live);
        let run = move || {
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, run(Rc::new(plan), own))
        };
        let thread = std::thread::Builder::new().name("clients".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { live, thread: Some(thread) })
    }

    /// Requests that went well so far.
    pub(in super::super) fn well(&self) -> u64 {
        self.live.well.load(Ordering::Relaxed)
    }

    /// Requests that have been begun so far.
    pub(in super::super) fn asked(&self) -> u64 {
        self.live.asked.load(Ordering::Relaxed)
    }

    /// Begins no more requests until told otherwise.
    pub(in super::super) fn pause(&self, paused: bool) {
        self.live.paused.store(paused, Ordering::Relaxed);
    }

    /// Begins no more requests, and waits for those that are under way.
    pub(in super::super) fn stop(mut self) -> Vec<Asked> {
        self.live.stop.store(true, Ordering::Relaxed);
        // A panic of a client is a bug of this rig; a ledger without its records would find all of them missing.
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.live.stop.store(true, Ordering::Relaxed);
    }
}

struct Shared {
    plan: Rc<Plan>,
    live: Arc<Live>,
    next: Cell<u64>,
    asked: RefCell<Vec<Asked>>,
}

async fn run(plan: Rc<Plan>, live: Arc<Live>) -> Vec<Asked> {
    let next = Cell::new(plan.first);
    let shared = Rc::new(Shared { plan, live, next, asked: RefCell::default() });
    let clients: Vec<_> =
        (0..shared.plan.clients).map(|client| tokio::task::spawn_local(one(Rc::clone(&shared), client))).collect();
    for client in clients {
        let _ = client.await;
    }
    shared.asked.take()
}

async fn one(shared: Rc<Shared>, client: usize) {
    let (plan, live) = (&shared.plan, &shared.live);
    let pace = plan.per_s.map(|per_s| Duration::from_secs_f64(plan.clients as f64 / per_s.max(1.0)));
    let mut turn = Instant::now() + pace.unwrap_or_default().mul_f64(client as f64 / plan.clients as f64);
    let mut numbers = Numbers::new(plan.run ^ ((client as u64) << 32) ^ plan.first);
    let mut connection = None;
    while !live.stop.load(Ordering::Relaxed) {
        if let Some(pace) = pace {
            sleep_until(turn).await;
            // Who is late does not catch up: that would be another load.
            turn = (turn + pace).max(Instant::now());
        }
        if live.paused.load(Ordering::Relaxed) {
            sleep(CONNECT_AGAIN).await;
            continue;
        }
        let asked = request(&shared, &mut connection, &mut numbers).await;
        live.well.fetch_add(u64::from(asked.is_well()), Ordering::Relaxed);
        shared.asked.borrow_mut().push(asked);
        if matches!(asked.end, End::Failed(Why::Connect, _)) {
            sleep(CONNECT_AGAIN).await;
        }
    }
}

async fn request(shared: &Shared, connection: &mut Option<Connection>, numbers: &mut Numbers) -> Asked {
    let plan = &shared.plan;
    let id = Id { run: plan.run, number: shared.next.replace(shared.next.get() + 1) };
    shared.live.asked.fetch_add(1, Ordering::Relaxed);
    let post = numbers.below(2) == 0;
    let length = if post { numbers.below(plan.body + 1) as usize } else { 0 };
    let expected = (LEAST_ANSWER + numbers.below(plan.answer.saturating_sub(LEAST_ANSWER) + 1)) as usize;
    let (bytes, hash) = encode(id, post, length, expected);
    let started = std::time::Instant::now();
    let exchange = async {
        if connection.as_ref().is_none_or(Connection::is_over) {
            *connection = Connection::open(plan.port).await.ok();
        }
        let Some(open) = connection.as_mut() else { return End::Failed(Why::Connect, None) };
        let (end, keep) = open.ask(id, &bytes, expected).await;
        if !keep {
            *connection = None;
        }
        end
    };
    let end = timeout(plan.patience, exchange).await;
    let end = end.unwrap_or_else(|_| {
        *connection = None;
        End::Failed(Why::Hung, None)
    });
    let us = |time: Duration| time.as_micros() as u64;
    Asked {
        number: id.number,
        post,
        hash,
        at_us: us(started.saturating_duration_since(plan.epoch)),
        took_us: us(started.elapsed()),
        end,
    }
}

/// A request's bytes, and the hash of its body.
pub(super) fn encode(id: Id, post: bool, length: usize, answer: usize) -> (Vec<u8>, u64) {
    let method = if post { "POST" } else { "GET" };
    let mut bytes = format!("{method} /{id}/{answer} HTTP/1.1\r\nHost: faults\r\n").into_bytes();
    if post {
        bytes.extend_from_slice(format!("Content-Length: {length}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    let head = bytes.len();
    fill(&mut bytes, id, Side::Request, length);
    let hash = hash(&bytes[head..]);
    (bytes, hash)
}
