//! The proxy under test, started as a person would, in whatever surroundings the fault asks for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::peers;
use crate::Error;
use crate::bench::contender::Contender;
use crate::bench::http;
use crate::bench::process::{Process, free_ports};
use crate::bench::site::{Dir, nginx_config};

/// For a program to answer its first request.
const READY_WITHIN: Duration = Duration::from_secs(15);

/// The same for all proxies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    pub(super) connect: Duration,
    /// To the head of a response.
    pub(super) head: Duration,
    /// Between checks of a backend that is well, and of one that is not.
    pub(super) interval: Duration,
    pub(super) fast_interval: Duration,
}

impl Timing {
    /// Shorter than anybody's defaults, so that a fault is over in seconds.
    pub(super) const QUICK: Self = Self {
        connect: Duration::from_millis(1000),
        head: Duration::from_millis(2000),
        interval: Duration::from_millis(500),
        fast_interval: Duration::from_millis(200),
    };
}

/// How it is started.
pub(super) struct Setup<'a> {
    pub(super) dir: &'a Dir,
    /// Where our release binary is.
    pub(super) release: &'a Path,
    pub(super) cores: &'a str,
    pub(super) workers: usize,
    /// HOST:PORT of each.
    pub(super) backends: &'a [String],
    pub(super) timing: Timing,
    /// A command that becomes the proxy.
    pub(super) wrapper: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// Ours alone.
    pub(super) arguments: Vec<String>,
    /// The backends are names that a resolver of the rig knows.
    pub(super) by_name: bool,
    /// The peers do not take a server out for its errors.
    pub(super) steady: bool,
    /// Who is balanced by load, and not in turns: each by its best policy for that.
    pub(super) by_load: bool,
    /// Where ours writes its access log; the peers' is not read, and they write none.
    pub(super) log: PathBuf,
}

/// A started proxy; killed when dropped.
pub(super) struct Proxy {
    pub(super) contender: Contender,
    pub(super) port: u16,
    /// Of ours.
    pub(super) admin_port: u16,
    /// What it says on standard error.
    pub(super) said: PathBuf,
    process: Process,
}

impl Proxy {
    /// Starts it on a free port, and waits until it answers.
    pub(super) fn start(contender: Contender, setup: &Setup<'_>) -> Result<Self, Error> {
        let failed = |e| Error::Failed(format!("{} did not start: {e}", contender.name()));
        let [port, admin_port] = free_ports()?;
        let (program, arguments) = command(contender, setup, port, admin_port)?;
        let mut words = setup.wrapper.clone();
        words.push(program.to_string_lossy().into_owned());
        words.extend(arguments);
        let process = Process::start(setup.dir.path(), setup.cores, Path::new(&words[0]), |command| {
            command.args(&words[1..]).envs(setup.environment.iter().cloned())
        });
        let name = Path::new(&words[0]).file_name().unwrap_or_default().to_string_lossy().into_owned();
        let said = setup.dir.path().join(format!("{name}.err"));
        let mut proxy = Self { contender, port, admin_port, said, process: process.map_err(failed)? };
        proxy.process.wait_until(READY_WITHIN, || answers(port)).map_err(failed)?;
        Ok(proxy)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.process.ended()
    }

    /// Whether it still runs; a zombie does not.
    pub(super) fn lives(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    /// A number on our metrics page, summed over its labels; `None` for peers, or when it is not there.
    pub(super) fn metric(&self, name: &str) -> Option<f64> {
        if self.contender != Contender::Loadbalancer {
            return None;
        }
        let page = super::admin::get(self.admin_port, "/metrics")?;
        let of = |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values: Vec<f64> =
            page.lines().filter(|line| of(line)).filter_map(|line| line.rsplit(' ').next()?.parse().ok()).collect();
        (!values.is_empty()).then(|| values.iter().sum())
    }
}

fn command(contender: Contender, setup: &Setup<'_>, port: u16, admin: u16) -> Result<(PathBuf, Vec<String>), Error> {
    let path = |file: PathBuf| file.to_string_lossy().into_owned();
    let dir = setup.dir;
    match contender {
        Contender::Haproxy => {
            let text = peers::haproxy(
                port,
                &peers::Haproxy {
                    workers: setup.workers,
                    timing: setup.timing,
                    backends: setup.backends,
                    by_name: setup.by_name,
                    steady: setup.steady,
                    by_load: setup.by_load,
                },
            );
            let file = dir.write("haproxy.cfg", &text)?;
            Ok(("haproxy".into(), vec!["-db".to_owned(), "-f".to_owned(), path(file)]))
        }
        Contender::Nginx => {
            let text = nginx_config(
                dir.path(),
                "nginx",
                &peers::nginx(port, &setup.timing, setup.backends, (setup.steady, setup.by_load)),
            );
            let file = dir.write("nginx.conf", &text)?;
            Ok(("nginx".into(), vec!["-c".to_owned(), path(file)]))
        }
        Contender::Caddy => Err(Error::Failed("Caddy is not compared here".to_owned())),
        Contender::Loadbalancer => {
            let ms = |time: Duration| format!("{}ms", time.as_millis());
            let timing = &setup.timing;
            let mut words: Vec<String> = vec![];
            for (flag, value) in [
                ("--bind", "127.0.0.1".to_owned()),
                ("--port", port.to_string()),
                ("--admin-port", admin.to_string()),
                ("--workers", setup.workers.to_string()),
                ("--log-level", "warn".to_owned()),
                ("--connect-timeout", ms(timing.connect)),
                ("--response-head-timeout", ms(timing.head)),
                ("--check-interval", ms(timing.interval)),
                ("--check-fast-interval", ms(timing.fast_interval)),
                ("--check-timeout", ms(timing.connect)),
                ("--access-log", path(setup.log.clone())),
            ] {
                words.extend([flag.to_owned(), value]);
            }
            for backend in setup.backends {
                words.extend(["--backend".to_owned(), backend.clone()]);
            }
            if setup.by_load {
                words.extend(["--policy".to_owned(), "peak_ewma".to_owned()]);
            }
            words.extend(setup.arguments.iter().cloned());
            Ok((setup.release.join("loadbalancer"), words))
        }
    }
}

/// Whether it forwards a request.
fn answers(port: u16) -> Result<(), String> {
    let mut stream = http::connect(port).map_err(|e| format!("port {port}: {e}"))?;
    // As often as there are backends, so that each was found to be well.
    (0..3).try_for_each(|_| http::ask(&mut stream, "/", 0, 2))
}
