//! What must not cost more as the work grows: each time beside itself without the growth. Of ours alone, but that with many
//! backends the peers show what of it is the machine's.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::contender::{Contender, Origin, Proxy, Setup};
use super::generator::{Generator, Serves};
use super::idle::Idle;
use super::measure::{AT_REST, Ground, enough_descriptors};
use super::proc::{CpuTime, Of, cpu_time, worker_times};
use super::relay;
use super::results::Pair;
use super::side_by_side::{self, Running};
use super::sinks::BACKENDS;
use super::site::FileServer;
use super::work::{Bound, Check, SMALL, SMALL_REPLIES};
use super::wrk::Wrk;
use crate::Error;

/// Until all connections are there.
const WARM_UP_S: u32 = 2;

/// The option that this check is about.
const ACCESS_LOG: &str = "--access-log";

/// For the last lines of a log to be in its file.
const LOGGED_WITHIN: Duration = Duration::from_secs(5);

/// Of requests, at least this share must have a line: a log that loses lines would be a cheap one.
const LOGGED_SHARE: f64 = 0.99;

/// Of the busiest worker's CPU time, each has at least this share. Load and backends are on the same cores, so that in
/// a closed loop the worker whose core is less crowded answers more; but both must have work.
const LEAST_SHARE: f64 = 0.25;

/// Tries until that is so.
const LOADED_ALIKE_WITHIN: usize = 3;

/// One pair. But for two workers, whose load is everywhere, the two run side by side and are loaded in turn.
pub(super) fn measure(ground: &Ground<'_>, check: &Check, contender: Contender, round: u32) -> Result<Pair, Error> {
    match check.bound {
        Bound::Backends { backends, .. } => few_and_many(ground, backends, |backends| {
            contender.start(&Setup { backends, ..ground.setup(Origin::Replies) })
        }),
        Bound::Idle { connections, .. } => idle(ground, connections),
        Bound::Workers { .. } => workers(ground, round),
        Bound::AccessLog { .. } => access_log(ground),
    }
}

/// The same of next to nothing, where that says whose the cost is.
pub(super) fn measure_relay(ground: &Ground<'_>, check: &Check) -> Option<Result<Pair, Error>> {
    let Bound::Backends { backends, .. } = check.bound else { return None };
    Some(few_and_many(ground, backends, |backends| relay::start(ground.dir.path(), &ground.cores.proxy, backends)))
}

/// Of processes as `start` starts them, all of their threads charged.
fn few_and_many(
    ground: &Ground<'_>,
    many: usize,
    start: impl Fn(&[String]) -> Result<Proxy, Error>,
) -> Result<Pair, Error> {
    // As many listeners, and at least as many connections.
    enough_descriptors(2 * many).map_err(Error::Failed)?;
    let generator = Generator::start(Serves::Replies(SMALL), many)?;
    let (few, many) = (start(&generator.addresses[..BACKENDS])?, start(&generator.addresses)?);
    side_by_side::pair(&generator, ground.seconds, running(&few, Of::Process), running(&many, Of::Process))
        .map(|(pair, _)| pair)
}

fn running(proxy: &Proxy, of: Of) -> Running {
    Running { port: proxy.port, pid: proxy.pid(), of }
}

fn pair(
    round: u32,
    base: impl Fn() -> Result<f64, Error>,
    changed: impl Fn() -> Result<f64, Error>,
) -> Result<Pair, Error> {
    if round.is_multiple_of(2) {
        let base = base()?;
        Ok(Pair { base, changed: changed()? })
    } else {
        let changed = changed()?;
        Ok(Pair { base: base()?, changed })
    }
}

/// CPU time of all its threads for each request, under wrk.
fn loaded(ground: &Ground<'_>, pid: u32, port: u16, wrk: &Wrk<'_>) -> Result<f64, Error> {
    let before = cpu_time(pid)?;
    let done = wrk.load(port, &SMALL_REPLIES, ground.seconds)?;
    let (user_us, kernel_us) = cpu_time(pid)?.per(before, done.requests)?;
    Ok(user_us + kernel_us)
}

/// One process without and one with idle connections. What they cost while they come is no part of it.
fn idle(ground: &Ground<'_>, connections: usize) -> Result<Pair, Error> {
    enough_descriptors(connections).map_err(Error::Failed)?;
    // However long it takes, they are idle connections and not closed ones.
    let arguments = vec!["--keep-alive-timeout".to_owned(), "1h".to_owned()];
    let start =
        || Contender::Loadbalancer.start(&Setup { arguments: arguments.clone(), ..ground.setup(Origin::Replies) });
    let (without, with) = (start()?, start()?);
    let mut idle = Idle::open(with.port, connections).map_err(Error::Failed)?;
    std::thread::sleep(AT_REST);
    let both = [&without, &with].map(|proxy| running(proxy, Of::Process));
    let (pair, _) = side_by_side::pair(&ground.replies, ground.seconds, both[0], both[1])?;
    idle.all_open().map_err(Error::Failed)?;
    Ok(pair)
}

/// One worker on one core and two on two. Load and backends are the same both times, and on the same cores: a machine
/// with two has no others, and a wake-up on another core costs more than one on the own.
fn workers(ground: &Ground<'_>, round: u32) -> Result<Pair, Error> {
    let all = ground.cores.load_beside_two.as_str();
    // Two, so that the backends are not the limit.
    let files = [FileServer::start(&ground.dir, all, BACKENDS)?, FileServer::start(&ground.dir, all, BACKENDS)?];
    let backends: Vec<String> = files.iter().flat_map(|server| server.addresses.clone()).collect();
    let wrk = Wrk { dir: &ground.dir, cores: all, threads: 2 };
    let with = |workers, cores| {
        let proxy = Contender::Loadbalancer.start(&Setup {
            backends: &backends,
            workers,
            cores,
            ..ground.setup(Origin::Files)
        })?;
        wrk.warm_up(proxy.port, &SMALL_REPLIES, WARM_UP_S)?;
        let before = worker_times(proxy.pid())?;
        let cost = loaded(ground, proxy.pid(), proxy.port, &wrk)?;
        let spent = spent_us(&before, &worker_times(proxy.pid())?);
        if spent.len() == workers && is_balanced(&spent) {
            return Ok(cost);
        }
        let spent: Vec<String> = spent.iter().map(|us| format!("{:.2} s", us / 1e6)).collect();
        Err(Error::Failed(format!("{workers} workers were not loaded alike: {} of CPU", spent.join(", "))))
    };
    // Which worker has more to do depends on which wakes first on a crowded core.
    let with = |workers, cores| {
        let mut cost = with(workers, cores);
        for _ in 1..LOADED_ALIKE_WITHIN {
            cost = cost.or_else(|_| with(workers, cores));
        }
        cost
    };
    pair(round, || with(1, &ground.cores.proxy), || with(2, "0-1"))
}

fn spent_us(before: &[CpuTime], after: &[CpuTime]) -> Vec<f64> {
    after.iter().zip(before).map(|(after, before)| after.total_us_since(*before)).collect()
}

fn is_balanced(spent: &[f64]) -> bool {
    let most = spent.iter().copied().fold(0.0, f64::max);
    spent.iter().all(|us| *us >= most * LEAST_SHARE)
}

/// CPU time of the worker alone: the line is written to the disk by somebody else.
fn access_log(ground: &Ground<'_>) -> Result<Pair, Error> {
    let program = ground.release.join("loadbalancer");
    let help = Command::new(&program).arg("--help").output();
    let help = help.map_err(|e| Error::Failed(format!("cannot run {}: {e}", program.display())))?;
    if !String::from_utf8_lossy(&help.stdout).contains(ACCESS_LOG) {
        return Err(Error::Failed(format!("this loadbalancer has no {ACCESS_LOG}")));
    }
    let file = ground.dir.path().join("access.log");
    let start = |arguments| Contender::Loadbalancer.start(&Setup { arguments, ..ground.setup(Origin::Replies) });
    let without = start(vec![])?;
    let with = start(vec![ACCESS_LOG.to_owned(), file.to_string_lossy().into_owned()])?;
    let both = [&without, &with].map(|proxy| running(proxy, Of::Workers));
    let (pair, [_, requests]) = side_by_side::pair(&ground.replies, ground.seconds, both[0], both[1])?;
    expect_lines(&file, requests, LOGGED_WITHIN)?;
    Ok(pair)
}

/// Takes the log away once it has a line for every request; an error if too many are missing.
fn expect_lines(file: &Path, requests: u64, limit: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + limit;
    loop {
        let text = fs::read(file).map_err(|e| Error::Failed(format!("cannot read the access log: {e}")))?;
        let lines = text.iter().filter(|byte| **byte == b'\n').count();
        if lines as f64 >= requests as f64 * LOGGED_SHARE {
            let _ = fs::remove_file(file);
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::Failed(format!("the access log has {lines} lines for {requests} requests")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn who_comes_first_changes_and_the_pair_does_not() {
        for (round, expected) in [(0, ["base", "changed"]), (1, ["changed", "base"])] {
            let order = RefCell::new(vec![]);
            let run = |name, cost| {
                order.borrow_mut().push(name);
                Ok(cost)
            };
            let pair = pair(round, || run("base", 1.0), || run("changed", 2.0)).unwrap();
            assert_eq!(pair, Pair { base: 1.0, changed: 2.0 });
            assert_eq!(order.into_inner(), expected);
        }
    }

    #[test]
    fn a_worker_with_nothing_to_do_is_noticed() {
        assert!(is_balanced(&[3.0]));
        assert!(is_balanced(&[3.0, 1.0]));
        assert!(!is_balanced(&[3.0, 0.5]));
    }

    #[test]
    fn a_log_with_too_few_lines_is_refused() {
        let file = std::env::temp_dir().join(format!("xtask-access-{}.log", std::process::id()));
        fs::write(&file, "line\n".repeat(99)).unwrap();
        assert!(expect_lines(&file, 100, Duration::ZERO).is_ok());
        assert!(!file.exists());
        fs::write(&file, "line\n".repeat(98)).unwrap();
        assert!(
            expect_lines(&file, 100, Duration::ZERO).unwrap_err().to_string().contains("98 lines for 100 requests")
        );
        fs::remove_file(&file).unwrap();
    }
}
