//! `gates`: what a request costs, counted instead of timed, against committed bounds. Timing on a shared machine tells a
//! slow commit from a fast one only when the difference is large; counts tell it to the instruction, on any machine.
//!
//! Measured on the release binary as it is shipped, with one worker: instructions and heap allocations by valgrind's
//! callgrind, system calls by strace. Of runs that differ only in the number of requests the difference is taken, so
//! start and end do not count. The bounds are in [`BOUNDS`].

mod callgrind;
mod load;
mod strace;
mod subject;

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::bench::{Generator, Serves, idle};
use crate::workspace::Workspace;
use crate::{Error, say};

use callgrind::Profile;
use load::{BROWSER, PLAIN};
use subject::{Backends, Subject, Under};

/// What is measured, and the most that it may be. Measured on x86-64 with some 15 % of room, because the C library picks
/// other copying routines on other processors. A change that needs more raises the bound in the same commit, and says why.
const BOUNDS: &[Bound] = &[
    Bound { what: PICK, most: 41.0, unit: "instructions" },
    Bound { what: RECORD, most: 32.0, unit: "instructions" },
    Bound { what: HEAD_PLAIN, most: 560.0, unit: "instructions" },
    Bound { what: HEAD_BROWSER, most: 4100.0, unit: "instructions" },
    Bound { what: REQUEST, most: 22_500.0, unit: "instructions" },
    // What the project promises: cost does not grow with the work.
    Bound { what: MANY_BACKENDS, most: 5.0, unit: "%" },
    Bound { what: MANY_IDLE, most: 5.0, unit: "%" },
    Bound { what: ALLOCATIONS, most: 2.1, unit: "allocations" },
    // The promise: none, ever.
    Bound { what: PICK_ALLOCATIONS, most: 0.0, unit: "allocations" },
    // Request and response are each read once and written once; the rest is a connection's start and end.
    Bound { what: SYSTEM_CALLS, most: 4.02, unit: "calls" },
    // Under load many connections are ready at each look; one look per event would be 2.
    Bound { what: EVENT_WAITS, most: 0.3, unit: "calls" },
    // One that finds nobody is as dear as a request.
    Bound { what: ACCEPTS, most: 1.02, unit: "calls" },
    // Is there a client, accept, close; each message read and written once; and if the request is not there yet, a look in
    // vain, a watch, its end, and a wait.
    Bound { what: CONNECTION_CALLS, most: 11.1, unit: "calls" },
];

const PICK: &str = "a round-robin pick";
const RECORD: &str = "a histogram record";
const HEAD_PLAIN: &str = "writing a load generator's head";
const HEAD_BROWSER: &str = "writing a browser's head";
const REQUEST: &str = "a keep-alive request in all, user code";
const MANY_BACKENDS: &str = "more user code per request with 1,000 backends than with 3";
const MANY_IDLE: &str = "more user code per request with 8,000 idle connections than with none";
const ALLOCATIONS: &str = "heap allocations per keep-alive request";
const PICK_ALLOCATIONS: &str = "heap allocations in a pick";
const SYSTEM_CALLS: &str = "reads and writes per request, 64 connections";
const EVENT_WAITS: &str = "waits for events per request, 64 connections";
const ACCEPTS: &str = "accepts per new connection, 64 clients";
const CONNECTION_CALLS: &str = "system calls per new connection with one request, 64 clients";

/// How the functions are called in the profile.
const PICK_FUNCTION: &str = "<lb_core::policy::round_robin::RoundRobin as lb_core::policy::Policy>::pick";
const RECORD_FUNCTION: &str = "lb_core::metrics::histogram::Histogram::record";
const SWEEP_FUNCTION: &str = "loadbalancer::worker::Worker::sweep";
const HEAD_FUNCTION: &str = "loadbalancer::upstream::encode::write_head";

/// Requests of the shorter and the longer run on one connection.
const FEW: usize = 1_000;
const MANY: usize = 2_000;

/// The longer run beside 8,000 idle connections: that these come and go is twenty times the work of the shorter run, and never
/// quite the same.
const GROWN_MANY: usize = 6_000;

/// Connections under load, and what each sends in the shorter and the longer run.
const CONNECTIONS: usize = 64;
const FEW_EACH: usize = 50;
const MANY_EACH: usize = 300;

/// What must not be felt.
const FEW_BACKENDS: usize = 3;
const MOST_BACKENDS: usize = 1_000;
const MOST_IDLE: usize = 8_000;

/// Bytes of the reply of backends of which there are many.
const REPLY: usize = 128;

/// Besides two for each idle connection.
const DESCRIPTORS_BESIDE: usize = 2_000;

/// For idle connections to be at rest, on a program that an observer makes some fifty times slower.
const AT_REST: Duration = Duration::from_secs(3);

struct Bound {
    what: &'static str,
    most: f64,
    unit: &'static str,
}

/// # Errors
/// When something costs more than its bound, or cannot be measured.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Error> {
    let scratch = workspace.target.join("gates");
    std::fs::create_dir_all(&scratch).map_err(|e| Error::Failed(format!("{}: {e}", scratch.display())))?;
    let release = workspace.release();
    let servers = Backends::start(&release)?;
    let backends = servers.addresses();
    let mut measured = instructions(&release, &scratch, &backends)?;
    measured.extend(growth(&release, &scratch)?);
    measured.extend(system_calls(&release, &scratch, &backends)?);
    verdict(&measured, &scratch)
}

/// Port, clients, and requests of each.
type Load = fn(u16, usize, usize) -> Result<(), Error>;

type Measured = Vec<(&'static str, f64)>;

fn instructions(release: &Path, scratch: &Path, backends: &[String]) -> Result<Measured, Error> {
    let profile = |name: &str, request: &str, requests: usize| -> Result<Profile, Error> {
        let out = scratch.join(name);
        callgrind::forget(&out)?;
        let subject = Subject::start(release, backends, &Under::Callgrind(&out))?;
        load::on_one_connection(subject.port, request, requests)?;
        subject.end()?;
        callgrind::read_worker(&out, HEAD_FUNCTION)
    };
    let few = profile("few", PLAIN, FEW)?;
    let many = profile("many", PLAIN, MANY)?;
    let browser = profile("browser", BROWSER, FEW)?;
    let per_request = |few: u64, many: u64| many.saturating_sub(few) as f64 / (MANY - FEW) as f64;
    Ok(vec![
        (PICK, many.per_call(PICK_FUNCTION)?),
        (RECORD, many.per_call(RECORD_FUNCTION)?),
        (HEAD_PLAIN, many.per_call(HEAD_FUNCTION)?),
        (HEAD_BROWSER, browser.per_call(HEAD_FUNCTION)?),
        (REQUEST, per_request(few.total, many.total)),
        (ALLOCATIONS, per_request(few.allocations()?, many.allocations()?)),
        (PICK_ALLOCATIONS, many.allocations_below(PICK_FUNCTION) as f64),
    ])
}

/// By how many percent a request's user code grows with what there is besides it. What a worker does by the clock is left
/// out: a program that is fifty times slower does it fifty times as often per request (ten times a second, some 0.1 ms with
/// 1,000 backends).
fn growth(release: &Path, scratch: &Path) -> Result<Measured, Error> {
    idle::raise_descriptor_limit((2 * MOST_IDLE + DESCRIPTORS_BESIDE) as u64).map_err(Error::Failed)?;
    let instructions = |backends: &[String], idle: usize, requests: usize| -> Result<u64, Error> {
        let out = scratch.join(format!("growth-{}-{idle}-{requests}", backends.len()));
        callgrind::forget(&out)?;
        let subject = Subject::start(release, backends, &Under::Callgrind(&out))?;
        let mut idle = load::idle_connections(subject.port, idle)?;
        sleep(if idle.is_empty() { Duration::ZERO } else { AT_REST });
        load::on_one_connection(subject.port, PLAIN, requests)?;
        if !load::are_open(&mut idle) {
            return Err(Error::Failed("an idle connection did not stay open".to_owned()));
        }
        // It closes them, in its sweep.
        subject.end()?;
        drop(idle);
        let profile = callgrind::read_worker(&out, HEAD_FUNCTION)?;
        Ok(profile.total.saturating_sub(profile.cost(SWEEP_FUNCTION)?))
    };
    // The first request to each backend makes a connection.
    let per_request = |backends: &[String], idle: usize| -> Result<f64, Error> {
        let few = instructions(backends, idle, backends.len() + FEW)?;
        let many = instructions(backends, idle, backends.len() + GROWN_MANY)?;
        if many <= few {
            return Err(Error::Failed(format!("more requests took no more instructions: {many} instead of {few}")));
        }
        Ok((many - few) as f64 / (GROWN_MANY - FEW) as f64)
    };
    let backends = Generator::start(Serves::Replies(REPLY), MOST_BACKENDS)?;
    let (many, few) = (&backends.addresses[..], &backends.addresses[..FEW_BACKENDS]);
    let plain = per_request(few, 0)?;
    let percent = |instructions: f64| (instructions / plain - 1.0) * 100.0;
    Ok(vec![(MANY_BACKENDS, percent(per_request(many, 0)?)), (MANY_IDLE, percent(per_request(few, MOST_IDLE)?))])
}

fn system_calls(release: &Path, scratch: &Path, backends: &[String]) -> Result<Measured, Error> {
    let count = |name: &str, load: Load, each: usize| -> Result<strace::Calls, Error> {
        let out = scratch.join(name);
        let subject = Subject::start(release, backends, &Under::Strace(&out))?;
        load(subject.port, CONNECTIONS, each)?;
        subject.end()?;
        strace::read(&out)
    };
    let pair = |load: Load, few: &str, many: &str| -> Result<[strace::Calls; 2], Error> {
        Ok([count(few, load, FEW_EACH)?, count(many, load, MANY_EACH)?])
    };
    let requests = ((MANY_EACH - FEW_EACH) * CONNECTIONS) as f64;
    let per_request = |calls: &[strace::Calls; 2], of: fn(&strace::Calls) -> u64| {
        of(&calls[1]).saturating_sub(of(&calls[0])) as f64 / requests
    };
    let kept = pair(load::on_many_connections, "calls-few", "calls-many")?;
    let new = pair(load::on_new_connections, "calls-few-new", "calls-many-new")?;
    Ok(vec![
        (SYSTEM_CALLS, per_request(&kept, strace::Calls::transfers)),
        (EVENT_WAITS, per_request(&kept, strace::Calls::waits)),
        (ACCEPTS, per_request(&new, strace::Calls::accepts)),
        (CONNECTION_CALLS, per_request(&new, strace::Calls::all)),
    ])
}

fn verdict(measured: &Measured, scratch: &Path) -> Result<(), Error> {
    let mut exceeded = Vec::new();
    for bound in BOUNDS {
        let Some((_, found)) = measured.iter().find(|(what, _)| *what == bound.what) else {
            exceeded.push(format!("{}: not measured", bound.what));
            continue;
        };
        let line = format!("{}: {found:.2} {}, at most {}", bound.what, bound.unit, bound.most);
        say(&format!("  {line}"));
        if *found > bound.most {
            exceeded.push(line);
        }
    }
    if exceeded.is_empty() {
        return Ok(());
    }
    Err(Error::Failed(format!(
        "costs more than its bound:\n    {}\n  `callgrind_annotate --inclusive=yes {}/many-0*` shows where instructions go, \
         and {}/calls-many and calls-many-new which system calls there are. If it is worth it, raise the bound in {} in the same commit, \
         with the figures before and after",
        exceeded.join("\n    "),
        scratch.display(),
        scratch.display(),
        file!()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_that_is_exceeded_or_not_measured_fails_with_figures_and_advice() {
        let within: Measured = BOUNDS.iter().map(|bound| (bound.what, bound.most)).collect();
        assert!(verdict(&within, Path::new("out")).is_ok());
        for (at, bound) in BOUNDS.iter().enumerate() {
            let mut more = within.clone();
            more[at].1 += 0.01;
            let text = verdict(&more, Path::new("out")).unwrap_err().to_string();
            let expected = format!("{}: {:.2} {}, at most {}", bound.what, bound.most + 0.01, bound.unit, bound.most);
            assert!(text.contains(&expected) && text.contains("raise the bound"), "{text}");
            more.remove(at);
            assert!(verdict(&more, Path::new("out")).unwrap_err().to_string().contains("not measured"));
        }
    }
}
