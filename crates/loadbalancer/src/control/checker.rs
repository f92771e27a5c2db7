//! Active checks: one task per backend that resolves its name, makes the check, and reports. It decides nothing: the
//! control task tells it when to check next. Of all of them, only so many check at once.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use lb_core::api::ReasonCode;
use lb_core::backend::{BackendId, HostPort};
use lb_core::health::{Failure, Outcome};
use lb_core::probe::Probe;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::Config;
use crate::proxy_protocol;

/// The part of a check's time that a look-up may take while there are addresses to go on with.
const LOOK_UP_SHARE: u32 = 4;

/// What one check found.
#[derive(Debug)]
pub(super) struct Report {
    pub backend: BackendId,
    /// That of the order.
    pub epoch: u32,
    pub outcome: Outcome,
    /// The whole time of the check.
    pub took: Duration,
    /// The address that took the connection, or the one to go on trying.
    pub address: Option<SocketAddr>,
    /// Something about its name that is worth telling.
    pub discovery: Option<String>,
}

/// What the control task wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// When, and a number that comes back with the report.
    CheckAt(Instant, u32),
    Pause,
}

/// A running checker; it ends when this is dropped.
pub(super) struct Checker {
    orders: watch::Sender<Order>,
    task: AbortHandle,
}

impl Checker {
    pub(super) fn start(
        backend: BackendId,
        address: HostPort,
        config: &Config,
        first: Instant,
        turns: Arc<Semaphore>,
        reports: mpsc::Sender<Report>,
    ) -> Self {
        let (orders, receiver) = watch::channel(Order::CheckAt(first, 0));
        let (checks, greeting) = (&config.checks, greeting(config, &address));
        let probe = Probe::new(&address, &checks.kind, checks.port, greeting, checks.reuse);
        let names = Names::new(address, config.upstream.refresh);
        let check = Check { names, probe, limit: config.health.timeout, turns };
        let task = tokio::spawn(run(backend, check, receiver, reports)).abort_handle();
        Self { orders, task }
    }

    pub(super) fn order(&self, order: Order) {
        self.orders.send_replace(order);
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a check's connection begins with. A port for requests that waits for a PROXY header would complain of a connection
/// without one; a port of its own for checks is a plain one, as a kubelet's or a metrics server's, and would take the
/// header for a broken request.
fn greeting(config: &Config, address: &HostPort) -> Vec<u8> {
    let mut greeting = BytesMut::new();
    if let Some(version) = config.upstream.proxy_protocol
        && config.checks.port.is_none_or(|port| port == address.port)
    {
        proxy_protocol::write(version, None, &mut greeting);
    }
    greeting.to_vec()
}

/// How one backend is checked.
struct Check {
    names: Names,
    probe: Probe,
    /// For a whole check.
    limit: Duration,
    /// `health.concurrency`: first come, first served.
    turns: Arc<Semaphore>,
}

async fn run(backend: BackendId, mut check: Check, mut orders: watch::Receiver<Order>, reports: mpsc::Sender<Report>) {
    loop {
        let order = *orders.borrow_and_update();
        let changed = match order {
            Order::Pause => {
                check.probe.let_go();
                orders.changed().await
            }
            Order::CheckAt(at, epoch) => tokio::select! {
                changed = orders.changed() => changed,
                () = sleep_until(at) => {
                    let report = check.make(backend, epoch).await;
                    if reports.send(report).await.is_err() {
                        return;
                    }
                    // The answer to a report is the next order.
                    orders.changed().await
                }
            },
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Check {
    async fn make(&mut self, backend: BackendId, epoch: u32) -> Report {
        // It is never closed. The wait is ours and not the backend's: its time begins behind it.
        let _turn = self.turns.acquire().await;
        let started = Instant::now();
        let deadline = started + self.limit;
        let discovery = self.names.refresh(self.limit).await;
        let (outcome, address) = match self.names.failure() {
            Some(failure) => (Outcome::Failed(failure), None),
            None => self.probe.check(&self.names.addresses, deadline).await,
        };
        if address.is_some() {
            self.names.last_good = address;
        }
        // A failed check is no reason to send requests to another of its addresses: only one that answers is.
        let address = address.or_else(|| self.names.current());
        Report { backend, epoch, outcome, took: started.elapsed(), address, discovery }
    }
}

/// The addresses of one backend: fixed, or looked up again now and then. A look-up that fails keeps the last ones.
struct Names {
    name: HostPort,
    addresses: Vec<SocketAddr>,
    looked_up: Option<Instant>,
    refresh: Duration,
    problem: Option<String>,
    /// The address that answered last.
    last_good: Option<SocketAddr>,
    /// A look-up that has not come back yet. There is at most one: the system's resolver cannot be interrupted, and
    /// a new one at each check would pile up while it hangs.
    pending: Option<JoinHandle<std::io::Result<Vec<SocketAddr>>>>,
}

impl Names {
    fn new(name: HostPort, refresh: Duration) -> Self {
        let fixed = name.host.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, name.port));
        let addresses = fixed.into_iter().collect();
        Self { name, addresses, looked_up: None, refresh, problem: None, last_good: None, pending: None }
    }

    /// The address to go on with: the one that answered last while it is still among them, else the first.
    fn current(&self) -> Option<SocketAddr> {
        self.last_good.filter(|address| self.addresses.contains(address)).or_else(|| self.addresses.first().copied())
    }

    /// Why there is no address at all.
    fn failure(&self) -> Option<Failure> {
        let words = self.problem.clone().unwrap_or_else(|| "no address".to_owned());
        self.addresses.is_empty().then_some(Failure::new(ReasonCode::NotResolved, words))
    }

    /// Looks the name up if that is due, in a part of `limit`, and says what changed, in words.
    async fn refresh(&mut self, limit: Duration) -> Option<String> {
        if self.name.host.parse::<IpAddr>().is_ok() {
            return None;
        }
        // Without an address each check tries again. An answer that came after its time is taken with the next check.
        let late = self.pending.as_ref().is_some_and(JoinHandle::is_finished);
        let due = self.looked_up.is_none_or(|at| at.elapsed() >= self.refresh) || self.addresses.is_empty() || late;
        if !due {
            return None;
        }
        // A slow resolver must not use up the time of a check that can go on with the last addresses.
        let share = if self.addresses.is_empty() { limit } else { limit / LOOK_UP_SHARE };
        let mut pending = self.pending.take().unwrap_or_else(|| tokio::spawn(look_up(self.name.clone())));
        let found = timeout(share, &mut pending).await;
        self.looked_up = Some(Instant::now());
        if found.is_err() {
            self.pending = Some(pending);
        }
        let problem = match found {
            Ok(Ok(Ok(addresses))) if !addresses.is_empty() => return self.take(addresses),
            Ok(Ok(Ok(_))) => "the name has no address".to_owned(),
            Ok(Ok(Err(error))) => error.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {share:?}"),
        };
        let words = format!("{} cannot be resolved: {problem}", self.name.host);
        let kept = if self.addresses.is_empty() { "it is tried again" } else { "the last addresses are kept" };
        let news = self.problem.as_ref() != Some(&words);
        self.problem = Some(words.clone());
        news.then(|| format!("{words}; {kept}"))
    }

    /// Takes over the addresses that were found, and says what is new.
    fn take(&mut self, addresses: Vec<SocketAddr>) -> Option<String> {
        let recovered = self.problem.take().is_some();
        if self.addresses == addresses {
            return recovered.then(|| format!("{} can be resolved again", self.name.host));
        }
        let listed: Vec<String> = addresses.iter().take(4).map(ToString::to_string).collect();
        let more = if addresses.len() > 4 { ", …" } else { "" };
        self.addresses = addresses;
        Some(format!("{} is {}{more}", self.name.host, listed.join(", ")))
    }
}

/// The addresses of a name, IPv4 first, in an order that does not change from one look-up to the next.
async fn look_up(name: HostPort) -> std::io::Result<Vec<SocketAddr>> {
    let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.host.as_str(), name.port)).await?.collect();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Command, parse};

    #[test]
    fn only_the_port_of_requests_is_greeted() {
        let greets = |args: &[&str]| {
            let args = [&["loadbalancer"], args].concat();
            let Ok(Command::Run(config)) = parse(args.into_iter().map(Into::into), |_| None).unwrap() else {
                panic!("not to be run")
            };
            !greeting(&config, &config.pool.backends[0].address).is_empty()
        };
        let proxied = ["--backend", "127.0.0.1:8081", "--upstream-proxy-protocol", "v2"];
        assert!(!greets(&[]) && greets(&proxied));
        assert!(!greets(&[&proxied[..], &["--check-port", "9000"]].concat()));
        assert!(greets(&[&proxied[..], &["--check-port", "8081"]].concat()));
    }
}
