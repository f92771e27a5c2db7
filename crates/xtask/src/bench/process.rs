//! Children on given cores that end with what started them, and never later than they should.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, pact};

/// How often a child is looked at that should end by itself.
const LOOK: Duration = Duration::from_millis(10);

/// How long a child that is asked to end may take.
const GRACE: Duration = Duration::from_secs(5);

/// How many children there were.
static STARTED: AtomicU32 = AtomicU32::new(0);

/// A child; killed and waited for when dropped.
pub(crate) struct Process {
    child: Child,
    /// What it says on standard error.
    said: PathBuf,
    /// It is asked to end before it is killed.
    is_asked: bool,
}

impl Process {
    /// Starts `program` on `cores`; what it says goes to a file in `dir`.
    pub(crate) fn start(
        dir: &Path,
        cores: &str,
        program: &Path,
        arguments: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Result<Self, Error> {
        let failed = |e| Error::Failed(format!("cannot start {}: {e}", program.display()));
        let name = program.file_name().map_or_else(|| "program".into(), |name| name.to_string_lossy());
        // Several of the same program may run at once.
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let said = dir.join(format!("{name}-{number}.err"));
        let errors = File::create(&said).map_err(failed)?;
        let mut command = pinned(cores, program);
        arguments(&mut command).stdout(Stdio::null()).stderr(errors);
        Ok(Self { child: command.spawn().map_err(failed)?, said, is_asked: false })
    }

    /// Has it end as an operator would end it: with a SIGTERM, and time to write down what it has to.
    pub(crate) fn gently(mut self) -> Self {
        self.is_asked = true;
        self
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has or [`GRACE`] is over. Sending a signal from Rust takes unsafe code or one
    /// more crate; the shell has `kill` built in.
    fn ask_to_end(&mut self) {
        let kill = format!("kill -s TERM {}", self.child.id());
        let _ = Command::new("sh").args(["-c", &kill]).stderr(Stdio::null()).status();
        let deadline = Instant::now() + GRACE;
        while self.ended().is_none() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until `is_ready`; says why not if the process ends before, or `limit` passes.
    pub(crate) fn wait_until(
        &mut self,
        limit: Duration,
        is_ready: impl Fn() -> Result<(), String>,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + limit;
        loop {
            let Err(reason) = is_ready() else { return Ok(()) };
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::Failed(format!("it ended with {status}{}", self.last_words())));
            }
            if Instant::now() > deadline {
                return Err(Error::Failed(format!("it does not answer as it should: {reason}{}", self.last_words())));
            }
            thread::sleep(LOOK);
        }
    }

    /// The last line on its standard error, with something before it to go on a message.
    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.said).unwrap_or_default();
        let last = text.lines().rfind(|line| !line.trim().is_empty());
        last.map_or_else(String::new, |line| format!(" (it said: {})", line.trim()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_asked && self.ended().is_none() {
            self.ask_to_end();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that runs `program` on `cores`, and dies with this process.
pub(crate) fn pinned(cores: &str, program: &Path) -> Command {
    let mut command = pact::command(Path::new("taskset"));
    command.args(["-c", cores]).arg(program);
    // Debian keeps the peers in /usr/sbin, which is not on every user's path.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    command.env("PATH", path).stdin(Stdio::null());
    command
}

/// Moves this process with all its threads to `cores`: it is load and backend, too.
pub(crate) fn move_to(cores: &str) -> Result<(), Error> {
    let mut taskset = Command::new("taskset");
    taskset.args(["--all-tasks", "--cpu-list", "--pid", cores, &std::process::id().to_string()]);
    output_within(&mut taskset, Duration::from_secs(5)).map(|_| ()).map_err(Error::Failed)
}

/// Standard output of a command that ends by itself within `limit`; killed if it does not.
pub(crate) fn output_within(command: &mut Command, limit: Duration) -> Result<String, String> {
    let name = crate::system::words(command);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let mut child = child.map_err(|e| format!("cannot run {name}: {e}"))?;
    let deadline = Instant::now() + limit;
    // What these commands print fits into a pipe, so it need not be read before they end.
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("{name} did not end within {} s", limit.as_secs()));
        }
        thread::sleep(LOOK);
    }
    let output = child.wait_with_output().map_err(|e| format!("cannot run {name}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name} ended with {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Different ports that are free now.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N], Error> {
    let failed = |e| Error::Failed(format!("cannot find a free port: {e}"));
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
        *port = listener.local_addr().map_err(failed)?.port();
        held.push(listener);
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &'static str) -> Process {
        let dir = std::env::temp_dir().join(format!("xtask-process-{}-{}", std::process::id(), script.len()));
        fs::create_dir_all(&dir).unwrap();
        Process::start(&dir, "0", Path::new("sh"), |sh| sh.args(["-c", script])).unwrap()
    }

    #[test]
    fn a_process_is_gone_once_it_is_dropped() {
        let process = sh("exec sleep 600");
        let proc = format!("/proc/{}", process.pid());
        assert!(Path::new(&proc).exists());
        drop(process);
        assert!(!Path::new(&proc).exists());
    }

    #[test]
    fn a_process_that_is_ended_gently_may_say_goodbye() {
        let goodbye = std::env::temp_dir().join(format!("xtask-goodbye-{}", std::process::id()));
        let script =
            format!("trap 'echo bye > {}; exit' TERM; echo on >&2; while :; do sleep 0.01; done", goodbye.display());
        let dir = std::env::temp_dir();
        let mut process = Process::start(&dir, "0", Path::new("sh"), |sh| sh.args(["-c", &script])).unwrap().gently();
        let said = process.said.clone();
        let is_on = || if fs::read_to_string(&said).unwrap().contains("on") { Ok(()) } else { Err("".into()) };
        process.wait_until(Duration::from_secs(60), is_on).unwrap();
        drop(process);
        assert_eq!(fs::read_to_string(&goodbye).unwrap(), "bye\n");
        fs::remove_file(&goodbye).unwrap();
    }

    #[test]
    fn a_program_that_ends_early_is_not_waited_for_and_its_last_words_are_told() {
        let mut process = sh("echo first >&2; echo no such option >&2; exit 3");
        let error = process.wait_until(Duration::from_secs(60), || Err("refused".to_owned())).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.ends_with("(it said: no such option)"), "{error}");
    }

    #[test]
    fn a_command_that_hangs_is_killed() {
        let started = Instant::now();
        let error = output_within(Command::new("sleep").arg("600"), Duration::from_millis(50)).unwrap_err();
        assert!(error.contains("sleep 600 did not end"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(60));
        assert_eq!(output_within(Command::new("echo").arg("yes"), Duration::from_secs(60)).as_deref(), Ok("yes\n"));
        assert!(output_within(&mut Command::new("false"), Duration::from_secs(60)).is_err());
    }
}
