//! What Linux knows of this process, for the `process_*` metrics. Read from /proc at each scrape; what cannot be
//! read is left out.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Clock ticks a second in /proc/self/stat: `USER_HZ`, which is 100 in the kernel's interface to user space on
/// every architecture that Rust's standard library supports on Linux, whatever the kernel's own tick is.
const TICKS_PER_S: f64 = 100.0;

/// Set by the first look, which is at start.
static STARTED_S: LazyLock<f64> =
    LazyLock::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()));

/// Remembers the time as the start of the process.
pub(super) fn started() -> f64 {
    *STARTED_S
}

/// User and system time so far.
pub(super) fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in parentheses and may itself hold spaces and parentheses: count from its end.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_S)
}

pub(super) fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

pub(super) fn open_fds() -> Option<usize> {
    // The directory's own descriptor is open while it is read.
    fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count().saturating_sub(1))
}
