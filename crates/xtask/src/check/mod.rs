//! `cargo xtask test`: every step runs, whatever the ones before found, and a table at the end says how each went.
//!
//! Continuous integration calls the same command, so a green run here is a green run there.

mod gates;
pub(crate) mod layers;
pub(crate) mod sizes;
mod steps;

use std::time::{Duration, Instant};

use crate::workspace::Workspace;
use crate::{Error, say, system};
use steps::{STEPS, Step};

/// Options of `test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only this step; may be repeated
    #[arg(long, value_name = "STEP", value_parser = steps::names())]
    only: Vec<String>,

    /// List the steps instead of running them
    #[arg(long)]
    list: bool,
}

/// How a step went.
struct Outcome {
    step: &'static str,
    took: Duration,
    failure: Option<String>,
}

/// # Errors
/// When any step failed.
pub(crate) fn run(args: &Args) -> Result<(), Error> {
    if args.list {
        for step in STEPS {
            println!("{:8}{}", step.name, step.what);
        }
        return Ok(());
    }
    let chosen: Vec<&Step> =
        STEPS.iter().filter(|step| args.only.is_empty() || args.only.iter().any(|name| name == step.name)).collect();
    let mut needs: Vec<system::Need> = Vec::new();
    for need in chosen.iter().flat_map(|step| step.needs) {
        if !needs.contains(need) {
            needs.push(*need);
        }
    }
    let mut outcomes = vec![timed("setup", "what the steps need is installed", || system::provide(&needs))];
    let workspace = Workspace::find()?;
    outcomes.extend(chosen.iter().map(|step| timed(step.name, step.what, || (step.run)(&workspace))));
    say(&summary(&outcomes));
    let failed: Vec<&str> = outcomes.iter().filter(|o| o.failure.is_some()).map(|o| o.step).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::Failed(format!("failed: {}", failed.join(", ")))) }
}

fn timed(step: &'static str, what: &str, run: impl FnOnce() -> Result<(), Error>) -> Outcome {
    say(&format!("\n=== {step}: {what}"));
    let start = Instant::now();
    let failure = run().err().map(|e| e.to_string());
    let took = start.elapsed();
    match &failure {
        None => say(&format!("=== {step}: ok in {:.1} s", took.as_secs_f64())),
        Some(failure) => say(&format!("=== {step}: FAILED in {:.1} s: {failure}", took.as_secs_f64())),
    }
    Outcome { step, took, failure }
}

fn summary(outcomes: &[Outcome]) -> String {
    let line = |outcome: &Outcome| {
        let verdict = outcome.failure.as_ref().map_or_else(|| "ok".to_owned(), |failure| format!("FAILED  {failure}"));
        format!("\n  {:8}{:>7.1} s  {verdict}", outcome.step, outcome.took.as_secs_f64())
    };
    let total: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    let lines: String = outcomes.iter().map(line).collect();
    format!("\n=== summary{lines}\n  {:8}{:>7.1} s", "total", total.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_does_not_hide_the_others() {
        let outcome = |step, failure: Option<&str>| Outcome {
            step,
            took: Duration::from_millis(1500),
            failure: failure.map(str::to_owned),
        };
        let text = summary(&[outcome("lint", Some("clippy found something")), outcome("unit", None)]);
        let expected = "
=== summary
  lint        1.5 s  FAILED  clippy found something
  unit        1.5 s  ok
  total       3.0 s";
        assert_eq!(text, expected);
    }
}
