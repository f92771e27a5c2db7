//! `cargo xtask bench`: what a request costs, beside NGINX, HAProxy and Caddy under the same conditions.
//!
//! Each proxy has one worker pinned to core 0; load generators and backends have the other cores. What is measured is
//! in `work.rs`, the peers' settings are in `config.rs`. Rounds outside, works next, contenders inside, in an order
//! that rotates: a change of the machine's speed meets all of them. Every measurement starts its proxy afresh, and one
//! whose answers were not all right has no figure but a reason. Where the load is our own, all proxies run side by side
//! (`side_by_side.rs`). Only figures of one run compare: the same binary differs by several percent from hour to hour.

mod config;
pub(crate) mod contender;
mod generator;
mod growth;
pub(crate) mod http;
pub(crate) mod idle;
pub(crate) mod machine;
pub(crate) mod markdown;
mod measure;
pub(crate) mod proc;
pub(crate) mod process;
pub(crate) mod relay;
mod report;
pub(crate) mod results;
mod side_by_side;
pub(crate) mod sinks;
pub(crate) mod site;
mod websocket;
mod work;
mod write;
mod wrk;

use std::path::{Path, PathBuf};

use crate::system::{self, Need};
use crate::workspace::{Workspace, cargo};
use crate::{Error, release, say};
use contender::Contender;
pub(crate) use generator::{Generator, Serves};
use measure::Ground;
use results::{CheckResult, Pair, Results, Sample, Series, WorkResult};
use site::Cores;
use work::{CHECKS, Check, WORKS, Work};

const NGINX: Need = Need::System { programs: &["nginx"], packages: &["nginx-light"] };
const CADDY: Need = Need::System { programs: &["caddy"], packages: &["caddy"] };
const WRK: Need = Need::System { programs: &["wrk"], packages: &["wrk"] };
const TASKSET: Need = Need::System { programs: &["taskset"], packages: &["util-linux"] };

/// Options of `bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often everything is measured; the tables show medians
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long each measurement takes, after warming up (p99: six times as long); CPU time is counted in steps of 10 ms
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,

    /// One round of one second, to see that it works; the figures mean little
    #[arg(long, conflicts_with_all = ["rounds", "seconds"])]
    quick: bool,

    /// Measure what `cargo build --release` gives instead of what `cargo xtask release` gives
    #[arg(long, conflicts_with = "write")]
    plain: bool,

    /// Measure only this; may be repeated
    #[arg(long, value_name = "NAME", value_parser = work::short_names(), num_args = 1..)]
    work: Vec<String>,

    /// Measure only this proxy; may be repeated
    #[arg(long, value_name = "PROXY", value_parser = Contender::ALL.map(Contender::name))]
    only: Vec<String>,

    /// Also write every single measurement to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write the results into the README, the document on benchmarks, and the JSON beside it
    #[arg(long, conflicts_with_all = ["work", "only", "quick"])]
    write: bool,

    /// Measure nothing: show (or write) the results in this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["work", "only", "quick", "json", "rounds", "seconds"])]
    from: Option<PathBuf>,
}

/// What was chosen.
struct Plan {
    contenders: Vec<Contender>,
    works: Vec<Work>,
    checks: Vec<Check>,
    rounds: u32,
    seconds: u32,
    /// The binary is not a trained one.
    plain: bool,
}

impl Plan {
    fn new(args: &Args) -> Self {
        let is_chosen = |chosen: &[String], name: &str| chosen.is_empty() || chosen.iter().any(|one| one == name);
        let contenders: Vec<Contender> =
            Contender::ALL.into_iter().filter(|contender| is_chosen(&args.only, contender.name())).collect();
        let has_ours = contenders.contains(&Contender::Loadbalancer);
        Self {
            contenders,
            works: WORKS.into_iter().filter(|work| is_chosen(&args.work, work.short)).collect(),
            checks: CHECKS.into_iter().filter(|check| has_ours && is_chosen(&args.work, check.short)).collect(),
            rounds: if args.quick { 1 } else { args.rounds },
            seconds: if args.quick { 1 } else { args.seconds },
            plain: args.plain,
        }
    }

    /// What `release` trains with: everything that has a cost per request or message, long enough for a figure
    /// on a busy machine.
    fn training() -> Self {
        let costs = |work: &Work| matches!(work.kind, work::Kind::Http(_) | work::Kind::WebSocket { .. });
        Self {
            contenders: vec![Contender::Loadbalancer],
            works: WORKS.into_iter().filter(costs).collect(),
            checks: vec![],
            rounds: 1,
            seconds: 3,
            plain: false,
        }
    }

    fn needs(&self) -> Vec<Need> {
        let peers = [(Contender::Haproxy, system::HAPROXY), (Contender::Caddy, CADDY)];
        let peers = peers.into_iter().filter(|(contender, _)| self.contenders.contains(contender));
        // NGINX is the backend, too.
        [NGINX, WRK, TASKSET].into_iter().chain(peers.map(|(_, need)| need)).collect()
    }
}

/// # Errors
/// When something is missing, or something could not be measured: what there is, is shown before.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let workspace = Workspace::find()?;
    let results = match &args.from {
        Some(file) => write::read(file)?,
        None => measure_all(&Plan::new(args), &workspace)?,
    };
    println!("{}", report::text(&results));
    if let Some(file) = &args.json {
        write::json(file, &results)?;
    }
    if args.write {
        write::documents(&workspace.root, &results)?;
    }
    match failures(&results) {
        failures if failures.is_empty() => Ok(()),
        failures => Err(Error::Failed(format!("not everything could be measured:\n  {}", failures.join("\n  ")))),
    }
}

fn measure_all(plan: &Plan, workspace: &Workspace) -> Result<Results, Error> {
    let (cores, share) = prepare(plan)?;
    let mut release = workspace.release();
    if plan.contenders.contains(&Contender::Loadbalancer) {
        if plan.plain {
            build(workspace)?;
        } else {
            release::build(workspace)?;
            release = release::directory(workspace);
        }
    }
    let machine = machine::machine(cores);
    if let Some(warning) = machine::warning(&machine) {
        say(&format!("warning: {warning}"));
    }
    let ground = ground(&release, share, plan)?;
    let works = measure_works(plan, &ground);
    let checks = measure_checks(plan, &ground);
    let version = |contender: &Contender| (contender.name().to_owned(), contender.version(&release));
    let versions = plan.contenders.iter().map(version).collect();
    Ok(Results { date: machine::today(), machine, rounds: plan.rounds, seconds: plan.seconds, versions, works, checks })
}

/// Has our binary in `release` do what is measured.
///
/// # Errors
/// When something is missing, or an answer was not right.
pub(crate) fn train(release: &Path) -> Result<(), Error> {
    let plan = Plan::training();
    let (_, share) = prepare(&plan)?;
    let ground = ground(release, share, &plan)?;
    plan.works.iter().try_for_each(|work| {
        let mut outcome = Ok(());
        ground.measure(work, &plan.contenders, |_, sample| outcome = sample.map(drop));
        outcome
    })
}

/// How many cores there are, and which do what, once everything is installed.
fn prepare(plan: &Plan) -> Result<(usize, Cores), Error> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let Some(share) = Cores::share(cores) else {
        return Err(Error::Failed("a benchmark takes two cores: one for the proxy, one for the load".to_owned()));
    };
    system::provide(&plan.needs())?;
    Ok((cores, share))
}

/// From here on this process is load and backend.
fn ground<'a>(release: &'a Path, share: Cores, plan: &Plan) -> Result<Ground<'a>, Error> {
    process::move_to(&share.load)?;
    // Children inherit it. Who needs more than there is says so.
    let _ = idle::raise_descriptor_limit(0);
    Ground::new(release, share, plan.seconds)
}

fn build(workspace: &Workspace) -> Result<(), Error> {
    match cargo().args(["build", "--release", "--bin", "loadbalancer"]).current_dir(&workspace.root).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Error::Failed("the load balancer does not build (see above)".to_owned())),
        Err(e) => Err(Error::Failed(format!("cannot run cargo build: {e}"))),
    }
}

fn measure_works(plan: &Plan, ground: &Ground<'_>) -> Vec<WorkResult> {
    let mut results: Vec<WorkResult> = plan.works.iter().map(|work| empty(work, &plan.contenders)).collect();
    for round in 0..plan.rounds {
        for (number, (work, result)) in plan.works.iter().zip(&mut results).enumerate() {
            // Another one begins each time, so that none always follows the same neighbour.
            let count = plan.contenders.len();
            let order = (0..count).map(|turn| (round as usize + number + turn) % count);
            // One failure is enough to leave it without a figure.
            let order: Vec<usize> = order.filter(|at| result.series[*at].failed.is_none()).collect();
            let contenders: Vec<Contender> = order.iter().map(|at| plan.contenders[*at]).collect();
            let mut done = order.into_iter();
            ground.measure(work, &contenders, |contender, sample| {
                let figure = sample.as_ref().map(|sample| format!("{} {}", report::number(sample.figure), work.unit()));
                progress(plan, round, &format!("{:12}  {}", contender.name(), work.name), figure);
                if let Some(at) = done.next() {
                    note(&mut result.series[at], sample);
                }
            });
        }
    }
    results
}

fn note(series: &mut Series, sample: Result<Sample, Error>) {
    match sample {
        Ok(sample) => series.samples.push(sample),
        Err(e) => series.failed = Some(e.to_string()),
    }
}

fn empty(work: &Work, contenders: &[Contender]) -> WorkResult {
    let series = |contender: &Contender| Series { proxy: contender.name().to_owned(), samples: vec![], failed: None };
    WorkResult {
        work: work.short.to_owned(),
        name: work.name.to_owned(),
        unit: work.unit().to_owned(),
        target: work.target,
        series: contenders.iter().map(series).collect(),
    }
}

fn measure_checks(plan: &Plan, ground: &Ground<'_>) -> Vec<CheckResult> {
    let empty = |check: &Check| CheckResult {
        check: check.short.to_owned(),
        name: check.name.to_owned(),
        pairs: vec![],
        peers: vec![],
        failed: None,
    };
    let mut results: Vec<CheckResult> = plan.checks.iter().map(empty).collect();
    for round in 0..plan.rounds {
        for (check, result) in plan.checks.iter().zip(&mut results).filter(|(_, result)| result.failed.is_none()) {
            for contender in plan.contenders.iter().filter(|contender| check.is_for(**contender)) {
                let pair = growth::measure(ground, check, *contender, round);
                progress(
                    plan,
                    round,
                    &format!("{:12}  {}", contender.name(), check.name),
                    pair.as_ref().map(pair_figure),
                );
                match (pair, contender) {
                    (Ok(pair), Contender::Loadbalancer) => result.pairs.push(pair),
                    (Ok(pair), peer) => result.of_peer(peer.name()).push(pair),
                    (Err(e), Contender::Loadbalancer) => result.failed = Some(e.to_string()),
                    // Shown as it went by; the check is of ours.
                    (Err(_), _) => {}
                }
            }
            if let Some(pair) = growth::measure_relay(ground, check) {
                let figure = pair.as_ref().map(pair_figure);
                progress(plan, round, &format!("{:12}  {}", relay::NAME, check.name), figure);
                if let Ok(pair) = pair {
                    result.of_peer(relay::NAME).push(pair);
                }
            }
        }
    }
    results
}

fn pair_figure(pair: &Pair) -> String {
    format!("{:.2} instead of {:.2} µs/request", pair.changed, pair.base)
}

fn progress(plan: &Plan, round: u32, what: &str, figure: Result<String, &Error>) {
    let figure = figure.unwrap_or_else(|e| format!("failed: {e}"));
    say(&format!("round {}/{}  {what}: {figure}", round + 1, plan.rounds));
}

/// Everything that has a reason instead of a figure.
fn failures(results: &Results) -> Vec<String> {
    let works = results.works.iter().flat_map(|work| {
        let failed = work.series.iter().filter_map(|series| Some((&series.proxy, series.failed.as_ref()?)));
        failed.map(|(proxy, reason)| format!("{proxy}, {}: {reason}", work.name))
    });
    let checks = results.checks.iter().filter_map(|check| Some(format!("{}: {}", check.name, check.failed.as_ref()?)));
    works.chain(checks).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn plan(words: &[&str]) -> Plan {
        Plan::new(&Cli::try_parse_from([&["bench"], words].concat()).map_err(|e| e.to_string()).unwrap().args)
    }

    #[test]
    fn everything_is_measured_unless_something_is_chosen() {
        let all = plan(&[]);
        assert_eq!((all.works.len(), all.checks.len(), all.contenders.len()), (9, 4, 4));
        assert_eq!((all.rounds, all.seconds), (5, 3));
        let some = plan(&["--work", "p99", "--work", "idle-8000", "--quick"]);
        assert_eq!((some.works.len(), some.checks.len(), some.contenders.len()), (1, 1, 4));
        assert_eq!((some.rounds, some.seconds), (1, 1));
        let peers = plan(&["--only", "nginx", "--only", "caddy"]);
        assert_eq!((peers.checks.len(), peers.contenders.as_slice()), (0, &[Contender::Nginx, Contender::Caddy][..]));
        assert!(!peers.needs().contains(&system::HAPROXY));
    }

    #[test]
    fn a_part_is_not_written_as_if_it_were_the_whole() {
        for part in [["--work", "p99"], ["--only", "nginx"]] {
            assert!(Cli::try_parse_from(["bench", "--write", part[0], part[1]]).is_err());
        }
    }

    #[test]
    fn what_failed_once_has_no_figure() {
        let mut results = results::tests::results();
        let series = &mut results.works[0].series[0];
        note(series, Err(Error::Failed("502".to_owned())));
        assert_eq!((series.samples.len(), series.median()), (3, None));
        results.checks[0].failed = Some("gone".to_owned());
        let expected = [
            "loadbalancer, 128 B reply, 64 connections: 502",
            "caddy, 128 B reply, 64 connections: it | broke",
            "8,000 idle connections besides: gone",
        ];
        assert_eq!(failures(&results), expected);
    }
}
