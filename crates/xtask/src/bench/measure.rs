//! One measurement of one contender: load on one side, what the kernel accounts to the proxy on the other.

use std::path::Path;
use std::time::Duration;

use super::contender::{Contender, Origin, Proxy, Setup};
use super::idle::{Idle, raise_descriptor_limit};
use super::open_loop::OpenLoop;
use super::origin::{BACKENDS, Origins};
use super::proc::{cpu_time, resident_bytes};
use super::results::Sample;
use super::site::{Cores, Dir, FileServer};
use super::websocket::{self, Client};
use super::work::{Http, Kind, SMALL, Work};
use super::wrk::Wrk;
use crate::Error;

/// Fills caches, opens all connections, and lets the kernel's buffers grow.
const WARM_UP_S: u32 = 1;

/// Latency is measured so often in a row, and the median counts: a machine that stalls for 30 ms spoils the 99th percentile of that
/// second, whoever is measured then.
const LATENCY_TIMES: usize = 3;

/// Connections that have come and gone before memory is looked at, so that what exists once is not shared out.
const MEMORY_WARM_UP: usize = 100;

/// How long connections are idle before memory is looked at: what a proxy holds for the case that the next request
/// comes at once is not what 5,000 silent clients cost it.
pub(super) const AT_REST: Duration = Duration::from_secs(3);

/// Beside idle connections: those of the load, of the backends, and everything else that is open.
const DESCRIPTORS_BESIDE: usize = 2000;

/// Everything a measurement happens on.
pub(super) struct Ground<'a> {
    pub(super) dir: Dir,
    pub(super) release: &'a Path,
    pub(super) cores: Cores,
    pub(super) seconds: u32,
    pub(super) files: FileServer,
    pub(super) origins: Origins,
    pub(super) open_loop: OpenLoop,
}

impl<'a> Ground<'a> {
    pub(super) fn new(release: &'a Path, cores: Cores, seconds: u32) -> Result<Self, Error> {
        let dir = Dir::new()?;
        let files = FileServer::start(&dir, &cores.load, BACKENDS)?;
        let open_loop = OpenLoop::start(BACKENDS, SMALL)?;
        Ok(Self { dir, release, cores, seconds, files, origins: Origins::start()?, open_loop })
    }

    /// One worker on a core of its own.
    pub(super) fn setup(&'a self, origin: Origin) -> Setup<'a> {
        let backends = match origin {
            Origin::Files => &self.files.addresses,
            Origin::Sinks => &self.origins.sinks,
            Origin::Echoes => &self.origins.echoes,
            Origin::Replies => &self.open_loop.addresses,
        };
        let (dir, release, cores) = (&self.dir, self.release, self.cores.proxy.as_str());
        Setup { dir, release, cores, origin, backends, workers: 1, arguments: vec![] }
    }

    pub(super) fn wrk(&self) -> Wrk<'_> {
        Wrk { dir: &self.dir, cores: &self.cores.load, threads: 1 }
    }

    /// Starts the contender for this measurement alone.
    pub(super) fn measure(&self, work: &Work, contender: Contender) -> Result<Sample, Error> {
        let start = |origin| contender.start(&self.setup(origin));
        match work.kind {
            Kind::Http(http) if http.upload > 0 => self.cost(&start(Origin::Sinks)?, &http),
            Kind::Http(http) if http.reply == SMALL => self.cost(&start(Origin::Replies)?, &http),
            Kind::Http(http) => self.cost(&start(Origin::Files)?, &http),
            Kind::WebSocket { connections, bytes } => self.websocket(&start(Origin::Echoes)?, connections, bytes),
            Kind::Latency { load, share } => self.latency(&start(Origin::Replies)?, &load, share),
            Kind::Memory { connections } => memory(&start(Origin::Files)?, connections),
        }
    }

    fn cost(&self, proxy: &Proxy, http: &Http) -> Result<Sample, Error> {
        self.wrk().warm_up(proxy.port, http, WARM_UP_S)?;
        let before = cpu_time(proxy.pid())?;
        let done = self.wrk().load(proxy.port, http, self.seconds)?;
        let (user_us, kernel_us) = cpu_time(proxy.pid())?.per(before, done.requests)?;
        Ok(Sample { per_s: Some(done.per_s), ..cost_sample(done.requests, user_us, kernel_us) })
    }

    fn websocket(&self, proxy: &Proxy, connections: usize, bytes: usize) -> Result<Sample, Error> {
        let runtime = websocket::runtime().map_err(Error::Failed)?;
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let mut clients = Vec::with_capacity(connections);
        let warm_up = async {
            for number in 0..connections {
                clients.push(Client::connect(proxy.port, number, bytes).await?);
            }
            websocket::chat(&mut clients, seconds(WARM_UP_S)).await
        };
        runtime.block_on(warm_up).map_err(Error::Failed)?;
        let before = cpu_time(proxy.pid())?;
        let messages = runtime.block_on(websocket::chat(&mut clients, seconds(self.seconds)));
        let messages = messages.map_err(Error::Failed)?;
        let (user_us, kernel_us) = cpu_time(proxy.pid())?.per(before, messages)?;
        let per_s = messages as f64 / f64::from(self.seconds);
        Ok(Sample { per_s: Some(per_s), ..cost_sample(messages, user_us, kernel_us) })
    }

    fn latency(&self, proxy: &Proxy, load: &Http, share: f64) -> Result<Sample, Error> {
        let per_s = share * self.open_loop.most_per_s(proxy.port, load, self.seconds).map_err(Error::Failed)?;
        let measure = |_| self.open_loop.measure(proxy.port, load, per_s, self.seconds).map_err(Error::Failed);
        let mut all = (0..LATENCY_TIMES).map(measure).collect::<Result<Vec<_>, _>>()?;
        all.sort_by(|a, b| a.p99_us.total_cmp(&b.p99_us));
        let latencies = all[LATENCY_TIMES / 2];
        let latest = all.iter().map(|one| one.late_p99_us).fold(0.0, f64::max);
        Ok(Sample {
            figure: latencies.p99_us,
            count: latencies.count,
            per_s: Some(per_s),
            p50_us: Some(latencies.p50_us),
            late_p99_us: Some(latest),
            ..Sample::default()
        })
    }
}

fn cost_sample(count: u64, user_us: f64, kernel_us: f64) -> Sample {
    let figure = user_us + kernel_us;
    Sample { figure, count, user_us: Some(user_us), kernel_us: Some(kernel_us), ..Sample::default() }
}

fn memory(proxy: &Proxy, connections: usize) -> Result<Sample, Error> {
    let failed = |e| Err(Error::Failed(e));
    if let Err(e) = enough_descriptors(connections).and_then(|()| Idle::open(proxy.port, MEMORY_WARM_UP).map(drop)) {
        return failed(e);
    }
    let before = resident_bytes(proxy.pid())?;
    let mut idle = match Idle::open(proxy.port, connections) {
        Ok(idle) => idle,
        Err(e) => return failed(e),
    };
    std::thread::sleep(AT_REST);
    let after = resident_bytes(proxy.pid())?;
    if let Err(e) = idle.all_open() {
        return failed(e);
    }
    let figure = after.saturating_sub(before) as f64 / connections as f64;
    Ok(Sample { figure, count: connections as u64, ..Sample::default() })
}

/// Each idle connection is one descriptor here and one of the proxy's.
pub(super) fn enough_descriptors(connections: usize) -> Result<(), String> {
    raise_descriptor_limit((connections + DESCRIPTORS_BESIDE) as u64)
}
