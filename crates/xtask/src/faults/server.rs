//! The fault server as the rig sees it: a process that takes orders, and can be stopped, paused and killed.

use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::origin::Mode;
use crate::{Error, pact};

pub(super) struct Server {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    number: usize,
    seed: u64,
    book: PathBuf,
    mode: Mode,
    running: Option<Running>,
}

struct Running {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // Errors mean that it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts it, and waits until it listens.
    pub(super) fn start(number: usize, address: IpAddr, port: u16, book: PathBuf, seed: u64) -> Result<Self, Error> {
        let mut server = Self { address, port, number, seed, book, mode: Mode::Serve, running: None };
        server.begin()?;
        Ok(server)
    }

    /// Starts it again after it was killed or stopped, in the mode it had.
    pub(super) fn begin(&mut self) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::Failed(format!("cannot start an origin: {e}"));
        let mut command = pact::command(&std::env::current_exe().map_err(failed)?);
        command.arg("fault-origin").args(["--bind", &self.address.to_string(), "--port", &self.port.to_string()]);
        command.args(["--number", &self.number.to_string(), "--seed", &self.seed.to_string()]);
        command.args(["--mode", &self.mode.to_string()]).arg("--book").arg(&self.book);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::Failed("an origin without pipes".to_owned()));
        };
        let mut running = Running { child, orders, answers: BufReader::new(answers) };
        running.expect("ready")?;
        self.running = Some(running);
        Ok(())
    }

    /// Switches it, and returns once that is so.
    pub(super) fn order(&mut self, mode: Mode) -> Result<(), Error> {
        self.mode = mode;
        let running = self.running()?;
        running.say(&mode.to_string())?;
        running.expect("ok")
    }

    /// SIGKILL.
    pub(super) fn kill(&mut self) {
        self.running = None;
    }

    /// Lets it finish what it has begun, and end.
    pub(super) fn stop(&mut self) -> Result<(), Error> {
        if let Some(mut running) = self.running.take() {
            running.say("stop")?;
            let _ = running.child.wait();
        }
        Ok(())
    }

    /// Stops the world for it, or lets it go on.
    pub(super) fn pause(&mut self, paused: bool) -> Result<(), Error> {
        let pid = self.running()?.child.id();
        signal(pid, if paused { "STOP" } else { "CONT" })
    }

    fn running(&mut self) -> Result<&mut Running, Error> {
        let number = self.number;
        self.running.as_mut().ok_or_else(|| Error::Failed(format!("origin {number} does not run")))
    }
}

impl Running {
    fn say(&mut self, order: &str) -> Result<(), Error> {
        writeln!(self.orders, "{order}").map_err(|e| Error::Failed(format!("an origin takes no orders: {e}")))
    }

    fn expect(&mut self, word: &str) -> Result<(), Error> {
        let mut line = String::new();
        match self.answers.read_line(&mut line) {
            Ok(1..) if line.trim_end() == word => Ok(()),
            _ => Err(Error::Failed(format!("an origin said {:?} instead of {word}", line.trim_end()))),
        }
    }
}

/// Sends a signal to a process that was started here.
pub(super) fn signal(pid: u32, name: &str) -> Result<(), Error> {
    let sent = Command::new("kill").args(["-s", name, &pid.to_string()]).status();
    if sent.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(Error::Failed(format!("cannot send SIG{name} to {pid}")))
}
