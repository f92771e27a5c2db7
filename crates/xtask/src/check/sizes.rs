//! `cargo xtask sizes`: a file that nobody can hold in their head is split before it goes in.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::workspace::Workspace;

/// The house's limit. The longest files of code bases that are good to read are about this long.
const MAX_LINES: usize = 500;

/// What is written by hand and read by people.
const EXTENSIONS: [&str; 5] = ["rs", "js", "css", "html", "sh"];

/// Not ours: history, and files taken over as they are.
const SKIPPED_DIRS: [&str; 2] = [".git", "vendor"];

/// cargo marks its build directory with this file, wherever it is and whatever its name.
const BUILD_DIR_MARK: &str = "CACHEDIR.TAG";

/// # Errors
/// As [`check`].
pub(crate) fn run() -> Result<(), Error> {
    check(&Workspace::find()?)
}

/// # Errors
/// When a file is too long or cannot be read.
pub(crate) fn check(workspace: &Workspace) -> Result<(), Error> {
    let mut files = Vec::new();
    collect(&workspace.root, &mut files)
        .map_err(|e| Error::Failed(format!("cannot read {}: {e}", workspace.root.display())))?;
    let rust: Vec<usize> =
        files.iter().filter(|(path, _)| has_extension(path, "rs")).map(|(_, lines)| *lines).collect();
    println!("{}", statistics(rust));
    let mut long: Vec<_> = files.into_iter().filter(|(_, lines)| *lines > MAX_LINES).collect();
    if long.is_empty() {
        return Ok(());
    }
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    let list: String = long
        .iter()
        .map(|(path, lines)| format!("\n  {lines:5} {}", path.strip_prefix(&workspace.root).unwrap_or(path).display()))
        .collect();
    Err(Error::Failed(format!("longer than {MAX_LINES} lines; split by idea:{list}")))
}

/// All source files below `dir` with their numbers of lines.
fn collect(dir: &Path, files: &mut Vec<(PathBuf, usize)>) -> std::io::Result<()> {
    if dir.join(BUILD_DIR_MARK).exists() {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if !SKIPPED_DIRS.iter().any(|name| entry.file_name() == *name) {
                collect(&path, files)?;
            }
        } else if kind.is_file() && EXTENSIONS.iter().any(|extension| has_extension(&path, extension)) {
            let lines = fs::read(&path)?.iter().filter(|byte| **byte == b'\n').count();
            files.push((path, lines));
        }
    }
    Ok(())
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|own| own == extension)
}

fn statistics(mut lines: Vec<usize>) -> String {
    lines.sort_unstable();
    let at = |percent: usize| lines.get(lines.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default();
    format!("{} Rust files: median {} lines, p90 {}, longest {}", lines.len(), at(50), at(90), at(100))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A workspace in a temporary directory, with files of these lengths.
    fn workspace(name: &str, files: &[(&str, usize)]) -> Workspace {
        let root = std::env::temp_dir().join(format!("xtask-sizes-{}-{name}", std::process::id()));
        for (path, lines) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x\n".repeat(*lines)).unwrap();
        }
        Workspace { target: root.join("target"), root, packages: Vec::new() }
    }

    fn verdict(name: &str, files: &[(&str, usize)]) -> Result<(), String> {
        let workspace = workspace(name, files);
        let verdict = check(&workspace).map_err(|e| e.to_string());
        fs::remove_dir_all(&workspace.root).unwrap();
        verdict
    }

    #[test]
    fn a_file_at_the_limit_passes_and_one_line_more_does_not() {
        assert_eq!(verdict("limit", &[("a/b.rs", MAX_LINES)]), Ok(()));
        let text = verdict("over", &[("a/b.js", MAX_LINES + 1), ("a/c.rs", 3)]).unwrap_err();
        assert!(text.ends_with("\n    501 a/b.js"), "{text}");
    }

    #[test]
    fn what_is_not_ours_or_not_source_is_not_measured() {
        let files = [("a/vendor/b.js", 900), ("out/CACHEDIR.TAG", 1), ("out/c.rs", 900), ("Cargo.lock", 900)];
        assert_eq!(verdict("foreign", &files), Ok(()));
    }

    #[test]
    fn the_figures() {
        let expected = "10 Rust files: median 5 lines, p90 9, longest 10";
        assert_eq!(statistics((1..=10).rev().collect()), expected);
        assert_eq!(statistics(Vec::new()), "0 Rust files: median 0 lines, p90 0, longest 0");
    }
}
