//! What a figure has to be read with: when, on what, and how busy that was.

use std::fs;
use std::process::Command;

use super::results::Machine;

/// Load average of a machine that nobody else uses; a build just before leaves about this much.
const QUIET: f64 = 1.0;

pub(crate) fn machine(cores: usize) -> Machine {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    Machine {
        cpu: cpu(&read("/proc/cpuinfo")).unwrap_or("unknown").to_owned(),
        cores,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        load_before: load(&read("/proc/loadavg")).unwrap_or_default(),
    }
}

/// A warning when others used the cores that were measured.
pub(crate) fn warning(machine: &Machine) -> Option<String> {
    let load = machine.load_before;
    (load > QUIET).then(|| format!("this machine was busy (load average {load}): these figures are mostly noise"))
}

/// Year, month and day.
pub(crate) fn today() -> String {
    let output = Command::new("date").args(["-u", "+%F"]).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).trim().to_owned()
}

fn cpu(cpuinfo: &str) -> Option<&str> {
    cpuinfo.lines().find_map(|line| Some(line.strip_prefix("model name")?.split_once(':')?.1.trim()))
}

fn load(loadavg: &str) -> Option<f64> {
    loadavg.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_machine_is_warned_of() {
        let with = |load_before| warning(&Machine { load_before, ..machine(2) });
        assert_eq!(with(load("0.35 2.19 1.45 1/300 4242\n").unwrap()), None);
        assert!(with(load("3.21 2.19 1.45 1/300 4242\n").unwrap()).unwrap().contains("3.21"));
    }

    #[test]
    fn the_processor_is_named() {
        assert_eq!(cpu("processor\t: 0\nmodel name\t: Fast CPU @ 3GHz\n"), Some("Fast CPU @ 3GHz"));
        assert_eq!(cpu(""), None);
        assert_eq!(today().len(), "2026-01-02".len());
    }
}
