//! The unit files: systemd accepts them, finds them hardened, and they say what the programs rely on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;

use e2e::program::{bin_dir, scratch_dir, workspace_root};

/// Each with the seconds it may take to stop by itself, by default: a drain of requests, or of the page's streams.
const PROGRAMS: [(&str, u64); 3] = [("loadbalancer", 30), ("server", 30), ("dashboard", 1)];

/// In tenths of systemd's exposure scale from 0 to 10, where 2.0 is its "OK" and an unhardened service has 9.6.
const EXPOSURE_TENTHS: &str = "--threshold=20";

#[test]
fn systemd_verifies_every_unit() {
    for (program, _) in PROGRAMS {
        let unit = installed(program);
        let mut verify = Command::new("systemd-analyze");
        let (ok, said) = outcome(verify.args(["verify", "--man=no"]).arg(&unit));
        // It ends well in spite of an unknown directive, which it only mentions.
        let about_ours: Vec<&str> = said.lines().filter(|line| line.contains(&format!("{program}.service"))).collect();
        assert!(ok && about_ours.is_empty(), "{program}: {said}");
    }
}

#[test]
fn systemd_finds_every_unit_hardened() {
    for (program, _) in PROGRAMS {
        let unit = installed(program);
        let mut security = Command::new("systemd-analyze");
        let (ok, said) = outcome(security.args(["security", "--offline=true", EXPOSURE_TENTHS]).arg(&unit));
        assert!(ok, "{program}: {said}");
    }
}

#[test]
fn units_say_what_the_programs_rely_on() {
    for (program, drain_s) in PROGRAMS {
        let source = source(program);
        let unit = directives(&source);
        let one = |key: &str| -> &str {
            let values = unit.get(key).unwrap_or_else(|| panic!("{program}: no {key}="));
            values.last().expect("a directive has a value")
        };
        assert_eq!(one("Type"), "notify", "{program}");
        assert_eq!(one("Restart"), "on-failure", "{program}");
        let never: Vec<&str> = one("RestartPreventExitStatus").split_whitespace().collect();
        assert!(never.contains(&"2") && never.contains(&"78"), "{program}: a wrong option stays wrong: {never:?}");
        assert!(!one("EnvironmentFile").is_empty(), "{program}");
        assert_eq!(one("ExecStart").split_whitespace().next(), Some(&*format!("/usr/local/bin/{program}")));
        assert!(seconds(one("TimeoutStopSec")) > drain_s, "{program}: systemd must wait longer than the drain");
        assert!(seconds(one("WatchdogSec")) > 0, "{program}");
        assert_eq!(one("NoNewPrivileges"), "yes", "{program}");
        for capabilities in [one("CapabilityBoundingSet"), unit.get("AmbientCapabilities").map_or("", |all| all[0])] {
            assert!(["", "CAP_NET_BIND_SERVICE"].contains(&capabilities), "{program}: {capabilities}");
        }
    }
}

/// The unit as it would be installed, but with the programs where they were built.
fn installed(program: &str) -> PathBuf {
    let text = source(program).replace("/usr/local/bin/", &format!("{}/", bin_dir().display()));
    // A directory for each test process is enough: two tests of one process write the same.
    let unit = scratch_dir().join(format!("{program}.service"));
    std::fs::write(&unit, text).expect("the scratch directory is writable");
    unit
}

fn source(program: &str) -> String {
    let path = workspace_root().join(format!("crates/{program}/systemd/{program}.service"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Whether a command ended well, and everything it printed.
fn outcome(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|e| panic!("no systemd-analyze ({e}): apt-get install systemd"));
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// All directives of a unit with their values, in order. An empty value forgets the ones before, as in systemd, and
/// stays as the only one.
fn directives(unit: &str) -> HashMap<&str, Vec<&str>> {
    let mut directives: HashMap<&str, Vec<&str>> = HashMap::new();
    let lines = unit.lines().filter(|line| !line.starts_with(['#', ';', '[']));
    for (key, value) in lines.filter_map(|line| line.split_once('=')) {
        let values = directives.entry(key.trim()).or_default();
        if value.is_empty() {
            values.clear();
        }
        values.push(value.trim());
    }
    directives
}

fn seconds(value: &str) -> u64 {
    let number = value.strip_suffix('s').unwrap_or(value);
    number.parse().unwrap_or_else(|_| panic!("{value}: please give plain seconds"))
}
