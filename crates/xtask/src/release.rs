//! `cargo xtask release`: the load balancer as it is meant to be installed, compiled with what a training run has shown
//! (profile-guided optimization).
//!
//! A proxy's own code is read anew after each system call; laid out by how often it really runs, it takes a fifth less
//! time than in the compiler's own order. (Measured, user time per request: `crates/loadbalancer/docs/benchmarks.md`.)
//! The binary is built once so that it counts its branches, does for some seconds each what `cargo xtask bench` measures,
//! and is built again with those counts.
//!
//! Writes only below `target/tuned`. Nothing is done twice: cargo knows whether the sources have changed, and the
//! training is repeated only for a counting binary that is newer than the profile.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::system::{run_aloud, succeeds};
use crate::workspace::{Workspace, cargo};
use crate::{Error, say};

/// Where the tuned binary is.
pub(crate) fn directory(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tuned")
}

/// # Errors
/// When something is missing, does not build, or does not answer rightly in training.
pub(crate) fn run() -> Result<(), Error> {
    let workspace = Workspace::find()?;
    let binary = build(&workspace)?;
    say(&format!("built: {}", binary.display()));
    Ok(())
}

/// Builds the tuned binary; returns its path.
///
/// # Errors
/// As of [`run`].
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf, Error> {
    let toolchain = Toolchain::find()?;
    let place = directory(workspace);
    let (counts, counting, tuned) = (place.join("counts"), place.join("counting"), place.join("build"));
    say("1 of 3: a binary that counts its branches");
    let flags = format!("-Cprofile-generate={}", counts.display());
    let counter = compile(workspace, &toolchain, &flags, &counting)?;
    let profile = match fresh_profile(&place, &counter) {
        Some(profile) => profile,
        None => {
            say("2 of 3: its training, half a minute");
            remove(&counts)?;
            train(counter.parent().unwrap_or_else(|| Path::new(".")))?;
            // Compiled with another profile, everything is new.
            remove(&tuned)?;
            merge(&toolchain, &counts, &place, &counter)?
        }
    };
    say("3 of 3: the binary, laid out by those counts");
    let binary = compile(workspace, &toolchain, &format!("-Cprofile-use={}", profile.display()), &tuned)?;
    let installed = place.join("loadbalancer");
    // A running one keeps its file.
    remove(&installed)?;
    fs::copy(&binary, &installed).map_err(|e| failed("copy to", &installed, &e))?;
    Ok(installed)
}

/// What the two builds have in common.
struct Toolchain {
    host: String,
    /// Of the compiler's own version: another one cannot read what it writes.
    profdata: PathBuf,
}

impl Toolchain {
    fn find() -> Result<Self, Error> {
        let sysroot = rustc(&["--print", "sysroot"])?;
        let host = host(&rustc(&["-vV"])?).ok_or_else(|| Error::Failed("`rustc -vV` names no host".to_owned()))?;
        let profdata = Path::new(sysroot.trim()).join("lib/rustlib").join(&host).join("bin/llvm-profdata");
        if !profdata.exists() {
            run_aloud(Command::new("rustup").args(["component", "add", "llvm-tools"]));
        }
        if !profdata.exists() {
            return Err(Error::Failed(format!(
                "{} is missing: it reads what the training has counted. Install it with `rustup component add \
                 llvm-tools`, or build without training: `cargo build --release`",
                profdata.display()
            )));
        }
        Ok(Self { host, profdata })
    }
}

fn rustc(arguments: &[&str]) -> Result<String, Error> {
    let output = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).args(arguments).output();
    let output = output.map_err(|e| Error::Failed(format!("cannot run rustc {}: {e}", arguments.join(" "))))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn host(version: &str) -> Option<String> {
    version.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned)
}

/// With `--target`, so that `flags` are for the program alone, not for what is run while it is compiled.
fn compile(workspace: &Workspace, toolchain: &Toolchain, flags: &str, target: &Path) -> Result<PathBuf, Error> {
    let mut command = cargo();
    command.args(["build", "--release", "--bin", "loadbalancer", "--target", &toolchain.host, "--target-dir"]);
    command.arg(target).env("RUSTFLAGS", flags).current_dir(&workspace.root);
    if succeeds(&mut command) {
        Ok(target.join(&toolchain.host).join("release/loadbalancer"))
    } else {
        Err(Error::Failed("the load balancer does not build (see above)".to_owned()))
    }
}

/// In a process of its own, because it pins itself to the cores that the load may have.
fn train(release: &Path) -> Result<(), Error> {
    let this = std::env::current_exe().map_err(|e| Error::Failed(format!("cannot find this program: {e}")))?;
    if succeeds(Command::new(this).arg("train").arg(release)) {
        Ok(())
    } else {
        Err(Error::Failed("the training failed (see above)".to_owned()))
    }
}

/// The profile that this very counting binary has given, if it has.
fn fresh_profile(place: &Path, counter: &Path) -> Option<PathBuf> {
    let profile = place.join(profile_name(fs::metadata(counter).ok()?.modified().ok()?));
    profile.exists().then_some(profile)
}

/// Cargo does not look into a profile: another one must have another name to be noticed.
fn profile_name(counter_built: SystemTime) -> String {
    let since = counter_built.duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.profdata", since.as_nanos())
}

/// Makes one profile of all counts, instead of those there were.
fn merge(toolchain: &Toolchain, counts: &Path, place: &Path, counter: &Path) -> Result<PathBuf, Error> {
    let built = fs::metadata(counter).and_then(|metadata| metadata.modified());
    let profile = place.join(profile_name(built.map_err(|e| failed("read", counter, &e))?));
    for former in files(place)?.into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "profdata")) {
        remove(&former)?;
    }
    let counts = files(counts)?;
    if counts.is_empty() {
        return Err(Error::Failed("the training has left no counts: did the balancer end by a signal?".to_owned()));
    }
    let mut merge = Command::new(&toolchain.profdata);
    merge.args(["merge", "--output"]).arg(&profile).args(counts).stdin(Stdio::null());
    if succeeds(&mut merge) { Ok(profile) } else { Err(Error::Failed("llvm-profdata failed (see above)".to_owned())) }
}

fn files(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(failed("read", directory, &e)),
    };
    Ok(entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file()).collect())
}

/// Removes a file or a directory, if there is one.
fn remove(path: &Path) -> Result<(), Error> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed("remove", path, &e)),
        _ => Ok(()),
    }
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Error {
    Error::Failed(format!("cannot {what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiler_says_for_what_it_compiles() {
        let version = "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n";
        assert_eq!(host(version).as_deref(), Some("x86_64-unknown-linux-gnu"));
        assert_eq!(host("rustc 1.95.0"), None);
    }

    #[test]
    fn a_profile_belongs_to_one_counting_binary() {
        let place = std::env::temp_dir().join(format!("xtask-release-{}", std::process::id()));
        fs::create_dir_all(&place).unwrap();
        let counter = place.join("loadbalancer");
        fs::write(&counter, "counts").unwrap();
        assert_eq!(fresh_profile(&place, &counter), None, "there is none yet");
        let built = fs::metadata(&counter).unwrap().modified().unwrap();
        fs::write(place.join(profile_name(built)), "").unwrap();
        assert_eq!(fresh_profile(&place, &counter), Some(place.join(profile_name(built))));
        let newer = fs::File::options().write(true).open(&counter).unwrap();
        newer.set_modified(built + std::time::Duration::from_secs(1)).unwrap();
        assert_eq!(fresh_profile(&place, &counter), None, "the binary is newer");
        remove(&place).unwrap();
        remove(&place).unwrap();
    }
}
