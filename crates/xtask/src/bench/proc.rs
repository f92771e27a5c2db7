//! What the kernel accounts to a process, from `/proc`.

use std::fs;
use std::path::PathBuf;

use crate::Error;

/// Microseconds in one tick of `/proc/PID/stat`: USER_HZ is 100 on every architecture that we build for.
const TICK_US: f64 = 10_000.0;

/// Ten ticks: below that, one more or less is more than 10 %. A proxy under load has a hundred in a second.
const LEAST_US: f64 = 100_000.0;

/// CPU time so far, in user code and in the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct CpuTime {
    user_ticks: u64,
    kernel_ticks: u64,
}

impl CpuTime {
    /// User and kernel microseconds for each of `count` since `before`.
    ///
    /// # Errors
    /// When the clock is too coarse for so little time.
    pub(crate) fn per(self, before: Self, count: u64) -> Result<(f64, f64), Error> {
        let each = |now: u64, before: u64| now.saturating_sub(before) as f64 * TICK_US / count.max(1) as f64;
        let total_us = self.total_us_since(before);
        if total_us < LEAST_US {
            let ms = total_us / 1000.0;
            return Err(Error::Failed(format!("{ms:.0} ms of CPU time are too few to count: measure for longer")));
        }
        Ok((each(self.user_ticks, before.user_ticks), each(self.kernel_ticks, before.kernel_ticks)))
    }

    pub(crate) fn total_us_since(self, before: Self) -> f64 {
        let spent = |now: u64, before: u64| now.saturating_sub(before) as f64 * TICK_US;
        spent(self.user_ticks, before.user_ticks) + spent(self.kernel_ticks, before.kernel_ticks)
    }
}

/// Of a process with all its threads, also those that have ended.
pub(crate) fn cpu_time(pid: u32) -> Result<CpuTime, Error> {
    read_stat(&format!("/proc/{pid}/stat")).map(|(_, time)| time)
}

/// Whose time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Process,
    /// Of ours, the threads that serve requests.
    Workers,
}

/// How long threads of a process have run so far, in µs. Finer than [`cpu_time`], and it does not say where; threads that
/// have ended are not in it.
///
/// # Errors
/// When the process is gone, or the kernel does not say.
pub(super) fn run_time_us(pid: u32, of: Of) -> Result<f64, Error> {
    let (mut ns, mut counted) = (0, 0);
    for thread in threads(pid)? {
        // A thread that ends just now has nothing to add.
        let read = |name: &str| fs::read_to_string(thread.join(name)).ok();
        let (Some(name), Some(text)) = (read("comm"), read("schedstat")) else { continue };
        if of == Of::Workers && worker_number(name.trim_end()).is_none() {
            continue;
        }
        let first = text.split(' ').next().and_then(|first| first.parse::<u64>().ok());
        let thread = thread.display();
        counted += 1;
        ns += first
            .ok_or_else(|| Error::Failed(format!("{thread}/schedstat is not as the kernel describes it: {text}")))?;
    }
    if counted == 0 {
        return Err(Error::Failed(format!("nothing says how long the threads of process {pid} have run")));
    }
    Ok(ns as f64 / 1000.0)
}

fn worker_number(thread: &str) -> Option<u32> {
    thread.strip_prefix("worker-")?.parse().ok()
}

fn threads(pid: u32) -> Result<Vec<PathBuf>, Error> {
    let dir = format!("/proc/{pid}/task");
    let entries = fs::read_dir(&dir).map_err(|e| Error::Failed(format!("{dir}: {e}: the proxy is gone")))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Of each thread of ours that serves requests, in the order of their numbers.
pub(crate) fn worker_times(pid: u32) -> Result<Vec<CpuTime>, Error> {
    let mut workers = Vec::new();
    for thread in threads(pid)? {
        let (name, time) = read_stat(&thread.join("stat").to_string_lossy())?;
        if let Some(number) = worker_number(&name) {
            workers.push((number, time));
        }
    }
    workers.sort_by_key(|(number, _)| *number);
    if workers.is_empty() {
        return Err(Error::Failed(format!("no thread of process {pid} is called worker-N")));
    }
    Ok(workers.into_iter().map(|(_, time)| time).collect())
}

fn read_stat(path: &str) -> Result<(String, CpuTime), Error> {
    let text = fs::read_to_string(path).map_err(|e| Error::Failed(format!("{path}: {e}: the proxy is gone")))?;
    parse_stat(&text).ok_or_else(|| Error::Failed(format!("{path} is not as proc(5) says: {text}")))
}

/// Name and CPU time.
fn parse_stat(text: &str) -> Option<(String, CpuTime)> {
    // The second field is the name in parentheses and may contain anything; utime and stime are the 14th and 15th.
    let (_, rest) = text.split_once('(')?;
    let (name, rest) = rest.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let time = CpuTime { user_ticks: fields.next()?.parse().ok()?, kernel_ticks: fields.next()?.parse().ok()? };
    Some((name.to_owned(), time))
}

/// Resident memory of a process, in bytes.
pub(crate) fn resident_bytes(pid: u32) -> Result<u64, Error> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).map_err(|e| Error::Failed(format!("{path}: {e}: the proxy is gone")))?;
    parse_resident(&text).ok_or_else(|| Error::Failed(format!("{path} has no VmRSS")))
}

fn parse_resident(status: &str) -> Option<u64> {
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?.trim().strip_suffix(" kB")?;
    kib.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_found_whatever_the_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 314 159 26 5 20 0 1 0 100";
        let time = CpuTime { user_ticks: 314, kernel_ticks: 159 };
        assert_eq!(parse_stat(stat), Some(("a) b (c)".to_owned(), time)));
        assert_eq!(parse_stat("42 (a) S 1"), None);
        assert!(cpu_time(std::process::id()).is_ok());
    }

    #[test]
    fn time_is_shared_out_to_what_was_done_in_it() {
        let before = CpuTime { user_ticks: 100, kernel_ticks: 50 };
        let after = CpuTime { user_ticks: 130, kernel_ticks: 150 };
        assert_eq!(after.per(before, 100_000).map_err(|e| e.to_string()), Ok((3.0, 10.0)));
        let few = CpuTime { user_ticks: 105, kernel_ticks: 54 };
        assert!(few.per(before, 1).unwrap_err().to_string().starts_with("90 ms of CPU time are too few"));
        assert_eq!(after.total_us_since(before), 1_300_000.0);
    }

    #[test]
    fn only_workers_are_workers() {
        let worker = std::thread::Builder::new().name("worker-0".to_owned());
        let (end, until) = std::sync::mpsc::channel::<()>();
        let worker = worker.spawn(move || until.recv()).unwrap();
        // A thread names itself, a moment after it was started.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while worker_times(std::process::id()).is_err() && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!(worker_times(std::process::id()).unwrap().len(), 1);
        drop(end);
        assert!(worker.join().unwrap().is_err());
    }

    #[test]
    fn what_runs_is_counted() {
        // A process of its own: here, threads come and go.
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        let ran_us = || run_time_us(child.id(), Of::Process).unwrap();
        let (before_us, deadline) = (ran_us(), std::time::Instant::now() + std::time::Duration::from_secs(60));
        while ran_us() - before_us < 10_000.0 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        let after_us = ran_us();
        let workers = run_time_us(child.id(), Of::Workers);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(after_us - before_us >= 10_000.0, "{before_us} to {after_us}");
        assert!(workers.unwrap_err().to_string().starts_with("nothing says how long"));
        assert!(run_time_us(child.id(), Of::Process).is_err());
    }

    #[test]
    fn resident_memory() {
        assert_eq!(parse_resident("VmHWM:\t 9 kB\nVmRSS:\t    5940 kB\nRssAnon:\t1 kB\n"), Some(5940 * 1024));
        assert_eq!(parse_resident("VmHWM:\t 9 kB\n"), None);
        assert!(resident_bytes(std::process::id()).unwrap() > 0);
    }
}
