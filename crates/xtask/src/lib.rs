//! Developer commands, called as `cargo xtask COMMAND`: see the running system (`demo`), check everything
//! (`test`), compare with peers (`bench`), break everything (`faults`), build what is installed (`release`).
//!
//! Nothing here is part of the product, and no crate of ours is imported: the programs are built and started the way
//! a person would. `std` is preferred to crates, because this is compiled before anything else can be seen.

mod bench;
mod check;
mod demo;
mod error;
mod faults;
mod pact;
mod python;
mod release;
mod system;
mod workspace;

use std::io::Write;

use clap::{Parser, Subcommand};

pub use error::Error;

/// Developer commands of the load balancer.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build and run a load balancer, three servers and the dashboard, with gentle traffic, until Ctrl-C
    Demo(demo::Args),
    /// Everything that must be true before a change goes in: format, lints, checks, and all tests
    Test(check::Args),
    /// Build the load balancer as it is meant to be installed: laid out by what a training run has shown
    Release,
    /// Have the binary in a directory do what `bench` measures; `release` starts it
    #[command(hide = true)]
    Train { directory: std::path::PathBuf },
    /// Measure the load balancer's CPU time per request beside NGINX and HAProxy
    Bench(bench::Args),
    /// Next to nothing between clients and servers; `bench` starts it
    #[command(hide = true)]
    Relay(bench::relay::Args),
    /// Break servers, network and surroundings under load, and prove from three books that nothing was lost
    Faults(faults::Args),
    /// One server that breaks on order; `faults` starts it
    #[command(hide = true)]
    FaultOrigin(faults::origin::Args),
    /// Check that no source file is too long, and print how long they are
    Sizes,
    /// Check which crate imports which, and what lies at the top of the repository
    Layers,
}

/// Runs one command to its end.
///
/// # Errors
/// What went wrong, in words for a person, with the exit code that belongs to it.
pub fn run(cli: Cli) -> Result<(), Error> {
    match cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => check::run(&args),
        Command::Release => release::run(),
        Command::Train { directory } => bench::train(&directory),
        Command::Bench(args) => bench::run(&args),
        Command::Relay(args) => bench::relay::run(&args).map_err(|e| Error::Failed(format!("relay: {e}"))),
        Command::Faults(args) => faults::run(&args),
        Command::FaultOrigin(args) => faults::origin::run(&args),
        Command::Sizes => check::sizes::run(),
        Command::Layers => check::layers::run(),
    }
}

/// Prints one line to standard error. Unlike `eprintln!` it does not panic when nobody reads any more, because what
/// was started must still be stopped then.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
