//! Whether there is too much of everything, and how it is known: what the process takes of its memory and of its
//! descriptors, and what those are. The level is that of the scarcer of the two.
//!
//! The limit is the operator's word, else the least of what the control group (version 2 or 1, and those above it) and
//! the machine have. What is measured against it is what would be counted against it: resident memory, or in a control
//! group what the group uses without the file cache that the kernel would drop first. What others use of a group above
//! our own closes what we keep for later, but refuses nothing: that would end our service and relieve nobody.
//!
//! [`Overload`] is written by the control task, four times a second, and read by every request: one relaxed load of a
//! line that hardly ever changes. What follows is done where the things are: `proxy` refuses requests, `listen` turns
//! connections away, each worker's sweep closes what is idle and offers the memory back.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use crossbeam_utils::CachePadded;
use lb_core::health::is_our_own;
use lb_core::overload::{Level, OWN_FROM, SHED_FROM, SHRINK_FROM};

/// What the control task found last.
#[derive(Debug, Default)]
pub(crate) struct Overload {
    /// A [`Level`] as its number.
    level: CachePadded<AtomicU8>,
    used: AtomicU64,
    limit: AtomicU64,
    /// Descriptors that are open, and that there are; 0 when they are not watched.
    open: AtomicU64,
    descriptors: AtomicU64,
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

    /// Descriptors open, and the limit that they are watched against; 0 is none.
    pub(crate) fn descriptors(&self) -> (u64, u64) {
        (self.open.load(Ordering::Relaxed), self.descriptors.load(Ordering::Relaxed))
    }

    /// What is scarcest, in words.
    pub(crate) fn words(&self) -> String {
        let ((used, limit), (open, descriptors)) = (self.memory(), self.descriptors());
        let share = |used: u64, limit: u64| used as f64 / limit.max(1) as f64;
        if limit > 0 && share(used, limit) >= share(open, descriptors) || descriptors == 0 {
            format!("memory: {} of {} MiB used", used >> 20, limit >> 20)
        } else {
            format!("descriptors: {open} of {descriptors} open")
        }
    }

    /// The control task's word about descriptors.
    pub(crate) fn set_descriptors(&self, open: u64, limit: u64) {
        self.open.store(open, Ordering::Relaxed);
        self.descriptors.store(limit, Ordering::Relaxed);
    }

    /// The control task's word about memory, and the level of all. `room` is the bytes that new connections may take; `None` is no limit.
    pub(crate) fn set(&self, level: Level, used: u64, limit: u64, room: Option<u64>) {
        self.used.store(used, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
        self.room.store(room.map_or(i64::MAX, |bytes| (bytes / CONNECTION_BYTES) as i64), Ordering::Relaxed);
    }
}

/// Whose limit it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Operator,
    Group(Group),
    Machine,
    /// None is known: nothing is ever too much.
    Unknown,
}

/// A control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub directory: PathBuf,
    /// Whether it is one of version 2.
    pub v2: bool,
    /// Whether it is above the one that the process is in: others' memory counts in it too.
    pub above: bool,
}

/// A limit of memory, and what is measured against it. Its files stay open: one look costs two or three reads, and
/// succeeds when no descriptor is left.
#[derive(Debug)]
pub(crate) struct Memory {
    pub limit: u64,
    pub source: Source,
    resident: Option<File>,
    usage: Option<File>,
    stat: Option<File>,
}

/// What one look found, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Of the limit.
    pub used: u64,
    /// By this process alone.
    pub own: u64,
}

/// Version 1 says "none" by a number near 2^63.
const NO_LIMIT: u64 = 1 << 60;

/// Where version 2 and version 1 are mounted; the third where both are.
const V2: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
const V1: &str = "sys/fs/cgroup/memory";

/// Resident memory; see [`resident`].
const STATM: &str = "proc/self/statm";

impl Memory {
    /// The least limit there is; `asked` is the operator's. `root` is `/` but in tests.
    ///
    /// # Errors
    /// It cannot be known now, for want of means of our own. What is not there or not ours to read is no error.
    pub(crate) fn find(asked: Option<u64>, root: &Path) -> io::Result<Self> {
        if let Some(asked) = asked {
            return Ok(Self::open(asked, Source::Operator, root));
        }
        let groups = text(&root.join("proc/self/cgroup"))?.unwrap_or_default();
        let machine = text(&root.join("proc/meminfo"))?.as_deref().and_then(meminfo);
        let mut least = machine.map_or((0, Source::Unknown), |bytes| (bytes, Source::Machine));
        for group in groups_of(&groups, root) {
            let file = if group.v2 { "memory.max" } else { "memory.limit_in_bytes" };
            let limit = text(&group.directory.join(file))?.and_then(|limit| limit.trim().parse().ok());
            if let Some(limit) = limit.filter(|limit| (1..NO_LIMIT).contains(limit))
                && (least.0 == 0 || limit < least.0)
            {
                least = (limit, Source::Group(group));
            }
        }
        Ok(Self::open(least.0, least.1, root))
    }

    /// Nothing is known.
    pub(crate) fn unknown() -> Self {
        Self { limit: 0, source: Source::Unknown, resident: None, usage: None, stat: None }
    }

    fn open(limit: u64, source: Source, root: &Path) -> Self {
        let (usage, stat) = match &source {
            Source::Group(group) => {
                let usage = if group.v2 { "memory.current" } else { "memory.usage_in_bytes" };
                let open = |name| File::open(group.directory.join(name)).ok();
                (open(usage), open("memory.stat"))
            }
            _ => (None, None),
        };
        Self { limit, source, resident: File::open(root.join(STATM)).ok(), usage, stat }
    }

    /// What is used of it now; `None` when that cannot be read, which says nothing. Not for a request's path.
    pub(crate) fn read(&self) -> Option<Reading> {
        let own = pages(&again(self.resident.as_ref()?)?)?;
        let Source::Group(group) = &self.source else { return Some(Reading { used: own, own }) };
        let usage: u64 = again(self.usage.as_ref()?)?.trim().parse().ok()?;
        // The sum is what matters only when it is large, and the kernel adds up all processors' numbers for the rest.
        let dropped_first = match &self.stat {
            Some(stat) if usage >= self.limit / 100 * (SHRINK_FROM - 10) => {
                let cache = if group.v2 { "inactive_file " } else { "total_inactive_file " };
                again(stat)?.lines().find_map(|line| line.strip_prefix(cache)?.parse().ok()).unwrap_or_default()
            }
            _ => 0,
        };
        Some(Reading { used: usage.saturating_sub(dropped_first).max(own), own })
    }

    /// The level after `reading`.
    pub(crate) fn level(&self, before: Level, reading: Reading) -> Level {
        let level = before.next(reading.used, self.limit);
        match &self.source {
            Source::Group(Group { above: true, .. }) => level.among_others(before, reading.own, self.limit),
            _ => level,
        }
    }

    /// What may be taken more before the level is [`Level::Shed`]; `None` without a limit.
    pub(crate) fn room(&self, reading: Reading) -> Option<u64> {
        let below = |hundredths: u64, taken: u64| (self.limit / 100 * hundredths).saturating_sub(taken);
        let ours = match &self.source {
            Source::Group(Group { above: true, .. }) => below(OWN_FROM, reading.own),
            _ => 0,
        };
        (self.limit > 0).then(|| below(SHED_FROM, reading.used).max(ours))
    }

    /// Whose limit it is, for people.
    pub(crate) fn words(&self) -> String {
        match &self.source {
            Source::Operator => "overload.memory".to_owned(),
            Source::Group(group) => format!("the control group {}", group.directory.display()),
            Source::Machine => "the machine's memory".to_owned(),
            Source::Unknown => "no limit is known".to_owned(),
        }
    }
}

/// Resident memory.
pub(crate) fn resident(root: &Path) -> u64 {
    text(&root.join(STATM)).ok().flatten().as_deref().and_then(pages).unwrap_or_default()
}

/// The second number of statm, in pages; they are 4 KiB on every platform we run on.
fn pages(statm: &str) -> Option<u64> {
    Some(statm.split(' ').nth(1)?.parse::<u64>().ok()? * 4096)
}

/// A file's text; `None` when there is none for us.
fn text(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if is_our_own(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// What an open file says by now.
fn again(file: &File) -> Option<String> {
    let (mut text, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match file.read_at(&mut piece, text.len() as u64).ok()? {
            0 => return String::from_utf8(text).ok(),
            length => text.extend_from_slice(&piece[..length]),
        }
    }
}

/// The control groups that the process is in, and those above them. In a container the path may be one that only the
/// host knows; the mount itself is then the group.
fn groups_of(groups: &str, root: &Path) -> Vec<Group> {
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
            let mut above = false;
            loop {
                let directory = root.join(mount).join(path);
                let is_there = directory.is_dir();
                found.push(Group { directory, v2, above });
                above |= is_there;
                let Some(above) = path.parent() else { break };
                path = above;
            }
        }
    }
    found
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

    fn used(memory: &Memory) -> Option<u64> {
        memory.read().map(|reading| reading.used)
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        1024 kB\nMemFree:  7 kB\n");
    const STATM: (&str, &str) = ("proc/self/statm", "100 20 5 1 0 9 0\n");

    #[test]
    fn what_is_scarcest_is_named() {
        let overload = Overload::default();
        overload.set(Level::Shed, 250 << 20, 256 << 20, Some(0));
        assert_eq!(overload.words(), "memory: 250 of 256 MiB used");
        overload.set_descriptors(999, 1000);
        assert_eq!(overload.words(), "descriptors: 999 of 1000 open");
        overload.set(Level::Shed, 256 << 20, 256 << 20, Some(0));
        assert_eq!(overload.words(), "memory: 256 of 256 MiB used");
    }

    #[test]
    fn the_operator_has_the_last_word_and_resident_memory_is_measured() {
        let root = tree("asked", &[MEMINFO, STATM]);
        let memory = Memory::find(Some(77), &root).unwrap();
        assert_eq!((memory.limit, used(&memory), &*memory.words()), (77, Some(20 * 4096), "overload.memory"));
        let memory = Memory::find(None, &root).unwrap();
        assert_eq!((memory.limit, memory.source), (1 << 20, Source::Machine));
        assert_eq!(Memory::find(None, Path::new("/nonexistent")).unwrap().source, Source::Unknown);
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
        let memory = Memory::find(None, &root).unwrap();
        assert_eq!((memory.limit, used(&memory)), (500_000, Some(380_000)));
        let group = Group { directory: root.join("sys/fs/cgroup/kube/pod"), v2: true, above: true };
        assert_eq!(memory.source, Source::Group(group));
        fs::write(root.join("sys/fs/cgroup/kube/pod/memory.current"), "90000\n").unwrap();
        assert_eq!(used(&memory), Some(90_000));
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
        let memory = Memory::find(None, &root).unwrap();
        assert_eq!((memory.limit, used(&memory)), (300_000, Some(290_000)));
        let Source::Group(group) = &memory.source else { panic!("{:?}", memory.source) };
        assert!(!group.above, "what the host calls it is not there, so the mount is our own group");
        fs::write(root.join("sys/fs/cgroup/memory/memory.limit_in_bytes"), "9223372036854771712\n").unwrap();
        assert_eq!(Memory::find(None, &root).unwrap().source, Source::Machine, "no limit is a number near 2^63");
    }

    #[test]
    fn what_cannot_be_read_is_not_nothing_and_open_files_are_read_without_a_descriptor() {
        let group = "sys/fs/cgroup/pod/memory";
        let files = ["max", "current", "stat"].map(|name| format!("{group}.{name}"));
        let root = tree(
            "gone",
            &[
                STATM,
                ("proc/self/cgroup", "0::/pod\n"),
                (&files[0], "500000\n"),
                (&files[1], "490000\n"),
                (&files[2], "inactive_file 1000\n"),
            ],
        );
        let memory = Memory::find(None, &root).unwrap();
        // As good as no descriptor: nothing can be opened any more.
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(used(&memory), Some(489_000));
        let memory = Memory::find(Some(77), &root).unwrap();
        assert_eq!(memory.read(), None);
    }

    #[test]
    fn neighbours_in_a_group_above_do_not_make_us_refuse() {
        let root = tree(
            "neighbours",
            &[
                STATM,
                ("proc/self/cgroup", "0::/pod/main\n"),
                ("sys/fs/cgroup/pod/main/memory.max", "max\n"),
                ("sys/fs/cgroup/pod/memory.max", "1000000\n"),
                ("sys/fs/cgroup/pod/memory.current", "990000\n"),
            ],
        );
        let memory = Memory::find(None, &root).unwrap();
        let reading = memory.read().unwrap();
        assert_eq!(reading, Reading { used: 990_000, own: 81_920 });
        assert_eq!((memory.level(Level::Calm, reading), memory.room(reading)), (Level::Shrink, Some(100_000 - 81_920)));
        assert_eq!(memory.level(Level::Calm, Reading { own: 100_000, ..reading }), Level::Shed);
        let own = Source::Group(Group { directory: root, v2: true, above: false });
        let own = Memory { source: own, ..memory };
        assert_eq!(own.level(Level::Calm, reading), Level::Shed);
        assert_eq!((own.room(reading), Memory::unknown().room(reading)), (Some(0), None));
    }
}
