//! The worker threads: one single-threaded runtime each, from start to drained.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use crate::conn;
use crate::deadline::SWEEP_INTERVAL;
use crate::listen::{self, Handed, Listener};
use crate::turns;
use crate::worker::{Shared, Worker};

/// How far the process is on its way from serving to gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Serving,
    /// No new connections; requests in flight finish; idle connections close.
    Draining,
    /// What is left is cut.
    Cutting,
}

/// Between sweeps of a worker without client connections: ten times fewer wake-ups at rest, on each core.
const QUIET_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Connections that may wait to be taken over by a worker.
const HANDED_QUEUE: usize = 1024;

/// The running workers.
pub(crate) struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// Closed when the last worker has ended.
    ended: mpsc::Receiver<()>,
}

/// Starts all workers on copies of `listener`.
///
/// # Errors
/// No thread or descriptor can be had.
pub(crate) fn start(
    shared: &Arc<Shared>,
    listener: std::net::TcpListener,
    phase: &watch::Receiver<Phase>,
) -> io::Result<Workers> {
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..shared.config.workers).map(|_| mpsc::channel(HANDED_QUEUE)).unzip();
    let senders: Arc<[mpsc::Sender<Handed>]> = senders.into();
    let (alive, ended) = mpsc::channel(1);
    let mut threads = Vec::new();
    for (id, handed) in receivers.into_iter().enumerate() {
        let (shared, listener, senders) = (Arc::clone(shared), listener.try_clone()?, Arc::clone(&senders));
        let (phase, alive) = (phase.clone(), alive.clone());
        let run = move || {
            let _alive = alive;
            run(id, shared, listener, handed, &senders, phase);
        };
        threads.push(std::thread::Builder::new().name(format!("worker-{id}")).spawn(run)?);
    }
    Ok(Workers { threads, ended })
}

impl Workers {
    /// Waits until some worker has ended, which none should while the process serves.
    pub(crate) async fn one_ended(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        while !self.threads.iter().any(JoinHandle::is_finished) {
            ticks.tick().await;
        }
    }

    /// Waits until all workers have ended.
    pub(crate) async fn ended(&mut self) {
        while self.ended.recv().await.is_some() {}
    }

    /// Joins the threads; call it after [`Self::ended`].
    pub(crate) fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
    }
}

fn run(
    id: usize,
    shared: Arc<Shared>,
    listener: std::net::TcpListener,
    handed: mpsc::Receiver<Handed>,
    peers: &[mpsc::Sender<Handed>],
    phase: watch::Receiver<Phase>,
) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, id, "worker cannot start"),
    };
    runtime.block_on(serve(Worker::new(id, shared), listener, handed, peers, phase));
    // Dropping the runtime drops the tasks that are left, which closes their connections.
}

async fn serve(
    worker: Rc<Worker>,
    listener: std::net::TcpListener,
    handed: mpsc::Receiver<Handed>,
    peers: &[mpsc::Sender<Handed>],
    mut phase: watch::Receiver<Phase>,
) {
    let listener = match Listener::new(listener, peers.len()) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, id = worker.id, "worker cannot listen"),
    };
    tokio::task::spawn_local(conn::watch_many(Rc::clone(&worker)));
    tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    tokio::task::spawn_local(let_begin(Rc::clone(&worker)));
    tokio::task::spawn_local(make_room(Rc::clone(&worker)));
    tokio::task::spawn_local(take_over(Rc::clone(&worker), handed));
    let mut stopping = phase.clone();
    let stop = async move { until(&mut stopping, Phase::Draining).await };
    listen::accept(&worker, listener, peers, stop).await;
    worker.draining.set(true);
    tokio::select! {
        () = idle(&worker) => {}
        () = until(&mut phase, Phase::Cutting) => {}
    }
    // They know their worker, and the worker them.
    worker.rest.clear();
}

async fn until(phase: &mut watch::Receiver<Phase>, at_least: Phase) {
    let reached = |phase: &Phase| *phase == at_least || *phase == Phase::Cutting;
    // The sender lives until the workers have ended; if it is gone, so is the process.
    let _ = phase.wait_for(reached).await;
}

async fn let_begin(worker: Rc<Worker>) {
    turns::usher(&worker.turns, &worker.clock).await;
}

/// Serves connections that other workers accepted.
async fn take_over(worker: Rc<Worker>, mut handed: mpsc::Receiver<Handed>) {
    while let Some((stream, peer, place)) = handed.recv().await {
        listen::spawn(&worker, stream, peer, place);
    }
}

/// Closes idle connections to backends for requests of other workers, which wait for that.
async fn make_room(worker: Rc<Worker>) {
    loop {
        worker.slot().room.notified().await;
        worker.make_room(worker.shared.backend_conns.wanted());
    }
}

async fn sweep(worker: Rc<Worker>) {
    loop {
        worker.sweep();
        if worker.slot().connections.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(SWEEP_INTERVAL).await;
        } else {
            // Nobody has a deadline: only idle connections to backends and the sign of life are left to see to.
            let _ = tokio::time::timeout(QUIET_SWEEP_INTERVAL, worker.slot().busy.notified()).await;
        }
    }
}

/// Until no connection is left, here or on the way here. Looked at as often as deadlines are: it is not urgent.
async fn idle(worker: &Worker) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    // Another worker may have handed a connection over just before it stopped: two quiet looks in a row, and the
    // queue's own task has run in between.
    let mut quiet = 0;
    while quiet < 2 {
        ticks.tick().await;
        let open = worker.slot().connections.load(Ordering::Relaxed);
        quiet = if open == 0 { quiet + 1 } else { 0 };
    }
}
