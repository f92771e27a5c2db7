//! Where the checkout and its build output are, and how cargo is called from inside a command that cargo started.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::Error;

/// What `cargo metadata` says about this checkout.
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// Every package of the workspace, as in the output of `cargo metadata --no-deps`.
    pub(crate) packages: Vec<Value>,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// Outside a checkout, or without cargo.
    pub(crate) fn find() -> Result<Self, Error> {
        let output = cargo()
            .args(["metadata", "--format-version", "1", "--no-deps"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| Error::Failed(format!("cannot run cargo: {e}")))?;
        let metadata: Value = serde_json::from_slice(&output.stdout)
            .map_err(|e| Error::Failed(format!("`cargo metadata` did not describe a workspace: {e}")))?;
        let path = |key: &str| metadata[key].as_str().map(PathBuf::from);
        let (Some(root), Some(target)) = (path("workspace_root"), path("target_directory")) else {
            return Err(Error::Failed("`cargo metadata` names no workspace root or no target directory".to_owned()));
        };
        Ok(Self { root, target, packages: metadata["packages"].as_array().cloned().unwrap_or_default() })
    }

    /// Where the release binaries are.
    pub(crate) fn release(&self) -> PathBuf {
        self.target.join("release")
    }
}

/// A cargo command. What cargo told this process about the package `xtask` is not passed on: build scripts that
/// watch such variables would see them change between `cargo xtask test` and `cargo build`, and compile again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let about_xtask = name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| name.starts_with(prefix)) || name == "CARGO_BIN_NAME"
        });
        if about_xtask {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}
