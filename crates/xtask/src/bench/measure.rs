//! One measurement: load on one side, what the kernel accounts to the proxy on the other.

use std::path::Path;
use std::time::Duration;

use super::contender::{Contender, Origin, Proxy, Setup};
use super::generator::{Generator, Serves};
use super::idle::{Idle, raise_descriptor_limit};
use super::proc::{cpu_time, resident_bytes};
use super::results::Sample;
use super::side_by_side;
use super::sinks::{BACKENDS, Sinks};
use super::site::{Cores, Dir, FileServer};
use super::work::{Http, Kind, SMALL, Work};
use super::wrk::Wrk;
use crate::Error;

/// Fills caches, opens all connections, and lets the kernel's buffers grow.
const WARM_UP_S: u32 = 1;

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
    pub(super) sinks: Sinks,
    /// Small replies and WebSocket echoes, and the load for them.
    pub(super) replies: Generator,
    pub(super) echoes: Generator,
}

impl<'a> Ground<'a> {
    pub(super) fn new(release: &'a Path, cores: Cores, seconds: u32) -> Result<Self, Error> {
        let dir = Dir::new()?;
        let files = FileServer::start(&dir, &cores.load, BACKENDS)?;
        let replies = Generator::start(Serves::Replies(SMALL), BACKENDS)?;
        let echoes = Generator::start(Serves::Echoes, BACKENDS)?;
        Ok(Self { dir, release, cores, seconds, files, sinks: Sinks::start()?, replies, echoes })
    }

    /// One worker on a core of its own.
    pub(super) fn setup(&'a self, origin: Origin) -> Setup<'a> {
        let backends = match origin {
            Origin::Files => &self.files.addresses,
            Origin::Sinks => &self.sinks.addresses,
            Origin::Echoes => &self.echoes.addresses,
            Origin::Replies => &self.replies.addresses,
        };
        let (dir, release, cores) = (&self.dir, self.release, self.cores.proxy.as_str());
        Setup { dir, release, cores, origin, backends, workers: 1, arguments: vec![] }
    }

    pub(super) fn wrk(&self) -> Wrk<'_> {
        Wrk { dir: &self.dir, cores: &self.cores.load, threads: 1 }
    }

    /// Measures each contender at the work; `done` hears of each, in their order.
    pub(super) fn measure(
        &self,
        work: &Work,
        contenders: &[Contender],
        mut done: impl FnMut(Contender, Result<Sample, Error>),
    ) {
        let samples = match work.kind {
            Kind::Http(http @ Http { reply: SMALL, upload: 0, close: false, .. }) => {
                side_by_side::replies(self, contenders, &http)
            }
            Kind::Http(http) => return contenders.iter().for_each(|one| done(*one, self.http(*one, &http))),
            Kind::Memory { connections } => {
                return contenders.iter().for_each(|one| done(*one, self.memory(*one, connections)));
            }
            Kind::WebSocket { connections, bytes } => side_by_side::tunnels(self, contenders, connections, bytes),
            Kind::Latency { load, share } => side_by_side::latencies(self, contenders, &load, share),
        };
        contenders.iter().zip(samples).for_each(|(contender, sample)| done(*contender, sample));
    }

    /// CPU time per request, of a proxy that was started for this alone.
    fn http(&self, contender: Contender, http: &Http) -> Result<Sample, Error> {
        let origin = match http {
            Http { upload: 1.., .. } => Origin::Sinks,
            Http { reply: SMALL, .. } => Origin::Replies,
            _ => Origin::Files,
        };
        let proxy = contender.start(&self.setup(origin))?;
        self.wrk().warm_up(proxy.port, http, WARM_UP_S)?;
        let before = cpu_time(proxy.pid())?;
        let done = self.wrk().load(proxy.port, http, self.seconds)?;
        let (user_us, kernel_us) = cpu_time(proxy.pid())?.per(before, done.requests)?;
        Ok(Sample { per_s: Some(done.per_s), ..cost_sample(done.requests, user_us, kernel_us) })
    }

    fn memory(&self, contender: Contender, connections: usize) -> Result<Sample, Error> {
        memory(&contender.start(&self.setup(Origin::Files))?, connections)
    }
}

pub(super) fn cost_sample(count: u64, user_us: f64, kernel_us: f64) -> Sample {
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
