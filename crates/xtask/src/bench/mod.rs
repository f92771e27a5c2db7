//! `cargo xtask bench`: CPU time per proxied request, beside NGINX and HAProxy under the same conditions.
//!
//! Each proxy has one worker pinned to core 0; load generator and backends have the other cores. All keep connections
//! on both sides, add X-Forwarded-For and write no access log (ours also adds its other fields, as it always does).
//! Only runs of one invocation compare: the same binary differs by several percent from hour to hour.

mod contender;
mod load;
mod report;
mod site;

use std::path::{Path, PathBuf};

use crate::system::{self, Need};
use crate::workspace::{Workspace, cargo};
use crate::{Error, say};
use contender::Contender;
use load::{Sample, Work};
use report::Series;
use site::Site;

const NGINX: Need = Need::System { programs: &["nginx"], packages: &["nginx-light"] };
const WRK: Need = Need::System { programs: &["wrk"], packages: &["wrk"] };
const TASKSET: Need = Need::System { programs: &["taskset"], packages: &["util-linux"] };

/// What is measured. 128 bytes is all overhead; with 16 KiB copying begins to count. 64 connections keep one worker
/// busy without making the number of connections the subject.
const WORKS: [Work; 2] = [
    Work { name: "128 B reply, 64 connections", path: "/small", bytes: 128, connections: 64 },
    Work { name: "16 KiB reply, 64 connections", path: "/large", bytes: 16 << 10, connections: 64 },
];

/// Load average of a machine that nobody else uses; a build just before leaves about this much.
const QUIET: f64 = 1.0;

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often each proxy is measured; the table shows medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long each measurement takes, after a second of warming up
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,

    /// Measure only this proxy; may be repeated
    #[arg(long, value_name = "PROXY", value_parser = Contender::ALL.map(Contender::name))]
    only: Vec<String>,

    /// Also write every single measurement to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// # Errors
/// When something is missing, does not start, or answers wrongly under load.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores < 2 {
        return Err(Error::Failed("a benchmark takes two cores: one for the proxy, one for the load".to_owned()));
    }
    let contenders: Vec<Contender> = Contender::ALL
        .into_iter()
        .filter(|contender| args.only.is_empty() || args.only.iter().any(|name| name == contender.name()))
        .collect();
    system::provide(&[NGINX, WRK, TASKSET])?;
    if contenders.contains(&Contender::Haproxy) {
        system::provide(&[system::HAPROXY])?;
    }
    let workspace = Workspace::find()?;
    if contenders.contains(&Contender::Loadbalancer) {
        build(&workspace)?;
    }
    if let Some(warning) = std::fs::read_to_string("/proc/loadavg").ok().and_then(|text| busy(&text)) {
        say(&warning);
    }
    let series = measure(args, &contenders, &workspace.release(), cores)?;
    println!("{}", report::table(&series, args.rounds, args.seconds));
    for contender in contenders {
        println!("{}: {}", contender.name(), contender.version(&workspace.release()));
    }
    if let Some(path) = &args.json {
        write_json(path, &series)?;
    }
    Ok(())
}

/// A warning when others use the cores that are to be measured.
fn busy(loadavg: &str) -> Option<String> {
    let last_minute: f64 = loadavg.split(' ').next()?.parse().ok()?;
    (last_minute > QUIET).then(|| {
        format!("warning: this machine is busy (load average {last_minute}): compare nothing until it is quiet")
    })
}

fn build(workspace: &Workspace) -> Result<(), Error> {
    match cargo().args(["build", "--release"]).current_dir(&workspace.root).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Error::Failed("the programs do not build (see above)".to_owned())),
        Err(e) => Err(Error::Failed(format!("cannot run cargo build: {e}"))),
    }
}

/// Rounds outside, proxies inside: a change of the machine's speed meets all of them.
fn measure(args: &Args, contenders: &[Contender], release: &Path, cores: usize) -> Result<Vec<Series>, Error> {
    let site = Site::new(cores)?;
    let mut series: Vec<Series> = WORKS
        .iter()
        .flat_map(|work| {
            contenders.iter().map(|contender| Series { work: *work, contender: *contender, samples: vec![] })
        })
        .collect();
    for round in 0..args.rounds {
        // Another one begins each round, so that none always follows the same neighbour.
        let shift = round as usize % contenders.len();
        for contender in contenders[shift..].iter().chain(&contenders[..shift]) {
            let proxy = contender.start(&site, release)?;
            for work in WORKS {
                let sample = load::measure(&site, &proxy, work, args.seconds)?;
                progress(round + 1, args.rounds, *contender, work, &sample);
                if let Some(series) = series.iter_mut().find(|s| s.contender == *contender && s.work == work) {
                    series.samples.push(sample);
                }
            }
        }
    }
    Ok(series)
}

fn progress(round: u32, rounds: u32, contender: Contender, work: Work, sample: &Sample) {
    say(&format!(
        "round {round}/{rounds}  {:12}  {}: {:.2} µs/request, {:.0} requests/s",
        contender.name(),
        work.name,
        sample.cpu_us(),
        sample.requests_per_s
    ));
}

fn write_json(path: &Path, series: &[Series]) -> Result<(), Error> {
    std::fs::write(path, format!("{:#}\n", report::json(series)))
        .map_err(|e| Error::Failed(format!("cannot write {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_warned_of() {
        assert_eq!(busy("0.35 2.19 1.45 1/300 4242\n"), None);
        assert!(busy("3.21 2.19 1.45 1/300 4242\n").is_some_and(|warning| warning.contains("3.21")));
    }
}
