//! Mutated requests through the balancer to ten real servers: what each of them read is exactly what the balancer says
//! it forwarded, and what a strict reader finds in the bytes that were sent.
//!
//! `DIFFERENTIAL_MUTATIONS`, `DIFFERENTIAL_SEED` and `DIFFERENTIAL_FIRST` choose how many, of which seed, and from
//! which number on; a failure names the number, so that it can be had again alone. `DIFFERENTIAL_SERVER` names the only
//! server to compare with.

mod account;
mod campaign;
mod ledger;
mod mutate;
mod servers;
mod wrong;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use account::Account;
use campaign::{Source, Tally};
use e2e::http;
use e2e::program::{Program, scratch_dir};
use mutate::Mutator;
use servers::{KINDS, Kind, Server};

use crate::probes::corpus;

/// Mutations of a usual run.
const MUTATIONS: u64 = 1_000_000;

/// What a balancer may have more resident at the end than when it was warm. Each connection's buffers are gone by then.
const RESIDENT_GROWTH_KIB: u64 = 32 * 1024;

/// A server behind a balancer of its own, so that the log tells which request went where.
struct Lane {
    balancer: Program,
    log: PathBuf,
    server: Server,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_reads_each_probe_as_the_balancer_does() {
    let probes: Vec<Vec<u8>> =
        corpus::ours().into_iter().chain(corpus::http11probe()).map(|probe| probe.bytes).collect();
    let numbers = (0..probes.len() as u64).collect::<Vec<_>>();
    let plan = KINDS.iter().map(|kind| (kind, numbers.clone())).collect();
    run(plan, Arc::new(move |number| probes[number as usize].clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_every_server_reads_each_mutation_as_the_balancer_does() {
    let setting = |name: &str, default: u64| {
        let value = std::env::var(name).ok();
        value.map_or(default, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}: expected a number")))
    };
    let first = setting("DIFFERENTIAL_FIRST", 0);
    let count = setting("DIFFERENTIAL_MUTATIONS", MUTATIONS);
    let mutator = Mutator::new(setting("DIFFERENTIAL_SEED", 0x5eed));
    let there: Vec<&Kind> = KINDS.iter().filter(|kind| kind.is_there()).collect();
    let turns: Vec<usize> =
        there.iter().enumerate().flat_map(|(place, kind)| (0..kind.share).map(move |_| place)).collect();
    let mut numbers = vec![Vec::new(); there.len()];
    for number in first..first + count {
        // 37 has no factor in common with 100: neighbours go to different servers.
        numbers[turns[(number * 37) as usize % turns.len()]].push(number);
    }
    run(there.into_iter().zip(numbers).collect(), Arc::new(move |number| mutator.mutation(number))).await;
}

/// Sends each server its numbers, and settles the account when all are through.
async fn run(plan: Vec<(&'static Kind, Vec<u64>)>, source: Source) {
    let started = Instant::now();
    let mut lanes = Vec::new();
    for (kind, numbers) in plan.into_iter().filter(|(kind, _)| kind.is_there()) {
        lanes.push((Lane::start(kind).await, Arc::new(numbers)));
    }
    let lanes = lanes.into_iter().map(|(lane, numbers)| tokio::spawn(lane.run(numbers, Arc::clone(&source))));
    let (mut report, mut wrong, mut sent, mut read) = (String::new(), Vec::new(), 0, 0);
    for lane in lanes.collect::<Vec<_>>() {
        let (kind, tally, mut account, took) = lane.await.expect("a lane runs to its end");
        report.push_str(&line(kind, &tally, &account, took));
        account.wrong.extend(tally.wrong);
        if !account.wrong.is_empty() {
            wrong.push(format!("{}:\n{}", kind.name, account.wrong));
        }
        sent += tally.sent;
        read += account.read;
    }
    println!("{report}{sent} sent, {read} requests read by servers, in {:.0?}", started.elapsed());
    assert!(wrong.is_empty(), "{report}\n{}", wrong.join("\n"));
    // Otherwise there was nothing to compare.
    assert!(read > sent / 10, "{read} requests read of {sent} sent");
}

fn line(kind: &Kind, tally: &Tally, account: &Account, took: Duration) -> String {
    let mut replies: Vec<_> = account.replies.iter().map(|(reply, count)| format!("{count} × {reply}")).collect();
    replies.sort();
    format!(
        "{}: {} connections ({} bytes) in {took:.0?}: {} answers of the server, {} of the balancer; {} requests \
         forwarded, {} read, {} turned away, {} broken off; {}\n",
        kind.name,
        tally.sent,
        tally.bytes,
        tally.forwarded,
        tally.refused,
        account.attempted,
        account.read,
        account.turned_away,
        account.broken_off,
        replies.join(", "),
    )
}

impl Lane {
    async fn start(kind: &'static Kind) -> Self {
        let server = kind.start().await;
        let log = scratch_dir().join(format!("{}.access", kind.name.replace(' ', "-")));
        let (backend, path) = (format!("127.0.0.1:{}", server.port), log.display().to_string());
        // Nothing but the clients' requests goes to the server, and each once.
        let quiet = ["--retries", "0", "--check-interval", "1h", "--client-head-timeout", "5s", "--log-level", "warn"];
        // Longer than any of the servers needs on a machine that has other things to do.
        let patience = ["--response-head-timeout", "20s"];
        let args = ["--port", "0", "--admin-port", "0", "--workers", "1", "--backend", &backend, "--access-log", &path];
        let balancer = Program::start("loadbalancer", &[&args[..], &quiet, &patience].concat(), &[]).await;
        Self { balancer, log, server }
    }

    async fn run(mut self, numbers: Arc<Vec<u64>>, source: Source) -> (&'static Kind, Tally, Account, Duration) {
        let (kind, port) = (self.server.kind, self.balancer.port("proxy"));
        let warm = self.resident_kib();
        let started = Instant::now();
        let tally = campaign::run(port, kind.form, numbers, source).await;
        let took = started.elapsed();
        let grown = self.resident_kib().saturating_sub(warm);
        self.stop().await;
        let mut account = account::settle(&self.log, &ledger::rows(&self.server), kind.form, &tally);
        if grown > RESIDENT_GROWTH_KIB {
            account.wrong.add(("resident memory has grown", format!("by {grown} KiB")));
        }
        // Hundreds of megabytes, which nobody needs any more when they agree.
        if account.wrong.is_empty() && tally.wrong.is_empty() {
            let _ = std::fs::remove_file(&self.log).and_then(|()| std::fs::remove_file(&self.server.ledger));
        }
        (kind, tally, account, took)
    }

    fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.balancer.pid()));
        let status = status.expect("the balancer that was started still runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there is memory");
        line.trim().trim_end_matches(" kB").parse().expect("a number of KiB")
    }

    /// Ends both, the balancer first: whatever either has to say is then written.
    async fn stop(&mut self) {
        let metrics = http::get(self.balancer.port("admin"), "/metrics").await.text();
        for metric in ["lb_panics_total", "lb_access_log_lines_dropped_total"] {
            assert!(metrics.contains(&format!("\n{metric} 0\n")), "{}: {metrics}", self.server.kind.name);
        }
        self.balancer.signal("TERM");
        assert_eq!(self.balancer.wait(e2e::PATIENCE).await.code(), Some(0), "{}", self.balancer.stderr());
        self.server.stop().await;
    }
}
