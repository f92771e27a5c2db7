//! The processes of the demo: started, read, and stopped together.
//!
//! Each process has a task that owns its [`Child`], so that a signal can never reach a pid that was already handed on
//! to somebody else. Two nets catch what a normal stop does not: a child is killed when its task is dropped (an early
//! return or a panic here), and by the kernel when this process is killed ([`pact`]).

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::plan::Spec;
use super::prefix::Prefix;
use crate::{Error, pact, say};

/// How many of its last lines are shown when a program ends at start: an error report, not its whole history.
const TAIL_LINES: usize = 10;

/// Time from SIGTERM to SIGKILL: leaves half a second of the two that the demo promises for stopping.
pub(crate) const GRACE: Duration = Duration::from_millis(1500);

/// For the rest of its output to arrive after a process ended. It is in the pipe already; only a stray child of it that
/// keeps the pipe open would take longer, and stopping must not wait for that.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Variables that would give the programs another configuration than the demo's. `RUST_LOG` and the admin token stay:
/// all programs take them alike.
const NOT_INHERITED: [&str; 6] = ["BACKENDS", "ADMIN_BIND", "ADMIN_PORT", "ADMIN_URL", "LOG_FORMAT", "NOTIFY_SOCKET"];
const NOT_INHERITED_PREFIXES: [&str; 5] = ["LB_", "PROXY_", "SERVER_", "DASHBOARD_", "WATCHDOG_"];

/// What happened to the process with this number.
#[derive(Debug)]
pub(crate) enum Event {
    /// It serves.
    Ready(usize),
    /// It is gone.
    Ended(usize, ExitStatus),
}

/// What every process is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Run,
    Terminate,
    Kill,
}

/// The processes, in the order they were started.
pub(crate) struct Fleet {
    bin_dir: PathBuf,
    /// Width of the widest name, and whether to colour it.
    prefix: (usize, bool),
    tails: Vec<Tail>,
    stage: watch::Sender<Stage>,
    events_tx: mpsc::UnboundedSender<Event>,
    events: mpsc::UnboundedReceiver<Event>,
    tasks: JoinSet<()>,
}

/// The last lines of a process.
type Tail = Arc<Mutex<VecDeque<String>>>;

impl Fleet {
    pub(crate) fn new(bin_dir: &Path, widest_name: usize, coloured: bool) -> Self {
        let (events_tx, events) = mpsc::unbounded_channel();
        Self {
            bin_dir: bin_dir.to_owned(),
            prefix: (widest_name, coloured),
            tails: Vec::new(),
            stage: watch::Sender::new(Stage::Run),
            events_tx,
            events,
            tasks: JoinSet::new(),
        }
    }

    /// Starts a process and returns its pid. Its number in [`Event`]s is how many were started before.
    ///
    /// # Errors
    /// When it cannot be started at all.
    pub(crate) fn start(&mut self, spec: &Spec) -> Result<u32, Error> {
        let binary = self.bin_dir.join(spec.program);
        let failed = |e: std::io::Error| Error::Failed(format!("cannot start {}: {e}", binary.display()));
        // Else it would be setpriv that complains.
        if !binary.is_file() {
            return Err(failed(std::io::ErrorKind::NotFound.into()));
        }
        let mut command = Command::from(pact::command(&binary));
        for (name, _) in std::env::vars_os().filter(|(name, _)| leads_astray(name)) {
            command.env_remove(name);
        }
        // A group of its own, so that the terminal's Ctrl-C reaches this process alone: as the second signal after
        // our SIGTERM it would cut the programs' graceful stop short.
        command.process_group(0).kill_on_drop(true).stdin(Stdio::null());
        command.args(&spec.args).env("LOG_FORMAT", "text").envs(spec.env.iter().map(|(name, value)| (name, value)));
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;

        let index = self.tails.len();
        let pid = child.id().unwrap_or_default();
        let log = Log {
            prefix: Prefix::new(spec.name, index, self.prefix.0, self.prefix.1),
            tail: Tail::default(),
            ready: format!("ready {}", spec.program),
        };
        self.tails.push(Arc::clone(&log.tail));
        let events = self.events_tx.clone();
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(log.clone().read(stdout, Some((index, events.clone()))));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(log.read(stderr, None));
        }
        let stage = self.stage.subscribe();
        self.tasks.spawn(async move {
            let status = watch_over(child, stage).await;
            // What it said last comes before the news of its end.
            let _ = tokio::time::timeout(LAST_WORDS, gone(&mut readers)).await;
            if let Ok(status) = status {
                let _ = events.send(Event::Ended(index, status));
            }
        });
        Ok(pid)
    }

    /// What happens next. Cancel safe.
    pub(crate) async fn event(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            // Not reachable while `events_tx` lives in this struct.
            None => std::future::pending().await,
        }
    }

    /// The last lines of a process.
    pub(crate) fn tail(&self, index: usize) -> Vec<String> {
        let tail = self.tails[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        tail.iter().cloned().collect()
    }

    /// SIGTERM to all at once; SIGKILL for what is left after [`GRACE`], or as soon as `hurry` ends. Returns when all
    /// are gone, with whether any had to be killed.
    pub(crate) async fn stop(mut self, hurry: impl Future<Output = ()>) -> bool {
        self.stage.send_replace(Stage::Terminate);
        let killed = tokio::select! {
            () = gone(&mut self.tasks) => false,
            () = tokio::time::sleep(GRACE) => true,
            () = hurry => true,
        };
        if killed {
            self.stage.send_replace(Stage::Kill);
            gone(&mut self.tasks).await;
        }
        killed
    }
}

fn leads_astray(variable: &OsStr) -> bool {
    variable.to_str().is_some_and(|name| {
        NOT_INHERITED.contains(&name) || NOT_INHERITED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    })
}

async fn gone(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// Waits for the end of `child`, and passes on what the fleet is told.
async fn watch_over(mut child: Child, mut stage: watch::Receiver<Stage>) -> std::io::Result<ExitStatus> {
    loop {
        tokio::select! {
            status = child.wait() => return status,
            changed = stage.changed() => {
                let stage = if changed.is_ok() { *stage.borrow_and_update() } else { Stage::Kill };
                match stage {
                    Stage::Run => {}
                    Stage::Terminate => terminate(&child).await,
                    Stage::Kill => {
                        child.start_kill()?;
                        return child.wait().await;
                    }
                }
            }
        }
    }
}

/// SIGTERM through the shell's own `kill`: sending a signal from Rust takes either unsafe code or one more crate.
async fn terminate(child: &Child) {
    let Some(pid) = child.id() else { return };
    let kill = Command::new("sh").args(["-c", &format!("kill -s TERM {pid}")]).stderr(Stdio::null()).status().await;
    if let Err(e) = kill {
        say(&format!("cannot send SIGTERM to {pid} ({e}): it will be killed"));
    }
}

/// One process's output: printed with its name, and its last lines kept.
#[derive(Clone)]
struct Log {
    prefix: Prefix,
    tail: Tail,
    ready: String,
}

impl Log {
    async fn read(self, stream: impl AsyncRead + Unpin, ready: Option<(usize, mpsc::UnboundedSender<Event>)>) {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some((index, events)) = &ready
                && line.starts_with(&self.ready)
            {
                let _ = events.send(Event::Ready(*index));
                continue;
            }
            say(&self.prefix.line(&line));
            let mut tail = self.tail.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
    }
}

#[cfg(test)]
#[path = "fleet_tests.rs"]
mod tests;
