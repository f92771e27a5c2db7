//! `cargo xtask faults`: every fault of the reliability plan against the real programs, and books that tell what it did.
//!
//! Clients, proxy and origins each write down what they know of every request (`ledger`); the origins break on order
//! (`origin`); each fault says what is demanded under it (`matrix`). The same is done to the peers with their best
//! settings. Nothing of ours is linked in: an error of ours must not be an error of its judge.

mod admin;
mod campaign;
mod client;
mod counts;
mod document;
mod drive;
mod ident;
mod ledger;
mod matrix;
pub(crate) mod origin;
mod peers;
mod proxy;
mod report;
mod results;
mod rig;
mod server;
mod surroundings;
mod trial;
mod yardstick;

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::bench::contender::Contender;
use crate::bench::idle::raise_descriptor_limit;
use crate::bench::{machine, process};
use crate::system::{self, Need};
use crate::workspace::{Workspace, cargo};
use crate::{Error, say};
use campaign::Size;
use results::{CampaignRun, Results, Setting, Yardstick};
use surroundings::Ground;
use trial::Depth;

pub(crate) const NEEDS: &[Need] = &[
    Need::System { programs: &["nft"], packages: &["nftables"] },
    Need::System { programs: &["ip"], packages: &["iproute2"] },
    Need::System { programs: &["faketime"], packages: &["faketime"] },
    Need::System { programs: &["prlimit"], packages: &["util-linux"] },
    Need::System { programs: &["mount"], packages: &["mount"] },
];

/// Floods hold this many connections at this end.
const DESCRIPTORS: u64 = 12_000;

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

    /// Every fault 50 times, then the campaign and the yardstick: two hours
    #[arg(long, conflicts_with_all = ["repeats", "only"])]
    full: bool,

    /// Instead: three origins that break all the time, each in its own way
    #[arg(long, conflicts_with_all = ["only", "short", "full", "campaign"])]
    yardstick: bool,

    /// Instead: very many requests while origins are restarted
    #[arg(long, conflicts_with_all = ["only", "short"])]
    campaign: bool,

    /// Requests of the campaign, or of the yardstick [default: 10000000, or 114000]
    #[arg(long, value_name = "N")]
    requests: Option<u64>,

    /// Restarts in the campaign, half of them by SIGKILL
    #[arg(long, value_name = "N", default_value_t = 200)]
    restarts: u32,

    /// The campaign ends after so long, however much is left
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,

    /// Where the programs are, instead of building them
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,

    /// Also write what was found to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Write what was found into the document on faults, and the JSON beside it
    #[arg(long, conflicts_with = "short")]
    write: bool,
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
    let setting = setting(&ground, &contenders);
    let (mut results, mut failures) = (Results::default(), vec![]);
    if !args.yardstick && !args.campaign {
        let (matrix, failed) = drive::matrix(&ground, &contenders, setting.clone(), &choice(args))?;
        results.matrix = Some(matrix);
        failures.extend(failed);
        keep(args, &results)?;
    }
    if args.campaign || args.full {
        let run = campaigns(&ground, &contenders, setting.clone(), args)?;
        let ours = run.runs.iter().filter(|run| run.proxy == Contender::Loadbalancer.name());
        failures.extend(ours.flat_map(|run| run.failures.iter().map(|words| format!("campaign: {words}"))));
        results.campaign = Some(run);
        keep(args, &results)?;
    }
    // Last: it keeps this process off the proxy's core.
    if args.yardstick || args.full {
        let requests = args.requests.filter(|_| args.yardstick).unwrap_or(yardstick::REQUESTS);
        let yardstick = yardsticks(&ground, &contenders, setting, requests)?;
        let ours = yardstick.rows.iter().find(|row| row.proxy == Contender::Loadbalancer.name());
        failures.extend(
            ours.filter(|row| !row.counts.is_clean()).map(|row| format!("yardstick: {}", yardstick::line(row))),
        );
        results.yardstick = Some(yardstick);
        keep(args, &results)?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::Failed(format!("demands were not met (seed {seed}):\n  {}", failures.join("\n  "))))
}

/// After each part: what took an hour is there, whatever becomes of the next.
fn keep(args: &Args, results: &Results) -> Result<(), Error> {
    if let Some(file) = &args.json {
        results.write(file)?;
    }
    if args.write {
        document::write(&Workspace::find()?.root, results.clone())?;
    }
    Ok(())
}

fn choice(args: &Args) -> drive::Choice {
    let (depth, repeats) = match (args.short, args.full) {
        (true, _) => (Depth::Short, 1),
        (_, true) => (Depth::Usual, 50),
        _ => (Depth::Usual, args.repeats),
    };
    drive::Choice { only: args.only.clone(), depth, repeats }
}

fn campaigns(ground: &Ground, contenders: &[Contender], setting: Setting, args: &Args) -> Result<CampaignRun, Error> {
    let size = Size {
        requests: args.requests.unwrap_or(10_000_000),
        restarts: args.restarts,
        at_most: args.minutes.map(|minutes| Duration::from_secs(60 * minutes)),
    };
    let one = |contender: &Contender| {
        let per_s = drive::half_of_maximum(ground, *contender)?;
        campaign::run(ground, *contender, per_s, &size)
    };
    Ok(CampaignRun { setting, runs: contenders.iter().map(one).collect::<Result<_, _>>()? })
}

fn yardsticks(ground: &Ground, contenders: &[Contender], setting: Setting, requests: u64) -> Result<Yardstick, Error> {
    process::move_to(&ground.cores.load)?;
    let mut rows = vec![];
    for contender in contenders {
        let row = yardstick::run(ground, *contender, requests)?;
        say(&yardstick::line(&row));
        rows.push(row);
    }
    Ok(Yardstick { setting, rows })
}

fn setting(ground: &Ground, contenders: &[Contender]) -> Setting {
    let version = |contender: &Contender| (contender.name().to_owned(), contender.version(&ground.release));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Setting {
        date: machine::today(),
        machine: machine::machine(cores),
        seed: ground.seed,
        versions: contenders.iter().map(version).collect(),
    }
}

fn contenders(named: &[String]) -> Vec<Contender> {
    if named.is_empty() {
        return vec![Contender::Loadbalancer];
    }
    Contender::ALL.into_iter().filter(|contender| named.iter().any(|name| name == contender.name())).collect()
}

fn needs(contenders: &[Contender]) -> Vec<Need> {
    let peers = [(Contender::Haproxy, system::HAPROXY), (Contender::Nginx, system::NGINX)];
    let peers = peers.into_iter().filter(|(peer, _)| contenders.contains(peer)).map(|(_, need)| need);
    NEEDS.iter().copied().chain(peers).collect()
}

fn build() -> Result<(), Error> {
    let root = Workspace::find()?.root;
    match cargo().args(["build", "--release", "--bin", "loadbalancer"]).current_dir(root).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(Error::Failed("the load balancer does not build (see above)".to_owned())),
        Err(e) => Err(Error::Failed(format!("cannot run cargo build: {e}"))),
    }
}
