//! The fleet with shell scripts in place of the programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;

/// A directory with a script named `server`; removed when it is dropped.
struct Programs(PathBuf);

impl Programs {
    fn new(test: &str, script: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("xtask-fleet-{}-{test}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("server");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn spec() -> Spec {
    let env = vec![("SERVER_NAME", "alpha".to_owned())];
    Spec { program: "server", name: "alpha", url: String::new(), env, args: Vec::new() }
}

/// Runs or is a zombie: a process that is gone and waited for has no entry.
fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn the_ready_line_is_an_event_and_everything_ends_on_request() {
    let programs = Programs::new("ready", "echo ready server name=$SERVER_NAME; exec sleep 600");
    let mut fleet = Fleet::new(&programs.0, 5, false);
    let pids = [fleet.start(&spec()).unwrap(), fleet.start(&spec()).unwrap()];
    let mut ready = Vec::new();
    while ready.len() < 2 {
        match fleet.event().await {
            Event::Ready(index) => ready.push(index),
            Event::Ended(index, status) => panic!("{index} ended: {status}"),
        }
    }
    ready.sort_unstable();
    assert_eq!(ready, [0, 1]);
    assert!(pids.iter().all(|pid| exists(*pid)));
    assert!(!fleet.stop(std::future::pending()).await, "SIGTERM is enough");
    assert!(!pids.iter().any(|pid| exists(*pid)));
}

#[tokio::test]
async fn what_ignores_sigterm_is_killed_in_time() {
    let programs = Programs::new("stubborn", "trap '' TERM; echo ready server; while :; do sleep 0.05; done");
    let mut fleet = Fleet::new(&programs.0, 5, false);
    let pid = fleet.start(&spec()).unwrap();
    assert!(matches!(fleet.event().await, Event::Ready(0)));
    let start = Instant::now();
    assert!(fleet.stop(std::future::pending()).await, "it had to be killed");
    assert!(!exists(pid));
    let took = start.elapsed();
    assert!((GRACE..Duration::from_secs(2)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_second_request_to_stop_does_not_wait() {
    let programs = Programs::new("hurry", "trap '' TERM; echo ready server; while :; do sleep 0.05; done");
    let mut fleet = Fleet::new(&programs.0, 5, false);
    let pid = fleet.start(&spec()).unwrap();
    assert!(matches!(fleet.event().await, Event::Ready(0)));
    let start = Instant::now();
    assert!(fleet.stop(std::future::ready(())).await);
    assert!(!exists(pid) && start.elapsed() < GRACE);
}

#[tokio::test]
async fn the_last_lines_of_a_dead_program_are_kept() {
    let programs = Programs::new("tail", "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $i >&2; done; exit 78");
    let mut fleet = Fleet::new(&programs.0, 5, false);
    fleet.start(&spec()).unwrap();
    let Event::Ended(0, status) = fleet.event().await else { panic!("it cannot be ready") };
    assert_eq!(status.code(), Some(78));
    let expected: Vec<String> = (3..=12).map(|i| format!("line {i}")).collect();
    assert_eq!(fleet.tail(0), expected);
    assert!(!fleet.stop(std::future::pending()).await);
}

#[tokio::test]
async fn a_fleet_that_is_forgotten_takes_its_programs_along() {
    let programs = Programs::new("forgotten", "echo ready server; exec sleep 600");
    let mut fleet = Fleet::new(&programs.0, 5, false);
    let pid = fleet.start(&spec()).unwrap();
    assert!(matches!(fleet.event().await, Event::Ready(0)));
    drop(fleet);
    // Killed at once, waited for by the runtime a moment later.
    let deadline = Instant::now() + Duration::from_secs(10);
    while exists(pid) {
        assert!(Instant::now() < deadline, "{pid} is still there");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let programs = Programs::new("missing", "");
    fs::remove_file(programs.0.join("server")).unwrap();
    let mut fleet = Fleet::new(&programs.0, 5, false);
    let missing = fleet.start(&spec()).map(|_| ()).unwrap_err().to_string();
    assert!(missing.contains("cannot start") && missing.contains("server"), "{missing}");
}
