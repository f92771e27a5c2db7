//! The steps of `cargo xtask test`, in the order they run: what is quick to fail comes first.

use std::process::Command;

use crate::system::{self, Need};
use crate::workspace::{Workspace, cargo};
use crate::{Error, python, say};

use super::{gates, layers, sizes};

/// One thing that must be true.
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) run: fn(&Workspace) -> Result<(), Error>,
}

pub(crate) const STEPS: &[Step] = &[
    Step { name: "format", what: "code is formatted", needs: &[system::RUSTFMT], run: format },
    Step { name: "sizes", what: "no source file is too long", needs: &[], run: sizes::check },
    Step { name: "layers", what: "crates import in one direction", needs: &[], run: layers::check },
    Step { name: "deny", what: "dependencies are allowed", needs: &[system::DENY], run: deny },
    Step { name: "lint", what: "clippy finds nothing", needs: &[system::CLIPPY], run: lint },
    Step { name: "docs", what: "documentation builds without a warning", needs: &[], run: docs },
    Step { name: "build", what: "the programs build in release", needs: &[], run: build },
    Step { name: "unit", what: "unit, property and documentation tests", needs: &[system::NEXTEST], run: unit },
    Step { name: "fuzz", what: "every parser of ours, fed with anything", needs: &[system::NEXTEST], run: fuzz },
    Step {
        name: "gates",
        what: "a request costs no more than its bounds, counted",
        needs: &[system::VALGRIND, system::STRACE],
        run: gates::check,
    },
    Step { name: "e2e", what: "end-to-end and browser tests against the release programs", needs: E2E_NEEDS, run: e2e },
    Step { name: "faults", what: "every fault once, under load", needs: crate::faults::NEEDS, run: faults },
];

const E2E_NEEDS: &[Need] = &[
    system::NEXTEST,
    system::BROWSER,
    system::CHROMEDRIVER,
    system::SYSTEMD,
    system::HAPROXY,
    system::NGINX,
    system::APACHE,
    system::LIGHTTPD,
    system::LIGHTTPD_LUA,
    system::NODE,
    system::PYTHON_VENV,
];

/// The targets of `lb-fuzz`, by their names.
const FUZZ: &str = "test(/(^|::)fuzz_/)";

/// For each target: a minute. There are a dozen, and two cores run two at a time, so that it is six in all. Who waits for
/// it sets `LB_FUZZ_SECONDS` lower.
const FUZZ_SECONDS: &str = "60";

/// The names, for `--only`.
pub(crate) fn names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).collect()
}

fn format(workspace: &Workspace) -> Result<(), Error> {
    run(workspace, cargo().args(["fmt", "--all", "--check"]))
}

fn lint(workspace: &Workspace) -> Result<(), Error> {
    run(workspace, cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

/// Advisories need the network and redden a change that did nothing wrong: they are a nightly job instead.
fn deny(workspace: &Workspace) -> Result<(), Error> {
    run(workspace, cargo().args(["deny", "--config", ".deny.toml", "check", "bans", "licenses", "sources"]))
}

fn docs(workspace: &Workspace) -> Result<(), Error> {
    run(workspace, cargo().args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}

/// The default members are the three programs. xtask apart from them: built together, cargo would give both the union
/// of their features, and compile everything again for the next `cargo run --bin …`.
fn build(workspace: &Workspace) -> Result<(), Error> {
    run(workspace, cargo().args(["build", "--release"]))?;
    run(workspace, cargo().args(["build", "--release", "--package", "xtask"]))
}

// `--workspace` with a filter, instead of `--exclude` and `--package`: with one selection of packages there is one set
// of features, and the dependencies are compiled once for all tests.

fn unit(workspace: &Workspace) -> Result<(), Error> {
    let tests = run(workspace, nextest().args(["--filterset", &format!("not package(e2e) and not {FUZZ}")]));
    let docs = run(workspace, cargo().args(["test", "--workspace", "--doc", "--quiet"]));
    tests.and(docs)
}

/// All at once, as many as there are cores. `LB_FUZZ_SECONDS` says how long each, of [`FUZZ_SECONDS`] otherwise.
fn fuzz(workspace: &Workspace) -> Result<(), Error> {
    let mut tests = nextest();
    tests.args(["--filterset", FUZZ]);
    if std::env::var_os("LB_FUZZ_SECONDS").is_none() {
        tests.env("LB_FUZZ_SECONDS", FUZZ_SECONDS);
    }
    run(workspace, &mut tests)
}

fn e2e(workspace: &Workspace) -> Result<(), Error> {
    let mut tests = nextest();
    tests.args(["--filterset", "package(e2e)"]).env("E2E_BIN_DIR", workspace.release());
    python::provide(workspace)?;
    // Without these a machine without a browser, or without a server to compare with, would skip what it cannot see.
    run(workspace, tests.env("E2E_REQUIRE_BROWSER", "1").env("E2E_REQUIRE_SERVERS", "1"))
}

/// In a process of its own: it moves to namespaces that the other steps must not be in.
fn faults(workspace: &Workspace) -> Result<(), Error> {
    let release = workspace.release();
    let mut faults = Command::new(release.join("xtask"));
    run(workspace, faults.args(["faults", "--short", "--programs"]).arg(&release))
}

fn nextest() -> Command {
    let mut command = cargo();
    command.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    command
}

fn run(workspace: &Workspace, command: &mut Command) -> Result<(), Error> {
    let words = system::words(command);
    say(&format!("$ {words}"));
    match command.current_dir(&workspace.root).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Error::Failed(format!("`{words}`: {status}"))),
        Err(e) => Err(Error::Failed(format!("cannot run `{words}`: {e}"))),
    }
}
