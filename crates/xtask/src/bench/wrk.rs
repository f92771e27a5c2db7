//! Closed-loop load: wrk asks again as soon as it has its answer.

use std::path::Path;
use std::time::Duration;

use super::process::{output_within, pinned};
use super::site::Dir;
use super::work::Http;
use crate::Error;

/// For wrk to start, connect, and say what it saw, beyond the time it was told to take.
const SPARE: Duration = Duration::from_secs(15);

/// wrk on its cores.
pub(super) struct Wrk<'a> {
    pub(super) dir: &'a Dir,
    pub(super) cores: &'a str,
    pub(super) threads: usize,
}

/// What it did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Done {
    pub(super) requests: u64,
    pub(super) per_s: f64,
}

impl Wrk<'_> {
    /// Loads the proxy so that what is measured next is not the first.
    ///
    /// # Errors
    /// When an answer was wrong. That there was none yet is no error: a slow one may need longer than this.
    pub(super) fn warm_up(&self, port: u16, http: &Http, seconds: u32) -> Result<Done, Error> {
        self.run(port, http, seconds)
    }

    /// # Errors
    /// When an answer was wrong, or there was none.
    pub(super) fn load(&self, port: u16, http: &Http, seconds: u32) -> Result<Done, Error> {
        let done = self.run(port, http, seconds)?;
        if done.requests == 0 {
            return Err(Error::Failed(format!("no request was answered within {seconds} s")));
        }
        Ok(done)
    }

    fn run(&self, port: u16, http: &Http, seconds: u32) -> Result<Done, Error> {
        let mut command = pinned(self.cores, Path::new("wrk"));
        command.args(["--threads", &self.threads.to_string(), "--connections", &http.connections.to_string()]);
        // Its own default of 2 s would call a slow answer a wrong one.
        command.args(["--duration", &format!("{seconds}s"), "--timeout", "10s"]);
        if http.close {
            command.args(["--header", "Connection: close"]);
        }
        if http.upload > 0 {
            let script = format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {})\n", http.upload);
            command.arg("--script").arg(self.dir.write("upload.lua", &script)?);
        }
        command.arg(format!("http://127.0.0.1:{port}{}", http.path));
        let limit = Duration::from_secs(seconds.into()) + SPARE;
        output_within(&mut command, limit).and_then(|text| parse(&text)).map_err(Error::Failed)
    }
}

/// A figure counts only if every answer was right.
fn parse(text: &str) -> Result<Done, String> {
    let wrong = |line: &&str| line.contains("Socket errors") || line.contains("Non-2xx");
    if let Some(line) = text.lines().find(wrong) {
        return Err(format!("not all requests were answered well: {}", line.trim()));
    }
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    let per_s = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    match (requests, per_s) {
        (Some(requests), Some(per_s)) => Ok(Done { requests, per_s }),
        _ => Err(format!("wrk did not say how many requests it made: {}", text.trim().replace('\n', "; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "Running 5s test @ http://127.0.0.1:1/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.05ms  100.00us   3.00ms   90.00%
  303030 requests in 5.00s, 80.00MB read
Requests/sec:  60606.06
Transfer/sec:     16.00MB
";

    #[test]
    fn the_output_of_wrk() {
        assert_eq!(parse(OUTPUT), Ok(Done { requests: 303_030, per_s: 60606.06 }));
        assert!(parse("unable to connect").is_err());
        assert_eq!(parse(&OUTPUT.replace("303030", "0")).map(|done| done.requests), Ok(0));
    }

    #[test]
    fn wrong_answers_spoil_a_figure() {
        for line in ["  Non-2xx or 3xx responses: 7", "  Socket errors: connect 0, read 1, write 0, timeout 0"] {
            let error = parse(&format!("{OUTPUT}{line}\n")).unwrap_err();
            assert!(error.ends_with(line.trim()), "{error}");
        }
    }
}
