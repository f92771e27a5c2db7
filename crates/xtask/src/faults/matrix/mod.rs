//! The fault matrix: every fault of the reliability plan with its number there, and what is demanded under it.

mod answers;
mod around;
mod clients;
mod configuration;
mod names;
mod network;
mod process;
mod servers;

use super::trial::Trial;
use crate::Error;

/// One fault.
pub(super) struct Fault {
    pub(super) number: u8,
    pub(super) name: &'static str,
    /// What is demanded, beyond what holds for every fault.
    pub(super) demand: &'static str,
    pub(super) kind: Kind,
}

pub(super) enum Kind {
    Runs(fn(&mut Trial<'_>) -> Result<(), Error>),
    /// What it is about does not exist yet.
    Later(&'static str),
}

const fn runs(
    number: u8,
    name: &'static str,
    demand: &'static str,
    run: fn(&mut Trial<'_>) -> Result<(), Error>,
) -> Fault {
    Fault { number, name, demand, kind: Kind::Runs(run) }
}

const fn later(number: u8, name: &'static str, why: &'static str) -> Fault {
    Fault { number, name, demand: "", kind: Kind::Later(why) }
}

pub(super) const FAULTS: &[Fault] = &[
    runs(1, "a server refuses connections", "no request fails, POST too: nothing was sent", servers::refuses),
    runs(2, "a server resets fresh connections", "no GET fails; a POST only if it was sent", servers::resets_fresh),
    runs(3, "SYNs to a server vanish", "nobody waits longer than the connect timeout, then nobody", network::syn_hole),
    runs(4, "a server breaks off inside its answer", "nothing cut looks whole", answers::cut),
    runs(5, "an established connection goes dead", "504 at the response timeout, and then not again", network::dead),
    runs(6, "one byte a second", "p99 of all others < 1.2×, memory flat", answers::drip),
    runs(
        7,
        "connections closed after 1–50 ms idle, or reset late",
        "no GET fails, no POST twice; no POST fails to a close",
        servers::closes_idle,
    ),
    runs(8, "one of three servers answers only 5xx", "≥ 99.9 % well once it is ejected", servers::fails),
    runs(9, "all servers are down", "503 at once, back within a check", servers::all_down),
    runs(10, "rolling restarts, graceful and SIGKILL", "no GET fails, no POST twice", servers::restarts),
    runs(11, "names that do not resolve, or change", "the last addresses stay; no request fails", names::dns),
    runs(12, "no descriptor left", "what is open goes on, CPU < 20 %, resumes by itself", process::no_descriptors),
    runs(13, "memory pressure", "it lives, and serves on", process::memory),
    runs(
        14,
        "clients go away inside bodies",
        "the server notices within 1 s; nothing is executed by half",
        clients::abort,
    ),
    runs(15, "garbage as configuration", "refused with a place and an exit code, never a crash", configuration::fuzzed),
    later(16, "missing or expired certificates", "there is no TLS yet"),
    runs(17, "the clock jumps a day", "no request fails", process::clock),
    runs(
        18,
        "SIGTERM under load",
        "what was accepted is answered; exit 0 within the drain timeout",
        clients::terminate,
    ),
    later(19, "hot reload and binary upgrade", "there is no reload and no upgrade yet"),
    later(20, "SIGKILL during an upgrade", "there is no upgrade yet"),
    runs(21, "a flood on the admin API", "no request fails, p99 as before", clients::admin_flood),
    runs(22, "a full disk for the log", "no request fails; every lost line is counted", around::full_disk),
    runs(23, "a panic in a worker", "one connection lost, counted, the process lives", around::panic),
    runs(24, "a server lies about its answer", "correct or an error; the next client is unaffected", answers::lies),
    runs(25, "one server ten times slower, one stopped (SIGSTOP)", "no request fails; p99 of all ≤ 3×", answers::herd),
    runs(26, "1 % of packets lost", "no request fails", network::loss),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_of_the_plan_is_there_in_order() {
        let numbers: Vec<u8> = FAULTS.iter().map(|fault| fault.number).collect();
        assert_eq!(numbers, (1..=26).collect::<Vec<u8>>());
    }
}
