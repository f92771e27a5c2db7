//! `cargo xtask faults`: every fault of the reliability plan against the real programs, and books that tell what it did.
//!
//! Clients, proxy and origins each write down what they know of every request (`ledger`); the origins break on order
//! (`origin`); each fault says what is demanded under it (`matrix`). The same is done to the peers with their best
//! settings. Nothing of ours is linked in: an error of ours must not be an error of its judge.

mod admin;
mod client;
mod ident;
mod ledger;
mod matrix;
pub(crate) mod origin;
mod peers;
mod proxy;
mod report;
mod rig;
mod server;
mod surroundings;
mod trial;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bench::contender::Contender;
use crate::bench::idle::raise_descriptor_limit;
use crate::system::{self, Need};
use crate::workspace::{Workspace, cargo};
use crate::{Error, say};
use matrix::{FAULTS, Fault, Kind};
use report::{Report, Series};
use rig::{Rig, Wishes};
use surroundings::Ground;
use trial::{Depth, Trial, rate};

pub(crate) const NFTABLES: Need = Need::System { programs: &["nft"], packages: &["nftables"] };
pub(crate) const IPROUTE: Need = Need::System { programs: &["ip"], packages: &["iproute2"] };
pub(crate) const FAKETIME: Need = Need::System { programs: &["faketime"], packages: &["faketime"] };
pub(crate) const UTIL_LINUX: Need =
    Need::System { programs: &["prlimit", "unshare", "taskset"], packages: &["util-linux"] };

/// Floods hold this many connections at this end.
const DESCRIPTORS: u64 = 12_000;

/// What the proxies can do at most is measured for this long.
const MEASURED_FOR: Duration = Duration::from_secs(1);

/// Options of `faults`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only this fault; may be repeated
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=26))]
    only: Vec<u8>,

    /// Whom to test; may be repeated [default: loadbalancer]
    #[arg(long, value_name = "PROXY", value_parser = ["loadbalancer", "haproxy", "nginx"])]
    against: Vec<String>,

    /// What everything random follows from; printed at each run
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,

    /// How often each fault is run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    repeats: u32,

    /// Every fault once, as a part of `cargo xtask test`
    #[arg(long, conflicts_with_all = ["repeats", "full"])]
    short: bool,

    /// Every fault 50 times, for longer
    #[arg(long, conflicts_with = "repeats")]
    full: bool,

    /// Where the programs are, instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// # Errors
/// When a demand was not met, or something could not be run.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    let contenders = contenders(&args.against);
    if !surroundings::is_inside() {
        system::provide(&needs(&contenders))?;
        if args.programs.is_none() {
            build()?;
        }
        surroundings::enter();
    }
    let _ = raise_descriptor_limit(DESCRIPTORS);
    let release = match &args.programs {
        Some(programs) => programs.clone(),
        None => Workspace::find()?.release(),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let seed = args.seed.unwrap_or(now);
    say(&format!("seed {seed}"));
    let ground = Ground::new(release, seed)?;
    let (depth, repeats) = match (args.short, args.full) {
        (true, _) => (Depth::Short, 1),
        (_, true) => (Depth::Full, args.repeats.max(50)),
        _ => (Depth::Usual, args.repeats),
    };
    let chosen: Vec<&Fault> =
        FAULTS.iter().filter(|fault| args.only.is_empty() || args.only.contains(&fault.number)).collect();
    let mut failed = vec![];
    for contender in contenders {
        let per_s = half_of_maximum(&ground, contender)?;
        say(&format!("{}: {per_s:.0} requests/s, half of what it does here", contender.name()));
        for fault in &chosen {
            let series = repeat(&ground, contender, fault, per_s, depth, repeats);
            say(&line(fault, &series));
            if contender == Contender::Loadbalancer && !series.has_passed() {
                failed.push(format!("{} {}: {}", fault.number, fault.name, series.failures.join("; ")));
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::Failed(format!("demands were not met (seed {seed}):\n  {}", failed.join("\n  "))))
}

fn contenders(named: &[String]) -> Vec<Contender> {
    if named.is_empty() {
        return vec![Contender::Loadbalancer];
    }
    Contender::ALL.into_iter().filter(|contender| named.iter().any(|name| name == contender.name())).collect()
}

fn needs(contenders: &[Contender]) -> Vec<Need> {
    let mut needs = vec![NFTABLES, IPROUTE, FAKETIME, UTIL_LINUX];
    let peers = [(Contender::Haproxy, system::HAPROXY), (Contender::Nginx, system::NGINX)];
    needs.extend(peers.into_iter().filter(|(peer, _)| contenders.contains(peer)).map(|(_, need)| need));
    needs
}

fn build() -> Result<(), Error> {
    let root = Workspace::find()?.root;
    match cargo().args(["build", "--release", "--bin", "loadbalancer"]).current_dir(root).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Error::Failed("the load balancer does not build (see above)".to_owned())),
        Err(e) => Err(Error::Failed(format!("cannot run cargo build: {e}"))),
    }
}

fn half_of_maximum(ground: &Ground, contender: Contender) -> Result<f64, Error> {
    let mut rig = Rig::start(ground, contender, Wishes::default())?;
    let load = rig.load(rig.plan(None))?;
    std::thread::sleep(MEASURED_FOR / 4);
    let most = rate(&load, MEASURED_FOR);
    let asked = load.stop();
    let findings = rig.settle(&asked)?;
    if findings.is_sound() && findings.failed_get + findings.failed_post == 0 {
        return Ok(most / 2.0);
    }
    let what = findings.examples.join("; ");
    Err(Error::Failed(format!("{} fails without any fault: {findings:?} {what}", contender.name())))
}

fn repeat(ground: &Ground, contender: Contender, fault: &Fault, per_s: f64, depth: Depth, repeats: u32) -> Series {
    let mut series = Series { proxy: contender.name().to_owned(), ..Series::default() };
    let Kind::Runs(run) = fault.kind else {
        if let Kind::Later(why) = fault.kind {
            series.not_here = Some(format!("later: {why}"));
        }
        return series;
    };
    for _ in 0..repeats {
        let mut trial = Trial { ground, contender, per_s, depth, report: Report::default() };
        if let Err(e) = run(&mut trial) {
            trial.report.failures.push(e.to_string());
        }
        series.add(trial.report);
        if series.not_here.is_some() {
            break;
        }
    }
    series
}

fn line(fault: &Fault, series: &Series) -> String {
    let head = format!("{:12} {:2} {:44}", series.proxy, fault.number, fault.name);
    if let Some(reason) = &series.not_here {
        return format!("{head} not run: {reason}");
    }
    let verdict = if series.has_passed() { "ok" } else { "FAILED" };
    let mut text = format!(
        "{head} {verdict:6} {}/{} runs, {} requests, {} GET and {} POST failed, {} retried",
        series.passed, series.runs, series.requests, series.failed_get, series.failed_post, series.retried
    );
    for words in series.failures.iter().map(|words| format!("!! {words}")).chain(series.notes.first().cloned()) {
        text.push_str("\n                  ");
        text.push_str(&words.chars().take(500).collect::<String>());
    }
    text
}
