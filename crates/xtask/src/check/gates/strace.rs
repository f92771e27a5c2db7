//! What strace counted: how often each system call was made, by all threads together.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Error;

/// What moves bytes, whichever of its forms is used.
const TRANSFERS: [&str; 16] = [
    "read", "readv", "pread64", "recvfrom", "recvmsg", "recvmmsg", "recv", "write", "writev", "pwrite64", "sendto",
    "sendmsg", "sendmmsg", "send", "sendfile", "splice",
];
const WAITS: [&str; 5] = ["epoll_wait", "epoll_pwait", "epoll_pwait2", "poll", "ppoll"];
const ACCEPTS: [&str; 2] = ["accept", "accept4"];

/// The tracer writes its table after its program has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// Calls by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Calls(BTreeMap<String, u64>);

impl Calls {
    pub(super) fn transfers(&self) -> u64 {
        self.sum(&TRANSFERS)
    }

    pub(super) fn waits(&self) -> u64 {
        self.sum(&WAITS)
    }

    pub(super) fn accepts(&self) -> u64 {
        self.sum(&ACCEPTS)
    }

    pub(super) fn all(&self) -> u64 {
        self.0.values().sum()
    }

    fn sum(&self, names: &[&str]) -> u64 {
        names.iter().filter_map(|name| self.0.get(*name)).sum()
    }

    /// The table of `strace -c`, or `None` while it is not complete.
    fn parse(text: &str) -> Option<Self> {
        let mut calls = BTreeMap::new();
        for line in text.lines() {
            // % time, seconds, usecs/call, calls, errors if there were any, syscall.
            let words: Vec<&str> = line.split_whitespace().collect();
            let (Some(count), Some(name)) = (words.get(3).and_then(|count| count.parse().ok()), words.last()) else {
                continue;
            };
            if *name == "total" {
                return Some(Self(calls));
            }
            calls.insert((*name).to_owned(), count);
        }
        None
    }
}

/// Waits for the table.
pub(super) fn read(out: &Path) -> Result<Calls, Error> {
    let started = Instant::now();
    loop {
        if let Some(calls) = fs::read_to_string(out).ok().as_deref().and_then(Calls::parse) {
            return Ok(calls);
        }
        if started.elapsed() > PATIENCE {
            return Err(Error::Failed(format!("strace wrote no table to {}: may it trace here?", out.display())));
        }
        sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 56.81    1.613250        1404      1149           epoll_wait
 17.89    0.507894          16     30994           sendto
 16.99    0.482423          15     30957           writev
  8.17    0.232032           3     62016        24 recvfrom
  0.01    0.000332          12        27           socket
";

    #[test]
    fn the_table_counts_when_it_is_complete() {
        assert_eq!(Calls::parse(TABLE), None);
        let total = "100.00    2.839485          22    125726        79 total\n";
        let calls = Calls::parse(&format!("{TABLE}{total}")).unwrap();
        assert_eq!((calls.transfers(), calls.waits(), calls.accepts()), (30994 + 30957 + 62016, 1149, 0));
        assert_eq!(calls.all(), 1149 + 30994 + 30957 + 62016 + 27);
    }
}
