//! The control plane: one task owns all that is believed about backends, and is the only writer of the snapshot.
//!
//! It promises that a change of belief (a check, a failed connect of live traffic, an operator's wish) is in the
//! snapshot before anybody is told of it, and that readers get a picture that once was true as a whole. Checks run in
//! tasks of their own ([`checker`]) and report here; the admin API asks here by [`Command`]. What is believed lives in
//! [`board`], who is in rotation in [`rotation`], what is measured is turned into rates in [`figures`], and [`status`] puts both into wire types.

mod admit_metrics;
mod board;
mod checker;
mod checks;
mod drain;
mod episodes;
mod failures;
mod figures;
mod metrics;
mod place;
mod pressure;
mod rotation;
mod status;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lb_core::api::{AdminState, Backend, Checks, DrainReport, EventKind, Status};
use lb_core::backend::BackendId;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::worker::{LiveFailure, Shared};
use board::Board;
use checker::Report;
use figures::Figures;
use pressure::{LOOK_INTERVAL, Pressure};
pub(crate) use status::readiness;

/// One delta for all streams, serialised once: tick, and JSON.
pub(crate) type Tick = (u64, Arc<str>);

/// Deltas that a slow stream may lag behind before it is given a fresh snapshot instead.
const DELTAS_KEPT: usize = 8;

/// Commands that may wait. The admin API bounds its own concurrency well below.
const COMMANDS: usize = 64;

/// What the control task can be asked.
pub(crate) enum Command {
    /// Only whether it answers.
    Ping(oneshot::Sender<()>),
    Status(oneshot::Sender<Status>),
    Metrics(oneshot::Sender<String>),
    /// A status, and the deltas that follow it without a gap.
    Subscribe(oneshot::Sender<(Status, broadcast::Receiver<Tick>)>),
    SetAdmin {
        pool: String,
        backend: String,
        state: AdminState,
        reply: oneshot::Sender<Result<Backend, NotFound>>,
    },
    /// What its checks have found.
    Checks {
        pool: String,
        backend: String,
        reply: oneshot::Sender<Result<Checks, NotFound>>,
    },
    /// How far its drain is.
    DrainOf {
        pool: String,
        backend: String,
        reply: oneshot::Sender<Result<DrainReport, NotFound>>,
    },
    /// Shutdown has begun.
    Drain,
}

/// There is no such backend; says what there is.
#[derive(Debug)]
pub(crate) struct NotFound(pub String);

/// How others reach the control task.
#[derive(Clone)]
pub(crate) struct Control {
    commands: mpsc::Sender<Command>,
    /// Whether every backend has had its first result.
    pub started: watch::Receiver<bool>,
    /// Changes with whatever somebody who waits for a drain wants to know of.
    pub drains: watch::Receiver<u64>,
}

/// The control task is gone; only while the process ends.
#[derive(Debug)]
pub(crate) struct Gone;

impl Control {
    /// Asks, and waits for the answer.
    pub(crate) async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Says that shutdown has begun.
    pub(crate) fn drain(&self) {
        // A control task that does not listen must not hold the end up.
        let _ = self.commands.try_send(Command::Drain);
    }
}

/// Starts the control task and the checkers. `proxy_address` is shown in the status. The task ends only by a panic.
pub(crate) fn start(
    shared: Arc<Shared>,
    live_failures: mpsc::Receiver<LiveFailure>,
    suspects: mpsc::Receiver<BackendId>,
    proxy_address: String,
) -> (Control, JoinHandle<()>) {
    let (commands, received) = mpsc::channel(COMMANDS);
    let (started_tx, started) = watch::channel(false);
    let (drains_tx, drains) = watch::channel(0);
    let task = tokio::spawn(run(shared, live_failures, suspects, received, started_tx, drains_tx, proxy_address));
    (Control { commands, started, drains }, task)
}

/// Now, in milliseconds since 1970. Only for showing; nothing is computed from differences of it.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

async fn run(
    shared: Arc<Shared>,
    mut live_failures: mpsc::Receiver<LiveFailure>,
    mut suspects: mpsc::Receiver<BackendId>,
    mut commands: mpsc::Receiver<Command>,
    started: watch::Sender<bool>,
    drains: watch::Sender<u64>,
    proxy_address: String,
) {
    let (reports_tx, mut reports) = mpsc::channel::<Report>(64);
    let mut board = Board::new(&shared.config, &reports_tx, unix_ms());
    let mut figures = Figures::new(&shared, proxy_address, unix_ms());
    let (deltas, _) = broadcast::channel(DELTAS_KEPT);
    board.event(unix_ms(), EventKind::Lifecycle, None, "started".to_owned());
    publish(&shared, &mut board);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut looks = tokio::time::interval(drain::LOOK_INTERVAL);
    let mut pressure = Pressure::new(&shared);
    let mut pressures = tokio::time::interval(LOOK_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    pressures.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = looks.tick(), if board.is_any_leaving() => board.look_at_drains(&shared, unix_ms()),
            Some(report) = reports.recv() => {
                board.take_report(&shared.config.health, report, unix_ms());
                // A snapshot for all that are there, and not for each: at the start there is one of every backend.
                for _ in 0..reports.len() {
                    let Ok(report) = reports.try_recv() else { break };
                    board.take_report(&shared.config.health, report, unix_ms());
                }
            }
            Some(failure) = live_failures.recv() => board.take_live_failure(&shared.config.health, failure, unix_ms()),
            Some(backend) = suspects.recv() => {
                // What connects have found out comes first: a server that is gone is down, not ejected.
                for _ in 0..live_failures.len() {
                    let Ok(failure) = live_failures.try_recv() else { break };
                    board.take_live_failure(&shared.config.health, failure, unix_ms());
                }
                board.take_suspect(backend, unix_ms());
            }
            () = tokio::time::sleep_until(board.next_turn()) => board.take_turn(unix_ms()),
            command = commands.recv() => match command {
                Some(command) => answer(command, &shared, &mut board, &figures, &deltas),
                None => return,
            },
            _ = pressures.tick() => {
                pressure.look(&shared, &mut board);
                board.fade_failures(&figures);
            }
            _ = ticks.tick() => {
                figures.tick(&shared, &board, unix_ms());
                Pressure::tell_gates(&shared, &board, &figures);
                if deltas.receiver_count() > 0 {
                    let delta = figures.delta(&shared, &board, unix_ms());
                    if let Ok(json) = serde_json::to_string(&delta) {
                        // Fails only when the last stream has just gone.
                        let _ = deltas.send((delta.tick, json.into()));
                    }
                }
            }
        }
        publish(&shared, &mut board);
        if !*started.borrow() && board.all_known() {
            started.send_replace(true);
        }
        drains.send_if_modified(|news| std::mem::replace(news, board.drain_news) != board.drain_news);
    }
}

fn answer(command: Command, shared: &Shared, board: &mut Board, figures: &Figures, deltas: &broadcast::Sender<Tick>) {
    // An asker that has gone away needs no answer.
    match command {
        Command::Ping(reply) => drop(reply.send(())),
        Command::Status(reply) => drop(reply.send(figures.status(shared, board, unix_ms()))),
        Command::Metrics(reply) => drop(reply.send(metrics::page(shared, board))),
        Command::Subscribe(reply) => {
            drop(reply.send((figures.status(shared, board, unix_ms()), deltas.subscribe())));
        }
        Command::SetAdmin { pool, backend, state, reply } => {
            let changed = board.set_admin(&pool, &backend, state, unix_ms());
            publish(shared, board);
            drop(reply.send(changed.map(|place| figures.backend(shared, board, place))));
        }
        Command::Checks { pool, backend, reply } => {
            drop(
                reply.send(
                    board.place(&pool, &backend).map(|place| board.checks(&shared.config.health, place, unix_ms())),
                ),
            );
        }
        Command::DrainOf { pool, backend, reply } => {
            // Looked at now, so that the answer is about now and not about the last look.
            board.look_at_drains(shared, unix_ms());
            drop(reply.send(board.place(&pool, &backend).map(|place| board.drain_report(shared, place))));
        }
        Command::Drain => {
            board.draining = true;
            board.event(
                unix_ms(),
                EventKind::Lifecycle,
                None,
                "shutting down: finishing requests in flight".to_owned(),
            );
        }
    }
}

/// Swaps in a new snapshot if anything that a request depends on has changed.
fn publish(shared: &Shared, board: &mut Board) {
    board.settle(unix_ms());
    if let Some(snapshot) = board.take_snapshot() {
        board.tell_of_panic(&snapshot, unix_ms());
        let generation = snapshot.generation;
        let gates: Vec<_> = snapshot.pools.iter().filter_map(|pool| pool.gate.clone()).collect();
        shared.snapshot.store(Arc::new(snapshot));
        // After the swap: whoever sees the number finds the snapshot.
        shared.generation.store(generation, Ordering::Release);
        // Those that wait look again: there may be room now, or nobody left to wait for.
        gates.iter().for_each(|gate| gate.queue.changed());
    }
}
