//! Parses, initialises, runs.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use loadbalancer::config::{self, Command};
use loadbalancer::{Ended, Signals, descriptors, logging, run};

/// Assumed in every figure of the benchmarks: the system's allocator costs about a microsecond per request more.
/// Built without huge pages: at rest they are 10 of 15 MiB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Look-ups of host names at a time.
const LOOK_UPS: usize = 16;

/// Wrong flag or variable, as clap and the shell have it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let parsed = match config::parse(std::env::args_os(), |name| {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    }) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let config = match parsed {
        Ok(Command::Run(config)) => *config,
        Ok(Command::Checked(path)) => {
            let _ = writeln!(std::io::stdout(), "{}: the configuration is good", path.display());
            return ExitCode::SUCCESS;
        }
        Ok(Command::WaitDrained(asked)) => return wait_drained(&asked),
        Err(error) => {
            let _ = write!(std::io::stderr(), "loadbalancer: {error}");
            return ExitCode::from(error.exit_code());
        }
    };
    let _written_out = logging::init(&config.log);
    descriptors::raise();
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string(), 1),
    };
    let ended = runtime.block_on(async {
        let signals = Signals::new().map_err(loadbalancer::RunError::System)?;
        run(config, signals).await
    });
    // A name that is being resolved must not hold the end up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match ended {
        Ok(Ended::Drained | Ended::Cut(0)) => ExitCode::SUCCESS,
        Ok(Ended::Cut(_)) => ExitCode::FAILURE,
        Err(error) => fail(&error.to_string(), error.exit_code()),
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(LOOK_UPS).build()
}

fn wait_drained(asked: &config::WaitDrained) -> ExitCode {
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string(), 1),
    };
    let waited = runtime.block_on(loadbalancer::wait_drained(asked));
    // A name that is being resolved must not hold the end up.
    runtime.shutdown_background();
    match waited {
        Ok(words) => {
            let _ = writeln!(std::io::stdout(), "{words}");
            ExitCode::SUCCESS
        }
        Err(failed) => fail(&failed.to_string(), failed.exit_code()),
    }
}

fn fail(words: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "loadbalancer: {words}");
    ExitCode::from(code)
}
