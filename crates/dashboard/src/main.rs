//! Reads options, prepares logs and signals, and hands over to [`dashboard::run`].

use std::io::{self, Write as _};
use std::process::ExitCode;

use dashboard::{Config, ConfigError, Options, RunError, init_logging, run};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() -> ExitCode {
    let options = Options::from_environment();
    init_logging(options.log_format, options.log_level.as_deref());
    let (code, error) = match start(options) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Config(error)) => (ExitCode::from(error.exit_code()), error.to_string()),
        Err(Failure::Run(error)) => (ExitCode::from(error.exit_code()), error.to_string()),
        Err(Failure::Start(error)) => (ExitCode::FAILURE, format!("cannot start: {error}")),
    };
    // Where nobody reads it, the exit code says the same.
    let _ = writeln!(io::stderr(), "error: {error}");
    code
}

enum Failure {
    Config(ConfigError),
    Run(RunError),
    Start(io::Error),
}

fn start(options: Options) -> Result<(), Failure> {
    let config = Config::new(options, |name| std::env::var(name).ok()).map_err(Failure::Config)?;
    // One thread is plenty: the page is watched by a few people, once a second.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::Start)?;
    runtime.block_on(async {
        let terminate = signal(SignalKind::terminate()).map_err(Failure::Start)?;
        let interrupt = signal(SignalKind::interrupt()).map_err(Failure::Start)?;
        run(config, asked_to_stop(terminate, interrupt)).await.map_err(Failure::Run)
    })
}

/// Completes at the first SIGTERM or SIGINT; the second one ends the process at once.
async fn asked_to_stop(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
}
