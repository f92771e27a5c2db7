//! Results to and from files.

use std::fs;
use std::path::Path;

use super::markdown::{details, summary, with_block};
use super::results::Results;
use crate::{Error, say};

/// Where the results of the last complete run are kept, below the root of the repository.
const JSON: &str = "crates/loadbalancer/docs/benchmarks.json";
const DOCUMENT: &str = "crates/loadbalancer/docs/benchmarks.md";
const README: &str = "README.md";

/// The mark round the generated part of both texts.
const MARK: &str = "bench";

pub(super) fn read(file: &Path) -> Result<Results, Error> {
    let text = fs::read_to_string(file).map_err(|e| Error::Failed(format!("cannot read {}: {e}", file.display())))?;
    serde_json::from_str(&text).map_err(|e| Error::Failed(format!("{} has no results: {e}", file.display())))
}

pub(super) fn json(file: &Path, results: &Results) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(results)
        .map_err(|e| Error::Failed(format!("results that cannot be written as JSON: {e}")))?;
    write(file, &format!("{text}\n"))
}

/// The JSON, and what follows from it in both texts.
pub(super) fn documents(root: &Path, results: &Results) -> Result<(), Error> {
    json(&root.join(JSON), results)?;
    for (name, block) in [(README, summary(results)), (DOCUMENT, details(results))] {
        let file = root.join(name);
        let text =
            fs::read_to_string(&file).map_err(|e| Error::Failed(format!("cannot read {}: {e}", file.display())))?;
        let text = with_block(&text, MARK, &block).map_err(|e| Error::Failed(format!("{}: {e}", file.display())))?;
        write(&file, &text)?;
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<(), Error> {
    fs::write(file, text).map_err(|e| Error::Failed(format!("cannot write {}: {e}", file.display())))?;
    say(&format!("written: {}", file.display()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::tests::results;

    /// Nobody edits a figure by hand.
    #[test]
    fn both_texts_say_what_the_last_run_measured() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let results = read(&root.join(JSON)).unwrap();
        for (name, block) in [(README, summary(&results)), (DOCUMENT, details(&results))] {
            let text = fs::read_to_string(root.join(name)).unwrap();
            let expected = with_block(&text, MARK, &block).unwrap();
            assert_eq!(text, expected, "{name}: `cargo xtask bench --write --from {JSON}` writes it again");
        }
    }

    #[test]
    fn what_was_written_is_read_again() {
        let file = std::env::temp_dir().join(format!("xtask-results-{}.json", std::process::id()));
        json(&file, &results()).unwrap();
        assert_eq!(read(&file).unwrap(), results());
        fs::write(&file, "{}").unwrap();
        assert!(read(&file).is_err());
        fs::remove_file(&file).unwrap();
    }
}
