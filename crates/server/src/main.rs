//! The `server` program: reads its options, starts the log, runs the library.

use std::io::Write;
use std::process::ExitCode;

use server::{Config, Shutdown};

/// Whatever breaks at run time.
const BROKEN: u8 = 1;

fn main() -> ExitCode {
    let config = match server::parse(std::env::args_os()) {
        Ok(config) => config,
        Err(error) => error.exit(),
    };
    server::logging::init(config.log_format, &config.log_level);
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve(config)),
        Err(error) => fail(&format!("cannot start: {error}"), BROKEN),
    }
}

async fn serve(config: Config) -> ExitCode {
    let shutdown = match Shutdown::on_signals() {
        Ok(shutdown) => shutdown,
        Err(error) => return fail(&format!("cannot handle signals: {error}"), BROKEN),
    };
    match server::run(config, shutdown).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string(), error.exit_code()),
    }
}

/// In plain words whatever the log format: a person reads this. A closed standard error must not change the code.
fn fail(why: &str, code: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {why}");
    ExitCode::from(code)
}
