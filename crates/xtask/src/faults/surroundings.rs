//! The ground that all runs share, and what this machine allows: found by trying, never assumed.
//!
//! The whole command runs in network and mount namespaces of its own where that is possible: its ports are nobody
//! else's, packets can be dropped without anybody noticing, and everything is gone when the process is.

use std::cell::Cell;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ident::Numbers;
use crate::bench::site::{Cores, Dir};
use crate::{Error, say};

/// Set for the process inside.
const INSIDE: &str = "XTASK_FAULTS_INSIDE";

const FAKETIME: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1"];

/// What every run needs.
pub(super) struct Ground {
    pub(super) dir: Dir,
    pub(super) release: PathBuf,
    pub(super) cores: Cores,
    pub(super) all_cores: String,
    pub(super) seed: u64,
    runs: Cell<u64>,
}

impl Ground {
    pub(super) fn new(release: PathBuf, seed: u64) -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let share = Cores::share(cores);
        let share = share.ok_or_else(|| Error::Failed("this takes two cores: proxy and load".to_owned()))?;
        let all_cores = format!("0-{}", cores - 1);
        Ok(Self { dir: Dir::new()?, release, cores: share, all_cores, seed, runs: Cell::new(0) })
    }

    /// A number for the ids of one run, which the seed and the order of runs decide.
    pub(super) fn next_run(&self) -> u64 {
        self.runs.set(self.runs.get() + 1);
        Numbers::new(self.seed.wrapping_add(self.runs.get())).next()
    }
}

/// Whether this process is in namespaces of its own.
pub(super) fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Becomes the same command in namespaces of its own. Returns when that is not possible here.
pub(super) fn enter() {
    if is_inside() {
        return;
    }
    let unshare = ["--net", "--mount", "--propagation", "private"];
    let runs = |command: &mut Command| command.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let up = "ip link set lo up && mount -t tmpfs tmpfs /mnt";
    if !runs(Command::new("unshare").args(unshare).args(["sh", "-c", up])) {
        say("no namespaces of our own here: faults of the network and of disks are left out");
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let script = "ip link set lo up && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script, "sh"]).arg(program).args(std::env::args_os().skip(1));
    let error = command.env(INSIDE, "1").exec();
    say(&format!("cannot run unshare: {error}"));
}

fn only_inside() -> Result<(), String> {
    if is_inside() { Ok(()) } else { Err("no namespaces of our own (unshare as root)".to_owned()) }
}

/// Runs a command of the system.
pub(super) fn run(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0])
        .args(&words[1..])
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!("`{}`: {}", words.join(" "), said.lines().next().unwrap_or("failed without a word")))
        }
        Err(e) => Err(format!("cannot run {}: {e}", words[0])),
    }
}

/// Rules for packets, gone when dropped.
pub(super) struct Packets;

impl Packets {
    /// Each rule goes to the input of the loopback interface.
    ///
    /// # Errors
    /// Why that is not possible here.
    pub(super) fn rules(rules: &[String]) -> Result<Self, String> {
        only_inside()?;
        let rules: String = rules.iter().map(|rule| format!("    {rule}\n")).collect();
        run(&[
            "nft",
            &format!(
                "table inet faults {{\n  chain input {{\n    type filter hook input priority 0; policy \
                 accept;\n{rules}  }}\n}}\n"
            ),
        ])?;
        Ok(Self)
    }
}

impl Drop for Packets {
    fn drop(&mut self) {
        let _ = run(&["nft", "delete table inet faults"]);
    }
}

/// A file system of a given size, gone when dropped.
pub(super) struct SmallDisk {
    pub(super) path: PathBuf,
}

impl SmallDisk {
    /// # Errors
    /// Why that is not possible here.
    pub(super) fn mount(dir: &Dir, size: &str) -> Result<Self, String> {
        only_inside()?;
        let path = dir.path().join("small-disk");
        fs::create_dir_all(&path).map_err(|e| e.to_string())?;
        let place = path.to_string_lossy().into_owned();
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", &place])?;
        Ok(Self { path })
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run(&["umount", "--lazy", &self.path.to_string_lossy()]);
    }
}

/// Puts one file in another's place for this namespace.
pub(super) fn replace_file(file: &Path, place: &str) -> Result<(), String> {
    only_inside()?;
    run(&["mount", "--bind", &file.to_string_lossy(), place])
}

/// The library that lies about the time.
pub(super) fn faketime() -> Result<&'static str, String> {
    let found = FAKETIME.into_iter().find(|path| Path::new(path).exists());
    found.ok_or_else(|| "libfaketime is not installed".to_owned())
}

/// A group with a memory limit, gone when dropped.
pub(super) struct MemoryLimit {
    group: PathBuf,
}

impl MemoryLimit {
    /// With cgroup v1 or v2, whichever may be written here.
    ///
    /// # Errors
    /// Why neither can be.
    pub(super) fn new(bytes: u64) -> Result<Self, String> {
        let name = format!("xtask-faults-{}", std::process::id());
        let kinds = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        let mut reasons = vec![];
        for (root, limit) in kinds {
            let group = Path::new(root).join(&name);
            let set = fs::create_dir_all(&group).and_then(|()| fs::write(group.join(limit), bytes.to_string()));
            match set {
                Ok(()) => return Ok(Self { group }),
                Err(e) => {
                    let _ = fs::remove_dir(&group);
                    reasons.push(format!("{}: {e}", group.display()));
                }
            }
        }
        Err(format!("no cgroup with a memory limit may be made: {}", reasons.join("; ")))
    }

    /// A command that joins the group and then becomes the one that follows: the limit is there before the program.
    pub(super) fn wrapper(&self) -> Vec<String> {
        let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.group.display());
        ["sh", "-c", &script, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // Only an empty group can go: whoever is left in it moves to the root.
        if let Ok(pids) = fs::read_to_string(self.group.join("cgroup.procs")) {
            let root = self.group.parent().map(|root| root.join("cgroup.procs")).unwrap_or_default();
            for pid in pids.lines() {
                let _ = fs::write(&root, pid);
            }
        }
        let _ = fs::remove_dir(&self.group);
    }
}
