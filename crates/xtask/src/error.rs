//! What can go wrong in a developer command, and the exit code for each.

use std::fmt;
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub enum Error {
    /// The command line asks for something impossible.
    Usage(String),
    /// A port that is needed belongs to somebody else.
    PortTaken(String),
    /// A program of ours ended when it should not have; its exit code is passed on.
    Program { code: u8, message: String },
    /// A check failed or something could not be run.
    Failed(String),
}

impl Error {
    /// The codes that all our programs share: 1 at run time, 2 for usage, 69 for a port that cannot be bound.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::PortTaken(_) => 69,
            Self::Program { code, .. } => *code,
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(message) | Self::PortTaken(message) | Self::Program { message, .. } | Self::Failed(message) => {
                f.write_str(message)
            }
        }
    }
}

impl std::error::Error for Error {}
