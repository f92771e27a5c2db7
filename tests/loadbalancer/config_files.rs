//! Ten thousand files that are nearly configurations, through the real program: each is called good, or refused with a
//! line for each thing that is wrong.

use std::path::Path;
use std::time::Duration;

use e2e::program::{run, scratch_dir, workspace_root};
use futures_util::{StreamExt, stream};
use lb_fuzz::Fuzz;

const FILES: usize = 10_000;

/// Programs at a time: each is started, reads one file and ends.
const AT_ONCE: usize = 8;

/// For one file, on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(30);

const WORDS: &[&[u8]] = &[
    b"[",
    b"]",
    b"[[pool]]\n",
    b"{",
    b"}",
    b" = ",
    b"\"",
    b"'",
    b"\"\"\"",
    b"\\n",
    b"\\u0000",
    b"#",
    b",",
    b".",
    b"\n",
    b"\0",
    b"\x1b[2J",
    b"\xff",
    b"\xc3\xa4",
    b"true",
    b"-1",
    b"nan",
    b"1979-05-27",
    b"10s",
    b"0s",
    b"8KiB",
    b"a:1",
    b"[::1]:80",
    b"http",
    b"[health]\n",
    b"[proxy]\n",
    b"[admin]\n",
    b"[limits]\n",
    b"[timeouts]\n",
    b"port",
    b"interval",
];

#[tokio::test]
async fn ten_thousand_fuzzed_files_are_good_or_refused_line_by_line() {
    let seed = std::env::var("LB_FUZZ_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("seed {seed}");
    let crate_dir = workspace_root().join("crates/loadbalancer");
    let files = Fuzz::new(crate_dir.to_str().unwrap(), "configuration").words(WORDS).mutants(seed, FILES);
    let dir = scratch_dir().join("config-files");
    std::fs::create_dir_all(&dir).unwrap();
    let checked = stream::iter(files.into_iter().enumerate())
        .map(|(at, bytes)| {
            let path = dir.join(format!("{at}.toml"));
            async move {
                std::fs::write(&path, &bytes).unwrap();
                let good = check(&path, &bytes).await;
                std::fs::remove_file(&path).unwrap();
                good
            }
        })
        .buffer_unordered(AT_ONCE);
    let good = checked.filter(|good| std::future::ready(*good)).count().await;
    println!("{good} of {FILES} files are good");
    assert!((FILES / 50..FILES - FILES / 50).contains(&good), "{good} of {FILES} were good: nothing was tested");
}

/// Whether it is good. Whatever it is, the program says so and ends as it should.
async fn check(path: &Path, bytes: &[u8]) -> bool {
    let path = path.to_str().unwrap();
    let ended = run("loadbalancer", &["check", path], &[], PATIENCE).await;
    let shown = || format!("{ended:?} of\nb\"{}\"", bytes.escape_ascii());
    if ended.code == Some(0) {
        assert_eq!(ended.stdout, format!("{path}: the configuration is good\n"), "{}", shown());
        assert_eq!(ended.stderr, "", "{}", shown());
        return true;
    }
    // EX_CONFIG; a panic is 101, and a signal is none.
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(78), ""), "{}", shown());
    let mut lines = ended.stderr.lines();
    let first = lines.next().unwrap_or_default();
    let count = first.strip_prefix("loadbalancer: ").and_then(|rest| rest.split_once(' '));
    let count: usize = count.and_then(|(count, _)| count.parse().ok()).unwrap_or_else(|| panic!("{}", shown()));
    let lines: Vec<&str> = lines.collect();
    assert!(count == lines.len() && count > 0, "a line for each problem: {}", shown());
    for line in lines {
        let place = line.strip_prefix("  ").and_then(|line| line.strip_prefix(path));
        assert!(place.is_some_and(|place| place.starts_with(':')) || line.starts_with("  default: "), "{}", shown());
        assert!(!line.contains(char::is_control), "{}", shown());
    }
    false
}
