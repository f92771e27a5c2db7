//! What callgrind found out: instructions of each function and who calls whom how often.
//!
//! The format is described in the manual of valgrind, "Callgrind Format Specification". A function is named once, as
//! `(number) name`, and afterwards by its number; costs of what it calls stand behind `calls=` lines.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;

/// mimalloc's ways in for Rust's allocator: a new block, a zeroed one, and one that grows.
const ALLOCATOR: [&str; 6] =
    ["mi_malloc", "mi_malloc_aligned", "mi_zalloc", "mi_zalloc_aligned", "mi_realloc", "mi_realloc_aligned"];

/// One thread's profile.
#[derive(Debug, Default)]
pub(super) struct Profile {
    /// Instructions in all.
    pub(super) total: u64,
    functions: BTreeMap<String, Function>,
}

#[derive(Debug, Default)]
struct Function {
    /// Instructions, with those of what it calls.
    cost: u64,
    /// How often it was called.
    called: u64,
    /// What it calls, and how often.
    calls: BTreeMap<String, u64>,
}

/// Removes what an earlier run left: a thread fewer would leave its old profile.
pub(super) fn forget(out: &Path) -> Result<(), Error> {
    for path in threads(out)? {
        fs::remove_file(&path).map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
    }
    Ok(())
}

/// The profile of the thread that calls `function`: the worker's.
pub(super) fn read_worker(out: &Path, function: &str) -> Result<Profile, Error> {
    for path in threads(out)? {
        let text = fs::read_to_string(&path).map_err(|e| Error::Failed(format!("{}: {e}", path.display())))?;
        let profile = Profile::parse(&text);
        if profile.functions.get(function).is_some_and(|function| function.called > 0) {
            return Ok(profile);
        }
    }
    Err(unknown(function))
}

/// `out-01`, `out-02`, …: one per thread.
fn threads(out: &Path) -> Result<Vec<PathBuf>, Error> {
    let (Some(dir), Some(name)) = (out.parent(), out.file_name().and_then(|name| name.to_str())) else {
        return Err(Error::Failed(format!("{} is no place for a profile", out.display())));
    };
    let entries = fs::read_dir(dir).map_err(|e| Error::Failed(format!("{}: {e}", dir.display())))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| {
        let number = path.file_name().and_then(|own| own.to_str()?.strip_prefix(name)?.strip_prefix('-'));
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    });
    paths.sort();
    Ok(paths)
}

fn unknown(function: &str) -> Error {
    Error::Failed(format!(
        "no call of `{function}` was seen. It was renamed or inlined: mark it #[inline(never)], or change the gate"
    ))
}

impl Profile {
    fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let mut names: BTreeMap<&str, &str> = BTreeMap::new();
        let (mut current, mut target, mut calls) = ("", "", None);
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                current = resolve(&mut names, name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                target = resolve(&mut names, name);
            } else if let Some(rest) = line.strip_prefix("calls=") {
                calls = rest.split(' ').next().and_then(|count| count.parse::<u64>().ok());
            } else if let Some(total) = line.strip_prefix("totals: ") {
                profile.total = total.trim().parse().unwrap_or_default();
            } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
                // Position and cost; a position alone costs nothing.
                let cost = line.split(' ').nth(1).and_then(|cost| cost.parse::<u64>().ok()).unwrap_or_default();
                let own = profile.functions.entry(current.to_owned()).or_default();
                own.cost += cost;
                if let Some(count) = calls.take() {
                    *own.calls.entry(target.to_owned()).or_default() += count;
                    profile.functions.entry(target.to_owned()).or_default().called += count;
                }
            }
        }
        profile
    }

    /// Instructions of all calls, with those of what it calls.
    pub(super) fn cost(&self, function: &str) -> Result<u64, Error> {
        self.called(function).map(|found| found.cost)
    }

    /// Instructions per call, with those of what it calls.
    pub(super) fn per_call(&self, function: &str) -> Result<f64, Error> {
        self.called(function).map(|found| found.cost as f64 / found.called as f64)
    }

    fn called(&self, function: &str) -> Result<&Function, Error> {
        self.functions.get(function).filter(|found| found.called > 0).ok_or_else(|| unknown(function))
    }

    /// Blocks of memory asked for.
    pub(super) fn allocations(&self) -> Result<u64, Error> {
        let outside = self.functions.iter().filter(|(name, _)| !is_allocators_own(name));
        let count = outside.map(|(_, function)| function.allocations()).sum();
        if count == 0 {
            // A program that never allocates does not exist: its allocator has changed.
            return Err(Error::Failed(format!(
                "no call of {} was seen: has the allocator changed? Then change the gate",
                ALLOCATOR.join(", ")
            )));
        }
        Ok(count)
    }

    /// Blocks asked for by anything that `function` may call. What it calls may allocate for others as well: this never
    /// says too little.
    pub(super) fn allocations_below(&self, function: &str) -> u64 {
        let (mut seen, mut open, mut count) = (HashSet::from([function]), vec![function], 0);
        while let Some(found) = open.pop().and_then(|name| self.functions.get(name)) {
            count += found.allocations();
            let callees = found.calls.keys().map(String::as_str).filter(|callee| !is_allocators_own(callee));
            open.extend(callees.filter(|callee| seen.insert(callee)));
        }
        count
    }
}

impl Function {
    fn allocations(&self) -> u64 {
        self.calls.iter().filter(|(callee, _)| ALLOCATOR.contains(&callee.as_str())).map(|(_, count)| count).sum()
    }
}

fn is_allocators_own(name: &str) -> bool {
    name.starts_with("mi_") || name.starts_with("_mi_")
}

/// The name behind `(number) name` or `(number)`. A recursive call is named `name'2`: it is the same function.
fn resolve<'a>(names: &mut BTreeMap<&'a str, &'a str>, text: &'a str) -> &'a str {
    let (number, name) = text.split_once(' ').map_or((text, None), |(number, name)| (number, Some(name)));
    if let Some(name) = name {
        names.insert(number, name.split('\'').next().unwrap_or(name));
    }
    names.get(number).copied().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = "\
# callgrind format
events: Ir
fl=(1) a.rs
fn=(1) worker
10 5
cfn=(2) write_head
calls=10 20
11 1000
+1 7
cfn=(3) pick
calls=10 30
* 90
fn=(2)
20 400
cfn=(4) mi_malloc_aligned
calls=20 0
21 600
fn=(4)
1 500
cfn=(5) mi_malloc
calls=20 0
2 100
fn=(3)
30
31 90
totals: 1102
";

    #[test]
    fn costs_calls_and_allocations_are_found() {
        let profile = Profile::parse(PROFILE);
        assert_eq!(profile.total, 1102);
        assert_eq!(profile.per_call("write_head").unwrap(), 100.0);
        assert_eq!(profile.per_call("pick").unwrap(), 9.0);
        assert_eq!(profile.cost("pick").unwrap(), 90);
        assert_eq!(profile.allocations().unwrap(), 20, "what the allocator calls of its own is not counted again");
        assert_eq!((profile.allocations_below("pick"), profile.allocations_below("write_head")), (0, 20));
        assert_eq!(profile.allocations_below("worker"), 20);
    }

    #[test]
    fn what_is_not_there_is_an_error_and_not_cheap() {
        let profile = Profile::parse(PROFILE);
        assert!(profile.per_call("record").unwrap_err().to_string().contains("renamed or inlined"));
        assert!(profile.per_call("worker").is_err(), "never called, so no cost per call");
        let other = Profile::parse(&PROFILE.replace("mi_", "je_"));
        assert!(other.allocations().unwrap_err().to_string().contains("has the allocator changed"));
    }
}
