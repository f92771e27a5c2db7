//! One measurement: wrk on one side, the proxy's CPU time from `/proc` on the other.

use std::path::Path;
use std::process::{Command, Stdio};

use super::contender::Proxy;
use super::site::Site;
use crate::{Error, pact};

/// Microseconds in one tick of `/proc/PID/stat`: USER_HZ is 100 on every architecture that we build for.
const TICK_US: f64 = 10_000.0;

/// Fills caches, opens all connections, and lets the kernel's buffers grow.
const WARM_UP_S: u32 = 1;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) name: &'static str,
    pub(super) path: &'static str,
    pub(super) bytes: usize,
    pub(super) connections: u32,
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) requests: u64,
    pub(super) requests_per_s: f64,
    /// CPU time of the proxy per request, in its own code and in the kernel.
    pub(super) user_us: f64,
    pub(super) sys_us: f64,
}

impl Sample {
    pub(super) fn cpu_us(&self) -> f64 {
        self.user_us + self.sys_us
    }
}

/// Loads `proxy` for some seconds.
pub(super) fn measure(site: &Site, proxy: &Proxy, work: Work, seconds: u32) -> Result<Sample, Error> {
    wrk(site, proxy, work, WARM_UP_S)?;
    let (user_before, sys_before) = cpu_ticks(proxy.pid())?;
    let (requests, requests_per_s) = wrk(site, proxy, work, seconds)?;
    let (user_after, sys_after) = cpu_ticks(proxy.pid())?;
    let per_request = |ticks: u64| ticks as f64 * TICK_US / requests.max(1) as f64;
    Ok(Sample {
        requests,
        requests_per_s,
        user_us: per_request(user_after - user_before),
        sys_us: per_request(sys_after - sys_before),
    })
}

/// Requests, and requests per second.
fn wrk(site: &Site, proxy: &Proxy, work: Work, seconds: u32) -> Result<(u64, f64), Error> {
    let mut command: Command = pact::command(Path::new("taskset"));
    command.args(["-c", &site.load_cores, "wrk", "--threads", "1"]);
    command.args(["--connections", &work.connections.to_string(), "--duration", &format!("{seconds}s")]);
    command.arg(format!("http://127.0.0.1:{}{}", proxy.port, work.path));
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| Error::Failed(format!("cannot run wrk: {e}")))?;
    parse_wrk(&String::from_utf8_lossy(&output.stdout)).map_err(Error::Failed)
}

/// A figure counts only if every answer was right.
fn parse_wrk(text: &str) -> Result<(u64, f64), String> {
    let wrong = |line: &&str| line.contains("Socket errors") || line.contains("Non-2xx");
    if let Some(line) = text.lines().find(wrong) {
        return Err(format!("not all requests were answered well: {}", line.trim()));
    }
    let requests = text.lines().find_map(|line| line.split_once(" requests in ")?.0.trim().parse().ok());
    let per_s = text.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse().ok());
    match (requests, per_s) {
        (Some(requests), Some(per_s)) if requests > 0 => Ok((requests, per_s)),
        _ => Err(format!("wrk did not say how many requests it made:\n{text}")),
    }
}

/// CPU time of a process with all its threads, in user code and in the kernel.
fn cpu_ticks(pid: u32) -> Result<(u64, u64), Error> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(|e| Error::Failed(format!("{path}: {e}: the proxy is gone")))?;
    parse_stat(&text).ok_or_else(|| Error::Failed(format!("{path} is not as proc(5) says: {text}")))
}

fn parse_stat(text: &str) -> Option<(u64, u64)> {
    // The second field is the program's name in parentheses and may contain anything; utime and stime are the 14th
    // and 15th.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRK: &str = "Running 5s test @ http://127.0.0.1:1/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.05ms  100.00us   3.00ms   90.00%
  303030 requests in 5.00s, 80.00MB read
Requests/sec:  60606.06
Transfer/sec:     16.00MB
";

    #[test]
    fn the_output_of_wrk() {
        assert_eq!(parse_wrk(WRK), Ok((303_030, 60606.06)));
        assert!(parse_wrk("unable to connect").is_err());
    }

    #[test]
    fn wrong_answers_spoil_a_figure() {
        for line in ["  Non-2xx or 3xx responses: 7", "  Socket errors: connect 0, read 1, write 0, timeout 0"] {
            let error = parse_wrk(&format!("{WRK}{line}\n")).unwrap_err();
            assert!(error.ends_with(line.trim()), "{error}");
        }
    }

    #[test]
    fn cpu_time_is_found_whatever_the_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 314 159 26 5 20 0 1 0 100";
        assert_eq!(parse_stat(stat), Some((314, 159)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
        assert!(cpu_ticks(std::process::id()).is_ok());
    }
}
