//! What must be installed for a command to run: system packages through apt, and cargo's own tools.
//!
//! Whatever is missing is installed when this user may do that, and named exactly when not. Nothing that is there
//! already is touched, whatever its version.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::workspace::cargo;
use crate::{Error, say};

/// Something that a command runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// One of `programs` on the path, from these Debian packages.
    System { programs: &'static [&'static str], packages: &'static [&'static str] },
    /// A command that ends well once these Debian packages are there: for what is no program on the path.
    Runs { command: &'static [&'static str], packages: &'static [&'static str] },
    /// A cargo subcommand, from this crate in this version.
    CargoTool { program: &'static str, krate: &'static str, version: &'static str },
    /// A cargo subcommand that rustup brings.
    Component { subcommand: &'static str, component: &'static str },
}

pub(crate) const RUSTFMT: Need = Need::Component { subcommand: "fmt", component: "rustfmt" };
pub(crate) const CLIPPY: Need = Need::Component { subcommand: "clippy", component: "clippy" };

// Pinned: the same commit gives the same verdict tomorrow. Only for machines that have none.
pub(crate) const NEXTEST: Need =
    Need::CargoTool { program: "cargo-nextest", krate: "cargo-nextest", version: "0.9.143" };
pub(crate) const DENY: Need = Need::CargoTool { program: "cargo-deny", krate: "cargo-deny", version: "0.20.2" };

pub(crate) const BROWSER: Need =
    Need::System { programs: &["chromium", "chromium-browser", "google-chrome"], packages: &["chromium"] };
pub(crate) const CHROMEDRIVER: Need = Need::System { programs: &["chromedriver"], packages: &["chromium-driver"] };
pub(crate) const VALGRIND: Need = Need::System { programs: &["valgrind"], packages: &["valgrind"] };
pub(crate) const STRACE: Need = Need::System { programs: &["strace"], packages: &["strace"] };
pub(crate) const HAPROXY: Need = Need::System { programs: &["haproxy"], packages: &["haproxy"] };
pub(crate) const SYSTEMD: Need = Need::System { programs: &["systemd-analyze"], packages: &["systemd"] };

// The servers of the differential test; the Python ones come from `python`.
pub(crate) const NGINX: Need = Need::System { programs: &["nginx"], packages: &["nginx-light"] };
pub(crate) const APACHE: Need = Need::System { programs: &["apache2"], packages: &["apache2-bin"] };
pub(crate) const LIGHTTPD: Need = Need::System { programs: &["lighttpd"], packages: &["lighttpd"] };
pub(crate) const LIGHTTPD_LUA: Need =
    Need::Runs { command: &["test", "-f", "/usr/lib/lighttpd/mod_magnet.so"], packages: &["lighttpd-modules-lua"] };
pub(crate) const NODE: Need = Need::System { programs: &["node"], packages: &["nodejs"] };
pub(crate) const PYTHON_VENV: Need =
    Need::Runs { command: &["python3", "-c", "import ensurepip, venv"], packages: &["python3", "python3-venv"] };

/// Packages of which Debian starts a service, and its name.
const SERVICES: [(&str, &str); 4] =
    [("nginx-light", "nginx"), ("haproxy", "haproxy"), ("caddy", "caddy"), ("lighttpd", "lighttpd")];

/// Installs what is missing of `needs`.
///
/// # Errors
/// When something is missing and could not be installed: what, and the commands that would do it.
pub(crate) fn provide(needs: &[Need]) -> Result<(), Error> {
    let missing: Vec<Need> = needs.iter().copied().filter(|need| !need.is_met()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    apt_install(&missing);
    for need in missing.iter().filter_map(Need::cargo_arguments) {
        run_aloud(cargo().args(need));
    }
    for component in missing.iter().filter_map(Need::component) {
        run_aloud(Command::new("rustup").args(["component", "add", component]));
    }
    let still_missing: Vec<Need> = missing.into_iter().filter(|need| !need.is_met()).collect();
    if still_missing.is_empty() { Ok(()) } else { Err(Error::Failed(advice(&still_missing))) }
}

impl Need {
    fn is_met(&self) -> bool {
        match self {
            Self::System { programs, .. } => programs.iter().any(|program| on_path(program)),
            Self::Runs { command, .. } => {
                let mut run = Command::new(command[0]);
                run.args(&command[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                run.status().is_ok_and(|status| status.success())
            }
            Self::CargoTool { program, .. } => on_path(program),
            // It must run: rustup puts something of that name on the path whether it is installed or not.
            Self::Component { subcommand, .. } => {
                let mut version = cargo();
                version.args([subcommand, "--version"]).stdout(Stdio::null()).stderr(Stdio::null());
                version.status().is_ok_and(|status| status.success())
            }
        }
    }

    fn packages(&self) -> &'static [&'static str] {
        match self {
            Self::System { packages, .. } | Self::Runs { packages, .. } => packages,
            Self::CargoTool { .. } | Self::Component { .. } => &[],
        }
    }

    fn cargo_arguments(&self) -> Option<[&'static str; 5]> {
        let Self::CargoTool { krate, version, .. } = self else { return None };
        Some(["install", "--locked", krate, "--version", version])
    }

    fn component(&self) -> Option<&'static str> {
        if let Self::Component { component, .. } = self { Some(component) } else { None }
    }
}

/// Installs the Debian packages of `missing`, as root or with a sudo that does not ask. Leaves quietly what it may
/// not do: the caller looks at what is still missing.
fn apt_install(missing: &[Need]) {
    let packages: Vec<&str> = missing.iter().flat_map(Need::packages).copied().collect();
    if packages.is_empty() || !on_path("apt-get") {
        return;
    }
    let is_root = Path::new("/proc/self").metadata().is_ok_and(|metadata| metadata.uid() == 0);
    let sudo: &[&str] = if is_root {
        &[]
    } else if may_sudo() {
        &["sudo", "-n"]
    } else {
        return;
    };
    let apt = |arguments: &[&str]| {
        let words = [sudo, &["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"], arguments].concat();
        run_aloud(Command::new(words[0]).args(&words[1..]))
    };
    if !apt(&["update"]) || !apt(&[&["install", "--yes", "--no-install-recommends"], packages.as_slice()].concat()) {
        return;
    }
    // Debian starts the service of a package that it installs, on port 80. Nobody asked for that.
    if Path::new("/run/systemd/system").exists() {
        for (_, service) in SERVICES.iter().filter(|(package, _)| packages.contains(package)) {
            let words = [sudo, &["systemctl", "disable", "--now", service]].concat();
            run_aloud(Command::new(words[0]).args(&words[1..]));
        }
    }
}

fn may_sudo() -> bool {
    let mut sudo = Command::new("sudo");
    sudo.args(["-n", "true"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    sudo.status().is_ok_and(|status| status.success())
}

/// Runs a command with its output on the screen; whether it ended well.
pub(crate) fn run_aloud(command: &mut Command) -> bool {
    say(&format!("installing: {}", words(command)));
    succeeds(command)
}

/// The same without a word about it.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    // Output belongs to standard error: standard output is for results.
    match command.stdin(Stdio::null()).stdout(std::io::stderr()).status() {
        Ok(status) => status.success(),
        Err(e) => {
            say(&format!("cannot run {}: {e}", command.get_program().display()));
            false
        }
    }
}

/// A command as a person would type it. For messages: nothing is quoted.
pub(crate) fn words(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_else(|| command.get_program());
    let words: Vec<_> = std::iter::once(program).chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

/// The exact commands that install what is missing.
fn advice(missing: &[Need]) -> String {
    let mut lines = Vec::new();
    let packages: Vec<&str> = missing.iter().flat_map(Need::packages).copied().collect();
    if !packages.is_empty() {
        lines.push(format!("sudo apt-get install {}", packages.join(" ")));
    }
    lines.extend(missing.iter().filter_map(Need::cargo_arguments).map(|words| format!("cargo {}", words.join(" "))));
    lines.extend(missing.iter().filter_map(Need::component).map(|name| format!("rustup component add {name}")));
    format!("something is missing and could not be installed. Please run:\n  {}", lines.join("\n  "))
}

/// Whether a program is on the path, or where `cargo install` puts it: cargo looks there as well.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = |name: &str, below: &str| std::env::var_os(name).map(|home| Path::new(&home).join(below));
    // Debian keeps nginx and haproxy in /usr/sbin, which is not on every user's path.
    let more = [home("CARGO_HOME", "bin"), home("HOME", ".cargo/bin"), Some("/usr/sbin".into())];
    std::env::split_paths(&path).chain(more.into_iter().flatten()).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_commands_that_install_it() {
        let text = advice(&[BROWSER, CHROMEDRIVER, DENY, CLIPPY]);
        assert!(text.contains("\n  sudo apt-get install chromium chromium-driver\n"), "{text}");
        assert!(text.contains("\n  cargo install --locked cargo-deny --version 0.20.2\n"), "{text}");
        assert!(text.ends_with("\n  rustup component add clippy"), "{text}");
    }

    #[test]
    fn what_is_there_is_left_alone() {
        let there = Need::System { programs: &["no-such-program", "sh"], packages: &["no-such-package"] };
        let runs = Need::Runs { command: &["test", "-d", "/"], packages: &["no-such-package"] };
        assert!(there.is_met() && runs.is_met());
        assert!(provide(&[there, runs]).is_ok());
        assert!(!Need::Runs { command: &["test", "-f", "/"], packages: &[] }.is_met());
    }
}
