//! `cargo demo`: the real programs as real processes, with traffic, until Ctrl-C.
//!
//! [`plan`] says what runs, [`fleet`] runs it, [`table`] tells about it. Here is the order of events, and the promise
//! that nothing stays behind whichever way it ends.

mod fleet;
mod holder;
mod plan;
mod prefix;
mod table;
mod traffic;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::workspace::{Workspace, cargo};
use crate::{Error, say};
use fleet::{Event, Fleet};
use plan::{DEFAULT_PORT_BASE, Plan, Spec};
use table::Row;

/// How long a program may take to say that it serves. They need milliseconds; a loaded machine needs more.
const READY_WITHIN: Duration = Duration::from_secs(20);

/// Options of `demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Ctrl-C, SIGTERM and SIGHUP stop everything within two seconds. SIGKILL does so only where \
                        setpriv of util-linux is installed (every Debian, Ubuntu and Fedora).")]
pub(crate) struct Args {
    /// First port: the proxy takes N, the servers N+1 to N+3, the admin API N+9, the dashboard N+10
    #[arg(long, value_name = "N", default_value_t = DEFAULT_PORT_BASE)]
    port_base: u16,

    /// Requests per second to send through the load balancer
    #[arg(long, value_name = "N", default_value_t = traffic::DEFAULT_PER_S,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    traffic: u32,

    /// Send no requests
    #[arg(long, conflicts_with = "traffic")]
    no_traffic: bool,

    /// Print one line of JSON instead of the table when everything is ready
    #[arg(long)]
    json: bool,

    /// Use the programs in this directory instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

impl Args {
    fn requests_per_s(&self) -> u32 {
        if self.no_traffic { 0 } else { self.traffic }
    }
}

/// Runs the demo until a signal ends it.
///
/// # Errors
/// Wrong options, taken ports, a build that fails, or a program that does not start.
pub(crate) fn run(args: Args) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::Failed(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(demo(args))
}

async fn demo(args: Args) -> Result<(), Error> {
    let plan = Plan::at(args.port_base).map_err(Error::Usage)?;
    let mut stop = StopSignals::new()?;
    if let Some(complaint) = holder::complaint(&plan) {
        return Err(Error::PortTaken(complaint));
    }
    let bin_dir = match &args.bin_dir {
        Some(dir) => dir.clone(),
        None => match build(&mut stop).await? {
            Some(dir) => dir,
            None => return Ok(()),
        },
    };
    let specs: Vec<Spec> = plan.servers().into_iter().chain([plan.loadbalancer(), plan.dashboard()]).collect();
    let widest = specs.iter().map(|spec| spec.name.len()).max().unwrap_or_default();
    let mut fleet = Fleet::new(&bin_dir, widest, prefix::wants_colour());

    let outcome = tokio::select! {
        outcome = serve(&args, &plan, &specs, &bin_dir, &mut fleet) => outcome,
        () = stop.next() => Ok(()),
    };
    let asked = Instant::now();
    if outcome.is_ok() {
        say("stopping everything");
    }
    let killed = fleet.stop(stop.next()).await;
    if outcome.is_ok() {
        let how = if killed { "; what did not end in time was killed" } else { "" };
        say(&format!("all stopped in {:.1} s{how}", asked.elapsed().as_secs_f64()));
    }
    outcome
}

/// Builds the programs the way the README says, with cargo's progress on the screen. `None` if a signal came first.
async fn build(stop: &mut StopSignals) -> Result<Option<PathBuf>, Error> {
    let workspace = Workspace::find()?;
    let mut build = cargo();
    build.args(["build", "--release"]).current_dir(&workspace.root).stdout(Stdio::null());
    let mut build = tokio::process::Command::from(build);
    let mut build =
        build.kill_on_drop(true).spawn().map_err(|e| Error::Failed(format!("cannot run cargo build: {e}")))?;
    let status = tokio::select! {
        status = build.wait() => status.map_err(|e| Error::Failed(format!("cannot wait for cargo build: {e}")))?,
        // A Ctrl-C has reached cargo as well; anything else kills it on return.
        () = stop.next() => return Ok(None),
    };
    if status.success() {
        Ok(Some(workspace.release()))
    } else {
        Err(Error::Failed("the programs do not build (see above)".to_owned()))
    }
}

/// Starts everything, tells about it, and then reports what ends. Returns only on failure.
async fn serve(args: &Args, plan: &Plan, specs: &[Spec], bin_dir: &Path, fleet: &mut Fleet) -> Result<(), Error> {
    let mut rows: Vec<Row> = Vec::new();
    let servers = specs.len() - 2;
    // Servers first: the load balancer's first check of each then finds it up. The dashboard comes last.
    for group in [&specs[..servers], &specs[servers..=servers], &specs[servers + 1..]] {
        let first = rows.len();
        for spec in group {
            rows.push(Row { spec: spec.clone(), pid: fleet.start(spec)? });
        }
        all_ready(fleet, &rows, first).await?;
    }
    if args.json {
        println_once(&table::for_a_machine(&rows, plan).to_string());
    } else {
        println_once(&table::for_a_person(&rows, plan, args.requests_per_s()));
    }
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, plan.proxy));
    match args.requests_per_s() {
        0 => report(fleet, &rows, bin_dir).await,
        per_s => tokio::select! {
            () = traffic::trickle(proxy, per_s) => {}
            () = report(fleet, &rows, bin_dir) => {}
        },
    }
    Ok(())
}

/// Waits until the rows from `first` on are ready.
async fn all_ready(fleet: &mut Fleet, rows: &[Row], first: usize) -> Result<(), Error> {
    let deadline = tokio::time::Instant::now() + READY_WITHIN;
    let mut waiting: Vec<usize> = (first..rows.len()).collect();
    while !waiting.is_empty() {
        match tokio::time::timeout_at(deadline, fleet.event()).await {
            Ok(Event::Ready(index)) => waiting.retain(|other| *other != index),
            Ok(Event::Ended(index, status)) => return Err(ended_at_start(&rows[index], status, &fleet.tail(index))),
            Err(_) => {
                let names: Vec<&str> = waiting.iter().map(|index| rows[*index].spec.name).collect();
                return Err(Error::Failed(format!("not ready within {READY_WITHIN:?}: {}", names.join(", "))));
            }
        }
    }
    Ok(())
}

fn ended_at_start(row: &Row, status: ExitStatus, tail: &[String]) -> Error {
    let mut message = format!("{} ended at start: {}", row.spec.name, describe(status));
    message.push_str(if tail.is_empty() { "; it said nothing" } else { "; its last lines:" });
    for line in tail {
        message.push_str("\n  ");
        message.push_str(line);
    }
    // A program that ends well without having served has still failed us.
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0).unwrap_or(1);
    Error::Program { code, message }
}

/// Tells about each program that ends. The demo goes on: failure is what it shows.
async fn report(fleet: &mut Fleet, rows: &[Row], bin_dir: &Path) {
    loop {
        if let Event::Ended(index, status) = fleet.event().await {
            let Row { spec, pid } = &rows[index];
            say(&format!(
                "{} (pid {pid}) ended: {}. To start it again, in another terminal: {}",
                spec.name,
                describe(status),
                spec.shell_line(bin_dir)
            ));
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    }
}

/// Standard output carries only this. A reader that is gone is no reason to leave the programs unstopped.
fn println_once(text: &str) {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// The signals that end the demo: Ctrl-C, `kill`, and the terminal being closed.
struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl StopSignals {
    fn new() -> Result<Self, Error> {
        let on = |kind| signal(kind).map_err(|e| Error::Failed(format!("cannot wait for signals: {e}")));
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let spec = Plan::at(DEFAULT_PORT_BASE).unwrap().servers().remove(0);
        Row { spec, pid: 7 }
    }

    #[test]
    fn a_program_that_ends_at_start_gives_its_code_and_its_last_lines() {
        let error = ended_at_start(&row(), ExitStatus::from_raw(69 << 8), &["port 8081 is taken".to_owned()]);
        assert!(matches!(error, Error::Program { code: 69, .. }), "{error:?}");
        assert_eq!(error.to_string(), "alpha ended at start: exit code 69; its last lines:\n  port 8081 is taken");
    }

    #[test]
    fn a_program_that_ends_at_start_without_a_code_is_still_a_failure() {
        for status in [ExitStatus::from_raw(0), ExitStatus::from_raw(9)] {
            let error = ended_at_start(&row(), status, &[]);
            assert!(matches!(error, Error::Program { code: 1, .. }), "{error:?}");
            assert!(error.to_string().ends_with("it said nothing"), "{error}");
        }
    }
}
