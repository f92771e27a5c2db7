//! Whether there is too much of everything, and how it is known: what the process takes of its memory, and what that is.
//!
//! The limit is the operator's word, else the least of what the control group (version 2 or 1, and those above it) and
//! the machine have. What is measured against it is what would be counted against it: resident memory, or in a control
//! group what the group uses without the file cache that the kernel would drop first.
//!
//! [`Overload`] is written by the control task, four times a second, and read by every request: one relaxed load of a
//! line that hardly ever changes. What follows is done where the things are: `proxy` refuses requests, `listen` turns
//! connections away, each worker's sweep closes what is idle and offers the memory back.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use lb_core::overload::{Level, SHED_FROM, SHRINK_FROM};

/// What the control task found last.
#[derive(Debug, Default)]
pub(crate) struct Overload {
    /// A [`Level`] as its number.
    level: CachePadded<AtomicU8>,
    used: AtomicU64,
    limit: AtomicU64,
    /// New connections that there is memory for until the next look: set by the control task, taken from by workers.
    /// Between two looks thousands may come, and nothing else would stop them in time.
    room: CachePadded<AtomicI64>,
}

/// What a connection may take at its worst before it is looked at again: the buffer that its head is read into.
const CONNECTION_BYTES: u64 = 64 << 10;

impl Overload {
    /// Whether there is memory for one more connection, which is counted in.
    pub(crate) fn has_room(&self) -> bool {
        self.room.fetch_sub(1, Ordering::Relaxed) > 0
    }

    pub(crate) fn level(&self) -> Level {
        match self.level.load(Ordering::Relaxed) {
            0 => Level::Calm,
            1 => Level::Shrink,
            _ => Level::Shed,
        }
    }

    /// Whether new requests are refused.
    pub(crate) fn sheds(&self) -> bool {
        self.level() == Level::Shed
    }

    /// Bytes used, and bytes there are.
    pub(crate) fn memory(&self) -> (u64, u64) {
        (self.used.load(Ordering::Relaxed), self.limit.load(Ordering::Relaxed))
    }

    /// The control task's word.
    pub(crate) fn set(&self, level: Level, used: u64, limit: u64) {
        self.used.store(used, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
        let below = (limit / 100 * SHED_FROM).saturating_sub(used) / CONNECTION_BYTES;
        // Without a limit there is always room.
        self.room.store(if limit == 0 { i64::MAX } else { below as i64 }, Ordering::Relaxed);
    }
}

/// Whose limit it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Operator,
    /// Its directory, and whether it is one of version 2.
    Group(PathBuf, bool),
    Machine,
    /// None is known: nothing is ever too much.
    Unknown,
}

/// A limit of memory, and what is measured against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    pub limit: u64,
    pub source: Source,
    root: PathBuf,
}

/// Version 1 says "none" by a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// Where version 2 and version 1 are mounted; the third where both are.
const V2: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
const V1: &str = "sys/fs/cgroup/memory";

impl Memory {
    /// The least limit there is; `asked` is the operator's. `root` is `/` but in tests.
    pub(crate) fn find(asked: Option<u64>, root: &Path) -> Self {
        let found = |limit, source| Self { limit, source, root: root.to_owned() };
        if let Some(asked) = asked {
            return found(asked, Source::Operator);
        }
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        let machine = meminfo(&fs::read_to_string(root.join("proc/meminfo")).unwrap_or_default());
        let mut least = machine.map_or_else(|| found(0, Source::Unknown), |bytes| found(bytes, Source::Machine));
        for (directory, v2) in directories(&groups, root) {
            let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
            if let Some(limit) = number(&directory.join(file)).filter(|limit| (1..NO_LIMIT).contains(limit))
                && (least.limit == 0 || limit < least.limit)
            {
                least = found(limit, Source::Group(directory, v2));
            }
        }
        least
    }

    /// Bytes used of it now. Two or three small files: not for a request's path.
    pub(crate) fn used(&self) -> u64 {
        let resident = resident(&self.root);
        let Source::Group(directory, v2) = &self.source else { return resident };
        let (usage, cache) = match v2 {
            true => ("memory.current", "inactive_file "),
            false => ("memory.usage_in_bytes", "total_inactive_file "),
        };
        let usage = number(&directory.join(usage)).unwrap_or_default();
        // The sum is what matters only when it is large, and the kernel adds up all processors' numbers for the rest.
        if usage < self.limit / 100 * (SHRINK_FROM - 10) {
            return usage.max(resident);
        }
        let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
        let dropped_first = stat.lines().find_map(|line| line.strip_prefix(cache)?.parse().ok()).unwrap_or_default();
        usage.saturating_sub(dropped_first).max(resident)
    }

    /// Whose limit it is, for people.
    pub(crate) fn words(&self) -> String {
        match &self.source {
            Source::Operator => "overload.memory".to_owned(),
            Source::Group(directory, _) => format!("the control group {}", directory.display()),
            Source::Machine => "the machine's memory".to_owned(),
            Source::Unknown => "no limit is known".to_owned(),
        }
    }
}

/// Resident memory. The second number of statm, in pages; they are 4 KiB on every platform we run on.
pub(crate) fn resident(root: &Path) -> u64 {
    let statm = fs::read_to_string(root.join("proc/self/statm")).unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}

/// The control groups that the process is in, and those above them, each with whether it is of version 2. In a container
/// the path may be one that only the host knows; the mount itself is then the group.
fn directories(groups: &str, root: &Path) -> Vec<(PathBuf, bool)> {
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let v2 = controllers.is_empty();
        if !v2 && !controllers.split(',').any(|name| name == "memory") {
            continue;
        }
        for mount in if v2 { &V2[..] } else { &[V1] } {
            let mut path = Path::new(path.trim_start_matches('/'));
            loop {
                found.push((root.join(mount).join(path), v2));
                let Some(above) = path.parent() else { break };
                path = above;
            }
        }
    }
    found
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// `MemTotal:  16384 kB`.
fn meminfo(text: &str) -> Option<u64> {
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files below a directory of its own.
    fn tree(name: &str, files: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("lb-overload-{}-{name}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1024 kB\nMemFree:  7 kB\n");
    const STATM: (&str, &str) = ("proc/self/statm", "100 20 5 1 0 9 0\n");

    #[test]
    fn the_operator_has_the_last_word_and_resident_memory_is_measured() {
        let root = tree("asked", &[MEMINFO, STATM]);
        let memory = Memory::find(Some(77), &root);
        assert_eq!((memory.limit, memory.used(), &*memory.words()), (77, 20 * 4096, "overload.memory"));
        let memory = Memory::find(None, &root);
        assert_eq!((memory.limit, memory.source), (1 << 20, Source::Machine));
        assert_eq!(Memory::find(None, Path::new("/nonexistent")).source, Source::Unknown);
    }

    #[test]
    fn the_tightest_group_of_version_2_counts_also_above_and_its_file_cache_does_not() {
        let root = tree(
            "v2",
            &[
                MEMINFO,
                STATM,
                ("proc/self/cgroup", "0::/kube/pod/main\n"),
                ("sys/fs/cgroup/kube/pod/main/memory.max", "max\n"),
                ("sys/fs/cgroup/kube/pod/memory.max", "500000\n"),
                ("sys/fs/cgroup/kube/pod/memory.current", "480000\n"),
                ("sys/fs/cgroup/kube/pod/memory.stat", "anon 1\ninactive_file 100000\nactive_file 3\n"),
                ("sys/fs/cgroup/kube/memory.max", "900000\n"),
            ],
        );
        let memory = Memory::find(None, &root);
        assert_eq!((memory.limit, memory.used()), (500_000, 380_000));
        assert_eq!(memory.source, Source::Group(root.join("sys/fs/cgroup/kube/pod"), true));
        fs::write(root.join("sys/fs/cgroup/kube/pod/memory.current"), "90000\n").unwrap();
        assert_eq!(memory.used(), 90_000);
    }

    #[test]
    fn version_1_and_a_path_that_only_the_host_knows() {
        let root = tree(
            "v1",
            &[
                MEMINFO,
                STATM,
                ("proc/self/cgroup", "5:cpu,memory:/docker/0123\n4:pids:/x\n0::/\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", "300000\n"),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", "299999\n"),
                ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 9999\n"),
            ],
        );
        let memory = Memory::find(None, &root);
        assert_eq!((memory.limit, memory.used()), (300_000, 290_000));
        fs::write(root.join("sys/fs/cgroup/memory/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(Memory::find(None, &root).source, Source::Machine, "no limit is a number near 2^63");
    }
}
