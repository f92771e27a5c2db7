//! The Python servers that tests compare with: a virtual environment of their own below the build directory, since they
//! are no system packages and must not become any.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Error;
use crate::system::run_aloud;
use crate::workspace::Workspace;

/// What is installed, each in one version.
const REQUIREMENTS: &str = "tests/differential/servers/requirements.txt";

/// Below the build directory; the tests look there.
const ENVIRONMENT: &str = "python-servers";

/// Makes the environment unless it is there as it should be.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn provide(workspace: &Workspace) -> Result<(), Error> {
    let (wanted, environment) = (workspace.root.join(REQUIREMENTS), workspace.target.join(ENVIRONMENT));
    // Copied there last, so it is there only when all went well.
    let installed = environment.join("requirements.txt");
    let read = |path: &Path| fs::read_to_string(path).ok();
    if read(&wanted).is_some() && read(&wanted) == read(&installed) {
        return Ok(());
    }
    let mut make = Command::new("python3");
    make.args(["-m", "venv", "--clear"]).arg(&environment);
    let mut fill = Command::new(environment.join("bin/pip"));
    fill.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]).arg(&wanted);
    let made = run_aloud(&mut make) && run_aloud(&mut fill) && fs::copy(&wanted, &installed).is_ok();
    if made {
        return Ok(());
    }
    let (environment, wanted) = (environment.display(), wanted.display());
    Err(Error::Failed(format!("cannot install the Python servers of {wanted} in {environment}; see above")))
}
