//! Children that die with this process, even when it is killed with SIGKILL.
//!
//! The kernel offers it (`PR_SET_PDEATHSIG`), but asking from Rust takes unsafe code between fork and exec.
//! util-linux's `setpriv` asks, and then becomes the program under the same pid. It is part of every Debian, Ubuntu and
//! Fedora; without it a SIGKILL here leaves the children running.
//!
//! The kernel watches the *thread* that starts a child, so children are started from the main thread, which lives as
//! long as the process.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A command that runs `program` under this pact where the system can.
pub(crate) fn command(program: &Path) -> Command {
    if setpriv_can() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

/// Tried once: other implementations of setpriv lack the option.
fn setpriv_can() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let mut probe = Command::new("setpriv");
        probe.args(["--pdeathsig", "KILL", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        probe.status().is_ok_and(|status| status.success())
    })
}
