//! Garbage as configuration: each proxy's own check of a file has to refuse it in words, and never crash.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::super::ident::Numbers;
use super::super::peers::{self, Haproxy};
use super::super::proxy::Timing;
use super::super::trial::{Depth, Trial};
use crate::Error;
use crate::bench::contender::Contender;
use crate::bench::site::nginx_config;

/// A check of a small file takes milliseconds; this is a hang.
const HANGS_AFTER: Duration = Duration::from_secs(10);

/// What is mutated: some of everything.
const OURS: &str = "[proxy]\nport = 8080\nbind = \"127.0.0.1\"\nworkers = 2\ntrusted_proxies = [\"10.0.0.0/8\"]\n\n\
    [[pool]]\nbackends = [\"10.0.0.1:3000\", \"10.0.0.2:3000,weight=2,name=big\"]\n\n[timeouts]\n\
    response_head = \"10s\"\nconnect = \"1s\"\n\n[health]\ninterval = \"2s\"\nrise = 2\nfall = 3\njitter = 0.1\n\n\
    [limits]\nhead = \"32KiB\"\nbody = \"1MiB\"\n\n[retry]\nmax = 1\n\n[log]\nlevel = \"info\"\n";

/// Pieces that are put where they do not belong.
const PIECES: [&str; 14] = [
    "[",
    "]]",
    "=",
    "\"",
    "'''",
    "\n",
    "-1",
    "99999999999999999999",
    "1e999",
    "true",
    "\u{feff}",
    "\0",
    "é",
    "unknown_key = 1\n",
];

pub(super) fn fuzzed(trial: &mut Trial<'_>) -> Result<(), Error> {
    let count = if trial.depth == Depth::Short { 100 } else { 400 };
    let dir = &trial.ground.dir;
    let backends = ["127.0.0.1:3000".to_owned()];
    let text = match trial.contender {
        Contender::Haproxy => peers::haproxy(
            8080,
            &Haproxy {
                workers: 1,
                timing: Timing::QUICK,
                backends: &backends,
                by_name: false,
                steady: false,
                by_load: false,
            },
        ),
        Contender::Nginx => {
            nginx_config(dir.path(), "fuzzed", &peers::nginx(8080, &Timing::QUICK, &backends, (false, false)))
        }
        Contender::Loadbalancer | Contender::Caddy => OURS.to_owned(),
    };
    let mut numbers = Numbers::new(trial.ground.next_run());
    let (mut refused, mut taken) = (0, 0);
    for number in 0..count {
        let bytes = mutate(text.as_bytes(), &mut numbers);
        let file = dir.path().join("fuzzed.conf");
        std::fs::write(&file, &bytes).map_err(|e| Error::Failed(format!("{}: {e}", file.display())))?;
        let mut check = match trial.contender {
            Contender::Haproxy => Command::new("haproxy"),
            Contender::Nginx => Command::new("nginx"),
            Contender::Loadbalancer | Contender::Caddy => Command::new(trial.ground.release.join("loadbalancer")),
        };
        match trial.contender {
            Contender::Haproxy => check.args(["-c", "-f"]),
            Contender::Nginx => check.args(["-t", "-c"]),
            Contender::Loadbalancer | Contender::Caddy => check.arg("check"),
        };
        let output = within(check.arg(&file))?;
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        match output {
            None => trial.report.demand(false, || format!("the check of file {number} hangs: {:?}", shown())),
            Some(output) if output.status.success() => taken += 1,
            Some(output) => {
                refused += 1;
                let problem = problem(trial.contender, &output);
                trial.report.demand(problem.is_none(), || {
                    format!("file {number} {}: {:?}", problem.unwrap_or_default(), shown())
                });
            }
        }
    }
    trial.demand_felt(refused > count / 4);
    trial.report.note(format!("{refused} of {count} files were refused, {taken} were still good"));
    Ok(())
}

/// What is wrong with how a file was refused.
fn problem(contender: Contender, output: &Output) -> Option<String> {
    if let Some(signal) = output.status.signal() {
        return Some(format!("killed its check with signal {signal}"));
    }
    let said = [output.stdout.as_slice(), &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if said.contains("panicked") {
        return Some(format!("made its check panic: {said}"));
    }
    if said.trim().is_empty() {
        return Some("was refused without a word".to_owned());
    }
    // 78 is EX_CONFIG of sysexits.h, and each of ours names the file or the key.
    let is_ours = contender == Contender::Loadbalancer;
    if is_ours && output.status.code() != Some(78) {
        return Some(format!("was refused with {} instead of 78: {}", output.status, said.trim()));
    }
    None
}

fn within(command: &mut Command) -> Result<Option<Output>, Error> {
    let failed = |e| Error::Failed(format!("cannot check a configuration: {e}"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env("PATH", format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default()));
    let mut child = command.spawn().map_err(failed)?;
    let deadline = Instant::now() + HANGS_AFTER;
    // What a check says fits into a pipe.
    while child.try_wait().map_err(failed)?.is_none() {
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    child.wait_with_output().map(Some).map_err(failed)
}

/// One to four changes.
fn mutate(text: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(bytes.len() as u64 + 1) as usize;
        let length = (numbers.below(24) as usize).min(bytes.len() - at);
        match numbers.below(6) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..at + length)),
            2 => {
                let again = bytes[at..at + length].to_vec();
                bytes.splice(at..at, again);
            }
            3 => {
                let piece = PIECES[numbers.below(PIECES.len() as u64) as usize];
                bytes.splice(at..at, piece.bytes());
            }
            4 => bytes.splice(at..at, std::iter::repeat_n(b'9', 40 + length)).for_each(drop),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = numbers.below(256) as u8;
                }
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_are_the_same_for_the_same_seed_and_differ_otherwise() {
        let of = |seed| {
            let mut numbers = Numbers::new(seed);
            (0..50).map(|_| mutate(OURS.as_bytes(), &mut numbers)).collect::<Vec<_>>()
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
    }
}
