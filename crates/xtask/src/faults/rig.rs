//! The rig of one run: three fault servers, a proxy before them, and the three books.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::client::{Load, Plan};
use super::ledger::{Asked, Executed, Findings, Line, Log, check};
use super::proxy::{Proxy, Setup, Timing};
use super::server::Server;
use super::surroundings::Ground;
use crate::Error;
use crate::bench::contender::Contender;
use crate::bench::process::free_ports;

pub(super) const ORIGINS: usize = 3;

pub(super) const CLIENTS: usize = 64;

/// For the proxy to come to rest: nothing in flight, and every line written.
const AT_REST_WITHIN: Duration = Duration::from_secs(4);

/// What a run may change about the rig.
#[derive(Default)]
pub(super) struct Wishes {
    pub(super) wrapper: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) arguments: Vec<String>,
    /// Backends by name, all on the port of the first origin, the n-th at 127.0.0.(n+1).
    pub(super) names: Option<Vec<String>>,
    /// Where the access log goes instead of the rig's own directory.
    pub(super) log: Option<PathBuf>,
    /// One worker, alone on its core.
    pub(super) pinned: bool,
    /// Peers are not to leave a server alone for its errors: there are always some.
    pub(super) steady: bool,
    /// Balanced by load, not in turns.
    pub(super) by_load: bool,
}

pub(super) struct Rig {
    pub(super) proxy: Proxy,
    pub(super) origins: Vec<Server>,
    pub(super) log: PathBuf,
    pub(super) epoch: Instant,
    /// What marks this run's ids.
    pub(super) run: u64,
    next: u64,
    books: Vec<PathBuf>,
}

impl Rig {
    pub(super) fn start(ground: &Ground, contender: Contender, wishes: Wishes) -> Result<Self, Error> {
        let run = ground.next_run();
        let ports: [u16; ORIGINS] = free_ports()?;
        let dir = &ground.dir;
        let mut origins = vec![];
        let mut books = vec![];
        for (number, own) in ports.into_iter().enumerate() {
            let book = dir.path().join(format!("origin-{number}.book"));
            let _ = fs::remove_file(&book);
            let (last, port) = if wishes.names.is_some() { (number as u8 + 1, ports[0]) } else { (1, own) };
            let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
            origins.push(Server::start(number, address, port, book.clone(), run)?);
            books.push(book);
        }
        let backends: Vec<String> = match &wishes.names {
            Some(names) => names.iter().map(|name| format!("{name}:{}", ports[0])).collect(),
            None => origins.iter().map(|origin| format!("{}:{}", origin.address, origin.port)).collect(),
        };
        let log = wishes.log.unwrap_or_else(|| dir.path().join("access.log"));
        let _ = fs::remove_file(&log);
        let (cores, workers) = if wishes.pinned { (&ground.cores.proxy, 1) } else { (&ground.all_cores, 2) };
        let proxy = Proxy::start(
            contender,
            &Setup {
                dir,
                release: &ground.release,
                cores,
                workers,
                backends: &backends,
                timing: Timing::QUICK,
                wrapper: wishes.wrapper,
                environment: wishes.environment,
                arguments: wishes.arguments,
                by_name: wishes.names.is_some(),
                steady: wishes.steady,
                by_load: wishes.by_load,
                log: log.clone(),
            },
        )?;
        Ok(Self { proxy, origins, log, epoch: Instant::now(), run, next: 1, books })
    }

    /// As the reliability plan has it: 64 keep-alive clients, half GET, half POST.
    pub(super) fn plan(&self, per_s: Option<f64>) -> Plan {
        Plan {
            port: self.proxy.port,
            clients: CLIENTS,
            per_s,
            body: 4096,
            answer: 4096,
            run: self.run,
            first: self.next,
            patience: patience(),
            epoch: self.epoch,
        }
    }

    pub(super) fn load(&self, plan: Plan) -> Result<Load, Error> {
        Load::start(plan)
    }

    /// So many numbers for requests of the rig's own; call it while no load runs.
    pub(super) fn numbers(&mut self, after: &[Asked], count: u64) -> u64 {
        let last = after.iter().map(|asked| asked.number).max().unwrap_or_default().max(self.next);
        self.next = last + 1 + count;
        last + 1
    }

    /// Order for all origins.
    pub(super) fn order_all(&mut self, mode: super::origin::Mode) -> Result<(), Error> {
        self.origins.iter_mut().try_for_each(|origin| origin.order(mode))
    }

    /// Waits until nothing is in flight; whether that came true.
    pub(super) fn rests(&self) -> bool {
        let deadline = Instant::now() + AT_REST_WITHIN;
        while Instant::now() < deadline {
            if self.proxy.metric("lb_in_flight").is_none_or(|in_flight| in_flight == 0.0) {
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        false
    }

    /// Every line of the origins' books.
    pub(super) fn executed(&self) -> Result<Vec<Executed>, Error> {
        let mut executed = vec![];
        for book in &self.books {
            let text = fs::read_to_string(book).map_err(|e| Error::Failed(format!("{}: {e}", book.display())))?;
            // What an origin did not live to finish to write, it did not answer either.
            let own = text.lines().filter_map(Executed::parse).filter(|record| record.id.run == self.run);
            executed.extend(own);
        }
        Ok(executed)
    }

    /// Our log, once every request of the ledger has its line or none come any more; empty for peers.
    pub(super) fn lines(&self, asked: &[Asked]) -> Result<Vec<Line>, Error> {
        if self.proxy.contender != Contender::Loadbalancer {
            return Ok(vec![]);
        }
        let deadline = Instant::now() + AT_REST_WITHIN;
        loop {
            let text = fs::read_to_string(&self.log);
            let text = text.map_err(|e| Error::Failed(format!("{}: {e}", self.log.display())))?;
            let lines = text.lines().filter(|_| text.ends_with('\n')).map(Line::parse);
            let lines: Vec<Line> = lines.collect::<Result<_, _>>().map_err(Error::Failed)?;
            // By number: others than the ledger's requests have lines, too.
            let known: HashSet<u64> = lines.iter().filter_map(|line| line.id.map(|id| id.number)).collect();
            if asked.iter().all(|asked| known.contains(&asked.number)) || Instant::now() > deadline {
                return Ok(lines);
            }
            sleep(Duration::from_millis(50));
        }
    }

    /// Reads the three books side by side.
    pub(super) fn settle(&self, asked: &[Asked]) -> Result<Findings, Error> {
        let rests = self.rests();
        let lines = self.lines(asked)?;
        let executed = self.executed()?;
        let log = if self.proxy.contender == Contender::Loadbalancer { Log::Lines(&lines) } else { Log::Absent };
        let mut findings = check(asked, &executed, log);
        if !rests {
            findings.unexplained += 1;
            findings.examples.push("requests count as in flight, and nobody waits for any".to_owned());
        }
        Ok(findings)
    }

    /// Forgets what was written so far, while nothing is in flight.
    pub(super) fn turn_page(&mut self, asked: &[Asked]) -> Result<(), Error> {
        self.numbers(asked, 0);
        let failed = |e: std::io::Error| Error::Failed(format!("cannot start a new page of a book: {e}"));
        // The writers append: what they write next goes to the new beginning.
        for file in self.books.iter().chain((self.proxy.contender == Contender::Loadbalancer).then_some(&self.log)) {
            fs::OpenOptions::new().write(true).open(file).and_then(|file| file.set_len(0)).map_err(failed)?;
        }
        Ok(())
    }
}

/// Everything that may take its time one after the other, and a tenth more: three connects and two answers.
pub(super) fn patience() -> Duration {
    let timing = Timing::QUICK;
    (3 * timing.connect + 2 * timing.head).mul_f64(1.1)
}
