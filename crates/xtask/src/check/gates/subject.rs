//! The programs that are measured: the release binaries, started as a person would, under an observer.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::{Error, pact};

/// An observer makes the program some fifty times slower.
const PATIENCE: Duration = Duration::from_secs(60);

const BACKENDS: usize = 3;

/// Who observes.
pub(super) enum Under<'a> {
    /// Counts instructions; profiles are written to this path with a number for each thread.
    Callgrind(&'a Path),
    /// Counts system calls; the table is written to this path.
    Strace(&'a Path),
}

/// A program that has said that it serves. Killed when dropped.
struct Program {
    child: Child,
    port: u16,
}

impl Drop for Program {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(mut command: Command, key: &str) -> Result<Self, Error> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let name = command.get_program().display().to_string();
        let failed = |what: String| Error::Failed(format!("{name}: {what}"));
        let mut child = command.spawn().map_err(|e| failed(e.to_string()))?;
        let stdout = child.stdout.take();
        let mut program = Self { child, port: 0 };
        // The line comes, or the program ends and with it the lines.
        let mut lines = stdout.map(|stdout| BufReader::new(stdout).lines()).into_iter().flatten();
        let ready = lines.find_map(|line| line.ok().filter(|line| line.starts_with("ready ")));
        let ready = ready.ok_or_else(|| failed("ended before it served; is it built, and may it be traced?".into()))?;
        let url = ready.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        let port = url.and_then(|url| url.rsplit(':').next()?.parse().ok());
        program.port = port.ok_or_else(|| failed(format!("no {key} in its ready line: {ready}")))?;
        Ok(program)
    }
}

/// The servers behind the load balancer.
pub(super) struct Backends(Vec<Program>);

impl Backends {
    pub(super) fn start(release: &Path) -> Result<Self, Error> {
        let start = |_| {
            let mut server = pact::command(&release.join("server"));
            server.args(["--port", "0", "--bind", "127.0.0.1"]);
            Program::start(server, "url")
        };
        (0..BACKENDS).map(start).collect::<Result<_, _>>().map(Self)
    }

    /// As HOST:PORT.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.0.iter().map(|server| format!("127.0.0.1:{}", server.port)).collect()
    }
}

/// The load balancer, observed.
pub(super) struct Subject {
    program: Program,
    pub(super) port: u16,
}

impl Subject {
    pub(super) fn start(release: &Path, backends: &[String], under: &Under<'_>) -> Result<Self, Error> {
        let mut command = match under {
            Under::Callgrind(out) => {
                let mut valgrind = pact::command(Path::new("valgrind"));
                valgrind.args(["--quiet", "--tool=callgrind", "--separate-threads=yes"]);
                valgrind.arg(format!("--callgrind-out-file={}", out.display()));
                valgrind
            }
            Under::Strace(out) => {
                let _ = std::fs::remove_file(out);
                // -D: the program is our child, and the tracer its grandchild, so that a signal reaches the program.
                let mut strace = pact::command(Path::new("strace"));
                strace.args(["-D", "-f", "-c", "-o"]).arg(out);
                strace
            }
        };
        command.arg(release.join("loadbalancer"));
        // Checks of health would count.
        command.args(["--workers", "1", "--port", "0", "--bind", "127.0.0.1", "--admin-port", "0"]);
        command.args(["--check-interval", "1h", "--log-level", "error"]);
        // What is idle stays, however slow the observer makes everything.
        command.args(["--keep-alive-timeout", "1h"]);
        for backend in backends {
            command.args(["--backend", backend]);
        }
        let program = Program::start(command, "proxy")?;
        Ok(Self { port: program.port, program })
    }

    /// Ends it in an orderly way, for the observer writes down what it saw at the end.
    pub(super) fn end(mut self) -> Result<(), Error> {
        let failed = |what: String| Error::Failed(format!("the load balancer {what}"));
        let kill = Command::new("kill").args(["-s", "TERM", &self.program.child.id().to_string()]).status();
        kill.map_err(|e| failed(format!("cannot be signalled: {e}")))?;
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match self.program.child.try_wait() {
                Ok(None) => sleep(Duration::from_millis(20)),
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(failed(format!("ended with {status}"))),
                Err(e) => return Err(failed(format!("cannot be waited for: {e}"))),
            }
        }
        Err(failed(format!("did not end within {PATIENCE:?}")))
    }
}
